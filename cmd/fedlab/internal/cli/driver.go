package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// withDriver calls do with a driver of this machine whose progress is shown.
func (c *cmd) withDriver(cmd *cobra.Command, do func(*local.Driver, *progress) error) (err error) {
	p := c.progress()
	defer p.end()
	options, err := c.options()
	if err != nil {
		return err
	}
	options.Observe, options.Builds = p.Observe, p.Build
	d, err := local.New(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Ping(cmd.Context()); err != nil {
		return err
	}
	return do(d, p)
}

// withLab calls do with the lab that --lab names: by its file, or, where there is
// none, as the running lab of that name knows itself.
func (c *cmd) withLab(cmd *cobra.Command, do func(*local.Driver, topology.Topology) error) error {
	t, unread := c.topology()
	if unread != nil && (!noFile(unread) || !c.labIsBareName()) {
		return unread
	}
	return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
		if unread != nil {
			var err error
			t, err = d.Topology(cmd.Context(), c.lab)
			if notUp := (*lab.NotUpError)(nil); errors.As(err, &notUp) {
				return fmt.Errorf("%w; and no lab of that name tells what it is: %w", unread, err)
			}
			if err != nil {
				return err
			}
		}
		return do(d, t)
	})
}
