package report

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// axis is the one time axis of a picture.
type axis struct {
	from time.Time
	span time.Duration
	// left and right are where the span begins and ends.
	left, right float64
}

// axisOf spans a record and all that happened in it: a call or a look may be
// later than the end of the run.
func axisOf(r trial.Record, left, right float64) axis {
	last := r.Ended
	reach := func(t time.Time) {
		if t.After(last) {
			last = t
		}
	}
	for _, s := range r.Steps {
		reach(s.Began.Add(s.Took))
	}
	for _, w := range r.Windows {
		for _, t := range []time.Time{w.Injected, w.Felt, w.Recovered, w.Healed} {
			reach(t)
		}
	}
	for _, m := range r.Marks {
		reach(m.At)
	}
	for _, m := range r.Measures {
		reach(m.At.Add(m.Took))
	}
	for _, h := range r.Holdings {
		reach(h.At)
	}
	for _, s := range r.Streams {
		for _, c := range s.Calls {
			reach(c.At)
		}
	}
	return axis{r.Began, max(last.Sub(r.Began), time.Second), left, right}
}

// x is where a time is; what is outside of the span is at its edge.
func (a axis) x(t time.Time) float64 {
	share := float64(t.Sub(a.from)) / float64(a.span)
	return a.left + min(max(share, 0), 1)*(a.right-a.left)
}

// ticks returns the round times from 0 to span, at most as many as told.
func ticks(span time.Duration, most int) []time.Duration {
	step := time.Millisecond
	for i := 0; int(span/step) >= most; i++ {
		step = roundStep(i)
	}
	all := make([]time.Duration, 0, most)
	for i := range int(span/step) + 1 { // counted, since a sum of steps may overflow
		all = append(all, time.Duration(i)*step)
	}
	return all
}

// roundStep is the i-th of the steps that people count seconds in: 1, 2 and 5 of
// a power of ten.
func roundStep(i int) time.Duration {
	return time.Duration([]float64{1, 2, 5}[i%3] * math.Pow10(i/3) * float64(time.Millisecond))
}

// bin is the calls of a few pixels.
type bin struct {
	x       float64
	outcome traffic.Outcome
}

// bins returns what is drawn of calls, which are in order of time: a tick for
// each call, but at most one every width, which shows the worst of its calls.
func bins(calls []traffic.Call, a axis, width float64) []bin {
	var all []bin
	for _, c := range calls {
		x := a.x(c.At)
		switch n := len(all); {
		case n == 0 || x >= all[n-1].x+width:
			all = append(all, bin{x, c.Outcome})
		case severity(c.Outcome) > severity(all[n-1].outcome):
			all[n-1].outcome = c.Outcome
		}
	}
	return all
}

// severity orders outcomes as package traffic lists them, and one that it does
// not list after all of them.
func severity(o traffic.Outcome) int {
	if i := slices.Index(traffic.Outcomes(), o); i >= 0 {
		return i
	}
	return len(traffic.Outcomes())
}

// tally is how many calls ended in one way.
type tally struct {
	outcome traffic.Outcome
	calls   int
}

// tallies counts calls by their outcomes, in the order of severity.
func tallies(calls []traffic.Call) []tally {
	var all []tally
	for _, c := range calls {
		i := slices.IndexFunc(all, func(t tally) bool { return t.outcome == c.Outcome })
		if i < 0 {
			i = len(all)
			all = append(all, tally{outcome: c.Outcome})
		}
		all[i].calls++
	}
	slices.SortFunc(all, func(a, b tally) int {
		return cmp.Or(cmp.Compare(severity(a.outcome), severity(b.outcome)), cmp.Compare(a.outcome, b.outcome))
	})
	return all
}

// sample is what was found at a moment.
type sample struct {
	at   time.Time
	what string
}

// stretch is a time in which each sample found the same.
type stretch struct {
	what string
	// from and last are the first and the last sample that found it; until is the
	// first that did not, or last when none came.
	from, last, until time.Time
	count             int
}

// stretches joins samples that follow on one another, which are in order of time.
func stretches(samples []sample) []stretch {
	var all []stretch
	for _, s := range samples {
		if n := len(all); n > 0 {
			all[n-1].until = s.at
			if all[n-1].what == s.what {
				all[n-1].last = s.at
				all[n-1].count++
				continue
			}
		}
		all = append(all, stretch{s.what, s.at, s.at, s.at, 1})
	}
	return all
}

// held is when an authority was seen.
type held struct {
	kind federation.Kind
	id   string
	when []stretch
}

