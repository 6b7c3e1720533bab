package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

func TestRemember(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("FEDLAB_CACHE", cache)
	if took := remembered("quotes"); took != 0 {
		t.Errorf("before the first up: %s", took)
	}
	if err := remember("quotes", 61234*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := remembered("quotes"); took != 61*time.Second {
		t.Errorf("after an up of 61 seconds: %s", took)
	}
	if took := remembered("other"); took != 0 {
		t.Errorf("another lab: %s", took)
	}
	path := filepath.Join(cache, "took", "quotes")
	if err := os.WriteFile(path, []byte("1m"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1); err != nil {
		t.Fatal(err)
	}
	if took := remembered("quotes"); took != 0 {
		t.Errorf("after a power cut: %s", took)
	}
}

// TestUpWithoutMemory: what cannot be remembered says nothing of a lab.
func TestUpWithoutMemory(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	t.Setenv("FEDLAB_CACHE", cache)
	if err := os.MkdirAll(filepath.Join(cache, "took", "quotes"), 0o755); err != nil {
		t.Fatal(err)
	}
	if took := remembered("quotes"); took != 0 {
		t.Errorf("a file that cannot be read: %s", took)
	}
	var out, stderr bytes.Buffer
	c := &cmd{Streams: Streams{Out: &out, Err: &stderr}, output: "json"}
	p := &progress{began: time.Now(), clusters: time.Now()}
	if err := c.upDone(topology.Topology{Name: "quotes"}, p); err != nil || !strings.Contains(out.String(), `"kind": "Up"`) {
		t.Errorf("error %v with %s", err, out.String())
	}
	want := "fedlab: write how long this up took: open " + filepath.Join(cache, "took", "quotes") + ": is a directory\n"
	if stderr.String() != want {
		t.Errorf("it says %q, want %q", stderr.String(), want)
	}
}
