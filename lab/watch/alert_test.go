package watch_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

// authority lives for an hour, of which these minutes are left at the start.
func authority(id string, left int) federation.Authority {
	end := start.Add(time.Duration(left) * time.Minute)
	return federation.Authority{Kind: federation.X509, ID: id, NotBefore: end.Add(-time.Hour), NotAfter: end}
}

// well is a look at a federation in which all is as it should be, in the middle of a rotation.
func well() watch.Look {
	both := []federation.Authority{authority("old", 1), authority("new", 40)}
	return watch.Look{
		Lab: "quotes", At: start,
		Domains: []watch.Domain{
			{Name: "a.test"},
			{Name: "b.test", Own: both, Served: both, Endpoint: "https://b.test:8443", EndpointUp: true, LatencySeconds: 0.1},
		},
		Pairs: []watch.Pair{{
			Truster: "a.test", Trusted: "b.test", State: federation.InSync, Held: both, PollSeconds: 15,
			Fetches: 9, CountedSince: at(-600), LastFetch: at(-14), NextPollBy: at(1),
		}},
		Identities: []watch.Identity{
			{What: watch.Endpoint, Name: "b.test", TrustDomain: "b.test", Expires: at(60 * 20), LifeSeconds: 3600},
			{What: watch.Webhook, Name: "b.test", TrustDomain: "b.test", Expires: at(60 * 29), LifeSeconds: 24 * 3600},
			{What: watch.Agent, Name: "/agent", TrustDomain: "b.test", Expires: at(60 * 25), LifeSeconds: 3600},
			{What: watch.Workload, Name: "web", TrustDomain: "b.test", Problem: "it does not answer"},
		},
		Calls: []watch.Call{{From: "web", To: "api", Caller: "a.test", Server: "b.test", Outcome: watch.Answered}},
	}
}

// faults are what a look may show, and what is to be told of it.
func faults() map[string]struct {
	spoil func(*watch.Look)
	alert string
	// polls is for how many polls it must hold.
	polls int
	text  string
} {
	return map[string]struct {
		spoil func(*watch.Look)
		alert string
		polls int
		text  string
	}{
		"an authority ends": {
			func(l *watch.Look) {
				l.Pairs[0].Held = []federation.Authority{authority("old", 1), authority("new", 19)}
			},
			"SPIREFederationBundleExpiry", 0, "a.test holds of b.test: the newest X.509 authority, new, ends in 19m0s, and somebody should look from 20m0s on",
		},
		"an authority has ended": {
			func(l *watch.Look) { l.Pairs[0].Held = []federation.Authority{authority("old", -2)} },
			"SPIREFederationBundleExpiry", 0, "a.test holds of b.test: the newest X.509 authority, old, ended 2m0s ago, and somebody should look from 20m0s on",
		},
		"an endpoint is down": {
			func(l *watch.Look) { l.Domains[1].EndpointUp, l.Domains[1].Problem = false, "connection refused" },
			"SPIREFederationEndpointDown", 1, "b.test: https://b.test:8443 serves no bundle: connection refused",
		},
		"a fetch has failed": {
			func(l *watch.Look) { l.Pairs[0].LastFailure, l.Pairs[0].Cause = at(-1), "unknown root" },
			"SPIREFederationTrustBundleUpdateFailed", 0, "a.test holds of b.test: the last fetch failed: unknown root",
		},
		"calls fail": {
			func(l *watch.Look) { l.Calls[0].Outcome = watch.Failed },
			"SPIRECrossDomainAuthenticationFailures", 1, "calls of web to api fail",
		},
		"an endpoint is slow": {
			func(l *watch.Look) { l.Domains[1].LatencySeconds = 3 },
			"SPIREFederationLatencyHigh", 1, "b.test: https://b.test:8443 answered after 3.0s",
		},
		"a bundle is behind": {
			func(l *watch.Look) { l.Pairs[0].State, l.Pairs[0].Problem = federation.Behind, "behind: lacks one" },
			"SPIREFederationBundleNotInSync", 2, "a.test holds of b.test: behind: lacks one",
		},
		"nobody fetches": {
			func(l *watch.Look) { l.Pairs[0].NextPollBy = at(-16) },
			"SPIREFederationNoFetch", 0, "a.test holds of b.test: no fetch was counted for 31s, and each 15s there should be one",
		},
		"entries are refused": {
			func(l *watch.Look) { l.Domains[0].EntryFailures = 2 },
			"SPIREFederationEntryFailures", 2, "a.test: 2 entries are refused: most often they federate with a trust domain of which no bundle is held",
		},
		"an SVID ends": {
			func(l *watch.Look) { l.Identities[2].Expires = at(60 * 19) },
			"SPIREFederationSVIDExpiry", 0, "what agent /agent presents ends in 19m0s, and was to be replaced before",
		},
	}
}

