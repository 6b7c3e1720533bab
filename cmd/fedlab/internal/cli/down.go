package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
)

// namelessError is a lab file that does not tell the name of the lab, where that
// is all that is wanted.
type namelessError struct{ err error }

func (e *namelessError) Error() string { return e.err.Error() }
func (e *namelessError) Unwrap() error { return e.err }

func (c *cmd) down() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		GroupID: "lab",
		Short:   "Remove a lab and all traces of it",
		Long: `down removes the lab's clusters with their volumes, its network, and its contexts
in the kubeconfig file. It may be repeated, also after an up that was killed.
--lab may be the bare name of a lab whose file is gone or broken. Images stay; see
'fedlab images prune'.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := c.labName()
			if err != nil {
				return &namelessError{err}
			}
			c.events = true
			return c.withDriver(cmd, func(d *local.Driver, p *progress) error {
				removed, err := d.Down(cmd.Context(), name)
				took := time.Since(p.began)
				switch {
				case err != nil:
					return err
				case c.output == "json":
					return c.json("Down", map[string]any{"lab": name, "removed": removed, "seconds": took.Seconds()})
				case removed:
					c.printf("lab %s is gone (%s)\n", name, brief(took))
				default:
					c.printf("there is no lab %s\n", name)
				}
				return nil
			})
		},
	}
}
