package redact

import (
	"bytes"
	"regexp"
	"strings"
)

var (
	secretKind = regexp.MustCompile(`(?m)^\s*kind:\s*["']?Secret\b`)
	// another is the next name of a list of names and values.
	another = regexp.MustCompile(`[ ,;]+[A-Za-z_][A-Za-z0-9_.-]*[:=]`)
	prose   = regexp.MustCompile(`^[a-z]+ [a-z]+`)
)

// fields removes the values of secret fields in YAML, in a log's key=value, and
// in what was JSON before it was cut: also whole blocks, arguments after a flag,
// and values whose name stands next to them.
func (r *redactor) fields(text []byte, _ int) []byte {
	f := &finder{text: text, jwk: bytes.Contains(text, []byte("kty")), secret: bytes.Contains(text, []byte("Secret")) && secretKind.Match(text), eol: -1}
	for f.at < len(text) {
		switch text[f.at] {
		case ':', '=':
			f.separator()
		case '-':
			f.flag()
		case '"', '\'':
			f.quoted()
		}
		f.at++
	}
	return apply(text, f.edits)
}

// finder goes through a text once.
type finder struct {
	text  []byte
	at    int
	edits []edit
	// jwk says that a JSON Web Key is somewhere in the text, secret that a
	// Kubernetes Secret is.
	jwk, secret bool
	// named is where a name ended that is a secret's, and valued the separator of
	// the last value, which may belong to a name after it.
	named, valued int
	// eol is where the line ends that was looked at last.
	eol int
}

// isNameByte reports whether a name may have c.
func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// name returns where the name starts that ends at end, and where the line's
// content before it ends: quotes may be around it.
func (f *finder) name(end int) (name string, start int) {
	end = skipBack(f.text, end, "\"'`\\")
	start = end
	for start > 0 && end-start < maxName && isNameByte(f.text[start-1]) {
		start--
	}
	return string(f.text[start:end]), start
}

// separator looks at the name before a colon or an equals sign.
func (f *finder) separator() {
	end := f.at
	for end > 0 && f.at-end < 4 && f.text[end-1] == ' ' {
		end--
	}
	if end < f.at && f.text[f.at] == ':' && (end == 0 || f.text[end-1] != '"' || !f.quoteFollows()) {
		return // words and a colon
	}
	name, start := f.name(end)
	if name == "" {
		return
	}
	lineStart, column := f.lineStart(start)
	lower := strings.ToLower(name)
	switch {
	case isSecret(name), f.secret && lineStart && ofSecret(name), f.jwk && privateJWK(name):
		if !isSecret(name) && f.jwk && privateJWK(name) && !f.longValue() {
			return
		}
		f.remove(name, lineStart, column)
	case isName(lower):
		f.nameOfPair(start)
	case isValue(lower):
		if f.named > 0 && f.together(f.named, start) {
			f.remove("value", lineStart, column)
		} else {
			f.valued = f.at
		}
	}
}

// near is how far a name and its value may be apart.
const near = 256

// upTo returns a finder of the text before end, which is near: so that what is
// looked at and stays is not looked at again and again.
func (f *finder) upTo(at, end int) *finder {
	return &finder{text: f.text[:min(len(f.text), end)], at: at, eol: -1}
}

// nameOfPair looks at a name that is a value itself, and removes the value that
// stood before it.
func (f *finder) nameOfPair(start int) {
	v := f.upTo(f.at, f.at+near).value("", false, 0)
	if !isSecret(strings.Trim(string(f.text[v.start:v.end]), `"'\,}])`)) {
		return
	}
	f.named = v.end
	if f.valued == 0 || start-f.valued > 16*near {
		return
	}
	before := f.upTo(f.valued, start).value("", false, 0)
	if value := string(f.text[before.start:before.end]); f.together(before.end, start) && !harmless(value) {
		f.edits = append(f.edits, before)
	}
}

// quoteFollows reports whether a value in quotes is next, after the separator.
func (f *finder) quoteFollows() bool {
	rest := bytes.TrimLeft(f.text[f.at+1:min(len(f.text), f.at+8)], " \\")
	return len(rest) > 0 && rest[0] == '"'
}

