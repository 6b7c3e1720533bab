package local

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// TestOwner: the network of a lab says whose it is.
func TestOwner(t *testing.T) {
	if owner() == "" {
		t.Error("nobody runs this test")
	}
}

// TestRunKubectl: this machine's kubectl gets the kubeconfig, and its exit code
// comes back.
func TestRunKubectl(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "kubectl")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$KUBECONFIG $*\" && cat && echo wrong >&2; exit 9\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	for name, want := range map[string]int{program: 9, filepath.Join(dir, "nothing"): 0} {
		var out, stderr written
		err := runKubectl(t.Context(), name, "/k/config", access.Streams{In: in, Out: &out, Err: &stderr}, []string{"get", "-o", "yaml"})
		ended := (*access.EndedError)(nil)
		if errors.As(err, &ended) != (want != 0) || want != 0 && (ended.Code != want || stderr != "wrong\n") || err == nil {
			t.Errorf("%s: error %v, errors %q", name, err, stderr)
		}
		if first := "/k/config get -o yaml\n#!/bin/sh\n"; want != 0 && (len(out) < len(first) || string(out[:len(first)]) != first) {
			t.Errorf("%s: output %q", name, out)
		}
	}
}

type written string

func (w *written) Write(p []byte) (int, error) {
	*w += written(p)
	return len(p), nil
}
