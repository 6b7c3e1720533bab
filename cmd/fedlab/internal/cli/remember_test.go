package cli

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRemember(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("FEDLAB_CACHE", cache)
	if took, err := remembered("quotes"); took != 0 || err != nil {
		t.Errorf("before the first up: %s, %v", took, err)
	}
	if err := remember("quotes", 61234*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took, err := remembered("quotes"); took != 61*time.Second || err != nil {
		t.Errorf("after an up of 61 seconds: %s, %v", took, err)
	}
	if took, err := remembered("other"); took != 0 || err != nil {
		t.Errorf("another lab: %s, %v", took, err)
	}
	path := filepath.Join(cache, "took", "quotes")
	if err := os.WriteFile(path, []byte("1m"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1); err != nil {
		t.Fatal(err)
	}
	if took, err := remembered("quotes"); took != 0 || err != nil {
		t.Errorf("after a power cut: %s, %v", took, err)
	}
}