// authorities returns the authorities of looks at one bundle by their kind, those
// that were seen first first.
func authorities(looks []trial.Holding) []held {
	type key struct {
		kind federation.Kind
		id   string
	}
	var order []key
	seen := map[key][]int{} // the looks that saw it
	for i, look := range looks {
		note := func(kind federation.Kind, ids []string) {
			for _, id := range ids {
				k := key{kind, id}
				if seen[k] == nil {
					order = append(order, k)
				}
				if n := len(seen[k]); n == 0 || seen[k][n-1] != i {
					seen[k] = append(seen[k], i)
				}
			}
		}
		note(federation.X509, look.X509)
		note(federation.JWT, look.JWT)
	}
	slices.SortStableFunc(order, func(a, b key) int { return -cmp.Compare(a.kind, b.kind) }) // X.509, then JWT
	var all []held
	for _, k := range order {
		h := held{kind: k.kind, id: k.id}
		for n, i := range seen[k] {
			if n == 0 || seen[k][n-1] != i-1 {
				h.when = append(h.when, stretch{what: k.id, from: looks[i].At})
			}
			s := &h.when[len(h.when)-1]
			s.last, s.until, s.count = looks[i].At, looks[min(i+1, len(looks)-1)].At, s.count+1
		}
		all = append(all, h)
	}
	return all
}

// bundle is the looks at what one server has of one trust domain.
type bundle struct {
	holder, of string
	looks      []trial.Holding
}

// bundles sorts holdings by what they look at, and each one's by time. What a
// trust domain has of its own comes first, then what others hold of it, so that
// one sees it spread.
func bundles(holdings []trial.Holding) []bundle {
	var all []bundle
	var sources []string
	for _, h := range holdings {
		i := slices.IndexFunc(all, func(b bundle) bool { return b.holder == h.Holder && b.of == h.Of })
		if i < 0 {
			i = len(all)
			all = append(all, bundle{holder: h.Holder, of: h.Of})
			if !slices.Contains(sources, h.Of) {
				sources = append(sources, h.Of)
			}
		}
		all[i].looks = append(all[i].looks, h)
	}
	foreign := func(b bundle) int {
		if b.holder == b.of {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b bundle) int {
		return cmp.Or(cmp.Compare(slices.Index(sources, a.of), slices.Index(sources, b.of)), cmp.Compare(foreign(a), foreign(b)))
	})
	for _, b := range all {
		slices.SortStableFunc(b.looks, func(a, b trial.Holding) int { return a.At.Compare(b.At) })
	}
	return all
}

// label is the text of a line: it begins next to the line, or ends there.
type label struct {
	text     string
	x, width float64
	// left is set when the text is on the line's left, because there is no room on its right.
	left bool
	row  int
}

func (l label) span() (from, until float64) {
	if l.left {
		return l.x - l.width, l.x
	}
	return l.x, l.x + l.width
}

// plant puts labels into rows, the first at the top, so that none covers another;
// their lines go down from their row, and none goes through a label if that can be
// had. It sets left and row.
func plant(labels []label, right float64) (rows int) {
	var order, flipped []int
	for i := range labels {
		labels[i].left = labels[i].x+labels[i].width > right
		if labels[i].left {
			flipped = append(flipped, i)
		} else {
			order = append(order, i)
		}
	}
	// From the outside in: the line of a label that comes later then starts next to
	// those of the rows above it, and not below them.
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(labels[a].x, labels[b].x) })
	slices.SortStableFunc(flipped, func(a, b int) int { return cmp.Compare(labels[b].x, labels[a].x) })
	var planted []label
	for _, i := range append(order, flipped...) {
		l := &labels[i]
		for l.row = 0; l.row < rows && slices.ContainsFunc(planted, l.disturbs); l.row++ {
		}
		rows = max(rows, l.row+1)
		planted = append(planted, *l)
	}
	return rows
}

// disturbs reports whether two labels overlap, or the line of one goes through
// the other.
func (l *label) disturbs(other label) bool {
	from, until := l.span()
	otherFrom, otherUntil := other.span()
	switch {
	case l.row == other.row:
		return from < otherUntil && otherFrom < until
	case l.row < other.row:
		return otherFrom < l.x && l.x < otherUntil
	}
	return from < other.x && other.x < until
}

// namePlace says where the name of a bar goes that needs this width: into the bar,
// after it or before it, whichever first has the room; else where there is most.
// Before it, the text ends at x.
func namePlace(from, until, left, right, width float64) (x, room float64, ends bool) {
	rooms := []float64{until - from, right - until, from - left}
	best := slices.IndexFunc(rooms, func(room float64) bool { return room >= width })
	if best < 0 {
		best = slices.Index(rooms, slices.Max(rooms))
	}
	return []float64{from, until, from}[best], rooms[best], best == 2
}
