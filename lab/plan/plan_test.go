package plan_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

func nothing(context.Context) error { return nil }

func TestAddRefuses(t *testing.T) {
	tests := []struct {
		name string
		step plan.Step
		want string
	}{
		{"a name without a kind", plan.Step{Name: "market", Do: nothing}, `add step "market": the name has no slash, want kind/name`},
		{"a step that does nothing", plan.Step{Name: "spire/market"}, "add step spire/market: it has no Do"},
		{"a name twice", plan.Step{Name: "cluster/market", Do: nothing}, "add step cluster/market: the plan has a step of that name"},
		{"an unknown dependency", plan.Step{Name: "spire/market", Do: nothing, After: []plan.ID{"cluster/broker"}},
			"add step spire/market: it comes after cluster/broker, which is not in the plan"},
		{"itself as dependency", plan.Step{Name: "spire/market", Do: nothing, After: []plan.ID{"spire/market"}},
			"add step spire/market: it comes after spire/market, which is not in the plan"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := planOf(t, plan.Step{Name: "cluster/market", Do: nothing})
			if err := p.Add(tt.step); err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if p.Len() != 1 {
				t.Errorf("the plan has %d steps after the refusal, want 1", p.Len())
			}
		})
	}
}

// TestAddNamesEachDependencyOnce: two reasons to come after a step are one.
func TestAddNamesEachDependencyOnce(t *testing.T) {
	p := planOf(t, lasting("runs/a", 0), lasting("runs/b", 0), lasting("verify/a", 0, "runs/b", "runs/a", "runs/b"))
	if got, want := p.Steps()[2].After, []plan.ID{"runs/b", "runs/a"}; !slices.Equal(got, want) {
		t.Errorf("it comes after %v, want %v", got, want)
	}
}

func TestRunDoesIndependentStepsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := planOf(t,
			lasting("cluster/a", 10*time.Second), lasting("cluster/b", 20*time.Second),
			lasting("spire/a", 5*time.Second, "cluster/a"), lasting("spire/b", 5*time.Second, "cluster/b"),
			lasting("federate/ab", time.Second, "spire/a", "spire/b"))
		began := time.Now()
		var ended []string
		err := plan.Runner{Observe: func(e plan.Event) {
			if e.State != plan.Started {
				ended = append(ended, string(e.Step))
			}
		}}.Run(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 26*time.Second {
			t.Errorf("took %s, want 26s: the longest path", took)
		}
		want := []string{"cluster/a", "spire/a", "cluster/b", "spire/b", "federate/ab"}
		if !slices.Equal(ended, want) {
			t.Errorf("ended %v, want %v", ended, want)
		}
	})
}

func TestRunKeepsToItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := planOf(t, lasting("build/a", 3*time.Second), lasting("build/b", time.Second), lasting("build/c", time.Second), lasting("build/d", time.Second))
		began := time.Now()
		if err := (plan.Runner{Limit: 2}).Run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %s, want 3s: b, c and d in turn next to a", took)
		}
	})
}

func TestRunTellsWhatChanged(t *testing.T) {
	var states, ended []string
	p := planOf(t,
		plan.Step{Name: "a/changed", Do: func(ctx context.Context) error {
			plan.Note(ctx, "waiting for the API")
			plan.Remark(ctx, "goes on without it")
			plan.Did(ctx)
			return nil
		}},
		plan.Step{Name: "b/unchanged", Do: nothing, After: []plan.ID{"a/changed"}})
	err := plan.Runner{Observe: func(e plan.Event) {
		states = append(states, fmt.Sprintf("%d/%d %s %s %s", e.Number, e.Of, e.Step, e.State, e.Note))
		if e.State.Ended() {
			ended = append(ended, fmt.Sprintf("%s %s", e.Step, e.State))
		}
	}}.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	want := "1/2 a/changed started \n1/2 a/changed noted waiting for the API\n1/2 a/changed remarked goes on without it\n1/2 a/changed changed \n" +
		"2/2 b/unchanged started \n2/2 b/unchanged unchanged "
	if got := strings.Join(states, "\n"); got != want {
		t.Errorf("events:\n%s\nwant:\n%s", got, want)
	}
	if got, want := strings.Join(ended, ", "), "a/changed changed, b/unchanged unchanged"; got != want {
		t.Errorf("ended: %s, want %s", got, want)
	}
}

