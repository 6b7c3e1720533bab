package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

// looked is a look at a lab in which one thing of each is worth a remark.
func looked() watch.Look {
	at := func(d time.Duration) time.Time { return driftNow.Add(d) }
	authority := federation.Authority{Kind: federation.X509, ID: "0a1b2c3d4e5f", NotBefore: at(-time.Hour), NotAfter: at(5 * time.Minute)}
	return watch.Look{
		Lab: "quotes", At: driftNow,
		Pairs: []watch.Pair{
			{
				Truster: "cluster1.com", Trusted: "cluster2.com", State: federation.InSync, PollSeconds: 15, LastFetch: at(-3 * time.Second), NextPollBy: at(12 * time.Second),
				Fetches: 4, CountedSince: at(-time.Minute), Held: []federation.Authority{{Kind: federation.JWT, ID: "jwt"}, authority, {Kind: federation.X509, ID: "ffff", NotBefore: at(-time.Hour), NotAfter: at(100 * time.Hour)}},
			},
			{Truster: "cluster2.com", Trusted: "cluster1.com", State: federation.InSync, PollSeconds: 15, Fetches: 4, NextPollBy: at(-20 * time.Second), Held: []federation.Authority{authority}},
			{Truster: "cluster3.com", Trusted: "cluster1.com", State: federation.InSync, Unpolled: "set by hand"},
		},
		Identities: []watch.Identity{
			{What: watch.Endpoint, Name: "cluster1.com", SPIFFEID: "spiffe://cluster1.com/spire/server", Authority: "0a1b2c3d4e5f", Expires: at(time.Hour), LifeSeconds: 3600},
			{What: watch.Workload, Name: "web", Problem: "it does not answer"},
		},
	}
}

