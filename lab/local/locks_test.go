package local

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/fedlab-dev/fedlab/lab"
)

// TestOneLockWhoeverCalls: a lock is of the engine. Another user has another home
// and another cache, and a cache may be deleted at any time.
func TestOneLockWhoeverCalls(t *testing.T) {
	engine := func(id string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"ID": %q}`, id)
		}))
		t.Cleanup(server.Close)
		return "tcp://" + server.Listener.Addr().String()
	}
	id := fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	driver := func(host string) *Driver {
		home := t.TempDir()
		t.Setenv("HOME", home)
		t.Setenv("FEDLAB_CACHE", filepath.Join(home, "cache"))
		t.Setenv("DOCKER_HOST", host)
		d, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		return d
	}
	// Two addresses may lead to one engine.
	first, second, elsewhere := driver(engine(id)), driver(engine(id)), driver(engine(id+"-other"))
	hold, err := first.Hold(t.Context(), "quotes", "up")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := Cache()
	if err == nil {
		err = os.RemoveAll(cache)
	}
	if err != nil {
		t.Fatal(err)
	}
	var held *lab.HeldError
	if _, err := second.Hold(t.Context(), "quotes", "down"); !errors.As(err, &held) || held.Holder == "" {
		t.Errorf("error %v, want one that names the holder", err)
	}
	release(t, "another lab", func() (*lab.Hold, error) { return second.Hold(t.Context(), "company", "up") })
	release(t, "another engine", func() (*lab.Hold, error) { return elsewhere.Hold(t.Context(), "quotes", "up") })
	release(t, "after the first", func() (*lab.Hold, error) {
		if err := hold.Release(); err != nil {
			return nil, err
		}
		return second.Hold(t.Context(), "quotes", "up")
	})
}

func release(t *testing.T, what string, take func() (*lab.Hold, error)) {
	t.Helper()
	hold, err := take()
	if err == nil {
		err = hold.Release()
	}
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}
