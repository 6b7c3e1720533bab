package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

var update = flag.Bool("update", false, "write docs/reference/cli.md and events.md again")

// tree returns all commands as Run makes them, with those that cobra adds, on a
// machine where no variable says anything.
func tree(t *testing.T) *cobra.Command {
	t.Helper()
	for _, variable := range []string{"LAB", "FEDLAB_SOURCE", "FEDLAB_ARCHIVE", "FEDLAB_MIRROR"} {
		t.Setenv(variable, "")
	}
	root := (&cmd{}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// TestReference says when docs/reference/cli.md is stale; -update writes it.
func TestReference(t *testing.T) {
	path := filepath.Join("..", "..", "..", "..", "docs", "reference", "cli.md")
	want := reference(tree(t))
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/reference/cli.md is not what the commands say: go test ./cmd/fedlab/internal/cli -run TestReference -update")
	}
}

// TestEventsReference says when docs/reference/events.md is stale; -update writes
// it.
func TestEventsReference(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Events

<!-- Made from the command: go test ./cmd/fedlab/internal/cli -run TestEventsReference -update -->

With ` + "`-o json`, `fedlab up`, `fedlab down` and `fedlab images build`" + ` print each event of their plan as one JSON object on one line of standard output. The result of ` + "`up` and `down`" + ` comes last, and its ` + "`kind` is `Up` or `Down`" + `.

| field | type | what it says |
|---|---|---|
`)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[event]()) {
		name, optional, _ := strings.Cut(f.Tag.Get("json"), ",")
		says := f.Tag.Get("says")
		if says == "" {
			t.Fatalf("nothing is said of the field %s", name)
		}
		kind := map[string]string{"string": "string", "float64": "number", "int": "number", "struct": "RFC 3339 time"}[f.Type.Kind().String()]
		if kind == "" {
			t.Fatalf("the reference has no word for the type of %s", name)
		}
		if optional != "" {
			kind += ", may be absent"
		}
		fmt.Fprintf(&b, "| \x60%s\x60 | %s | %s |\n", name, kind, says)
	}
	b.WriteString("\n| state | what happened |\n|---|---|\n")
	for _, s := range []struct {
		state plan.State
		says  string
	}{
		{plan.Started, "the step began"},
		{plan.Noted, "the step told what it waits for"},
		{plan.Remarked, "the step told what it has found or done that people should read"},
		{plan.Unchanged, "the step ended and had nothing to change"},
		{plan.Changed, "the step ended and changed something"},
		{plan.Failed, "the step ended with an error"},
		{plan.Cancelled, "the step was stopped, because of another step or an interruption"},
	} {
		fmt.Fprintf(&b, "| \x60%s\x60 | %s |\n", s.state, s.says)
	}
	b.WriteString(`
An image build may run inside of the step ` + "`images/…`" + `: the events of its steps come between those of the lab, with numbers of their own.
`)
	path := filepath.Join("..", "..", "..", "..", "docs", "reference", "events.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/reference/events.md is not what the command prints: go test ./cmd/fedlab/internal/cli -run TestEventsReference -update")
	}
}

func reference(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString("# The command\n\n<!-- Made from the commands: go test ./cmd/fedlab/internal/cli -run TestReference -update -->\n\n")
	refer(&b, root)
	return b.Bytes()
}

func refer(b *bytes.Buffer, c *cobra.Command) {
	// What cobra adds speaks for itself; its parts are not ours to describe.
	ours := c.Name() != "completion" && c.Name() != "help"
	fmt.Fprintf(b, "## %s\n\n%s.\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."))
	if ours && c.Long != "" {
		b.WriteString("\n" + markdown(c.Long) + "\n")
	}
	if c.Runnable() && !c.HasAvailableSubCommands() {
		fmt.Fprintf(b, "\n```text\n%s\n```\n", c.UseLine())
	}
	if ours && c.Example != "" {
		b.WriteString("\nFor example:\n\n```sh\n" + strings.ReplaceAll(strings.Trim(c.Example, "\n")[2:], "\n  ", "\n") + "\n```\n")
	}
	if c.HasAvailableSubCommands() && ours {
		b.WriteString("\n| command | what it does |\n|---|---|\n")
		for _, sub := range c.Commands() {
			fmt.Fprintf(b, "| [%s](#%s) | %s |\n", sub.CommandPath(), strings.ReplaceAll(sub.CommandPath(), " ", "-"), sub.Short)
		}
	}
	flags := c.LocalFlags()
	if flags.HasAvailableFlags() && ours {
		b.WriteString("\n| flag | default | what it sets |\n|---|---|---|\n")
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			fmt.Fprintf(b, "| %s | %s | %s |\n", names(f), fallback(f), f.Usage)
		})
	}
	b.WriteString("\n")
	if ours {
		for _, sub := range c.Commands() {
			refer(b, sub)
		}
	}
}

func names(f *pflag.Flag) string {
	name := "`--" + f.Name + "`"
	if f.Shorthand != "" {
		name = "`-" + f.Shorthand + "`, " + name
	}
	return name
}

func fallback(f *pflag.Flag) string {
	if f.DefValue == "" || f.Value.Type() == "bool" {
		return ""
	}
	return "`" + f.DefValue + "`"
}

// markdown turns the text of a help page into paragraphs: commands in quotes
// become code, and what is set in becomes a block.
func markdown(help string) string {
	var parts []string
	for part := range strings.SplitSeq(strings.Trim(help, "\n"), "\n\n") {
		if strings.HasPrefix(part, "  ") {
			parts = append(parts, "```text\n"+strings.ReplaceAll(part[2:], "\n  ", "\n")+"\n```")
			continue
		}
		for i, piece := range strings.Split(part, "'fedlab ") {
			if i == 0 {
				part = piece
				continue
			}
			command, rest, _ := strings.Cut(piece, "'")
			part += "`fedlab " + command + "`" + rest
		}
		parts = append(parts, strings.ReplaceAll(part, "\n", " "))
	}
	return strings.Join(parts, "\n\n")
}
