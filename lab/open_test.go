package lab_test

import (
	"errors"
	"reflect"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		l, err := d.Open(t.Context(), quotes(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range l.Graph.Clusters {
			if in := l.Access(c); in.Objects.NodeReady(t.Context()) != nil {
				t.Errorf("no access to %s", c.Name)
			}
		}
		market, broker := l.Graph.Servers()[0], l.Graph.Servers()[1]
		first, err := l.Site(t.Context(), market)
		if err != nil {
			t.Fatal(err)
		}
		for _, server := range []*topology.Server{market, market, broker} {
			site, err := l.Site(t.Context(), server)
			if err != nil {
				t.Fatal(err)
			}
			if bundle, err := site.API.Bundle(t.Context()); err != nil || bundle.TrustDomain() != server.Domain.Name || site.Server != server {
				t.Errorf("bundle %v, error %v", bundle, err)
			}
			if (site == first) != (server == market) {
				t.Errorf("the server of %s has not one connection", server.Domain)
			}
		}
		stranger := resolved(t, quotes(t)).Servers()[0]
		if _, err := l.Site(t.Context(), stranger); err == nil || err.Error() != "the server of cluster1.com is not one of this handle's graph of lab quotes" {
			t.Errorf("server of another graph: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestOpenWhatIsNotUp(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(*world)
		// open and told are what Open and Topology say.
		open, told string
	}{
		"nothing is there": {
			func(w *world) { clear(w.nodes); clear(w.networks) },
			"lab quotes is not up: it has no network", "lab quotes is not up: there is no cluster of it",
		},
		"a cluster is gone": {
			func(w *world) { delete(w.nodes, nodeName{"quotes", "market"}) },
			"lab quotes is not up: it has no cluster market", "",
		},
		"all is stopped": {
			func(w *world) {
				for _, n := range w.nodes {
					n.running = false
				}
			},
			"lab quotes is not up: cluster market is stopped", "lab quotes is not up: cluster market does not say what the lab is: its node is stopped",
		},
		"all is half-made": {
			func(w *world) {
				for name := range w.nodes {
					w.renew(name)
				}
			},
			"", "lab quotes is not up: cluster market does not say what the lab is: it was left half-made, and the next up makes it again",
		},
		"no API answers": {
			func(w *world) {
				for _, n := range w.nodes {
					n.state = deaf
				}
			},
			"", "lab quotes is not up: cluster market does not say what the lab is: connection refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				tt.arrange(w)
				_, opened := d.Open(t.Context(), quotes(t))
				_, told := d.Topology(t.Context(), "quotes")
				for what, e := range map[string]struct {
					err  error
					want string
				}{"open": {opened, tt.open}, "topology": {told, tt.told}} {
					var notUp *lab.NotUpError
					if (e.want != "") != errors.As(e.err, &notUp) || e.want != "" && e.err.Error() != e.want || e.want == "" && e.err != nil {
						t.Errorf("%s: error %v, want %q", what, e.err, e.want)
					}
				}
			})
		})
	}
}

// TestTopologyOfARunningLab: a shell that has no lab file finds what the lab is
// meant to be, as the last up was told.
func TestTopologyOfARunningLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		got, err := d.Topology(t.Context(), "quotes")
		if err != nil || !reflect.DeepEqual(got, quotes(t)) {
			t.Errorf("error %v, got %+v, want %+v", err, got, quotes(t))
		}
		changed := quotes(t)
		changed.TrustDomains[0].LogLevel = "debug"
		if err := w.up(t, d, changed); err != nil {
			t.Fatal(err)
		}
		got, err = d.Topology(t.Context(), "quotes")
		if err != nil || !reflect.DeepEqual(got, changed) {
			t.Errorf("after a change: error %v, got %+v, want %+v", err, got, changed)
		}
		s, err := d.Status(t.Context(), got)
		if err != nil || s.Relationships[0].Bundle != federation.InSync {
			t.Errorf("status %+v, error %v", s, err)
		}
	})
}
