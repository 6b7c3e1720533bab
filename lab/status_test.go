package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
)

// TestStatusOfAWellLab holds the names of the fields, too: programs read them.
func TestStatusOfAWellLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		w.mutations = nil
		s, err := d.Status(t.Context(), quotes(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(w.mutations) > 0 {
			t.Errorf("it changed something: %v", w.mutations)
		}
		golden(t, "status-well.json", indented(t, s))
	})
}

func TestStatusOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newWorld(t).driver(t)
		s, err := d.Status(t.Context(), quotes(t))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "status-nothing.json", indented(t, s))
		alone := quotes(t)
		alone.Relationships, alone.Workloads = nil, nil
		if s, err = d.Status(t.Context(), alone); err != nil || strings.Contains(indented(t, s), "null") {
			t.Errorf("error %v; an empty list is null in %s", err, indented(t, s))
		}
	})
}

func indented(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data) + "\n"
}

// TestStatusOfABrokenLab breaks one thing at a time and compares all that is
// said to be wrong.
func TestStatusOfABrokenLab(t *testing.T) {
	const (
		noPage = "broker-webapp: get http://localhost:8080/quotes: connection refused"
		silent = "the server of cluster1.com does not answer"
	)
	market, broker := nodeName{"quotes", "market"}, nodeName{"quotes", "broker"}
	for name, tt := range map[string]struct {
		spoil func(w *world)
		want  []string
	}{
		"a cluster is gone": {
			func(w *world) { delete(w.nodes, market) },
			[]string{
				"market: it is not there", "cluster1.com: cluster market does not answer",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: cluster market does not answer",
			},
		},
		"a cluster is stopped": {
			func(w *world) { w.nodes[broker].running = false },
			[]string{
				"broker: its node is stopped", "cluster2.com: cluster broker does not answer",
				"cluster1.com->cluster2.com: the server of cluster2.com does not answer",
				"cluster2.com->cluster1.com: the server of cluster2.com does not answer", "broker-webapp: cluster broker does not answer",
			},
		},
		"a node is not ready": {
			func(w *world) { w.nodes[market].ready = time.Now().Add(time.Hour) },
			[]string{
				"market: node is NotReady", "cluster1.com: cluster market does not answer",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: cluster market does not answer",
			},
		},
		"a cluster is half-made": {
			func(w *world) { w.renew(market); w.nodes[market].ready = time.Now() },
			[]string{
				"market: it was left half-made, and the next up makes it anew", "cluster1.com: cluster market does not answer",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: cluster market does not answer",
			},
		},
		"a cluster has other ports": {
			func(w *world) {
				w.nodes[broker].spec.Ports = map[netip.AddrPort]int{netip.MustParseAddrPort("127.0.0.1:8080"): 30999}
			},
			[]string{
				"broker: cluster broker was made with other ports: it has 127.0.0.1:8080 (to 30999), and the file asks for 127.0.0.1:8080 (to 30081)",
				noPage,
			},
		},
		"a cluster too many": {
			func(w *world) {
				name := nodeName{"quotes", "exchange"}
				w.nodes[name] = newNode(w, name, lab.NodeSpec{})
			},
			[]string{"exchange: cluster exchange is there, and the file does not have it"},
		},
		"the server does not run": {
			func(w *world) { w.nodes[market].releases["spire"].broken = "0 of 1 pods are ready: CrashLoopBackOff" },
			[]string{
				"cluster1.com: 0 of 1 pods are ready: CrashLoopBackOff",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: " + silent,
			},
		},
		"the agent does not run": {
			func(w *world) {
				w.fault = func(c string) verdict {
					if c == "Pods.Ready spire-agent in market" {
						return fail
					}
					return pass
				}
			},
			[]string{"cluster1.com: Pods.Ready spire-agent in market: injected fault"},
		},
		"the server does not tell of its relationships": {
			func(w *world) { w.fault = once("SPIRE ListFederationRelationships in market", fail) },
			[]string{
				"cluster1.com: list relationships on SPIRE server of cluster1.com: rpc error: code = Unavailable desc = SPIRE ListFederationRelationships in market: injected fault",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: " + silent,
			},
		},
		"no agent": {
			func(w *world) { w.nodes[market].spire.agents = 0 },
			[]string{"cluster1.com: no agent has attested"},
		},
		"no relationship": {
			func(w *world) { clear(w.nodes[market].spire.relationships) },
			[]string{"cluster1.com->cluster2.com: the server of cluster1.com has no relationship with cluster2.com: nothing will refresh its bundle"},
		},
		"no bundle": {
			func(w *world) { clear(w.nodes[market].spire.held) },
			[]string{"cluster1.com->cluster2.com: missing: lacks JWT authority jwt-of-cluster2.com, lacks X.509 authority KEY"},
		},
		"a bundle that is behind": {
			func(w *world) {
				for _, b := range w.nodes[broker].spire.held {
					b.RemoveJWTAuthority("jwt-of-cluster1.com")
				}
			},
			[]string{"cluster2.com->cluster1.com: behind: lacks JWT authority jwt-of-cluster1.com"},
		},
		"no entry": {
			func(w *world) { clear(w.nodes[market].spire.entries) },
			[]string{"stock-quotes: no entry has the SPIFFE ID spiffe://cluster1.com/server: the workload gets no identity"},
		},
		"an entry that does not federate": {
			func(w *world) { w.nodes[broker].spire.entries["spiffe://cluster2.com/client"] = nil },
			[]string{
				"cluster2.com->cluster1.com: the entry of spiffe://cluster2.com/client does not federate with cluster1.com: the workload does not get its bundle",
				"broker-webapp: the entry of spiffe://cluster2.com/client does not federate with cluster1.com: the workload does not get its bundle",
			},
		},
		"a workload does not run": {
			func(w *world) {
				w.nodes[market].releases["stock-quotes"].broken = "0 of 1 pods are ready: ImagePullBackOff"
			},
			[]string{"stock-quotes: 0 of 1 pods are ready: ImagePullBackOff"},
		},
		"a page does not answer": {
			func(w *world) { w.fault = once("Page", fail) },
			[]string{"broker-webapp: Page: injected fault"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				tt.spoil(w)
				s, err := d.Status(t.Context(), quotes(t))
				if err != nil {
					t.Fatal(err)
				}
				if s.Well {
					t.Error("the lab is said to be well")
				}
				if got := problems(s); !slices.EqualFunc(got, tt.want, same) {
					t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
			})
		})
	}
}

