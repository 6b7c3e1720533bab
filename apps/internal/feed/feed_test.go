package feed_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/feed"
)

var errNo = errors.New("no")

// scripted is the call of a feed: it takes some time and then says what the
// test wants.
type scripted struct {
	takes time.Duration
	fails bool
	count int
}

func (s *scripted) call(ctx context.Context) (int, error) {
	s.count++
	count := s.count
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if s.fails {
		return 0, errNo
	}
	return count, nil
}

// pass lets time go by, which in a bubble takes none.
func pass(d time.Duration) { <-time.After(d) }

func (s *scripted) feed() *feed.Feed[int] {
	return feed.New("count", s.call, time.Now, slog.New(slog.DiscardHandler))
}

func TestManyWhoLookShareOneCallASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: 10 * time.Millisecond}
		f := s.feed()
		var watchers sync.WaitGroup
		for i := range 20 {
			watchers.Go(func() {
				pass(time.Duration(i) * 7 * time.Millisecond)
				for range 100 { // for ten seconds
					if got := f.Look(t.Context()); got.Err != nil || got.Answer == 0 {
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
		f.Look(t.Context())
		pass(time.Hour)
		synctest.Wait()
		if s.count != 1 {
			t.Errorf("%d calls, want only the one that was looked for", s.count)
		}
		if got := f.Look(t.Context()); got.Answer != 2 {
			t.Errorf("after an hour the old answer comes back: %+v", got)
		}
	})
}

func TestLookTellsWhenToLookAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: 30 * time.Millisecond}
		f := s.feed()
		for want := range 5 {
			got := f.Look(t.Context())
			if got.Answer != want+1 {
				t.Fatalf("look %d found the answer of call %d", want+1, got.Answer)
			}
			pass(time.Until(got.Next))
		}
	})
}

func TestLookDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{takes: 3 * time.Second}
		f := s.feed()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if got := f.Look(ctx); got.Answer != 0 || time.Since(begun) != 100*time.Millisecond {
			t.Errorf("state %+v after %s", got, time.Since(begun))
		}
		// The call goes on for those who stay.
		if got := f.Look(t.Context()); got.Answer != 1 || s.count != 1 {
			t.Errorf("state %+v after %d calls", got, s.count)
		}
	})
}

func TestTheLastGoodAnswerStaysWhenCallsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log apptest.Log
		s := &scripted{}
		f := feed.New("count", s.call, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
		good := f.Look(t.Context())
		if good.Err != nil || good.Answer != 1 {
			t.Fatalf("state %+v", good)
		}

		s.fails = true
		pass(time.Second)
		broke := time.Now()
		for range 3 {
			got := f.Look(t.Context())
			if !errors.Is(got.Err, errNo) || got.Answer != good.Answer {
				t.Errorf("state %+v, want the answer of before", got)
			}
			if got.Since != broke {
				t.Errorf("broken since %s, want %s", got.Since, broke)
			}
			pass(time.Second)
		}
		if count := log.Count("call fails"); count != 1 {
			t.Errorf("%d lines say that calls fail, want one for one reason", count)
		}

		s.fails = false
		if got := f.Look(t.Context()); got.Err != nil || !got.Since.IsZero() || got.Answer != 5 {
			t.Errorf("state %+v, want the fifth answer", got)
		}
		if log.Count("call succeeds again") != 1 {
			t.Error("no line says that calls succeed again")
		}
	})
}
