// Package evidence keeps what a lab has to say for itself when something went
// wrong: logs, events, objects, bundles and entries, as files of one folder.
//
// The folder may be passed on. Two nets keep secrets out of it: only named fields
// of named kinds of objects are collected, of the lab's own namespaces, Kubernetes
// Secrets never among them; and package redact removes from each file what is a
// secret all the same. A
// terminal that shows a file does not obey it either. This package refuses to judge
// what it gathers, and knows no
// adapter: it is handed pieces that read themselves.
package evidence

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab/evidence/redact"
	"github.com/fedlab-dev/fedlab/lab/plain"
)

const (
	// pieceBound is how long one piece may take: a lab of which evidence is
	// gathered is one of which something may not answer. The status of a lab
	// gives each of its parts 20 s.
	pieceBound = 30 * time.Second
	// sideBySide is how many pieces are read at once. It is few because each is
	// a request to an API that may be in trouble already.
	sideBySide = 8
	// longest is how much of one text is kept, its end: more than any log of
	// logLines that somebody would read. It bounds what redacting may take.
	longest = 8 << 20
)

// Piece is one file of the folder.
type Piece struct {
	// Path is the file's, below the folder and with slashes.
	Path string
	// Title is what the index shows the piece under, in the order of the pieces; one without
	// a title is only listed there. Of a page, *.html, the index shows a link.
	Title string
	// Read returns what goes into the file: a []byte or a string as it is,
	// anything else as JSON. What is nil leaves no file.
	Read func(ctx context.Context) (any, error)
}

// Summary tells what is in a folder.
type Summary struct {
	Dir string `json:"dir"`
	// Files are relative to Dir, with slashes and sorted.
	Files []string `json:"files"`
	// Problems are the pieces that could not be had.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is a piece that could not be had, and why.
type Problem struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// problems is the file that names what is not in the folder.
const problems = "problems.txt"

// Write reads the pieces, a few at a time, takes the secrets out, and writes
// them into dir, which must not exist or be empty, with an index that opens in a
// browser. A piece that cannot be read
// is a Problem and no error: what is broken is told by what cannot be had of it.
// An error means that the folder cannot be written, or that ctx ended, which says
// nothing of the lab.
func Write(ctx context.Context, dir string, pieces []Piece) (Summary, error) {
	s := Summary{Dir: dir, Files: []string{}}
	if err := empty(dir); err != nil {
		return s, fmt.Errorf("write evidence: %w", err)
	}
	var mu sync.Mutex
	shown := make([]section, len(pieces))
	var group errgroup.Group
	group.SetLimit(sideBySide)
	for i, p := range pieces {
		group.Go(func() error {
			text, err := p.text(ctx)
			if err == nil && text != nil {
				if err := write(dir, p.Path, text); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				s.Problems = append(s.Problems, Problem{Path: p.Path, Reason: reason(err)})
			case text != nil:
				s.Files = append(s.Files, p.Path)
				if p.Title != "" {
					shown[i] = section{p.Title, p.Path, string(text)}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return s, fmt.Errorf("write evidence: %w", err)
	}
	if ctx.Err() != nil {
		return s, fmt.Errorf("write evidence: folder %s lacks what was not read yet: %w", dir, context.Cause(ctx))
	}
	slices.Sort(s.Files)
	slices.SortFunc(s.Problems, func(a, b Problem) int { return cmp.Compare(a.Path, b.Path) })
	if len(s.Problems) > 0 {
		var list strings.Builder
		for _, p := range s.Problems {
			fmt.Fprintf(&list, "%s: %s\n", p.Path, p.Reason)
		}
		if err := write(dir, problems, []byte(list.String())); err != nil {
			return s, fmt.Errorf("write evidence: %w", err)
		}
	}
	page, err := indexOf(s, slices.DeleteFunc(shown, func(s section) bool { return s.Title == "" }), time.Now())
	if err == nil {
		err = write(dir, index, page)
	}
	if err != nil {
		return s, fmt.Errorf("write evidence: %w", err)
	}
	return s, nil
}

func (p Piece) text(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pieceBound)
	defer cancel()
	content, err := p.Read(ctx)
	if err != nil || content == nil {
		return nil, err
	}
	var text []byte
	switch c := content.(type) {
	case []byte:
		text = end(c)
	case string:
		text = end([]byte(c))
	default:
		if text, err = encode(content); err != nil {
			return nil, err
		}
	}
	clean, err := redact.Text(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("remove secrets from %d bytes: %w", len(text), err)
	}
	return plain.Bytes(clean), nil
}

// end returns the end of a text that is too long to keep, from a line's begin on.
func end(text []byte) []byte {
	cut := len(text) - longest
	if cut <= 0 {
		return text
	}
	if i := bytes.IndexByte(text[cut:], '\n'); i >= 0 {
		cut += i + 1
	}
	return append(fmt.Appendf(nil, "[removed: the first %d bytes]\n", cut), text[cut:]...)
}

func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return out.Bytes(), nil
}

// reason returns the words of an error without secrets.
func reason(err error) string {
	text, unread := redact.Text(context.Background(), end([]byte(err.Error())))
	if unread != nil {
		return unread.Error()
	}
	return string(plain.Bytes(text))
}

// empty makes a folder where there is none, and refuses one that holds
// something: evidence of two moments is evidence of nothing.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("folder %s is not empty: name a new one", dir)
	}
	return err
}

func write(dir, path string, text []byte) error {
	local, err := filepath.Localize(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	name := filepath.Join(dir, local)
	return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, text, 0o644))
}
