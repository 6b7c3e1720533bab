package build

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/fedlab-dev/fedlab"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// shop is a source with two programs that share a package.
func shop() fstest.MapFS {
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		"go.mod":                            "module example.test/shop\n\ngo 1.26\n",
		"go.sum":                            "",
		"apps/till/main.go":                 "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.test/shop/apps/prices/list\"\n)\n\nfunc main() { fmt.Println(list.Bread) }\n",
		"apps/till/main_test.go":            "package main\n",
		"apps/till/page/index.html":         "<p>till</p>\n",
		"apps/prices/main.go":               "package main\n\nfunc main() {}\n",
		"apps/prices/list/list.go":          "package list\n\nimport \"example.test/shop/apps/internal/money\"\n\nconst Bread = 3 * money.Cent\n",
		"apps/internal/money/money.go":      "package money\n\nconst Cent = 1\n",
		"apps/internal/shoptest/helpers.go": "package shoptest\n",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

func TestProgramIsBuiltFromWhatItImports(t *testing.T) {
	files, err := Program{Name: "till", Code: shop()}.files()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"apps/internal/money/money.go", "apps/prices/list/list.go", "apps/till/main.go", "apps/till/page/index.html", "go.mod", "go.sum",
	}
	if !slices.Equal(files, want) {
		t.Errorf("files %q, want %q", files, want)
	}
}

// A demo program whose image kept its name when its source changed would not be
// rolled out; one whose image changed for nothing would be for no reason.
func TestProgramKey(t *testing.T) {
	till := func(code fs.FS) string { return mustKey(t, Program{Name: "till", Code: code}.Key) }
	was := till(shop())
	tests := map[string]bool{
		"go.mod": true, "go.sum": true,
		"apps/till/main.go": true, "apps/till/page/index.html": true, "apps/prices/list/list.go": true, "apps/internal/money/money.go": true,
		"apps/till/main_test.go": false, "apps/prices/main.go": false, "apps/internal/shoptest/helpers.go": false,
	}
	for file, changes := range tests {
		code := shop()
		code[file].Data = append(slices.Clone(code[file].Data), "\n"...)
		if changed := till(code) != was; changed != changes {
			t.Errorf("a change of %s changes the key: %t, want %t", file, changed, changes)
		}
	}
	code := shop()
	code["apps/till/page/new.css"] = &fstest.MapFile{}
	if till(code) == was {
		t.Error("a new file next to the program does not change its key")
	}
	if mustKey(t, Program{Name: "prices", Code: shop()}.Key) == was {
		t.Error("two programs have the same key")
	}
}

func TestProgramKeyOfAbsentProgram(t *testing.T) {
	_, err := Program{Name: "bank", Code: shop()}.Key()
	if want := "read source of bank: open apps/bank: file does not exist"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// The real programs share a package, which is in the key of each.
func TestProgramKeyOfFedlabsOwn(t *testing.T) {
	files, err := Program{Name: "broker-webapp", Code: fedlab.Source}.files()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"apps/stock-quotes/quotes/quotes.pb.go", "apps/internal/identity/source.go", "apps/broker-webapp/main.go"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s does not count", want)
		}
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "apps/internal/apptest/") || file == "apps/stock-quotes/main.go" {
			t.Errorf("%s counts", file)
		}
	}
}

// Neither the folder nor anything else of the build leaves a trace: what two
// machines build has the same digest.
func TestProgramBuildIsReproducible(t *testing.T) {
	var digests []string
	for range 2 {
		s := newStore(t)
		d := Program{Name: "till", Code: shop()}
		dir, err := s.Make(t.Context(), d.Name, "k", d.Fill)
		if err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "bin" {
			t.Errorf("artifact has %v, error %v, want bin alone", left, err)
		}
		img, err := layer.Onto(empty.Image, ProgramPath(dir, d.Name), "/till", nil)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest.String())
		program, err := os.ReadFile(filepath.Join(dir, "bin", "till"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(program), s.Root()) {
			t.Errorf("the program says that it was built in %s", s.Root())
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("digests %q, want the same", digests)
	}
}