// together reports whether two ends of a text belong to one pair of a name and a
// value.
func (f *finder) together(from, to int) bool {
	if to < from || to-from > near {
		return false
	}
	between := f.text[from:to]
	if bytes.ContainsAny(between, "{}") {
		return false
	}
	for _, line := range bytes.Split(between, []byte("\n"))[1:] {
		if line = bytes.TrimLeft(line, " \t"); bytes.HasPrefix(line, []byte("- ")) {
			return false
		}
	}
	return true
}

// lineStart reports whether a name begins its line, except for the dash of a list,
// and in which column.
func (f *finder) lineStart(start int) (bool, int) {
	const widest = 200
	start = skipBack(f.text, start, "\"'")
	for i := start; start-i <= widest; i-- {
		if i == 0 || f.text[i-1] == '\n' {
			return true, start - i
		}
		if c := f.text[i-1]; c != ' ' && c != '\t' && (c != '-' || i >= start || f.text[i] != ' ') {
			return false, 0
		}
	}
	return false, 0
}

// longValue reports whether the next value is as long as a number of a key.
func (f *finder) longValue() bool {
	v := f.upTo(f.at, f.at+near).value("", false, 0)
	return len(bytes.Trim(f.text[v.start:v.end], `"'\,`)) >= 16
}

// remove takes out the value after the separator at f.at.
func (f *finder) remove(name string, lineStart bool, column int) {
	v := f.value(name, lineStart, column)
	if v.end <= v.start {
		return
	}
	if harmless(strings.Trim(string(f.text[v.start:v.end]), " \"'\\,;)}")) {
		return
	}
	f.edits = append(f.edits, v)
	f.at = v.end - 1
}

// value returns what stands after the separator at f.at, without the quotes
// around it.
func (f *finder) value(name string, lineStart bool, column int) edit {
	t, start := f.text, f.at+1
	yaml := lineStart && t[f.at] == ':'
	start = skip(t, skip(t, start, "=>"), " \t")
	spaced := start > f.at+1
	result := edit{start: start, end: start, with: mark("secret")}
	escapes := skip(t, start, `\`)
	eol := f.lineEnd(start)
	line := bytes.TrimRight(t[start:eol], "\r \t,")
	switch {
	case escapes < len(t) && strings.IndexByte("\"'`", t[escapes]) >= 0:
		end, closed := closing(t, escapes+1, escapes-start)
		result.start, result.end = escapes+1, end
		if !closed {
			result.end = f.block(end, column, false)
		}
		return result
	case len(line) > 0 && strings.IndexByte("[{(", line[0]) >= 0:
		result.end = f.balanced(start, column)
		return result
	case yaml || len(line) == 0:
		if len(line) == 0 || line[0] == '|' || line[0] == '>' || yaml {
			result.end = f.block(start+len(line), column, len(line) == 0)
			if len(line) == 0 && result.end == start {
				return result // there is nothing
			}
			if len(line) == 0 {
				result.with = " " + result.with
				result.start = min(start, result.end)
			}
		}
		return result
	}
	end := f.word(start)
	if t[f.at] == ':' {
		switch {
		case isHeader(name):
			end = f.phrase(start, false)
		case isPhrase(name):
			end = f.phrase(start, true)
		case spaced && name != "" && prose.Match(line):
			end = start // words about it
		}
	} else if isHeader(name) {
		end = f.phrase(start, false)
	}
	result.end = end
	return result
}

