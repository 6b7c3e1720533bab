package node

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { imagestest.Main(m, nil) }

var files = Files{Kubernetes: "v1.36.3", Pause: "registry.k8s.io/pause:3.10.2"}

// moduleFolder is where the module cache has a module that fedlab requires.
func moduleFolder(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		t.Fatalf("find module %s: %v", path, err)
	}
	return strings.TrimSpace(string(out))
}

// TestNodeFiles compares what is put into a node with a list: what a new
// version of kind adds or moves is to be looked at.
func TestNodeFiles(t *testing.T) {
	kindFiles := filepath.Join(moduleFolder(t, "sigs.k8s.io/kind"), "images", "base", "files")
	bin := t.TempDir()
	for _, name := range []string{"kubeadm", "kubelet", "kubectl", "kube-apiserver"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	if err := files.Write(&buf, kindFiles, bin, []byte(`{"process": {"rlimits": []}}`)); err != nil {
		t.Fatal(err)
	}
	list := strings.Join(imagestest.Entries(t, bytes.NewReader(buf.Bytes())), "\n") + "\n"
	imagestest.Golden(t, *update, filepath.Join("testdata", "files.golden"), []byte(list))

	texts := map[string]string{
		"usr/bin/kubelet":              "kubelet",
		"kind/version":                 files.Kubernetes,
		"etc/containerd/cri-base.json": `{"process":{}}`,
	}
	for name, want := range texts {
		if got := fileInTar(t, buf.Bytes(), name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	if config := fileInTar(t, buf.Bytes(), "etc/containerd/config.toml"); !strings.Contains(config, `sandbox_image = "`+files.Pause+`"`) {
		t.Errorf("containerd would look for another pause image than %s:\n%s", files.Pause, config)
	}
	// What lies over the one is the other one, with another way to make control groups.
	systemd, cgroupfs := fileInTar(t, buf.Bytes(), "etc/containerd/config.toml"), fileInTar(t, buf.Bytes(), "etc/containerd/config-cgroupfs.toml")
	if systemd == cgroupfs || strings.Replace(systemd, "SystemdCgroup = true", "SystemdCgroup = false", 1) != cgroupfs {
		t.Errorf("with systemd\n%s\nwithout\n%s", systemd, cgroupfs)
	}
}

func TestNodeFilesWithoutKubernetes(t *testing.T) {
	err := files.Write(io.Discard, t.TempDir(), "/nowhere", []byte(`{"process": {}}`))
	if err == nil || !strings.HasPrefix(err.Error(), "collect node files: ") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want that files are missing", err)
	}
}

func TestContainerSpec(t *testing.T) {
	tests := map[string]struct{ in, want, err string }{
		"limits go": {in: `{"process": {"cwd": "/", "rlimits": [{"type": "RLIMIT_NOFILE"}]}, "root": {}}`, want: `{"process":{"cwd":"/"},"root":{}}`},
		"no process": {
			in: `{"root": {}}`, err: "read containerd's default container specification: it has no process",
		},
		"no JSON": {in: `oops`, err: "read containerd's default container specification: invalid character 'o' looking for beginning of value"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := containerSpec([]byte(tt.in))
			if string(got) != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if text := imagestest.ErrorText(err); text != tt.err {
				t.Errorf("error %q, want %q", text, tt.err)
			}
		})
	}
}

// fileInTar is what a file of a tar archive holds.
func fileInTar(t *testing.T, data []byte, name string) string {
	t.Helper()
	for archive := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("the archive has no %s", name)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == name {
			text, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
}
