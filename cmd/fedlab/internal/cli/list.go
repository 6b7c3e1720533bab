package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/local"
)

func (c *cmd) list() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		GroupID: "lab",
		Short:   "List all labs on this machine",
		Long: `list prints each lab that Docker has, its clusters, and the user who made it. It
asks no cluster: 'fedlab status' says whether a lab is well.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
				labs, err := d.Labs(cmd.Context())
				switch {
				case err != nil:
					return err
				case c.output == "json":
					return c.json("LabList", map[string]any{"labs": labs})
				case len(labs) == 0:
					c.printf("there is no lab\n")
					return nil
				}
				return printLabs(c.Out, labs)
			})
		},
	}
}

func printLabs(out io.Writer, labs []lab.Summary) error {
	return table(out, "LAB\tSTATE\tOWNER\tCLUSTERS", labs, func(l lab.Summary) []string {
		var clusters []string
		for _, x := range l.Clusters {
			name := x.Name
			if x.State != l.State {
				name += " (" + x.State + ")"
			}
			clusters = append(clusters, name)
		}
		return []string{l.Name, l.State, orDash(l.Owner), orDash(listing(clusters))}
	})
}
