package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// The quotes come from a trust domain with two servers.
var _ = Describe("Two SPIRE servers on one PostgreSQL", Ordered, Label("replicas", "night"), func() {
	const one, other = "one.test", "other.test"
	var (
		lab    *subject
		before traces
	)
	BeforeAll(func(ctx SpecContext) {
		port, err := freePort(ctx)
		Expect(err).NotTo(HaveOccurred())
		// Two lives are waited for.
		short := config.SVID{X509TTL: config.Duration(time.Minute)}
		data, err := config.Marshal(config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-replicas"},
			Spec: config.Spec{
				Clusters: []config.Cluster{{Name: "a", TrustDomain: one}, {Name: "b", TrustDomain: other}},
				TrustDomains: []config.TrustDomain{
					{Name: one, ServerReplicas: topology.MaxReplicas, Datastore: string(topology.Postgres), SVID: short}, {Name: other, SVID: short},
				},
				Federation: []config.Federation{{Between: []string{one, other}}},
				Workloads:  []config.Workload{{App: "stock-quotes", Cluster: "a"}, {App: "broker-webapp", Cluster: "b", Expose: port}},
			},
		})
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(scratch(), "replicas.yaml")
		Expect(os.WriteFile(file, data, 0o644)).To(Succeed())
		lab, before = raisedAlone(ctx, file, "a trust domain with two servers")
	}, NodeTimeout(10*time.Minute))

	It("sign with keys of their own, and the peer verifies tokens of both", func(ctx SpecContext) {
		Expect(lab.well(ctx)).To(Succeed())
		Expect(lab.fedlab(ctx, "drift")).To(endWell())
		lab.signers(ctx, lab.running(ctx, lab.graph.Domains[0].Name))
	}, NodeTimeout(2*time.Minute))

	It("are unchanged by a second up", func(ctx SpecContext) {
		lab.unchanged(ctx)
	}, SpecTimeout(2*time.Minute))

	It("come back with the next up where a scenario was killed that had one away", func(ctx SpecContext) {
		d := lab.running(ctx, lab.graph.Domains[0].Name)
		for start := range topology.MaxReplicas {
			patched, err := lab.run(ctx, "kubectl", "--lab", lab.file, "a", "patch", "statefulset", spire.ServerStatefulSet, "-n", topology.ServerNamespace,
				"--type=merge", "--patch", fmt.Sprintf(`{"spec":{"replicas":1,"ordinals":{"start":%d}}}`, start))
			Expect(err).NotTo(HaveOccurred())
			Expect(patched).To(endWell())
			Expect(lab.fedlab(ctx, "up")).To(endWell())
			// The kubelet's first look at a new pod comes up to a period later.
			Eventually(lab.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed())
			sites, err := lab.driver.Replicas(ctx, d.Server())
			Expect(err).NotTo(HaveOccurred())
			for _, site := range sites {
				Expect(site.Close()).To(Succeed())
			}
		}
		lab.unchanged(ctx)
	}, SpecTimeout(6*time.Minute))

	It("may each be killed, and stay away for two lives of an X509-SVID", func(ctx SpecContext) {
		runner := &trial.Runner{Driver: &lab.driver.Driver, Topology: lab.graph.Intent(), Observe: told}
		session, err := runner.Open(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) { Expect(session.Close(ctx)).To(Succeed()) }, NodeTimeout(5*time.Minute))
		s, err := scenarios.Find("outage/replica")
		Expect(err).NotTo(HaveOccurred())
		record, err := session.Run(ctx, s, trial.On{})
		Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
		Expect(record.Result.Held()).To(BeTrue(), summary(record))
	}, SpecTimeout(scenarioTimeout))

	It("leave nothing", func(ctx SpecContext) { lab.cleared(ctx, before) }, SpecTimeout(3*time.Minute))
})

// signers returns the JWT authority with which each of the servers of a trust domain signs, by
// its pod: no two sign with the same one, and the first peer verifies the tokens of all.
func (s *subject) signers(ctx context.Context, d *topology.Domain) map[string]string {
	GinkgoHelper()
	held, err := s.site(ctx, d.TrustedBy[0].Truster.Name).API.HeldBundle(ctx, d.Name)
	Expect(err).NotTo(HaveOccurred())
	Expect(held).NotTo(BeNil())
	sites, err := s.driver.Replicas(ctx, d.Server())
	Expect(err).NotTo(HaveOccurred())
	Expect(sites).To(HaveLen(topology.MaxReplicas))
	signs := map[string]string{}
	for _, site := range sites {
		DeferCleanup(site.Close)
		jwt, err := site.API.JWTAuthorities(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(jwt.Active).NotTo(BeNil(), site.Pod)
		Expect(slices.Collect(maps.Values(signs))).NotTo(ContainElement(jwt.Active.ID), "each has its own authority")
		signs[site.Pod] = jwt.Active.ID
		token, err := site.Pods.Exec(ctx, site.Place.Namespace, site.Pod, spire.ServerContainer,
			spire.ServerProgram, "jwt", "mint", "-spiffeID", spiffeid.RequireFromPath(d.Name, "/e2e").String(), "-audience", "e2e")
		Expect(err).NotTo(HaveOccurred())
		svid, err := jwtsvid.ParseAndValidate(string(token), held, []string{"e2e"})
		Expect(err).NotTo(HaveOccurred(), site.Pod)
		Expect(svid.ID.TrustDomain()).To(Equal(d.Name))
	}
	Expect(held.X509Authorities()).To(HaveLen(len(sites)))
	return signs
}
