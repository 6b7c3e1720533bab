// Package imagestest has what the tests of more than one room of lab/images need.
//
// It refuses to know any of the rooms, so that the tests of each of them can use it.
package imagestest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// helperVariable makes a test program do what a helper does, in a process that
// can be killed, in place of the tests.
const helperVariable = "FEDLAB_IMAGES_HELPER"

// Main runs the tests of a package, or a helper in place of them. The tests stay on
// this machine: all but loopback goes through a proxy that does not exist, and no
// module is fetched.
func Main(m *testing.M, helpers map[string]func(context.Context, []string) error) {
	flag.Parse()
	err := isolate()
	name := os.Getenv(helperVariable)
	if err == nil && name == "" {
		os.Exit(m.Run())
	}
	if err == nil {
		err = helpers[name](context.Background(), flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
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

// Helper is a command that runs a helper of this test program in a process of its
// own.
func Helper(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperVariable+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// Kill ends a helper as a crash does.
func Kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("helper ended by itself: %v", err)
	}
}

// Wait waits for another process of this machine.
func Wait(t *testing.T, name string, probe func(context.Context) error) {
	t.Helper()
	soon := check.Bound{Within: 30 * time.Second, Every: 20 * time.Millisecond}
	if err := check.Until(t.Context(), soon, check.Check{Name: name, Probe: probe}); err != nil {
		t.Fatal(err)
	}
}

// Golden compares text with a file, and rewrites the file first if update is set.
func Golden(t *testing.T, update bool, file string, got []byte) {
	t.Helper()
	if update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale, go test ./lab/images/... -update writes it; now it is:\n%s", file, got)
	}
}

// ErrorText is the text of an error, and nothing for none.
func ErrorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Entries lists a tar archive: mode, kind, name, and where a link leads. An entry
// that is not of the time 0 says so.
func Entries(t *testing.T, r io.Reader) []string {
	t.Helper()
	var list []string
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%04o %c %s", h.Mode, h.Typeflag, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if h.ModTime.Unix() != 0 {
			line += " of " + h.ModTime.String()
		}
		list = append(list, line)
	}
}

// Registry starts a registry on loopback and returns its host. between may change
// what it answers; it may be nil.
func Registry(t *testing.T, between func(http.Handler) http.Handler) string {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if between != nil {
		handler = between(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// Instead does something with the requests that read a path, in place of the
// registry; path is a part of the path that they read.
func Instead(path string, do http.HandlerFunc) func(http.Handler) http.Handler {
	return func(real http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, path) {
				do(w, r)
				return
			}
			real.ServeHTTP(w, r)
		})
	}
}

// Push gives an image or an index to a registry.
func Push(t *testing.T, ref string, img remote.Taggable) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	switch img := img.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(tag, img)
	case v1.Image:
		err = remote.Write(tag, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// RandomImage is an image of two layers for an architecture.
func RandomImage(t *testing.T, architecture string) v1.Image {
	t.Helper()
	img, err := random.Image(64<<10, 2)
	if err != nil {
		t.Fatal(err)
	}
	return For(t, img, architecture)
}

// For is an image for another architecture.
func For(t *testing.T, img v1.Image, architecture string) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}
