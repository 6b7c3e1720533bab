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
	// Parts say which verdicts carry the claim; nil where nobody says so. Otherwise a run must
	// come to each of these verdicts, and to no other.
	Parts []Part
	// Labels come on top of the group, which is a label by itself.
	Labels []string
	// Needs are what a relationship must have on top of what each scenario needs; none for
	// most.
	Needs []Need
	// Sources are where the behaviour is written down: upstream files and issues.
	Sources []string
	// Run breaks and looks. It calls Trial's methods and returns Trial.Err.
	Run func(ctx context.Context, t *Trial) error
}

// Part is a part of a claim.
type Part struct {
	// Words are those of the claim; empty for the control, which shows that the rest means
	// something.
	Words string
	// By are the verdicts that carry the words, by what they say.
	By []string
}

// Carried returns the part of a claim that verdicts carry.
func Carried(words string, by ...string) Part { return Part{words, by} }

// Need is what not every relationship has.
type Need struct {
	// What completes the sentence "it needs …", and names the line of a lab file
	// that gives it.
	What string
	// Met reports whether a relationship has it: its truster is the caller, its trusted the
	// called trust domain.
	Met func(r *topology.Trust) bool
}

// NeedsError says what a lab lacks for scenarios, or for one of them.
type NeedsError struct {
	Lab string
	// Scenario is empty where the lab is one for no scenario at all, On where no relationship
	// of the lab has what it needs.
	Scenario, On string
	What         string
}

func (e *NeedsError) Error() string {
	switch {
	case e.Scenario == "":
		return fmt.Sprintf("lab %s is not one that scenarios can run on: %s", e.Lab, e.What)
	case e.On != "":
		return fmt.Sprintf("%s cannot run on %s: it needs %s", e.Scenario, e.On, e.What)
	}
	return fmt.Sprintf("lab %s is not one that %s can run on: it needs %s", e.Lab, e.Scenario, e.What)
}

// On is a relationship that a scenario runs on.
type On struct {
	// Truster is the caller's trust domain, Trusted the one that it calls.
	Truster string `json:"truster"`
	Trusted string `json:"trusted"`
	// Profile and Mode are those by which the truster comes to the bundle.
	Profile topology.EndpointProfile `json:"profile,omitempty"`
	Mode    topology.Mode            `json:"mode,omitempty"`
}

// String reads "cluster2.com->cluster1.com".
func (o On) String() string { return o.Truster + "->" + o.Trusted }

// on returns a relationship of the lab as scenarios name it.
func on(r *topology.Trust) On { return On{r.Truster.String(), r.Trusted.String(), r.Profile, r.Mode} }

// RunsOn returns the relationships of a lab that have what the scenario needs, in the order of
// the lab file. The error is a *NeedsError where there is none.
func (s Scenario) RunsOn(g *topology.Graph) ([]On, error) {
	all, err := callable(g)
	if err != nil {
		return nil, err
	}
	var fits []On
	for _, r := range all {
		if s.unmet(r) == nil {
			fits = append(fits, on(r))
		}
	}
	if fits == nil {
		return nil, &NeedsError{Lab: g.Name, Scenario: s.Name, What: s.lacks(all)}
	}
	return fits, nil
}

// RunsOnOne returns the relationship "truster->trusted" of a lab alone. The error is a
// *NeedsError where it lacks something.
func (s Scenario) RunsOnOne(g *topology.Graph, name string) ([]On, error) {
	all, err := callable(g)
	if err != nil {
		return nil, err
	}
	r, err := s.pick(g.Name, all, name)
	if err != nil {
		return nil, err
	}
	return []On{on(r)}, nil
}

// pick returns the first of these relationships that fits, or the one that is named. The error
// is a *NeedsError where there is none.
func (s Scenario) pick(lab string, all []*topology.Trust, name string) (*topology.Trust, error) {
	if name != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(r *topology.Trust) bool { return on(r).String() != name })
	}
	for _, r := range all {
		if s.unmet(r) == nil {
			return r, nil
		}
	}
	if len(all) == 0 {
		return nil, &NeedsError{Lab: lab, Scenario: s.Name, On: name, What: "two trust domains that trust each other, with servers in clusters and none of them nested"}
	}
	return nil, &NeedsError{Lab: lab, Scenario: s.Name, On: name, What: s.lacks(all)}
}

// unmet returns the first need that a relationship does not meet, nil for none.
func (s Scenario) unmet(r *topology.Trust) *Need {
	for i, n := range s.Needs {
		if !n.Met(r) {
			return &s.Needs[i]
		}
	}
	return nil
}

// lacks names the needs of which no relationship has all: those that none meets, or all.
func (s Scenario) lacks(all []*topology.Trust) string {
	var none, each []string
	for _, n := range s.Needs {
		each = append(each, n.What)
		if !slices.ContainsFunc(all, n.Met) {
			none = append(none, n.What)
		}
	}
	if none == nil {
		none = each
	}
	return strings.Join(none, ", and ")
}

// callable returns the relationships between trust domains whose probes can call each other:
// each trusts the other. Their servers are in clusters, since scenarios act on pods and nodes,
// and a host has containers in their place. Trust domains with nested servers do not fit: what
// reaches their workloads goes through one server more than the bounds of scenarios say. The
// first of two directions is the one whose called trust domain comes first in the lab file.
func callable(g *topology.Graph) ([]*topology.Trust, error) {
	fits := func(d *topology.Domain) bool { return len(d.Servers) == 1 && !onHost(d) }
	var all []*topology.Trust
	for i, a := range g.Domains {
		for _, b := range g.Domains[i+1:] {
			there, back := b.TrustIn(a), a.TrustIn(b)
			if there != nil && back != nil && fits(a) && fits(b) {
				all = append(all, there, back)
			}
		}
	}
	if all == nil {
		return nil, &NeedsError{Lab: g.Name, What: "it has no two trust domains that trust each other, with servers in clusters and none of them nested; 'between: [a, b]' in its file makes them do"}
	}
	return all, nil
}

// onHost tells whether the server of a trust domain is on a host.
func onHost(d *topology.Domain) bool { return d.Server().Place.Host != nil }

// Group is the part of the name before the slash.
func (s Scenario) Group() string {
	group, _, _ := strings.Cut(s.Name, "/")
	return group
}

// AllLabels are the group and the labels.
func (s Scenario) AllLabels() []string { return append([]string{s.Group()}, s.Labels...) }
