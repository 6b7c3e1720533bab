package lab

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// SPIREServer runs the program of a server in its container, with arguments and
// streams. The error is an *access.EndedError when the program ends with another
// code than 0, and a *NotUpError when the cluster does not run.
func (d *Driver) SPIREServer(ctx context.Context, of *topology.Server, s access.Streams, args ...string) error {
	if h := of.Place.Host; h != nil {
		if err := d.hostRuns(ctx, h, HostServer); err != nil {
			return err
		}
		return d.on(h).Run(ctx, HostServer, s, append([]string{spire.ServerProgram}, args...)...)
	}
	in, err := d.reach(ctx, of.Place.Cluster)
	if err != nil {
		return err
	}
	return in.Terminals.Run(ctx, of.Place.Namespace, spire.ServerPod, spire.ServerContainer, s, append([]string{spire.ServerProgram}, args...)...)
}

// ServerLogs copies the log of a container of a server; see ServerContainers.
func (d *Driver) ServerLogs(ctx context.Context, of *topology.Server, container string, o access.LogOptions, out io.Writer) error {
	if h := of.Place.Host; h != nil {
		return d.on(h).Logs(ctx, HostServer, o, out)
	}
	in, err := d.reach(ctx, of.Place.Cluster)
	if err != nil {
		return err
	}
	return in.Terminals.Logs(ctx, of.Place.Namespace, spire.ServerPod, container, o, out)
}

// ServerContainers returns the containers in the pod of a server, that of the server
// first. On a host it is the only one.
func ServerContainers(s *topology.Server) []string {
	all := []string{spire.ServerContainer}
	if s.Place.Host != nil {
		return all
	}
	for _, m := range s.InClusters() {
		all = append(all, spire.ManagerContainer(m))
	}
	if s.Domain.BundleEndpoint.Profile == topology.HTTPSWeb && !s.Nested() && !issuedElsewhere(s) {
		all = append(all, servingCert)
	}
	return all
}

// AgentLogs copies the log of the agent of a member, whether it is ready or not.
func (d *Driver) AgentLogs(ctx context.Context, of *topology.Member, o access.LogOptions, out io.Writer) error {
	if h := of.Host(); h != nil {
		return d.on(h).Logs(ctx, HostAgent, o, out)
	}
	in, err := d.reach(ctx, of.Cluster())
	if err != nil {
		return err
	}
	pods, err := in.Objects.Named(ctx, access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: of.Place.Namespace},
		map[string]string{spire.ProgramLabel: spire.AgentDaemonSet})
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("read log of the agent of %s: cluster %s has no pod of it", of.Domain, of.Cluster().Name)
	}
	// While one pod replaces another there are two for a moment: either will do.
	return in.Terminals.Logs(ctx, of.Place.Namespace, slices.Max(pods), spire.AgentDaemonSet, o, out)
}
