package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

func TestMain(m *testing.M) {
	imagestest.Main(m, map[string]func(context.Context, []string) error{"node": helpNode})
}

// newStore returns an empty store.
func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// usersStore is the one that fedlab itself uses here.
func usersStore(t *testing.T) *store.Store {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Join(cache, "fedlab"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// realEngine connects to the engine of this machine. Without one the test is
// skipped, except in CI, where there has to be one.
func realEngine(t *testing.T) *docker.Client {
	t.Helper()
	c, err := docker.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	err = c.Ping(t.Context())
	var unreachable *docker.UnreachableError
	switch {
	case errors.As(err, &unreachable) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return c
}

// fakeNode builds the program that stands for the tools of a node, once.
var fakeNode = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "fedlab-fakenode-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "fakenode")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/fakenode")
	cmd.Env = append(os.Environ(), "GOENV=off", "GOFLAGS=", "GOOS=linux", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build fakenode: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return os.ReadFile(out)
})
