package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/look"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

//go:embed page.html
var pageText string

// run is what the page shows.
type run struct {
	Records []view
	Labs    []string
	Began   time.Time
	Took    time.Duration
}

// view is one record and its picture.
type view struct {
	trial.Record
	Number  int
	Broken  []string
	Drawing *drawing
}

// HTML writes the records as one page that needs nothing besides itself and no
// script, for a projector, a browser or paper.
func HTML(w io.Writer, records []trial.Record) error {
	var all run
	var last time.Time
	for i, r := range records {
		all.Records = append(all.Records, view{r, i + 1, broken(r), draw(r)})
		if !slices.Contains(all.Labs, r.Lab) {
			all.Labs = append(all.Labs, r.Lab)
		}
		if i == 0 || r.Began.Before(all.Began) {
			all.Began = r.Began
		}
		if r.Ended.After(last) {
			last = r.Ended
		}
	}
	all.Took = max(0, last.Sub(all.Began))
	page, err := template.New("page").Funcs(template.FuncMap{
		"css":      look.CSS,
		"patterns": look.Patterns,
		"seconds":  seconds,
		"ratio":    ratio,
		"number":   number,
		"source":   sourceOf,
		"next":     func(i int) int { return i + 1 },
		"meter":    meterOf,
		"join":     strings.Join,
		"date":     func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 UTC") },
	}).Parse(pageText)
	var text bytes.Buffer
	if err == nil {
		err = page.Execute(&text, all)
	}
	if err == nil {
		_, err = w.Write(bytes.Map(func(r rune) rune {
			if r == '\n' {
				return r
			}
			return visible(r)
		}, text.Bytes()))
	}
	if err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	return nil
}

// Title is the page's, and tells the result in a list of tabs.
func (r run) Title() string {
	if r.Single() {
		return r.Records[0].Scenario
	}
	return "scenarios: " + trial.Counted(r.records())
}

func (r run) records() []trial.Record {
	all := make([]trial.Record, len(r.Records))
	for i, v := range r.Records {
		all[i] = v.Record
	}
	return all
}

// Single is set when there is nothing to choose from.
func (r run) Single() bool { return len(r.Records) == 1 }

// Took is how long the run took.
func (v view) Took() time.Duration { return lasted(v.Record) }

// After is a time of the record as the picture's axis counts it; a dash for one
// that was not reached.
func (v view) After(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return seconds(t.Sub(v.Began))
}

// Kept is how many verdicts hold, late or not.
func (v view) Kept() int {
	kept := 0
	for _, x := range v.Verdicts {
		if x.Result.Held() {
			kept++
		}
	}
	return kept
}

// Says describes the picture to who does not see it; the tables have the rest.
func (v view) Says() string {
	text := fmt.Sprintf("Steps: %d; faults: %d; over %s.", len(v.Steps), len(v.Windows), seconds(v.Took()))
	for _, s := range v.Streams {
		text += fmt.Sprintf(" %s calls %s: %s.", s.From, s.Order.Server, strings.Join(counted(s), ", "))
	}
	return text + " The tables below say the same in words."
}

// Counts is the calls of a stream by how they ended.
func (v view) Counts(s traffic.Stream) []string { return counted(s) }

func counted(s traffic.Stream) []string {
	all := []string{}
	for _, t := range tallies(s.Calls) {
		all = append(all, fmt.Sprintf("%d %s", t.calls, t.outcome))
	}
	return all
}

// Bundles are the rows of the picture's lanes of authorities.
func (v view) Bundles() []seen {
	var all []seen
	for _, b := range bundles(v.Holdings) {
		for _, a := range authorities(b.looks) {
			for _, s := range a.when {
				until := s.until
				if s.until.Equal(s.last) {
					until = time.Time{} // it was there at the last look
				}
				all = append(all, seen{b.holder, b.of, string(a.kind), a.id, s.from, until})
			}
		}
	}
	return all
}

// seen is a time in which a server had an authority; Until is zero when it still
// had it at the last look.
type seen struct {
	Holder, Of, Kind, ID string
	From, Until          time.Time
}

// Sights are the looks at facts, those in a row that saw the same as one.
func (v view) Sights() []sight {
	var all []sight
	last := map[string]int{} // by what was looked at
	for _, l := range v.Looks {
		i, known := last[l.Of]
		if !known || all[i].Seen != l.Seen || all[i].Error != l.Error {
			i, last[l.Of] = len(all), len(all)
			all = append(all, sight{Look: l})
		}
		all[i].Looks++
		all[i].Until = l.At
	}
	return all
}

// sight is a first look, how many there were that saw the same, and when the last of them was.
type sight struct {
	trial.Look
	Looks int
	Until time.Time
}

// source is where a rule comes from: an address, where it begins with one, and
// the rest of it.
type source struct{ Address, Text string }

func sourceOf(s string) source {
	first, rest, _ := strings.Cut(s, " ")
	u, err := url.Parse(first)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return source{Text: s}
	}
	return source{first, rest}
}

// meter is a wait as a bar of 160 with its bound, and the slack after it.
type meter struct{ Took, Slack, Bound string }

func meterOf(m trial.Measure) meter {
	const full = 158.0
	longest := max(m.Took, m.Bound+m.Slack, time.Millisecond)
	at := func(d time.Duration) float64 { return 1 + full*float64(d)/float64(longest) }
	return meter{
		Took:  rect(1, 6, at(m.Took)-1, 10),
		Slack: rect(1, 2, at(m.Bound+m.Slack)-1, 18),
		Bound: line(at(m.Bound), 0, at(m.Bound), 22),
	}
}
