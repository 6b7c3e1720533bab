package report

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/look"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		span time.Duration
		most int
		step time.Duration
		want int
	}{
		{time.Second, 14, 100 * time.Millisecond, 11},
		{9 * time.Second, 14, time.Second, 10},
		{121 * time.Second, 14, 10 * time.Second, 13},
		{131 * time.Second, 14, 10 * time.Second, 14},
		{140 * time.Second, 14, 20 * time.Second, 8},
		{time.Hour, 14, 500 * time.Second, 8},
		{10 * time.Second, 2, 10 * time.Second, 2},
		{10 * time.Second, 1, 20 * time.Second, 1},
		{math.MaxInt64, 14, 1e9 * time.Second, 10},
	} {
		got := ticks(tt.span, tt.most)
		want := make([]time.Duration, tt.want)
		for i := range want {
			want[i] = time.Duration(i) * tt.step
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s in %d: got %v, want %v", tt.span, tt.most, got, want)
		}
	}
}

func TestAxis(t *testing.T) {
	r := record("a/b", "", 10)
	r.Streams = []traffic.Stream{{Calls: []traffic.Call{{At: after(20)}}}}
	a := axisOf(r, 100, 300)
	for at, want := range map[float64]float64{0: 100, 5: 150, 20: 300, 30: 300, -4: 100} {
		if got := a.x(after(at)); got != want {
			t.Errorf("%v s is at %v, want %v", at, got, want)
		}
	}
	if got := axisOf(empty(), 0, 1).span; got != time.Second {
		t.Errorf("nothing spans %s", got)
	}
}

// TestAxisReachesAllThatHappened has one thing after the end of the run at a time.
func TestAxisReachesAllThatHappened(t *testing.T) {
	for name, add := range map[string]func(*trial.Record){
		"step": func(r *trial.Record) { r.Steps = append(r.Steps, step("", "", 10, 5)) },
		"fault": func(r *trial.Record) {
			r.Windows = append(r.Windows, trial.Window{Injected: after(2), Felt: after(15)})
		},
		"mark": func(r *trial.Record) { r.Marks = append(r.Marks, trial.Mark{At: after(15)}) },
		"measure": func(r *trial.Record) {
			r.Measures = append(r.Measures, trial.Measure{At: after(5), Took: span(10)})
		},
		"look": func(r *trial.Record) { r.Holdings = append(r.Holdings, trial.Holding{At: after(15)}) },
	} {
		r := record("a/b", "", 10)
		if add(&r); axisOf(r, 0, 1).span != 15*time.Second {
			t.Errorf("a later %s is not on the axis, which spans %s", name, axisOf(r, 0, 1).span)
		}
	}
}