func TestJudge(t *testing.T) {
	if found := new(watch.Watcher).Judge(well()); len(found) > 0 {
		t.Errorf("of a federation that is well it tells %+v", found)
	}
	told := map[string]bool{}
	for name, tt := range faults() {
		told[tt.alert] = true
		l, w := well(), &watch.Watcher{}
		tt.spoil(&l)
		poll := 15 * time.Second
		for i := range tt.polls + 1 {
			found := w.Judge(l)
			if len(found) != 1 || found[0].Alert != tt.alert || found[0].Text != tt.text || !found[0].Since.Equal(start) || found[0].Firing != (i == tt.polls) {
				t.Errorf("%s: after %d polls it tells %+v, want %s: %s", name, i, found, tt.alert, tt.text)
			}
			// Only time goes on.
			l.At = l.At.Add(poll)
			for p := range l.Pairs {
				l.Pairs[p].NextPollBy = l.Pairs[p].NextPollBy.Add(poll)
			}
			if name == "an authority ends" || name == "an authority has ended" {
				break
			}
		}
	}
	for _, r := range watch.Rules(watch.Intervals{}).Groups[0].Rules {
		if !told[r.Alert] && r.Alert != "SPIREFederationWatchSilent" {
			t.Errorf("no test has the alert %s", r.Alert)
		}
	}
}

// TestJudgeByOwnNotice: what a person asks for counts in the place of what follows from lives.
func TestJudgeByOwnNotice(t *testing.T) {
	w := &watch.Watcher{Notice: 41 * time.Minute}
	var alerts []string
	for _, f := range w.Judge(well()) {
		alerts = append(alerts, f.Alert)
	}
	want := []string{"SPIREFederationBundleExpiry", "SPIREFederationSVIDExpiry", "SPIREFederationSVIDExpiry", "SPIREFederationSVIDExpiry"}
	if !slices.Equal(alerts, want) {
		t.Errorf("got %v, want %v", alerts, want)
	}
}

// TestRefreshable: a server that has never fetched must be left alone, and one that does not
// fetch cannot be helped.
func TestRefreshable(t *testing.T) {
	for want, change := range map[bool]func(*watch.Pair){
		true:  func(*watch.Pair) {},
		false: func(p *watch.Pair) { p.Fetches = 0 },
	} {
		l := well()
		l.Pairs[0].State = federation.Foreign
		change(&l.Pairs[0])
		if found := new(watch.Watcher).Judge(l); len(found) != 1 || found[0].Refreshable() != want {
			t.Errorf("got %+v, want refreshable %t", found, want)
		}
	}
	l := well()
	l.Domains[1].EndpointUp = false
	if found := new(watch.Watcher).Judge(l); len(found) != 1 || found[0].Refreshable() {
		t.Errorf("a fetch cures an endpoint: %+v", found)
	}
}

// TestChanges: each alert is told when it fires, and when that is over.
func TestChanges(t *testing.T) {
	w := &watch.Watcher{}
	var before []watch.Finding
	var told []string
	for i, state := range []federation.State{"in sync", "behind", "behind", "behind", "differing", "in sync", "behind"} {
		l := well()
		l.At, l.Pairs[0].State, l.Pairs[0].NextPollBy = at(15*i), state, at(15*i)
		now := w.Judge(l)
		for _, c := range watch.Changes(before, now, l.At) {
			if c.Firing != (c.Status == watch.Firing) {
				t.Errorf("%s, and it says firing: %t", c.Status, c.Firing)
			}
			told = append(told, c.At.Format(time.TimeOnly)+" "+c.Status+" "+c.Alert)
		}
		before = now
	}
	want := []string{"12:00:45 firing SPIREFederationBundleNotInSync", "12:01:15 resolved SPIREFederationBundleNotInSync"}
	if !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}

// TestTravels: an authority that comes while it is watched has a way, once for each truster.
func TestTravels(t *testing.T) {
	w := &watch.Watcher{}
	look := func(seconds int, own, held string) (all []watch.Travel) {
		list := func(ids string) (all []federation.Authority) {
			for _, id := range strings.Fields(ids) {
				all = append(all, federation.Authority{Kind: federation.X509, ID: id})
			}
			return all
		}
		return w.Travels(watch.Look{
			At: at(seconds), Domains: []watch.Domain{{Name: "b.test", Own: list(own)}},
			Pairs: []watch.Pair{{Truster: "a.test", Trusted: "b.test", Held: list(held)}},
		})
	}
	for i, step := range []struct {
		own, held string
		want      []watch.Travel
	}{
		{"one", "one", nil},
		{"one two", "one", nil},
		{"one two", "one", nil},
		{"one two", "one two stranger", []watch.Travel{{Truster: "a.test", Trusted: "b.test", Authority: "two", Took: 6 * time.Second}}},
		{"two", "one two", nil},
	} {
		if got := look(3*i, step.own, step.held); !reflect.DeepEqual(got, step.want) {
			t.Errorf("look %d: %+v, want %+v", i, got, step.want)
		}
	}
}

func TestPause(t *testing.T) {
	l := well()
	l.Pairs = append(l.Pairs, watch.Pair{PollSeconds: 900}, watch.Pair{})
	if got := l.Pause(); got != 3*time.Second {
		t.Errorf("the pause is %s, want a fifth of 15 s", got)
	}
	if got := (watch.Look{}).Pause(); got != time.Minute {
		t.Errorf("where nobody polls the pause is %s", got)
	}
}
