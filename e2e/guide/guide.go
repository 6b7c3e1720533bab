// Package guide reads the guides and runs them: each console block of a guide
// is typed into one shell, in order, and what the shell answers is compared with
// what the guide shows.
//
// It refuses to know what a command does, and cleans nothing up: a guide takes
// down what it brings up, and who runs one that fails does so in its place.
//
// A console block reads like a terminal. A line that starts with "$ " is typed,
// the lines below it are what comes back. Of those, a line that is only "…"
// stands for any number of lines, and "…" within a line for any text; runs of
// blanks count as one. A command without lines below may say anything.
//
// A command has to end well, unless the next one is "echo $?". Where the fence
// says "console within=30s", what is shown may take that long to come true:
// until then the command is typed again, so that it must be one that only looks.
package guide

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

// Guide is what a document asks a person to type.
type Guide struct {
	// Name tells guides apart in messages: the path of the document.
	Name  string
	Steps []Step
}

// Step is one command.
type Step struct {
	// Line is that of the command in the document, counted from 1.
	Line    int
	Command string
	// Shows is what the document shows of the output, line by line; empty where
	// it shows nothing.
	Shows []string
	// Within is how long what is shown may take to come true; 0 is at once.
	Within time.Duration
}

const prompt = "$ "

// Parse reads the console blocks of a document. A block that cannot be run as it
// stands is an error; all of them are reported.
func Parse(name string, source []byte) (Guide, error) {
	g := Guide{Name: name}
	var errs []error
	for _, b := range blocks(source) {
		if b.language != "console" {
			continue
		}
		steps, err := b.steps()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, b.line, err))
		}
		g.Steps = append(g.Steps, steps...)
	}
	return g, errors.Join(errs...)
}

// Commands returns everything in a document that reads as a command line, with
// the number of its line: the commands of console and sh blocks, and each code
// span, be it one or not.
func Commands(source []byte) map[int][]string {
	commands := map[int][]string{}
	add := func(line int, text string) { commands[line] = append(commands[line], text) }
	for _, b := range blocks(source) {
		if b.language != "console" && b.language != "sh" {
			continue
		}
		for i, line := range b.lines {
			typed, isTyped := strings.CutPrefix(line, prompt)
			if isTyped || b.language == "sh" {
				add(b.line+i, typed)
			}
		}
	}
	walk(source, func(n ast.Node) {
		if span, ok := n.(*ast.CodeSpan); ok {
			var b bytes.Buffer
			line := 0
			for part := span.FirstChild(); part != nil; part = part.NextSibling() {
				if t, ok := part.(*ast.Text); ok {
					if line == 0 {
						line = lineAt(source, t.Segment.Start)
					}
					b.Write(t.Segment.Value(source))
				}
			}
			add(line, b.String())
		}
	})
	return commands
}

type block struct {
	language, info string
	// line is that of the first of lines in the document, counted from 1.
	line  int
	lines []string
}

func blocks(source []byte) []block {
	var all []block
	walk(source, func(n ast.Node) {
		fenced, ok := n.(*ast.FencedCodeBlock)
		if !ok || fenced.Lines().Len() == 0 {
			return
		}
		b := block{language: string(fenced.Language(source)), line: lineAt(source, fenced.Lines().At(0).Start)}
		if fenced.Info != nil {
			b.info = string(fenced.Info.Segment.Value(source))
		}
		for i := range fenced.Lines().Len() {
			segment := fenced.Lines().At(i)
			b.lines = append(b.lines, strings.TrimRight(string(segment.Value(source)), "\n"))
		}
		all = append(all, b)
	})
	return all
}

func walk(source []byte, visit func(ast.Node)) {
	root := goldmark.DefaultParser().Parse(text.NewReader(source))
	// The only error of a walk is that of its visitor.
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			visit(n)
		}
		return ast.WalkContinue, nil
	})
}

func lineAt(source []byte, offset int) int { return 1 + bytes.Count(source[:offset], []byte("\n")) }

func (b block) steps() ([]Step, error) {
	var within time.Duration
	for _, word := range strings.Fields(b.info)[1:] {
		limit, ok := strings.CutPrefix(word, "within=")
		d, err := time.ParseDuration(limit)
		if !ok || err != nil || d <= 0 {
			return nil, fmt.Errorf("unknown word %q after console: want within=DURATION", word)
		}
		within = d
	}
	var steps []Step
	continued := false
	for i, line := range b.lines {
		typed, isTyped := strings.CutPrefix(line, prompt)
		switch {
		case isTyped && !continued:
			steps = append(steps, Step{Line: b.line + i, Command: typed, Within: within})
		case len(steps) == 0:
			return nil, fmt.Errorf("the block starts with output: want a line that starts with %q", prompt)
		case continued:
			steps[len(steps)-1].Command += "\n" + line
		default:
			last := &steps[len(steps)-1]
			last.Shows = append(last.Shows, line)
		}
		continued = strings.HasSuffix(line, `\`) && (isTyped || continued)
	}
	for _, s := range steps {
		if s.Within > 0 && len(s.Shows) == 0 {
			return nil, fmt.Errorf("%q shows nothing that could come true within %s", s.Command, s.Within)
		}
	}
	return steps, nil
}
