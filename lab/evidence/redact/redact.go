// Package redact takes secrets out of text: private keys, tokens, and the values
// of fields that are called a password or the like. Public values stay:
// certificates, bundles, SPIFFE IDs, messages.
//
// It is a second net. The caller decides what is collected at all; this package
// refuses to know where a text comes from. It reads JSON and YAML, also inside
// strings of each other, and base64 and hexadecimal by what they decode to.
// Where it is unclear how far a secret goes, more is removed rather than less.
package redact

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
)

const (
	// maxDepth is how many encodings inside of each other are read. Whatever is
	// encoded more often is removed unread.
	maxDepth = 8
	// factor bounds the work: no more than so many bytes are read for each byte
	// of the text, in all depths together. Real logs need less than 3.
	factor = 16
	// spare is what a short text may need more than that.
	spare = 1 << 20
)

// Text returns text without secrets. The time it takes grows as the length of
// the text does. The only error is that of ctx, when it ends before.
func Text(ctx context.Context, text []byte) ([]byte, error) {
	r := &redactor{ended: ctx.Err, budget: factor*len(text) + spare}
	clean := r.clean(text, 0)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return clean, nil
}

type redactor struct {
	ended func() error
	// budget is how many bytes may still be read.
	budget int
}

// mark stands where something was removed.
func mark(what string) string { return "[removed: " + what + "]" }

// markLength returns how long the mark is that text begins with; 0 if it begins
// with none.
func markLength(text []byte) int {
	const longest = 40
	if !bytes.HasPrefix(text, []byte("[removed: ")) {
		return 0
	}
	return bytes.IndexByte(text[:min(len(text), longest)], ']') + 1
}

// clean returns a text without secrets. It is decoded depth times.
func (r *redactor) clean(text []byte, depth int) []byte {
	r.budget -= len(text)
	if depth > maxDepth || r.budget < 0 {
		return []byte(mark("nested text"))
	}
	var out []byte
	plain := 0
	for at := 0; ; {
		if r.ended() != nil {
			return nil
		}
		start, end := nextJSON(text, at)
		if start < 0 {
			break
		}
		out = append(out, r.plain(text[plain:start], depth)...)
		out = append(out, r.json(text[start:end], depth)...)
		plain, at = end, end
	}
	rest := r.plain(text[plain:], depth)
	if plain == 0 {
		return rest
	}
	return append(out, rest...)
}

// plain cleans text that is no JSON.
func (r *redactor) plain(text []byte, depth int) []byte {
	for _, pass := range []func([]byte, int) []byte{
		r.quoted, r.compressed, r.pem, r.encoded, r.forms, r.fields,
	} {
		if len(text) == 0 || r.ended() != nil {
			return nil
		}
		text = pass(text, depth)
	}
	return text
}

// skip returns where text goes on after bytes of a kind, from at on.
func skip(text []byte, at int, kind string) int {
	for at < len(text) && strings.IndexByte(kind, text[at]) >= 0 {
		at++
	}
	return at
}

// skipBack returns where bytes of a kind begin that end before at.
func skipBack(text []byte, at int, kind string) int {
	for at > 0 && strings.IndexByte(kind, text[at-1]) >= 0 {
		at--
	}
	return at
}

type edit struct {
	start, end int
	with       string
}

// apply returns text with edits made. Of two edits one of which covers the
// other, the wider counts.
func apply(text []byte, edits []edit) []byte {
	if len(edits) == 0 {
		return text
	}
	slices.SortStableFunc(edits, func(a, b edit) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end))
	})
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		if e.end <= at && at > 0 {
			continue
		}
		out.Write(text[at:max(at, e.start)])
		out.WriteString(e.with)
		at = e.end
	}
	out.Write(text[at:])
	return out.Bytes()
}