// word returns where a value without quotes ends: with a space, or a quote that
// closes something around it.
func (f *finder) word(at int) int {
	for ; at < len(f.text); at++ {
		switch f.text[at] {
		case '[':
			at += max(1, markLength(f.text[at:])) - 1
		case ' ', '\t', '\r', '\n':
			return at
		case '"', '\'', '`':
			if after := at + 1; after == len(f.text) || strings.IndexByte(" \t\r\n,;:)]}\\", f.text[after]) >= 0 {
				return skipBack(f.text, at, `\`)
			}
		}
	}
	return at
}

// phrase returns where words end: with the line, with a quote that closes
// something around them, or, if it may be, before another name.
func (f *finder) phrase(start int, names bool) int {
	end, eol := f.word(start), f.lineEnd(start)
	for end < eol && (f.text[end] == ' ' || f.text[end] == '\t' || f.text[end] == '\r') {
		end = f.word(end + 1)
	}
	words := f.text[start:min(end, eol)]
	if names {
		if next := another.FindIndex(words); next != nil && next[0] > 0 {
			words = words[:next[0]]
		}
	}
	return start + len(bytes.TrimRight(words, " \t\r"))
}

// lineEnd returns where the line ends that at is in.
func (f *finder) lineEnd(at int) int {
	if at > f.eol {
		f.eol = lineEnd(f.text, at)
	}
	return f.eol
}

// balanced returns where a bracket closes that opens at start, and what follows
// it without a space; else where the block ends that begins there.
func (f *finder) balanced(start, column int) int {
	depth := 0
	eol := f.lineEnd(start)
	for i := start; i < eol; i++ {
		switch f.text[i] {
		case '[', '{', '(':
			depth++
		case ']', '}', ')':
			if depth--; depth == 0 {
				return f.word(i + 1)
			}
		}
	}
	return f.block(eol, column, true)
}

// block returns where the lines end that belong to the line that at is in: those
// that are indented more than column, and, in a list, dashes and closing
// brackets at column.
func (f *finder) block(at, column int, list bool) int {
	end := lineEnd(f.text, at)
	last := at
	if end > at {
		last = end
	}
	for next := end + 1; next < len(f.text); {
		end = lineEnd(f.text, next)
		line := f.text[next:end]
		content := bytes.TrimLeft(line, " \t")
		indent := len(line) - len(content)
		belongs := indent > column || list && indent == column && len(content) > 0 && strings.IndexByte("-]})", content[0]) >= 0
		if len(bytes.TrimSpace(content)) > 0 {
			if !belongs {
				break
			}
			last = end
		}
		next = end + 1
	}
	return last
}

// flag looks at a flag whose value is the next argument.
func (f *finder) flag() {
	t := f.text
	if f.at > 0 && strings.IndexByte(" \t\n\"'`[(,=", t[f.at-1]) < 0 {
		return
	}
	end := f.at
	for end < len(t) && end-f.at < maxName && isNameByte(t[end]) {
		end++
	}
	name := string(t[f.at:end])
	if end == len(t) || t[end] == '=' || t[end] == ':' || !isSecret(name) && name != "-u" && name != "--user" {
		return
	}
	start := skip(t, end, "\"'`\\, \t\r\n")
	if gap := t[end:start]; bytes.IndexByte(gap, '\n') >= 0 && bytes.HasPrefix(t[start:], []byte("- ")) {
		start = skip(t, start+2, "\"' ")
	}
	if start == end || start == len(t) || t[start] == '-' {
		return
	}
	stop := f.word(start)
	if open := t[start-1]; isSecret(name) && (open == '"' || open == '\'' || open == '`') {
		stop, _ = closing(t, start, start-1-skipBack(t, start-1, `\`))
	}
	if value := string(t[start:stop]); harmless(value) || !isSecret(name) && !strings.Contains(value, ":") {
		return
	}
	f.edits = append(f.edits, edit{start, stop, mark("secret")})
	f.at = stop - 1
}

// quoted looks at a quoted value that stands next to its name, as in: token "x".
func (f *finder) quoted() {
	end := skipBack(f.text, f.at, `\`)
	escapes := f.at - end
	if end == 0 || f.text[end-1] != ' ' {
		return
	}
	name, _ := f.name(end - 1)
	if word := strings.ToLower(name); !isSecret(name) || strings.HasSuffix(word, "secret") || strings.HasSuffix(word, "secrets") || strings.HasPrefix(name, "-") {
		return
	}
	stop, closed := closing(f.text[:min(len(f.text), f.at+16*near)], f.at+1, escapes)
	if !closed || harmless(string(f.text[f.at+1:stop])) {
		return
	}
	f.edits = append(f.edits, edit{f.at + 1, stop, mark("secret")})
	f.at = stop
}