// When one step fails the others are told to stop, no new one starts, and the
// error names the step that failed and not those that were only cancelled.
func TestRunStopsAtAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reached bool
		p := planOf(t,
			plan.Step{Name: "cluster/a", Do: func(context.Context) error { return errors.New("no space left") }},
			plan.Step{Name: "cluster/b", Do: func(ctx context.Context) error {
				<-ctx.Done()
				return fmt.Errorf("create: %w", ctx.Err())
			}},
			plan.Step{Name: "spire/a", After: []plan.ID{"cluster/a"}, Do: func(context.Context) error {
				reached = true
				return nil
			}})
		states := map[plan.ID]plan.State{}
		err := plan.Runner{Observe: func(e plan.Event) { states[e.Step] = e.State }}.Run(t.Context(), p)
		if err == nil || err.Error() != "cluster/a: no space left" {
			t.Errorf("error %q, want the one of cluster/a alone", err)
		}
		if want := map[plan.ID]plan.State{"cluster/a": plan.Failed, "cluster/b": plan.Cancelled}; !maps.Equal(states, want) {
			t.Errorf("the steps ended as %v, want %v", states, want)
		}
		if reached {
			t.Error("a step ran although the one that it comes after failed")
		}
	})
}

// What a cancelled step could not clean up is told, without the cancellation, also
// when it was the run that ended.
func TestRunTellsWhatACancelledStepLeft(t *testing.T) {
	errInterrupted := errors.New("interrupted")
	leaves := func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("create cluster b: %w", errors.Join(context.Cause(ctx), errors.New("kind still works")))
	}
	for name, tt := range map[string]struct {
		first func(cancel func(error)) error
		want  string
	}{
		"by a sibling":     {func(func(error)) error { return errors.New("no space left") }, "cluster/a: no space left\ncluster/b: create cluster b: kind still works"},
		"by who called it": {func(cancel func(error)) error { cancel(errInterrupted); return nil }, "cluster/b: create cluster b: interrupted\nkind still works"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				p := planOf(t,
					plan.Step{Name: "cluster/a", Do: func(context.Context) error { return tt.first(cancel) }},
					plan.Step{Name: "cluster/b", Do: leaves})
				states := map[plan.ID]plan.State{}
				err := plan.Runner{Observe: func(e plan.Event) { states[e.Step] = e.State }}.Run(ctx, p)
				if err == nil || err.Error() != tt.want {
					t.Errorf("error %q, want %q", err, tt.want)
				}
				if states["cluster/b"] != plan.Failed {
					t.Errorf("cluster/b ended as %s, want %s", states["cluster/b"], plan.Failed)
				}
			})
		})
	}
}

func TestUncancelled(t *testing.T) {
	cause, left, other := errors.New("interrupted"), errors.New("kind still works"), errors.New("no room")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"nothing":                     {nil, ""},
		"the cause":                   {cause, ""},
		"the context's error":         {fmt.Errorf("list pods: %w", context.Canceled), ""},
		"another error":               {other, "no room"},
		"a wait and what it saw last": {fmt.Errorf("wait: %w; last seen: %w", cause, other), ""},
		"both, side by side":          {errors.Join(context.Canceled, cause), ""},
		"a clean-up next to it":       {errors.Join(cause, left), "kind still works"},
		"below words":                 {fmt.Errorf("a: %w", fmt.Errorf("b: %w", errors.Join(cause, left))), "a: b: kind still works"},
		"below words on both sides":   {fmt.Errorf("a (%w)", errors.Join(cause, left)), "kind still works"},
		"two steps":                   {errors.Join(fmt.Errorf("a: %w", errors.Join(cause, left)), fmt.Errorf("b: %w", cause), other), "a: kind still works\nno room"},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan.Uncancelled(ended, tt.err)
			if text := fmt.Sprint(got); got != nil && text != tt.want || got == nil && tt.want != "" {
				t.Errorf("left is %q, want %q", text, tt.want)
			}
			if strings.Contains(tt.want, "kind") && !errors.Is(got, left) {
				t.Errorf("%v does not wrap what is left", got)
			}
		})
	}
	if got := plan.Uncancelled(t.Context(), context.Canceled); !errors.Is(got, context.Canceled) {
		t.Errorf("left is %v while the context goes on", got)
	}
}

