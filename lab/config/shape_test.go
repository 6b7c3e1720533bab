package config

import (
	"fmt"
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// relationships tells those of a lab file: who trusts whom, in which mode, and
// the profile of the endpoint.
func relationships(t *testing.T, data []byte) []string {
	t.Helper()
	top, err := format.Load(data, "lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range top.Relationships {
		all = append(all, fmt.Sprintf("%s %s %s", r.ID(), r.Mode, r.Profile))
	}
	return all
}

// four returns a lab file of the trust domains 1 to 4 with that federation.
func four(federation string) []byte {
	return []byte(`{"apiVersion": "fedlab.dev/v1alpha1", "kind": "Lab", "metadata": {"name": "shapes"}, "spec": {"clusters": [
		{"name": "a", "trustDomain": "1"}, {"name": "b", "trustDomain": "2"}, {"name": "c", "trustDomain": "3"}, {"name": "d", "trustDomain": "4"}
	], "federation": ` + federation + `}}`)
}

func TestShapes(t *testing.T) {
	tests := map[string]struct {
		federation string
		want       []string // both ways
	}{
		"mesh":        {`[{"shape": "mesh"}]`, []string{"1 2", "1 3", "2 3", "1 4", "2 4", "3 4"}},
		"hub":         {`[{"shape": "hub"}]`, []string{"1 2", "1 3", "1 4"}},
		"chain":       {`[{"shape": "chain"}]`, []string{"1 2", "2 3", "3 4"}},
		"pairs":       {`[{"shape": "pairs"}]`, []string{"1 2", "3 4"}},
		"mesh of":     {`[{"shape": "mesh", "of": ["4", "2", "1"]}]`, []string{"4 2", "4 1", "2 1"}},
		"hub of":      {`[{"shape": "hub", "of": ["3", "1", "4"]}]`, []string{"3 1", "3 4"}},
		"chain of":    {`[{"shape": "chain", "of": ["2", "4", "1", "3"]}]`, []string{"2 4", "4 1", "1 3"}},
		"pairs of":    {`[{"shape": "pairs", "of": ["1", "4"]}]`, []string{"1 4"}},
		"two shapes":  {`[{"shape": "hub", "of": ["1", "2", "3"]}, {"shape": "chain", "of": ["2", "3", "4"]}]`, []string{"1 2", "1 3", "2 3", "3 4"}},
		"two of them": {`[{"shape": "mesh", "of": ["1", "2"]}]`, []string{"1 2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, pair := range test.want {
				a, b := pair[:1], pair[2:]
				want = append(want, a+"->"+b+" crd https_spiffe", b+"->"+a+" crd https_spiffe")
			}
			if got := relationships(t, four(test.federation)); !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// What is written by name stands for itself, wherever the shape stands, and no
// direction is there twice.
func TestNamedInPlaceOfShape(t *testing.T) {
	got := relationships(t, four(`[
		{"from": "2", "to": "1", "mode": "manual"},
		{"shape": "hub", "mode": "static"},
		{"between": ["4", "1"], "mode": "crd"}
	]`))
	want := []string{
		"2->1 manual https_spiffe",
		"1->2 static https_spiffe", "1->3 static https_spiffe", "3->1 static https_spiffe",
		"4->1 crd https_spiffe", "1->4 crd https_spiffe",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// The example of the reference page.
func TestModesAndProfiles(t *testing.T) {
	got := relationships(t, corpus(t, "good")["modes"])
	want := []string{
		"cluster1.com->cluster2.com crd https_spiffe", "cluster2.com->cluster3.com crd https_web", "cluster3.com->cluster2.com crd https_spiffe",
		"cluster1.com->cluster3.com static https_web", "cluster3.com->cluster1.com static https_spiffe",
		"cluster2.com->cluster1.com manual https_spiffe",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Workloads call only those whom they can call: not across one-way trust, not
// over a third trust domain.
func TestDefaultCalls(t *testing.T) {
	top, err := format.Load(corpus(t, "good")["calls"], "lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"frontend":      {"data-service", "own-data", "legacy-bridge", "quiet-bridge", "aws-gateway", "edge-gateway"},
		"edge-frontend": {"aws-gateway", "edge-gateway"},
		"own-frontend":  {"aws-gateway", "data-service"},
		"data-service":  nil,
		"own-data":      nil,
		"legacy-bridge": {"own-data"},
		"quiet-bridge":  nil,
		"aws-gateway":   {"data-service", "own-data", "legacy-bridge", "quiet-bridge"},
		"edge-gateway":  nil,
	}
	for _, w := range top.Workloads {
		if !slices.Equal(w.Calls, want[w.Name]) {
			t.Errorf("%s calls %v, want %v", w.Name, w.Calls, want[w.Name])
		}
	}
}

// A shape of all trust domains is the largest that a lab file asks for in few
// words; overlapping ones must not multiply it.
func TestManyShapes(t *testing.T) {
	spec := Spec{}
	for i := range topology.MaxClusters {
		spec.Clusters = append(spec.Clusters, Cluster{Name: fmt.Sprint(i), TrustDomain: fmt.Sprint(i)})
	}
	for range 10 {
		spec.Federation = append(spec.Federation, Federation{Shape: mesh, Of: spec.trustDomainNames()})
	}
	if got, want := len(spec.relationships()), topology.MaxClusters*(topology.MaxClusters-1); got != want {
		t.Errorf("ten times the same mesh makes %d relationships, want %d", got, want)
	}
}
