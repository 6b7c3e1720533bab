package redact

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// nextJSON returns where the next JSON object or array begins and ends, from at
// on; -1 where there is none. JSON that breaks off is none: reading goes on
// where it breaks, so that no byte is read twice.
func nextJSON(text []byte, at int) (start, end int) {
	for at < len(text) {
		i := bytes.IndexAny(text[at:], "{[")
		if i < 0 {
			break
		}
		at += i
		if !opens(text[at:]) {
			at++
			continue
		}
		var value json.RawMessage
		decoder := json.NewDecoder(bytes.NewReader(text[at:]))
		err := decoder.Decode(&value)
		if err == nil {
			return at, at + int(decoder.InputOffset())
		}
		syntax, broken := errors.AsType[*json.SyntaxError](err)
		if !broken {
			break // it breaks off with the text
		}
		at += max(1, int(syntax.Offset)-1)
	}
	return -1, -1
}

// opens reports whether JSON that can hold a secret may begin here.
func opens(text []byte) bool {
	rest := bytes.TrimLeft(text[1:min(len(text), 64)], " \t\r\n")
	return len(rest) > 0 && (rest[0] == '"' || text[0] == '[' && (rest[0] == '{' || rest[0] == '['))
}

// json cleans valid JSON, and leaves alone how it is laid out.
func (r *redactor) json(text []byte, depth int) []byte {
	w := &walker{redactor: r, text: text, depth: depth}
	w.value()
	return apply(text, w.edits)
}

type walker struct {
	*redactor
	text  []byte
	at    int
	depth int
	edits []edit
}

// value is one JSON value of a text.
type value struct {
	start, end int
	// kind is the first byte.
	kind byte
	// refers says that it only names a secret that is elsewhere, as in a pod's
	// volumes.
	refers bool
}

func (w *walker) space() { w.at = skip(w.text, w.at, " \t\r\n") }

func (w *walker) value() value {
	w.space()
	v := value{start: w.at, kind: w.text[w.at]}
	switch v.kind {
	case '{':
		v.refers = w.object()
	case '[':
		v.refers = w.array()
	case '"':
		w.quotedText()
	default:
		for w.at < len(w.text) && strings.IndexByte(" \t\r\n,]}", w.text[w.at]) < 0 {
			w.at++
		}
	}
	v.end = w.at
	return v
}

// quotedText reads a string, and cleans what it holds.
func (w *walker) quotedText() {
	start := w.at
	w.at++
	for w.text[w.at] != '"' {
		if w.text[w.at] == '\\' {
			w.at++
		}
		w.at++
	}
	w.at++
	content := w.content(value{start: start, end: w.at, kind: '"'})
	if len(content) < 4 {
		return
	}
	if clean := w.clean([]byte(content), w.depth+1); string(clean) != content {
		w.edits = append(w.edits, edit{start, w.at, quote(string(clean))})
	}
}

// content returns what a string holds, and other values as they are written.
func (w *walker) content(v value) string {
	text := w.text[v.start:v.end]
	if v.kind != '"' {
		return string(text)
	}
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1])
	}
	var content string
	if json.Unmarshal(text, &content) != nil {
		return string(text)
	}
	return content
}

// next steps over a comma, and reports whether the end is reached, which it
// steps over, too.
func (w *walker) next(end byte) bool {
	w.space()
	if w.text[w.at] == ',' {
		w.at++
		w.space()
	}
	if w.text[w.at] == end {
		w.at++
		return true
	}
	return false
}

type member struct {
	key string
	value
}

func (w *walker) object() (refers bool) {
	w.at++
	var members []member
	refers = true
	for !w.next('}') {
		key := w.value()
		w.space()
		w.at++ // the colon
		m := member{w.content(key), w.value()}
		members = append(members, m)
		refers = refers && (referring(m.key) && m.kind != '{')
	}
	named, jwk, secret := false, false, false
	for _, m := range members {
		named = named || isName(m.key) && m.kind == '"' && isSecret(w.content(m.value))
		jwk = jwk || m.key == "kty"
		secret = secret || m.key == "kind" && w.content(m.value) == "Secret"
	}
	for _, m := range members {
		if isSecret(m.key) && !m.refers || named && isValue(m.key) || jwk && privateJWK(m.key) || secret && ofSecret(m.key) {
			w.remove(m.value)
		}
	}
	return refers && len(members) > 0
}

func (w *walker) array() (refers bool) {
	w.at++
	refers = true
	var elements []value
	for !w.next(']') {
		v := w.value()
		elements = append(elements, v)
		refers = refers && v.refers
	}
	for i, v := range elements[:max(0, len(elements)-1)] {
		if v.kind != '"' || v.end-v.start > maxName {
			continue
		}
		// An argument after its flag, or a name and its value.
		name := w.content(v)
		flag := strings.HasPrefix(name, "-")
		if isSecret(name) && (flag || len(elements) == 2) && (!flag || !strings.HasPrefix(w.content(elements[i+1]), "-")) {
			w.remove(elements[i+1])
		}
	}
	return refers && len(elements) > 0
}

// remove takes a value out, unless it says that there is none.
func (w *walker) remove(v value) {
	if !harmless(w.content(v)) {
		w.edits = append(w.edits, edit{v.start, v.end, `"` + mark("secret") + `"`})
	}
}

// quote writes a string as JSON, which Go and most logs read, too.
func quote(text string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

// referring are the fields of an object that says where a secret is.
func referring(key string) bool {
	return slices.Contains([]string{
		"name", "namespace", "secretName", "key", "optional", "defaultMode", "items", "path", "mode", "audience", "expirationSeconds",
	}, key)
}
