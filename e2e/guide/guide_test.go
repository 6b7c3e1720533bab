package guide_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/e2e/guide"
)

const document = `# A guide

Type ` + "`make lab-up`" + ` and wait.

` + "```console" + `
$ make lab-up
…
lab quotes is up
$ echo one \
  two
one two
` + "```" + `

` + "```sh" + `
git clone somewhere
` + "```" + `

` + "```console within=30s" + `
$ fedlab status
well
` + "```" + `

` + "```yaml" + `
$ not: a command
` + "```" + `
`

func TestParse(t *testing.T) {
	got, err := guide.Parse("first.md", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	want := guide.Guide{Name: "first.md", Steps: []guide.Step{
		{Line: 6, Command: "make lab-up", Shows: []string{"…", "lab quotes is up"}},
		{Line: 9, Command: "echo one \\\n  two", Shows: []string{"one two"}},
		{Line: 19, Command: "fedlab status", Shows: []string{"well"}, Within: 30 * time.Second},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, test := range map[string]struct{ block, want string }{
		"output without a command": {"```console\nhello\n```\n", `g.md:2: the block starts with output: want a line that starts with "$ "`},
		"an unknown word":          {"```console soon\n$ true\n```\n", `g.md:2: unknown word "soon" after console: want within=DURATION`},
		"a wait for no time":       {"```console within=0s\n$ true\nx\n```\n", `g.md:2: unknown word "within=0s" after console: want within=DURATION`},
		"a wait for nothing":       {"```console within=3s\n$ true\n```\n", `g.md:2: "true" shows nothing that could come true within 3s`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := guide.Parse("g.md", []byte(test.block)); err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	want := map[int][]string{3: {"make lab-up"}, 6: {"make lab-up"}, 9: {`echo one \`}, 15: {"git clone somewhere"}, 19: {"fedlab status"}}
	if got := guide.Commands([]byte(document)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
