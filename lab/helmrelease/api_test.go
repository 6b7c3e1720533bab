package helmrelease

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// api is a Kubernetes API server that knows Namespaces, Secrets, ConfigMaps and
// PersistentVolumeClaims, and keeps them by path.
type api struct {
	mu      sync.Mutex
	calls   []string
	objects map[string]map[string]any
	// failAt is the call, counted from 1, that answers 500.
	failAt int
	// dieAt is the call at which kill ends the client; it gets no answer.
	dieAt int
	kill  func()
}

func newAPI() *api {
	return &api{objects: map[string]map[string]any{"/api/v1/namespaces/default": {}}}
}

// connect returns a client of a, as if no other had ever been.
func connect(t *testing.T, a *api) *Client {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	c, err := New(fmt.Appendf(nil, `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, strings.TrimSpace(r.Method+" "+r.URL.Query().Get("dryRun"))+" "+r.URL.Path)
	switch n := len(a.calls); {
	case a.dieAt > 0 && n >= a.dieAt:
		a.kill()
		panic(http.ErrAbortHandler)
	case n == a.failAt:
		refuse(w, http.StatusInternalServerError, "InternalError", fmt.Sprintf("injected into call %d", n))
		return
	}
	if kinds, ok := known()[r.URL.Path]; ok {
		answer(w, kinds)
		return
	}
	switch r.Method {
	case http.MethodPost:
		a.create(w, r)
	case http.MethodGet:
		a.get(w, r)
	default:
		a.change(w, r)
	}
}

func (a *api) create(w http.ResponseWriter, r *http.Request) {
	object := body(r)
	metadata, _ := object["metadata"].(map[string]any)
	path := r.URL.Path + "/" + metadata["name"].(string)
	if _, exists := a.objects[path]; exists {
		refuse(w, http.StatusConflict, "AlreadyExists", path+" exists")
		return
	}
	if namespace, _, found := strings.Cut(strings.TrimPrefix(path, "/api/v1/namespaces/"), "/"); found && a.objects["/api/v1/namespaces/"+namespace] == nil {
		refuse(w, http.StatusNotFound, "NotFound", "namespace "+namespace+" not found")
		return
	}
	tidy(object)
	a.objects[path] = object
	answer(w, object)
}

func (a *api) get(w http.ResponseWriter, r *http.Request) {
	if object, ok := a.objects[r.URL.Path]; ok {
		answer(w, object)
		return
	}
	if !strings.HasSuffix(r.URL.Path, "/secrets") {
		refuse(w, http.StatusNotFound, "NotFound", r.URL.Path+" not found")
		return
	}
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		panic(err)
	}
	items, everywhere := []any{}, r.URL.Path == "/api/v1/secrets"
	// All secrets of a cluster are too much for somebody who wants names only.
	if everywhere && !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadataList;") {
		refuse(w, http.StatusNotAcceptable, "NotAcceptable", "ask for metadata alone")
		return
	}
	for path, object := range a.objects {
		switch {
		case !selector.Matches(labelsOf(object)):
		case everywhere && strings.Contains(path, "/secrets/"):
			metadata, _ := object["metadata"].(map[string]any)
			// Who writes says it in the path only.
			metadata["namespace"], _, _ = strings.Cut(strings.TrimPrefix(path, "/api/v1/namespaces/"), "/")
			items = append(items, map[string]any{"metadata": metadata})
		case strings.HasPrefix(path, r.URL.Path+"/"):
			items = append(items, object)
		}
	}
	list := map[string]any{"kind": "SecretList", "apiVersion": "v1", "items": items}
	if everywhere {
		list["kind"], list["apiVersion"] = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	answer(w, list)
}

func (a *api) change(w http.ResponseWriter, r *http.Request) {
	object, ok := a.objects[r.URL.Path]
	if !ok {
		refuse(w, http.StatusNotFound, "NotFound", r.URL.Path+" not found")
		return
	}
	switch r.Method {
	case http.MethodDelete:
		delete(a.objects, r.URL.Path)
	case http.MethodPut:
		object = body(r)
		a.objects[r.URL.Path] = object
	case http.MethodPatch:
		patched := clone(object)
		merge(patched, body(r))
		tidy(patched)
		metadata, _ := patched["metadata"].(map[string]any)
		generation, _ := metadata["generation"].(int)
		metadata["generation"] = generation + 1 // in a dry run, too
		switch {
		case object["immutable"] == true && !reflect.DeepEqual(object["data"], patched["data"]):
			refuse(w, http.StatusUnprocessableEntity, "Invalid", r.URL.Path+" is immutable")
			return
		case r.URL.Query().Get("dryRun") != "All":
			a.objects[r.URL.Path] = patched
		}
		object = patched
	}
	answer(w, object)
}

// tidy drops what is empty, which no API server keeps.
func tidy(object map[string]any) {
	if data, is := object["binaryData"].(map[string]any); is && len(data) == 0 {
		delete(object, "binaryData")
	}
}

// clone copies an object, or all of them by their paths.
func clone[T any](object map[string]T) map[string]T {
	copied := maps.Clone(object)
	for k, v := range object {
		if below, is := any(v).(map[string]any); is {
			copied[k], _ = any(clone(below)).(T)
		}
	}
	return copied
}

// names lists the ConfigMaps of the namespace that tests install into, with
// the size that each carries.
func (a *api) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for path, object := range a.objects {
		if name, ok := strings.CutPrefix(path, "/api/v1/namespaces/demo/configmaps/"); ok {
			data, _ := object["data"].(map[string]any)
			names = append(names, fmt.Sprintf("%s=%v", name, data["size"]))
		}
	}
	slices.Sort(names)
	return names
}

// merge applies a JSON merge patch, which is what a strategic one means for a
// ConfigMap.
func merge(into, patch map[string]any) {
	for k, v := range patch {
		below, isMap := v.(map[string]any)
		old, wasMap := into[k].(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case isMap && wasMap:
			merge(old, below)
		default:
			into[k] = v
		}
	}
}

func known() map[string]any {
	kind := func(name, kind string, namespaced bool) any {
		return map[string]any{"name": name, "kind": kind, "namespaced": namespaced, "verbs": []string{"get", "create", "patch", "delete"}}
	}
	return map[string]any{
		"/version": map[string]any{"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
		"/api":     map[string]any{"kind": "APIVersions", "versions": []string{"v1"}},
		"/apis":    map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": []any{}},
		"/api/v1": map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": []any{
			kind("namespaces", "Namespace", false), kind("secrets", "Secret", true), kind("configmaps", "ConfigMap", true),
			kind("persistentvolumeclaims", "PersistentVolumeClaim", true),
		}},
	}
}

func labelsOf(object map[string]any) labels.Set {
	set := labels.Set{}
	metadata, _ := object["metadata"].(map[string]any)
	own, _ := metadata["labels"].(map[string]any)
	for k := range maps.Keys(own) {
		set[k] = own[k].(string)
	}
	return set
}

// body decodes an object: Helm sends JSON, client-go's typed client protobuf.
func body(r *http.Request) map[string]any {
	content, err := io.ReadAll(r.Body)
	if err == nil && strings.Contains(r.Header.Get("Content-Type"), "protobuf") {
		var typed runtime.Object
		if typed, _, err = scheme.Codecs.UniversalDeserializer().Decode(content, nil, nil); err == nil {
			content, err = json.Marshal(typed)
		}
	}
	var object map[string]any
	if err == nil {
		err = json.Unmarshal(content, &object)
	}
	if err != nil {
		panic(err)
	}
	return object
}

func answer(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object)
}

func refuse(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
	})
}
