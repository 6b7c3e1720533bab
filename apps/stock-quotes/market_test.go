package main

import (
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/stock-quotes/quotes"
	"google.golang.org/protobuf/proto"
)

// ticking is a clock that a test moves.
type ticking struct{ time.Time }

func (c *ticking) now() time.Time          { return c.Time }
func (c *ticking) advance(d time.Duration) { c.Time = c.Add(d) }

func newTicking() *ticking { return &ticking{time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)} }

func grid(m *market) *quotes.QuotesResponse { return &quotes.QuotesResponse{Quotes: m.quotes()} }

func TestMarketFollowsItsSeed(t *testing.T) {
	walk := func(seed uint64) *quotes.QuotesResponse {
		clock := newTicking()
		m := newMarket(seed, clock.now)
		for range 100 {
			clock.advance(time.Second)
			m.quotes()
		}
		return grid(m)
	}
	if !proto.Equal(walk(7), walk(7)) {
		t.Error("the same seed gave different prices")
	}
	if proto.Equal(walk(7), walk(8)) {
		t.Error("different seeds gave the same prices")
	}
}

func TestMarketMovesOnceInAPauseHoweverManyLook(t *testing.T) {
	clock := newTicking()
	m := newMarket(1, clock.now)
	opening := grid(m)
	if len(opening.GetQuotes()) != 12 {
		t.Fatalf("%d stocks, want 12", len(opening.GetQuotes()))
	}
	clock.advance(pause - 1)
	if !proto.Equal(grid(m), opening) {
		t.Error("the market moved within its pause")
	}
	clock.advance(1)
	first := grid(m)
	if proto.Equal(first, opening) {
		t.Error("the market stands still")
	}
	if !proto.Equal(grid(m), first) {
		t.Error("a second look in the same moment moved the market")
	}
}

func TestEachMoveIsSmallAndAccountedFor(t *testing.T) {
	clock := newTicking()
	m := newMarket(3, clock.now)
	before := grid(m).GetQuotes()
	opening := before
	for range 5000 {
		clock.advance(time.Second)
		after, moved := m.quotes(), 0
		for i, q := range after {
			step := q.GetPriceCents() - before[i].GetPriceCents()
			switch {
			case q.GetPriceCents() < 1:
				t.Fatalf("%s costs %d cents", q.GetSymbol(), q.GetPriceCents())
			case max(step, -step) > max(1, before[i].GetPriceCents()/100):
				t.Fatalf("%s moved by %d from %d cents, more than a percent", q.GetSymbol(), step, before[i].GetPriceCents())
			case q.GetChangeCents() != q.GetPriceCents()-opening[i].GetPriceCents():
				t.Fatalf("%s: change is %d, want it from %d to %d", q.GetSymbol(), q.GetChangeCents(), opening[i].GetPriceCents(), q.GetPriceCents())
			case (step != 0) != q.GetMoved().AsTime().Equal(clock.now()):
				t.Fatalf("%s moved by %d, but its time says %s at %s", q.GetSymbol(), step, q.GetMoved().AsTime(), clock.now())
			}
			if step != 0 {
				moved++
			}
		}
		if moved == 0 {
			t.Fatal("the grid stands still")
		}
		before = after
	}
}

func TestAPriceOfOneCentRises(t *testing.T) {
	clock := newTicking()
	m := newMarket(3, clock.now)
	m.grid = []stock{{symbol: "ZERO", opening: 1, price: 1}}
	for range 50 {
		clock.advance(time.Second)
		if price := m.quotes()[0].GetPriceCents(); price < 1 {
			t.Fatalf("the price is %d", price)
		}
	}
}
