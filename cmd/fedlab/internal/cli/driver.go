package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
)

// withDriver calls do with a driver of this machine whose progress is shown.
func (c *cmd) withDriver(cmd *cobra.Command, do func(*local.Driver, *progress) error) (err error) {
	p := c.progress()
	defer p.end()
	d, err := local.New(local.Options{Observe: p.Observe})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Ping(cmd.Context()); err != nil {
		return err
	}
	return do(d, p)
}
