package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/reference/cli.md anew")

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
