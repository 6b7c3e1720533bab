package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// inside makes a command that connects the caller with what runs in a lab: its
// first argument names the place, and what comes after our last one is not
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

// part is a kind of part of a lab that a person names.
type part[T any] struct {
	names func(topology.Topology) []string
	find  func(*topology.Graph, string) (T, error)
}

func clusterPart() part[*topology.Cluster] {
	return part[*topology.Cluster]{clusterNames, (*topology.Graph).FindCluster}
}

func serverPart() part[*topology.Server] {
	return part[*topology.Server]{serverNames, (*topology.Graph).FindServer}
}

func workloadPart() part[*topology.Workload] {
	return part[*topology.Workload]{workloadNames, (*topology.Graph).FindWorkload}
}

// in returns the part of a lab that has a name; that there is none is wrong usage.
func (p part[T]) in(cmd *cobra.Command, t topology.Topology, name string) (g *topology.Graph, found T, err error) {
	if g, err = topology.Resolve(t, netip.Prefix{}); err != nil {
		return nil, found, err
	}
	found, err = p.find(g, name)
	if err != nil {
		err = usage(cmd, fmt.Errorf("%w%s", err, oneOf(name, p.names(t))))
	}
	return g, found, err
}

// withPart calls do with the part of the lab that has a name, which must be there,
// and the graph that it is of. Where the lab has a file, a wrong name is told before
// Docker is asked.
func withPart[T any](c *cmd, cmd *cobra.Command, name string, p part[T], do func(*local.Driver, *topology.Graph, T) error) error {
	if t, err := c.topology(); err == nil {
		if _, _, err := p.in(cmd, t, name); err != nil {
			return err
		}
	}
	return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
		g, found, err := p.in(cmd, t, name)
		if err != nil {
			return err
		}
		return do(d, g, found)
	})
}

// serverNames are those of trust domains, and with their clusters those of nested servers.
func serverNames(t topology.Topology) (all []string) {
	for _, td := range t.TrustDomains {
		all = append(all, td.Name.Name())
		for _, m := range td.Members {
			if m.Nested {
				all = append(all, topology.ServerName(td.Name.Name(), m.Cluster))
			}
		}
	}
	return all
}

func workloadNames(t topology.Topology) []string {
	return each(t.Workloads, func(w topology.WorkloadSpec) string { return w.Name })
}

func (c *cmd) withServer(cmd *cobra.Command, name string, do func(*local.Driver, *topology.Server) error) error {
	return withPart(c, cmd, name, serverPart(), func(d *local.Driver, _ *topology.Graph, of *topology.Server) error {
		return do(d, of)
	})
}

func (c *cmd) streams() access.Streams { return access.Streams{In: c.In, Out: c.Out, Err: c.Err} }

func (c *cmd) spire() *cobra.Command {
	return passing(c.inside(&cobra.Command{
		Use:   "spire TRUSTDOMAIN -- ARG...",
		Short: "Run spire-server in the SPIRE server of a trust domain",
		Long: `spire runs the program spire-server of a trust domain's own SPIRE server, in its
container, with the arguments that follow. Standard input, output and errors, and
the exit code, are those of the program. The container has no files of this
machine: give the program a file on standard input. A nested server is named with
its cluster, such as one.test@branch.`,
		Example: `  fedlab spire cluster1.com -- bundle list
  fedlab spire cluster2.com -- entry show
  fedlab spire cluster2.com -- bundle set -id spiffe://cluster1.com -format spiffe < bundle.json`,
		Args: atLeast(2, "a trust domain, and arguments of spire-server such as bundle list"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withServer(cmd, args[0], func(d *local.Driver, s *topology.Server) error {
				return d.SPIREServer(cmd.Context(), s, c.streams(), rest(args[1:])...)
			})
		},
	}, serverNames))
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
			return withPart(c, cmd, args[0], clusterPart(), func(d *local.Driver, _ *topology.Graph, in *topology.Cluster) error {
				// It may want the terminal itself, and what it copies may be no text.
				return d.Kubectl(cmd.Context(), in, access.Streams(c.unfiltered), rest(args[1:])...)
			})
		},
	}, clusterNames))
}

func (c *cmd) logs() *cobra.Command {
	var o access.LogOptions
	var container, cluster string
	parts := []string{"server", "agent"}
	command := c.inside(&cobra.Command{
		Use:   "logs TRUSTDOMAIN server|agent",
		Short: "Print the log of a SPIRE server or agent",
		Long: `logs prints what the SPIRE server of a trust domain, or its agent, has logged since
its container started. In the pod of a server runs the controller manager as well,
and the program that renews the certificate of an https_web endpoint; --container
names one of them. Where several clusters have the trust domain, a controller manager
for each runs there, and the agent is that of the server's own cluster unless --cluster
says another. A nested server is named with its cluster, such as one.test@branch.`,
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
			if part == "server" && cluster != "" {
				return usage(cmd, errors.New("--cluster is for an agent: a nested server is named with its cluster, such as one.test@branch"))
			}
			if o.Since < 0 {
				return usage(cmd, fmt.Errorf("--since is %s: want how long ago, such as 10m", o.Since))
			}
			return c.withServer(cmd, args[0], func(d *local.Driver, s *topology.Server) error {
				if part == "agent" {
					m, err := memberIn(s, cluster)
					if err != nil {
						return usage(cmd, err)
					}
					return d.AgentLogs(cmd.Context(), m, o, c.Out)
				}
				all := lab.ServerContainers(s)
				name := cmp.Or(container, all[0])
				if !slices.Contains(all, name) {
					return usage(cmd, fmt.Errorf("the server of %s has no container %q%s", args[0], name, oneOf(name, all)))
				}
				return d.ServerLogs(cmd.Context(), s, name, o, c.Out)
			})
		},
	}, serverNames)
	first := command.ValidArgsFunction
	command.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return parts, cobra.ShellCompDirectiveNoFileComp
		}
		return first(cmd, args, word)
	}
	command.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on until interrupted")
	command.Flags().DurationVar(&o.Since, "since", 0, "only what is newer than this, such as 10m")
	command.Flags().StringVar(&container, "container", "", "a container of the server's pod: spire-server, spire-controller-manager, serving-cert, or manager-CLUSTER for another cluster")
	completes(command, "container", func() []string { return []string{"spire-server", "spire-controller-manager", "serving-cert"} })
	command.Flags().StringVar(&cluster, "cluster", "", "the cluster or host of the agent, where the trust domain has several")
	return command
}

// memberIn returns the member of a server that is in the cluster, or on the host, of a name;
// without a name the one in its own place.
func memberIn(s *topology.Server, cluster string) (*topology.Member, error) {
	if cluster == "" {
		return s.Home(), nil
	}
	var names []string
	for _, m := range s.Members {
		if m.Place.Name() == cluster {
			return m, nil
		}
		names = append(names, m.Place.Name())
	}
	return nil, fmt.Errorf("trust domain %s has no agents in a cluster or on a host %q%s", s, cluster, oneOf(cluster, names))
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 || len(rest(args[1:])) < n-1 {
			return fmt.Errorf("want %s", what)
		}
		return nil
	}
}

func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("want %s, got %s", what, count(len(args), "argument"))
		}
		return nil
	}
}
