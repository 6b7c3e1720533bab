// Package access says what can be done in one cluster: the ports that the driver,
// faults and scenarios act through, and that adapters implement.
//
// It is the ground floor: it imports nothing of fedlab, and refuses to know what a
// lab is, and which libraries do the work.
package access

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// Cluster is what can be done in one cluster.
type Cluster struct {
	Objects  Objects
	Pods     Pods
	Releases Releases
	// Terminals may be nil where no person is connected.
	Terminals Terminals
}

// ObjectKey names a Kubernetes object. Namespace is empty for those of the
// whole cluster.
type ObjectKey struct {
	APIVersion, Kind, Namespace, Name string
}

// Objects reads and writes Kubernetes objects.
type Objects interface {
	// Apply makes objects what they are given as (server-side apply), each in
	// fedlab's own name unless it is an As; it reports whether it changed one.
	Apply(ctx context.Context, objects ...any) (bool, error)
	// Object reads an object into something that JSON fits into; it returns
	// false where there is none.
	Object(ctx context.Context, key ObjectKey, into any) (bool, error)
	// Named returns the names of the objects of a kind with these labels; none
	// where the cluster does not know the kind. The name of the key is not used.
	Named(ctx context.Context, kind ObjectKey, labels map[string]string) ([]string, error)
	// List reads the objects of a kind with these labels into a slice of something
	// that JSON fits into, by one question; none where the cluster does not know the
	// kind. The name of the key is not used, and without a namespace all count.
	List(ctx context.Context, kind ObjectKey, labels map[string]string, into any) error
	// Delete removes an object; none is not an error.
	Delete(ctx context.Context, key ObjectKey) error
	// NodeReady returns nil when the API answers and the node is ready.
	NodeReady(ctx context.Context) error
}

// As is an object that Apply makes in the name of another field manager, so that this one
// can go on to apply it without force: the API server refuses the change of a field that
// somebody else has written (Kubernetes, "Server-Side Apply", Conflicts).
type As struct {
	Manager string
	Object  any
}

// MarshalJSON returns what the object encodes to.
func (a As) MarshalJSON() ([]byte, error) { return json.Marshal(a.Object) }

// Pods reaches into pods and looks at what controls them.
type Pods interface {
	// Exec runs a program in a container and returns its standard output.
	Exec(ctx context.Context, namespace, pod, container string, argv ...string) ([]byte, error)
	// Dial connects to a port of a pod.
	Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error)
	// Started returns nil when all that a StatefulSet wants is of its newest
	// version, and that container of each pod has started, that is, its startup
	// probe has succeeded; it may not be ready yet.
	Started(ctx context.Context, statefulSet ObjectKey, container string) error
	// Ready returns nil when all that a Deployment, StatefulSet or DaemonSet
	// wants runs in its newest version; the error says what is seen instead.
	Ready(ctx context.Context, key ObjectKey) error
	// Named returns the names of the ready pods with these labels.
	Named(ctx context.Context, namespace string, labels map[string]string) ([]string, error)
}

// Release is a chart with its values, or manifests.
type Release struct {
	Name, Namespace string
	// Chart is the folder of a chart: a path, or the name of one of charts.FS.
	Chart  string
	Values any
	// Manifests is the path of a folder with plain manifests, in the place of a chart.
	Manifests string
	// Edit changes what the chart or the manifests come to; it may be nil.
	Edit *Edit
}

// Edit is what is changed of the objects of a release.
type Edit struct {
	// Images gives the reference of each image that a container may name.
	Images map[string]string `json:"images,omitempty"`
	// Address is given to each Service of type LoadBalancer that names none.
	Address string `json:"address,omitempty"`
	// More are objects besides.
	More []any `json:"more,omitempty"`
}

// Releases installs charts.
type Releases interface {
	// Apply installs or upgrades a release, and does nothing where the cluster
	// has that chart with these values, and its objects as they were made: what
	// was deleted or edited comes back. It reports whether it did something.
	Apply(ctx context.Context, release Release) (bool, error)
	// List returns the releases that Apply has installed, without chart and
	// values.
	List(ctx context.Context) ([]Release, error)
	// Remove uninstalls a release; none is not an error.
	Remove(ctx context.Context, namespace, name string) error
}

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

// Host reaches into the programs of one machine outside Kubernetes, each in a container
// of its own. A program that does not run is an error that says so.
type Host interface {
	// Exec runs a program in the container of another and returns its standard output.
	Exec(ctx context.Context, program string, argv ...string) ([]byte, error)
	// Dial connects to a port of a program that is published on this machine.
	Dial(ctx context.Context, program string, port int) (net.Conn, error)
	// Run is Exec with streams. The error is an *EndedError when the program ends with
	// another code than 0.
	Run(ctx context.Context, program string, s Streams, argv ...string) error
	// Logs copies the log of a program, also of one that has ended.
	Logs(ctx context.Context, program string, o LogOptions, out io.Writer) error
}
