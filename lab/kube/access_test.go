package kube

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// answering serves these answers, by path, as a Kubernetes API server does, and
// tells which label selector came last. What stands for "PATCH " and a path is
// the answer of the path from the first patch on.
func answering(t *testing.T, answers map[string]string) (c *Cluster, selector *atomic.Value) {
	t.Helper()
	selector = &atomic.Value{}
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		selector.Store(r.URL.Query().Get("labelSelector"))
		w.Header().Set("Content-Type", "application/json")
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPatch {
			answers[r.URL.Path] = answers["PATCH "+r.URL.Path]
		}
		body, known := answers[r.URL.Path]
		if !known {
			w.WriteHeader(http.StatusNotFound)
			body = fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no %s"}`, r.URL.Path)
		}
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	c, err := New(fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: %q}}]}`, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	return c, selector
}

func TestObjectsNamed(t *testing.T) {
	c, selector := answering(t, map[string]string{
		"/apis/spire.spiffe.io/v1alpha1": `{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "spire.spiffe.io/v1alpha1",
			"resources": [{"name": "clusterspiffeids", "kind": "ClusterSPIFFEID", "namespaced": false, "verbs": ["list"]}]}`,
		"/apis/spire.spiffe.io/v1alpha1/clusterspiffeids": `{"kind": "ClusterSPIFFEIDList", "apiVersion": "spire.spiffe.io/v1alpha1",
			"items": [{"metadata": {"name": "frontend"}}, {"metadata": {"name": "gateway"}}]}`,
	})
	key := access.ObjectKey{APIVersion: "spire.spiffe.io/v1alpha1", Kind: "ClusterSPIFFEID", Name: "not used"}
	names, err := objects{c}.Named(t.Context(), key, map[string]string{"b": "2", "a": "1"})
	if err != nil || !slices.Equal(names, []string{"frontend", "gateway"}) || selector.Load() != "a=1,b=2" {
		t.Errorf("names %q by %q, error %v", names, selector.Load(), err)
	}
	if _, err := (objects{c}).Named(t.Context(), key, nil); err != nil || selector.Load() != "" {
		t.Errorf("all of them by %q, error %v", selector.Load(), err)
	}
	key.Kind = "ClusterStaticEntry"
	if names, err := (objects{c}).Named(t.Context(), key, nil); err != nil || len(names) != 0 {
		t.Errorf("of a kind that is not known: %q, error %v", names, err)
	}
}

func TestObjectsApply(t *testing.T) {
	const path, kinds = "/api/v1/namespaces/kube-system/configmaps/fedlab", `{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
		"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": ["get", "patch"]}]}`
	const before = `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fedlab", "resourceVersion": "1", "managedFields": []},
		"data": {"lab": "quotes"}, "status": {"seen": 1}}`
	tests := map[string]struct {
		before, after string
		changed       bool
	}{
		"made":                       {after: before, changed: true},
		"left alone":                 {before: before, after: before},
		"a controller wrote as well": {before: before, after: strings.NewReplacer(`"1"`, `"2"`, `"seen": 1`, `"seen": 2`).Replace(before)},
		"another content":            {before: before, after: strings.Replace(before, "quotes", "enterprise", 1), changed: true},
		"another label":              {before: before, after: strings.Replace(before, `"name"`, `"labels": {"a": "b"}, "name"`, 1), changed: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			answers := map[string]string{"/api/v1": kinds, "PATCH " + path: tt.after}
			if tt.before != "" {
				answers[path] = tt.before
			}
			c, _ := answering(t, answers)
			changed, err := objects{c}.Apply(t.Context(), map[string]any{
				"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": "kube-system", "name": "fedlab"},
			})
			if err != nil || changed != tt.changed {
				t.Errorf("changed is %t, error %v", changed, err)
			}
		})
	}
}

func TestPodsStarted(t *testing.T) {
	const set = `{"spec": {"selector": {"matchLabels": {"app": "x"}}}, "status": {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 0}}`
	c, _ := answering(t, map[string]string{
		"/apis/apps/v1/namespaces/spire-system/statefulsets/spire-server": set,
		"/api/v1/namespaces/spire-system/pods": `{"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "x-0"}, "status": {"containerStatuses": [
			{"name": "spire-server", "started": true, "state": {"running": {}}}, {"name": "spire-controller-manager", "started": false, "state": {"running": {}}}]}}]}`,
	})
	key := access.ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: "spire-system", Name: "spire-server"}
	if err := (pods{c}).Started(t.Context(), key, "spire-server"); err != nil {
		t.Error(err)
	}
	// It has started, and is not ready: that is the difference.
	if err := (pods{c}).Ready(t.Context(), key); err == nil || !strings.HasPrefix(err.Error(), "statefulset spire-system/spire-server: 0 of 1 ready") {
		t.Errorf("ready: error %v", err)
	}
	if err := (pods{c}).Started(t.Context(), key, "spire-controller-manager"); err == nil || !strings.HasPrefix(err.Error(), "statefulset spire-system/spire-server: 0 of 1 started") {
		t.Errorf("the other container: error %v", err)
	}
	key.Name = "absent"
	if err := (pods{c}).Started(t.Context(), key, "spire-server"); err == nil || !strings.HasPrefix(err.Error(), "read statefulset spire-system/absent: ") {
		t.Errorf("none: error %v", err)
	}
}
