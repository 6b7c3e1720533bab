package live

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

// matrix is the table of a federation: a row for each server that may trust, a column for each
// trust domain that may be trusted.
type matrix struct {
	Rows, Columns []string
	// Shape is the same for tables with the same rows and columns.
	Shape string
}

func matrixOf(l watch.Look) matrix {
	var m matrix
	add := func(all *[]string, name string) {
		if !slices.Contains(*all, name) {
			*all = append(*all, name)
		}
	}
	for _, d := range l.Domains {
		add(&m.Rows, d.Name)
		add(&m.Columns, trustDomain(d.Name))
	}
	for _, p := range l.Pairs {
		add(&m.Rows, p.Truster)
		add(&m.Columns, p.Trusted)
	}
	sum := fnv.New64a()
	_, _ = fmt.Fprintf(sum, "%s %q %q", l.Lab, m.Rows, m.Columns) // a hash takes all
	m.Shape = fmt.Sprintf("%x", sum.Sum64())
	return m
}

// trustDomain is that of a server, which may be a nested one ("one.test@b").
func trustDomain(server string) string {
	name, _, _ := strings.Cut(server, "@")
	return name
}

func (m matrix) row(i int) string    { return m.Rows[i/len(m.Columns)] }
func (m matrix) column(i int) string { return m.Columns[i%len(m.Columns)] }

// Large says that cells have room for words, and Small that they hardly have it for a sign.
func (m matrix) Large() bool { return len(m.Columns) <= 8 }

// Small is for more trust domains than a screen has room for words.
func (m matrix) Small() bool { return len(m.Columns) > 20 }

// drawn says that there are few enough to be drawn as a circle.
func (m matrix) drawn() bool { return len(m.Rows) > 1 && len(m.Rows) <= 8 }

// state is how a cell may stand: the class that gives it its colour, a sign for those who
// cannot tell colours, and the word.
type state struct{ Class, Sign, Word, Means string }

// legend has each state of a held bundle, the best one first.
func legend() []state {
	return []state{
		{"in-sync", "✓", string(federation.InSync), "the bundle that is held is what the source has"},
		{"behind", "◷", string(federation.Behind), "authorities of the source are not there yet"},
		{"differing", "≠", string(federation.Differing), "it has authorities that the source does not have"},
		{"foreign", "✕", string(federation.Foreign), "it has nothing of what the source has"},
		{"empty", "∅", string(federation.Empty), "the bundle has no authority"},
		{"missing", "–", string(federation.Missing), "no bundle is held"},
		{"unreachable", "⌁", "unreachable", "the bundle endpoint gives no bundle"},
		{"hanging", "…", "hanging", "the bundle endpoint takes requests and does not answer"},
		{"unknown", "?", "unknown", "a server cannot be asked"},
	}
}

// stateOf finds a state by its word; what has none of them is unknown.
func stateOf(word string) state {
	all := legend()
	i := slices.IndexFunc(all, func(s state) bool { return s.Word == word })
	if i < 0 {
		return state{Class: "unknown", Sign: "?", Word: word}
	}
	return all[i]
}

// cell is what the page shows of a relationship. Times are in milliseconds: of Unix time, and
// Poll is an interval; zero is none.
type cell struct {
	Class string `json:"class"`
	Sign  string `json:"sign"`
	Word  string `json:"word"`
	Says  string `json:"says"`
	Last  int64  `json:"last"`
	Next  int64  `json:"next"`
	Poll  int64  `json:"poll"`
}

// cells are those of a look, row by row.
func (m matrix) cells(l watch.Look) []cell {
	all := make([]cell, len(m.Rows)*len(m.Columns))
	rows, columns := places(m.Rows), places(m.Columns)
	for i := range all {
		all[i] = cell{Class: "none", Word: "not trusted", Says: m.row(i) + " does not trust " + m.column(i)}
		if trustDomain(m.row(i)) == m.column(i) {
			all[i] = cell{Class: "self", Word: "itself", Says: m.row(i) + " has the bundle of its own"}
		}
	}
	for _, p := range l.Pairs {
		all[rows[p.Truster]*len(m.Columns)+columns[p.Trusted]] = cellOf(p)
	}
	return all
}

