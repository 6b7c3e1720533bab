package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// rendered is what a renderer writes of records.
func rendered(t *testing.T, render func(io.Writer, []trial.Record) error, records ...trial.Record) string {
	t.Helper()
	var text bytes.Buffer
	if err := render(&text, records); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func console(colour bool) func(io.Writer, []trial.Record) error {
	return func(w io.Writer, records []trial.Record) error {
		for _, r := range records {
			if err := Console(w, r, colour); err != nil {
				return err
			}
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestGolden(t *testing.T) {
	golden(t, "run.html", rendered(t, HTML, stored()...))
	golden(t, "one.html", rendered(t, HTML, empty()))
	golden(t, "junit.xml", rendered(t, JUnit, stored()...))
	golden(t, "console.txt", rendered(t, console(false), stored()...))
}

// elements are the elements of a text with the names of their attributes, in
// their order, and the addresses that it leads to.
func elements(t *testing.T, text string, strict bool) (all, addresses []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	if d.Strict = strict; !strict {
		d.AutoClose, d.Entity = xml.HTMLAutoClose, xml.HTMLEntity
	}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all, addresses
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			element := start.Name.Local
			for _, a := range start.Attr {
				element += " " + a.Name.Local
				if a.Name.Local == "href" || a.Name.Local == "src" {
					addresses = append(addresses, a.Value)
				}
			}
			all = append(all, element)
		}
	}
}

// harmless is as long as a text, with its spaces where they are.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\n' {
			return r
		}
		return 'x'
	}, text)
}

func TestWhatARecordSaysIsNotObeyed(t *testing.T) {
	for name, tt := range map[string]struct {
		render func(io.Writer, []trial.Record) error
		strict bool
	}{"HTML": {HTML, false}, "JUnit": {JUnit, true}} {
		got, addresses := elements(t, rendered(t, tt.render, filled(evil), rotation()), tt.strict)
		want, _ := elements(t, rendered(t, tt.render, filled(harmless(evil)), rotation()), tt.strict)
		if len(got) < 20 || !slices.Equal(got, want) {
			t.Errorf("%s of a hostile record has other elements than that of a harmless one:\n%s\nwant\n%s", name, got, want)
		}
		for _, a := range addresses {
			if !strings.HasPrefix(a, "#record-") && !strings.HasPrefix(a, "https://") {
				t.Errorf("%s leads to %q", name, a)
			}
		}
	}

	for name, text := range map[string]string{
		"HTML":               rendered(t, HTML, filled(evil)),
		"console":            rendered(t, console(false), filled(evil)),
		"console in colours": strings.NewReplacer(good, "", bad, "", normal, "").Replace(rendered(t, console(true), filled(evil))),
	} {
		if i := strings.IndexAny(text, "\x1b\x00\u202e"); i >= 0 {
			t.Errorf("%s lets %q pass", name, text[i:i+1])
		}
	}
	if got, want := strings.Count(rendered(t, console(false), filled(evil)), "\n"), strings.Count(rendered(t, console(false), filled("x")), "\n"); got != want {
		t.Errorf("a hostile record takes %d lines, not %d", got, want)
	}
}

func TestHTMLNeedsNothingBesideItself(t *testing.T) {
	all, _ := elements(t, rendered(t, HTML, rotation()), false)
	for _, e := range all {
		name, attributes, _ := strings.Cut(e, " ")
		if slices.Contains([]string{"script", "link", "img", "iframe", "object", "embed", "use", "image"}, name) || strings.Contains(attributes, "src") {
			t.Errorf("the page has %s", e)
		}
	}
	for _, loads := range []string{"url(h", "url(\"", "url('", "url(/", "@import"} {
		if strings.Contains(pageText, loads) {
			t.Errorf("the page's style has %s", loads)
		}
	}
}

func TestEachOutcomeHasItsOwnLook(t *testing.T) {
	if got, want := len(glyphs()), len(traffic.Outcomes())-1; got != want {
		t.Errorf("there are %d glyphs for %d outcomes that are no answers", got, want)
	}
	for _, o := range traffic.Outcomes() {
		_, rule, _ := strings.Cut(classOf(o), " ")
		if !strings.Contains(pageText, "\n."+rule+" ") && !strings.Contains(pageText, "\n."+rule+", ") {
			t.Errorf("the page has no colour for .%s, which is %s", rule, o)
		}
	}
}

func TestConsoleColours(t *testing.T) {
	plain, colours := rendered(t, console(false), failed()), rendered(t, console(true), failed())
	var first []string
	for line := range strings.Lines(colours) {
		if word, rest, ok := strings.Cut(line, normal); ok {
			first = append(first, word)
			if strings.Contains(rest, "\x1b") {
				t.Errorf("more than the first word is painted: %q", line)
			}
		}
	}
	if want := []string{bad + "FAILS", bad + "FAILS", good + "holds", bad + "FAILS"}; !slices.Equal(first, want) {
		t.Errorf("painted %q, want %q", first, want)
	}
	if got := strings.NewReplacer(good, "", bad, "", normal, "").Replace(colours); got != plain {
		t.Errorf("without its colours:\n%s\nwant\n%s", got, plain)
	}
}

func TestJUnitOfARecordThatDoesNotSayWhy(t *testing.T) {
	r := record("drift/x", "claim", 1)
	if got, want := rendered(t, JUnit, r), `<failure message="the record does not say why" type="does-not-hold">the record does not say why</failure>`; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nlacks\n%s", got, want)
	}
	r.Steps = append(r.Steps, trial.Step{Name: "look", Error: "nothing there"})
	if got, want := rendered(t, JUnit, r), `message="look: nothing there"`; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nlacks\n%s", got, want)
	}
}

func TestSource(t *testing.T) {
	for text, want := range map[string]source{
		"https://a.example/b":             {"https://a.example/b", ""},
		"https://a.example/b#c (the end)": {"https://a.example/b#c", "(the end)"},
		"http://a.example":                {"http://a.example", ""},
		"SPIRE pkg/x.go: it is so":        {"", "SPIRE pkg/x.go: it is so"},
		"javascript:alert(1)":             {"", "javascript:alert(1)"},
		"javascript://a.example/%0aevil":  {"", "javascript://a.example/%0aevil"},
		"https:nowhere":                   {"", "https:nowhere"},
		"":                                {"", ""},
	} {
		if got := sourceOf(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
