package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fedlab-dev/fedlab/e2e/guide"
)

// checkout is the root of the checkout.
var checkout = filepath.Join("..", "..", "..", "..")

// TestDocumentsNameCommandsThatExist parses, as the command itself would, each
// call of fedlab and make that any document shows, in blocks and in sentences.
func TestDocumentsNameCommandsThatExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(checkout, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllSubmatch(makefile, -1) {
		targets = append(targets, string(m[1]))
	}
	seen := 0
	err = fs.WalkDir(os.DirFS(checkout), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "bin" || name == "evidence"):
			return fs.SkipDir
		case path.Ext(name) != ".md":
			return nil
		}
		source, err := os.ReadFile(filepath.Join(checkout, name))
		if err != nil {
			return err
		}
		for line, commands := range guide.Commands(source) {
			for _, call := range slices.Concat(calls(commands)...) {
				seen++
				if err := exists(t, call, targets); err != nil {
					t.Errorf("%s:%d: %s: %v", name, line, strings.Join(call, " "), err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Error("the documents name no command")
	}
}

func TestCommandsThatDoNotExistAreFound(t *testing.T) {
	for line, starts := range map[string]string{
		"sudo bin/fedlab upp":                   `unknown command "upp" for "fedlab"`,
		"LAB=x fedlab status --deep":            "unknown flag: --deep",
		"cd x && fedlab images buidl":           `unknown command "buidl" for "fedlab images"`,
		"fedlab down quotes":                    `unexpected argument "quotes"`,
		`fedlab doctor --symptom "two words"`:   "",
		`fedlab doctor --symptom two words`:     `unexpected argument "words"`,
		"make lab-upp":                          `the Makefile has no target "lab-upp"`,
		"fedlab help stauts":                    `unknown topic "stauts"`,
		"fedlab up --lab lab.yaml -o json | jq": "",
		"fedlab status; echo $?":                "",
		"fedlab status > out.txt":               "",
		"make -j2 lab-up LAB=lab.yaml":          "",
		"fedlab help exit-codes":                "",
		"fedlab":                                "",
		"echo fedlabel makes":                   "",
		"fedlab … --output":                     "flag needs an argument: --output",
	} {
		got := ""
		for _, call := range slices.Concat(calls([]string{line})...) {
			if err := exists(t, call, []string{"lab-up"}); err != nil {
				got = err.Error()
			}
		}
		if (got == "") != (starts == "") || !strings.HasPrefix(got, starts) {
			t.Errorf("%s: error %q, want one that starts with %q", line, got, starts)
		}
	}
}

// calls returns the calls of fedlab and make in command lines, each as its
// words.
func calls(lines []string) (all [][][]string) {
	for _, line := range lines {
		line = regexp.MustCompile(`"[^"]*"`).ReplaceAllStringFunc(line, func(word string) string { return strings.ReplaceAll(word, " ", "_") })
		var of [][]string
		for _, part := range regexp.MustCompile(`&&|\|\|?|;|[<>]\S*\s*\S+|#.*| \\$`).Split(line, -1) {
			words := strings.Fields(part)
			i := slices.IndexFunc(words, func(w string) bool {
				base := path.Base(w)
				return w == "make" || base == "fedlab" && (w == base || strings.HasSuffix(w, "bin/fedlab"))
			})
			// Elsewhere in a sentence it is a name: what comes before a call is
			// settings, sudo and env.
			if i < 0 || slices.ContainsFunc(words[:i], func(w string) bool {
				return w != "sudo" && w != "env" && w != "$" && !strings.Contains(w, "=")
			}) {
				continue
			}
			call := slices.DeleteFunc(words[i:], func(w string) bool { return w == "…" })
			call[0] = path.Base(call[0])
			of = append(of, call)
		}
		all = append(all, of)
	}
	return all
}

// exists returns nil when a call could be made.
func exists(t *testing.T, call, targets []string) error {
	t.Helper()
	if call[0] == "make" {
		for _, word := range call[1:] {
			if !strings.HasPrefix(word, "-") && !strings.Contains(word, "=") && !slices.Contains(targets, word) {
				return fmt.Errorf("the Makefile has no target %q", word)
			}
		}
		return nil
	}
	found, rest, err := tree(t).Find(call[1:])
	if err != nil {
		return err
	}
	if found.Name() == "help" {
		return topic(t, rest)
	}
	found.InitDefaultHelpFlag()
	switch err := found.ParseFlags(rest); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	return found.ValidateArgs(found.Flags().Args())
}

func topic(t *testing.T, words []string) error {
	t.Helper()
	var found *cobra.Command
	found, rest, err := tree(t).Find(words)
	if err != nil || len(rest) > 0 || len(words) > 0 && !found.HasParent() {
		return fmt.Errorf("unknown topic %q", strings.Join(words, " "))
	}
	return nil
}
