// Package docs_test holds the documents to what they say: links lead somewhere,
// paths exist, quoted messages are in the code, tables are those of the code,
// and each dependency has its reason.
//
// It refuses to know the command: that each command and flag exists is checked
// in cmd/fedlab/internal/cli, and what guides do in e2e/guide.
package docs_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"

	"github.com/fedlab-dev/fedlab/e2e/guide"
)

var update = flag.Bool("update", false, "write the tables that are made by code")

// root is the folder of the checkout.
const root = ".."

// documents returns all Markdown files of the checkout by their paths from its
// root.
func documents(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name := range files(t, ".md") {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = data
	}
	if len(all) == 0 {
		t.Fatal("there is no document")
	}
	return all
}

// files yields the paths from the root of the files that end so, without what
// builds and runs leave, and without data of tests.
func files(t *testing.T, suffix string) func(yield func(string) bool) {
	t.Helper()
	return walk(t, suffix, func(name string) bool { return name == "testdata" })
}

// withTestdata is files together with data of tests.
func withTestdata(t *testing.T, suffix string) func(yield func(string) bool) {
	t.Helper()
	return walk(t, suffix, func(string) bool { return false })
}

func walk(t *testing.T, suffix string, skip func(folder string) bool) func(yield func(string) bool) {
	t.Helper()
	left := []string{".git", "bin", "dist", "evidence", "records"}
	return func(yield func(string) bool) {
		err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (slices.Contains(left, name) || skip(d.Name())):
				return fs.SkipDir
			case !d.IsDir() && strings.HasSuffix(name, suffix) && !yield(name):
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// links returns what a document links to, images included.
func links(source []byte) []string {
	var all []string
	visit(source, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.Link:
			all = append(all, string(n.Destination))
		case *ast.Image:
			all = append(all, string(n.Destination))
		}
	})
	return all
}

// anchors returns the names of a document's headings, as pages make them.
func anchors(source []byte) []string {
	var all []string
	visit(source, func(n ast.Node) {
		if heading, ok := n.(*ast.Heading); ok {
			if id, ok := heading.AttributeString("id"); ok {
				all = append(all, string(id.([]byte)))
			}
		}
	})
	return all
}

func visit(source []byte, do func(ast.Node)) {
	document := goldmark.New(goldmark.WithParserOptions(parser.WithAutoHeadingID())).Parser().Parse(text.NewReader(source))
	_ = ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			do(n)
		}
		return ast.WalkContinue, nil
	})
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := documents(t)
	for name, source := range all {
		for _, link := range links(source) {
			if strings.Contains(link, "://") {
				continue
			}
			to, anchor, _ := strings.Cut(link, "#")
			at := name
			if to != "" {
				at = path.Join(path.Dir(name), to)
			}
			if _, err := os.Stat(filepath.Join(root, at)); err != nil {
				t.Errorf("%s: the link %s leads to %s, which is not there", name, link, at)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(all[at]), anchor) {
				t.Errorf("%s: the link %s leads to a heading that %s does not have; it has %q", name, link, at, anchors(all[at]))
			}
		}
	}
}

// TestEachDocumentIsFound: what no link leads to, nobody reads.
func TestEachDocumentIsFound(t *testing.T) {
	all := documents(t)
	found := map[string]bool{}
	var follow func(name string)
	follow = func(name string) {
		if found[name] {
			return
		}
		found[name] = true
		for _, link := range links(all[name]) {
			to, _, _ := strings.Cut(link, "#")
			if next := path.Join(path.Dir(name), to); all[next] != nil {
				follow(next)
			}
		}
	}
	follow("README.md")
	for name := range all {
		if !found[name] {
			t.Errorf("no link leads from README.md to %s", name)
		}
	}
}

// TestPathsExist: a code span or command that names something below one of the
// checkout's folders names something that is there.
func TestPathsExist(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var folders []string
	for _, e := range entries {
		// What builds and runs leave is not in a fresh checkout.
		if e.IsDir() && e.Name() != "bin" && e.Name() != "evidence" && e.Name() != "records" {
			folders = append(folders, regexp.QuoteMeta(e.Name()))
		}
	}
	named := regexp.MustCompile(`(?:^|[\s"'=])(?:\./)?((?:` + strings.Join(folders, "|") + `)/[\w./*-]+)`)
	for name, source := range documents(t) {
		for line, commands := range guide.Commands(source) {
			for _, command := range commands {
				for _, found := range named.FindAllStringSubmatch(command, -1) {
					at := strings.TrimSuffix(strings.TrimRight(found[1], "."), "/")
					if there, err := filepath.Glob(filepath.Join(root, at)); err != nil || len(there) == 0 {
						t.Errorf("%s:%d: there is no %s", name, line, at)
					}
				}
			}
		}
	}
}

