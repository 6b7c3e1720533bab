package lab_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// TestOneChangeAtATime has other commands come while an up is under way.
func TestOneChangeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		second := *d
		tried := false
		d.Observe = func(e plan.Event) {
			if e.Step != "cluster/market" || e.State != plan.Started {
				return
			}
			tried = true
			const want = "lab quotes is being changed by another command: 'fedlab up', process 4711"
			for command, do := range map[string]func() error{
				"up":   func() error { return second.Up(t.Context(), quotes(t)) },
				"down": func() error { _, err := second.Down(t.Context(), "quotes"); return err },
			} {
				var held *lab.HeldError
				if err := do(); !errors.As(err, &held) || err.Error() != want {
					t.Errorf("%s: error %v, want %s", command, err, want)
				}
			}
			if _, err := second.Down(t.Context(), "other"); err != nil {
				t.Errorf("down of another lab: %v", err)
			}
		}
		if err := w.up(t, d, quotes(t)); err != nil || !tried {
			t.Fatalf("tried %t, error %v", tried, err)
		}
		if err := w.up(t, &second, quotes(t)); err != nil {
			t.Errorf("when the first is done: %v", err)
		}
	})
}

func TestLockAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		w.fault = once("Networks.Ensure", fail)
		if err := w.up(t, d, quotes(t)); !errors.Is(err, errInjected) {
			t.Fatalf("error %v, want %v", err, errInjected)
		}
		if _, err := w.down(t, d); err != nil {
			t.Error(err)
		}
	})
}

func TestLockThatCannotBeMade(t *testing.T) {
	w := newWorld(t)
	w.noLocks = errors.New("ask docker engine who it is: no such host")
	want := "lock lab quotes: ask docker engine who it is: no such host"
	if err := w.driver(t).Up(t.Context(), quotes(t)); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
