package redact

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// quoted cleans strings in which something is escaped by what they hold, such as
// JSON in a message of slog.
func (r *redactor) quoted(text []byte, depth int) []byte {
	var edits []edit
	for at := 0; at < len(text); {
		i := bytes.IndexByte(text[at:], '"')
		if i < 0 {
			break
		}
		start := at + i + 1
		end, closed := closing(text, start, 0)
		content := text[start:end]
		at = end + 1
		if bytes.IndexByte(content, '\\') < 0 {
			continue
		}
		plain := unescape(content)
		clean := r.clean(plain, depth+1)
		if bytes.Equal(clean, plain) {
			continue
		}
		with := quote(string(clean))
		if !closed {
			with = strings.TrimSuffix(with, `"`)
		} else {
			end++
		}
		edits = append(edits, edit{start - 1, end, with})
	}
	return apply(text, edits)
}

// closing returns where a string ends whose quote is escaped by so many
// backslashes: at its closing quote, or at that of a string around it, or with
// the line.
func closing(text []byte, at, escapes int) (end int, closed bool) {
	opening := byte('"')
	if at > 0 {
		opening = text[at-1]
	}
	run := 0
	for i := at; i < len(text) && text[i] != '\n'; i++ {
		switch text[i] {
		case '\\':
			run++
			continue
		case opening:
			if run < escapes || (run-escapes)%(2*(escapes+1)) == 0 {
				return i - min(run, escapes), true
			}
		}
		run = 0
	}
	return lineEnd(text, at), false
}

// unescape undoes the escapes of JSON and Go, and leaves alone what is none.
func unescape(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for rest := string(text); rest != ""; {
		if rest[0] == '\\' {
			if c, multibyte, tail, err := strconv.UnquoteChar(rest, '"'); err == nil {
				if multibyte {
					out = utf8.AppendRune(out, c)
				} else {
					out = append(out, byte(c))
				}
				rest = tail
				continue
			}
			if strings.HasPrefix(rest, `\/`) || strings.HasPrefix(rest, `\'`) {
				rest = rest[1:]
			}
		}
		out, rest = append(out, rest[0]), rest[1:]
	}
	return out
}
