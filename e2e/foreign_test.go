package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Resources next to those of the lab, as charts bring them along and people make them:
// the lab is well, status names those of which a person has to know, and up changes
// nothing.
var _ = Describe("Resources that somebody else has made", Label("status"), func() {
	const hint = "the demo programs present the one with the hint"

	DescribeTable("leave the lab well",
		func(ctx SpecContext, make func(td *topology.Domain, client string) []map[string]any, problem string) {
			p := under.pair()
			Expect(under.well(ctx)).To(Succeed())
			var names []string
			for _, td := range under.graph.Domains {
				cluster, err := under.cluster(td.Server().Place.Cluster.Name)
				Expect(err).NotTo(HaveOccurred())
				for _, resource := range make(td, p.broker.ID.String()) {
					under.restored(machine, func(ctx context.Context) error { return cluster.Delete(ctx, resource) })
					Expect(cluster.Apply(ctx, resource)).To(Succeed())
					if meta, err := metadataOf(resource); problem != "" {
						Expect(err).NotTo(HaveOccurred())
						names = append(names, td.Server().Place.Cluster.Name+" "+meta.Name)
					}
				}
			}

			By("status names them, and finds the lab well")
			Eventually(func(ctx context.Context) error { return named(ctx, problem, names) }).WithContext(ctx).
				WithTimeout(federation.ReconcileBound() + machine).WithPolling(time.Second).Should(Succeed())

			By("a pod that starts now presents its own identity")
			before, err := under.podsOf(ctx, p.broker)
			Expect(err).NotTo(HaveOccurred())
			Expect(byHand(ctx, p.broker.Cluster().Name, "--namespace="+p.broker.Namespace, "delete", "pod", "--wait=false",
				"--selector="+spire.ProgramLabel+"="+p.broker.App.Name)).To(Succeed())
			Eventually(func(ctx context.Context) error {
				now, err := under.podsOf(ctx, p.broker)
				if err == nil && (len(now) != 1 || slices.Equal(now, before)) {
					err = errors.New("the pod is the old one")
				}
				return errors.Join(err, flowing(p.broker)(ctx))
			}).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed())
			for range 5 { // chance would show
				v, err := ask(ctx, p.broker)
				Expect(err).NotTo(HaveOccurred())
				Expect(v.Self.ID).To(Equal(p.broker.ID.String()))
			}
			// The old pod may take a moment to go, and the new one to be ready.
			Eventually(func(ctx context.Context) error { return named(ctx, problem, names) }).WithContext(ctx).
				WithTimeout(rollout).WithPolling(time.Second).Should(Succeed())

			By("up has nothing to do")
			up := under.fedlab(ctx, "up", "-o", "json")
			Expect(up).To(endWell())
			events, _, err := up.events()
			Expect(err).NotTo(HaveOccurred())
			for _, e := range events {
				Expect(e.State).NotTo(Equal(plan.Changed), e.Step)
			}
		},
		Entry("a second identity for all pods", func(*topology.Domain, string) []map[string]any {
			return []map[string]any{clusterSPIFFEID("e2e-everybody", "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}")}
		}, hint, SpecTimeout(3*time.Minute)),
		Entry("entries of the same ID for other programs", func(td *topology.Domain, client string) []map[string]any {
			if !strings.HasPrefix(client, td.Name.IDString()+"/") {
				return nil
			}
			var all []map[string]any
			for i, selector := range []string{"unix:uid:1000", "k8s:sa:somebody-else", "k8s:pod-label:app:other"} {
				all = append(all, map[string]any{
					"apiVersion": spire.ResourceAPIVersion, "kind": "ClusterStaticEntry", "metadata": map[string]any{"name": fmt.Sprintf("e2e-other-%d", i)},
					"spec": map[string]any{"spiffeID": client, "parentID": td.Name.IDString() + "/spire/agent/nobody", "selectors": []any{selector}},
				})
			}
			return all
		}, "", SpecTimeout(3*time.Minute)),
		Entry("a template of another trust domain", func(*topology.Domain, string) []map[string]any {
			return []map[string]any{clusterSPIFFEID("e2e-elsewhere", "spiffe://nsm.cluster1/{{ .PodMeta.Name }}")}
		}, "its templates come to no entry for", SpecTimeout(3*time.Minute)),
		Entry("a trust domain that nobody knows", func(*topology.Domain, string) []map[string]any {
			resource := clusterSPIFFEID("e2e-partner", "spiffe://{{ .TrustDomain }}/partner")
			resource["spec"].(map[string]any)["federatesWith"] = []any{"partner.test"}
			return []map[string]any{resource}
		}, "they federate with partner.test, of which it holds no bundle", SpecTimeout(3*time.Minute)),
	)

	It("end an up that waits for an entry which an older one keeps away", func(ctx SpecContext) {
		p := under.pair()
		Expect(under.well(ctx)).To(Succeed())
		cluster, err := under.cluster(p.broker.Cluster().Name)
		Expect(err).NotTo(HaveOccurred())
		own := spire.WorkloadIdentity(p.broker)
		spec, ok := own.Spec.(spire.WorkloadIdentitySpec)
		Expect(ok).To(BeTrue())
		spec.FederatesWith = nil
		elder := spire.Resource{APIVersion: own.APIVersion, Kind: own.Kind, Metadata: spire.Metadata{Name: "e2e-elder"}, Spec: spec}
		under.restored(rollout, func(ctx context.Context) error {
			return errors.Join(cluster.Delete(ctx, elder), under.repaired(ctx))
		})
		Expect(cluster.Delete(ctx, own)).To(Succeed())
		Expect(cluster.Apply(ctx, elder)).To(Succeed())

		// Its creation is told in seconds: the lab's own must not be of the same one.
		Eventually(under.well).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).ShouldNot(Succeed())
		up := under.fedlab(ctx, "up", "-o", "json")
		Expect(up.Code).To(Equal(1), "a wait that cannot succeed is no time limit")
		Expect(up.Stderr).To(ContainSubstring("ClusterSPIFFEID e2e-elder asks for the same entry and is older"))
		AddReportEntry("ended after", up.Took.String(), ReportEntryVisibilityAlways)
		found, code, err := under.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(And(HaveLen(2), HaveEach(ContainSubstring("ClusterSPIFFEID e2e-elder asks for the same entry and is older"))))
	}, SpecTimeout(4*time.Minute))
})

func clusterSPIFFEID(name, template string) map[string]any {
	return map[string]any{
		"apiVersion": spire.ResourceAPIVersion, "kind": "ClusterSPIFFEID", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"spiffeIDTemplate": template},
	}
}

// named returns nil when status finds the lab well, and says this of the resources of
// these clusters and names, and nothing of others.
func named(ctx context.Context, problem string, want []string) error {
	found, code, err := under.status(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, x := range found.Resources {
		names = append(names, x.Cluster+" "+x.Name)
		if !strings.Contains(x.Problem, problem) {
			return fmt.Errorf("of %s %s it says %q", x.Kind, x.Name, x.Problem)
		}
	}
	slices.Sort(names)
	slices.Sort(want)
	if code != 0 || !slices.Equal(names, want) {
		return fmt.Errorf("exit code %d, problems %q, resources %q, want %q", code, found.Problems(), names, want)
	}
	return nil
}
