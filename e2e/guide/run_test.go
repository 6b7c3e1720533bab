package guide_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/e2e/guide"
	"github.com/fedlab-dev/fedlab/lab/check"
)

// run runs a guide of one console block in a folder of its own, and returns what
// a person would have seen.
func run(t *testing.T, o guide.Options, fence string, lines ...string) (string, error) {
	t.Helper()
	var log strings.Builder
	o.Dir, o.Log = t.TempDir(), &log
	source := "```" + fence + "\n" + strings.Join(lines, "\n") + "\n```\n"
	if err := os.WriteFile(filepath.Join(o.Dir, "g.md"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	err := guide.Run(t.Context(), "g.md", o)
	return log.String(), err
}

func TestRunAccepts(t *testing.T) {
	for name, lines := range map[string][]string{
		"what is shown":             {"$ echo hello", "hello"},
		"no output shown":           {"$ echo hello"},
		"what was set before":       {"$ mkdir sub && cd sub && x=1", "$ basename $PWD; echo $x", "sub", "1"},
		"a function":                {"$ f() { echo \"got $1\"; }", "$ f it", "got it"},
		"both streams in order":     {"$ echo a; echo b >&2; echo c", "a", "b", "c"},
		"lines left out":            {"$ seq 9", "1", "…", "8", "9"},
		"no line where some may be": {"$ seq 2", "1", "…", "2"},
		"text left out":             {"$ echo took 12s in all", "took …s in …"},
		"columns of another width":  {"$ printf 'a    b\\n'", "a  b"},
		"blank lines":               {"$ printf 'a\\n\\nb\\n'", "a", "", "b"},
		"no end of line":            {"$ printf a", "a"},
		"characters of patterns":    {"$ echo 'a.b [1/2] (x) $'", "a.b [1/2] (x) $"},
		"an exit code asked for":    {"$ (exit 3)", "$ echo $?", "3"},
		"output and exit code":      {"$ echo no; false", "no", "$ echo $?", "1"},
		"nothing to be read":        {"$ cat", "$ echo still here", "still here"},
		"several lines":             {"$ echo one \\", "  two", "one two"},
		"a quote in it":             {"$ echo 'it'\"'\"'s'", "it's"},
	} {
		t.Run(name, func(t *testing.T) {
			if log, err := run(t, guide.Options{}, "console", lines...); err != nil {
				t.Errorf("%v\n%s", err, log)
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		lines []string
		want  string
	}{
		"other output": {[]string{"$ echo goodbye", "hello"},
			"g.md:2: $ echo goodbye: the output does not have line 1 of what is shown, \"hello\"; its output:\ngoodbye\n"},
		"a line that is missing": {[]string{"$ seq 3", "1", "3"},
			"g.md:2: $ seq 3: the output does not have line 2 of what is shown, \"3\"; its output:\n1\n2\n3\n"},
		"more output": {[]string{"$ seq 3", "1", "2"},
			"g.md:2: $ seq 3: there is more output than the 2 lines that are shown; its output:\n1\n2\n3\n"},
		"a failure": {[]string{"$ echo no; (exit 4)", "no"},
			"g.md:2: $ echo no; (exit 4): exit code 4; its output:\nno\n"},
		"another exit code": {[]string{"$ (exit 4)", "$ echo $?", "3"},
			"g.md:3: $ echo $?: the output does not have line 1 of what is shown, \"3\"; its output:\n4\n"},
		"a quote that stays open": {[]string{"$ echo 'open", "open"},
			"g.md:2: $ echo 'open: the shell ended: exit status 2; its output:\nbash: "},
		"a shell that ends": {[]string{"$ exit 0", "$ true"},
			"g.md:2: $ exit 0: the shell ended: EOF; its output:\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, guide.Options{}, "console", test.lines...)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

// Each look counts up a file: the third one shows what is wanted.
func TestRunTypesAgainWhatTakesTime(t *testing.T) {
	log, err := run(t, guide.Options{}, "console within=20s", "$ echo x >> looks; wc -l < looks", "3")
	if err != nil {
		t.Fatal(err)
	}
	if want := "1\n\n$ echo x >> looks; wc -l < looks\n2\n"; !strings.Contains(log, want) {
		t.Errorf("the log lacks %q:\n%s", want, log)
	}
}

func TestRunEndsAWaitAtItsBound(t *testing.T) {
	_, err := run(t, guide.Options{}, "console within=10ms", "$ echo no", "yes")
	want := `g.md:2: $ echo no: wait until it says what is shown: not after `
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "its output:\nno\n") {
		t.Errorf("error %v, want %s…", err, want)
	}
}

func TestRunRenames(t *testing.T) {
	o := guide.Options{Env: []string{"LAB=lesson"}, Rename: strings.NewReplacer("quotes", "lesson", ":8080", ":18080")}
	if log, err := run(t, o, "console", "$ echo lab $LAB at localhost:8080", "lab quotes at localhost:8080"); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

func TestRunStopsTheCommandWhenItsContextEnds(t *testing.T) {
	dir := t.TempDir()
	source := "```console\n$ trap 'echo told; exit 1' TERM; touch here; sleep 600 & wait\n```\n"
	if err := os.WriteFile(filepath.Join(dir, "g.md"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() { ended <- guide.Run(ctx, "g.md", guide.Options{Dir: dir}) }()
	err := check.Until(t.Context(), check.Bound{Within: time.Minute, Every: time.Millisecond}, check.Check{
		Name:  "the command runs",
		Probe: func(context.Context) error { _, err := os.Stat(filepath.Join(dir, "here")); return err },
	})
	if err != nil {
		t.Error(err)
	}
	began := time.Now()
	cancel(enough)
	if err := <-ended; !errors.Is(err, enough) {
		t.Errorf("error %v, want that it was enough", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}
