package lab

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Parts are what a driver drives. Package local has the real ones: Docker,
// kind, Kubernetes and Helm on this machine.
type Parts struct {
	Locks       Locks
	Images      Images
	Networks    Networks
	Nodes       Nodes
	Peers       Peers
	Marks       Marks
	Sidecars    Sidecars
	Hosts       Hosts
	Hands       Hands
	Kubeconfigs Kubeconfigs
	Programs    Programs
	// Rendered returns what a chart or manifests outside of fedlab come to, as JSON has
	// it, before any edit.
	Rendered func(access.Release) ([]map[string]any, error)
	// OnHost gives access to the programs of a host.
	OnHost func(lab, host string) access.Host
	// Labs returns the labs of which a network, a node, a program next to the nodes, or
	// something of a host is there.
	Labs func(context.Context) ([]Found, error)
	// Connect gives access to what runs in a cluster, by its kubeconfig.
	Connect func(kubeconfig []byte) (access.Cluster, error)
	// NetworkAPI returns the URL of a cluster's API on the lab's network, as pods of
	// other clusters reach it. It stays the same when the node starts again.
	NetworkAPI func(lab, cluster string) string
	// Watchers returns nil when the kernel lets that many clusters watch their
	// files; clusters that run are among them.
	Watchers func(clusters int) error
	// PortFree returns nil when nobody listens on an address of this machine.
	PortFree func(netip.AddrPort) error
	// NameFree returns nil when no container has the name that the node of a cluster
	// is to have; the error says whose it is.
	NameFree func(ctx context.Context, lab, cluster string) error
	// Page returns nil when this machine gets a page at a URL.
	Page func(ctx context.Context, url string) error
}

// Locks keeps two commands from changing one lab at the same time, whoever runs
// them.
type Locks interface {
	// Hold makes this process the holder of a lab until release is called or the
	// process ends, however it ends. The command is what others are told. The error
	// is a *HeldError when another process holds the lab.
	Hold(ctx context.Context, lab, command string) (release func() error, err error)
}

// ImageSet names what a lab runs on.
type ImageSet struct {
	// Node is the image of the clusters' nodes; all others are in it. It is
	// empty unless it was asked for.
	Node string
	// DefaultCNI reports that the node brings a network that kind installs.
	DefaultCNI bool
	// Demos gives the reference of each app's image, of those that run next to apps and
	// servers, servingCert and postgres, and of each optional program's.
	Demos map[string]string
	// MetalLBChart is the folder of MetalLB's chart.
	MetalLBChart string
	// CRDs are the CustomResourceDefinitions of the SPIRE Controller Manager.
	CRDs []any
	// MetalLB and SPIRE images by their upstream references.
	MetalLBController, MetalLBSpeaker               string
	SPIREServer, SPIREAgent, SPIREControllerManager string
}

// of returns the reference of an optional program's image, or what is in each node where no
// program is named.
func (s ImageSet) of(optional, usual string) string {
	if optional == "" {
		return usual
	}
	return s.Demos[optional]
}

// Images provides what a lab runs on.
type Images interface {
	// Ensure makes what is missing; node asks for the node image, too, and optional names
	// the optional programs that the lab runs.
	Ensure(ctx context.Context, node bool, optional []string) (ImageSet, error)
	// LoadDemo gives a running node the image of one of ImageSet.Demos where it lacks it,
	// and reports whether it did.
	LoadDemo(ctx context.Context, lab, cluster, app string) (bool, error)
	// Own makes or reads an image of the person's own, and returns the reference by
	// which nodes know it. Another content has another reference.
	Own(ctx context.Context, image topology.OwnImage) (reference string, err error)
	// LoadOwn gives a running node that image where it lacks it, and reports whether it
	// did.
	LoadOwn(ctx context.Context, lab, cluster, reference string) (bool, error)
}

// Networks has the container network of each lab. It carries the lab's name, is
// the first to be made and the last to go: as long as it is there, somebody may
// have left something.
type Networks interface {
	// Ensure returns the subnet of the lab's network, made where it was not
	// there, and whether it was made.
	Ensure(ctx context.Context, lab string) (netip.Prefix, bool, error)
	// Find returns the subnet of the lab's network if there is one.
	Find(ctx context.Context, lab string) (netip.Prefix, bool, error)
	// Unsettled says which containers are on their way to the lab's network, or from
	// it, for a command that was killed. The caller holds the lab.
	Unsettled(ctx context.Context, lab string) ([]string, error)
	// Remove removes the lab's network, and what killed commands left of nodes that
	// were on it; none is not an error.
	Remove(ctx context.Context, lab string) error
}

