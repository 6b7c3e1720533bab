package docker

import (
	"os"
	"path/filepath"
	"testing"
)

func TestThaw(t *testing.T) {
	root := t.TempDir()
	states := map[string]string{
		"freezer.state":                 "THAWED\n",
		"kubelet/freezer.state":         "THAWED\n",
		"kubelet/pod/c1/freezer.state":  "FROZEN\n",
		"kubelet/pod/c2/freezer.state":  "FREEZING\n",
		"kubelet/pod/c2/freezer.parent": "0\n",
	}
	for name, state := range states {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(state), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := thaw(root); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"freezer.state":                 "THAWED\n", // not written to
		"kubelet/pod/c1/freezer.state":  "THAWED",
		"kubelet/pod/c2/freezer.state":  "THAWED",
		"kubelet/pod/c2/freezer.parent": "0\n",
	}
	for name, state := range want {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != state {
			t.Errorf("%s is %q, want %q", name, got, state)
		}
	}
}

func TestThawWithoutFreezers(t *testing.T) {
	if err := thaw(filepath.Join(t.TempDir(), "no-such-container")); err != nil {
		t.Errorf("error %v, want none where there is nothing to thaw", err)
	}
}
