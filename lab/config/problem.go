package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing that is wrong with a lab file.
type Problem struct {
	Source string `json:"source"`
	// Line and Column count from 1, the column in characters.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path is the field ("spec.clusters[1].name"); empty when the file could not
	// be split into fields.
	Path string `json:"path,omitempty"`
	// Cause says what is wrong, Want what is right there.
	Cause string `json:"cause"`
	Want  string `json:"want"`
}

// String reads "lab.yaml:12:9: spec.clusters[1].name: cause: right form".
func (p Problem) String() string {
	at := fmt.Sprintf("%s:%d:%d: ", p.Source, p.Line, p.Column)
	if p.Path != "" {
		at += p.Path + ": "
	}
	return at + p.Cause + ": " + p.Want
}

// Problems is all that is wrong with a lab file, in the order of the file.
type Problems []Problem

// Error has one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// from names the source in each problem and puts them in the order of the file.
func (ps Problems) from(source string) Problems {
	for i := range ps {
		ps[i].Source = source
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return ps
}

// quote shows a value of the file in a message, its start only when it is long.
func quote(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
