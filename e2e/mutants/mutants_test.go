package mutants

import (
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/mutant"
)

// TestEachScenarioCanFail: a mutation of the record alone shows that verdicts can fail; each
// scenario must fail as well where something else happens.
func TestEachScenarioCanFail(t *testing.T) {
	happens := map[string]bool{}
	var tried []mutant.Mutation
	for _, m := range All() {
		if _, err := scenarios.Find(m.Scenario); err != nil {
			t.Error(err)
		}
		if m.Caught == "" {
			t.Errorf("nothing catches %s in %s", m.Mutation, m.Scenario)
		}
		happens[m.Scenario] = happens[m.Scenario] || !m.Mutation.OfRecord()
		tried = append(tried, m.Mutation)
	}
	for _, name := range scenarios.Names() {
		if !happens[name] {
			t.Errorf("no mutation changes what happens in %s", name)
		}
	}
	for _, m := range mutant.Mutations() {
		if !slices.Contains(tried, m) {
			t.Errorf("%s is not tried", m)
		}
	}
}
