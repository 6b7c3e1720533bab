package e2e

import (
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// The quotes of one trust domain go to another one in the same cluster.
var _ = Describe("Several trust domains in one cluster", Ordered, Label("shared"), func() {
	const first, second, third = "cluster1.com", "cluster2.com", "partner.test"
	var (
		lab  *subject
		file string
	)
	write := func(l config.Lab) {
		GinkgoHelper()
		data, err := config.Marshal(l)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file, data, 0o644)).To(Succeed())
	}
	intent := func(port string) config.Lab {
		return config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-shared"},
			Spec: config.Spec{
				Clusters:   []config.Cluster{{Name: "floor", TrustDomains: []string{first, second, third}}},
				Federation: []config.Federation{{Between: []string{first, second}}, {Between: []string{first, third}}},
				Workloads: []config.Workload{
					{App: "stock-quotes", Cluster: "floor", TrustDomain: first},
					{App: "broker-webapp", Cluster: "floor", TrustDomain: second, Expose: port},
				},
			},
		}
	}
	BeforeAll(func(ctx SpecContext) {
		port, err := freePort(ctx)
		Expect(err).NotTo(HaveOccurred())
		file = filepath.Join(scratch(), "shared.yaml")
		write(intent(port))
		lab = raised(ctx, file, "a shared cluster")
	}, NodeTimeout(10*time.Minute))

	It("federate, and their workloads know each other", func(ctx SpecContext) {
		Expect(lab.well(ctx)).To(Succeed())
		lab.silent(ctx)
		Expect(lab.fedlab(ctx, "drift")).To(endWell())
		p := lab.pair()
		Eventually(flowing(p.broker)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		v, err := ask(ctx, p.broker)
		Expect(err).NotTo(HaveOccurred())
		Expect(v.Peer.ID).To(Equal("spiffe://" + first + "/server"))
		Expect(v.Self.ID).To(Equal("spiffe://" + second + "/client"))
		Expect(p.server.Namespace).To(Equal("demo"))
		Expect(p.broker.Namespace).To(Equal("demo-2"))
	}, NodeTimeout(2*time.Minute))

	It("are unchanged by a second up", func(ctx SpecContext) {
		lab.unchanged(ctx)
		Expect(lab.fedlab(ctx, "svid", "broker-webapp")).To(And(endWell(), HaveField("Stdout", ContainSubstring(second))))
		listed, err := lab.run(ctx, "spire", "--lab", lab.file, second, "--", "bundle", "list")
		Expect(err).NotTo(HaveOccurred())
		Expect(listed).To(And(endWell(), HaveField("Stdout", ContainSubstring(first))))
		Expect(lab.fedlab(ctx, "logs", second, "agent")).To(And(endWell(), HaveField("Stdout", ContainSubstring(second))))
	}, SpecTimeout(2*time.Minute))

	It("each break and recover alone", func(ctx SpecContext) {
		runner := &trial.Runner{Driver: &lab.driver.Driver, Topology: lab.graph.Intent(), Observe: told}
		session, err := runner.Open(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) { Expect(session.Close(ctx)).To(Succeed()) }, NodeTimeout(5*time.Minute))
		for _, name := range []string{"outage/server", "outage/agent", "auth/not-federated"} {
			s, err := scenarios.Find(name)
			Expect(err).NotTo(HaveOccurred())
			record, err := session.Run(ctx, s, trial.On{})
			Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
			Expect(objections(record)).To(BeEmpty(), name)
		}
		parted, err := scenarios.Find("outage/partition")
		Expect(err).NotTo(HaveOccurred())
		_, err = parted.RunsOn(lab.graph)
		Expect(err).To(MatchError(ContainSubstring("two trust domains in clusters of their own")))
	}, SpecTimeout(15*time.Minute))

	It("stay when one of them leaves the file", func(ctx SpecContext) {
		l := intent(lab.graph.Workloads[1].Expose.String())
		l.Spec.Clusters[0].TrustDomains = []string{first, second}
		l.Spec.Federation = l.Spec.Federation[:1]
		write(l)
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(lab.fedlab(ctx, "status")).To(endWell())
		cluster, err := lab.cluster("floor")
		Expect(err).NotTo(HaveOccurred())
		for _, kind := range []string{"Pod", "Secret", "Service", "PersistentVolumeClaim"} {
			Eventually(func() (any, error) { return cluster.Objects(ctx, "v1", kind, topology.ServerNamespace+"-3", "") }).
				WithContext(ctx).WithTimeout(rollout).WithPolling(poll).Should(BeEmpty(), kind)
		}
		Expect(cluster.Objects(ctx, spire.ResourceAPIVersion, spire.FederatedTrustDomainKind, "", "")).To(HaveLen(2))
		Expect(cluster.Objects(ctx, spire.ResourceAPIVersion, "ClusterSPIFFEID", "", "")).To(HaveLen(2))
		held, err := lab.run(ctx, "spire", "--lab", lab.file, first, "--", "bundle", "list")
		Expect(err).NotTo(HaveOccurred())
		Expect(held).To(And(endWell(), HaveField("Stdout", And(ContainSubstring(second), Not(ContainSubstring(third))))))
	}, SpecTimeout(5*time.Minute))
})
