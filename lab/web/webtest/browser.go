// Package webtest opens pages in a real browser, for tests of pages.
//
// It refuses to know what a page shows.
package webtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// Patience is how long a test waits for what must happen: far longer than it takes, so that a
// busy machine fails no test.
const Patience = 30 * time.Second

// Browse starts a headless Chromium with an empty tab, in which nothing moves by itself. Both end
// with the test, and what a page throws fails it. Where there is no Chromium, the test is skipped,
// except in CI, where nothing may be skipped.
func Browse(t *testing.T) (tab context.Context) {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("Chromium is not installed: want Debian's package chromium")
		}
		t.Skip("Chromium is not installed: apt-get install --no-install-recommends chromium")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath("chromium"), chromedp.UserDataDir(t.TempDir()), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	if os.Geteuid() == 0 {
		// Chromium refuses to run its sandbox as root. It opens one page, our own.
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	allocator, end := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(end)
	tab, quit := chromedp.NewContext(allocator)
	t.Cleanup(quit)
	if err := chromedp.Listen(tab, func(happened any) {
		if e, ok := happened.(*runtime.EventExceptionThrown); ok {
			t.Errorf("the page throws %s %s", e.ExceptionDetails.Text, e.ExceptionDetails.Exception.Description)
		}
	}); err != nil {
		t.Fatal(err)
	}
	Media(tab, t, "prefers-reduced-motion", "reduce")
	return tab
}

// Media sets a feature of the media that a page asks for, such as prefers-color-scheme; those that
// were set before are as they were at first.
func Media(tab context.Context, t *testing.T, feature, is string) {
	t.Helper()
	if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: feature, Value: is}},
	}); err != nil {
		t.Fatal(err)
	}
}

// Size gives the tab a size in pixels.
func Size(tab context.Context, t *testing.T, width, height int64) {
	t.Helper()
	if _, err := chromedp.Call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1,
	}); err != nil {
		t.Fatal(err)
	}
}

// Await returns once an expression is true in the page, and ends the test when that takes longer
// than Patience.
func Await(tab context.Context, t *testing.T, expression string) {
	t.Helper()
	err := check.Until(tab, check.Bound{Within: Patience, Every: 10 * time.Millisecond}, check.Check{
		Name: expression,
		Probe: func(ctx context.Context) error {
			holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
			if err == nil && !holds {
				err = errors.New("it is false")
			}
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}
