package lab

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Streams are what a program in a lab reads and writes. In may be nil.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// EndedError says that a program ended with another code than 0. Why, the program
// itself has said.
type EndedError struct {
	Program string
	Code    int
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("%s ended with exit code %d", e.Program, e.Code)
}

// LogOptions say which part of a log is wanted.
type LogOptions struct {
	// Follow goes on until ctx ends.
	Follow bool
	// Since leaves out what is older; zero is the beginning.
	Since time.Duration
}

// Terminals connect a person to what runs in a cluster.
type Terminals interface {
	// Run runs a program in a container with streams. The error is an *EndedError
	// when the program ends with another code than 0.
	Run(ctx context.Context, namespace, pod, container string, s Streams, argv ...string) error
	// Logs copies the log of a container.
	Logs(ctx context.Context, namespace, pod, container string, o LogOptions, out io.Writer) error
}

// SPIREServer runs the program of a trust domain's server in its container, with
// arguments and streams. The error is an *EndedError when the program ends with
// another code than 0, and a *NotUpError when the cluster does not run.
func (d *Driver) SPIREServer(ctx context.Context, t topology.Topology, td topology.TrustDomain, s Streams, args ...string) error {
	access, err := d.reach(ctx, t.Name, td.Cluster)
	if err != nil {
		return err
	}
	return access.Terminals.Run(ctx, spire.Namespace, spire.ServerPod, spire.ServerContainer, s, append([]string{spire.ServerProgram}, args...)...)
}

// ServerLogs copies the log of a container of a trust domain's server; see
// ServerContainers.
func (d *Driver) ServerLogs(ctx context.Context, t topology.Topology, td topology.TrustDomain, container string, o LogOptions, out io.Writer) error {
	access, err := d.reach(ctx, t.Name, td.Cluster)
	if err != nil {
		return err
	}
	return access.Terminals.Logs(ctx, spire.Namespace, spire.ServerPod, container, o, out)
}

// ServerContainers returns the containers in the pod of a trust domain's server,
// that of the server first.
func ServerContainers(td topology.TrustDomain) []string {
	all := []string{spire.ServerContainer, spire.ControllerManagerContainer}
	if td.BundleEndpoint.Profile == topology.HTTPSWeb {
		all = append(all, servingCert)
	}
	return all
}

// AgentLogs copies the log of the agent of a trust domain, whether it is ready or
// not.
func (d *Driver) AgentLogs(ctx context.Context, t topology.Topology, td topology.TrustDomain, o LogOptions, out io.Writer) error {
	access, err := d.reach(ctx, t.Name, td.Cluster)
	if err != nil {
		return err
	}
	pods, err := access.Objects.Named(ctx, ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: spire.Namespace},
		map[string]string{spire.ProgramLabel: spire.AgentDaemonSet})
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("read log of the agent of %s: cluster %s has no pod of it", td.Name.Name(), td.Cluster)
	}
	// While one pod replaces another there are two for a moment: either will do.
	return access.Terminals.Logs(ctx, spire.Namespace, slices.Max(pods), spire.AgentDaemonSet, o, out)
}

// reach connects to a cluster that runs, whatever the others do; else the error is
// a *NotUpError.
func (d *Driver) reach(ctx context.Context, lab, cluster string) (Access, error) {
	if err := d.Runs(ctx, lab, cluster); err != nil {
		return Access{}, err
	}
	return d.access(lab, cluster)
}

// Runs returns a *NotUpError when the node of a cluster is not there, or stopped.
func (d *Driver) Runs(ctx context.Context, lab, cluster string) error {
	nodes, err := d.Parts.Nodes.List(ctx, lab)
	if err != nil {
		return err
	}
	n, there := node(nodes, cluster)
	switch {
	case !there:
		return &NotUpError{Lab: lab, What: "it has no cluster " + cluster}
	case !n.Running:
		return &NotUpError{Lab: lab, What: "cluster " + cluster + " is stopped"}
	}
	return nil
}