// Node is the one node of a cluster, as it stands.
type Node struct {
	Cluster string
	// Running is false for a node that was stopped, and for one that is Unstarted:
	// made and not started yet, as an up leaves it that was killed.
	Running, Unstarted bool
	// Ports leads from addresses of this machine to ports of the node, as it was
	// made; a container's ports never change.
	Ports map[netip.AddrPort]int
	// API is the address of this machine that leads to the cluster's API, as the
	// node was made with it.
	API netip.AddrPort
}

// NodeSpec is what a cluster is made from.
type NodeSpec struct {
	Lab, Cluster string
	Image        string
	DefaultCNI   bool
	Pods         netip.Prefix
	Services     netip.Prefix
	// Ports leads from addresses of this machine to ports of the node.
	Ports map[netip.AddrPort]int
}

// Nodes has the clusters of a lab as containers.
type Nodes interface {
	// List returns the nodes of a lab, also half-made ones, and those whose
	// network is gone.
	List(ctx context.Context, lab string) ([]Node, error)
	// Create makes a cluster; when it fails, or ctx ends, nothing of it is left.
	Create(ctx context.Context, spec NodeSpec) error
	// Start starts a stopped node, or lets a frozen one go on. Where the lab's network
	// was made again since the node was made, the node joins the new one.
	Start(ctx context.Context, lab, cluster string) error
	// Delete removes a cluster with its volumes, also a half-made one.
	Delete(ctx context.Context, lab, cluster string) error
}

// Answer is what an HTTPS server answers: the status, the chain that it shows, and the
// body.
type Answer struct {
	Status int
	Chain  []*x509.Certificate
	Body   []byte
	// Took is how long it was from the connection to the end of the body.
	Took time.Duration
}

// Peers ask servers on the lab's network, each from the node of a cluster, as what runs
// there does. This machine itself may have no way to that network.
type Peers interface {
	// Get asks for an https URL from a cluster's node, which connects to an address
	// and does not look up the host in the URL. It follows no redirect, and whoever
	// answers is believed: the chain is for the caller to verify. The error is a
	// *HangingError when the server took the request and did not answer it to the end;
	// the answer has the chain then, too.
	Get(ctx context.Context, lab, cluster, url string, at netip.Addr) (Answer, error)
	// Presented makes a TLS handshake from a cluster's node, without a certificate of
	// its own, and returns the chain that the server shows. It verifies nothing, and
	// sends no request.
	Presented(ctx context.Context, lab, cluster string, server netip.AddrPort) ([]*x509.Certificate, error)
}

// Marks says of a cluster that it has been whole, where that is read also when the
// cluster does not run or answer. A mark goes with its node.
type Marks interface {
	// Whole reports whether a cluster that is there has the mark.
	Whole(ctx context.Context, lab, cluster string) (bool, error)
	// SetWhole gives a cluster the mark.
	SetWhole(ctx context.Context, lab, cluster string) error
}

// Hands do to a cluster's node what a person at that machine would do to it. The
// driver itself keeps them off: what they do, nobody else puts right.
type Hands interface {
	// Stop asks all that runs on a node to end, kills what is left after grace,
	// and switches the node off. Nodes.Start switches it on again.
	Stop(ctx context.Context, lab, cluster string, grace time.Duration) error
	// Freeze has all that runs on a node stand still, its clocks excepted. Nodes.Start lets
	// it go on.
	Freeze(ctx context.Context, lab, cluster string) error
	// Exec runs a program of the node, on the node, as root, and returns its
	// standard output, also together with the error of one that failed.
	Exec(ctx context.Context, lab, cluster string, argv ...string) ([]byte, error)
	// Address returns the node's IPv4 address on the lab's network, by which its
	// pods reach what is outside of their cluster, too. It may be another one after
	// each start; a node that does not run has none, which is an error.
	Address(ctx context.Context, lab, cluster string) (netip.Addr, error)
}

// Sidecar is a program of fedlab's own that runs next to the clusters.
type Sidecar struct {
	// Address is the one on the lab's network, where peers find it.
	Address netip.Addr
	// Control is where this machine controls it, on loopback.
	Control netip.AddrPort
}

// Sidecars has fedlab's own programs that run next to the clusters, each in a
// container on the lab's network. A lab file asks for none: who runs one removes
// it, and an up or a down what somebody was killed over.
type Sidecars interface {
	// Run runs a program that this machine controls by HTTP on one of its ports, and
	// returns it when it answers there. One that runs with the same variables is left
	// as it is; another one is replaced. Variables may hold secrets: they are in no
	// error. When it fails, or ctx ends, nothing of it is left.
	Run(ctx context.Context, lab, program string, env map[string]string, control int) (Sidecar, error)
	// List returns the programs of a lab that are there, running or not.
	List(ctx context.Context, lab string) ([]string, error)
	// Remove removes a program; none is not an error.
	Remove(ctx context.Context, lab, program string) error
}

