package kindcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.yaml.in/yaml/v3"
)

func TestKubeconfig(t *testing.T) {
	k := &fakeKind{}
	if config, err := k.provider().Kubeconfig("quotes-market"); err != nil || string(config) != "kubeconfig" {
		t.Errorf("kubeconfig %q, error %v", config, err)
	}
	k.failures = map[string]error{"KubeConfig": commandFailed("is not running")}
	_, err := k.provider().Kubeconfig("quotes-market")
	if want := `read kubeconfig of cluster quotes-market: command "docker run" failed with error: exit status 1: is not running`; message(err) != want {
		t.Errorf("error %q, want %q", message(err), want)
	}
}

func TestExportKubeconfig(t *testing.T) {
	k := &fakeKind{}
	p := k.provider()
	if err := p.ExportKubeconfig(t.Context(), "/some/config", "a", "b"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"ExportKubeConfig a", "ExportKubeConfig b"}; !slices.Equal(k.calls, want) {
		t.Errorf("calls %v, want %v", k.calls, want)
	}
	k.failures = map[string]error{"ExportKubeConfig b": errors.New("read-only")}
	if err := p.ExportKubeconfig(t.Context(), "", "a", "b"); message(err) != "export context kind-b: read-only" {
		t.Errorf("error %v", err)
	}
}

func TestKubeconfigLocked(t *testing.T) {
	locked := fmt.Errorf("lock config: %w", &fs.PathError{Op: "open", Path: "config.lock", Err: fs.ErrExist})
	t.Run("for a moment", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			err := whileLocked(t.Context(), func() error {
				if tries++; tries < 3 {
					return locked
				}
				return nil
			})
			if err != nil || tries != 3 {
				t.Errorf("error %v after %d tries", err, tries)
			}
		})
	})
	t.Run("for good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := &fakeKind{failures: map[string]error{"ExportKubeConfig a": locked}}
			err := k.provider().ExportKubeconfig(t.Context(), "", "a")
			want := "export context kind-a: kubeconfig stayed locked for 5s, perhaps by a program that was killed: lock config: open config.lock: file already exists"
			if message(err) != want {
				t.Errorf("error %q, want %q", message(err), want)
			}
		})
	})
	t.Run("until the user gives up", func(t *testing.T) {
		err := whileLocked(ended(t.Context()), func() error { return locked })
		if want := "user gave up\nlock config: open config.lock: file already exists"; message(err) != want {
			t.Errorf("error %q, want %q", message(err), want)
		}
	})
}

func TestRemoveKubeconfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	k := &fakeKind{}
	p := k.provider()
	if err := p.RemoveKubeconfig(t.Context(), path, "a"); err != nil || len(k.calls) != 0 {
		t.Errorf("no file: error %v, calls %v", err, k.calls)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", strings.Join([]string{"/nowhere", path}, string(filepath.ListSeparator)))
	if err := p.RemoveKubeconfig(t.Context(), "", "a", "b"); err != nil || !slices.Equal(k.calls, []string{"ListNodes", "Delete", "ListNodes", "Delete"}) {
		t.Errorf("error %v, calls %v", err, k.calls)
	}
	k.node = &fakeNode{kind: k}
	err := p.RemoveKubeconfig(t.Context(), path, "a")
	if want := "remove context kind-a: node quotes-market-control-plane still exists"; message(err) != want || k.node == nil {
		t.Errorf("error %q, want %q, node %v", message(err), want, k.node)
	}
}

// TestRealRemoveKubeconfig lets kind itself edit a kubeconfig. kind asks Docker
// for the nodes first.
func TestRealRemoveKubeconfig(t *testing.T) {
	if out, err := osexec.CommandContext(t.Context(), "docker", "version").CombinedOutput(); err != nil && os.Getenv("CI") != "true" {
		t.Skipf("docker version: %v: %s", err, out)
	}
	type named struct {
		Name string `yaml:"name"`
	}
	var config struct {
		Clusters       []named `yaml:"clusters"`
		Contexts       []named `yaml:"contexts"`
		Users          []named `yaml:"users"`
		CurrentContext string  `yaml:"current-context"`
	}
	config.CurrentContext = "kind-fedlab-test-absent"
	config.Clusters = []named{{"kind-fedlab-test-absent"}, {"theirs"}}
	config.Contexts, config.Users = config.Clusters, config.Clusters
	before, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}

	k := &fakeKind{}
	p := New(k.provider().log)
	if err := p.RemoveKubeconfig(t.Context(), path, "fedlab-test-absent"); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config.Clusters, config.Contexts, config.Users, config.CurrentContext = nil, nil, nil, ""
	if err := yaml.Unmarshal(after, &config); err != nil {
		t.Fatal(err)
	}
	left := []named{{"theirs"}}
	if !slices.Equal(config.Clusters, left) || !slices.Equal(config.Contexts, left) || !slices.Equal(config.Users, left) || config.CurrentContext != "" {
		t.Errorf("left: %+v", config)
	}
}
