package guide_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/e2e/guide"
)

func TestCopyLeavesOutWhatIsNotSource(t *testing.T) {
	root, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	for name, mode := range map[string]fs.FileMode{
		"go.mod": 0o644, "hack/run.sh": 0o755, ".github/ci.yaml": 0o644, "lab/bin/keep": 0o644,
		".git/HEAD": 0o644, "bin/fedlab": 0o755, "evidence/junit.xml": 0o644, "records/lesson/report.html": 0o644,
	} {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := guide.Copy(to, root); err != nil {
		t.Fatal(err)
	}
	var copied []string
	err := fs.WalkDir(os.DirFS(to), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			data, readErr := os.ReadFile(filepath.Join(to, name))
			if string(data) != name {
				t.Errorf("%s holds %q, %v", name, data, readErr)
			}
			copied = append(copied, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{".github/ci.yaml", "go.mod", "hack/run.sh", "lab/bin/keep"}; !slices.Equal(copied, want) {
		t.Errorf("copied %q, want %q", copied, want)
	}
	if info, err := os.Stat(filepath.Join(to, "hack", "run.sh")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("hack/run.sh: %v, %v; want mode 755", info.Mode(), err)
	}
}
