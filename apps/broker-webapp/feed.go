package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
)

// every is the least time between the starts of two calls.
const every = time.Second

// feed is the newest state of the quotes. A look at it makes a call if the
// last one is a second old, and everybody who looks meanwhile shares that
// call: the server is asked once a second however many watch, and never when
// nobody does.
type feed struct {
	call func(context.Context) (answer, error) // bounded; never run twice at a time
	now  func() time.Time
	log  *slog.Logger

	mu     sync.Mutex
	state  state
	begun  time.Time     // start of the last call
	flight chan struct{} // closed when the running call ends; nil when none runs
}

// state is what the feed knows. What the last good call said stays when later
// ones fail.
type state struct {
	answer  answer
	changed time.Time // when the quotes last changed; zero before the first
	err     error     // of the last call
	since   time.Time // of the first failed call after the last good one
	next    time.Time // when a look makes the next call
}

func newFeed(call func(context.Context) (answer, error), now func() time.Time, log *slog.Logger) *feed {
	return &feed{call: call, now: now, log: log}
}

// look returns a state that is at most a second old, or, when ctx ends
// first, the one there is. The call that it makes may outlive ctx.
func (f *feed) look(ctx context.Context) state {
	f.mu.Lock()
	if now := f.now(); f.flight == nil && now.Sub(f.begun) >= every {
		f.begun, f.state.next = now, now.Add(every)
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

func (f *feed) refresh(ctx context.Context) {
	got, err := f.call(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle(ctx, got, err)
	close(f.flight)
	f.flight = nil
}

func (f *feed) settle(ctx context.Context, got answer, err error) {
	now, was := f.now(), f.state.err
	f.state.err = err
	switch {
	case err == nil:
		if was != nil {
			f.log.InfoContext(ctx, "quotes are back", "after", now.Sub(f.state.since).Round(time.Millisecond).String())
		}
		if !slices.Equal(got.quotes, f.state.answer.quotes) {
			f.state.changed = now
		}
		f.state.answer, f.state.since = got, time.Time{}
	case was == nil:
		f.state.since = f.begun
		fallthrough
	case classify(was) != classify(err):
		f.log.WarnContext(ctx, "no quotes", "class", string(classify(err)), "error", err)
	}
}

// peer returns who gave the last good answer, nil before the first.
func (s state) peer() *identity.Peer {
	if s.answer.peer.ID.IsZero() {
		return nil
	}
	return &s.answer.peer
}
