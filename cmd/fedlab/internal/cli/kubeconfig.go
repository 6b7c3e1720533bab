package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
)

func (c *cmd) kubeconfig() *cobra.Command {
	var cluster, path string
	command := &cobra.Command{
		Use:     "kubeconfig",
		GroupID: "lab",
		Short:   "Write the lab's contexts to a kubeconfig file, or print one cluster's",
		Long: `kubeconfig writes a context for each cluster of the lab to the kubeconfig file
that kubectl uses, or to --file. With --cluster it prints that cluster's own
kubeconfig instead; it holds a private key.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := c.topology()
			if err != nil {
				return err
			}
			if cluster != "" {
				if _, err := t.Cluster(cluster); err != nil {
					return usage(cmd, err)
				}
				if path != "" {
					return usage(cmd, errors.New("--cluster prints and --file writes: want one of them"))
				}
			}
			return c.withDriver(cmd, func(d *local.Driver, _ *progress) error {
				l, err := d.Open(cmd.Context(), t)
				if err != nil {
					return err
				}
				if err := l.Close(); err != nil {
					return err
				}
				if cluster != "" {
					data, err := d.Parts.Kubeconfigs.Kubeconfig(t.Name, cluster)
					if err == nil {
						_, err = c.Out.Write(data)
					}
					return err
				}
				var names []string
				for _, x := range t.Clusters {
					names = append(names, x.Name)
				}
				if err := d.Parts.Kubeconfigs.Export(cmd.Context(), t.Name, names, path); err != nil {
					return err
				}
				for _, x := range names {
					_, _ = fmt.Fprintln(c.Out, d.Parts.Kubeconfigs.Context(t.Name, x))
				}
				return nil
			})
		},
	}
	command.Flags().StringVar(&cluster, "cluster", "", "print the kubeconfig of this cluster")
	command.Flags().StringVar(&path, "file", "", "the kubeconfig file to write to")
	return command
}
