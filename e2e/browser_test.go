package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// page is what a person sees of the broker's page.
type page struct {
	// State is live, stale or offline.
	State string
	Rows  []struct {
		Symbol string
		Cents  int64
	}
	PeerTitle, PeerID string
	// Error is the error box, empty while it is hidden.
	Error, ErrorClass string
	// Facts are how relationship, bundle and federatesWith stand.
	Facts      []string
	Background string
}

func (p page) prices() []int64 {
	var all []int64
	for _, r := range p.Rows {
		all = append(all, r.Cents)
	}
	return all
}

// read is run in the page; innerText is what is visible only.
const read = `(() => {
	const text = (id) => document.getElementById(id).innerText;
	return {
		State: document.body.dataset.state,
		Rows: [...document.querySelectorAll("#quotes tbody tr")].map((row) => ({
			Symbol: row.cells[0].innerText,
			Cents: Math.round(Number(row.querySelector("[data-field=price]").innerText.replaceAll(",", "")) * 100),
		})),
		PeerTitle: text("peer-title"), PeerID: text("peer-id"),
		Error: text("error-what"), ErrorClass: document.getElementById("error").hidden ? "" : text("error-class"),
		Facts: [...document.querySelectorAll(".fact")].map((fact) => fact.dataset.state),
		Background: getComputedStyle(document.body).backgroundColor,
	};
})()`