// same compares a problem with a wanted one, in which KEY stands for any key.
func same(got, want string) bool {
	start, isKey := strings.CutSuffix(want, "KEY")
	return got == want || isKey && strings.HasPrefix(got, start) && !strings.ContainsAny(got[len(start):], " ,")
}

// problems lists what is not well, each with the name of its part.
func problems(s lab.Status) []string {
	var list []string
	add := func(name string, h lab.Health) {
		if h.Well != (h.Problem == "") {
			list = append(list, fmt.Sprintf("%s: well %t and problem %q do not agree", name, h.Well, h.Problem))
		} else if !h.Well {
			list = append(list, name+": "+h.Problem)
		}
	}
	for _, x := range s.Clusters {
		add(x.Name, x.Health)
	}
	for _, x := range s.TrustDomains {
		add(x.Name, x.Health)
	}
	for _, x := range s.Relationships {
		add(x.Truster+"->"+x.Trusted, x.Health)
	}
	for _, x := range s.Workloads {
		add(x.Name, x.Health)
	}
	return list
}

// TestStatusEachCallFailing: whatever cannot be asked, the lab is not said to be
// well, and the cause is told.
func TestStatusEachCallFailing(t *testing.T) {
	var calls []string
	status := func(t *testing.T, fault func(string) verdict) (*world, lab.Status, error) {
		t.Helper()
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		w.calls, w.fault = nil, fault
		s, err := d.Status(t.Context(), quotes(t))
		return w, s, err
	}
	synctest.Test(t, func(t *testing.T) {
		w, s, err := status(t, nil)
		if err != nil || !s.Well {
			t.Fatalf("well %t, error %v", s.Well, err)
		}
		distinct := map[string]bool{}
		for _, c := range w.calls {
			distinct[c] = true
		}
		calls = slices.Sorted(maps.Keys(distinct))
	})
	for _, call := range calls {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, s, err := status(t, once(call, fail))
				said := fmt.Sprint(err) + strings.Join(problems(s), "\n")
				if err == nil && s.Well || !strings.Contains(said, call+": injected fault") {
					t.Errorf("well %t, and it says:\n%s", s.Well, said)
				}
			})
		})
	}
}

func TestStatusInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		errInterrupted := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		w.fault = func(c string) verdict {
			if strings.HasPrefix(c, "SPIRE") {
				cancel(errInterrupted)
			}
			return pass
		}
		if _, err := d.Status(ctx, quotes(t)); !errors.Is(err, errInterrupted) {
			t.Errorf("error %v, want %v", err, errInterrupted)
		}
	})
}
