package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/e2e/mutants"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/mutant"
	"github.com/fedlab-dev/fedlab/scenarios/report"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// scenarioTimeout is how long one may take with all that it puts back: the
// longest waits for three generations of authorities.
const scenarioTimeout = 20 * time.Minute

// isCaught expects that a mutant did not hold, for the reason that is meant.
func isCaught(m mutants.Mutant, record trial.Record) {
	GinkgoHelper()
	Expect(record.Mutation).To(Equal(string(m.Mutation)))
	Expect(record.Result).To(Equal(trial.DoesNotHold), summary(record))
	Expect(objections(record)).To(ContainElement(m.Caught), summary(record))
	if m.Mutation.OfRecord() {
		Expect(record.Error).To(BeEmpty(), "the course is as ever, and what is recorded is wrong")
	}
}

// objections returns the steps of a record that failed and the verdicts that do
// not hold.
func objections(r trial.Record) []string {
	var against []string
	for _, s := range r.Steps {
		if s.Error != "" {
			against = append(against, s.Name)
		}
	}
	for _, v := range r.Verdicts {
		if !v.Result.Held() {
			against = append(against, v.Says)
		}
	}
	return against
}

var _ = Describe("Scenario", Ordered, ContinueOnFailure, Label("scenario"), func() {
	var (
		session *trial.Session
		// records are those of each folder of the evidence: a scenario may run twice.
		records = map[string][]trial.Record{}
	)
	BeforeAll(func(ctx SpecContext) {
		runner := &trial.Runner{Driver: &under.driver.Driver, Topology: under.graph.Intent(), Observe: told}
		var err error
		session, err = runner.Open(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			Expect(session.Close(ctx)).To(Succeed())
			for folder, all := range records {
				Expect(keep(folder, all)).To(Succeed())
			}
			Eventually(under.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed())
		}, NodeTimeout(10*time.Minute))
	}, NodeTimeout(10*time.Minute))

	// run runs one. Where a folder of the evidence is named, it keeps the record.
	run := func(ctx context.Context, name string, mutation mutant.Mutation, folder string) trial.Record {
		GinkgoHelper()
		s, err := scenarios.Find(name)
		Expect(err).NotTo(HaveOccurred())
		record, err := mutation.Run(ctx, session, s, trial.On{})
		Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
		if folder != "" {
			records[folder] = append(records[folder], record)
		}
		// What was switched off or killed has started its containers again.
		for _, w := range record.Windows {
			// "frozen/market+broker"
			words := strings.FieldsFunc(w.Name, func(r rune) bool { return r == '/' || r == '+' })
			for _, c := range under.graph.Clusters {
				if slices.Contains(words, c.Name) {
					Expect(under.explain(ctx, c.Name)).To(Succeed())
				}
			}
		}
		return record
	}

	// can skips what the lab lacks something for: the enterprise lab has what it needs.
	can := func(name string) {
		GinkgoHelper()
		s, err := scenarios.Find(name)
		Expect(err).NotTo(HaveOccurred())
		if _, err := s.RunsOn(under.graph); err != nil {
			Skip(err.Error())
		}
	}

	holds := func(ctx SpecContext, s trial.Scenario, folder string) {
		GinkgoHelper()
		can(s.Name)
		record := run(ctx, s.Name, "", folder)
		for _, m := range record.Measures {
			if m.Propagation {
				AddReportEntry(m.What, m.Took.Round(100*time.Millisecond).String()+" of "+m.Bound.String(), ReportEntryVisibilityAlways)
			}
		}
		Expect(record.Result.Held()).To(BeTrue(), summary(record))
	}
	seed := uint64(GinkgoRandomSeed())
	for _, s := range scenarios.Shuffled(scenarios.Catalogue(), seed) {
		It(s.Name+" holds", Label(s.AllLabels()...), func(ctx SpecContext) { holds(ctx, s, "scenarios") }, NodeTimeout(scenarioTimeout))
	}
	for _, m := range mutants.All() {
		It(m.Scenario+" does not hold with "+string(m.Mutation), Label("mutation"), func(ctx SpecContext) {
			can(m.Scenario)
			isCaught(m, run(ctx, m.Scenario, m.Mutation, ""))
		}, NodeTimeout(scenarioTimeout))
	}
	// Each has put the lab back, the mutated ones, too.
	for _, s := range scenarios.Shuffled(scenarios.Catalogue(), seed+1) {
		It(s.Name+" holds again, in another order", Label("again"), func(ctx SpecContext) { holds(ctx, s, "scenarios-again") }, NodeTimeout(scenarioTimeout))
	}
})

