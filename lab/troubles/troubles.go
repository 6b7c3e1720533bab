// Package troubles reads the document on what goes wrong with labs, and finds
// its entries by the words of a message.
//
// It refuses to know labs: a message is text, and so is what is said of it.
package troubles

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// Entry is one thing that goes wrong.
type Entry struct {
	// Section is the part of the document that has the entry.
	Section string `json:"section"`
	// Title is the message, in which "…" stands for what differs, or the trouble in
	// a few words.
	Title string `json:"title"`
	// Message is set where Title is what a program says.
	Message bool `json:"message"`
	// Text is what it means and what to do, in Markdown.
	Text string `json:"text"`
}

// row is a line of a table whose first cell is code.
var row = regexp.MustCompile("^\\| (`[^|]+`) \\| (.+) \\|$")

// Read returns the entries of a document in Markdown, in its order: each heading
// of the third level, each row of a table whose first cell is code, and what a
// section says before both. What comes before the first section is left out, and so are
// comments.
func Read(document string) []Entry {
	var entries []Entry
	var rows []Entry
	var at *Entry
	section := ""
	begin := func(e Entry) {
		entries = append(entries, rows...)
		rows = nil
		entries = append(entries, e)
		at = &entries[len(entries)-1]
	}
	for line := range strings.Lines(document) {
		line = strings.TrimSuffix(line, "\n")
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
			begin(Entry{Section: section, Title: title})
			continue
		}
		if title, ok := strings.CutPrefix(line, "### "); ok {
			message := strings.HasPrefix(title, "`") && strings.HasSuffix(title, "`")
			begin(Entry{Section: section, Title: strings.Trim(title, "`"), Message: message})
			continue
		}
		if at == nil {
			continue
		}
		if cells := row.FindStringSubmatch(line); cells != nil {
			rows = append(rows, Entry{Section: section, Title: strings.ReplaceAll(cells[1], "`", ""), Message: true, Text: cells[2]})
			continue
		}
		if !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "<!--") {
			at.Text += line + "\n"
		}
	}
	entries = append(entries, rows...)
	for i := range entries {
		entries[i].Text = strings.TrimSpace(entries[i].Text)
	}
	// A section that says nothing of its own is only a heading.
	return slices.DeleteFunc(entries, func(e Entry) bool { return e.Text == "" })
}

// Find returns the entries that words are about, the best first. The words may be
// a whole message, or a few of one.
func Find(entries []Entry, words string) []Entry {
	query := strings.ToLower(words)
	if found := best(entries, func(e Entry) int { return quotes(query, e) }); found != nil {
		return found
	}
	terms := termsOf(query)
	if len(terms) == 0 {
		return nil
	}
	inTitle := func(e Entry) int { return count(terms, e.Title) }
	for _, have := range []func(Entry) bool{
		func(e Entry) bool { return inTitle(e) == len(terms) },
		func(e Entry) bool { return count(terms, e.Title+" "+e.Text) == len(terms) },
		// A message of which a part is another one than the document has.
		func(e Entry) bool { return inTitle(e) >= 2 && 2*inTitle(e) >= len(termsOf(strings.ToLower(e.Title))) },
	} {
		found := best(entries, func(e Entry) int {
			if !have(e) {
				return 0
			}
			return 1 + inTitle(e)
		})
		if found != nil {
			return found
		}
	}
	return nil
}

// best returns the entries with a rank above 0, the highest first.
func best(entries []Entry, rank func(Entry) int) []Entry {
	var found []Entry
	for _, e := range entries {
		if rank(e) > 0 {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b Entry) int { return cmp.Compare(rank(b), rank(a)) })
	return found
}

// quotes returns how many letters of an entry's message are in a text, in their
// order, or 0 where not all of them are, or too few to tell.
func quotes(text string, e Entry) int {
	const least = 10
	if !e.Message {
		return 0
	}
	letters := 0
	for part := range strings.SplitSeq(strings.ToLower(e.Title), "…") {
		if part = strings.Trim(part, " :"); part == "" {
			continue
		}
		at := strings.Index(text, part)
		if at < 0 {
			return 0
		}
		text = text[at+len(part):]
		letters += len(part)
	}
	if letters < least {
		return 0
	}
	return letters
}

var term = regexp.MustCompile(`[\p{L}\p{N}]+(?:[-_.'][\p{L}\p{N}]+)*`)

// termsOf returns the words of a text that tell something.
func termsOf(text string) []string {
	return slices.DeleteFunc(term.FindAllString(text, -1), func(w string) bool {
		return len(w) < 2 || slices.Contains([]string{"the", "of", "is", "it", "an", "and", "or", "to", "in", "on", "at", "for", "that", "what"}, w)
	})
}

// count returns how many of some words a text has.
func count(terms []string, text string) int {
	has := termsOf(strings.ToLower(text))
	n := 0
	for _, t := range terms {
		if slices.ContainsFunc(has, func(w string) bool { return strings.HasPrefix(w, t) }) {
			n++
		}
	}
	return n
}
