package cli

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab"
	"github.com/fedlab-dev/fedlab/lab/troubles"
)

// whole is how many entries explain prints whole; of more it prints the titles.
const whole = 3

func (c *cmd) explain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [WORD...]",
		Short: "Explain a message of fedlab, and say what to do",
		Long: `explain says what a message means: give it the whole message, the name of a cause as
status prints it, or a few words. Without words it lists everything that it knows.`,
		Example: `  fedlab explain unknown root
  fedlab explain "lab quotes is not up: it has no network"`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var titles []string
			for _, e := range troubles.Read(fedlab.Troubles) {
				if len(args) == 0 && !strings.Contains(e.Title, "…") {
					titles = append(titles, e.Title)
				}
			}
			return titles, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, words := troubles.Read(fedlab.Troubles), strings.Join(args, " ")
			if words != "" {
				entries = troubles.Find(entries, words)
			}
			switch {
			case len(entries) == 0:
				return usage(cmd, fmt.Errorf("fedlab knows nothing about %q: 'fedlab explain' lists all that it knows", words))
			case c.output == "json":
				return c.json("Explanation", map[string]any{"words": words, "entries": entries})
			case len(entries) > whole:
				return printTitles(c.Out, entries)
			}
			return printEntriesWhole(c.Out, entries)
		},
	}
}

func printTitles(out io.Writer, entries []troubles.Entry) error {
	var b strings.Builder
	section := ""
	for _, e := range entries {
		if e.Section != section {
			if section != "" {
				b.WriteString("\n")
			}
			section = e.Section
			b.WriteString(section + "\n")
		}
		if e.Title != e.Section {
			b.WriteString("  " + e.Title + "\n")
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func printEntriesWhole(out io.Writer, entries []troubles.Entry) error {
	texts := make([]string, len(entries))
	for i, e := range entries {
		texts[i] = e.Title + "\n\n" + readable(e.Text) + "\n"
	}
	_, err := io.WriteString(out, strings.Join(texts, "\n"))
	return err
}

var link = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

// readable makes of Markdown what a terminal shows: links without where they lead,
// and paragraphs and the items of lists as lines of some width.
func readable(text string) string {
	text = strings.ReplaceAll(link.ReplaceAllString(text, "$1"), "bin/fedlab", "fedlab")
	var parts []string
	for line := range strings.SplitSeq(text, "\n") {
		if item, ok := strings.CutPrefix(line, "- "); ok {
			parts = append(parts, "  - "+strings.TrimPrefix(wrapped(item, "    "), "    "))
			continue
		}
		if line = wrapped(line, ""); line != "" || len(parts) > 0 && parts[len(parts)-1] != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "\n")
}
