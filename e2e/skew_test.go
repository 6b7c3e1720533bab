package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/e2e/mutants"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// skewed are the scenarios that versions of SPIRE are held against each other with: a family
// for each thing that goes from one server to the other, and the upgrades.
func skewed() []string {
	return []string{
		"rotation/x509-authority", "rotation/jwt-authority", "outage/server-killed", "outage/bundle-endpoint",
		"auth/impersonation-across-domains", "upgrade/server", "upgrade/agent",
	}
}

// skewDocument is the document with the table, from the root of the checkout.
var skewDocument = filepath.Join("docs", "version-skew.md")

const (
	skewBegin = "<!-- BEGIN skew: made by go tool ginkgo run --label-filter=skew ./e2e -- -update -->\n"
	skewEnd   = "<!-- END skew -->"
)

// Three versions of SPIRE, each with a trust domain and a cluster of its own, and each trusts
// each other. What the run sees is the table of docs/version-skew.md, which -update writes.
var _ = Describe("Versions of SPIRE against each other", Ordered, ContinueOnFailure, Label("skew", "night"), func() {
	var (
		lab     *subject
		session *trial.Session
		// seen has the result of each scenario on each relationship.
		seen = map[string]map[string]string{}
	)
	domain := func(version string) string { return "v" + strings.ReplaceAll(version, ".", "-") + ".test" }
	// pairs are truster and trusted, in the order of the table.
	pairs := func() (all [][2]string) {
		for _, truster := range topology.SPIREVersions() {
			for _, trusted := range topology.SPIREVersions() {
				if truster != trusted {
					all = append(all, [2]string{truster, trusted})
				}
			}
		}
		return all
	}
	on := func(pair [2]string) string { return domain(pair[0]) + "->" + domain(pair[1]) }

	BeforeAll(func(ctx SpecContext) {
		l := config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-skew"},
			Spec: config.Spec{Federation: []config.Federation{{Shape: "mesh"}}},
		}
		for i, version := range topology.SPIREVersions() {
			cluster := fmt.Sprintf("cluster%d", i+1)
			l.Spec.Clusters = append(l.Spec.Clusters, config.Cluster{Name: cluster, TrustDomain: domain(version)})
			l.Spec.TrustDomains = append(l.Spec.TrustDomains, config.TrustDomain{Name: domain(version), SPIRE: config.SPIRE{Version: version}})
		}
		data, err := config.Marshal(l)
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(scratch(), "skew.yaml")
		Expect(os.WriteFile(file, data, 0o644)).To(Succeed())
		lab = raised(ctx, file, "a lab with three versions of SPIRE")
		runner := &trial.Runner{Driver: &lab.driver.Driver, Topology: lab.graph.Intent(), Observe: told}
		session, err = runner.Open(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) { Expect(session.Close(ctx)).To(Succeed()) }, NodeTimeout(5*time.Minute))
	}, NodeTimeout(40*time.Minute)) // where two versions have to be built; else three minutes

	for _, pair := range pairs() {
		for _, name := range skewed() {
			It(fmt.Sprintf("%s holds where %s trusts %s", name, pair[0], pair[1]), func(ctx SpecContext) {
				s, err := scenarios.Find(name)
				Expect(err).NotTo(HaveOccurred())
				if seen[name] == nil {
					seen[name] = map[string]string{}
				}
				fits, err := s.RunsOnOne(lab.graph, on(pair))
				if err != nil {
					seen[name][on(pair)] = "-"
					Skip(err.Error())
				}
				record, err := session.Run(ctx, s, fits[0])
				Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
				seen[name][on(pair)] = string(record.Result)
				if record.Result == trial.Late {
					seen[name][on(pair)] = string(trial.Holds) // late is the machine's
				}
				Expect(record.Result.Held()).To(BeTrue(), summary(record))
			}, NodeTimeout(scenarioTimeout))
		}
	}

	for _, m := range mutants.All() {
		if !strings.HasPrefix(m.Scenario, "upgrade/") {
			continue // those have nothing to do with a version
		}
		It(m.Scenario+" does not hold with "+string(m.Mutation), Label("mutation"), func(ctx SpecContext) {
			s, err := scenarios.Find(m.Scenario)
			Expect(err).NotTo(HaveOccurred())
			fits, err := s.RunsOn(lab.graph)
			Expect(err).NotTo(HaveOccurred())
			record, err := m.Mutation.Run(ctx, session, s, fits[0])
			Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
			isCaught(m, record)
		}, NodeTimeout(scenarioTimeout))
	}

	It("is what the table of the documents says", func() {
		var b strings.Builder
		b.WriteString("\n| scenario |")
		for _, pair := range pairs() {
			fmt.Fprintf(&b, " %s trusts %s |", pair[0], pair[1])
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(pairs())) + "\n")
		for _, name := range skewed() {
			fmt.Fprintf(&b, "| `%s` |", name)
			for _, pair := range pairs() {
				Expect(seen[name]).To(HaveKey(on(pair)), "%s has run on each", name)
				fmt.Fprintf(&b, " %s |", seen[name][on(pair)])
			}
			b.WriteString("\n")
		}
		table := b.String() + "\n"
		AddReportEntry("table", table, ReportEntryVisibilityAlways)
		path := filepath.Join(root, skewDocument)
		document, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		_, rest, found := strings.Cut(string(document), skewBegin)
		inside, _, ended := strings.Cut(rest, skewEnd)
		Expect(found && ended).To(BeTrue(), "%s has the marks of the table", skewDocument)
		if *update {
			Expect(os.WriteFile(path, []byte(strings.Replace(string(document), skewBegin+inside+skewEnd, skewBegin+table+skewEnd, 1)), 0o644)).To(Succeed())
			return
		}
		Expect(inside).To(Equal(table), "-update writes what this run has seen into %s", skewDocument)
	})
})
