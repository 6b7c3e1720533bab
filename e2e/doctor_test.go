package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/doctor"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// broken is a moment of a scenario in which something is broken, and the diagnosis that
// doctor must name first.
type broken struct {
	scenario string
	// at begins the name of the step that comes next then, or what the running one has seen.
	at   string
	want doctor.ID
}

// allBroken are the moments, in the order of the catalogue. Scenarios that break nothing of
// the lab, such as one in which somebody without its trust calls, are not there.
func allBroken() []broken {
	return []broken{
		{"rotation/revoked-too-early", "see that the SVIDs stay", doctor.SVIDUnverified},
		{"rotation/faster-than-refresh", "see that it stays so", doctor.BundleBehind},
		{"outage/server", "let a newcomer come", doctor.ServerSilent},
		{"outage/replica", "let a newcomer come", doctor.ReplicaAway},
		{"outage/server-data-lost", "see that no poll", doctor.AnothersBundle},
		{"outage/datastore", "see that its peer cannot", doctor.DatastoreAway},
		{"outage/agent", "let a newcomer come", doctor.AgentAway},
		{"outage/controller-manager", "let a newcomer come", doctor.ManagerAway},
		{"outage/bundle-endpoint", "give the endpoint back", doctor.EndpointUnreachable},
		{"outage/cluster", "see that the other cluster", doctor.ClusterStopped},
		{"outage/partition", "join them again", doctor.WayBlocked},
		{"outage/partition", "join them, and wait", doctor.WayBlocked},
		{"outage/missing-bundle-blocks-identity", "hand the bundle of", doctor.ResourceIdle},
		{"outage/hung-endpoint-freezes-configuration", "see that others can be refreshed", doctor.EndpointHangs},
		{"drift/deleted", "see that no poll", doctor.MissingBundle},
		{"drift/tampered", "find it", doctor.ExtraKey},
		{"drift/wrong-domain", "see that no poll", doctor.AnothersBundle},
		{"drift/rolled-back", "see that no poll", doctor.BundleBehind},
		{"drift/emptied", "see that no poll", doctor.EmptyBundle},
		{"drift/crd-edit-rolls-back", "see that no poll", doctor.BundleBehind},
		{"drift/removal-keeps-bundle", "see that the trust is still there", doctor.NoRelationship},
		{"drift/removal-keeps-bundle", "see that now it has ended", doctor.NoRelationship},
		{"drift/stale-bootstrap-deadlock", "hand the bundle over", doctor.BundleBehind},
		{"drift/stale-by-web-certificate", "give the endpoint back", doctor.EndpointUnreachable},
		{"drift/stale-by-hand", "sign with it", doctor.BundleBehind},
		{"auth/one-way", "see which JWT-SVIDs", doctor.NoRelationship},
		{"auth/entry-without-federatesWith", "see that the server holds", doctor.NoFederatesWith},
		{"auth/selector-too-narrow", "write the entry", doctor.PodWithout},
		{"auth/selector-too-broad", "take that entry away", doctor.SelectorsTooBroad},
		{"auth/wrong-parent", "write the entry", doctor.WrongParent},
		{"auth/two-identities", "take the second one away", doctor.ResourceIdle},
		{"auth/wrong-endpoint-id", "publish another authority", doctor.WrongEndpointID},
		{"auth/wrong-profile", "profile-expected/", doctor.WrongProfile},
		{"auth/no-identity", "register it", doctor.PodWithout},
		{"auth/resumed-session-after-removal", "see who is let in", doctor.NoRelationship},
	}
}

// doctorDocument is the document with the table, from the root of the checkout.
var doctorDocument = filepath.Join("docs", "doctor-faults.md")

const (
	faultsBegin = "<!-- BEGIN faults: made by go tool ginkgo run --label-filter=doctor ./e2e -- -update -->\n"
	faultsEnd   = "<!-- END faults -->"
)

