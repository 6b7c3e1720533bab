package exporter_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/lab/watch/exporter"
)

var start = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// look has something of each metric.
func look(seconds, failures int, cause string) watch.Look {
	at := start.Add(time.Duration(seconds) * time.Second)
	return watch.Look{
		Lab: "quotes", At: at,
		Domains: []watch.Domain{{Name: "b.test", Endpoint: "https://b.test", EndpointUp: true, LatencySeconds: 0.2}},
		Pairs: []watch.Pair{{
			Truster: "a.test", Trusted: "b.test", State: federation.InSync, PollSeconds: 15, LastFetch: at.Add(-4 * time.Second), NextPollBy: at.Add(11 * time.Second),
			Held:    []federation.Authority{{Kind: federation.X509, ID: "0a1b", NotBefore: start.Add(-30 * time.Minute), NotAfter: start.Add(30 * time.Minute)}},
			Fetches: 7, Failures: failures, CountedSince: start, Cause: cause,
		}},
		Identities: []watch.Identity{{What: watch.Agent, Name: "/agent", TrustDomain: "b.test", Expires: start.Add(time.Hour), LifeSeconds: 3600}},
		Calls: []watch.Call{
			{From: "web", To: "api", Caller: "a.test", Server: "b.test", Outcome: watch.Answered},
			{From: "web", To: "own", Caller: "a.test", Server: "a.test", Outcome: watch.Failed},
		},
	}
}

func shown(t *testing.T, e *exporter.Exporter) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	e.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return recorder.Body.String()
}

func TestExporter(t *testing.T) {
	e := exporter.New(0)
	if got := shown(t, e); got != "" {
		t.Errorf("before the first look it shows %s", got)
	}
	e.Observe(look(0, 2, ""), nil)
	e.Observe(look(3, 5, "unknown root"), []watch.Travel{{Truster: "a.test", Trusted: "b.test", Authority: "0a1b", Took: 12 * time.Second}})
	e.Observe(look(6, 1, ""), nil) // a server that was started again
	got := shown(t, e)
	for _, want := range []string{
		`fedlab_authority_expiry_timestamp_seconds{authority="0a1b",trusted="b.test",truster="a.test"} 1.7961282e+09`,
		`fedlab_bundle_age_seconds{trusted="b.test",truster="a.test"} 4`,
		`fedlab_bundle_notice_seconds{trusted="b.test",truster="a.test"} 1200`,
		`fedlab_bundle_state{state="in sync",trusted="b.test",truster="a.test"} 1`,
		`fedlab_calls_total{caller="a.test",name="web to api",outcome="answered",server="b.test"} 3`,
		`fedlab_calls_total{caller="a.test",name="web to api",outcome="failed",server="b.test"} 0`,
		`fedlab_endpoint_latency_seconds_bucket{trusted="b.test",le="0.25"} 3`,
		`fedlab_endpoint_up{trusted="b.test"} 1`,
		`fedlab_entry_failures{trusted="b.test"} 0`,
		`fedlab_fetch_errors_total{cause="unknown root",trusted="b.test",truster="a.test"} 3`,
		`fedlab_fetch_errors_total{cause="unknown",trusted="b.test",truster="a.test"} 1`,
		`fedlab_fetches_total{result="done",trusted="b.test",truster="a.test"} 7`,
		`fedlab_fetches_total{result="failed",trusted="b.test",truster="a.test"} 1`,
		`fedlab_look_timestamp_seconds 1.796126406e+09`,
		`fedlab_next_poll_seconds{trusted="b.test",truster="a.test"} 11`,
		`fedlab_poll_seconds{trusted="b.test",truster="a.test"} 15`,
		`fedlab_propagation_seconds_sum{trusted="b.test",truster="a.test"} 12`,
		`fedlab_svid_expiry_timestamp_seconds{name="/agent",trust_domain="b.test",what="agent"} 1.79613e+09`,
		`fedlab_svid_notice_seconds{name="/agent",trust_domain="b.test",what="agent"} 1200`,
		"# TYPE fedlab_fetches_total counter", "# TYPE fedlab_bundle_state gauge", "# TYPE fedlab_propagation_seconds histogram",
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("there is no %s in\n%s", want, got)
		}
	}
	for _, m := range watch.Metrics() {
		if !strings.Contains(got, "# HELP "+m.Name+" "+m.Help) {
			t.Errorf("%s is not shown", m.Name)
		}
	}
	if strings.Contains(got, "web to own") {
		t.Error("a call within a trust domain is shown")
	}
}

// TestServe: it answers at its address, and not any more once it was stopped.
func TestServe(t *testing.T) {
	e := exporter.New(0)
	e.Observe(look(0, 0, ""), nil)
	at := netip.MustParseAddrPort("127.0.0.1:0")
	if stop, err := e.Serve(t.Context(), at); err != nil || stop() != nil {
		t.Fatalf("error %v", err)
	}
	free := httptest.NewServer(http.NotFoundHandler())
	at = netip.MustParseAddrPort(strings.TrimPrefix(free.URL, "http://"))
	if _, err := e.Serve(t.Context(), at); err == nil {
		t.Error("it listens where somebody else does")
	}
	free.Close()
	stop, err := e.Serve(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, free.URL+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil || response.Body.Close() != nil || !strings.Contains(string(text), "fedlab_endpoint_up") {
		t.Errorf("error %v, got %s", err, text)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
