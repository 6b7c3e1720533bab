package cli

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
)

func (c *cmd) up() *cobra.Command {
	return c.sourceFlags(&cobra.Command{
		Use:     "up",
		GroupID: "lab",
		Short:   "Start a lab, or repair a running one",
		Long: `up runs the plan that 'fedlab plan' prints. Each step looks before it acts: on a
lab that is up and well it changes nothing, and after an interruption the next up
goes on.

Progress goes to standard error, the addresses of pages to standard output. With
-o json, standard output has one object a line: the events, and then the result.`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.topology()
			if err != nil {
				return err
			}
			c.events = true
			return c.withDriver(cmd, func(d *local.Driver, p *progress) error {
				p.typical = remembered(t.Name)
				if err := d.Reach(cmd.Context()); err != nil {
					return err
				}
				if err := d.Up(cmd.Context(), t); err != nil {
					return err
				}
				return c.upDone(t, p)
			})
		},
	})
}

func (c *cmd) upDone(t topology.Topology, p *progress) error {
	took := time.Since(p.began)
	if !p.clusters.IsZero() {
		if err := remember(t.Name, time.Since(p.clusters)); err != nil {
			// The lab is up all the same.
			c.printf("fedlab: %v\n", err)
		}
	}
	pages := map[string]string{}
	for _, w := range t.Workloads {
		if url := w.URL(); url != "" {
			pages[w.Name] = url
		}
	}
	if c.output == "json" {
		return c.json("Up", map[string]any{"lab": t.Name, "changed": p.changed > 0, "seconds": took.Seconds(), "pages": pages})
	}
	if p.changed == 0 {
		c.printf("lab %s is up; nothing had to be changed (%s)\n", t.Name, brief(took))
	} else {
		c.printf("lab %s is up (%s)\n", t.Name, brief(took))
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		_, _ = fmt.Fprintf(c.Out, "%s: %s\n", name, pages[name])
	}
	c.printf("\nto try next:\n")
	for _, command := range c.next(t) {
		c.printf("  %s\n", command)
	}
	return nil
}

// next returns the three commands to try in a lab that is new: is it well, what
// does it have, and what happens when something breaks.
func (c *cmd) next(t topology.Topology) []string {
	fedlab, lab := os.Args[0], ""
	if !strings.Contains(fedlab, "/") || filepath.IsAbs(fedlab) {
		fedlab = "fedlab"
	}
	if c.lab != defaultLab() {
		lab = " --lab " + c.lab
	}
	show := "open"
	if names := pages(t); len(names) > 0 {
		show += " " + names[0]
	}
	breaks := "drift"
	g, err := topology.Resolve(t, netip.Prefix{})
	for _, s := range scenarios.Catalogue() {
		if err != nil || s.Name != firstScenario {
			continue
		}
		if _, lacks := s.RunsOn(g); lacks == nil {
			breaks = "scenario run " + s.Name + " --pause"
		}
	}
	return []string{fedlab + " status" + lab, fedlab + " " + show + lab, fedlab + " " + breaks + lab}
}

// firstScenario is the one to begin with: what it breaks is easy to see, and is
// back after a minute.
const firstScenario = "drift/deleted"

func (c *cmd) plan() *cobra.Command {
	return &cobra.Command{
		Use:     "plan",
		GroupID: "lab",
		Short:   "Print the steps of up, and which steps each one follows",
		Args:    noArgsButLab,
		RunE: func(*cobra.Command, []string) error {
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
		Name  string   `json:"name"`
		Title string   `json:"title"`
		After []string `json:"after"`
	}
	steps := each(p.Steps(), func(s plan.Step) step {
		return step{Name: string(s.Name), Title: s.Title, After: each(s.After, func(id plan.ID) string { return string(id) })}
	})
	if c.output == "json" {
		return c.json("Plan", map[string]any{"steps": steps})
	}
	return table(c.Out, "STEP\tWHAT IT MAKES TRUE\tAFTER", steps, func(s step) []string {
		return []string{s.Name, s.Title, orDash(listing(s.After))}
	})
}
