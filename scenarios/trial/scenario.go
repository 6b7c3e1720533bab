package trial

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Scenario is one thing that is broken on purpose, and what is claimed of it.
type Scenario struct {
	// Name is group/what, in the words of the field.
	Name string
	// Claim is one sentence. Where SPIRE behaves badly by design, it states that
	// behaviour.
	Claim string
	// Labels come on top of the group, which is a label by itself.
	Labels []string
	// Needs is what the pair must have on top of what each scenario needs; nil for
	// most.
	Needs *Need
	// Sources are where the behaviour is written down: upstream files and issues.
	Sources []string
	// Run breaks and looks. It calls Trial's methods and returns Trial.Err.
	Run func(ctx context.Context, t *Trial) error
}

// Need is what not every lab has.
type Need struct {
	// What completes the sentence "it needs …", and names the line of a lab file
	// that gives it.
	What string
	// Met reports whether the pair of a lab has it.
	Met func(called, caller *topology.Domain) bool
}

// NeedsError says what a lab lacks for scenarios, or for one of them.
type NeedsError struct {
	Lab string
	// Scenario is empty where the lab is one for no scenario at all.
	Scenario string
	What     string
}

func (e *NeedsError) Error() string {
	if e.Scenario == "" {
		return fmt.Sprintf("lab %s is not one that scenarios can run on: %s", e.Lab, e.What)
	}
	return fmt.Sprintf("lab %s is not one that %s can run on: it needs %s", e.Lab, e.Scenario, e.What)
}

// RunsOn returns nil where a lab has what the scenario needs. The error is a
// *NeedsError.
func (s Scenario) RunsOn(g *topology.Graph) error {
	called, caller, err := pairOf(g)
	if err != nil || s.Needs == nil || s.Needs.Met(called, caller) {
		return err
	}
	return &NeedsError{Lab: g.Name, Scenario: s.Name, What: s.Needs.What}
}

// Group is the part of the name before the slash.
func (s Scenario) Group() string {
	group, _, _ := strings.Cut(s.Name, "/")
	return group
}

// AllLabels are the group and the labels.
func (s Scenario) AllLabels() []string { return append([]string{s.Group()}, s.Labels...) }

// pairOf returns two trust domains that trust each other by https_spiffe and a
// resource, which can come and go while servers run.
//
// Servers of both are in clusters, since scenarios act on pods and nodes, and a host has
// containers in their place. The first of them has no agent on a host, and nobody whose
// server is on a host trusts it: what its rotations reach is asked of probes in pods.
// Trust domains with nested servers do not fit either: what reaches their workloads goes
// through one server more than the bounds of scenarios say.
func pairOf(g *topology.Graph) (called, caller *topology.Domain, err error) {
	fits := func(truster, trusted *topology.Domain) bool {
		r := truster.TrustIn(trusted)
		return r != nil && r.Mode == topology.CRD && r.Profile == topology.HTTPSSPIFFE && len(truster.Servers) == 1 && !onHost(truster)
	}
	clear := func(called *topology.Domain) bool {
		return called.UpstreamAuthority == topology.SelfSigned && len(called.Server().OnHosts()) == 0 &&
			!slices.ContainsFunc(called.TrustedBy, func(r *topology.Trust) bool { return onHost(r.Truster) })
	}
	for i, a := range g.Domains {
		for _, b := range g.Domains[i+1:] {
			if fits(a, b) && fits(b, a) && clear(a) {
				return a, b, nil
			}
		}
	}
	what := "it has no two trust domains that trust each other with profile https_spiffe and mode crd, without nested servers, the first of them without an upstream authority"
	if len(g.Hosts) > 0 {
		what += " and with no host among its members or among the servers that trust it"
	}
	return nil, nil, &NeedsError{Lab: g.Name, What: what + "; 'between: [a, b]' in its file makes them do"}
}

// onHost tells whether the server of a trust domain is on a host.
func onHost(d *topology.Domain) bool { return d.Server().Place.Host != nil }
