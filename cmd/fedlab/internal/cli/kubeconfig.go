package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *cmd) kubeconfig() *cobra.Command {
	var cluster, path string
	command := &cobra.Command{
		Use:     "kubeconfig",
		GroupID: "lab",
		Short:   "Write the lab's contexts to a kubeconfig file, or print one cluster's",
		Long: `kubeconfig writes a context for each cluster of the lab to the kubeconfig file
that kubectl uses, or to --file. With --cluster it prints that cluster's own
kubeconfig instead, which has a private key in it.`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cluster != "" && path != "" {
				return usage(cmd, errors.New("--cluster prints and --file writes: want one of them"))
			}
			if path != "" {
				if err := editable(path); err != nil {
					return usage(cmd, err)
				}
			}
			if cluster != "" {
				return withPart(c, cmd, cluster, clusterPart(), func(d *local.Driver, g *topology.Graph, of *topology.Cluster) error {
					return c.printKubeconfig(cmd.Context(), d, g, of)
				})
			}
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				return c.writeKubeconfig(cmd.Context(), d, t, path)
			})
		},
	}
	command.Flags().StringVar(&cluster, "cluster", "", "print the kubeconfig of this cluster")
	completes(command, "cluster", func() []string {
		t, _ := c.topology() // a file that cannot be read completes nothing
		return clusterNames(t)
	})
	command.Flags().StringVar(&path, "file", "", "the kubeconfig file to write to")
	return command
}

func (c *cmd) printKubeconfig(ctx context.Context, d *local.Driver, g *topology.Graph, of *topology.Cluster) error {
	if err := isUp(ctx, d, g.Intent()); err != nil {
		return err
	}
	data, err := d.Parts.Kubeconfigs.Kubeconfig(of.Lab, of.Name)
	if err == nil {
		_, err = c.Out.Write(data)
	}
	return err
}

func (c *cmd) writeKubeconfig(ctx context.Context, d *local.Driver, t topology.Topology, path string) error {
	if err := isUp(ctx, d, t); err != nil {
		return err
	}
	var clusters, contexts []string
	for _, x := range t.Clusters {
		clusters = append(clusters, x.Name)
		contexts = append(contexts, d.Parts.Kubeconfigs.Context(t.Name, x.Name))
	}
	if _, err := d.Parts.Kubeconfigs.Export(ctx, t.Name, clusters, path); err != nil {
		return err
	}
	if c.output == "json" {
		return c.json("Kubeconfig", map[string]any{"lab": t.Name, "contexts": contexts})
	}
	for _, x := range contexts {
		_, _ = fmt.Fprintln(c.Out, x)
	}
	return nil
}

// isUp returns a *lab.NotUpError for a lab that does not run.
func isUp(ctx context.Context, d *local.Driver, t topology.Topology) error {
	l, err := d.Open(ctx, t)
	if err != nil {
		return err
	}
	return l.Close()
}
