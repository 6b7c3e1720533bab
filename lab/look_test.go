package lab_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

var (
	marketDomain = spiffeid.RequireTrustDomainFromString("cluster1.com")
	aKey         = regexp.MustCompile(`[0-9a-f]{40}`)
)

// aLookAt brings a lab up and takes a look at it, after something was spoiled.
func aLookAt(t *testing.T, of func(*testing.T) topology.Topology, spoil func(*world)) (watch.Look, *world, *lab.Driver) {
	t.Helper()
	w := newWorld(t)
	d := w.driver(t)
	if err := w.up(t, d, of(t)); err != nil {
		t.Fatal(err)
	}
	spoil(w)
	w.mutations = nil
	look, err := d.Look(t.Context(), of(t), watch.Look{})
	if err != nil {
		t.Fatal(err)
	}
	if len(w.mutations) > 0 {
		t.Errorf("it changed something: %v", w.mutations)
	}
	return look, w, d
}

// TestLookAtAWellLab holds the names of the fields, too: programs read them.
func TestLookAtAWellLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		look, _, _ := aLookAt(t, quotes, func(*world) {})
		text := strings.ReplaceAll(indented(t, look), look.At.Format(time.RFC3339Nano), "NOW")
		golden(t, "look-well.json", aKey.ReplaceAllString(text, "KEY"))
	})
}

// TestLookAtTheCompany: of several clusters, hosts, web endpoints and an upstream
// authority, all is seen as well.
func TestLookAtTheCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		look, _, _ := aLookAt(t, func(t *testing.T) topology.Topology { t.Helper(); return presetOf(t, "company") }, func(*world) {})
		for _, d := range look.Domains {
			if d.Problem != "" || len(d.Own) == 0 || d.Endpoint == "" || !d.EndpointUp || len(d.Served) != len(d.Own) {
				t.Errorf("trust domain %+v", d)
			}
		}
		for _, p := range look.Pairs {
			if p.Problem != "" || len(p.Held) == 0 || p.CountedSince.IsZero() || p.Fetches == 0 || p.Failures > 0 {
				t.Errorf("pair %+v", p)
			}
		}
		kinds := map[string]int{}
		for _, i := range look.Identities {
			kinds[i.What]++
			if i.Expires.IsZero() && i.Problem == "" {
				t.Errorf("identity %+v", i)
			}
		}
		for _, what := range []string{watch.Endpoint, watch.Webhook, watch.Agent, watch.Workload} {
			if kinds[what] == 0 {
				t.Errorf("no %s among %v", what, kinds)
			}
		}
	})
}

// TestLooksCountFetches: a fetch between two looks is seen, and so is one that fails, with
// its cause.
func TestLooksCountFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, w, d := aLookAt(t, quotes, func(*world) {})
		broker := w.nodes[nodeName{"quotes", "broker"}].spire
		again := func(before watch.Look) (watch.Look, watch.Pair) {
			t.Helper()
			broker.relationships[marketDomain].fetches = time.Now()
			look, err := d.Look(t.Context(), quotes(t), before)
			if err != nil {
				t.Fatal(err)
			}
			p, _ := look.Pair("cluster2.com", "cluster1.com")
			return look, p
		}
		if p, _ := first.Pair("cluster2.com", "cluster1.com"); !p.LastFetch.IsZero() {
			t.Errorf("one look saw a fetch: %+v", p)
		}
		second, p := again(first)
		if p.LastFetch.IsZero() || p.Cause != "" {
			t.Errorf("the fetch was not seen: %+v", p)
		}
		other := w.nodes[nodeName{"quotes", "market"}].spire
		stranger, err := newSPIREServer(other.node, other.values)
		if err != nil {
			t.Fatal(err)
		}
		if other.shown, err = stranger.shows(); err != nil {
			t.Fatal(err)
		}
		if _, p := again(second); !p.LastFetch.Equal(second.At) || p.Failures != 1 || p.Cause != string(lab.UnknownRoot) {
			t.Errorf("the failed fetch was not seen: %+v", p)
		}
	})
}

// TestLookAtASilentServer: what nobody tells is no number.
func TestLookAtASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		look, _, _ := aLookAt(t, quotes, func(w *world) {
			w.fault = func(call string) verdict {
				if strings.Contains(call, "Pods.Dial 9988") {
					return fail
				}
				return pass
			}
		})
		for _, p := range look.Pairs {
			if !p.CountedSince.IsZero() {
				t.Errorf("fetches that nobody counted: %+v", p)
			}
		}
		for _, d := range look.Domains {
			if want := "read the metrics of the server of " + d.Name + ": "; !strings.HasPrefix(d.Problem, want) {
				t.Errorf("problem %q, want %q and why", d.Problem, want)
			}
		}
	})
}

// TestRefresh: a server fetches at once, where it has a relationship, and nobody else changes
// the lab.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, w, d := aLookAt(t, quotes, func(*world) {})
		broker := w.nodes[nodeName{"quotes", "broker"}].spire
		broker.held[marketDomain].RemoveJWTAuthority("jwt-of-cluster1.com")
		refresh := func(trusted string) error { return d.Refresh(t.Context(), quotes(t), "cluster2.com", trusted) }
		if err := refresh("cluster1.com"); err != nil || !broker.held[marketDomain].HasJWTAuthority("jwt-of-cluster1.com") {
			t.Errorf("error %v, and it holds %v", err, broker.held[marketDomain].JWTAuthorities())
		}
		if err := refresh("nobody.test"); err == nil || err.Error() != "lab quotes has no relationship cluster2.com->nobody.test" {
			t.Errorf("error %v", err)
		}
		w.held["quotes"] = "up"
		held := (*lab.HeldError)(nil)
		if err := refresh("cluster1.com"); !errors.As(err, &held) {
			t.Errorf("while another command changes the lab: error %v", err)
		}
		delete(w.held, "quotes")
		w.nodes[nodeName{"quotes", "broker"}].running = false
		if err := refresh("cluster1.com"); err == nil || !strings.HasPrefix(err.Error(), "the server of cluster2.com does not answer: ") {
			t.Errorf("error %v", err)
		}
	})
}
