package local

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/fedlab-dev/fedlab/lab"
)

// machines is an engine with two hosts of a lab, one of another lab, and a sidecar.
type machines struct {
	mu         sync.Mutex
	containers map[string]map[string]string
	volumes    map[string]map[string]string
	removed    []string
}

func newMachines() *machines {
	of := func(name, host, program string) map[string]string {
		return map[string]string{labelLab: name, labelHost: host, labelProgram: program}
	}
	return &machines{
		containers: map[string]map[string]string{
			"1": of("quotes", "partner", lab.HostOwner), "2": of("quotes", "partner", lab.HostAgent), "3": of("quotes", "partner", "run-web"),
			"4": of("other", "partner", lab.HostAgent), "5": {labelLab: "quotes", labelSidecar: "synthetic"},
		},
		volumes: map[string]map[string]string{
			"quotes-partner-agent": of("quotes", "partner", lab.HostAgent), "quotes-partner-sockets": of("quotes", "partner", "run-web"),
			"quotes-branch-agent": of("quotes", "branch", lab.HostAgent), "other-partner-agent": of("other", "partner", lab.HostAgent),
		},
	}
}

// carries reports whether labels are those that a request asks for.
func carries(t *testing.T, r *http.Request, labels map[string]string) bool {
	t.Helper()
	var filters struct{ Label map[string]bool }
	if err := json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters); err != nil {
		t.Error(err)
	}
	for filter := range filters.Label {
		found := false
		for key, value := range labels {
			found = found || filter == key+"="+value
		}
		if !found {
			return false
		}
	}
	return true
}

func (m *machines) handler(t *testing.T) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	mux.HandleFunc("GET /v1.41/containers/json", func(w http.ResponseWriter, r *http.Request) {
		found := []map[string]any{}
		for id, labels := range m.containers {
			if carries(t, r, labels) {
				found = append(found, map[string]any{"Id": id, "Labels": labels, "State": map[bool]string{true: "running", false: "exited"}[id != "2"]})
			}
		}
		answer(w, found)
	})
	// Asked of one that has ended.
	mux.HandleFunc("GET /v1.41/containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"Id": r.PathValue("id"), "State": map[string]any{"Status": "exited", "ExitCode": 137}})
	})
	mux.HandleFunc("GET /v1.41/volumes", func(w http.ResponseWriter, r *http.Request) {
		found := []map[string]any{}
		for name, labels := range m.volumes {
			if carries(t, r, labels) {
				found = append(found, map[string]any{"Name": name, "Labels": labels})
			}
		}
		answer(w, map[string]any{"Volumes": found})
	})
	remove := func(kind string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.removed = append(m.removed, kind+" "+r.PathValue("id"))
			w.WriteHeader(http.StatusNoContent)
		}
	}
	mux.HandleFunc("DELETE /v1.41/containers/{id}", remove("container"))
	mux.HandleFunc("DELETE /v1.41/volumes/{id}", remove("volume"))
	return mux
}

// TestHosts: what carries the labels counts, and a host of which only a volume is there is
// one, too.
func TestHosts(t *testing.T) {
	m := newMachines()
	got, err := hosts{engine: engineOf(t, m.handler(t))}.List(t.Context(), "quotes")
	want := []lab.FoundHost{
		{Name: "branch", Programs: map[string]bool{}},
		{Name: "partner", Programs: map[string]bool{lab.HostOwner: true, lab.HostAgent: false, "run-web": true}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
}

// TestClear: the owner of the PID namespace is the last of the containers, and volumes come
// after all of them.
func TestClear(t *testing.T) {
	m := newMachines()
	if err := (hosts{engine: engineOf(t, m.handler(t))}).Clear(t.Context(), "quotes", "partner"); err != nil {
		t.Fatal(err)
	}
	if len(m.removed) != 5 || m.removed[2] != "container 1" || !slices.Equal(m.removed[3:], []string{"volume quotes-partner-agent", "volume quotes-partner-sockets"}) {
		t.Errorf("removed %q", m.removed)
	}
}

// TestRemoveFromAHost: one program, and only the volumes that are named.
func TestRemoveFromAHost(t *testing.T) {
	m := newMachines()
	if err := (hosts{engine: engineOf(t, m.handler(t))}).Remove(t.Context(), "quotes", "partner", lab.HostAgent, "agent"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"container 2", "volume quotes-partner-agent"}; !slices.Equal(m.removed, want) {
		t.Errorf("removed %q, want %q", m.removed, want)
	}
}
