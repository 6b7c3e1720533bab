package e2e

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

var _ = Describe("The page of the federation", Label("ui", "browser"), func() {
	// visit starts 'fedlab ui' and opens its page in a browser. Both end with ctx; the page must
	// end well.
	visit := func(ctx context.Context, args ...string) (tab context.Context, said *complaints) {
		GinkgoHelper()
		cmd, err := under.prepare(ctx, append([]string{"ui", "--port", "0"}, args...)...)
		Expect(err).NotTo(HaveOccurred())
		cmd.Stderr = GinkgoWriter
		stdout, err := cmd.StdoutPipe()
		Expect(err).NotTo(HaveOccurred())
		Expect(cmd.Start()).To(Succeed())
		DeferCleanup(func() {
			_ = cmd.Wait() // that ctx ended it
			Expect(cmd.ProcessState.ExitCode()).To(BeZero())
		})
		url, err := bufio.NewReader(stdout).ReadString('\n')
		Expect(err).NotTo(HaveOccurred())
		url = strings.TrimSpace(url)
		tab, said = browser(ctx, url)
		Expect(sized(tab, 1600, 900)).To(Succeed())
		Expect(chromedp.Do(tab, chromedp.Navigate(url))).To(Succeed())
		return tab, said
	}
	// cell is what the page says of a relationship.
	cell := func(tab context.Context, p pair) func() (string, error) {
		find := fmt.Sprintf(`[...document.querySelectorAll("#matrix tbody td")].map((td) => td.getAttribute("aria-label") ?? "").find((text) => text.startsWith("%s trusts %s: ")) ?? ""`,
			p.broker.Domain(), p.server.Domain())
		return func() (string, error) { return chromedp.Run(tab, chromedp.Evaluate[string](find)) }
	}
	said := func(p pair, state string) string {
		return fmt.Sprintf("%s trusts %s: %s. ", p.broker.Domain(), p.server.Domain(), state)
	}

	It("shows a bundle that is deleted, and that it is back", func(ctx SpecContext) {
		p := under.pair()
		trusted := p.server.Domain()
		holder := under.site(ctx, p.broker.Domain().Name).API
		bundle, err := holder.HeldBundle(ctx, trusted.Name)
		Expect(err).NotTo(HaveOccurred())
		tab, complaints := visit(ctx, "--lab", under.file)
		Eventually(cell(tab, p)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(HavePrefix(said(p, "in sync")))

		DeferCleanup(func(ctx SpecContext) {
			Eventually(holds(p.broker, trusted.Name.Name())).WithContext(ctx).WithTimeout(federation.RegistrationBound() + machine).WithPolling(poll).Should(Succeed())
		}, NodeTimeout(federation.RegistrationBound()+2*machine))
		under.restored(federation.ReconcileBound()+federation.RegistrationBound()+machine, func(ctx context.Context) error { return holder.SetBundle(ctx, bundle) })
		Expect(holder.DeleteBundle(ctx, trusted.Name, spire.DeleteDissociate)).To(Succeed())
		began := time.Now()
		Eventually(cell(tab, p)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(HavePrefix(said(p, "missing")))
		measured("missing after", began)
		Expect(holder.SetBundle(ctx, bundle)).To(Succeed())
		Eventually(cell(tab, p)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(HavePrefix(said(p, "in sync")))
		Expect(complaints.all()).To(BeEmpty())
	}, SpecTimeout(3*time.Minute))

	It("shows a new authority on its way, and shows it again without the lab", Label("scenario", "rotation", "slow"), func(ctx SpecContext) {
		p := under.pair()
		records := filepath.Join(GinkgoT().TempDir(), "records")
		recording := filepath.Join(GinkgoT().TempDir(), "rotation.jsonl")
		showing, end := context.WithCancel(ctx)
		defer end()
		tab, complaints := visit(showing, "--lab", under.file, "--record", recording)
		Eventually(cell(tab, p)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(HavePrefix(said(p, "in sync")))
		Expect(chromedp.Run(tab, chromedp.Evaluate[bool](fmt.Sprintf(`([...document.querySelectorAll("#matrix tbody td")].find((td) => td.ariaLabel.startsWith("%s")).click(), true)`, said(p, "in sync"))))).To(BeTrue())

		By("an authority is replaced")
		on := p.broker.Domain().String() + "->" + p.server.Domain().String()
		Expect(under.fedlab(ctx, "scenario", "run", "rotation/x509-authority", "--on", on, "--records", records)).To(endWell())
		news := func() ([]string, error) {
			return chromedp.Run(tab, chromedp.Evaluate[[]string](`[...document.querySelectorAll("#news li")].map((li) => li.textContent).reverse()`))
		}
		const stop = `authority [0-9a-f]{8} of [a-z0-9.-]+: `
		Eventually(news).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(ContainElement(MatchRegexp(stop + "5")))

		By("it came through its places in their order")
		told, err := news()
		Expect(err).NotTo(HaveOccurred())
		var places []string
		for _, line := range told {
			if found := regexp.MustCompile(stop + "([0-9])").FindStringSubmatch(line); found != nil && strings.Contains(line, " of "+p.server.Domain().String()+": ") {
				places = append(places, found[1])
			}
		}
		// Agents do not tell who has signed their SVIDs.
		Expect(places).To(Equal([]string{"1", "2", "3", "5"}), "%q", told)
		Expect(complaints.all()).To(BeEmpty())

		By("the recording says the same")
		end()
		tab, complaints = visit(ctx, "--replay", recording)
		Eventually(cell(tab, p)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(HavePrefix(said(p, "in sync")))
		Expect(chromedp.Run(tab, chromedp.Evaluate[bool](`(() => {
			const frame = document.getElementById("frame");
			frame.value = frame.max;
			return frame.dispatchEvent(new Event("input"));
		})()`))).To(BeTrue())
		Eventually(news).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(ContainElements(told))
		Expect(complaints.all()).To(BeEmpty())
	}, SpecTimeout(10*time.Minute))
})
