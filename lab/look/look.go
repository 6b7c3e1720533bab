// Package look has what the pages of the library look like: colours in light and dark, and a
// look of its own for each authority.
//
// It refuses to know what a page shows.
package look

import (
	_ "embed" // the style sheet and the patterns
	"fmt"
	"html/template"
	"math/bits"
	"slices"
)

//go:embed look.css
var css string

//go:embed patterns.svg
var patterns string

// CSS is the style sheet of what pages share.
func CSS() template.CSS { return template.CSS(css) }

// Patterns are the patterns of authorities, for the <defs> of an SVG. A page needs them once.
func Patterns() template.HTML { return template.HTML(patterns) }

// An authority looks as no other one of its page does: its colour and its pattern together are
// its own, and the first seven differ by their patterns alone, for paper and for people who
// cannot tell colours. A pattern is any of the single ones of patterns.svg, one over the other.
const (
	Colours        = 7
	SinglePatterns = 5
	// Looks is how many authorities can be told apart.
	Looks = Colours << SinglePatterns
)

// Look is what an authority is drawn with: the class of its colour, and those of the patterns
// over it.
type Look struct {
	Colour   string
	Patterns []string
}

// Authorities have their looks in the order in which they are met. The zero value has met none.
type Authorities struct{ numbers map[string]int }

// Look returns the look of an authority, the same wherever it is met.
func (a *Authorities) Look(id string) Look {
	n, known := a.numbers[id]
	if !known {
		if a.numbers == nil {
			a.numbers = map[string]int{}
		}
		n = len(a.numbers)
		a.numbers[id] = n
	}
	colour := n % Colours
	l := Look{Colour: fmt.Sprintf("authority a%d", colour)}
	set := patternSets()[(colour+n/Colours)%(1<<SinglePatterns)]
	for i := range SinglePatterns {
		if set&(1<<i) != 0 {
			l.Patterns = append(l.Patterns, fmt.Sprintf("pattern p%d", i))
		}
	}
	return l
}

// patternSets are all sets of single patterns, a bit each: the small ones first.
func patternSets() []int {
	all := make([]int, 1<<SinglePatterns)
	for i := range all {
		all[i] = i
	}
	slices.SortStableFunc(all, func(a, b int) int { return bits.OnesCount(uint(a)) - bits.OnesCount(uint(b)) })
	return all
}
