package trial

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// timerEvery is how often it is measured how late a timer fires.
	timerEvery = 100 * time.Millisecond
	// callEverySecond is how often a server is asked for what changes nothing, and
	// callAtMost how long an answer is waited for: longer than any slack that is judged.
	callEverySecond = time.Second
	callAtMost      = MaxSlack + 5*time.Second
)

// measureSlack measures by how much the machine is late until ctx ends.
func (t *Trial) measureSlack(ctx context.Context) {
	called, caller := t.Pair()
	var all sync.WaitGroup
	all.Go(func() { t.timers(ctx) })
	for _, d := range []Domain{called, caller} {
		all.Go(func() { t.answers(ctx, d) })
	}
	all.Wait()
}

// timers measures how late timers fire that have nothing to wait for.
func (t *Trial) timers(ctx context.Context) {
	for {
		due := time.Now().Add(timerEvery)
		select {
		case <-ctx.Done():
			return
		case <-time.After(timerEvery):
			t.slow(func(s *Slack) { s.Timer = max(s.Timer, time.Since(due)) })
		}
	}
}

// answers measures how long a server takes to answer. What it takes while something is
// broken, and the first answer after one that failed, are not the machine's.
func (t *Trial) answers(ctx context.Context, d Domain) {
	tick := time.NewTicker(callEverySecond)
	defer tick.Stop()
	steady := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		well := !t.broken()
		began := time.Now()
		within, cancel := context.WithTimeout(ctx, callAtMost)
		_, err := d.Bundle(within)
		took, late := time.Since(began), within.Err() != nil
		cancel()
		well = well && !t.broken()
		if steady && well && (err == nil || late) && ctx.Err() == nil {
			t.slow(func(s *Slack) { s.Call = max(s.Call, took) })
		}
		steady = err == nil && well
	}
}

// broken tells whether a fault is there that is not healed.
func (t *Trial) broken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.record.Windows, func(w Window) bool { return w.Healed.IsZero() })
}

func (t *Trial) slow(note func(*Slack)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	note(&t.record.Slack)
}

// control has a newcomer come and be registered while all is well, and returns by how much
// later than its bound its identity came.
func (s *Session) control(ctx context.Context) (late time.Duration, err error) {
	t := &Trial{session: s, pair: s.pairs[0], operator: honest{}, record: Record{Scenario: "control"}}
	called, _ := t.Pair()
	guest, err := called.Newcomer(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, guest.Leave(context.WithoutCancel(ctx))) }()
	if err := t.WaitFor(ctx, guest.Runs()); err != nil {
		return 0, err
	}
	if err := guest.Register(ctx, nil); err != nil {
		return 0, err
	}
	registered := time.Now()
	if err := t.WaitFor(ctx, guest.HasIdentity()); err != nil {
		return 0, err
	}
	return max(0, time.Since(registered)-Reconciled().Within), nil
}