func TestWatchOnce(t *testing.T) {
	const want = `
HELD BUNDLE                         STATE    LAST FETCH  NEXT POLL              LEFT OF EACH X.509 AUTHORITY
cluster1.com holds of cluster2.com  in sync  3.0s ago    within 12s, each 15s   0a1b2c3d 5m00s, ffff 4d
cluster2.com holds of cluster1.com  in sync  -           late by 20s, each 15s  0a1b2c3d 5m00s
cluster3.com holds of cluster1.com  in sync  -           none: set by hand      -

SHOWN BY               IDENTITY                            LEFT  SIGNED BY  WHAT IS WRONG
endpoint cluster1.com  spiffe://cluster1.com/spire/server  1h    0a1b2c3d   -
workload web           -                                   -     -          it does not answer

TO LOOK AT                   SEVERITY  WHAT IS WRONG
SPIREFederationBundleExpiry  warning   cluster2.com holds of cluster1.com: the newest X.509 authority, 0a1b2c3d4e5f, ends in 5m0s, and somebody should look from 21m40s on
SPIREFederationNoFetch       critical  cluster2.com holds of cluster1.com: no fetch was counted for 35s, and each 15s there should be one
`
	var out bytes.Buffer
	c := &cmd{Streams: Streams{Out: &out}}
	w := watching{judge: &watch.Watcher{}, look: func(context.Context, watch.Look) (watch.Look, error) { return looked(), nil }}
	if err := c.watchOnce(t.Context(), w); ExitCode(err) != NotWell {
		t.Errorf("error %v", err)
	}
	if out.String() != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", out.String(), want)
	}

	out.Reset()
	c.output = "json"
	if err := c.watchOnce(t.Context(), w); ExitCode(err) != NotWell {
		t.Errorf("error %v", err)
	}
	var got struct {
		Kind     string          `json:"kind"`
		Lab      string          `json:"lab"`
		Findings []watch.Finding `json:"findings"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Kind != "Watch" || got.Lab != "quotes" || len(got.Findings) != 2 {
		t.Errorf("got %s, error %v", out.String(), err)
	}

	well := looked()
	well.Pairs = nil
	w.look = func(context.Context, watch.Look) (watch.Look, error) { return well, nil }
	if err := c.watchOnce(t.Context(), w); err != nil {
		t.Errorf("where nothing is wrong: %v", err)
	}
}

// TestKeepWatching: each change is told once, to all, and a refresh comes at once and again
// before the next poll does.
func TestKeepWatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, said bytes.Buffer
		c := &cmd{Streams: Streams{Out: &out, Err: &said}, output: "json", events: true}
		ctx, cancel := context.WithCancelCause(t.Context())
		looks, begin := 0, time.Now()
		var ran, told, refreshed, shown []string
		w := watching{
			judge: &watch.Watcher{},
			look: func(_ context.Context, before watch.Look) (watch.Look, error) {
				if looks > 0 && before.Lab != "quotes" {
					t.Errorf("look %d was not given the one before", looks)
				}
				l := looked()
				l.Pairs = l.Pairs[1:2]
				l.Pairs[0].Held, l.Pairs[0].PollSeconds, l.Pairs[0].NextPollBy = nil, 60, l.At.Add(-80*time.Second)
				if looks < 2 || looks > 8 {
					l.Pairs[0].NextPollBy = l.At
				}
				if looks++; looks == 12 {
					cancel(ErrInterrupted)
				}
				l.At, l.Pairs[0].NextPollBy = time.Now(), l.Pairs[0].NextPollBy.Add(time.Since(driftNow))
				return l, nil
			},
			run: func(_ context.Context, change watch.Change) error {
				ran = append(ran, change.Status)
				return errors.New("no pager")
			},
			tell: func(_ context.Context, _ time.Time, findings []watch.Finding, changes []watch.Change) error {
				told = append(told, fmt.Sprint(len(findings), len(changes)))
				return nil
			},
			show: func(l watch.Look, _ []watch.Travel) { shown = append(shown, l.Lab) },
			refresh: func(_ context.Context, truster, trusted string) error {
				refreshed = append(refreshed, time.Since(begin).String())
				if truster != "cluster2.com" || trusted != "cluster1.com" {
					t.Errorf("refreshed what %s holds of %s", truster, trusted)
				}
				return errors.New("it is locked out")
			},
		}
		if err := c.keepWatching(ctx, w); !errors.Is(err, ErrInterrupted) {
			t.Errorf("error %v", err)
		}
		if want := []string{watch.Firing, watch.Resolved}; !slices.Equal(ran, want) {
			t.Errorf("ran for %v, want %v", ran, want)
		}
		if want := []string{"0 0", "0 0", "1 1", "1 0", "1 0", "1 0", "1 0", "1 0", "1 0", "0 1", "0 0", "0 0"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		if want := []string{"24s", "48s", "1m12s", "1m36s"}; !slices.Equal(refreshed, want) {
			t.Errorf("refreshed %q, want %q", refreshed, want)
		}
		if len(shown) != looks {
			t.Errorf("%d of %d looks were shown", len(shown), looks)
		}
		if said.String() != "no pager\nno pager\n" {
			t.Errorf("said %q", said.String())
		}
		var statuses []string
		for line := range strings.Lines(out.String()) {
			var event struct{ Kind, Status, Alert, Text string }
			if err := json.Unmarshal([]byte(line), &event); err != nil || event.Kind != "WatchChange" || event.Alert != "SPIREFederationNoFetch" {
				t.Errorf("event %s, error %v", line, err)
			}
			statuses = append(statuses, event.Status)
		}
		if want := []string{"firing", "not refreshed", "not refreshed", "not refreshed", "not refreshed", "resolved"}; !slices.Equal(statuses, want) {
			t.Errorf("events %q, want %q", statuses, want)
		}
	})
}

func TestWatchUsage(t *testing.T) {
	for want, o := range map[string]watchOptions{
		"--once only looks and --refresh acts: want one of them":                                     {once: true, refresh: true},
		"--once only looks and --exec acts: want one of them":                                        {once: true, program: "./page.sh"},
		`invalid value "127.0.0.1:9093" of --alertmanager: want a URL such as http://127.0.0.1:9093`: {url: "127.0.0.1:9093"},
		`invalid value "ftp://x" of --alertmanager: want a URL such as http://127.0.0.1:9093`:        {url: "ftp://x"},
		`invalid value "-1s" of --threshold: want a duration that is not negative`:                   {threshold: -time.Second},
	} {
		if _, err := o.alertmanager(); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for _, at := range []string{"9464", "0.0.0.0:9464", "[::]:9464", "localhost:9464"} {
		if _, err := (watchOptions{metrics: at}).listen(); err == nil || !strings.HasSuffix(err.Error(), "want a loopback address of this machine with a port, such as 127.0.0.1:9464") {
			t.Errorf("%s: error %v", at, err)
		}
	}
	if at, err := (watchOptions{url: "http://127.0.0.1:9093/under"}).alertmanager(); err != nil || at.Path != "/under" {
		t.Errorf("got %v, error %v", at, err)
	}
}

// TestWatchRules: what is printed is what Prometheus reads, with the intervals of the lab.
func TestWatchRules(t *testing.T) {
	for _, args := range [][]string{{"watch", "rules", "--scrape", "5s"}, {"watch", "rules", "--scrape", "5s", "--object"}} {
		var out bytes.Buffer
		if err := Run(t.Context(), args, Streams{Out: &out, Err: &out}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"name: spire.federation", "alert: SPIREFederationBundleNotInSync", "for: 30s", "[60s]", "severity: critical"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%v: there is no %s in\n%s", args, want, out.String())
			}
		}
		if got := strings.Contains(out.String(), "kind: PrometheusRule\n"); got != (len(args) == 5) {
			t.Errorf("%v: an object: %t", args, got)
		}
	}
	var out bytes.Buffer
	if err := Run(t.Context(), []string{"watch", "rules", "--scrape", "5ms"}, Streams{Out: &out, Err: &out}); ExitCode(err) != WrongUsage {
		t.Errorf("error %v", err)
	}
	out.Reset()
	if err := Run(t.Context(), []string{"watch", "dashboard"}, Streams{Out: &out, Err: &out}); err != nil || !json.Valid(out.Bytes()) {
		t.Errorf("error %v, got %s", err, out.String())
	}
}
