package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// errFull ends a stream by itself.
var errFull = fmt.Errorf("the record is full: %d calls, no more are made", traffic.MaxCalls)

type stream struct {
	caller *caller
	now    func() time.Time
	halt   chan struct{}
	// stop lets the call under way come to its end, cancel does not.
	stop, cancel func()
	done         chan struct{} // closed when there is nothing more to record

	mu     sync.Mutex
	record traffic.Stream
}

func newStream(order traffic.Order, holder identity.Holder, now func() time.Time) (*stream, error) {
	caller, err := newCaller(order, holder, now)
	if err != nil {
		return nil, err
	}
	s := &stream{caller: caller, now: now, halt: make(chan struct{}), done: make(chan struct{})}
	s.stop = sync.OnceFunc(func() { close(s.halt) })
	s.record = traffic.Stream{Order: order, Began: now().UTC(), Calls: []traffic.Call{}}
	return s, nil
}

func (s *stream) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = func() { s.stop(); cancel() }
	go func() {
		s.run(ctx)
		cancel()
		s.mu.Lock()
		s.record.Ended = s.since(s.now())
		s.mu.Unlock()
		close(s.done)
	}()
}

func (s *stream) run(ctx context.Context) {
	defer s.caller.close()
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		select {
		case <-s.halt:
			return
		case <-pace.C:
		}
		pace.Reset(s.caller.order.Every) // a call that takes longer holds up the next
		if !s.call(ctx) {
			return
		}
	}
}

// call makes and records one call, and returns false if it was the last one that
// the record has room for.
func (s *stream) call(ctx context.Context) bool {
	begun := s.now()
	call := s.caller.make(ctx)
	call.At, call.Took = s.since(begun), s.now().Sub(begun)
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Number = len(s.record.Calls) + 1
	full := call.Number >= traffic.MaxCalls
	if full {
		call.Detail = detail(call.Detail, errFull)
	}
	s.record.Calls = append(s.record.Calls, call)
	return !full
}

// since returns now by the clock that the record began with: one that is set
// meanwhile would put calls into another order.
func (s *stream) since(now time.Time) time.Time { return s.record.Began.Add(now.Sub(s.record.Began)) }

func (s *stream) soFar() traffic.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.record
	record.Calls = slices.Clone(record.Calls)
	return record
}

func detail(said string, err error) string {
	if said == "" {
		return err.Error()
	}
	return errors.Join(errors.New(said), err).Error()
}
