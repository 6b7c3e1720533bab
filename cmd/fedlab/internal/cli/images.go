package cli

import (
	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/local"
)

func (c *cmd) images() *cobra.Command {
	command := &cobra.Command{
		Use:     "images",
		GroupID: "machine",
		Short:   "Build, list, carry and remove the images that labs run on",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(&cobra.Command{
		Use:   "build",
		Short: "Make every image that is not there yet",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
				_, err := d.Library.Ensure(cmd.Context(), images.Node)
				return err
			})
		},
	})
	return command
}
