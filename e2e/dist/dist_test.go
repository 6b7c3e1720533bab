package main

import (
	"crypto/sha256"
	"debug/macho"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDist builds for a platform that is not this one, twice. make e2e-all has all of
// them.
func TestDist(t *testing.T) {
	other := []platform{{"darwin", "arm64"}}
	folders := []string{t.TempDir(), t.TempDir()}
	var sums []string
	for _, folder := range folders {
		if err := dist(t.Context(), folder, other); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(folder, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(text))
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds of one source differ:\n%s%s", sums[0], sums[1])
	}
	path := filepath.Join(folders[0], "fedlab-darwin-arm64")
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x  fedlab-darwin-arm64\n", sha256.Sum256(program)); sums[0] != want {
		t.Errorf("SHA256SUMS has %q, want %q", sums[0], want)
	}
	file, err := macho.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if file.Cpu != macho.CpuArm64 {
		t.Errorf("the program is for %s", file.Cpu)
	}
}

// TestDistFails with what the go command says.
func TestDistFails(t *testing.T) {
	err := dist(t.Context(), t.TempDir(), []platform{{"plan10", "amd64"}})
	if err == nil || !strings.Contains(err.Error(), "build fedlab-plan10-amd64: exit status 2\n") || !strings.Contains(err.Error(), "unsupported GOOS/GOARCH pair plan10/amd64") {
		t.Errorf("error %v", err)
	}
}
