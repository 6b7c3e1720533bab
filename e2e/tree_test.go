package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// The hierarchy of the enterprise's article, by relationships of SPIRE's API. SPIFFE has
// no transitive trust: each of two trust domains verifies only whose bundle it has.
var _ = Describe("A tree of trust domains", Ordered, Label("tree", "modes"), func() {
	const root, production, staging, partner = "root.company.com", "prod.company.com", "staging.company.com", "partner.example.com"
	var (
		c    *company
		file string
	)
	write := func(branches [][]string, services ...config.Workload) {
		GinkgoHelper()
		data, err := config.Marshal(config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-tree"},
			Spec: config.Spec{
				Clusters:   []config.Cluster{{Name: "office", TrustDomains: []string{root, production, staging, partner}}},
				Federation: []config.Federation{{Shape: "tree", Branches: branches, Mode: "api"}},
				Workloads:  services,
			},
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file, data, 0o644)).To(Succeed())
	}
	service := func(name, domain string, calls ...string) config.Workload {
		return config.Workload{Name: name, App: "service", Cluster: "office", TrustDomain: domain, Calls: append(config.Names{}, calls...)}
	}
	headquarters, trial := service("headquarters", root, "shop", "trial-shop"), service("trial-shop", staging, "headquarters")
	// answers calls a service with an SVID of another one's, and returns the error of the call.
	answers := func(ctx SpecContext, caller, called string) error {
		GinkgoHelper()
		d := c.door(ctx, called)
		_, id := c.workload(caller)
		code, body, err := d.get(ctx, d.client(c.mint(ctx, id)), "/api/health")
		if err == nil {
			Expect(code).To(Equal(http.StatusOK), "%s", body)
		}
		return err
	}
	BeforeAll(func(ctx SpecContext) {
		file = filepath.Join(scratch(), "tree.yaml")
		write([][]string{{root, production, staging}, {production, partner}},
			headquarters, trial, service("shop", production, "headquarters", "supplier"), service("supplier", partner, "shop"))
		c = &company{subject: raised(ctx, file, "a tree")}
	}, NodeTimeout(10*time.Minute))

	It("has the relationships of its branches by SPIRE's API, and no resource", func(ctx SpecContext) {
		Expect(c.well(ctx)).To(Succeed())
		c.silent(ctx)
		Expect(c.fedlab(ctx, "drift")).To(endWell())
		found, _, err := c.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		var trusts []string
		for _, r := range found.Relationships {
			Expect(r.Mode).To(Equal("api"))
			trusts = append(trusts, r.Truster+" "+r.Trusted)
		}
		Expect(trusts).To(ConsistOf(
			root+" "+production, production+" "+root, root+" "+staging, staging+" "+root, production+" "+partner, partner+" "+production))
		cluster, err := c.cluster("office")
		Expect(err).NotTo(HaveOccurred())
		Expect(cluster.Objects(ctx, spire.ResourceAPIVersion, spire.FederatedTrustDomainKind, "", "")).To(BeEmpty())
		c.unchanged(ctx)
	}, NodeTimeout(2*time.Minute))

	It("lets calls through along a branch, and none from one branch to another", func(ctx SpecContext) {
		for _, call := range [][2]string{{"headquarters", "shop"}, {"shop", "headquarters"}, {"headquarters", "trial-shop"}, {"supplier", "shop"}, {"shop", "supplier"}} {
			Expect(answers(ctx, call[0], call[1])).To(Succeed(), "%s calls %s", call[0], call[1])
		}
		// Production trusts root and partner, and hands on the trust of neither.
		for _, call := range [][2]string{{"supplier", "headquarters"}, {"headquarters", "supplier"}, {"trial-shop", "shop"}, {"supplier", "trial-shop"}} {
			Expect(answers(ctx, call[0], call[1])).To(MatchError(ContainSubstring("tls: ")), "%s calls %s", call[0], call[1])
		}
	}, SpecTimeout(2*time.Minute))

	It("says whose relationship somebody has deleted, and up makes it again", func(ctx SpecContext) {
		id := spiffeid.RequireTrustDomainFromString(partner)
		Expect(c.site(ctx, id).API.DeleteRelationship(ctx, spiffeid.RequireTrustDomainFromString(production))).To(Succeed())
		status := c.fedlab(ctx, "status")
		Expect(status.Code).NotTo(BeZero())
		Expect(status.Stdout).To(ContainSubstring("has no relationship with " + production))
		Expect(c.fedlab(ctx, "up")).To(endWell())
		Expect(c.well(ctx)).To(Succeed())
		c.unchanged(ctx)
	}, SpecTimeout(3*time.Minute))

	It("loses a leaf, and the others go on", func(ctx SpecContext) {
		shop, trusting := c.door(ctx, "shop"), c.site(ctx, spiffeid.RequireTrustDomainFromString(production)).API
		_, caller := c.workload("headquarters")
		calls := flow(shop, shop.client(c.mint(ctx, caller)), "/api/health")
		defer calls.end()
		write([][]string{{root, production, staging}}, headquarters, trial, service("shop", production, "headquarters"), service("supplier", partner))
		Expect(c.fedlab(ctx, "up")).To(endWell())
		Expect(c.well(ctx)).To(Succeed())
		held, err := trusting.HeldBundles(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(held).To(HaveLen(1))
		Expect(held[0].TrustDomain().Name()).To(Equal(root))
		Eventually(func() error { return answers(ctx, "supplier", "shop") }).WithContext(ctx).WithTimeout(federation.RegistrationBound() + machine).
			WithPolling(poll).Should(MatchError(ContainSubstring("tls: ")))
		calls.end()
		Expect(calls.made).To(BeNumerically(">", 0))
		Expect(calls.lost).To(BeEmpty())
	}, SpecTimeout(4*time.Minute))
})
