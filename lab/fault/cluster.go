package fault

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// Cluster is where a fault is made. What a fault does not need may be nil.
type Cluster struct {
	Name string
	// Namespace is where the SPIRE server is that is meant, with its agents and its
	// datastore: a cluster may have several.
	Namespace string
	// Replicas is how many pods that server has; 0 is one.
	Replicas int
	// Cluster must apply objects always as the same field manager. An object is given
	// in part: what others have set stays, Helm included: for the API server, who
	// updates and who applies are two managers even where they go by one name. A field
	// that was given before and no longer is goes, or has its default again.
	access.Cluster
	Node  Node
	Power Power
}

// Node is a cluster's one node.
type Node interface {
	// Exec runs a program of the node and returns its standard output, also
	// together with the error of one that failed.
	Exec(ctx context.Context, argv ...string) ([]byte, error)
	// Address returns the address by which the node, and whatever runs on it, is
	// known to the other clusters of the lab.
	Address(ctx context.Context) (netip.Addr, error)
}

// Power switches a cluster's node off and on, or freezes it.
type Power interface {
	// Stop returns when the node is off; what has not ended after grace is killed.
	Stop(ctx context.Context, grace time.Duration) error
	// Freeze has all that runs on the node stand still; one that does not run is refused.
	Freeze(ctx context.Context) error
	// Start starts a node, or lets a frozen one go on; one that runs is left as it is.
	Start(ctx context.Context) error
	// Running is false for a node that is off and for one that is frozen.
	Running(ctx context.Context) (bool, error)
}

// What of SPIRE is in each namespace of a server.
var (
	serverSet   = access.ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Name: spire.ServerStatefulSet}
	serverClaim = access.ObjectKey{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: spire.ServerClaim}
	database    = access.ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Name: spire.DatabaseRelease}
	agentSet    = access.ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Name: spire.AgentDaemonSet}
	endpoint    = access.ObjectKey{APIVersion: "v1", Kind: "Service", Name: spire.BundleEndpointService}
	bundleMap   = access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Name: spire.BundleConfigMap}
)

// part is a part of an object for Apply: its spec, which may be nil.
func part(key access.ObjectKey, spec map[string]any) map[string]any {
	object := map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"namespace": key.Namespace, "name": key.Name},
	}
	if spec != nil {
		object["spec"] = spec
	}
	return object
}

// own returns the key of what belongs to the server that is meant.
func (c Cluster) own(key access.ObjectKey) access.ObjectKey {
	key.Namespace = c.Namespace
	return key
}

func (c Cluster) apply(ctx context.Context, key access.ObjectKey, spec map[string]any) error {
	_, err := c.Objects.Apply(ctx, part(c.own(key), spec))
	return err
}

// pod is what is read of a pod.
type pod struct {
	Metadata struct {
		Name              string `json:"name"`
		DeletionTimestamp string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Status struct {
		Phase             string      `json:"phase"`
		PodIP             string      `json:"podIP"`
		ContainerStatuses []container `json:"containerStatuses"`
	} `json:"status"`
}

// container is what is read of a container. Each start of it has another ID.
type container struct {
	Name        string `json:"name"`
	ContainerID string `json:"containerID"`
	Restarts    int    `json:"restartCount"`
	Ready       bool   `json:"ready"`
	State       struct {
		Running *struct{} `json:"running"`
	} `json:"state"`
	pod string
}

func (c container) running() bool { return c.State.Running != nil }

func (c container) String() string { return fmt.Sprintf("container %s of pod %s", c.Name, c.pod) }

// id returns what containerd calls the container.
func (c container) id() string {
	_, id, _ := strings.Cut(c.ContainerID, "://")
	return id
}

// isnot returns nil when a container is another one than it was before.
func (c container) isnot(before container) error {
	if c.ContainerID == "" || c.ContainerID == before.ContainerID {
		return fmt.Errorf("%s is the one that it was, with %d restarts", c, c.Restarts)
	}
	return nil
}

func (c Cluster) pod(ctx context.Context, name string) (p pod, found bool, err error) {
	found, err = c.Objects.Object(ctx, access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: c.Namespace, Name: name}, &p)
	return p, found, err
}

// podGone returns nil when there is no pod of a name.
func (c Cluster) podGone(ctx context.Context, name string) error {
	p, found, err := c.pod(ctx, name)
	if err == nil && found {
		err = fmt.Errorf("pod %s is there, phase %s", name, p.Status.Phase)
	}
	return err
}

// awayError says that there is no container to look at.
type awayError struct{ what string }

func (e *awayError) Error() string { return e.what }

// container returns a container of a pod as it stands; the error is an *awayError
// where there is none that stays.
func (c Cluster) container(ctx context.Context, name, of string) (container, error) {
	p, found, err := c.pod(ctx, of)
	if err != nil {
		return container{}, err
	}
	if !found {
		return container{}, &awayError{fmt.Sprintf("pod %s is not there", of)}
	}
	i := slices.IndexFunc(p.Status.ContainerStatuses, func(s container) bool { return s.Name == name })
	switch {
	case p.Metadata.DeletionTimestamp != "":
		return container{}, &awayError{fmt.Sprintf("pod %s is being deleted", of)}
	case i < 0:
		return container{}, &awayError{fmt.Sprintf("container %s of pod %s was not started yet", name, of)}
	}
	one := p.Status.ContainerStatuses[i]
	one.pod = of
	return one, nil
}

// server returns the SPIRE server's container.
func (c Cluster) server(ctx context.Context) (container, error) {
	return c.container(ctx, spire.ServerContainer, spire.ServerPod)
}

// agentPods returns the names of the pods of agents.
func (c Cluster) agentPods(ctx context.Context) ([]string, error) {
	kind := access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: c.Namespace}
	return c.Objects.Named(ctx, kind, map[string]string{spire.ProgramLabel: spire.AgentDaemonSet})
}

// agent returns the container of the SPIRE agent, of which a cluster with one
// node has one.
func (c Cluster) agent(ctx context.Context) (container, error) {
	names, err := c.agentPods(ctx)
	if err != nil {
		return container{}, err
	}
	if len(names) != 1 {
		return container{}, fmt.Errorf("%d pods of agents, want one", len(names))
	}
	// The chart calls both the same.
	return c.container(ctx, spire.AgentDaemonSet, names[0])
}

// signal sends a signal to the process that a container began with.
func (c Cluster) signal(ctx context.Context, to container, signal string) error {
	if !to.running() || to.id() == "" {
		return fmt.Errorf("%s does not run", to)
	}
	_, err := c.Node.Exec(ctx, "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", signal, to.id())
	return err
}

// left returns nil where there are none of these any more.
func left(names []string, err error) error {
	if err == nil && len(names) > 0 {
		err = errors.New(strings.Join(names, ", ") + " is there")
	}
	return err
}
