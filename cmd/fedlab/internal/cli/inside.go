package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// inside makes a command that connects the caller with what runs in a lab: its
// first argument names the place, and what comes after the last of ours is not
// fedlab's to read.
func (c *cmd) inside(command *cobra.Command, names func(topology.Topology) []string) *cobra.Command {
	command.GroupID = "lab"
	command.ValidArgsFunction = c.firstOf(names)
	return command
}

// passing makes all words after the first argument belong to the program that is
// run, flags as well.
func passing(command *cobra.Command) *cobra.Command {
	command.Flags().SetInterspersed(false)
	before := command.RunE
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("output") {
			return usage(cmd, fmt.Errorf("-o before %s is fedlab's, and has no meaning here: write what belongs to the program after it", args[0]))
		}
		return before(cmd, args)
	}
	return command
}

// rest returns the arguments of the program that is run, with or without -- before
// them.
func rest(args []string) []string {
	if len(args) > 0 && args[0] == "--" {
		return args[1:]
	}
	return args
}

// withPlace calls do with the lab and the place of the name, which must be there.
// Where the lab has a file, a wrong name is told before Docker is asked.
func (c *cmd) withPlace(cmd *cobra.Command, name, what string, names func(topology.Topology) []string, do func(*local.Driver, topology.Topology) error) error {
	known := func(t topology.Topology) error {
		all := names(t)
		for _, n := range all {
			if n == name {
				return nil
			}
		}
		return usage(cmd, fmt.Errorf("lab %s has no %s %q%s", t.Name, what, name, oneOf(name, all)))
	}
	if t, err := c.topology(); err == nil {
		if err := known(t); err != nil {
			return err
		}
	}
	return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
		if err := known(t); err != nil {
			return err
		}
		return do(d, t)
	})
}

func trustDomainNames(t topology.Topology) []string {
	var names []string
	for _, td := range t.TrustDomains {
		names = append(names, td.Name.Name())
	}
	return names
}

// withTrustDomain calls do with a trust domain of the lab.
func (c *cmd) withTrustDomain(cmd *cobra.Command, name string, do func(*local.Driver, topology.Topology, topology.TrustDomain) error) error {
	return c.withPlace(cmd, name, "trust domain", trustDomainNames, func(d *local.Driver, t topology.Topology) error {
		for _, td := range t.TrustDomains {
			if td.Name.Name() == name {
				return do(d, t, td)
			}
		}
		return nil // withPlace has found it
	})
}

func (c *cmd) streams() lab.Streams { return lab.Streams{In: c.In, Out: c.Out, Err: c.Err} }

func (c *cmd) spire() *cobra.Command {
	return passing(c.inside(&cobra.Command{
		Use:   "spire TRUSTDOMAIN -- ARG...",
		Short: "Run spire-server in the SPIRE server of a trust domain",
		Long: `spire runs the program spire-server of a trust domain's own SPIRE server, in its
container, with the arguments that follow. Standard input, output and errors, and
the exit code, are those of the program. The container has no files of this
machine: give the program a file on standard input.`,
		Example: `  fedlab spire cluster1.com -- bundle list
  fedlab spire cluster2.com -- entry show
  fedlab spire cluster2.com -- bundle set -id spiffe://cluster1.com -format spiffe < bundle.json`,
		Args: atLeast(2, "a trust domain, and arguments of spire-server such as bundle list"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withTrustDomain(cmd, args[0], func(d *local.Driver, t topology.Topology, td topology.TrustDomain) error {
				return d.SPIREServer(cmd.Context(), t, td, c.streams(), rest(args[1:])...)
			})
		},
	}, trustDomainNames))
}

func (c *cmd) kubectl() *cobra.Command {
	return passing(c.inside(&cobra.Command{
		Use:   "kubectl CLUSTER ARG...",
		Short: "Run kubectl for a cluster of the lab",
		Long: `kubectl runs the kubectl of this machine for one cluster of the lab, whatever the
current context is, with the arguments that follow. Standard input, output and
errors, and the exit code, are those of kubectl. Where this machine has no kubectl,
the one of the cluster's node runs: it sees the files of the node, so give it files
on standard input (-f -), and it has no terminal.`,
		Example: `  fedlab kubectl market get pods -A
  fedlab kubectl market apply -f - < mine.yaml`,
		Args: atLeast(2, "a cluster, and arguments of kubectl such as get pods"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withPlace(cmd, args[0], "cluster", clusterNames, func(d *local.Driver, t topology.Topology) error {
				// It may want the terminal itself, and what it copies may be no text.
				return d.Kubectl(cmd.Context(), t, args[0], lab.Streams(c.unfiltered), rest(args[1:])...)
			})
		},
	}, clusterNames))
}

func (c *cmd) logs() *cobra.Command {
	var o lab.LogOptions
	var container string
	parts := []string{"server", "agent"}
	command := c.inside(&cobra.Command{
		Use:   "logs TRUSTDOMAIN server|agent",
		Short: "Print the log of a SPIRE server or agent",
		Long: `logs prints what the SPIRE server of a trust domain, or its agent, has logged since
its container started. In the pod of a server runs the controller manager as well,
and the program that renews the certificate of an https_web endpoint; --container
names one of them.`,
		Example: `  fedlab logs cluster1.com server --follow
  fedlab logs cluster1.com server --container spire-controller-manager --since 10m`,
		Args: exactly(2, "a trust domain, and server or agent"),
		RunE: func(cmd *cobra.Command, args []string) error {
			part := args[1]
			if part != "server" && part != "agent" {
				return usage(cmd, fmt.Errorf("there is no log of %q%s", part, oneOf(part, parts)))
			}
			if part == "agent" && container != "" {
				return usage(cmd, errors.New("an agent has one container: --container is for a server"))
			}
			if o.Since < 0 {
				return usage(cmd, fmt.Errorf("--since is %s: want how long ago, such as 10m", o.Since))
			}
			return c.withTrustDomain(cmd, args[0], func(d *local.Driver, t topology.Topology, td topology.TrustDomain) error {
				if part == "agent" {
					return d.AgentLogs(cmd.Context(), t, td, o, c.Out)
				}
				all := lab.ServerContainers(td)
				name := container
				if name == "" {
					name = all[0]
				}
				for _, known := range all {
					if known == name {
						return d.ServerLogs(cmd.Context(), t, td, name, o, c.Out)
					}
				}
				return usage(cmd, fmt.Errorf("the server of %s has no container %q%s", args[0], name, oneOf(name, all)))
			})
		},
	}, trustDomainNames)
	first := command.ValidArgsFunction
	command.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return parts, cobra.ShellCompDirectiveNoFileComp
		}
		return first(cmd, args, word)
	}
	command.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on until interrupted")
	command.Flags().DurationVar(&o.Since, "since", 0, "only what is newer than this, such as 10m")
	command.Flags().StringVar(&container, "container", "", "a container of the server's pod: spire-server, spire-controller-manager or serving-cert")
	completes(command, "container", func() []string {
		return lab.ServerContainers(topology.TrustDomain{BundleEndpoint: topology.BundleEndpoint{Profile: topology.HTTPSWeb}})
	})
	return command
}

// atLeast wants arguments and says which.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 || len(rest(args[1:])) < n-1 {
			return fmt.Errorf("want %s", what)
		}
		return nil
	}
}

// exactly wants so many arguments and says which.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("want %s, got %s", what, count(len(args), "argument"))
		}
		return nil
	}
}
