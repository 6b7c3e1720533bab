package lab_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// trial is one call of an up that finds something.
type trial struct{ found, call string }

// trials returns each call that an up of the quotes preset makes which nothing
// disturbs, with the first thing to find that leads to it.
func trials(t *testing.T) []trial {
	t.Helper()
	return trialsOf(t, quotes, starts())
}

// tried holds the trials of each lab: several tests ask for them.
var tried sync.Map

func trialsOf(t *testing.T, of func(*testing.T) topology.Topology, starts map[string]func(*testing.T, *world, *lab.Driver)) []trial {
	t.Helper()
	if known, ok := tried.Load(of(t).Name); ok {
		return known.([]trial)
	}
	var all []trial
	for _, found := range []string{"nothing", "one cluster half-made", "one cluster removed by hand", "a program left next to the clusters", "SVIDs of an authority that was revoked", "all of it, stopped", "all of it"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			d := w.driver(t)
			starts[found](t, w, d)
			w.calls = nil
			if err := w.up(t, d, of(t)); err != nil {
				t.Fatal(err)
			}
			for _, call := range w.calls {
				if !slices.ContainsFunc(all, func(x trial) bool { return x.call == call }) {
					all = append(all, trial{found, call})
				}
			}
		})
	}
	tried.Store(of(t).Name, all)
	return all
}

// TestUpEachCallFailing lets each call fail for as long as the up takes: the
// error names the step and the cause, and the next up makes it good.
func TestUpEachCallFailing(t *testing.T) {
	want := finished(t)
	waited := map[string]bool{}
	for _, tt := range trials(t) {
		// Each failure is waited out: once for all clusters is enough.
		kind, _, _ := strings.Cut(tt.call, " in ")
		if waited[kind] {
			continue
		}
		waited[kind] = true
		t.Run(tt.found+"/"+tt.call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()[tt.found](t, w, d)
				var failed []string
				d.Observe = func(e plan.Event) {
					if e.State == plan.Failed {
						failed = append(failed, string(e.Step)+": ")
					}
				}
				w.fault = always(tt.call, failLate)
				err := w.up(t, d, quotes(t))
				if err == nil && strings.HasPrefix(tt.call, "SPIRE ListFederationRelationships") {
					return // a server that is in sync already is not asked
				}
				if err == nil || !strings.Contains(err.Error(), tt.call) || !strings.Contains(err.Error(), errInjected.Error()) {
					t.Errorf("error %v does not name the cause %s: %v", err, tt.call, errInjected)
				}
				names := func(step string) bool { return strings.Contains(fmt.Sprint(err), step) }
				if !slices.ContainsFunc(failed, names) {
					t.Errorf("error %v names none of the steps that failed: %v", err, failed)
				}
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
			})
		})
	}
}

// TestUpEachCallFailingOnce lets each call fail the first time only. A step may
// bear that; if not, the next up makes it good.
func TestUpEachCallFailingOnce(t *testing.T) {
	want := finished(t)
	for _, tt := range trials(t) {
		t.Run(tt.found+"/"+tt.call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()[tt.found](t, w, d)
				w.fault = once(tt.call, fail)
				if err := w.up(t, d, quotes(t)); err != nil {
					if err := w.up(t, d, quotes(t)); err != nil {
						t.Fatal(err)
					}
				}
				w.want(t, want)
			})
		})
	}
}

func always(call string, v verdict) func(string) verdict {
	return func(c string) verdict {
		if c == call {
			return v
		}
		return pass
	}
}

func once(call string, v verdict) func(string) verdict {
	done := false
	return func(c string) verdict {
		if c != call || done {
			return pass
		}
		done = true
		return v
	}
}

// disturbed has ups of which a call fails once, or is the last one, each from the start in
// which the call was found; another up goes on from there, and then the world is judged. A
// name is a call, a slash, and "fails once", "killed before" or "killed after".
func disturbed(t *testing.T, of func(*testing.T) topology.Topology, starts map[string]func(*testing.T, *world, *lab.Driver),
	found map[string]string, names []string, judge func(*testing.T, *world),
) {
	t.Helper()
	for _, name := range names {
		at := strings.LastIndex(name, "/")
		call, what := name[:at], name[at+1:]
		t.Run(found[call]+"/"+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts[found[call]](t, w, d)
				w.fault = map[string]func(string) verdict{
					"fails once": once(call, fail), "killed before": once(call, killBefore), "killed after": once(call, killAfter),
				}[what]
				if err := w.up(t, d, of(t)); err == nil && what != "fails once" {
					t.Error("it ended well")
				}
				if err := w.up(t, d, of(t)); err != nil {
					t.Fatal(err)
				}
				judge(t, w)
			})
		})
	}
}

// TestUpKilled kills an up just before and just after each call has its effect;
// the next up goes on from there.
func TestUpKilled(t *testing.T) {
	want := finished(t)
	for _, tt := range trials(t) {
		for when, v := range map[string]verdict{"before": killBefore, "after": killAfter} {
			t.Run(fmt.Sprintf("%s/%s/%s", tt.found, tt.call, when), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := w.driver(t)
					starts()[tt.found](t, w, d)
					w.fault = once(tt.call, v)
					if err := w.up(t, d, quotes(t)); err == nil {
						t.Error("a killed up ended well")
					}
					if err := w.up(t, d, quotes(t)); err != nil {
						t.Fatal(err)
					}
					w.want(t, want)
				})
			})
		}
	}
}

// interrupts ends the context of what is done to a lab that is up at one of its
// calls: it must say so.
func interrupts(t *testing.T, at func(call string) bool, do func(ctx context.Context, d *lab.Driver) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		errInterrupted := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		w.fault = func(c string) verdict {
			if at(c) {
				cancel(errInterrupted)
			}
			return pass
		}
		if err := do(ctx, d); !errors.Is(err, errInterrupted) {
			t.Errorf("error %v, want %v", err, errInterrupted)
		}
	})
}
