package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/format"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/lock"
)

func TestEndToEnd(t *testing.T) {
	RegisterFailHandler(Fail)
	// Whoever reads a report from CI cannot ask for the rest.
	format.TruncatedDiff, format.MaxLength = false, 0
	RunSpecs(t, "fedlab end to end")
}

// under is the lab that the specs look at, and left what stood on this machine
// before. Set-up nodes fill them in; specs read them.
var (
	under *subject
	left  traces
)

var _ = BeforeSuite(func(ctx SpecContext) {
	alone()
	c := command{program: fromRoot(os.Getenv("FEDLAB")), scratch: scratch()}
	if c.program == "" {
		c.program = filepath.Join(c.scratch, "fedlab")
		Expect(build(ctx, c.program, "")).To(Succeed())
	}

	if name := os.Getenv("FEDLAB_E2E_LAB"); name != "" {
		var err error
		under, err = existing(c, fromRoot(name))
		Expect(err).NotTo(HaveOccurred())
		Expect(under.well(ctx)).To(Succeed(), "the suite starts from a lab that is well; 'fedlab up' repairs one that is not")
	} else {
		file, err := labFile(ctx, config.DefaultPreset, "e2e-")
		Expect(err).NotTo(HaveOccurred())
		under, err = existing(c, file)
		Expect(err).NotTo(HaveOccurred())
		under.own = true
		bringUp(ctx)
	}
	DeferCleanup(under.close)
	var err error
	under.restarted, err = under.restarts(ctx)
	Expect(err).NotTo(HaveOccurred())
	for container, n := range under.restarted {
		if n > 0 {
			// Components that wait for each other by starting again are no fault
			// of a bring-up; that they did is worth a look.
			AddReportEntry("restarted before the specs", fmt.Sprintf("%s: %d", container, n), ReportEntryVisibilityAlways)
		}
	}
}, NodeTimeout(60*time.Minute)) // where images have to be built; else two minutes

// bringUp brings up the suite's own lab, through three kills, and gathers
// evidence of one that fails.
func bringUp(ctx context.Context) {
	GinkgoHelper()
	// Apart from the rest, so that no kill hits a compiler.
	built := under.fedlab(ctx, "images", "build", "-o", "json")
	Expect(built).To(endWell())
	Expect(built.Stdout).To(MatchRegexp(`"kind": ?"ImageSet"[^}]*,\s*"nodeImage": ?"fedlab\.local/node:[0-9a-f]+"`), "images build prints its result")
	Expect(under.fedlab(ctx, "down")).To(endWell(), "what an earlier run of the suite left")
	var err error
	left, err = tracesNow(ctx, under)
	Expect(err).NotTo(HaveOccurred())
	// What is asked of Docker where all begins is the hardest to find again.
	dice := dice()
	for range submitted {
		Expect(under.killedWithin(ctx, dice, early, "up")).To(Succeed())
		under.cleared(ctx, left)
	}
	// And the same command again.
	for range submitted {
		Expect(under.killedWithin(ctx, dice, early, "up")).To(Succeed())
	}
	if err := under.upThroughKills(ctx); err != nil {
		under.gather(context.WithoutCancel(ctx), "bring-up")
		Expect(err).NotTo(HaveOccurred())
	}
}

var _ = AfterEach(func(ctx SpecContext) {
	if CurrentSpecReport().Failed() {
		for _, lab := range append([]*subject{under}, raisedNow...) {
			if lab.resting {
				continue
			}
			lab.gather(ctx, CurrentSpecReport().FullText())
		}
	}
}, NodeTimeout(3*time.Minute))

var _ = AfterSuite(func(ctx SpecContext) {
	if under == nil {
		return // BeforeSuite failed before it knew a lab, and has said so
	}
	var err error
	if under.restarted != nil {
		// What the specs did to the lab did it no harm.
		if err = under.unharmed(ctx); err != nil {
			under.gather(ctx, "after all specs")
		}
	}
	if under.own {
		Expect(under.downThroughKills(ctx)).To(Succeed())
		began := time.Now()
		Expect(under.fedlab(ctx, "down")).To(endWell())
		AddReportEntry("down", time.Since(began).Round(100*time.Millisecond))
		Eventually(func() error { return leftBehind(ctx, under, left) }).WithContext(ctx).
			WithTimeout(30*time.Second).WithPolling(time.Second).Should(Succeed(), "down leaves nothing")
		Expect(under.fedlab(ctx, "down")).To(And(endWell(), HaveField("Stderr", ContainSubstring("there is no lab "+under.graph.Name))))
	}
	Expect(err).NotTo(HaveOccurred())
}, NodeTimeout(5*time.Minute))

// What CI keeps of a run is its end, where Ginkgo's summary says only where a spec
// failed.
var _ = ReportAfterSuite("why specs failed", func(r Report) {
	for _, spec := range r.SpecReports.WithState(types.SpecStateFailureStates) {
		_, err := fmt.Fprintf(os.Stdout, "\nFAILED %s\n%s\n", spec.FullText(), spec.FailureMessage())
		Expect(err).NotTo(HaveOccurred())
	}
})

// fromRoot reads a relative path as one from the root of the checkout, where
// people call the suite, and leaves alone what is no path.
func fromRoot(path string) string {
	if filepath.IsAbs(path) || !strings.ContainsRune(path, filepath.Separator) {
		return path
	}
	return filepath.Join(root, path)
}

// scratch returns the suite's temporary folder. Its name does not start as those
// of fedlab do.
func scratch() string {
	GinkgoHelper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("e2e-%d", os.Getpid()))
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		Expect(os.Mkdir(dir, 0o700)).To(Succeed())
		DeferCleanup(os.RemoveAll, dir)
	}
	return dir
}

// alone keeps two runs of the suite on one machine apart: their labs would have
// the same name.
func alone() {
	GinkgoHelper()
	release, err := lock.Take("e2e-suite", "the end-to-end suite")
	Expect(err).NotTo(HaveOccurred(), "another run of this suite is under way on this machine")
	DeferCleanup(release)
}

// labFile writes the file of a lab of the suite's own: a preset under another
// name and with its pages on free ports, so that it can stand next to it.
func labFile(ctx context.Context, preset, prefix string) (string, error) {
	f, err := config.For(demo.Apps()).Open(preset)
	if err != nil {
		return "", err
	}
	f.Lab.Metadata.Name = prefix + f.Lab.Metadata.Name
	for i := range f.Lab.Spec.Workloads {
		if w := &f.Lab.Spec.Workloads[i]; w.Expose != "" {
			if w.Expose, err = freePort(ctx); err != nil {
				return "", err
			}
		}
	}
	data, err := config.Marshal(f.Lab)
	if err != nil {
		return "", err
	}
	path := filepath.Join(scratch(), f.Lab.Metadata.Name+".yaml")
	return path, os.WriteFile(path, data, 0o644)
}
