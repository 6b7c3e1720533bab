package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *cmd) up() *cobra.Command {
	return &cobra.Command{
		Use:     "up",
		GroupID: "lab",
		Short:   "Bring a lab up, or put right what of it is not",
		Long: `up runs the plan that 'fedlab plan' prints. Each step looks before it acts: on a
lab that is up it changes nothing, and an up that was interrupted goes on.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.topology()
			if err != nil {
				return err
			}
			return c.withDriver(cmd, func(d *local.Driver, p *progress) error {
				if err := d.Up(cmd.Context(), t); err != nil {
					return err
				}
				c.upDone(t, p)
				return nil
			})
		},
	}
}

func (c *cmd) upDone(t topology.Topology, p *progress) {
	if c.output == "json" {
		return
	}
	took := brief(time.Since(p.began))
	if p.changed == 0 {
		c.printf("lab %s is up; nothing had to be changed (%s)\n", t.Name, took)
	} else {
		c.printf("lab %s is up (%s)\n", t.Name, took)
	}
	for _, w := range t.Workloads {
		if url := w.URL(); url != "" {
			_, _ = fmt.Fprintf(c.Out, "%s: %s\n", w.Name, url)
		}
	}
}

func (c *cmd) plan() *cobra.Command {
	return &cobra.Command{
		Use:     "plan",
		GroupID: "lab",
		Short:   "Print the steps that up runs, and what each comes after",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.topology()
			if err != nil {
				return err
			}
			p, err := (&local.Driver{}).Plan(t)
			if err != nil {
				return err
			}
			return c.printPlan(p)
		},
	}
}

func (c *cmd) printPlan(p *plan.Plan) error {
	type step struct {
		Name  plan.ID   `json:"name"`
		Title string    `json:"title"`
		After []plan.ID `json:"after"`
	}
	steps := make([]step, 0, p.Len())
	for _, s := range p.Steps() {
		steps = append(steps, step{Name: s.Name, Title: s.Title, After: append([]plan.ID{}, s.After...)})
	}
	if c.output == "json" {
		return c.json("Plan", map[string]any{"steps": steps})
	}
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "STEP\tWHAT IT MAKES TRUE\tAFTER")
	for _, s := range steps {
		after := make([]string, len(s.After))
		for i, id := range s.After {
			after[i] = string(id)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Title, strings.Join(after, ", "))
	}
	return w.Flush()
}
