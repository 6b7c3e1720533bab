package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
)

var errNo = errors.New("no")

// scripted is the call of a feed: it takes some time and then says what the
// test wants.
type scripted struct {
	takes time.Duration
	fails bool
	count int
}

func (s *scripted) call(ctx context.Context) (answer, error) {
	s.count++
	count := s.count
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	if s.fails {
		return answer{}, errNo
	}
	return answer{quotes: []quote{{Symbol: "ACRN", PriceCents: int64(count)}}}, nil
}

// pass lets time go by, which in a bubble takes none.
func pass(d time.Duration) { <-time.After(d) }

func (s *scripted) feed() *feed { return newFeed(s.call, time.Now, slog.New(slog.DiscardHandler)) }

func TestManyWhoLookShareOneCallASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: 10 * time.Millisecond}
		f := s.feed()
		var watchers sync.WaitGroup
		for i := range 20 {
			watchers.Go(func() {
				pass(time.Duration(i) * 7 * time.Millisecond)
				for range 100 { // for ten seconds
					if got := f.look(t.Context()); got.err != nil || len(got.answer.quotes) == 0 {
						t.Errorf("state is %+v", got)
					}
					pass(100 * time.Millisecond)
				}
			})
		}
		watchers.Wait()
		if s.count < 9 || s.count > 11 {
			t.Errorf("%d calls in ten seconds, want one a second", s.count)
		}
	})
}

func TestNobodyLooksNobodyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		f := s.feed()
		f.look(t.Context())
		pass(time.Hour)
		synctest.Wait()
		if s.count != 1 {
			t.Errorf("%d calls, want only the one that was looked for", s.count)
		}
		if got := f.look(t.Context()); got.answer.quotes[0].PriceCents != 2 {
			t.Errorf("after an hour the old quotes come back: %+v", got.answer.quotes)
		}
	})
}

func TestLookTellsWhenToLookAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: 30 * time.Millisecond}
		f := s.feed()
		for want := range 5 {
			got := f.look(t.Context())
			if count := got.answer.quotes[0].PriceCents; count != int64(want+1) {
				t.Fatalf("look %d found the quotes of call %d", want+1, count)
			}
			pass(time.Until(got.next))
		}
	})
}

func TestLookDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: callBound}
		f := s.feed()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if got := f.look(ctx); len(got.answer.quotes) != 0 || time.Since(begun) != 100*time.Millisecond {
			t.Errorf("state %+v after %s", got, time.Since(begun))
		}
		// The call goes on for those who stay.
		if got := f.look(t.Context()); len(got.answer.quotes) != 1 || s.count != 1 {
			t.Errorf("state %+v after %d calls", got, s.count)
		}
	})
}

func TestTheLastGoodQuotesStayWhenCallsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log apptest.Log
		s := &scripted{}
		f := newFeed(s.call, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
		good := f.look(t.Context())
		if good.err != nil || !good.changed.Equal(time.Now()) {
			t.Fatalf("state %+v", good)
		}

		s.fails = true
		pass(every)
		broke := time.Now()
		for range 3 {
			got := f.look(t.Context())
			if !errors.Is(got.err, errNo) || got.answer.quotes[0] != good.answer.quotes[0] || got.changed != good.changed {
				t.Errorf("state %+v, want the quotes of before", got)
			}
			if got.since != broke {
				t.Errorf("broken since %s, want %s", got.since, broke)
			}
			pass(every)
		}
		if count := log.Count("no quotes"); count != 1 {
			t.Errorf("%d lines say that there are no quotes, want one for one reason", count)
		}

		s.fails = false
		if got := f.look(t.Context()); got.err != nil || !got.since.IsZero() || got.changed != time.Now() {
			t.Errorf("state %+v, want new quotes", got)
		}
		if log.Count("quotes are back") != 1 {
			t.Error("no line says that the quotes are back")
		}
	})
}
