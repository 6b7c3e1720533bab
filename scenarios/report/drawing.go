package report

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/look"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// The measures of a picture, in its own units: pixels on a projector of 1920.
const (
	width  = 1800.0
	gutter = 212.0 // what names the rows, left of the axis
	margin = 20.0
	row    = 32.0 // a row with a bar and text
	bar    = 22.0
	foot   = 23.0 // from the top of a row to the line that its text stands on
	above  = 26.0 // a row of labels alone
	pad    = 7.0  // between a line or a bar and its text
	thin   = 3.0  // a tick of traffic, with the gap to the next one
)

// path is one shape. The class gives it its colours.
type path struct {
	Class, D string
	// Title is shown where a pointer rests on it.
	Title string
}

// word is one line of text; Quiet goes on with it in another colour.
type word struct {
	X, Y        float64
	Class       string
	Text, Quiet string
}

// key explains a shape in the legend.
type key struct{ Class, D, Text string }

// drawing is the picture of a record, and grows downwards. What is Under lies
// below all Paths.
type drawing struct {
	Width, Height float64
	Under, Paths  []path
	Words         []word
	Keys          []key

	axis        axis
	y           float64
	authorities look.Authorities
}

// draw lays out the timeline of a record.
func draw(r trial.Record) *drawing {
	d := &drawing{Width: width, axis: axisOf(r, gutter, width-margin)}
	d.marks(r.Marks)
	top := d.y
	d.steps(r.Steps)
	d.waits(r.Measures)
	d.windows(r.Windows)
	for _, s := range r.Streams {
		d.stream(s)
	}
	for _, b := range bundles(r.Holdings) {
		d.bundle(b)
	}
	d.scale(top, r)
	d.Height = d.y + margin/2
	return d
}

// marks draws the labels of moments; their lines go on with the scale.
func (d *drawing) marks(marks []trial.Mark) {
	labels, rows := d.labels(marks)
	for _, l := range labels {
		y := d.y + float64(l.row)*above
		d.Under = append(d.Under, path{"mark", line(l.x, y+2, l.x, d.y+float64(rows)*above), ""})
		d.label("mark", l, y+above-6)
	}
	d.y += float64(rows) * above
	if rows > 0 {
		d.key("mark", line(14, 0, 14, 20), "moment")
	}
}

// labels measures and places the labels of moments, and cuts short what would
// take more than half of the picture.
func (d *drawing) labels(marks []trial.Mark) (labels []label, rows int) {
	for _, m := range marks {
		text := cut(m.What, (d.axis.right-d.axis.left)/2)
		labels = append(labels, label{text: text, x: d.axis.x(m.At), width: textWidth(text) + 2*pad})
	}
	rows = plant(labels, width)
	return labels, rows
}

// label writes a label that has its place.
func (d *drawing) label(class string, l label, y float64) {
	if l.left {
		d.word(class+" end", l.x-pad, y, l.text)
	} else {
		d.word(class, l.x+pad, y, l.text)
	}
}

func (d *drawing) steps(steps []trial.Step) {
	if len(steps) == 0 {
		return
	}
	d.heading("Steps", "")
	for i, s := range steps {
		class, text := "step", s.Name
		if s.Restore {
			class += " restore"
		}
		if s.Error != "" {
			class, text = class+" failed", "✕ "+text
		}
		d.gutter(fmt.Sprintf("%d · %s", i+1, seconds(s.Took)))
		d.named(class, s.Began, s.Began.Add(s.Took), text, s.Name)
	}
	if slices.ContainsFunc(steps, func(s trial.Step) bool { return !s.Restore && s.Error == "" }) {
		d.key("step", rect(0, 3, 28, 14), "step")
	}
	if slices.ContainsFunc(steps, func(s trial.Step) bool { return s.Restore }) {
		d.key("step restore", rect(0, 3, 28, 14), "step that puts the lab back")
	}
	if slices.ContainsFunc(steps, func(s trial.Step) bool { return s.Error != "" }) {
		d.key("step failed", rect(0, 3, 28, 14), "✕ step that failed")
	}
}

