package kube

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/access"
)

func pool(name string) map[string]any {
	return map[string]any{
		"apiVersion": "metallb.io/v1beta1",
		"kind":       "IPAddressPool",
		"metadata":   map[string]any{"namespace": "metallb-system", "name": name},
		"spec":       map[string]any{"addresses": []string{"10.192.1.1-10.192.1.254"}},
	}
}

const poolPath = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools/"

func TestApply(t *testing.T) {
	a := newAPI()
	c := connect(t, a)
	err := c.Apply(t.Context(), pool("lab"))
	if want := "apply IPAddressPool metallb-system/lab: the cluster knows no kind IPAddressPool in metallb.io/v1beta1"; message(err) != want {
		t.Fatalf("kind that is not known: %q, want %q", message(err), want)
	}

	a.mu.Lock()
	a.pools = true
	a.mu.Unlock()
	if err := c.Apply(t.Context(), pool("lab"), pool("other")); err != nil {
		t.Fatalf("kind that is new: %v", err)
	}
	if a.objects[poolPath+"lab"] == nil || a.objects[poolPath+"other"] == nil {
		t.Errorf("objects: %v", a.objects)
	}
	if want := "application/apply-patch+yaml fieldManager=fedlab&force=true"; a.manager != want {
		t.Errorf("applied as %q, want %q", a.manager, want)
	}
	if err := c.Apply(t.Context(), access.As{Manager: "publisher", Object: pool("lab")}); err != nil || a.manager != "application/apply-patch+yaml fieldManager=publisher&force=true" {
		t.Errorf("in the name of another it is applied as %q, error %v", a.manager, err)
	}
	a.calls = nil
	if err := c.Apply(t.Context(), pool("lab")); err != nil || !slices.Equal(a.calls, []string{"PATCH " + poolPath + "lab"}) {
		t.Errorf("a kind that is known is asked for again: %v, error %v", a.calls, err)
	}
}

func TestApplyRefuses(t *testing.T) {
	tests := map[string]struct {
		object any
		err    string
	}{
		"not JSON":  {func() {}, "apply: encode object: json: unsupported type: func()"},
		"no object": {[]string{"a"}, "apply: object is not a JSON object: json: cannot unmarshal array into Go value of type map[string]interface {}"},
		"no name":   {map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}, `apply: object (apiVersion "v1", kind "ConfigMap", namespace "", name "") has no metadata.name`},
		"a secret without a name": {
			map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"namespace": "demo"}, "stringData": map[string]any{"password": "hunter2"}},
			`apply: object (apiVersion "v1", kind "Secret", namespace "demo", name "") has no metadata.name`,
		},
		"no place":   {map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}}, "apply ConfigMap a: namespace is missing"},
		"no version": {map[string]any{"apiVersion": "a/b/c", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}}, "apply ConfigMap a: unexpected GroupVersion string: a/b/c"},
		"wrong place": {
			map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "a", "namespace": "b"}},
			"apply Namespace b/a: it is not in a namespace, not even b",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			if err := connect(t, a).Apply(t.Context(), tt.object); message(err) != tt.err {
				t.Errorf("error %q\nwant  %q", message(err), tt.err)
			}
			if slices.ContainsFunc(a.calls, func(call string) bool { return strings.HasPrefix(call, http.MethodPatch) }) {
				t.Errorf("sent it all the same: %v", a.calls)
			}
		})
	}
}

func TestObjects(t *testing.T) {
	a := newAPI()
	a.pools = true
	c := connect(t, a)
	if err := c.Apply(t.Context(), pool("lab"), pool("other")); err != nil {
		t.Fatal(err)
	}
	o, found, err := c.Object(t.Context(), "metallb.io/v1beta1", "IPAddressPool", "metallb-system", "lab")
	if err != nil || !found || o["kind"] != "IPAddressPool" {
		t.Errorf("object %v, found %t, error %v", o, found, err)
	}
	for _, kind := range []string{"IPAddressPool", "Unheard"} {
		if _, found, err := c.Object(t.Context(), "metallb.io/v1beta1", kind, "metallb-system", "absent"); found || err != nil {
			t.Errorf("absent %s: found %t, error %v", kind, found, err)
		}
	}
	for _, namespace := range []string{"", "metallb-system"} {
		if list, err := c.Objects(t.Context(), "metallb.io/v1beta1", "IPAddressPool", namespace, ""); err != nil || len(list) != 2 {
			t.Errorf("in namespace %q: %v, error %v", namespace, list, err)
		}
	}

	unheard := map[string]any{"apiVersion": "a/v1", "kind": "Unheard", "metadata": map[string]any{"namespace": "x", "name": "y"}}
	for range 2 {
		if err := c.Delete(t.Context(), pool("lab"), pool("other"), unheard); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.objects) != 0 {
		t.Errorf("left: %v", a.objects)
	}
}

func TestNamed(t *testing.T) {
	a := newAPI()
	a.pools = true
	c := connect(t, a)
	if err := c.Apply(t.Context(), pool("lab"), pool("other")); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"", "metallb-system"} {
		key := access.ObjectKey{APIVersion: "metallb.io/v1beta1", Kind: "IPAddressPool", Namespace: namespace}
		names, err := objects{c}.Named(t.Context(), key, map[string]string{"made-by": "fedlab"})
		slices.Sort(names)
		if err != nil || !slices.Equal(names, []string{"lab", "other"}) {
			t.Errorf("in namespace %q: %q, error %v", namespace, names, err)
		}
		if got := a.query.Get("labelSelector"); got != "made-by=fedlab" {
			t.Errorf("asked for those with %q", got)
		}
	}
	// Whoever tidies a cluster up may come before what would know the kind.
	for _, version := range []string{"metallb.io/v1beta1", "unheard.of/v1"} {
		if names, err := (objects{c}).Named(t.Context(), access.ObjectKey{APIVersion: version, Kind: "Unheard"}, nil); err != nil || len(names) != 0 {
			t.Errorf("of a kind that is not known in %s: %q, error %v", version, names, err)
		}
	}
	if _, err := (objects{c}).Named(t.Context(), access.ObjectKey{APIVersion: "a/b/c", Kind: "Unheard"}, nil); message(err) != "list Unheard: unexpected GroupVersion string: a/b/c" {
		t.Errorf("of a version that is none: %v", err)
	}
}

func TestScale(t *testing.T) {
	a := newAPI()
	if err := connect(t, a).Scale(t.Context(), "Deployment", "demo", "x", 0); err != nil {
		t.Fatal(err)
	}
	if call := a.calls[len(a.calls)-1]; call != "PATCH /apis/apps/v1/namespaces/demo/deployments/x/scale" || a.scaled != `{"spec":{"replicas":0}}` {
		t.Errorf("call %s with %s", call, a.scaled)
	}
}
