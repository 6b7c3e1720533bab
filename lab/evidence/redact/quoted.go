package redact

import (
	"bytes"
	"strings"
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
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		switch c := text[i]; c {
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case '"', '\\', '/', '\'':
			out = append(out, c)
		case 'x', 'u', 'U':
			digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			n, ok := hexNumber(text[i+1:min(len(text), i+1+digits)], digits)
			if !ok {
				out = append(out, '\\', c)
				continue
			}
			if c == 'x' {
				out = append(out, byte(n))
			} else {
				out = append(out, string(n)...)
			}
			i += digits
		default:
			out = append(out, '\\', c)
		}
	}
	return out
}

func hexNumber(digits []byte, want int) (n rune, ok bool) {
	for _, d := range digits {
		value := strings.IndexByte("0123456789abcdef", d|0x20)
		if value < 0 {
			return 0, false
		}
		n = n<<4 | rune(value)
	}
	return n, len(digits) == want
}
