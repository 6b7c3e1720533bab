package cli

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// resolved returns the graph of a lab that has no network.
func resolved(t *testing.T, top topology.Topology) *topology.Graph {
	t.Helper()
	g, err := topology.Resolve(top, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestRunnable: who asks for many is told which are left out, and who names one
// is refused.
func TestRunnable(t *testing.T) {
	f, err := config.For(demo.Apps()).Open("quotes")
	if err != nil {
		t.Fatal(err)
	}
	const needy = "outage/datastore"
	all := scenarios.Catalogue()
	var told bytes.Buffer
	c := &cmd{Streams: Streams{Err: &told}}

	runs, err := c.runnable(resolved(t, f.Topology), all, []string{"outage/server"}, "")
	able := map[string][]string{} // by the name of the scenario
	for _, r := range runs {
		able[r.scenario.Name] = append(able[r.scenario.Name], r.on.String())
	}
	if err != nil || able[needy] != nil {
		t.Errorf("of %d it runs %d, error %v", len(all), len(able), err)
	}
	if got, want := strings.Join(able["outage/server"], " "), "cluster2.com->cluster1.com cluster1.com->cluster2.com"; got != want {
		t.Errorf("outage/server runs on %s, want %s", got, want)
	}
	var left []string
	for _, s := range all {
		if able[s.Name] == nil {
			left = append(left, s.Name)
		}
	}
	for _, name := range left {
		if !strings.Contains(told.String(), name+" is left out: it needs ") {
			t.Errorf("it tells %q, not that %s is left out", told.String(), name)
		}
	}
	if got := strings.Count(told.String(), "\n"); got != len(left) || !slices.Contains(left, needy) {
		t.Errorf("%d are left out, and it names %d:\n%s", len(left), got, told.String())
	}
	const one = "cluster1.com->cluster2.com"
	if runs, err := c.runnable(resolved(t, f.Topology), all, nil, one); err != nil || len(runs) != len(able) || slices.ContainsFunc(runs, func(r trialRun) bool { return r.on.String() != one }) {
		t.Errorf("on %s it runs %d of %d, error %v", one, len(runs), len(able), err)
	}
	s, err := scenarios.Find(needy)
	if err != nil {
		t.Fatal(err)
	}

	told.Reset()
	for name, names := range map[string][]string{"one that is named": {needy}, "nothing is left": nil} {
		needs := (*trial.NeedsError)(nil)
		if able, err := c.runnable(resolved(t, f.Topology), []trial.Scenario{s}, names, ""); !errors.As(err, &needs) || needs.Scenario != needy || able != nil {
			t.Errorf("%s: it runs %d, error %v", name, len(able), err)
		}
	}
	f.Topology.Relationships, told = nil, bytes.Buffer{}
	needs := (*trial.NeedsError)(nil)
	if _, err := c.runnable(resolved(t, f.Topology), all, nil, ""); !errors.As(err, &needs) || needs.Scenario != "" || told.Len() > 0 {
		t.Errorf("a lab for no scenario: error %v, it tells %q", err, told.String())
	}
}

func TestKnownRelationship(t *testing.T) {
	f, err := config.For(demo.Apps()).Open("quotes")
	if err != nil {
		t.Fatal(err)
	}
	g := resolved(t, f.Topology)
	for on, want := range map[string]string{
		"": "", "cluster1.com->cluster2.com": "",
		"cluster1.com-cluster2.com": `the lab has no relationship "cluster1.com-cluster2.com": did you mean "cluster1.com->cluster2.com"?`,
		"market":                    `the lab has no relationship "market": want one of cluster1.com->cluster2.com, cluster2.com->cluster1.com`,
	} {
		got := ""
		if err := known(g, on); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", on, got, want)
		}
	}
}