// waits draws each measure with its bound.
func (d *drawing) waits(measures []trial.Measure) {
	if len(measures) == 0 {
		return
	}
	d.heading("Waits", "")
	for _, m := range measures {
		d.gutter(seconds(m.Took))
		from, until, bound := d.axis.x(m.At), d.axis.x(m.At.Add(m.Took)), d.axis.x(m.At.Add(m.Bound))
		class := "wait"
		switch m.Result {
		case trial.DoesNotHold:
			class += " failed"
		case trial.Late:
			class += " late"
		}
		d.path("track", line(from, d.y+row/2, bound, d.y+row/2), "")
		d.path(class, rect(from, d.y+5, max(thin, until-from), bar), m.What+": "+seconds(m.Took))
		if m.Bound > 0 {
			d.path("bound", line(bound, d.y+2, bound, d.y+8+bar), "bound "+seconds(m.Bound))
		}
		d.barName(class, from, max(until, bound), m.What)
		d.y += row
	}
	d.key("wait", rect(0, 3, 28, 14), "wait")
	d.key("bound", line(14, 0, 14, 20), "bound of a wait")
}

// moments are what is known of a fault, in their order.
func moments(w trial.Window) []trial.Mark {
	all := []trial.Mark{{At: w.Injected, What: "injected"}, {At: w.Felt, What: "felt"}, {At: w.Recovered, What: "recovered"}, {At: w.Healed, What: "healed"}}
	return slices.DeleteFunc(all, func(m trial.Mark) bool { return m.At.IsZero() })
}

// windows draws the faults; the shade through all lanes comes with the scale.
func (d *drawing) windows(windows []trial.Window) {
	if len(windows) == 0 {
		return
	}
	d.heading("Faults", "")
	for _, w := range windows {
		known := moments(w)
		if len(known) == 0 {
			continue
		}
		first, last := known[0].At, d.end(w)
		// Between felt and recovered the fault is in force for sure; before and
		// after, it comes and goes.
		d.path("coming", rect(d.axis.x(first), d.y+5, d.axis.x(last)-d.axis.x(first), bar), w.Name)
		if !w.Felt.IsZero() {
			until := last
			if !w.Recovered.IsZero() {
				until = w.Recovered
			}
			d.path("fault", rect(d.axis.x(w.Felt), d.y+5, d.axis.x(until)-d.axis.x(w.Felt), bar), w.Name)
		}
		d.barName("fault", d.axis.x(first), d.axis.x(last), w.Name)
		d.y += row
		labels, rows := d.labels(known)
		for i, l := range labels {
			y := d.y + float64(rows-l.row)*above
			d.path("moment", line(l.x, d.y-row+2, l.x, y), known[i].What+" "+d.at(known[i].At))
			d.label("quiet", l, y-4)
		}
		d.y += float64(rows)*above + 4
	}
	d.key("fault", rect(0, 3, 28, 14), "fault")
	d.key("coming", rect(0, 3, 28, 14), "it takes hold, or heals")
}

// end is when a fault was over, or when the picture is.
func (d *drawing) end(w trial.Window) time.Time {
	if w.Healed.IsZero() {
		return d.axis.from.Add(d.axis.span)
	}
	return w.Healed
}

// stream draws a lane of calls: small ticks for answers, tall ones for all else.
func (d *drawing) stream(s traffic.Stream) {
	const small, tall = 16.0, 46.0
	calls := slices.Clone(s.Calls)
	slices.SortStableFunc(calls, func(a, b traffic.Call) int { return a.At.Compare(b.At) })
	d.heading(s.From+" calls "+s.Order.Server, fmt.Sprintf("%s, %s connection, a call every %s", s.Order.Name, s.Order.Connection, s.Order.Every))

	samples := make([]sample, len(calls))
	for i, c := range calls {
		samples[i] = sample{c.At, string(c.Outcome)}
	}
	counts := tallies(calls)
	answered, height := 0, small+pad
	if len(counts) > 0 && counts[0].outcome == traffic.Answered {
		answered = counts[0].calls
	}
	if answered < len(calls) {
		height = tall + 38
	}
	base := d.y + height - 2
	if answered < len(calls) {
		d.word("end", gutter-2*pad, base-26, fmt.Sprintf("%d not answered", len(calls)-answered))
	}
	d.word("end", gutter-2*pad, base-2, fmt.Sprintf("%d answered", answered))
	d.path("base", line(d.axis.left, base, d.axis.right, base), "")

	ticks := map[traffic.Outcome]string{}
	for _, b := range bins(calls, d.axis, thin) {
		h := tall
		if b.outcome == traffic.Answered {
			h = small
		}
		ticks[b.outcome] += rect(b.x, base-h, thin-1, h)
	}
	for _, c := range counts {
		d.path(classOf(c.outcome), ticks[c.outcome], fmt.Sprintf("%d calls: %s", c.calls, c.outcome))
		d.outcomeKey(c.outcome)
	}
	d.outcomes(calls, stretches(samples), base-tall)
	d.y = base + 4
	d.signers(calls)
}

