package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/docker"
)

// fakeEngine speaks as much of Docker's API as saving and loading takes.
type fakeEngine struct {
	mu sync.Mutex
	// images has what Docker would save of each, by its reference.
	images map[string][]byte
	// saves counts what was saved.
	saves int
}

// connect serves an engine without images and returns a client of it.
func (e *fakeEngine) connect(t *testing.T) *docker.Client {
	t.Helper()
	e.images = map[string][]byte{}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.44") })
	mux.HandleFunc("GET /v1.44/images/", func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		ref := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1.44/images/"), "/json")
		if ref == "get" {
			e.saves++
			for tag, data := range e.images {
				if called := r.URL.Query().Get("names"); called == tag || called == imageID(data) {
					_, _ = w.Write(data)
					return
				}
			}
			return
		}
		if e.images[ref] == nil {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"no such image"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"Id":%q,"Size":1,"RepoTags":[%q]}`, imageID(e.images[ref]), ref)
	})
	mux.HandleFunc("POST /v1.44/images/load", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Error(err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, m := range manifest {
			for _, ref := range m.RepoTags {
				e.images[ref] = data
			}
		}
		if err := json.NewEncoder(w).Encode(map[string]string{"status": "loaded"}); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+server.Listener.Addr().String())
	client, err := docker.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// imageID is the id of what Docker would save.
func imageID(saved []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(saved)) }

// holds gives the engine an image.
func (e *fakeEngine) holds(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if err := tarball.Write(tag, img, &saved); err != nil {
		t.Fatal(err)
	}
	e.images[ref] = saved.Bytes()
}
