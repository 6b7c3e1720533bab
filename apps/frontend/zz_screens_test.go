package main

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

func TestScreens(t *testing.T) {
	if os.Getenv("SCREENS") == "" {
		t.Skip()
	}
	c := newCompany(t)
	c.run()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox)
	actx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	defer cancel()
	tab, cancel2 := chromedp.NewContext(actx)
	defer cancel2()
	shot := func(name string, w, h int64, scheme string, wait time.Duration) {
		if err := chromedp.Do(tab, chromedp.EmulateViewport(w, h)); err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(wait)
		png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile("/tmp/shots/"+name+".png", png, 0o644)
	}
	os.MkdirAll("/tmp/shots", 0o755)
	if err := chromedp.Do(tab, chromedp.Navigate("http://"+c.ports[frontendID]+"/")); err != nil {
		t.Fatal(err)
	}
	shot("light", 1280, 720, "light", 20*time.Second)
	shot("dark", 1920, 1080, "dark", time.Second)
	chromedp.Run(tab, chromedp.Evaluate[any](`document.querySelector(".call[data-state=refused] button").click()`))
	shot("refused", 1280, 720, "dark", 2*time.Second)
	c.stops[dataID]()
	shot("trouble", 1280, 720, "light", 6*time.Second)
	shot("phone", 420, 900, "light", 2*time.Second)
	shot("wide", 1920, 1080, "light", 2*time.Second)
	c.stops[frontendID]()
	shot("offline", 1280, 720, "dark", 4*time.Second)
}
