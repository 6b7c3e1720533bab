package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

func (c *cmd) watchRules() *cobra.Command {
	var scrape time.Duration
	var object bool
	command := &cobra.Command{
		Use:   "rules",
		Short: "Print the alerts as rules of Prometheus",
		Long: `rules prints the alerts of watch as a rule file of Prometheus, on the metrics that watch
shows with --metrics. Windows and durations follow from the polls of the lab
file, and from how often Prometheus asks.`,
		Example: `  fedlab watch rules > federation.rules.yaml`,
		Args:    noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if scrape < time.Second {
				return usage(cmd, fmt.Errorf("invalid value %q of --scrape: want a second or more", scrape))
			}
			t, err := c.topology()
			if err != nil {
				return err
			}
			rules := watch.Rules(intervals(t, scrape))
			var printed any = rules
			if object {
				printed = rules.PrometheusRule("spire-federation-" + t.Name)
			}
			if c.output == "json" {
				return c.indented(printed)
			}
			out := yaml.NewEncoder(c.Out)
			out.SetIndent(2)
			return out.Encode(printed)
		},
	}
	command.Flags().DurationVar(&scrape, "scrape", 15*time.Second, "how often Prometheus asks")
	command.Flags().BoolVar(&object, "object", false, "print a PrometheusRule, for the Prometheus operator")
	return command
}

func (c *cmd) watchDashboard() *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard",
		Short: "Print a dashboard for Grafana, as JSON",
		Args:  noArgsButLab,
		RunE:  func(*cobra.Command, []string) error { return c.indented(watch.Dashboard()) },
	}
}

// indented prints what another program reads as it is.
func (c *cmd) indented(what any) error {
	out := json.NewEncoder(c.Out)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(what)
}

// intervals are those of a lab by its file. No server polls more seldom than the longest one.
func intervals(t topology.Topology, scrape time.Duration) watch.Intervals {
	i := watch.Intervals{Scrape: scrape}
	for _, td := range t.TrustDomains {
		i.Poll = max(i.Poll, federation.PollInterval(td.BundleEndpoint.RefreshHint, td.CATTL))
	}
	return i
}
