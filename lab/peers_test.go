package lab_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// TestWorkloadIsSeenByWhoCallsIt: its callers have to get through to it; where none
// of them answers, its own cluster is asked.
func TestWorkloadIsSeenByWhoCallsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		asked := func() (from []string) {
			w.calls = nil
			if _, err := d.Status(t.Context(), quotes(t)); err != nil {
				t.Fatal(err)
			}
			for _, call := range w.calls {
				if strings.HasPrefix(call, "Peers.Presented ") {
					from = append(from, call)
				}
			}
			return from
		}
		if got, want := asked(), []string{"Peers.Presented from broker by 10.192.1.101:8090"}; !slices.Equal(got, want) {
			t.Errorf("asked %q, want %q", got, want)
		}
		w.nodes[nodeName{"quotes", "broker"}].running = false
		if got, want := asked(), []string{"Peers.Presented from market by 10.192.1.101:8090"}; !slices.Equal(got, want) {
			t.Errorf("while the caller's cluster is stopped: asked %q, want %q", got, want)
		}
	})
}

// TestEndpointIsAskedInItsOwnCluster: what it serves is one question, and whether a
// truster gets there another.
func TestEndpointIsAskedInItsOwnCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := company(federated("from: aws.company.com, to: gcp.company.com")).topology(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		w.calls = nil
		if drift, err := d.Drift(t.Context(), top); err != nil || !drift.Well {
			t.Fatalf("error %v, drift %+v", err, drift)
		}
		asked := slices.DeleteFunc(w.calls, func(call string) bool { return !strings.HasPrefix(call, "Peers.") })
		if want := []string{"Peers.Get from gcp of 10.192.2.1", "Peers.Get from aws of 10.192.2.1"}; !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
	})
}