var _ = Describe("A rotation that somebody has begun", Label("scenario", "rotation"), func() {
	It("is finished before a scenario begins, as a run leaves it that is killed", func(ctx SpecContext) {
		server := under.site(ctx, under.pair().server.Domain().Name).API
		before, err := server.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		var old []string
		for _, state := range []func(context.Context) (spire.Authorities, error){server.X509Authorities, server.JWTAuthorities} {
			signs, err := state(ctx)
			Expect(err).NotTo(HaveOccurred())
			old = append(old, signs.Active.ID)
		}
		// What a short-lived authority leaves behind stays until SPIRE prunes it.
		has := func(b *spiffebundle.Bundle) []string {
			return slices.Concat(federation.X509IDs(b), federation.JWTIDs(b))
		}
		stay := slices.DeleteFunc(has(before), func(id string) bool { return slices.Contains(old, id) })
		x509, err := server.PrepareX509Authority(ctx)
		Expect(err).NotTo(HaveOccurred())
		_, err = server.ActivateX509Authority(ctx, x509.ID)
		Expect(err).NotTo(HaveOccurred())
		jwt, err := server.PrepareJWTAuthority(ctx)
		Expect(err).NotTo(HaveOccurred())

		// Nobody runs a scenario on a lab that is behind.
		Eventually(under.well).WithContext(ctx).WithTimeout(federation.FetchBound(federation.PollInterval(time.Minute, 0)) + machine).WithPolling(time.Second).Should(Succeed())
		records := filepath.Join(under.scratch, "rotation-begun")
		Expect(under.fedlab(ctx, "scenario", "run", "auth/entry-without-federatesWith", "--records", records)).To(endWell())
		bundle, err := server.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(has(bundle)).To(ConsistOf(append(stay, x509.ID, jwt.ID)))
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("A scenario is not run", Label("status"), func() {
	It("on a lab that is not up", func(ctx SpecContext) {
		absent, err := labFile(ctx, config.DefaultPreset, "absent-")
		Expect(err).NotTo(HaveOccurred())
		run, err := under.run(ctx, "scenario", "run", "drift/deleted", "--lab", absent)
		Expect(err).NotTo(HaveOccurred())
		Expect(run).To(And(HaveField("Code", 1), HaveField("Stderr", And(
			ContainSubstring("lab absent-"+config.DefaultPreset+" is not up"), ContainSubstring("hint: 'fedlab up' brings it up")))))
	}, SpecTimeout(time.Minute))

	It("on a lab that has no two trust domains that trust each other", func(ctx SpecContext) {
		alone := filepath.Join(scratch(), "alone.yaml")
		file := "apiVersion: fedlab.dev/v1alpha1\nkind: Lab\nmetadata: {name: alone}\nspec:\n  clusters:\n    - {name: here, trustDomain: here.test}\n"
		Expect(os.WriteFile(alone, []byte(file), 0o644)).To(Succeed())
		run, err := under.run(ctx, "scenario", "run", "drift/deleted", "--lab", alone)
		Expect(err).NotTo(HaveOccurred())
		Expect(run).To(And(HaveField("Code", 2), HaveField("Stderr", And(
			ContainSubstring("lab alone is not one that scenarios can run on: it has no two trust domains that trust each other"),
			ContainSubstring("'between: [a, b]' in its file makes them do")))))
	}, SpecTimeout(time.Minute))

	It("on a lab that lacks what it alone needs", func(ctx SpecContext) {
		needs := "it needs a SPIRE server with a PostgreSQL, that of the called trust domain; 'datastore: postgres' in the lab file gives it one"
		Expect(under.fedlab(ctx, "scenario", "run", "outage/datastore")).To(And(HaveField("Code", 2),
			HaveField("Stderr", ContainSubstring("lab "+under.graph.Name+" is not one that outage/datastore can run on: "+needs))))
	}, SpecTimeout(time.Minute))

	It("on a lab that is half up, and changes nothing there", func(ctx SpecContext) {
		w, cluster := under.withoutServer(ctx)
		Eventually(under.well).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).ShouldNot(Succeed())

		run := under.fedlab(ctx, "scenario", "run", "drift/deleted")
		Expect(run).To(And(HaveField("Code", 3), HaveField("Stderr", And(
			ContainSubstring("is not well: workload "+w.Name+": "), ContainSubstring("hint: 'fedlab up' repairs a lab that is not well")))))
		probe := topology.Probe()
		_, there, err := cluster.Object(ctx, "apps/v1", "Deployment", probe.Namespace, probe.Deployment)
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeFalse(), "no probe was brought in")
	}, SpecTimeout(3*time.Minute))
})

// told shows the course of a scenario in the report of its spec.
func told(e trial.Event) {
	switch {
	case e.Step != nil && e.Ended && e.Step.Error != "":
		GinkgoWriter.Printf("FAIL %s: %s\n", e.Step.Name, e.Step.Error)
	case e.Step != nil && !e.Ended:
		GinkgoWriter.Printf("%s step: %s\n", time.Now().Format(time.TimeOnly), e.Step.Name)
	case e.Seen != "":
		GinkgoWriter.Printf("%s   %s\n", time.Now().Format(time.TimeOnly), e.Seen)
	}
}

// summary is what a record says, for a person who reads that a claim does not hold.
func summary(r trial.Record) string {
	var text bytes.Buffer
	if err := report.Console(&text, r, false); err != nil {
		return err.Error()
	}
	return text.String()
}

// keep writes the records of a run, and the report, next to what else is gathered.
func keep(folder string, records []trial.Record) (err error) {
	dir := filepath.Join(evidenceFolder(), folder)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), report.Write(dir, records...)); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "report.html"))
	if err != nil {
		return err
	}
	return errors.Join(report.HTML(f, records), f.Close())
}
