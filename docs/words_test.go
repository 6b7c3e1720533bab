package docs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// phrase is what nobody would say aloud to a colleague, and what to write instead.
type phrase struct {
	// words are a regular expression; a space in it also matches the end of a line
	// of a comment.
	words, instead string
	// allowed are longer phrases with the words in them that are fine.
	allowed []string
}

var phrases = []phrase{
	{words: "anew", instead: "again, or new"},
	{words: "afresh", instead: "again"},
	{words: "mend|mends|mended|mending", instead: "repair"},
	{words: `(?-i:\w+(?:Mend|Anew)\w*)|mendable|unmended`, instead: "Repair, or Again"},
	{words: "beside", instead: "next to, besides, or with"},
	{words: "but for", instead: "except, or except for"},
	{words: "but in tests", instead: "except in tests"},
	{words: "save for", instead: "except"},
	{words: "for want of", instead: "because there is no"},
	{words: "of theirs", instead: "their, or the noun"},
	{words: "of ours", instead: "our"},
	{words: "to be had", instead: "available, or what gives nothing"},
	{words: "who calls", instead: "the caller", allowed: []string{"who calls whom"}},
	{words: "whoever calls", instead: "whoever the caller is"},
	{words: "for who ", instead: "for whoever, or for those who"},
	{words: "comes about|come about|came about", instead: "happens, or is made"},
	{words: "makes out", instead: "sees, or says"},
	{words: "tells of", instead: "reports, or names"},
	{words: "stands in", instead: "is in", allowed: []string{"stands in the way", "stands in for"}},
	{words: "at leisure", instead: "without hurry"},
	{words: "alike", instead: "both, or in the same way"},
	{words: "in vain", instead: "without success"},
	{words: "no sooner than", instead: "not earlier than"},
	{words: "of late", instead: "recently"},
	{words: "heed|heeds|heeded", instead: "obey, or read"},
	{words: "shall", instead: "must, should or will"},
	{words: "(?-i:Nor)", instead: "a sentence with not"},
	{words: "ere", instead: "before"},
	{words: "lest", instead: "so that … not"},
	{words: "whence|thence|hence(?:forth)?|thereof|wherein|whereof|hitherto|hereby|forthwith", instead: "a shorter sentence"},
	{words: "whilst|albeit|notwithstanding", instead: "while, although, in spite of"},
}

// spared are the files in which phrases may be, each with its reason.
var spared = map[string]struct {
	texts []string // all where there is none
	why   string
}{
	"docs/words_test.go":                     {why: "it names them"},
	"CHANGELOG.md":                           {texts: []string{"drift --mend", "`mended`"}, why: "what had that name has another one now"},
	"cmd/fedlab/internal/cli/drift.go":       {texts: []string{"--mend", `"mend"`}, why: "who types the old flag is told the new one"},
	"cmd/fedlab/testdata/script/usage.txtar": {texts: []string{"--mend"}, why: "who types the old flag is told the new one"},
}

// expression finds the words of a phrase.
func (p phrase) expression() *regexp.Regexp {
	end := `\b`
	if strings.HasSuffix(p.words, " ") {
		end = ""
	}
	return regexp.MustCompile(`(?i)\b(?:` + strings.ReplaceAll(p.words, " ", `(?:\s|//|#)+`) + `)` + end)
}

// find returns each place of the text in which the words are, as its line and what
// is there.
func (p phrase) find(expression *regexp.Regexp, text []byte) (found []string) {
	for _, at := range expression.FindAllIndex(text, -1) {
		if !slices.ContainsFunc(p.allowed, func(longer string) bool {
			return len(text) >= at[0]+len(longer) && strings.EqualFold(string(text[at[0]:at[0]+len(longer)]), longer)
		}) {
			found = append(found, fmt.Sprintf("%d: %q", 1+bytes.Count(text[:at[0]], []byte("\n")), bytes.TrimSpace(text[at[0]:at[1]])))
		}
	}
	return found
}

// TestWordsAreThoseOfAColleague: people for whom English is a tool read all of
// this, in documents, messages and comments.
func TestWordsAreThoseOfAColleague(t *testing.T) {
	used := map[string]bool{}
	var expressions []*regexp.Regexp
	for _, p := range phrases {
		expressions = append(expressions, p.expression())
	}
	for _, suffix := range []string{".md", ".go", ".html", ".js", ".css", ".tpl", ".yaml", ".txtar", ".want"} {
		for name := range withTestdata(t, suffix) {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			if s, ok := spared[name]; ok {
				used[name] = true
				if s.texts == nil {
					continue
				}
				for _, spare := range s.texts {
					if !bytes.Contains(text, []byte(spare)) {
						t.Errorf("%s does not have %q any more: spare it no longer", name, spare)
					}
					text = bytes.ReplaceAll(text, []byte(spare), nil)
				}
			}
			for i, p := range phrases {
				for _, found := range p.find(expressions[i], text) {
					t.Errorf("%s:%s: write %s", name, found, p.instead)
				}
			}
		}
	}
	for name := range spared {
		if !used[name] {
			t.Errorf("%s is not there: spare it no longer", name)
		}
	}
}

func TestPhrasesAreFound(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"It was made anew.", []string{`1: "anew"`}},
		{"a renewed one, amended; recommend it", nil},
		{"one\nMends it", []string{`2: "Mends"`}},
		{"func TestUpMendsDrift(t", []string{`1: "TestUpMendsDrift"`}},
		{"// all is there, but\n// for one", []string{"1: \"but\\n// for\""}},
		{"who calls whom", nil},
		{"Who Calls whom, and who calls first", []string{`1: "who calls"`}},
		{"this is for who has it; for whoever has it; for who, line := range", []string{`1: "for who"`}},
		{"it stands in the way of what stands in the file", []string{`1: "stands in"`}},
		{"neither this nor that. Nor the other.", []string{`1: "Nor"`}},
		{"here, where, besides; next to it", nil},
	} {
		var got []string
		for _, p := range phrases {
			got = append(got, p.find(p.expression(), []byte(tt.text))...)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("in %q found %q, want %q", tt.text, got, tt.want)
		}
	}
}
