package spire_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
)

func TestSelectorsOfAPod(t *testing.T) {
	var pod spire.Pod
	if err := json.Unmarshal([]byte(`{
		"metadata": {
			"name": "broker-1", "namespace": "demo", "uid": "7f", "labels": {"app": "broker"},
			"ownerReferences": [{"kind": "ReplicaSet", "name": "broker", "uid": "6e"}]
		},
		"spec": {"nodeName": "node", "serviceAccountName": "client"},
		"status": {
			"containerStatuses": [{"name": "web", "image": "web:1", "imageID": "sha256:1"}],
			"initContainerStatuses": [{"name": "init", "image": "init:1", "imageID": "sha256:2"}]
		}
	}`), &pod); err != nil {
		t.Fatal(err)
	}
	got := pod.Selectors()
	slices.Sort(got)
	want := []string{
		"k8s:container-image:sha256:1", "k8s:container-image:web:1", "k8s:container-name:web", "k8s:node-name:node", "k8s:ns:demo",
		"k8s:pod-image-count:1", "k8s:pod-image:sha256:1", "k8s:pod-image:web:1", "k8s:pod-init-image-count:1",
		"k8s:pod-init-image:init:1", "k8s:pod-init-image:sha256:2", "k8s:pod-label:app:broker", "k8s:pod-name:broker-1",
		"k8s:pod-owner-uid:ReplicaSet:6e", "k8s:pod-owner:ReplicaSet:broker", "k8s:pod-uid:7f", "k8s:sa:client",
	}
	if !slices.Equal(got, want) {
		t.Errorf("selectors\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for selectors, matches := range map[string]bool{
		"k8s:ns:demo k8s:sa:client": true, "k8s:ns:demo k8s:sa:server": false, "unix:uid:0": false, "k8s:ns:dem": false,
	} {
		if got := (spire.Entry{Selectors: strings.Fields(selectors)}).Matches(want); got != matches {
			t.Errorf("an entry with %s matches: %t, want %t", selectors, got, matches)
		}
	}
}

func TestAuthorized(t *testing.T) {
	id := func(path string) spiffeid.ID { return spiffeid.RequireFromPath(market, path) }
	agents := []spire.Agent{
		{ID: id("/spire/agent/one"), Selectors: []string{"k8s_psat:cluster:market"}},
		{ID: id("/spire/agent/banned"), Selectors: []string{"k8s_psat:cluster:other"}, Banned: true},
	}
	entry := func(path, parent string, selectors ...string) spire.Entry {
		return spire.Entry{SPIFFEID: id(path), ParentID: id(parent), Selectors: selectors}
	}
	// Children stand before their parents: the order says nothing.
	entries := []spire.Entry{
		entry("/below-the-one", "/below-the-alias"),
		entry("/below-the-alias", "/alias"),
		entry("/below", "/spire/agent/one"),
		entry("/below-the-banned", "/spire/agent/banned"),
		entry("/below-the-other-alias", "/other-alias"),
		entry("/below-nobody", "/spire/agent/gone"),
		entry("/alias", "/spire/server", "k8s_psat:cluster:market"),
		entry("/other-alias", "/spire/server", "k8s_psat:cluster:other"),
	}
	var got []string
	for _, e := range spire.Authorized(market, agents, entries) {
		got = append(got, e.SPIFFEID.Path())
	}
	slices.Sort(got)
	if want := []string{"/below", "/below-the-alias", "/below-the-one"}; !slices.Equal(got, want) {
		t.Errorf("the agents hand out %q, want %q", got, want)
	}
}
