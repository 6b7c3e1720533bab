package scenarios

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
	// Labels are beside the group, which is a label by itself.
	Labels []string
	// Needs is what the pair must have beside what each scenario needs; mostly
	// nothing.
	Needs *Need
	// Sources are where the behaviour is written down: upstream files and issues.
	Sources []string
	// Run breaks and looks. It calls Trial's methods and returns Trial.Err.
	Run func(ctx context.Context, t *Trial) error
}

// Need is what not every lab has.
type Need struct {
	// What says whom it asks what of, and how a lab file gives it.
	What string
	met  func(called, caller *topology.Domain) bool
}

// RunsOn returns nil where a lab has what the scenario needs. The error is a
// *NeedsError.
func (s Scenario) RunsOn(g *topology.Graph) error {
	called, caller, err := pairOf(g)
	if err != nil || s.Needs == nil || s.Needs.met(called, caller) {
		return err
	}
	return &NeedsError{Lab: g.Name, Scenario: s.Name, What: s.Needs.What}
}

// Labels that scenarios may have beside their group.
const (
	// Slow takes more than two minutes.
	Slow = "slow"
	// CI is for those that run on every submission.
	CI = "ci"
)

// Group is the part of the name before the slash.
func (s Scenario) Group() string {
	group, _, _ := strings.Cut(s.Name, "/")
	return group
}

// AllLabels are the group and the labels.
func (s Scenario) AllLabels() []string { return append([]string{s.Group()}, s.Labels...) }

// Catalogue returns all scenarios, in the order in which documents list them.
func Catalogue() []Scenario {
	return slices.Concat(rotations(), outages(), drifts(), auths())
}

// UnknownError says that the catalogue has no scenario, or no label, of a name.
type UnknownError struct {
	// What is "scenario" or "label".
	What, Name string
	// Known are those that there are.
	Known []string
}

func (e *UnknownError) Error() string { return fmt.Sprintf("there is no %s %q", e.What, e.Name) }

// Find returns the scenario of a name. The error is an *UnknownError.
func Find(name string) (Scenario, error) {
	all := Catalogue()
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		unknown := &UnknownError{What: "scenario", Name: name}
		for _, s := range all {
			unknown.Known = append(unknown.Known, s.Name)
		}
		return Scenario{}, unknown
	}
	return all[i], nil
}

// Labels returns the labels that scenarios have, in the order of the catalogue.
func Labels() []string {
	var all []string
	for _, s := range Catalogue() {
		for _, l := range s.AllLabels() {
			if !slices.Contains(all, l) {
				all = append(all, l)
			}
		}
	}
	return all
}

// Labelled returns the scenarios that have a label. The error is an
// *UnknownError when none has.
func Labelled(label string) ([]Scenario, error) {
	var found []Scenario
	for _, s := range Catalogue() {
		if slices.Contains(s.AllLabels(), label) {
			found = append(found, s)
		}
	}
	if found == nil {
		return nil, &UnknownError{What: "label", Name: label, Known: Labels()}
	}
	return found, nil
}