func TestBins(t *testing.T) {
	a := axis{noon, 100 * time.Second, 0, 100}
	calls := func(all ...any) (calls []traffic.Call) {
		for i := 0; i < len(all); i += 2 {
			calls = append(calls, traffic.Call{At: after(all[i].(float64)), Outcome: all[i+1].(traffic.Outcome)})
		}
		return calls
	}
	for name, tt := range map[string]struct {
		calls []traffic.Call
		want  []bin
	}{
		"none": {nil, nil},
		"sparse calls stay where they are": {
			calls(1.5, traffic.Answered, 4.5, traffic.NoAnswer, 9.0, traffic.Answered),
			[]bin{{1.5, traffic.Answered}, {4.5, traffic.NoAnswer}, {9, traffic.Answered}},
		},
		"the worst of a bin wins, wherever it is": {
			calls(1.0, traffic.Answered, 1.5, traffic.NoAnswer, 2.0, traffic.Expired, 4.0, traffic.ServerFailed, 4.5, traffic.Answered),
			[]bin{{1, traffic.NoAnswer}, {4, traffic.ServerFailed}},
		},
		"one that nobody knows is the worst": {
			calls(1.0, traffic.ServerFailed, 1.5, traffic.Outcome("new")),
			[]bin{{1, "new"}},
		},
	} {
		if got := bins(tt.calls, a, 3); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

// TestBinsOfManyCalls has one failed call among thousands: it must be seen.
func TestBinsOfManyCalls(t *testing.T) {
	var calls []traffic.Call
	for i := range 50000 {
		c := traffic.Call{At: noon.Add(time.Duration(i) * 2 * time.Millisecond), Outcome: traffic.Answered}
		if i == 31337 {
			c.Outcome = traffic.Unreachable
		}
		calls = append(calls, c)
	}
	all := bins(calls, axis{noon, 100 * time.Second, 200, 1700}, thin)
	bad := slices.DeleteFunc(slices.Clone(all), func(b bin) bool { return b.outcome == traffic.Answered })
	if len(all) > 500 || len(bad) != 1 || math.Abs(bad[0].x-1140) > thin {
		t.Errorf("%d bins, those that are not answered: %v", len(all), bad)
	}
}

func TestStretches(t *testing.T) {
	var samples []sample
	for i, what := range strings.Split("aabbba", "") {
		samples = append(samples, sample{after(float64(i)), what})
	}
	want := []stretch{
		{"a", after(0), after(1), after(2), 2},
		{"b", after(2), after(4), after(5), 3},
		{"a", after(5), after(5), after(5), 1},
	}
	if got := stretches(samples); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := stretches(nil); got != nil {
		t.Errorf("nothing has the stretches %v", got)
	}
}

func TestAuthorities(t *testing.T) {
	looks := []trial.Holding{
		{At: after(0), X509: []string{"old"}, JWT: []string{"key"}},
		{At: after(2), X509: []string{"old", "new"}, JWT: []string{"key"}},
		{At: after(4)}, // an empty bundle
		{At: after(6), X509: []string{"new", "old"}},
		{At: after(8), X509: []string{"new"}},
	}
	var got []string
	for _, a := range authorities(looks) {
		line := string(a.kind) + " " + a.id
		for _, s := range a.when {
			line += fmt.Sprintf(" %g-%g", s.from.Sub(noon).Seconds(), s.until.Sub(noon).Seconds())
		}
		got = append(got, line)
	}
	if want := []string{"X.509 old 0-4 6-8", "X.509 new 2-4 6-8", "JWT key 0-4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBundles(t *testing.T) {
	look := func(at float64, holder, of string) trial.Holding {
		return trial.Holding{At: after(at), Holder: holder, Of: of}
	}
	var got []string
	for _, b := range bundles([]trial.Holding{
		look(1, "b", "a"), look(9, "a", "a"), look(2, "b", "b"), look(3, "c", "a"), look(4, "a", "b"), look(5, "a", "a"),
	}) {
		line := b.holder + " of " + b.of
		for _, l := range b.looks {
			line += fmt.Sprintf(" %g", l.At.Sub(noon).Seconds())
		}
		got = append(got, line)
	}
	if want := []string{"a of a 5 9", "b of a 1", "c of a 3", "b of b 2", "a of b 4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPlant(t *testing.T) {
	for name, tt := range map[string]struct {
		xs   []float64
		rows []int
		left string // L where the text is left of its line
	}{
		"none":                                   {nil, []int{}, ""},
		"far apart":                              {[]float64{0, 50, 100}, []int{0, 0, 0}, "..."},
		"one covers the next":                    {[]float64{0, 10, 55}, []int{0, 1, 0}, "..."},
		"not where its line would go through":    {[]float64{0, 30, 45}, []int{0, 1, 2}, "..."},
		"at the edge":                            {[]float64{100, 190, 200}, []int{0, 1, 0}, ".LL"},
		"at one time":                            {[]float64{20, 20, 20}, []int{0, 1, 2}, "..."},
		"in no order of time":                    {[]float64{100, 0, 10}, []int{0, 0, 1}, "..."},
		"at the edge, the last one is outermost": {[]float64{180, 190, 200}, []int{2, 1, 0}, "LLL"},
	} {
		labels := make([]label, len(tt.xs))
		for i, x := range tt.xs {
			labels[i] = label{x: x, width: 40}
		}
		rows, left := []int{}, ""
		count := plant(labels, 200)
		for _, l := range labels {
			rows = append(rows, l.row)
			left += map[bool]string{true: "L", false: "."}[l.left]
		}
		most := 0
		for _, r := range tt.rows {
			most = max(most, r+1)
		}
		if !slices.Equal(rows, tt.rows) || left != tt.left || count != most {
			t.Errorf("%s: got rows %v of %d, %q, want %v of %d, %q", name, rows, count, left, tt.rows, most, tt.left)
		}
	}
}

// TestPlantedLabelsDoNotOverlap tries it with many of all lengths.
func TestPlantedLabelsDoNotOverlap(t *testing.T) {
	var labels []label
	for i := range 60 {
		labels = append(labels, label{x: float64(i * 7919 % 1000), width: float64(20 + i*31%300)})
	}
	plant(labels, 1000)
	for i, a := range labels {
		for _, b := range labels[:i] {
			from, until := a.span()
			otherFrom, otherUntil := b.span()
			if a.row == b.row && from < otherUntil && otherFrom < until {
				t.Errorf("%+v and %+v overlap", a, b)
			}
		}
	}
}

func TestBeside(t *testing.T) {
	type place struct {
		x, room float64
		ends    bool
	}
	for name, tt := range map[string]struct {
		from, until, width float64
		want               place
	}{
		"into the bar":          {20, 80, 60, place{20, 60, false}},
		"after it":              {20, 40, 60, place{40, 60, false}},
		"before it":             {70, 90, 60, place{70, 70, true}},
		"cut short, in the bar": {20, 90, 80, place{20, 70, false}},
		"cut short, after it":   {20, 40, 80, place{40, 60, false}},
		"cut short, before it":  {70, 90, 80, place{70, 70, true}},
	} {
		x, room, ends := namePlace(tt.from, tt.until, 0, 100, tt.width)
		if got := (place{x, room, ends}); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		text    string
		letters float64
		want    string
	}{
		{"publish it", 10, "publish it"},
		{"publish it", 9.9, "publish…"},
		{"publish it", 6, "publi…"},
		{"鍵を公開", 8, "鍵を公開"},
		{"鍵を公開", 7, "鍵を公…"},
		{"publish", 0, "…"},
	} {
		if got := cut(tt.text, tt.letters*letter); got != tt.want {
			t.Errorf("%q in %v letters: got %q, want %q", tt.text, tt.letters, got, tt.want)
		}
	}
}

func TestTallies(t *testing.T) {
	calls := []traffic.Call{{Outcome: "new"}, {Outcome: traffic.NoAnswer}, {Outcome: traffic.Answered}, {Outcome: "else"}, {Outcome: traffic.NoAnswer}}
	want := []tally{{traffic.Answered, 1}, {traffic.NoAnswer, 2}, {"else", 1}, {"new", 1}}
	if got := tallies(calls); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAnAuthorityLooksTheSameWhereverItIsMet(t *testing.T) {
	d := draw(rotation())
	looks := map[string][]string{}
	for _, p := range d.Paths {
		for _, id := range []string{oldX509, newX509, oldJWT} {
			if strings.Contains(p.Title, id) && !slices.Contains(looks[id], p.Class) {
				looks[id] = append(looks[id], p.Class)
			}
		}
	}
	want := map[string][]string{
		oldX509: {"authority a0"}, newX509: {"authority a1", "pattern p0"}, oldJWT: {"authority a2 jwt", "pattern p1 jwt"},
	}
	if !reflect.DeepEqual(looks, want) {
		t.Errorf("got %v, want %v", looks, want)
	}
}

// TestNoTwoAuthoritiesLookAlike draws as many as a record may have.
func TestNoTwoAuthoritiesLookAlike(t *testing.T) {
	r := record("a/b", "", 10)
	for i := range look.Looks {
		r.Holdings = append(r.Holdings, trial.Holding{At: after(1), Holder: "x", Of: "x", X509: []string{fmt.Sprintf("authority-%d", i)}})
	}
	if err := check(r); err != nil {
		t.Fatal(err)
	}
	looks, shapes := map[string][]string{}, map[string]bool{}
	for _, p := range draw(r).Paths {
		if id, _, ok := strings.Cut(strings.TrimPrefix(p.Title, "X.509 authority "), ","); ok {
			looks[id] = append(looks[id], p.Class)
			for _, class := range strings.Fields(p.Class) {
				shapes[class] = true
			}
		}
	}
	owners, patterns := map[string]string{}, map[string]string{}
	for i := range look.Looks {
		id := fmt.Sprintf("authority-%d", i)
		is := strings.Join(looks[id], ", ")
		if other := owners[is]; other != "" || is == "" {
			t.Errorf("%s looks as %s does: %s", id, other, is)
		}
		owners[is] = id
		_, pattern, _ := strings.Cut(is, ", ")
		if other := patterns[pattern]; i < look.Colours && other != "" {
			t.Errorf("without colours %s looks as %s does: %q", id, other, pattern)
		}
		patterns[pattern] = id
	}
	if want := 2 + look.Colours + look.SinglePatterns; len(shapes) != want {
		t.Errorf("the shapes have %d classes, want %d", len(shapes), want)
	}
	for class := range shapes {
		if !strings.Contains(pageText+string(look.CSS()), "."+class+" {") {
			t.Errorf("the page has no rule for .%s", class)
		}
	}

	r.Holdings = append(r.Holdings, trial.Holding{At: after(1), Holder: "x", Of: "x", X509: []string{"one more"}})
	if err, want := check(r), "holdings and streams name 225 different authorities: want at most 224, which a picture can tell apart"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
