// Package feed makes a call once a second while somebody looks, however many
// look, and never while nobody does. It refuses to know what is called.
package feed

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
)

// every is the least time between the starts of two calls.
const every = time.Second

// Feed is the newest answer of a call. A look at it makes the call if the last
// one is a second old, and everybody who looks meanwhile shares that call.
type Feed[T any] struct {
	name string
	call func(context.Context) (T, error) // bounded; never run twice at a time
	now  func() time.Time
	log  *slog.Logger

	mu     sync.Mutex
	state  State[T]
	begun  time.Time     // start of the last call
	flight chan struct{} // closed when the running call ends; nil when none runs
}

// State is what a feed knows. What the last good call said stays when later
// ones fail.
type State[T any] struct {
	Answer T
	Err    error     // of the last call
	Since  time.Time // of the first failed call after the last good one
	Next   time.Time // when a look makes the next call; zero before the first look
}

// New returns a feed of call, which must end by itself. name is what the log
// calls it.
func New[T any](name string, call func(context.Context) (T, error), now func() time.Time, log *slog.Logger) *Feed[T] {
	return &Feed[T]{name: name, call: call, now: now, log: log}
}

// Look returns a state that is at most a second old, or, when ctx ends
// first, the one there is. The call that it makes may outlive ctx.
func (f *Feed[T]) Look(ctx context.Context) State[T] {
	f.mu.Lock()
	if now := f.now(); f.flight == nil && now.Sub(f.begun) >= every {
		f.begun, f.state.Next = now, now.Add(every)
		f.flight = make(chan struct{})
		go f.refresh(context.WithoutCancel(ctx))
	}
	flight := f.flight
	f.mu.Unlock()

	if flight != nil {
		select {
		case <-flight:
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

func (f *Feed[T]) refresh(ctx context.Context) {
	got, err := f.call(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle(ctx, got, err)
	close(f.flight)
	f.flight = nil
}

func (f *Feed[T]) settle(ctx context.Context, got T, err error) {
	was := f.state.Err
	f.state.Err = err
	switch {
	case err == nil:
		if was != nil {
			f.log.InfoContext(ctx, "call succeeds again", "call", f.name,
				"after", f.now().Sub(f.state.Since).Round(time.Millisecond).String())
		}
		f.state.Answer, f.state.Since = got, time.Time{}
	case was == nil:
		f.state.Since = f.begun
		fallthrough
	case diagnosis.Classify(was) != diagnosis.Classify(err):
		f.log.WarnContext(ctx, "call fails", "call", f.name, "class", string(diagnosis.Classify(err)), "error", err)
	}
}
