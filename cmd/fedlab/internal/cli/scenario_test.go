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

	able, err := c.runnable(resolved(t, f.Topology), all, []string{"outage/server"})
	if err != nil || slices.ContainsFunc(able, func(s trial.Scenario) bool { return s.Name == needy }) {
		t.Errorf("of %d it runs %d, error %v", len(all), len(able), err)
	}
	left := ""
	for _, s := range all {
		if slices.ContainsFunc(able, func(other trial.Scenario) bool { return other.Name == s.Name }) {
			continue
		}
		left += s.Name + " is left out: it needs " + s.Needs.What + "\n"
	}
	if got := told.String(); got != left || !strings.Contains(left, needy+" is left out") {
		t.Errorf("it tells %q, want %q", got, left)
	}
	s, err := scenarios.Find(needy)
	if err != nil {
		t.Fatal(err)
	}

	told.Reset()
	for name, names := range map[string][]string{"one that is named": {needy}, "nothing is left": nil} {
		needs := (*trial.NeedsError)(nil)
		if able, err := c.runnable(resolved(t, f.Topology), []trial.Scenario{s}, names); !errors.As(err, &needs) || needs.Scenario != needy || able != nil {
			t.Errorf("%s: it runs %d, error %v", name, len(able), err)
		}
	}
	f.Topology.Relationships, told = nil, bytes.Buffer{}
	needs := (*trial.NeedsError)(nil)
	if _, err := c.runnable(resolved(t, f.Topology), all, nil); !errors.As(err, &needs) || needs.Scenario != "" || told.Len() > 0 {
		t.Errorf("a lab for no scenario: error %v, it tells %q", err, told.String())
	}
}