// outcomes names what calls met that were not answered, above their ticks: the
// longest stretches first, and none over another.
func (d *drawing) outcomes(calls []traffic.Call, all []stretch, y float64) {
	all = slices.DeleteFunc(slices.Clone(all), func(s stretch) bool { return s.what == string(traffic.Answered) })
	slices.SortStableFunc(all, func(a, b stretch) int { return b.count - a.count })
	var taken []label
	free := func(l label) bool {
		if slices.ContainsFunc(taken, l.disturbs) {
			return false
		}
		taken = append(taken, l)
		return true
	}
	const half = 9.0 // of a glyph and what is around it
	middle := func(s stretch) float64 { return (d.axis.x(s.from) + d.axis.x(s.last)) / 2 }
	all = slices.DeleteFunc(all, func(s stretch) bool { return !free(label{x: middle(s) - half, width: 2 * half}) })
	for _, s := range all {
		first := calls[slices.IndexFunc(calls, func(c traffic.Call) bool { return c.At.Equal(s.from) })]
		d.path(classOf(first.Outcome), glyph(first.Outcome, middle(s), y-11, 7),
			fmt.Sprintf("%d × %s from %s to %s: %s", s.count, s.what, d.at(s.from), d.at(s.last), first.Detail))
		text := fmt.Sprintf("%d × %s", s.count, s.what)
		after := label{x: middle(s) + half, width: textWidth(text) + pad}
		before := label{x: middle(s) - half, width: after.width, left: true}
		switch {
		case after.x+after.width < width && free(after):
			d.word("", after.x+2, y-5, text)
		case before.x-before.width > d.axis.left && free(before):
			d.word("end", before.x-2, y-5, text)
		}
	}
}

// signers draws which authority had signed the SVID that the server proved itself
// with.
func (d *drawing) signers(calls []traffic.Call) {
	var samples []sample
	for _, c := range calls {
		if c.Server != nil && c.Server.Authority != "" {
			samples = append(samples, sample{c.At, c.Server.Authority})
		}
	}
	if samples == nil {
		return
	}
	d.y += 4
	d.gutter("server's CA")
	for _, s := range stretches(samples) {
		from, until := d.axis.x(s.from), d.axis.x(s.until)
		d.authority(s.what, "", rect(from, d.y+7, max(thin, until-from), bar-6), "the server's SVID is signed by "+s.what)
		if text := trial.Brief(s.what); until-from > textWidth(text)+2*pad {
			d.word("on code "+d.authorities.Look(s.what).Colour, from+pad, d.y+20, text)
		}
	}
	d.y += row
}

// bundle draws a lane of authorities, a row each, and how the bundle compared with
// its source.
func (d *drawing) bundle(b bundle) {
	name, tail := b.holder+" holds of "+b.of, ""
	if b.holder == b.of {
		name, tail = b.holder, "the authorities of its own"
	}
	d.heading(name, tail)
	var states []sample
	for _, l := range b.looks {
		if l.State != "" {
			states = append(states, sample{l.At, string(l.State)})
		}
	}
	if states != nil {
		d.gutter("bundle is")
		for _, s := range stretches(states) {
			class := "state"
			if s.what != string(federation.InSync) {
				class = "state off"
				d.key(class, rect(0, 3, 28, 14), "bundle that is not in sync")
			}
			from, until := d.axis.x(s.from), d.axis.x(s.until)
			d.path(class, rect(from, d.y+5, max(thin, until-from), bar), "bundle is "+s.what)
			if until-from > textWidth(s.what)+2*pad {
				d.word("", from+pad, d.y+foot, s.what)
			}
		}
		d.y += row
	}
	for _, a := range authorities(b.looks) {
		d.word("quiet", 0, d.y+21, string(a.kind))
		d.word("code end", gutter-2*pad, d.y+21, trial.Brief(a.id))
		more := ""
		if a.kind == federation.JWT {
			more = " jwt"
			d.key("authority jwt", rect(1, 4, 26, 12), "JWT authority")
		}
		d.key("authority", rect(0, 4, 28, 12), "X.509 authority; each has a colour and a pattern of its own")
		for _, s := range a.when {
			from, until := d.axis.x(s.from), d.axis.x(s.until)
			d.authority(a.id, more, rect(from, d.y+7, max(thin, until-from), bar-6),
				fmt.Sprintf("%s authority %s, seen from %s until %s", a.kind, a.id, d.at(s.from), d.at(s.until)))
		}
		d.y += row - 4
	}
}

