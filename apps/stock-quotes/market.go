package main

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/apps/stock-quotes/quotes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// pause is the least time between two moves of the market, however many ask.
const pause = 500 * time.Millisecond

// market holds stocks of companies that do not exist. Prices move when they
// are looked at, so that a market nobody watches costs nothing.
type market struct {
	now  func() time.Time
	mu   sync.Mutex
	rand *rand.Rand
	last time.Time // when the market last moved
	grid []stock   // by symbol
}

// stock is one line of the grid, in cents.
type stock struct {
	symbol, company string
	opening, price  int64
	moved           time.Time
}

// newMarket opens a market. Its prices follow from seed and from how often
// it moved alone.
func newMarket(seed uint64, now func() time.Time) *market {
	m := &market{now: now, rand: rand.New(rand.NewPCG(seed, 0)), last: now()}
	for _, s := range []stock{
		{symbol: "ACRN", company: "Acorn Foods", opening: 4210},
		{symbol: "BREZ", company: "Breeze Energy", opening: 11875},
		{symbol: "COBL", company: "Cobalt Mining", opening: 2690},
		{symbol: "DRFT", company: "Driftwood Paper", opening: 1845},
		{symbol: "EMBR", company: "Ember Steel", opening: 7730},
		{symbol: "FJRD", company: "Fjord Shipping", opening: 15420},
		{symbol: "GLNT", company: "Glint Optics", opening: 31260},
		{symbol: "HLCN", company: "Halcyon Air", opening: 5615},
		{symbol: "KILN", company: "Kiln Ceramics", opening: 980},
		{symbol: "LOOM", company: "Loom Textiles", opening: 3375},
		{symbol: "MRSH", company: "Marsh Rail", opening: 8840},
		{symbol: "QRTZ", company: "Quartz Watches", opening: 22105},
	} {
		s.price, s.moved = s.opening, m.last
		m.grid = append(m.grid, s)
	}
	return m
}

// quotes returns the grid after the market had its chance to move.
func (m *market) quotes() []*quotes.Quote {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.now(); now.Sub(m.last) >= pause {
		m.last = now
		m.move()
	}
	answer := make([]*quotes.Quote, 0, len(m.grid))
	for _, s := range m.grid {
		answer = append(answer, &quotes.Quote{
			Symbol:      s.symbol,
			Company:     s.company,
			PriceCents:  s.price,
			ChangeCents: s.price - s.opening,
			Moved:       timestamppb.New(s.moved),
		})
	}
	return answer
}

// move is one step of the random walk: one stock moves for certain, so that
// the grid never stands still, each other two times out of three, and none
// by more than a percent or below one cent.
func (m *market) move() {
	certain := m.rand.IntN(len(m.grid))
	for i := range m.grid {
		s := &m.grid[i]
		if i != certain && m.rand.IntN(3) == 0 {
			continue
		}
		step := 1 + m.rand.Int64N(max(1, s.price/100))
		if m.rand.IntN(2) == 0 {
			step = -min(step, s.price-1)
		}
		if step == 0 {
			step = 1
		}
		s.price += step
		s.moved = m.last
	}
}