func TestRunJoinsIndependentFailures(t *testing.T) {
	fail := func(text string) func(context.Context) error {
		return func(context.Context) error { return errors.New(text) }
	}
	p := planOf(t, plan.Step{Name: "cluster/a", Do: fail("disk full")}, plan.Step{Name: "cluster/b", Do: fail("port taken")})
	err := plan.Runner{}.Run(t.Context(), p)
	for _, want := range []string{"cluster/a: disk full", "cluster/b: port taken"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	errInterrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	p := planOf(t,
		plan.Step{Name: "cluster/a", Do: func(context.Context) error { cancel(errInterrupted); return nil }},
		plan.Step{Name: "cluster/b", Do: func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("create: %w", context.Cause(ctx))
		}},
		plan.Step{Name: "spire/a", Do: nothing, After: []plan.ID{"cluster/a"}})
	states := map[plan.ID]plan.State{}
	err := plan.Runner{Observe: func(e plan.Event) { states[e.Step] = e.State }}.Run(ctx, p)
	if !errors.Is(err, errInterrupted) {
		t.Errorf("error %v, want the cause of the cancel", err)
	}
	if want := map[plan.ID]plan.State{"cluster/a": plan.Unchanged, "cluster/b": plan.Cancelled}; !maps.Equal(states, want) {
		t.Errorf("the steps ended as %v, want %v", states, want)
	}
}

func planOf(t *testing.T, steps ...plan.Step) *plan.Plan {
	t.Helper()
	p := &plan.Plan{}
	for _, s := range steps {
		if err := p.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func lasting(name plan.ID, d time.Duration, after ...plan.ID) plan.Step {
	return plan.Step{Name: name, After: after, Do: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}}
}

// TestThen: another plan follows as a whole, and is refused where a step has the name
// of one that is there.
func TestThen(t *testing.T) {
	p := planOf(t, lasting("survey/a", 0), lasting("network/a", 0, "survey/a"), lasting("hold/a", 0))
	next := planOf(t, lasting("images/a", 0), lasting("cluster/a", 0, "images/a"))
	if err := p.Then(next); err != nil {
		t.Fatal(err)
	}
	after := map[plan.ID][]plan.ID{}
	for _, s := range p.Steps() {
		after[s.Name] = s.After
	}
	want := map[plan.ID][]plan.ID{
		"survey/a": nil, "network/a": {"survey/a"}, "hold/a": nil, "images/a": {"network/a", "hold/a"}, "cluster/a": {"images/a"},
	}
	if !maps.EqualFunc(after, want, slices.Equal[[]plan.ID]) {
		t.Errorf("steps come after %v, want %v", after, want)
	}
	if got := next.Steps()[0].After; got != nil {
		t.Errorf("the other plan has changed: its first step comes after %v", got)
	}
	if err := p.Then(next); err == nil || err.Error() != "add step images/a: the plan has a step of that name" {
		t.Errorf("twice: error %v", err)
	}
}

// TestPlansCountAsOne: what was run before and what is still to come are in the
// numbers that an observer sees.
func TestPlansCountAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		r := plan.Runner{Before: 2, Of: 9, Observe: func(e plan.Event) {
			seen = append(seen, fmt.Sprintf("%s %s %d/%d", e.Step, e.State, e.Number, e.Of))
		}}
		if err := r.Run(t.Context(), planOf(t, lasting("a/a", 0), lasting("b/b", 0, "a/a"))); err != nil {
			t.Fatal(err)
		}
		want := []string{"a/a started 3/9", "a/a unchanged 3/9", "b/b started 4/9", "b/b unchanged 4/9"}
		if !slices.Equal(seen, want) {
			t.Errorf("seen %v, want %v", seen, want)
		}
	})
}
