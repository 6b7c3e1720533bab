package lab_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// down runs a down of the quotes preset to its end, or until the world's fault
// kills it.
func (w *world) down(t *testing.T, d *lab.Driver) (bool, error) {
	t.Helper()
	return w.downOf(t, d, "quotes")
}

func (w *world) downOf(t *testing.T, d *lab.Driver, name string) (bool, error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	w.kill = cancel
	removed, err := d.Down(ctx, name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.killed, w.fault = false, nil
	return removed, err
}

// neighbour adds another lab to the world, which nobody may touch.
func (w *world) neighbour(t *testing.T, d *lab.Driver) string {
	t.Helper()
	other := edited(t, "  name: quotes\n", "  name: other\n")
	other.Workloads[1].Expose = netip.MustParseAddrPort("127.0.0.1:9090")
	if err := w.up(t, d, other); err != nil {
		t.Fatal(err)
	}
	w.leave(t, d, "other")
	return w.dump()
}

func TestDown(t *testing.T) {
	for name, start := range starts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				start(t, w, d)
				found := w.dump()
				w.mutations = nil
				removed, err := w.down(t, d)
				if err != nil || removed != (found != "") {
					t.Errorf("removed %t, error %v; there was:\n%s", removed, err, found)
				}
				w.want(t, "")
				if n := len(w.mutations); n > 0 && w.mutations[n-1] != "Networks.Remove" {
					t.Errorf("the network did not go last: %v", w.mutations)
				}
				w.mutations = nil
				if removed, err := w.down(t, d); removed || err != nil || len(w.mutations) > 0 {
					t.Errorf("a second down: removed %t, error %v, changed %v", removed, err, w.mutations)
				}
			})
		})
	}
}

// TestDownAfterAKilledUp removes what each killed up leaves.
func TestDownAfterAKilledUp(t *testing.T) {
	for _, tt := range trials(t) {
		if tt.found != "nothing" {
			continue
		}
		t.Run(tt.call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				w.fault = once(tt.call, killAfter)
				if err := w.up(t, d, quotes(t)); err == nil {
					t.Error("a killed up ended well")
				}
				if _, err := w.down(t, d); err != nil {
					t.Error(err)
				}
				w.want(t, "")
			})
		})
	}
}

// TestDownEachCallDisturbed lets each call of a down fail, and kills it before
// and after each; the next down finishes, and the lab next to it stays.
func TestDownEachCallDisturbed(t *testing.T) {
	var calls []string
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["a program left next to the clusters"](t, w, d)
		w.calls = nil
		if _, err := w.down(t, d); err != nil {
			t.Fatal(err)
		}
		distinct := map[string]bool{}
		for _, c := range w.calls {
			distinct[c] = true
		}
		calls = slices.Sorted(maps.Keys(distinct))
	})
	for _, call := range calls {
		for what, v := range map[string]verdict{"fails": fail, "killed before": killBefore, "killed after": killAfter} {
			t.Run(call+"/"+what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := w.driver(t)
					neighbour := w.neighbour(t, d)
					starts()["a program left next to the clusters"](t, w, d)
					w.fault = once(call, v)
					_, err := w.down(t, d)
					if err == nil {
						t.Fatal("it ended well")
					}
					if v == fail && (!strings.Contains(err.Error(), call) || !strings.Contains(err.Error(), errInjected.Error())) {
						t.Errorf("error %v does not name the cause", err)
					}
					if _, err := w.down(t, d); err != nil {
						t.Error(err)
					}
					w.want(t, neighbour)
				})
			})
		}
	}
}

func TestDownTellsWhatItRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["a program left next to the clusters"](t, w, d)
		var ended []string
		d.Observe = func(e plan.Event) {
			if e.State != plan.Started {
				ended = append(ended, fmt.Sprintf("%s: %s (%s)", e.Step, e.Title, e.State))
			}
		}
		if _, err := w.down(t, d); err != nil {
			t.Fatal(err)
		}
		if n := len(ended); n == 0 || !strings.HasPrefix(ended[n-1], "network/") {
			t.Errorf("the network did not go last: %q", ended)
		}
		slices.Sort(ended)
		want := []string{
			"cluster/broker: remove cluster broker (changed)", "cluster/market: remove cluster market (changed)",
			"kubeconfig/quotes: remove contexts from the kubeconfig file (changed)", "network/quotes: remove the lab's network (changed)",
			"sidecar/synthetic: remove synthetic next to the clusters (changed)",
		}
		if !slices.Equal(ended, want) {
			t.Errorf("said %q, want %q", ended, want)
		}
	})
}

// TestDownOfAProgramAlone removes what runs next to clusters that are gone, also
// without a network.
func TestDownOfAProgramAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		w.sidecars[nodeName{"quotes", "synthetic"}] = true
		if removed, err := w.down(t, d); !removed || err != nil {
			t.Errorf("removed %t, error %v", removed, err)
		}
		w.want(t, "")
	})
}
