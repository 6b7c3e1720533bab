package helmrelease

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// TestEdit: what is changed of a person's own objects, and nothing else of them.
func TestEdit(t *testing.T) {
	const rendered = `# Source: payments/templates/all.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: payments}
spec:
  revisionHistoryLimit: 10000000000
  template:
    spec:
      initContainers: [{name: init, image: "example.test/init:1"}]
      containers:
        - {name: payments, image: "example.test/payments:dev", imagePullPolicy: Always}
        - {name: other, image: "example.test/other:1", imagePullPolicy: Always}
---
apiVersion: v1
kind: Service
metadata: {name: payments}
spec: {type: LoadBalancer}
---
---
apiVersion: v1
kind: Service
metadata: {name: fixed, annotations: {metallb.io/loadBalancerIPs: 10.192.1.9}}
spec: {type: LoadBalancer}
---
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "inside"}, "spec": {"type": "ClusterIP"}}
`
	e := editor{&access.Edit{
		Images:  map[string]string{"example.test/payments:dev": "fedlab.local/own/payments:1", "example.test/init:1": "fedlab.local/own/init:1"},
		Address: "10.192.1.101", More: []any{map[string]any{"kind": "ConfigMap"}},
	}}
	out, err := e.Run(bytes.NewBufferString(rendered))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	want := []string{
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"payments"},"spec":{"revisionHistoryLimit":10000000000,"template":{"spec":{"containers":[` +
			`{"image":"fedlab.local/own/payments:1","imagePullPolicy":"IfNotPresent","name":"payments"},{"image":"example.test/other:1","imagePullPolicy":"Always","name":"other"}],` +
			`"initContainers":[{"image":"fedlab.local/own/init:1","imagePullPolicy":"IfNotPresent","name":"init"}]}}}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"annotations":{"metallb.io/loadBalancerIPs":"10.192.1.101"},"name":"payments"},"spec":{"type":"LoadBalancer"}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"annotations":{"metallb.io/loadBalancerIPs":"10.192.1.9"},"name":"fixed"},"spec":{"type":"LoadBalancer"}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"inside"},"spec":{"type":"ClusterIP"}}`,
		`{"kind":"ConfigMap"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestManifests: a folder of plain manifests is a release, and nothing in it is a
// template.
func TestManifests(t *testing.T) {
	folder := t.TempDir()
	release := access.Release{Name: "audit", Namespace: "audit", Manifests: folder}
	if _, err := Objects(release); err == nil || !strings.Contains(err.Error(), "the folder has no file that ends in .yaml, .yml or .json") {
		t.Errorf("an empty folder: %v", err)
	}
	for name, text := range map[string]string{
		"a.yaml": "kind: ConfigMap\nmetadata: {name: a}\ndata: {text: \"{{ .Values.x }}\"}\n---\nkind: ConfigMap\nmetadata: {name: b}\n",
		"b.json": `{"kind": "Secret", "metadata": {"name": "c"}}`, "readme.md": "no manifest",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	objects, err := Objects(release)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"data":{"text":"{{ .Values.x }}"},"kind":"ConfigMap","metadata":{"name":"a"}},{"kind":"ConfigMap","metadata":{"name":"b"}},{"kind":"Secret","metadata":{"name":"c"}}]`; string(text) != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
	missing := access.Release{Name: "audit", Namespace: "audit", Manifests: filepath.Join(folder, "nowhere")}
	if _, err := Objects(missing); err == nil || !strings.Contains(err.Error(), "read manifests: open") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// Another edit of the same chart is another revision, and the same one is none.
func TestApplyEdited(t *testing.T) {
	a := newAPI()
	c := connect(t, a)
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "a.yaml"), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {size: \"1\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	more := func(name string) *access.Edit {
		return &access.Edit{More: []any{map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}, "data": map[string]any{"size": "2"}}}}
	}
	for _, step := range []struct {
		edit *access.Edit
		want bool
		has  string
	}{{more("b"), true, "a=1 b=2"}, {more("b"), false, "a=1 b=2"}, {more("c"), true, "a=1 c=2"}, {nil, true, "a=1"}} {
		changed, err := c.Apply(t.Context(), Release{Name: "own", Namespace: "demo", Manifests: os.DirFS(folder), Edit: step.edit})
		if err != nil || changed != step.want || strings.Join(a.names(), " ") != step.has {
			t.Errorf("with %v: changed %t, %v, has %v; want %t and %s", step.edit, changed, err, a.names(), step.want, step.has)
		}
	}
}
