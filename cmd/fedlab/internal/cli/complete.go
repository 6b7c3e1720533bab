package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// completion is what cobra asks when the tab key is pressed.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

func completes(command *cobra.Command, flag string, words func() []string) {
	err := command.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is not there: a mistake in this package
	}
}

// firstOf completes the first argument to names in the lab, and the rest to
// nothing. A lab file that cannot be read completes nothing.
func (c *cmd) firstOf(names func(topology.Topology) []string) completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		t, _ := c.topology()
		return names(t), cobra.ShellCompDirectiveNoFileComp
	}
}

func clusterNames(t topology.Topology) []string {
	return each(t.Clusters, func(x topology.ClusterSpec) string { return x.Name })
}

// completeBound is how long a person who presses the tab key waits for Docker.
const completeBound = time.Second

// completeLab completes --lab to presets, to labs that are there, and to files.
func completeLab(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	words := config.Presets()
	for _, name := range labsThere(cmd.Context()) {
		if !slices.Contains(words, name) {
			words = append(words, name)
		}
	}
	slices.Sort(words)
	return words, cobra.ShellCompDirectiveDefault
}

// labsThere names the labs that Docker has; none where Docker does not answer in
// time.
func labsThere(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, completeBound)
	defer cancel()
	d, err := local.New(local.Options{})
	if err != nil {
		return nil
	}
	defer func() { _ = d.Close() }() // it was only asked
	labs, _ := d.Labs(ctx)
	return each(labs, func(l lab.Summary) string { return l.Name })
}

// listing joins words as a sentence lists them.
func listing(words []string) string { return strings.Join(words, ", ") }
