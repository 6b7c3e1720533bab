package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxSize is what a lab file may have; the largest lab that makes sense is a
// tenth of it. A ConfigMap, where a lab keeps its file, holds four times as much.
const maxSize = 256 << 10

// parse splits the file into YAML nodes. Its problems are those after which
// there are no fields to speak of.
func parse(data []byte) (*yaml.Node, Problems) {
	one := func(line, column int, cause, want string) Problems {
		return Problems{{Line: line, Column: column, Cause: cause, Want: want}}
	}
	if len(data) > maxSize {
		return nil, one(1, 1, "the file is too large", fmt.Sprintf("at most %d bytes", maxSize))
	}
	if at, cause := unreadable(data); cause != "" {
		before := data[:at]
		line := bytes.Count(before, []byte("\n")) + 1
		column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
		return nil, one(line, column, cause, "save the file as plain text in UTF-8")
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, one(1, 1, "the file is empty", `write a lab, or start from what "fedlab init" writes`)
	case err != nil:
		return nil, syntaxProblem(data, err)
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, one(second.Line, second.Column, "a second document starts", "one lab for each file: remove it, or give it a file of its own")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxProblem(data, err)
	}
	root := document.Content[0]
	if root.ShortTag() == "!!null" {
		return nil, one(1, 1, "the file is empty", `write a lab, or start from what "fedlab init" writes`)
	}
	if aliases := aliases(root, nil); aliases != nil {
		return nil, aliases
	}
	return root, nil
}

// unreadable finds the first place that is not text, or that YAML takes for the
// end of a line and an editor does not.
func unreadable(data []byte) (at int, cause string) {
	for at < len(data) {
		r, size := utf8.DecodeRune(data[at:])
		switch {
		case r == utf8.RuneError && size == 1:
			return at, fmt.Sprintf("byte 0x%02x is not UTF-8", data[at])
		case r == '\t', r == '\n', r == '\r' && bytes.HasPrefix(data[at+1:], []byte("\n")):
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return at, fmt.Sprintf("character %U is not text", r)
		}
		at += size
	}
	return at, ""
}

// aliases refuses YAML aliases and merges: a value stands where it is used, its
// position is its own, and a small file stays small.
func aliases(n *yaml.Node, found Problems) Problems {
	if n.Kind == yaml.AliasNode {
		return append(found, Problem{
			Line: n.Line, Column: n.Column,
			Cause: "alias " + quote("*"+n.Value), Want: "write the value out here: lab files have no aliases",
		})
	}
	for _, child := range n.Content {
		found = aliases(child, found)
	}
	return found
}

// syntaxProblem places an error of the YAML parser, which has its line in its
// text only.
func syntaxProblem(data []byte, err error) Problems {
	lines := bytes.Split(data, []byte("\n"))
	for i, l := range lines {
		if indent := bytes.TrimLeft(l, " "); bytes.HasPrefix(indent, []byte("\t")) {
			return Problems{{
				Line: i + 1, Column: len(l) - len(indent) + 1,
				Cause: "a tab in the indentation", Want: "indent with spaces",
			}}
		}
	}
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, text, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			message, line = text, min(n, len(lines))
		}
	}
	return Problems{{
		Line: line, Column: 1,
		Cause: "no YAML: " + message, Want: "repair this line or the one next to it; quotes, colons and indentation are what is mostly wrong",
	}}
}
