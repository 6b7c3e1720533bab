package e2e

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/e2e/mutants"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/mutant"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// kindsFile is a lab that has what some scenarios need and the suite's own lab lacks.
var kindsFile = filepath.Join("testdata", "kinds.yaml")

// wanted returns what a lab file asks for.
func wanted(name string) *topology.Graph {
	f, err := config.For(demo.Apps()).Open(name)
	if err != nil {
		panic(err) // the files are the repository's own
	}
	g, err := topology.Resolve(f.Topology, netip.Prefix{})
	if err != nil {
		panic(err)
	}
	return g
}

var _ = Describe("Kinds of federation", Ordered, ContinueOnFailure, Label("scenario", "kinds", "slow", "night"), func() {
	var session *trial.Session
	BeforeAll(func(ctx SpecContext) {
		l := raised(ctx, kindsFile, "a lab with several kinds of federation")
		runner := &trial.Runner{Driver: &l.driver.Driver, Topology: l.graph.Intent(), Observe: told}
		var err error
		session, err = runner.Open(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) { Expect(session.Close(ctx)).To(Succeed()) }, NodeTimeout(5*time.Minute))
	}, NodeTimeout(10*time.Minute))

	run := func(ctx context.Context, m mutant.Mutation, s trial.Scenario, on trial.On) trial.Record {
		GinkgoHelper()
		record, err := m.Run(ctx, session, s, on)
		Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
		return record
	}
	kinds, quotes := wanted(kindsFile), wanted(config.DefaultPreset)
	needy := map[string]trial.Scenario{}
	for _, s := range scenarios.Catalogue() {
		fits, lacks := s.RunsOn(kinds)
		if _, err := s.RunsOn(quotes); err == nil || lacks != nil {
			continue
		}
		needy[s.Name] = s
		for _, on := range fits {
			It(s.Name+" holds on "+on.String(), func(ctx SpecContext) {
				record := run(ctx, "", s, on)
				Expect(record.Result.Held()).To(BeTrue(), summary(record))
			}, NodeTimeout(scenarioTimeout))
		}
	}
	for _, m := range mutants.All() {
		if s, here := needy[m.Scenario]; here {
			It(m.Scenario+" does not hold with "+string(m.Mutation), func(ctx SpecContext) {
				isCaught(m, run(ctx, m.Mutation, s, trial.On{}))
			}, NodeTimeout(scenarioTimeout))
		}
	}
})