// Each fault of the catalogue is made, and doctor is asked while it lasts. Before the first
// step of each scenario doctor says nothing. What the run sees is the table of
// docs/doctor-faults.md, which -update writes.
var _ = Describe("Doctor", Ordered, ContinueOnFailure, Label("doctor", "night"), func() {
	var (
		session *trial.Session
		observe func(trial.Event)
		seen    = map[broken]string{}
	)
	BeforeAll(func(ctx SpecContext) {
		runner := &trial.Runner{Driver: &under.driver.Driver, Topology: under.graph.Intent(), Observe: func(e trial.Event) { observe(e) }}
		observe = told
		var err error
		session, err = runner.Open(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) { Expect(session.Close(ctx)).To(Succeed()) }, NodeTimeout(5*time.Minute))
	}, NodeTimeout(10*time.Minute))

	var names []string
	for _, b := range allBroken() {
		if !slices.Contains(names, b.scenario) {
			names = append(names, b.scenario)
		}
	}
	for _, name := range names {
		It("names what is broken in "+name, func(ctx SpecContext) {
			s, err := scenarios.Find(name)
			Expect(err).NotTo(HaveOccurred())
			moments := slices.DeleteFunc(allBroken(), func(b broken) bool { return b.scenario != name })
			if _, err := s.RunsOn(under.graph); err != nil {
				for _, b := range moments {
					seen[b] = "-"
				}
				Skip(err.Error())
			}
			with := under.graph.Intent().WithProbes()
			ask := func() doctor.Report {
				report, err := under.driver.Doctor(ctx, with, true)
				Expect(err).NotTo(HaveOccurred())
				return report
			}
			healthy := ask()
			Expect(healthy.Diagnoses).To(BeEmpty(), "before anything is broken")
			answers := map[broken]doctor.Report{}
			observe = func(e trial.Event) {
				told(e)
				for _, b := range moments {
					_, asked := answers[b]
					begins := e.Step != nil && !e.Ended && strings.HasPrefix(e.Step.Name, b.at)
					if !asked && (begins || strings.HasPrefix(e.Seen, b.at)) {
						answers[b] = ask()
					}
				}
			}
			defer func() { observe = told }()
			_, err = session.Run(ctx, s, trial.On{})
			Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
			for _, b := range moments {
				Expect(answers).To(HaveKey(b), "the scenario comes to %q", b.at)
				report := answers[b]
				var lines []string
				for _, d := range report.Diagnoses {
					lines = append(lines, fmt.Sprintf("%s %s (and %d that follow): %s", d.ID, d.Part, len(d.Follows), d.Seen))
				}
				AddReportEntry(fmt.Sprintf("%s, after %.1fs", b.at, report.TookSeconds), strings.Join(lines, "\n"), ReportEntryVisibilityAlways)
				Expect(report.Diagnoses).NotTo(BeEmpty())
				first := report.Diagnoses[0]
				seen[b] = fmt.Sprintf("`%s`", first.ID)
				Expect(first.ID).To(Equal(b.want), strings.Join(lines, "\n"))
			}
		}, NodeTimeout(scenarioTimeout))
	}

	It("is what the table of the documents says", func() {
		var b strings.Builder
		b.WriteString("\n| scenario | asked before, or when | diagnosis, first |\n|---|---|---|\n")
		for _, one := range allBroken() {
			Expect(seen).To(HaveKey(one), "each has run")
			fmt.Fprintf(&b, "| `%s` | %s … | %s |\n", one.scenario, one.at, seen[one])
		}
		b.WriteString("\n")
		AddReportEntry("table", b.String(), ReportEntryVisibilityAlways)
		path := filepath.Join(root, doctorDocument)
		document, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		_, rest, found := strings.Cut(string(document), faultsBegin)
		inside, _, ended := strings.Cut(rest, faultsEnd)
		Expect(found && ended).To(BeTrue(), "%s has the marks of the table", doctorDocument)
		if *update {
			Expect(os.WriteFile(path, []byte(strings.Replace(string(document), faultsBegin+inside+faultsEnd, faultsBegin+b.String()+faultsEnd, 1)), 0o644)).To(Succeed())
			return
		}
		Expect(inside).To(Equal(b.String()), "-update writes what this run has seen into %s", doctorDocument)
	})
})

// silent has doctor find nothing in a healthy lab, within 5 s where it has two clusters, and
// 5 s more for each further one.
func (s *subject) silent(ctx SpecContext) {
	GinkgoHelper()
	within := time.Duration(max(1, len(s.graph.Clusters)-1)) * 5 * time.Second
	report, err := s.driver.Doctor(ctx, s.graph.Intent(), true)
	Expect(err).NotTo(HaveOccurred())
	Expect(report.Diagnoses).To(BeEmpty())
	AddReportEntry("doctor", fmt.Sprintf("%.1fs, %d calls", report.TookSeconds, len(report.Calls)), ReportEntryVisibilityAlways)
	Expect(time.Duration(report.TookSeconds * float64(time.Second))).To(BeNumerically("<", within))
}
