package lab_test

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/lab"
)

// labs are those that have a network in the world.
func (w *world) labs(context.Context) ([]lab.Found, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []lab.Found
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(w.networks))) {
		found = append(found, lab.Found{Name: name, Owner: "somebody"})
	}
	return found, nil
}

// TestLabs: each lab with the state of its clusters, by name.
func TestLabs(t *testing.T) {
	found := []lab.Found{{Name: "whole", Owner: "root"}, {Name: "half"}, {Name: "off"}, {Name: "begun"}}
	nodes := listed{nodes: map[string][]lab.Node{
		"whole": {{Cluster: "b", Running: true}, {Cluster: "a", Running: true}},
		"half":  {{Cluster: "a", Running: true}, {Cluster: "b"}},
		"off":   {{Cluster: "a"}},
	}}
	d := &lab.Driver{Parts: lab.Parts{Nodes: nodes, Labs: func(context.Context) ([]lab.Found, error) { return found, nil }}}
	got, err := d.Labs(t.Context())
	want := []lab.Summary{
		{Name: "begun", State: "without clusters", Clusters: []lab.ClusterSummary{}},
		{Name: "half", State: "partly running", Clusters: []lab.ClusterSummary{{Name: "a", State: "running"}, {Name: "b", State: "stopped"}}},
		{Name: "off", State: "stopped", Clusters: []lab.ClusterSummary{{Name: "a", State: "stopped"}}},
		{Name: "whole", State: "running", Owner: "root", Clusters: []lab.ClusterSummary{{Name: "a", State: "running"}, {Name: "b", State: "running"}}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("error %v, got %+v, want %+v", err, got, want)
	}

	refused := errors.New("refused")
	d.Parts.Nodes = listed{}
	found = []lab.Found{{Name: "refuses"}}
	if _, err := d.Labs(t.Context()); !errors.Is(err, errListed) {
		t.Errorf("nodes that cannot be listed: error %v", err)
	}
	d.Parts.Labs = func(context.Context) ([]lab.Found, error) { return nil, refused }
	if _, err := d.Labs(t.Context()); !errors.Is(err, refused) {
		t.Errorf("labs that cannot be listed: error %v", err)
	}
}

// listed can only list the nodes of labs, by the name of the lab.
type listed struct {
	lab.Nodes
	nodes map[string][]lab.Node
}

var errListed = errors.New("the engine does not list")

func (l listed) List(_ context.Context, name string) ([]lab.Node, error) {
	if name == "refuses" {
		return nil, errListed
	}
	return l.nodes[name], nil
}
