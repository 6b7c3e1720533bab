package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	labs "github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// The preset with servers and agents in every sort of place, and two servers of one of its
// trust domains. What takes longer has specs of its own: spread, nested, replicas, hosts,
// tokens, sidecars.
var _ = Describe("The company lab", Ordered, Label("company"), func() {
	var (
		c      *company
		before traces
	)
	const partner, edge = "partner.example.com", "edge.company.com"
	// id returns the SPIFFE ID of a workload.
	id := func(name string) string {
		GinkgoHelper()
		_, id := c.workload(name)
		return id.String()
	}
	// agents returns those that the server of a trust domain knows, as "place attestor".
	agents := func(ctx context.Context, td string) (all []string, err error) {
		known, err := c.site(ctx, spiffeid.RequireTrustDomainFromString(td)).API.Agents(ctx)
		for _, a := range known {
			all = append(all, cmp.Or(spire.AttestedIn(a.ID), spire.JoinedOn(a.ID))+" "+a.AttestedBy)
		}
		slices.Sort(all)
		return all, err
	}
	// crossed returns nil when a workload's call of another was answered.
	crossed := func(caller, called string) func(context.Context) error {
		return func(ctx context.Context) error {
			r, err := c.told(ctx)
			if err != nil {
				return err
			}
			for _, call := range r.Calls {
				if call.Caller == id(caller) && call.Server == id(called) {
					if call.State != "answered" {
						return fmt.Errorf("%s: %s: %+v", call.Name, call.State, call.Problem)
					}
					return nil
				}
			}
			return fmt.Errorf("%s reports no call of %s", caller, called)
		}
	}
	BeforeAll(func(ctx SpecContext) {
		var err error
		c = &company{preset: "company"}
		c.port, err = freePort(ctx)
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Join(scratch(), "company.yaml")
		Expect(c.write(file, func(l *config.Lab) {
			l.Spec.TrustDomains = append(l.Spec.TrustDomains, config.TrustDomain{
				Name: edge, ServerReplicas: topology.MaxReplicas, Datastore: string(topology.Postgres),
			})
		})).To(Succeed())
		c.subject, before = raisedAlone(ctx, file, "company")
	}, NodeTimeout(15*time.Minute))

	It("has servers and agents in every sort of place, and every bundle in sync", func(ctx SpecContext) {
		Expect(c.well(ctx)).To(Succeed())
		c.silent(ctx)
		Expect(c.fedlab(ctx, "drift")).To(endWell())
		for td, want := range map[string][]string{
			aws.Name(): {"aws k8s_psat"}, gcp.Name(): {"gcp k8s_psat"}, edge: {"branch k8s_psat"}, partner: {"partner join_token"},
			onprem.Name(): {"branch k8s_psat", "datacenter join_token", "onprem k8s_psat"},
		} {
			Expect(agents(ctx, td)).To(Equal(want), td)
		}
		found, _, err := c.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, r := range found.Relationships {
			Expect(r.Profile).To(Equal(map[bool]string{true: "https_web", false: "https_spiffe"}[r.Trusted == aws.Name()]), r.Trusted)
		}
	}, NodeTimeout(6*time.Minute))

	It("makes the three calls of the article's picture, and those of the partner", func(ctx SpecContext) {
		for _, call := range [][2]string{
			{"frontend", "data-service"}, {"ml-pipeline", "edge-gateway"}, {"legacy-bridge", "auth-service"},
			{"aws-gateway", "partner-orders"}, {"partner-orders", "aws-gateway"}, {"edge-node", "edge-gateway"}, {"mainframe", "auth-service"},
			// Between ghostunnels, both ways.
			{"frontend", "billing"}, {"billing", "auth-service"},
		} {
			Eventually(crossed(call[0], call[1])).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed(), "%s calls %s", call[0], call[1])
		}
		Eventually(c.asItShould).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
	}, SpecTimeout(6*time.Minute))

	It("tells a member of a trust domain from another trust domain in the same cluster", func(ctx SpecContext) {
		gateway, node := c.door(ctx, "edge-gateway"), c.door(ctx, "edge-node")
		_, pipeline := c.workload("ml-pipeline")
		code, body, err := gateway.get(ctx, gateway.client(c.mint(ctx, pipeline)), "/api/health")
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(200), "%s", body)
		// gcp and edge do not trust each other.
		_, _, err = node.get(ctx, node.client(c.mint(ctx, pipeline)), "/api/health")
		Expect(err).To(MatchError(ContainSubstring("tls: ")))
	}, SpecTimeout(6*time.Minute))

	It("has a partner whose agent is killed, and attests with its data and without a token", func(ctx SpecContext) {
		known := func() []spiffeid.ID {
			GinkgoHelper()
			all, err := c.site(ctx, spiffeid.RequireTrustDomainFromString(partner)).API.Agents(ctx)
			Expect(err).NotTo(HaveOccurred())
			var ids []spiffeid.ID
			for _, a := range all {
				ids = append(ids, a.ID)
			}
			return ids
		}
		was := known()
		agent := local.HostContainer(c.graph.Name, "partner", labs.HostAgent)
		_, err := docker(ctx, "kill", agent)
		Expect(err).NotTo(HaveOccurred())
		found, code, err := c.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(ContainElement("host partner: agent on host partner is stopped"))
		_, err = docker(ctx, "start", agent)
		Expect(err).NotTo(HaveOccurred())
		Eventually(c.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed(), "without an up")
		Expect(known()).To(Equal(was))
		Eventually(crossed("partner-orders", "aws-gateway")).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
	}, SpecTimeout(8*time.Minute))

	It("has two SPIRE servers of one trust domain, each with keys of its own, and one of them is killed", func(ctx SpecContext) {
		d := c.running(ctx, spiffeid.RequireTrustDomainFromString(edge))
		signs := c.signers(ctx, d)
		for _, pod := range slices.Sorted(maps.Keys(signs))[:1] {
			killed, err := c.run(ctx, "kubectl", "--lab", c.file, "branch", "delete", "pod", pod, "-n", d.Server().Place.Namespace, "--grace-period=0", "--force")
			Expect(err).NotTo(HaveOccurred())
			Expect(killed).To(endWell())
		}
		// The other one answers for both.
		Expect(c.fedlab(ctx, "svid", "edge-node")).To(endWell())
		Eventually(c.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed(), "without an up")
		Expect(c.signers(ctx, d)).To(Equal(signs))
	}, SpecTimeout(8*time.Minute))

	It("has an issuer whose tokens a client verifies that knows OIDC alone", func(ctx SpecContext) {
		d := c.running(ctx, aws)
		client := onlyOIDC(ctx, c.subject, d)
		const audience = "https://api.example.com"
		Expect(verifiedByOIDC(ctx, client, d.JWTIssuer, audience, c.token(ctx, "auth-service", audience))).To(Equal(id("auth-service")))
		Expect(verifiedByOIDC(ctx, client, d.JWTIssuer, audience, c.token(ctx, "ml-pipeline", audience))).Error().To(MatchError(ContainSubstring("failed to verify signature")))
	}, SpecTimeout(3*time.Minute))

	// Its workloads are in two clusters and on a host; the one that is called has one place.
	It("has a pair of trust domains that scenarios run on", func(ctx SpecContext) {
		runner := &trial.Runner{Driver: &c.driver.Driver, Topology: c.graph.Intent(), Observe: told}
		session, err := runner.Open(ctx)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) { Expect(session.Close(ctx)).To(Succeed()) }, NodeTimeout(5*time.Minute))
		s, err := scenarios.Find("rotation/x509-authority")
		Expect(err).NotTo(HaveOccurred())
		record, err := session.Run(ctx, s, trial.On{})
		Expect(err).NotTo(HaveOccurred(), "the lab is as it was")
		Expect(record.Result.Held()).To(BeTrue(), summary(record))
	}, SpecTimeout(scenarioTimeout))

	It("is unchanged by a second up", func(ctx SpecContext) { c.unchanged(ctx) }, SpecTimeout(6*time.Minute))

	It("leaves nothing", func(ctx SpecContext) { c.cleared(ctx, before) }, SpecTimeout(6*time.Minute))
})
