package cli

import (
	"context"
	"errors"
	"fmt"
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
	var all bool
	command := &cobra.Command{
		Use:     "down",
		GroupID: "lab",
		Short:   "Remove a lab with everything that belongs to it",
		Long: `down removes the lab's clusters with their volumes, its network, and its contexts
in the kubeconfig file. It may be repeated, also after an up that was killed.
--lab may be the bare name of a lab whose file is gone or broken. With --all, down
removes each lab that 'fedlab list' lists. Images stay; see 'fedlab images prune'.`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.events = true
			if all {
				if cmd.Flags().Changed("lab") {
					return usage(cmd, errors.New("--all removes every lab and --lab names one: want one of them"))
				}
				return c.downAll(cmd)
			}
			name, err := c.labName()
			if err != nil {
				return &namelessError{err}
			}
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error { return c.remove(cmd.Context(), d, name) })
		},
	}
	command.Flags().BoolVar(&all, "all", false, "remove all labs")
	return command
}

// downAll removes one lab after the other, also when one cannot be removed.
func (c *cmd) downAll(cmd *cobra.Command) error {
	return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
		labs, err := d.Labs(cmd.Context())
		if err == nil && len(labs) == 0 && c.output == "text" {
			c.printf("there is no lab\n")
		}
		errs := []error{err}
		for _, l := range labs {
			if err := c.remove(cmd.Context(), d, l.Name); err != nil {
				errs = append(errs, fmt.Errorf("remove lab %s: %w", l.Name, err))
			}
		}
		return errors.Join(errs...)
	})
}

func (c *cmd) remove(ctx context.Context, d *local.Driver, name string) error {
	began := time.Now()
	removed, err := d.Down(ctx, name)
	took := time.Since(began)
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
}