// TestTroubleshootingQuotesTheCode: nobody finds a message that was reworded.
func TestTroubleshootingQuotesTheCode(t *testing.T) {
	const document = "docs/troubleshooting.md"
	// What others say: the kernel, runc, Kubernetes, SPIRE.
	foreign := []string{
		"unable to apply caps: operation not permitted", "too many open files",
		`failed calling webhook "clusterspiffeids.spire.spiffe.io"`, "unexpected authority ID",
		"join token does not exist or has already been used",
	}
	var code strings.Builder
	for name := range files(t, ".go") {
		if !strings.HasSuffix(name, "_test.go") {
			data, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			code.Write(data)
		}
	}
	source := string(documents(t)[document])
	for _, class := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(source, -1) {
		if !strings.Contains(code.String(), `"`+class[1]+`"`) {
			t.Errorf("%s explains the class %s, which no code has", document, class[1])
		}
	}
	quoted := regexp.MustCompile("(?m)^### `(.+)`$").FindAllStringSubmatch(source, -1)
	if len(quoted) == 0 {
		t.Fatalf("%s quotes no message", document)
	}
	for _, q := range quoted {
		if slices.Contains(foreign, q[1]) {
			continue
		}
		for part := range strings.SplitSeq(q[1], "…") {
			if part = strings.Trim(part, " :"); part != "" && !strings.Contains(code.String(), part) {
				t.Errorf("%s quotes %q, and no code has %q", document, q[1], part)
			}
		}
	}
}

func TestDecisionsHaveTheirParts(t *testing.T) {
	all := documents(t)
	var names []string
	for name := range all {
		if path.Dir(name) == "docs/decisions" && path.Base(name) != "README.md" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if want := fmt.Sprintf("%04d-", i+1); !strings.HasPrefix(path.Base(name), want) {
			t.Errorf("%s: the number is not %s", name, want)
		}
		var headings []string
		visit(all[name], func(n ast.Node) {
			if h, ok := n.(*ast.Heading); ok && h.Level == 2 {
				headings = append(headings, string(h.Lines().Value(all[name])))
			}
		})
		if want := []string{"Context", "Choice", "Consequence"}; !slices.Equal(headings, want) {
			t.Errorf("%s has the parts %q, want %q", name, headings, want)
		}
		title, _, _ := bytes.Cut(all[name], []byte("\n"))
		row := fmt.Sprintf("| [%s](%s) | %s |\n", path.Base(name)[:4], path.Base(name), bytes.TrimPrefix(title, []byte("# ")))
		if !strings.Contains(string(all["docs/decisions/README.md"]), row) {
			t.Errorf("docs/decisions/README.md lacks the row %s", row)
		}
	}
}

// TestFiguresAreFilledIn: a figure that is not there yet must not be overlooked.
func TestFiguresAreFilledIn(t *testing.T) {
	var measured strings.Builder
	for name := range files(t, ".go") {
		if path.Dir(name) == "e2e/bench" {
			data, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			measured.Write(data)
		}
	}
	rows := regexp.MustCompile(`(?m)^\| (.+) \| (.+) \|$`).FindAllStringSubmatch(section(t, "README.md", "<!-- FIGURES", "<!-- END OF FIGURES"), -1)
	if len(rows) < 2 {
		t.Fatal("README.md has no figures")
	}
	for _, row := range rows {
		if row[2] == "?" {
			t.Errorf("README.md: this is not measured yet: %s", row[1])
		}
		for _, name := range regexp.MustCompile("`([a-z]+(?:-[a-z]+)+)`").FindAllStringSubmatch(row[1], -1) {
			if !strings.Contains(measured.String(), `"`+name[1]+`"`) {
				t.Errorf("README.md: e2e/bench measures no %s", name[1])
			}
		}
	}
}

// section returns what stands between two marks of a document.
func section(t *testing.T, document, from, to string) string {
	t.Helper()
	_, rest, found := strings.Cut(string(documents(t)[document]), from)
	inside, _, ended := strings.Cut(rest, to)
	if !found || !ended {
		t.Fatalf("%s has no section from %s to %s", document, from, to)
	}
	return inside
}

func TestPicturesAreWellFormedAndLoadNothing(t *testing.T) {
	names := slices.Sorted(maps.Keys(collect(files(t, ".svg"))))
	if !slices.Contains(names, "docs/img/lab.svg") {
		t.Fatalf("docs/img/lab.svg is not among %q", names)
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(data))
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			element, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			for _, a := range element.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" || element.Name.Local == "script" {
					t.Errorf("%s: %s has %s=%q", name, element.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
}

func collect(seq func(func(string) bool)) map[string]bool {
	all := map[string]bool{}
	for s := range seq {
		all[s] = true
	}
	return all
}