// HostProgram is a program of a host outside Kubernetes, in a container of its own.
type HostProgram struct {
	// Name tells it apart from the others of its host. HostOwner is the first one.
	Name string
	// Image is the upstream reference of one of SPIRE's programs, as ImageSet has it, or
	// the name of one of fedlab's own.
	Image string
	// Command is the program with its arguments; nil is that of the image.
	Command []string
	// User is the number of the user who runs it.
	User int
	// Capabilities are those that it has, as Docker names them, and no others.
	Capabilities []string
	Env          map[string]string
	// Address is that on the lab's network; the zero value is any.
	Address netip.Addr
	// Names are DNS names that it finds these addresses by.
	Names map[string]netip.Addr
	// Ports are those by which this machine reaches it.
	Ports   []int
	Volumes []HostVolume
	// Files, by their paths, are there when it starts.
	Files map[string][]byte
	// Seed returns further files for a container that is made. One that is there keeps
	// its own, and is not compared by them. It may be nil.
	Seed func(context.Context) (map[string][]byte, error)
}

// HostOwner is the program that owns the PID namespace of its host. All others join it,
// except the SPIRE server, whose processes nobody has to see; when it ends, they end, too.
const HostOwner = "owner"

// HostVolume is a folder of a host that outlives the containers which have it.
type HostVolume struct {
	// Name tells it apart from the others of its host.
	Name, Folder string
	ReadOnly     bool
}

// FoundHost is a host of which something is there, if only volumes.
type FoundHost struct {
	Name string
	// Programs says of each that has a container whether it runs.
	Programs map[string]bool
}

// Hosts has the machines of labs that are outside Kubernetes, as containers on the lab's
// network. Volumes come with the first container that has them.
type Hosts interface {
	// Run brings a program up and reports whether it made a container: one that runs and
	// was made of the same is left as it is, and any other is replaced. When it fails, no
	// container of the program is left.
	Run(ctx context.Context, lab, host string, p HostProgram) (made bool, err error)
	// List returns the hosts of a lab of which something is there, by name.
	List(ctx context.Context, lab string) ([]FoundHost, error)
	// Remove removes the container of a program, and volumes of the host; none is not an
	// error.
	Remove(ctx context.Context, lab, host, program string, volumes ...string) error
	// Clear removes all of a host: the containers, with HostOwner last, and then the
	// volumes.
	Clear(ctx context.Context, lab, host string) error
}

// Kubeconfigs has the ways into clusters.
type Kubeconfigs interface {
	// Kubeconfig returns the one of a cluster; it holds a private key. The error
	// names the cluster; it is a *NoKubeconfigError when the node runs and has none.
	Kubeconfig(lab, cluster string) ([]byte, error)
	// Export writes the clusters' contexts to the person's kubeconfig file, and
	// reports whether they were not there yet as they are. An empty path is the
	// usual file. The error is a *KubeconfigFileError where that file is in the way.
	Export(ctx context.Context, lab string, clusters []string, path string) (bool, error)
	// Remove takes out again the contexts of a lab that Export has written, except
	// those of the clusters to keep, and whatever else killed commands left that
	// leads into a cluster. It reports whether there were contexts to remove. The
	// error is a *KubeconfigFileError where the file is in the way.
	Remove(ctx context.Context, lab string, keep []string, path string) (bool, error)
	// Context returns the name of a cluster's context.
	Context(lab, cluster string) string
}

// Programs knows the programs that workloads run.
type Programs interface {
	// Values returns what the chart of a workload's app is installed with, where images are
	// those of ImageSet.Demos.
	Values(w *topology.Workload, images map[string]string) (any, error)
	// OnHost returns the variables of the environment by which a workload runs on a host,
	// and the port on which it answers /readyz, in plain HTTP.
	OnHost(w *topology.Workload) (env map[string]string, health int, err error)
	// Answered reads what a workload tells at the path App.Tells. It returns nil when
	// the calls of one workload to another end as they should, and at least one with
	// an answer.
	Answered(by *topology.Workload, told []byte, from, to *topology.Workload) error
	// Self reads the same, and returns whose X509-SVID the workload has and whether
	// the bundle that it has of its own trust domain verifies it.
	Self(told []byte) (id spiffeid.ID, verified bool, err error)
}

// Programs among ImageSet.Demos that are no app.
const (
	servingCert = "serving-cert"
	postgres    = "postgres"
)

// pace is how often a condition is looked at.
const pace = 250 * time.Millisecond

// wait waits for a check in the course of a plan; what it sees is told to the
// plan's observer.
func wait(ctx context.Context, within time.Duration, c check.Check) error {
	return check.Until(ctx, check.Bound{Within: within, Every: pace, Seen: note(ctx, c.Name)}, c)
}

// deployment returns the key of the Deployment of a workload.
func deployment(w *topology.Workload) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "Deployment", Namespace: w.Namespace, Name: w.App.Deployment}
}
