package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// api is a Kubernetes API server as far as the adapter uses one: it knows some
// kinds, and keeps what is applied under its path. Call number failAt, counted
// from 1, answers 500.
type api struct {
	mu      sync.Mutex
	calls   []string
	failAt  int
	objects map[string]map[string]any
	// pools says that the kind IPAddressPool is known.
	pools bool
	// manager and scaled are what the last apply and the last scale said.
	manager, scaled string
	query           url.Values
}

func newAPI() *api { return &api{objects: map[string]map[string]any{}} }

// connect serves a and returns a client that found it through a kubeconfig.
func connect(t *testing.T, a http.Handler) *Cluster {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return dialAPI(t, server.URL)
}

func dialAPI(t *testing.T, url string) *Cluster {
	t.Helper()
	c, err := New(fmt.Appendf(nil, `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, url))
	if err != nil {
		t.Fatal(err)
	}
	c.now = func() time.Time { return time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC) }
	return c
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, r.Method+" "+r.URL.Path)
	if len(a.calls) == a.failAt {
		status(w, http.StatusInternalServerError, "InternalError", fmt.Sprintf("injected into call %d", a.failAt))
		return
	}
	a.query = r.URL.Query()
	if kinds, ok := a.discovery()[r.URL.Path]; ok {
		answer(w, kinds)
		return
	}
	switch {
	case r.URL.Path == "/readyz":
		_, _ = io.WriteString(w, "ok")
	case strings.HasSuffix(r.URL.Path, "/log"):
		_, _ = io.WriteString(w, "one\ntwo\n")
	case r.Method == http.MethodPatch:
		a.patch(w, r)
	case r.Method == http.MethodGet || r.Method == http.MethodDelete:
		a.get(w, r)
	default:
		status(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
	}
}

func (a *api) patch(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	if strings.HasSuffix(r.URL.Path, "/scale") {
		a.scaled = string(body)
		answer(w, map[string]any{"kind": "Scale", "apiVersion": "autoscaling/v1"})
		return
	}
	a.manager = r.Header.Get("Content-Type") + " " + r.URL.RawQuery
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		panic(err)
	}
	a.objects[r.URL.Path] = object
	answer(w, object)
}

// get answers with an object, with a list of those below the path, or removes.
func (a *api) get(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if object, ok := a.objects[path]; ok {
		if r.Method == http.MethodDelete {
			delete(a.objects, path)
		}
		answer(w, object)
		return
	}
	plural := path[strings.LastIndex(path, "/")+1:]
	kind, ok := map[string]string{
		"nodes": "NodeList", "pods": "PodList", "events": "EventList", "configmaps": "ConfigMapList", "ipaddresspools": "IPAddressPoolList",
	}[plural]
	if !ok {
		status(w, http.StatusNotFound, "NotFound", plural+" not found")
		return
	}
	items := []any{}
	for at, object := range a.objects {
		if strings.HasPrefix(at, path+"/") || strings.Contains(at, "/"+plural+"/") && !strings.Contains(path, "/namespaces/") {
			items = append(items, object)
		}
	}
	version := strings.TrimPrefix(strings.TrimPrefix(path, "/api/"), "/apis/")
	version, _, _ = strings.Cut(version, "/namespaces/")
	answer(w, map[string]any{"kind": kind, "apiVersion": strings.TrimSuffix(version, "/"+plural), "items": items})
}

// discovery is what the server says of the kinds that it knows.
func (a *api) discovery() map[string]any {
	kind := func(name, kind string, namespaced bool) map[string]any {
		return map[string]any{"name": name, "kind": kind, "namespaced": namespaced, "verbs": []string{"get", "list", "patch", "delete"}}
	}
	list := func(version string, kinds ...any) map[string]any {
		return map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds}
	}
	known := map[string]any{
		"/api/v1":       list("v1", kind("configmaps", "ConfigMap", true), kind("configmaps/part", "ConfigMap", false), kind("namespaces", "Namespace", false)),
		"/apis/apps/v1": list("apps/v1", kind("deployments", "Deployment", true)),
	}
	if a.pools {
		known["/apis/metallb.io/v1beta1"] = list("metallb.io/v1beta1", kind("ipaddresspools", "IPAddressPool", true))
	}
	return known
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func status(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
	})
}

// object decodes the JSON of an object, so that tests can write it as such.
func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