var _ = Describe("The page in a browser", Label("browser"), func() {
	// visit opens the page in a browser of its own, and returns its tab, a look at
	// the page as it is at a moment, and what the browser finds fault with. All
	// end with ctx.
	visit := func(ctx context.Context, p pair) (tab context.Context, show func() (page, error), said *complaints) {
		GinkgoHelper()
		Eventually(flowing(p.broker)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		tab, said = browser(ctx, p.broker.URL())
		show = func() (page, error) { return chromedp.Run(tab, chromedp.Evaluate[page](read)) }
		Expect(chromedp.Do(tab, chromedp.Navigate(p.broker.URL()))).To(Succeed())
		Eventually(show).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(HaveField("State", "live"))
		return tab, show, said
	}

	It("shows quotes that change, and who answered", Label("picture"), func(ctx SpecContext) {
		p := under.pair()
		tab, show, said := visit(ctx, p)
		server := p.server.ID
		v, err := ask(ctx, p.broker)
		Expect(err).NotTo(HaveOccurred())
		var symbols []string
		for _, q := range v.Quotes {
			symbols = append(symbols, q.Symbol)
		}

		first, err := show()
		Expect(err).NotTo(HaveOccurred())
		Expect(first.PeerID).To(Equal(server.String()))
		Expect(first.PeerTitle).To(Equal("Who answered"))
		Expect(first.ErrorClass).To(BeEmpty())
		Expect(first.Facts).To(Equal([]string{"unknown", "holds", "holds"}), "what the broker can know of the federation")
		var shown []string
		for _, row := range first.Rows {
			shown = append(shown, row.Symbol)
			Expect(row.Cents).To(BeNumerically(">", 0), "the price of %s", row.Symbol)
		}
		Expect(shown).To(Equal(symbols))
		Eventually(show).WithContext(ctx).WithTimeout(10 * time.Second).WithPolling(poll).
			Should(WithTransform(page.prices, Not(Equal(first.prices()))))

		if *update {
			// The lines of the last minute are to be seen in the picture.
			Eventually(func() (int, error) {
				return chromedp.Run(tab, chromedp.Evaluate[int](`document.querySelector("#quotes polyline").points.length`))
			}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(BeNumerically(">=", 30))
		}

		By("in light and in dark")
		backgrounds := map[string]string{}
		for _, scheme := range []string{"light", "dark"} {
			Expect(chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})).Error().NotTo(HaveOccurred())
			now, err := show()
			Expect(err).NotTo(HaveOccurred())
			backgrounds[now.Background] = scheme
			Expect(screenshot(tab, "quotes-"+scheme)).To(Succeed())
			if scheme == "light" {
				Expect(picture(tab, "quotes")).To(Succeed())
			}
		}
		Expect(backgrounds).To(HaveLen(2), "both schemes have the same background")
		Expect(said.all()).To(BeEmpty())
	}, SpecTimeout(2*time.Minute))

	It("keeps the last quotes and says why there are no new ones, and heals", Label("slow"), func(ctx SpecContext) {
		p := under.pair()
		tab, show, said := visit(ctx, p)
		cluster, err := under.cluster(p.server.Cluster().Name)
		Expect(err).NotTo(HaveOccurred())
		scale := func(ctx context.Context, replicas int32) error {
			return cluster.Scale(ctx, "Deployment", p.server.Namespace, p.server.App.Deployment, replicas)
		}
		before, err := show()
		Expect(err).NotTo(HaveOccurred())

		By("the quotes server is taken away")
		under.restored(rollout, func(ctx context.Context) error { return scale(ctx, 1) })
		began := time.Now()
		Expect(scale(ctx, 0)).To(Succeed())
		Eventually(show).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(And(
			HaveField("State", "stale"),
			HaveField("ErrorClass", "unreachable"),
			HaveField("Error", ContainSubstring("cannot be reached")),
			HaveField("PeerTitle", "Who answered last"),
			HaveField("Rows", HaveLen(len(before.Rows)))))
		measured("said after", began)
		kept, err := show()
		Expect(err).NotTo(HaveOccurred())
		Consistently(show).WithContext(ctx).WithTimeout(3*time.Second).WithPolling(poll).
			Should(WithTransform(page.prices, Equal(kept.prices())), "there is nobody who could tell a new price")
		Expect(screenshot(tab, "quotes-without-server")).To(Succeed())

		By("the quotes server is back")
		began = time.Now()
		Expect(scale(ctx, 1)).To(Succeed())
		Eventually(show).WithContext(ctx).WithTimeout(rollout).WithPolling(poll).Should(And(
			HaveField("State", "live"), HaveField("ErrorClass", ""), HaveField("PeerTitle", "Who answered")))
		measured("live again after", began)
		Expect(said.all()).To(BeEmpty())
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("The report of a scenario", Label("scenario", "browser", "picture", "slow"), func() {
	It("draws what happened, and loads nothing", func(ctx SpecContext) {
		records := filepath.Join(GinkgoT().TempDir(), "records")
		Expect(under.fedlab(ctx, "scenario", "run", "drift/stale-bootstrap-deadlock", "--records", records)).To(endWell())
		tab, said := browser(ctx, "file:///")
		Expect(sized(tab, 1280, 1000)).To(Succeed())
		Expect(chromedp.Do(tab, chromedp.Navigate("file://"+filepath.Join(records, "report.html")))).To(Succeed())
		drawn := func() (bool, error) {
			return chromedp.Run(tab, chromedp.Evaluate[bool](`document.querySelector("svg.picture").getBoundingClientRect().width > 900`))
		}
		Eventually(drawn).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(BeTrue())
		Expect(said.all()).To(BeEmpty())
		Expect(picture(tab, "report")).To(Succeed())
	}, SpecTimeout(5*time.Minute))
})

// complaints are what a browser finds fault with: errors that scripts throw or
// log, what the page's own security policy refuses, and requests to anywhere but
// where the page came from.
type complaints struct {
	mu   sync.Mutex
	list []string
}

func (c *complaints) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf(format, args...))
}

func (c *complaints) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// browser starts a headless Chromium with one empty tab, for a page of this
// origin. Both end with ctx.
func browser(ctx context.Context, origin string) (context.Context, *complaints) {
	GinkgoHelper()
	want, err := url.Parse(origin)
	Expect(err).NotTo(HaveOccurred())
	profile, err := os.MkdirTemp(under.scratch, "browser-")
	Expect(err).NotTo(HaveOccurred())
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.UserDataDir(profile),
		chromedp.WindowSize(1280, 900),
		chromedp.DisableGPU,
		// Nothing leaves the machine.
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	if os.Geteuid() == 0 {
		// Chromium refuses to run its sandbox as root. It opens one page, our own.
		options = append(options, chromedp.NoSandbox)
	}
	allocator, end := chromedp.NewExecAllocator(ctx, options...)
	DeferCleanup(end)
	tab, quit := chromedp.NewContext(allocator)
	DeferCleanup(quit)

	said := &complaints{}
	err = chromedp.Listen(tab, func(happened any) {
		switch e := happened.(type) {
		case *runtime.EventExceptionThrown:
			said.add("exception: %s %s", e.ExceptionDetails.Text, e.ExceptionDetails.URL)
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
				said.add("console: %s", e.Type)
			}
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
				said.add("log: %s %s", e.Entry.Text, e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			if got, err := url.Parse(e.Request.URL); err != nil || got.Host != want.Host {
				said.add("request to %s", e.Request.URL)
			}
		}
	})
	Expect(err).NotTo(HaveOccurred(), "'fedlab setup --for-tests' installs a browser")
	return tab, said
}

// update makes the pictures of the documents again, of the lab that runs:
//
//	FEDLAB_E2E_LAB=quotes go tool ginkgo run --label-filter=picture ./e2e -- -update
var update = flag.Bool("update", false, "rewrite the pictures in docs/img, and the table of docs/federation-matrix.md")

// pictureLimit is the most that a picture of the README may have, in bytes.
const pictureLimit = 300 << 10

// picture is a screenshot that is also in the README.
func picture(tab context.Context, name string) error {
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("take screenshot: %w", err)
	}
	if len(png) > pictureLimit {
		return fmt.Errorf("the picture %s has %d bytes: want at most %d", name, len(png), pictureLimit)
	}
	if !*update {
		return nil
	}
	return os.WriteFile(filepath.Join(root, "docs", "img", name+".png"), png, 0o644)
}

// sized gives a tab a size, for pages that need more than the usual room.
func sized(tab context.Context, width, height int64) error {
	_, err := chromedp.Call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
	return err
}

// screenshot keeps what a tab shows, for people.
func screenshot(tab context.Context, name string) error {
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("take screenshot: %w", err)
	}
	dir := filepath.Join(evidenceFolder(), "screenshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
}
