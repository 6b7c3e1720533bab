package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/page"
	"github.com/fedlab-dev/fedlab/lab/web"
	"github.com/fedlab-dev/fedlab/lab/web/webtest"
)

var screenshots = flag.String("screenshots", "", "folder for pictures of the page with made-up calls, for people to look at")

// browse opens a browser for the page, whose calls are answered with report.
func browse(t *testing.T, report func() any) (tab context.Context, url string) {
	t.Helper()
	mux := page.Mux(files, "federation")
	mux.HandleFunc("GET /api/calls", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(report()); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(web.Secure(mux, nil))
	t.Cleanup(server.Close)
	return webtest.Browse(t), server.URL
}

type object = map[string]any

// enterprise is a report as the frontend of the enterprise lab makes it, with
// these names for aws, gcp, onprem and the partner.
func enterprise(aws, gcp, onprem, partner string) object {
	now := time.Now()
	document := func(domain, path string) object {
		return object{
			"id": "spiffe://" + domain + path, "trustDomain": domain, "serial": strings.Repeat("5d1e", 8),
			"notBefore": now.Add(-time.Minute), "notAfter": now.Add(time.Hour),
			"verifiedBy": object{"trustDomain": domain, "subjectKeyID": strings.Repeat("3f9a", 10), "subject": "O=SPIRE,C=US", "notAfter": now.Add(time.Hour)},
		}
	}
	var calls []object
	call := func(name, from, to, profile, state string, more object) {
		made := object{
			"name": name, "caller": "spiffe://" + from + "/ns/demo/service/frontend", "server": "spiffe://" + to + "/ns/demo/service/data-processing/version/v2",
			"url": "https://10.192.1.2:8443/", "profile": profile, "state": state, "millis": 12.4, "peer": document(to, "/ns/demo/service/data-processing/version/v2"),
		}
		maps.Copy(made, more)
		calls = append(calls, made)
	}
	problem := func(class string) object {
		return object{"class": class, "what": "The server of this call knows the caller and refuses: by a rule.", "look": "the rule.", "detail": "403", "since": now}
	}
	const spiffe, byWeb = "https_spiffe", "https_web"
	call("orders", aws, gcp, spiffe, "answered", nil)
	call("raw records of data-service", aws, gcp, spiffe, "refused", object{"expect": "not-permitted", "problem": problem("not-permitted")})
	call("ledger", aws, onprem, byWeb, "answered", nil)
	call("health of gcp-gateway with a JWT-SVID", aws, gcp, spiffe, "answered", object{"token": true})
	call("orders through the gateway", aws, aws, "", "answered", nil)
	call("partner", aws, partner, "", "refused", object{"expect": "not-federated", "problem": problem("not-federated")})
	reported := object{"reported": true}
	call("aws", gcp, aws, spiffe, "answered", reported)
	call("onprem", gcp, onprem, byWeb, "answered", reported)
	call("data", gcp, gcp, "", "answered", reported)
	call("aws", onprem, aws, spiffe, "answered", reported)
	call("gcp", onprem, gcp, spiffe, "answered", reported)
	call("health of the gateway", onprem, gcp, spiffe, "refused", object{"reported": true, "problem": problem("not-permitted")})
	self := document(aws, "/ns/demo/service/frontend")
	self["bundles"] = []string{aws, gcp, onprem}
	return object{"self": self, "calls": calls, "now": now, "nextInMillis": 1000}
}

// without is a report in which a trust domain is not called.
func without(report object, domain string) object {
	report["calls"] = slices.DeleteFunc(report["calls"].([]object), func(call object) bool {
		return strings.HasPrefix(call["server"].(string), "spiffe://"+domain+"/")
	})
	return report
}

// measured is run in the page: what overlaps, is cut off, or lies outside of what
// it belongs to. Lengths are in pixels, and half of one is forgiven.
const measured = `(() => {
	const faults = [], box = (e) => e.getBoundingClientRect(), slack = 0.5;
	const meet = (a, b) => a.left < b.right - slack && b.left < a.right - slack && a.top < b.bottom - slack && b.top < a.bottom - slack;
	const inside = (a, b) => a.left >= b.left - slack && a.right <= b.right + slack && a.top >= b.top - slack && a.bottom <= b.bottom + slack;
	const said = (e) => JSON.stringify(e.textContent.trim().replace(/\s+/g, " ").slice(0, 60));
	const map = box(document.querySelector(".map"));
	const nodes = [...document.querySelectorAll("#map .node")], words = [...document.querySelectorAll("#map .words")];
	if (nodes.length < 3 || words.length < 6) faults.push("the map has " + nodes.length + " boxes and " + words.length + " words");
	for (const node of nodes) {
		const rect = box(node.querySelector("rect")), room = 4;
		for (const text of node.querySelectorAll("text")) {
			const t = box(text);
			if (!inside(t, { left: rect.left + room, right: rect.right - room, top: rect.top + 2, bottom: rect.bottom - 2 })) faults.push("the box of " + said(node) + " does not hold " + said(text));
			for (const other of node.querySelectorAll("text")) if (other !== text && meet(t, box(other))) faults.push("in a box, " + said(text) + " meets " + said(other));
		}
		if (!inside(rect, map)) faults.push("the map does not hold the box of " + said(node));
	}
	words.forEach((word, i) => {
		if (!inside(box(word), map)) faults.push("the map does not hold " + said(word));
		for (const other of words.slice(0, i)) if (meet(box(word), box(other))) faults.push(said(word) + " meets " + said(other));
		for (const node of nodes) if (meet(box(word), box(node))) faults.push(said(word) + " meets the box of " + said(node));
		const w = box(word);
		for (const path of document.querySelectorAll("#map .edge > path")) {
			const to = path.getScreenCTM(), length = path.getTotalLength();
			for (let at = 0; at <= length; at += 2) {
				const p = path.getPointAtLength(at).matrixTransform(to);
				if (p.x > w.left && p.x < w.right && p.y > w.top && p.y < w.bottom) {
					faults.push(said(word) + " lies on the line " + path.parentNode.dataset.edge);
					break;
				}
			}
		}
	});
	nodes.forEach((node, i) => { for (const other of nodes.slice(0, i)) if (meet(box(node), box(other))) faults.push("boxes meet: " + said(node) + " and " + said(other)); });
	const cut = "h1, h2, p, li, dd, dt, .name, .took, .why, .id, .fact";
	for (const e of document.querySelectorAll(cut)) {
		if (e.offsetParent && !e.matches(".unseen") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth) faults.push("cut off or too wide: " + said(e));
	}
	for (const [name, e] of [["the page", document.documentElement], ["the list", document.getElementById("calls")]])
		if (e.scrollWidth > e.clientWidth) faults.push(name + " is wider than its place: " + e.scrollWidth + " in " + e.clientWidth);
	const colours = new Map();
	for (const node of nodes) {
		const name = node.querySelector(".name").textContent, colour = getComputedStyle(node.querySelector("rect")).stroke;
		if (colours.has(colour)) faults.push(name + " has the colour of " + colours.get(colour));
		colours.set(colour, name);
	}
	return faults;
})()`

// showing is the report that the page is given, which a test changes while the page
// asks.
type showing struct{ report atomic.Pointer[any] }

func (s *showing) set(report any) { s.report.Store(&report) }

func (s *showing) get() any { return *s.report.Load() }

func TestThePageIsReadable(t *testing.T) {
	forty := func(name string) string { return (name + "-" + strings.Repeat("department-", 4))[:28] + ".example.com" }
	dotless := func(name string) string { return (name + "-" + strings.Repeat("department-", 4))[:40] }
	reports := map[string]object{
		"enterprise":      enterprise("aws.company.com", "gcp.company.com", "onprem.company.com", "partner.example.com"),
		"long":            enterprise(forty("aws"), forty("gcp"), forty("onprem"), forty("partner")),
		"as-in-the-lab":   without(enterprise("aws.company.com", "gcp.company.com", "onprem.company.com", "partner.example.com"), "partner.example.com"),
		"long-in-the-lab": without(enterprise(forty("aws"), forty("gcp"), forty("onprem"), forty("partner")), forty("partner")),
		"dotless":         enterprise(dotless("aws"), dotless("gcp"), dotless("onprem"), dotless("partner")),
	}
	var current showing
	current.set(reports["enterprise"])
	tab, url := browse(t, current.get)
	for name, report := range reports {
		current.set(report)
		domain, _, _ := strings.Cut(strings.TrimPrefix(report["self"].(object)["id"].(string), "spiffe://"), "/")
		if !strings.HasSuffix(domain, ".company.com") && len(domain) != 40 {
			t.Fatalf("%q has %d letters, not 40", domain, len(domain))
		}
		for _, width := range []int64{1024, 1400} {
			what := fmt.Sprintf("%s at %d", name, width)
			webtest.Size(tab, t, width, 900)
			if err := chromedp.Do(tab, chromedp.Navigate(url+"/federation")); err != nil {
				t.Fatal(err)
			}
			apptest.Await(t, "the map of "+what, func() bool {
				words, err := chromedp.Run(tab, chromedp.Evaluate[int](`document.querySelectorAll("#map .words").length`))
				return err == nil && words > 0
			})
			faults, err := chromedp.Run(tab, chromedp.Evaluate[[]string](measured))
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range faults {
				t.Errorf("%s: %s", what, fault)
			}
			if *screenshots == "" {
				continue
			}
			png, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(*screenshots, strings.ReplaceAll(what, " ", "-")+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// shown is run in the page: the state and the words of each fact, and how each
// call went.
const shown = `(() => {
	const all = (id) => [...document.querySelectorAll("#fact-" + id + " li")].map((li) => li.dataset.state + ": " + li.textContent);
	return {
		Facts: ["relationship", "bundle", "federates"].flatMap(all),
		Calls: [...document.querySelectorAll("#calls .call")].map((call) => call.dataset.call + " " + call.dataset.state + " " + call.querySelector(".took").textContent),
		Legend: document.querySelectorAll(".legend li").length,
	};
})()`

type seen struct {
	Facts, Calls []string
	Legend       int
}

// TestThePageShowsWhatItKnows: it says of the three facts what a workload can know
// of them, and goes on when an answer of a peer lacks something.
func TestThePageShowsWhatItKnows(t *testing.T) {
	const aws, gcp, onprem, partner = "aws.company.com", "gcp.company.com", "onprem.company.com", "partner.example.com"
	poor := enterprise(aws, gcp, onprem, partner)
	poor["self"].(object)["bundles"] = []string{aws, gcp}
	for i, state := range []string{"refused", "failed", "answered", "new"} {
		poor["calls"] = append(poor["calls"].([]object), object{
			"name": fmt.Sprintf("poor %d", i), "caller": "spiffe://" + onprem + "/x", "server": "", "url": "", "state": state, "reported": true,
		})
	}
	nobody := object{"calls": poor["calls"], "now": time.Now()}
	fresh := object{"self": object{"id": "spiffe://" + aws + "/x", "trustDomain": aws, "notBefore": time.Now(), "notAfter": time.Now(), "bundles": nil}, "calls": poor["calls"], "now": time.Now()}
	var current showing
	current.set(poor)
	tab, url := browse(t, current.get)
	if err := chromedp.Do(tab, chromedp.Navigate(url+"/federation")); err != nil {
		t.Fatal(err)
	}
	all := gcp + ", " + onprem + ", " + partner
	for _, test := range []struct {
		report object
		facts  []string
	}{
		{poor, []string{
			"unknown: cannot be seen from here: " + all,
			"holds: handed out: " + gcp, "refused: none, as it should be: " + partner, "missing: not handed out: " + onprem,
			"holds: yes, since the bundle came: " + gcp, "refused: none is needed: " + partner, "unknown: not known, since no bundle came: " + onprem,
		}},
		{nobody, []string{
			"unknown: cannot be seen from here: " + aws + ", " + all,
			"unknown: not known without an identity: " + aws + ", " + all, "unknown: not known without an identity: " + aws + ", " + all,
		}},
		{fresh, []string{
			"unknown: cannot be seen from here: " + all,
			"refused: none, as it should be: " + partner, "missing: not handed out: " + gcp + ", " + onprem,
			"refused: none is needed: " + partner, "unknown: not known, since no bundle came: " + gcp + ", " + onprem,
		}},
	} {
		current.set(test.report)
		var got seen
		apptest.Await(t, fmt.Sprintf("facts %q", test.facts), func() bool {
			var err error
			got, err = chromedp.Run(tab, chromedp.Evaluate[seen](shown))
			return err == nil && slices.Equal(got.Facts, test.facts)
		})
		want := []string{"poor 0 refused refused", "poor 1 failed fails", "poor 2 answered 0.0 ms", "poor 3 new …"}
		if n := len(got.Calls); n != 16 || !slices.Equal(got.Calls[n-4:], want) || got.Legend != 6 {
			t.Errorf("the page shows %d calls, %q, and a legend of %d", n, got.Calls, got.Legend)
		}
	}
	// The one that failed without a reason can be looked at.
	answer, err := chromedp.Run(tab, chromedp.Evaluate[string](`(() => {
		document.querySelector("[data-call='poor 1'] button").click();
		return [...document.querySelectorAll("[data-call='poor 1'] dd")].at(-1).textContent;
	})()`))
	if err != nil || answer != "no reason given, as its caller tells" {
		t.Errorf("the answer is %q, %v", answer, err)
	}
	// Of each call it says what the caller presents.
	for name, want := range map[string]string{"ledger": "an X509-SVID", "health of gcp-gateway with a JWT-SVID": "a JWT-SVID"} {
		presents, err := chromedp.Run(tab, chromedp.Evaluate[string](fmt.Sprintf(`(() => {
			const call = document.querySelector("[data-call='%s']");
			call.querySelector("button").click();
			return [...call.querySelectorAll("dl > div")].find((row) => row.querySelector("dt").textContent === "Presents").querySelector("dd").textContent;
		})()`, name)))
		if err != nil || presents != want {
			t.Errorf("%s presents %q, %v, want %q", name, presents, err, want)
		}
	}
}
