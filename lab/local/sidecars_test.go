package local

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/docker"
)

// TestSidecars: what carries the labels counts, whatever its state and network,
// and nothing else of the lab.
func TestSidecars(t *testing.T) {
	var mu sync.Mutex
	labels := map[string]map[string]string{
		"one":     {labelLab: "quotes", labelSidecar: "synthetic"},
		"two":     {labelLab: "quotes", labelSidecar: "probe"},
		"other":   {labelLab: "quotes"},
		"another": {labelLab: "other", labelSidecar: "synthetic"},
	}
	var removed []string
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	mux.HandleFunc("GET /v1.41/containers/json", func(w http.ResponseWriter, r *http.Request) {
		var filters struct{ Label map[string]bool }
		if err := json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters); err != nil || r.URL.Query().Get("all") != "1" {
			t.Errorf("asked for %s: %v", r.URL.RawQuery, err)
		}
		found := []map[string]any{}
		for id, has := range labels {
			carries := true
			for filter := range filters.Label {
				carries = carries && slices.ContainsFunc([]string{labelLab, labelSidecar}, func(key string) bool { return filter == key+"="+has[key] })
			}
			if carries {
				found = append(found, map[string]any{"Id": id, "Labels": has, "State": "created"})
			}
		}
		if err := json.NewEncoder(w).Encode(found); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("DELETE /v1.41/containers/{id}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		removed = append(removed, r.PathValue("id"))
		w.WriteHeader(http.StatusNoContent)
	})
	engine := engineOf(t, mux)

	s := sidecars{engine: engine}
	programs, err := s.List(t.Context(), "quotes")
	if want := []string{"probe", "synthetic"}; !slices.Equal(programs, want) || err != nil {
		t.Errorf("programs %q, error %v, want %q", programs, err, want)
	}
	for _, program := range []string{"synthetic", "none"} {
		if err := s.Remove(t.Context(), "quotes", program); err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"one"}; !slices.Equal(removed, want) {
		t.Errorf("removed %q, want %q", removed, want)
	}
}

// engineOf returns the client of an engine that a handler plays.
func engineOf(t *testing.T, engine http.Handler) *docker.Client {
	t.Helper()
	server := httptest.NewServer(engine)
	t.Cleanup(server.Close)
	for _, name := range []string{"DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"} {
		t.Setenv(name, "")
	}
	t.Setenv("DOCKER_HOST", "tcp://"+server.Listener.Addr().String())
	client, err := docker.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
