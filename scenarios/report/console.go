package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// fails is what a line begins with that reports what does not hold; the words of
// other results are their own. What they are painted with, each tells by its word as well.
const (
	fails  = "FAILS"
	good   = "\x1b[32m"
	fair   = "\x1b[33m"
	bad    = "\x1b[1;31m"
	normal = "\x1b[0m"
)

// Console writes how a run went, for a person who has watched it: what was
// claimed, each verdict, and each wait against its bound. It writes escape
// sequences only with colour, and none that a record brings.
func Console(w io.Writer, r trial.Record, colour bool) error {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = plain(c)
		}
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	row(outcome(r.Result) + " " + named(r) + ", in " + seconds(lasted(r)) + ": " + r.Claim)
	if r.Mutation != "" {
		row("made wrong on purpose: " + r.Mutation)
	}
	for _, why := range broken(r) {
		row(why)
	}
	row("slack of the machine: " + r.Slack.String())
	if len(r.Verdicts) > 0 {
		row("")
		row("VERDICT", "CLAIM", "WHY")
		for _, v := range r.Verdicts {
			row(outcome(v.Result), v.Says, orDash(v.Why))
		}
	}
	if len(r.Measures) > 0 {
		row("")
		row("RESULT", "TOOK", "BOUND", "RATIO", "FOR", "BOUND IS")
		for _, m := range r.Measures {
			row(outcome(m.Result), seconds(m.Took), seconds(m.Bound), ratio(m), m.What, orDash(m.Formula))
		}
	}
	err := table.Flush()
	if err == nil && colour {
		// Only now, since the table counts the bytes of its cells.
		_, err = io.WriteString(w, painted(text.String()))
	} else if err == nil {
		_, err = text.WriteTo(w)
	}
	if err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	return nil
}

// named is a scenario with the relationship that it ran on; records of an earlier fedlab name
// none.
func named(r trial.Record) string {
	if r.On == (trial.On{}) {
		return r.Scenario
	}
	return r.Scenario + " on " + r.On.String()
}

func painted(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		for word, with := range map[string]string{string(trial.Holds): good, string(trial.Late): fair, fails: bad, string(trial.NotJudged): fair} {
			if rest, ok := strings.CutPrefix(line, word+" "); ok {
				line = with + word + normal + " " + rest
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// plain keeps a text on its line and in its cell.
func plain(s string) string { return strings.Map(visible, s) }

// visible takes out what a terminal would obey, and what turns the direction of
// the text that follows.
func visible(r rune) rune {
	switch {
	case unicode.IsPrint(r):
		return r
	case unicode.IsSpace(r):
		return ' '
	}
	return unicode.ReplacementChar
}

func outcome(r trial.Result) string {
	switch r {
	case trial.Holds, trial.Late, trial.NotJudged:
		return string(r)
	}
	return fails
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// seconds writes a time for people: in the unit of the picture's axis.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// ratio is how much of its bound a wait took.
func ratio(m trial.Measure) string {
	if m.Bound <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", m.Took.Seconds()/m.Bound.Seconds())
}
