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
	w := &walker{redactor: r, text: text, depth: depth, tokens: json.NewDecoder(bytes.NewReader(text))}
	w.tokens.UseNumber()
	w.value()
	return apply(text, w.edits)
}

// walker goes through valid JSON once. So it may leave out the errors of tokens.
type walker struct {
	*redactor
	text   []byte
	depth  int
	tokens *json.Decoder
	edits  []edit
}

// value is one JSON value of a text.
type value struct {
	start, end int
	// kind is the first byte, holds what a string holds.
	kind  byte
	holds string
	// refers says that it only names a secret that is elsewhere, as in a pod's
	// volumes.
	refers bool
}

// value reads the value that is next, and cleans what strings hold.
func (w *walker) value() value {
	start := skip(w.text, w.at(), " \t\r\n,:")
	v := value{start: start, kind: w.text[start]}
	token, _ := w.tokens.Token()
	switch v.kind {
	case '{':
		v.refers = w.object()
	case '[':
		v.refers = w.array()
	case '"':
		v.holds, _ = token.(string)
	}
	v.end = w.at()
	if len(v.holds) >= 4 {
		if clean := w.clean([]byte(v.holds), w.depth+1); string(clean) != v.holds {
			w.edits = append(w.edits, edit{v.start, v.end, quote(string(clean))})
		}
	}
	return v
}

func (w *walker) at() int { return int(w.tokens.InputOffset()) }

// content returns what a string holds, and other values as they are written.
func (w *walker) content(v value) string {
	if v.kind == '"' {
		return v.holds
	}
	return string(w.text[v.start:v.end])
}

// more reports whether an object or array goes on; it steps over the end.
func (w *walker) more() bool {
	if w.tokens.More() {
		return true
	}
	_, _ = w.tokens.Token()
	return false
}

type member struct {
	key string
	value
}

func (w *walker) object() (refers bool) {
	var members []member
	refers = true
	for w.more() {
		m := member{w.value().holds, w.value()}
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
	refers = true
	var elements []value
	for w.more() {
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