func places(names []string) map[string]int {
	all := make(map[string]int, len(names))
	for i, name := range names {
		all[name] = i
	}
	return all
}

func cellOf(p watch.Pair) cell {
	s := stateOf(string(p.State))
	c := cell{Class: s.Class, Sign: s.Sign, Word: s.Word, Last: millis(p.LastFetch), Next: millis(p.NextPollBy), Poll: p.Poll().Milliseconds()}
	var more []string
	add := func(there bool, text string) {
		if there {
			more = append(more, text)
		}
	}
	add(p.Profile != "", p.Profile+", mode "+p.Mode)
	add(p.PollSeconds > 0, fmt.Sprintf("a poll every %s", p.Poll()))
	add(p.Unpolled != "", "no polls: "+p.Unpolled)
	add(!p.LastFetch.IsZero(), "last fetch seen at "+clock(p.LastFetch))
	add(p.Cause != "", "cause: "+p.Cause)
	add(p.Problem != "", p.Problem)
	c.Says = fmt.Sprintf("%s trusts %s: %s. %s", p.Truster, p.Trusted, s.Word, strings.Join(more, "; "))
	return c
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// summary counts relationships by their states.
func summary(pairs []watch.Pair) string {
	counts := map[string]int{}
	for _, p := range pairs {
		counts[string(p.State)]++
	}
	var parts []string
	for _, s := range legend() {
		if n := counts[s.Word]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.Word))
		}
	}
	what := "relationships"
	if len(pairs) == 1 {
		what = "relationship"
	}
	return fmt.Sprintf("%d %s: %s", len(pairs), what, cmp.Or(strings.Join(parts, ", "), "none"))
}

// circle is a drawing of a small federation, in a square of 400.
type circle struct {
	Nodes []node
	Arcs  []arc
}

type node struct {
	Name        string
	X, Y, TextY string
}

// arc goes from the one who trusts to the one who is trusted.
type arc struct{ Class, D, Says string }

// circleOf places servers on a circle, and an arc for each cell that has a relationship.
func circleOf(m matrix, cells []cell) circle {
	const middle, radius, dot = 200.0, 130.0, 14.0
	var c circle
	at := func(i int) (x, y float64) {
		turn := 2*math.Pi*float64(i)/float64(len(m.Rows)) - math.Pi/2
		return middle + radius*math.Cos(turn), middle + radius*math.Sin(turn)
	}
	for i, name := range m.Rows {
		x, y := at(i)
		n := node{Name: name, X: number(x), Y: number(y), TextY: number(y + 36)}
		if y < middle-1 {
			n.TextY = number(y - 24)
		}
		c.Nodes = append(c.Nodes, n)
	}
	for i, cell := range cells {
		to := slices.Index(m.Rows, m.column(i))
		if cell.Class == "none" || cell.Class == "self" || to < 0 {
			continue
		}
		x1, y1 := at(i / len(m.Columns))
		x2, y2 := at(to)
		length := math.Hypot(x2-x1, y2-y1)
		ux, uy := (x2-x1)/length, (y2-y1)/length
		// The two directions bend away from one another.
		const bend = 26.0
		bx, by := (x1+x2)/2-uy*bend, (y1+y2)/2+ux*bend
		c.Arcs = append(c.Arcs, arc{Class: cell.Class, Says: cell.Says, D: fmt.Sprintf("M%s %sQ%s %s %s %s",
			number(x1+ux*dot), number(y1+uy*dot), number(bx), number(by), number(x2-ux*(dot+8)-uy*6), number(y2-uy*(dot+8)+ux*6))})
	}
	return c
}

func number(f float64) string { return fmt.Sprintf("%.1f", f) }