// scale draws the axis, its lines up through all lanes, and the shade of faults.
func (d *drawing) scale(top float64, r trial.Record) {
	bottom := d.y + pad
	var shades []path
	for _, w := range r.Windows {
		known := moments(w)
		if len(known) == 0 {
			continue
		}
		from := d.axis.x(known[0].At)
		shades = append(shades, path{"shade", rect(from, top, d.axis.x(d.end(w))-from, bottom-top), w.Name})
		for _, m := range known {
			x := d.axis.x(m.At)
			d.Under = append(d.Under, path{"edge", line(x, top, x, bottom), ""})
		}
	}
	for _, m := range r.Marks {
		x := d.axis.x(m.At)
		d.Under = append(d.Under, path{"mark", line(x, top, x, bottom), ""})
	}
	d.Under = append(shades, d.Under...)
	d.path("base", line(d.axis.left, bottom, d.axis.right, bottom), "")
	for _, t := range ticks(d.axis.span, 14) {
		x := d.axis.x(d.axis.from.Add(t))
		d.Under = append(d.Under, path{"grid", line(x, top, x, bottom+6), ""})
		d.word("middle", x, bottom+26, strconv.FormatFloat(t.Seconds(), 'f', -1, 64))
	}
	d.word("quiet", 0, bottom+26, "seconds")
	d.y = bottom + 32
}

func (d *drawing) heading(text, quiet string) {
	d.y += 34
	d.Words = append(d.Words, word{0, d.y - 6, "heading", text, quiet})
}

func (d *drawing) gutter(text string) { d.word("quiet end", gutter-2*pad, d.y+foot, text) }

// named draws a bar with its name, in a row of its own.
func (d *drawing) named(class string, began, ended time.Time, text, title string) {
	from, until := d.axis.x(began), d.axis.x(ended)
	until = max(until, from+thin)
	d.path(class, rect(from, d.y+5, until-from, bar), title+" ("+d.at(began)+" to "+d.at(ended)+")")
	d.barName(class, from, until, text)
	d.y += row
}

// barName writes a bar's name; the class is the bar's, for a name that is in it.
func (d *drawing) barName(class string, from, until float64, text string) {
	x, room, ends := namePlace(from, until, d.axis.left, width, textWidth(text)+2*pad)
	text = cut(text, room-2*pad)
	switch {
	case ends:
		d.word("end", x-pad, d.y+foot, text)
	case x == from:
		d.word("in "+class, x+pad, d.y+foot, text)
	default:
		d.word("", x+pad, d.y+foot, text)
	}
}

func (d *drawing) path(class, shape, title string) {
	d.Paths = append(d.Paths, path{class, shape, title})
}

func (d *drawing) word(class string, x, y float64, text string) {
	d.Words = append(d.Words, word{x, y, class, text, ""})
}

// key adds to the legend what it does not have yet.
func (d *drawing) key(class, shape, text string) {
	if k := (key{class, shape, text}); !slices.Contains(d.Keys, k) {
		d.Keys = append(d.Keys, k)
	}
}

func (d *drawing) outcomeKey(o traffic.Outcome) {
	if o == traffic.Answered {
		d.key(classOf(o), rect(8, 10, 2, 10)+rect(13, 10, 2, 10)+rect(18, 10, 2, 10), "call that was answered")
	} else {
		d.key(classOf(o), glyph(o, 9, 10, 7)+rect(20, 0, 3, 20), "call: "+string(o))
	}
}

// at writes a time as the axis counts it.
func (d *drawing) at(t time.Time) string { return seconds(t.Sub(d.axis.from)) }
