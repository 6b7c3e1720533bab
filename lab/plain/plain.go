// Package plain writes foreign text so that a terminal shows it and obeys none of
// it: what a server answered, an archive holds or a pod logged may have escape
// sequences in it, which move the cursor, set titles or hide text.
//
// It refuses to know what the text means: line ends and tabs stay, all else that
// controls is written as an escape, such as \u001b, which JSON reads as the same.
package plain

import (
	"fmt"
	"io"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Bytes returns text without what a terminal obeys. Bytes that are no UTF-8
// become U+FFFD.
func Bytes(text []byte) []byte {
	clean, rest := plain(text)
	for range rest {
		clean = utf8.AppendRune(clean, utf8.RuneError)
	}
	return clean
}

// Writer returns a writer that passes on to w what is plain. It keeps back no
// more than a character that is cut in two, and may be written to from several
// goroutines.
func Writer(w io.Writer) io.Writer { return &writer{to: w} }

type writer struct {
	to   io.Writer
	mu   sync.Mutex
	rest []byte
}

// Write reports all of p as written, or nothing of it with the error of the
// writer below.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clean, rest := plain(append(w.rest, p...))
	if _, err := w.to.Write(clean); err != nil {
		return 0, err
	}
	w.rest = append([]byte(nil), rest...)
	return len(p), nil
}

// plain returns the text up to a character that is cut in two, and that.
func plain(text []byte) (clean, rest []byte) {
	clean = make([]byte, 0, len(text))
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1 && !utf8.FullRune(text):
			return clean, text
		case controls(r):
			clean = fmt.Appendf(clean, `\u%04x`, r)
		default:
			clean = utf8.AppendRune(clean, r)
		}
		text = text[size:]
	}
	return clean, nil
}

// controls reports whether a terminal may do anything but show a character: C0
// and C1, among them the carriage return, and what turns the direction of text
// or breaks lines.
func controls(r rune) bool {
	if r == '\n' || r == '\t' {
		return false
	}
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}
