package lab_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crypto/x509"

	"github.com/fedlab-dev/fedlab/lab"
)

// wall keeps this machine from the lab's addresses; the clusters reach each
// other, and their APIs answer by their published ports.
func (w *world) wall(d *lab.Driver) {
	w.walled = true
	refused := errors.New("dial tcp: connection refused")
	d.Parts.Certificates = func(context.Context, netip.AddrPort) ([]*x509.Certificate, error) { return nil, refused }
	d.Parts.Served = func(context.Context, string, func([]*x509.Certificate) error) ([]byte, error) { return nil, refused }
}

const cutOffMarket = "this machine gets no connection to the addresses of cluster market, which runs: dial tcp: connection refused; " +
	"a firewall on this machine (its rules for outgoing connections) or a VPN keeps it from the lab's network"

func TestUpNamesAMachineThatIsCutOff(t *testing.T) {
	for name, before := range map[string]bool{"from nothing": false, "on a lab that is up": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if before {
					if err := w.up(t, d, quotes(t)); err != nil {
						t.Fatal(err)
					}
				}
				w.wall(d)
				began := time.Now()
				err := w.up(t, d, quotes(t))
				var cut *lab.CutOffError
				if !errors.As(err, &cut) || !strings.Contains(err.Error(), "this machine gets no connection to the addresses of cluster ") {
					t.Errorf("error %v", err)
				}
				// A node takes 300 ms to come up here, and 3 s are left to it.
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %s to say so", took)
				}
			})
		})
	}
}

func TestStatusNamesAMachineThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.wall(d)
		s, err := d.Status(t.Context(), quotes(t))
		if err != nil || s.Well {
			t.Fatalf("well %t, error %v", s.Well, err)
		}
		for _, c := range s.Clusters {
			if c.Name == "market" && c.Problem != cutOffMarket {
				t.Errorf("cluster %s: %s, want %s", c.Name, c.Problem, cutOffMarket)
			}
		}
		for _, r := range s.Relationships {
			if !r.Well { // the clusters reach each other
				t.Errorf("%s->%s: %s: %s", r.Truster, r.Trusted, r.Cause, r.Problem)
			}
		}
		for _, w := range s.Workloads {
			if page := w.URL != ""; page != w.Well || !page && w.Cause != lab.CutOff {
				t.Errorf("workload %s: well %t, %s: %s", w.Name, w.Well, w.Cause, w.Problem)
			}
		}
	})
}

func TestDriftNamesAMachineThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.wall(d)
		drift, err := d.Drift(t.Context(), quotes(t))
		if err != nil || drift.Well {
			t.Fatalf("well %t, error %v", drift.Well, err)
		}
		for _, h := range drift.Held {
			if h.State != lab.CutOffHere || h.ComparedWith != lab.OwnServer || !strings.HasSuffix(h.Problem, "; what is held is in sync") {
				t.Errorf("%s of %s: %s by %s: %s", h.Truster, h.Trusted, h.State, h.ComparedWith, h.Problem)
			}
		}
	})
}

// TestUpLooksForWatchers: what the kernel allows is back at its default after a
// reboot, and the clusters are stopped.
func TestUpLooksForWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		w.watchers = 1
		const want = "no watchers for 2 clusters"
		if err := w.up(t, d, quotes(t)); err == nil || !strings.HasSuffix(err.Error(), want) || len(w.nodes) > 0 {
			t.Errorf("error %v, want …%s, and %d clusters", err, want, len(w.nodes))
		}
		w.watchers = 0
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.watchers = 1
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Errorf("with clusters that run: %v", err)
		}
		w.nodes[nodeName{"quotes", "broker"}].running = false
		if err := w.up(t, d, quotes(t)); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("with a cluster that is stopped: %v, want …%s", err, want)
		}
	})
}
