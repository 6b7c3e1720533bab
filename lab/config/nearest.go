package config

import (
	"fmt"
	"strings"
)

// choose words the right form where one of candidates is wanted, the nearest to
// what stands there first.
func choose(wrong string, candidates []string) string {
	all := strings.Join(candidates, ", ")
	switch near := Nearest(wrong, candidates); {
	case len(candidates) == 1:
		return fmt.Sprintf("write %q", candidates[0])
	case near != "":
		return fmt.Sprintf("write %q, the nearest of %s", near, all)
	default:
		return "write one of " + all
	}
}

// Nearest returns the candidate that word most likely means, or "": at most one
// edit for each three letters, upper and lower case being the same.
func Nearest(word string, candidates []string) string {
	best, fewest := "", 0
	for _, c := range candidates {
		edits := distance(strings.ToLower(word), strings.ToLower(c))
		if edits <= max(1, len(c)/3) && (best == "" || edits < fewest) {
			best, fewest = c, edits
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that make b of a (optimal string alignment).
func distance(a, b string) int {
	const most = 255 // of a trust domain; nothing that is right is longer
	if len(a) > most || len(b) > most {
		return most
	}
	s, t := []rune(a), []rune(b)
	rows := make([][]int, len(s)+1)
	for i := range rows {
		rows[i] = make([]int, len(t)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(s); i++ {
		for j := 1; j <= len(t); j++ {
			replaced := rows[i-1][j-1]
			if s[i-1] != t[j-1] {
				replaced++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replaced)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(s)][len(t)]
}
