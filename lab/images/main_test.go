package images

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/docker"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/reference/images.md")

// helperVariable makes the test program do what a helper does, in a process
// that can be killed, in place of the tests.
const helperVariable = "FEDLAB_IMAGES_HELPER"

func helpers() map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{
		"store": helpStore, "module": helpModule, "node": helpNode,
	}
}

// TestMain keeps the tests on this machine: all but loopback goes through a
// proxy that does not exist, and no module is fetched.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if name := os.Getenv(helperVariable); name != "" {
		if err := helpers()[name](context.Background(), flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func isolate() error {
	var errs []error
	for name, value := range map[string]string{
		"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "",
		"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1", "no_proxy": "",
		"GOPROXY": "off",
		// No person's credentials: there is no such folder.
		"DOCKER_CONFIG": filepath.Join(os.TempDir(), "fedlab-no-docker-config"),
	} {
		errs = append(errs, os.Setenv(name, value))
	}
	return errors.Join(errs...)
}

// helper is a command that runs a helper in a process of its own.
func helper(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperVariable+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// kill ends a helper as a crash does.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("helper ended by itself: %v", err)
	}
}

// golden compares text with a file, which -update rewrites.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale, go test ./lab/images -update writes it; now it is:\n%s", file, got)
	}
}

// newStore returns an empty store.
func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
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
	if cmd.Env, err = goEnviron("linux", false, dir); err != nil {
		return nil, err
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build fakenode: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return os.ReadFile(out)
})
