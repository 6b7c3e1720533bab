package fault_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/fault"
)

// left returns a world in which a killed run has left all that Sweep takes away
// from market, and what it was before that.
func left(t *testing.T) (w *world, before string) {
	t.Helper()
	w = well()
	w.market.rules = []string{
		"-A PREROUTING -j KUBE-SOMETHING\n",
		"-A PREROUTING -m comment --comment \"rules of fedlab: none\" -j ACCEPT\n",
		"-A PREROUTING -s 10.192.0.9/32 -m comment --comment \"other:fedlab:partition/other->market\" -j DROP\n",
	}
	before = w.String()
	inject(t, fault.ControllerManagerGone(w.market.cluster()))
	inject(t, fault.AgentStopped(w.market.cluster()))
	inject(t, fault.PartitionOneWay(w.broker.cluster(), w.market.cluster()))
	w.market.rules = append(w.market.rules, "-A PREROUTING -s 10.192.0.3/32 -m comment --comment \"fedlab:partition/market<->broker\" -j DROP\n")
	w.settle()
	w.calls = 0
	return w, before
}

// TestSweep: all that is ours goes, and nothing of others. Repeated, it changes
// nothing.
func TestSweep(t *testing.T) {
	w, before := left(t)
	if w.String() == before {
		t.Fatal("nothing is left to sweep")
	}
	for range 2 {
		w.calls = 0
		wantError(t, "sweep", fault.Sweep(t.Context(), w.market.cluster()), "none")
		w.settle()
		if now := w.String(); now != before {
			t.Errorf("it left %s\nwant %s", now, before)
		}
	}
	// Where nothing is left it looks three times, and sends one harmless signal.
	if w.calls != 4 {
		t.Errorf("%d calls where nothing is left, want 4", w.calls)
	}
}

// TestSweepNamesEachCallThatFails, and does the rest all the same.
func TestSweepNamesEachCallThatFails(t *testing.T) {
	const rules, agent, manager = "remove partitions", "let the agent run", "let the controller manager go on"
	calls := []string{rules, rules, rules, agent, agent, manager, manager}
	named := func(call int, what string) string {
		return fmt.Sprintf("sweep cluster market: %s: injected into call %d", what, call)
	}
	for i, what := range calls {
		w, before := left(t)
		w.failFrom, w.failTo = i+1, i+1
		wantError(t, "sweep", fault.Sweep(t.Context(), w.market.cluster()), named(i+1, what))
		gone := map[string]bool{
			rules:   !strings.Contains(strings.Join(w.market.rules, ""), `"fedlab:`),
			agent:   w.market.nodeSelector == "",
			manager: !w.market.manager.stopped,
		}
		for each, is := range gone {
			if is != (each != what) {
				t.Errorf("call %d fails, of %q: %q is done: %t", i+1, what, each, is)
			}
		}
		wantError(t, "sweep again", fault.Sweep(t.Context(), w.market.cluster()), "none")
		w.settle()
		if now := w.String(); now != before {
			t.Errorf("call %d fails: the next sweep left %s\nwant %s", i+1, now, before)
		}
	}
	w, _ := left(t)
	w.failFrom, w.failTo = 1, 1000
	wantError(t, "sweep", fault.Sweep(t.Context(), w.market.cluster()), strings.Join([]string{named(1, rules), named(2, agent), named(3, manager)}, "\n"))
}

// TestSweepGoesOnAfterARule: one that cannot be removed does not keep the next.
func TestSweepGoesOnAfterARule(t *testing.T) {
	w, _ := left(t)
	w.failFrom, w.failTo = 2, 2
	wantError(t, "sweep", fault.Sweep(t.Context(), w.market.cluster()), "sweep cluster market: remove partitions: injected into call 2")
	if all := strings.Join(w.market.rules, ""); !strings.Contains(all, "fedlab:partition/broker->market") || strings.Contains(all, "market<->broker") {
		t.Errorf("rules %q", w.market.rules)
	}
}

// bare is a cluster in which nobody has installed anything.
type bare struct{ *site }

func (bare) Object(context.Context, access.ObjectKey, any) (bool, error) { return false, nil }

// TestSweepWhereProgramsAreAway: there is nothing to continue, and nothing is made
// of an agent that is not there.
func TestSweepWhereProgramsAreAway(t *testing.T) {
	for name, change := range map[string]func(*site, *fault.Cluster){
		"no server":    func(s *site, _ *fault.Cluster) { s.server, s.manager, s.replicas = process{}, process{}, 0 },
		"dead manager": func(s *site, _ *fault.Cluster) { s.manager.running = false },
		"no agent":     func(s *site, _ *fault.Cluster) { s.agent = process{} },
		"nothing":      func(s *site, c *fault.Cluster) { c.Objects = bare{s} },
	} {
		t.Run(name, func(t *testing.T) {
			w := well()
			cluster := w.market.cluster()
			change(w.market, &cluster)
			before := w.String()
			wantError(t, "sweep", fault.Sweep(t.Context(), cluster), "none")
			if now := w.String(); now != before {
				t.Errorf("it made %s\nof %s", now, before)
			}
		})
	}
}
