package e2e

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

var _ = Describe("Status", Label("status"), func() {
	// broken returns nil when 'fedlab status' ends with 3 and says what matches,
	// and nothing else.
	broken := func(ctx context.Context, matchers ...any) {
		GinkgoHelper()
		Eventually(func(g Gomega, ctx context.Context) {
			found, code, err := under.status(ctx)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(found.Problems()).To(ConsistOf(matchers...))
			g.Expect(code).To(Equal(3))
			g.Expect(found.Well).To(BeFalse())
		}).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).Should(Succeed())
	}

	BeforeEach(func(ctx SpecContext) {
		By("all is well before")
		Expect(under.well(ctx)).To(Succeed())
	}, NodeTimeout(time.Minute))

	It("ends with 3 and names the bundle that is missing", func(ctx SpecContext) {
		p := under.pair()
		truster := p.broker.Domain()
		trusted := p.server.Domain()
		holder := under.site(ctx, truster.Name).API
		bundle, err := holder.HeldBundle(ctx, trusted.Name)
		Expect(err).NotTo(HaveOccurred())

		// After that, the workload has yet to receive it.
		DeferCleanup(func(ctx SpecContext) {
			Eventually(holds(p.broker, trusted.Name.Name())).WithContext(ctx).WithTimeout(federation.RegistrationBound() + machine).WithPolling(poll).Should(Succeed())
		}, NodeTimeout(federation.RegistrationBound()+2*machine))
		// The controller manager gives the entry back what was dissociated only
		// when it looks again by itself.
		under.restored(federation.ReconcileBound()+federation.RegistrationBound()+machine, func(ctx context.Context) error { return holder.SetBundle(ctx, bundle) })
		Expect(holder.DeleteBundle(ctx, trusted.Name, spire.DeleteDissociate)).To(Succeed())
		broken(ctx,
			HavePrefix("relationship "+truster.Name.Name()+"->"+trusted.Name.Name()+": missing: lacks "),
			ContainSubstring("does not federate with "+trusted.Name.Name()+": the workload does not get its bundle"))
	}, SpecTimeout(3*time.Minute))

	It("ends with 3 and names the workload that does not run", func(ctx SpecContext) {
		w, _ := under.withoutServer(ctx)
		broken(ctx, HavePrefix("workload "+w.Name+": "))
	}, SpecTimeout(3*time.Minute))
})
