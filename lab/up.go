package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/metallb"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Bounds of the waits of a bring-up. They are not about SPIRE's arithmetic, for
// which see package federation, but about machines: ten times what a machine
// with two cores needs when it does nothing else.
const (
	apiBound     = 3 * time.Minute
	rolloutBound = 4 * time.Minute
	callBound    = 3 * time.Minute
)

// firstFetch is how long a server may take to fetch the bundle of a new
// relationship: it reads its relationships again every 10 s
// (pkg/server/bundle/client/manager.go), and a fetch takes moments.
const firstFetch = 20 * time.Second

// Plan returns the steps that bring t to life, in an order that respects what
// depends on what. They may be printed; Up runs them.
func (d *Driver) Plan(t topology.Topology) (*plan.Plan, error) {
	p, _, err := d.plan(t)
	return p, err
}

// Up brings t to life. Running Up again on a lab that is already up is a no-op:
// every step looks before it acts. The error is a *HeldError when another
// process is changing the lab.
func (d *Driver) Up(ctx context.Context, t topology.Topology) (err error) {
	release, err := d.hold(t.Name, "up")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	p, up, err := d.plan(t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.close()) }()
	return plan.Runner{Observe: d.Observe}.Run(ctx, p)
}

// up is a bring-up under way. Steps write what later ones need; the plan's
// order keeps them apart, the mutex guards the maps.
type up struct {
	*Driver
	topology  topology.Topology
	addresses topology.Addresses
	images    ImageSet

	mu       sync.Mutex
	clusters map[string]Access
	servers  map[spiffeid.TrustDomain]*spire.Server
}

func (u *up) close() error {
	var errs []error
	for _, s := range u.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func (u *up) access(cluster string) Access {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.clusters[cluster]
}

func (u *up) server(td spiffeid.TrustDomain) *spire.Server {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.servers[td]
}

// Names of steps.
func networkStep(t topology.Topology) plan.ID      { return plan.ID("network/" + t.Name) }
func imagesStep(t topology.Topology) plan.ID       { return plan.ID("images/" + t.Name) }
func clusterStep(c string) plan.ID                 { return plan.ID("cluster/" + c) }
func metallbStep(c string) plan.ID                 { return plan.ID("metallb/" + c) }
func serverStep(td topology.TrustDomain) plan.ID   { return plan.ID("server/" + td.Name.Name()) }
func agentsStep(td topology.TrustDomain) plan.ID   { return plan.ID("agents/" + td.Name.Name()) }
func federateStep(r topology.Relationship) plan.ID { return plan.ID("federate/" + r.ID()) }
func registerStep(w topology.Workload) plan.ID     { return plan.ID("register/" + w.Name) }
func deployStep(w topology.Workload) plan.ID       { return plan.ID("deploy/" + w.Name) }
func verifyStep(from, to topology.Workload) plan.ID {
	return plan.ID("verify/" + from.Name + "->" + to.Name)
}
func kubeconfigStep(t topology.Topology) plan.ID { return plan.ID("kubeconfig/" + t.Name) }

func (d *Driver) plan(t topology.Topology) (*plan.Plan, *up, error) {
	u := &up{Driver: d, topology: t, clusters: map[string]Access{}, servers: map[spiffeid.TrustDomain]*spire.Server{}}
	p := &plan.Plan{}
	var errs []error
	step := func(name plan.ID, title string, do func(context.Context) error, after ...plan.ID) {
		errs = append(errs, p.Add(plan.Step{Name: name, Title: title, After: after, Do: do}))
	}

	step(networkStep(t), "container network of the lab", u.network)
	step(imagesStep(t), "images and charts", u.ensureImages)
	var clusters []plan.ID
	for _, c := range t.Clusters {
		step(clusterStep(c.Name), "cluster "+c.Name, func(ctx context.Context) error { return u.cluster(ctx, c) },
			networkStep(t), imagesStep(t))
		clusters = append(clusters, clusterStep(c.Name))
	}
	for _, c := range t.Clusters {
		step(metallbStep(c.Name), "MetalLB in "+c.Name, func(ctx context.Context) error { return u.metallb(ctx, c) }, clusterStep(c.Name))
	}
	for _, td := range t.TrustDomains {
		step(serverStep(td), fmt.Sprintf("SPIRE server of %s in %s", td.Name.Name(), td.Cluster),
			func(ctx context.Context) error { return u.spireServer(ctx, td) }, clusterStep(td.Cluster))
		step(agentsStep(td), fmt.Sprintf("SPIRE agent of %s in %s", td.Name.Name(), td.Cluster),
			func(ctx context.Context) error { return u.spireAgents(ctx, td) }, serverStep(td))
	}
	for _, r := range t.Relationships {
		truster, err := t.TrustDomain(r.Truster)
		errs = append(errs, err)
		trusted, err := t.TrustDomain(r.Trusted)
		errs = append(errs, err)
		step(federateStep(r), fmt.Sprintf("%s trusts %s (%s)", r.Truster.Name(), r.Trusted.Name(), r.Profile),
			func(ctx context.Context) error { return u.federate(ctx, r) },
			serverStep(truster), serverStep(trusted), metallbStep(trusted.Cluster))
	}
	for _, w := range t.Workloads {
		td, err := t.TrustDomainOf(w.Cluster)
		errs = append(errs, err)
		// An entry that names a trust domain whose bundle is not there yet is
		// refused, and tried again only seconds later (facts: spire#7146).
		after := []plan.ID{serverStep(td)}
		for _, r := range t.Relationships {
			if r.Truster == td.Name {
				after = append(after, federateStep(r))
			}
		}
		step(registerStep(w), "identity of "+w.Name, func(ctx context.Context) error { return u.register(ctx, w) }, after...)
		step(deployStep(w), fmt.Sprintf("%s in %s", w.Name, w.Cluster), func(ctx context.Context) error { return u.deploy(ctx, w) },
			clusterStep(w.Cluster))
	}
	for _, from := range t.Workloads {
		for _, name := range from.Calls {
			to, err := t.Workload(name)
			errs = append(errs, err)
			step(verifyStep(from, to), fmt.Sprintf("%s calls %s", from.Name, to.Name),
				func(ctx context.Context) error { return u.verify(ctx, from, to) },
				registerStep(from), registerStep(to), deployStep(from), deployStep(to), metallbStep(to.Cluster))
		}
	}
	step(kubeconfigStep(t), "contexts in the kubeconfig file", u.exportKubeconfig, clusters...)
	return p, u, errors.Join(errs...)
}

func (u *up) network(ctx context.Context) error {
	subnet, made, err := u.Parts.Networks.Ensure(ctx, u.topology.Name)
	if err != nil {
		return err
	}
	if made {
		plan.Did(ctx)
	}
	u.addresses, err = u.topology.Addresses(subnet)
	return err
}

// ensureImages asks for the node image only where a cluster has to be made: a
// lab that runs takes a changed demo program without it.
func (u *up) ensureImages(ctx context.Context) error {
	nodes, err := u.Parts.Nodes.List(ctx, u.topology.Name)
	if err != nil {
		return err
	}
	missing := slices.ContainsFunc(u.topology.Clusters, func(c topology.Cluster) bool {
		return !slices.ContainsFunc(nodes, func(n Node) bool { return n.Cluster == c.Name })
	})
	u.images, err = u.Parts.Images.Ensure(ctx, missing)
	return err
}

// made is the ConfigMap that is written when a cluster has been made whole. A
// cluster without it was left by an up that was killed, and is made anew.
var made = ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-system", Name: "fedlab"}

func (u *up) cluster(ctx context.Context, c topology.Cluster) error {
	nodes, err := u.Parts.Nodes.List(ctx, u.topology.Name)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(nodes, func(n Node) bool { return n.Cluster == c.Name }); i >= 0 {
		whole, err := u.adopt(ctx, c, nodes[i])
		if err != nil || whole {
			return err
		}
		plan.Did(ctx)
		plan.Note(ctx, "was left half-made by an earlier up: makes it anew")
		if err := u.Parts.Nodes.Delete(ctx, u.topology.Name, c.Name); err != nil {
			return err
		}
		if u.images.Node == "" {
			if u.images, err = u.Parts.Images.Ensure(ctx, true); err != nil {
				return err
			}
		}
	}
	plan.Did(ctx)
	ports := u.ports(c)
	for addr := range ports {
		if err := u.Parts.PortFree(addr); err != nil {
			return err
		}
	}
	err = u.Parts.Nodes.Create(ctx, NodeSpec{
		Lab: u.topology.Name, Cluster: c.Name, Image: u.images.Node, DefaultCNI: u.images.DefaultCNI,
		Pods: c.PodSubnet, Services: c.ServiceSubnet, Ports: ports,
	})
	if err != nil {
		return err
	}
	access, err := u.reach(c)
	if err != nil {
		return err
	}
	if err := wait(ctx, apiBound, check.Check{Name: "the node is ready", Probe: access.Objects.NodeReady}); err != nil {
		return err
	}
	// One CoreDNS is enough for one node.
	replicas := map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "coredns", "namespace": "kube-system"},
		"spec":     map[string]any{"replicas": 1},
	}
	mark := map[string]any{
		"apiVersion": made.APIVersion, "kind": made.Kind,
		"metadata": map[string]any{"name": made.Name, "namespace": made.Namespace},
		"data":     map[string]any{"lab": u.topology.Name, "cluster": c.Name},
	}
	_, err = access.Objects.Apply(ctx, replicas, mark)
	return err
}

// adopt takes a cluster that is there into the bring-up, started where it was
// stopped. It returns false for one that was never finished.
func (u *up) adopt(ctx context.Context, c topology.Cluster, n Node) (bool, error) {
	if !n.Running {
		plan.Did(ctx)
		if err := u.Parts.Nodes.Start(ctx, u.topology.Name, c.Name); err != nil {
			return false, err
		}
	}
	access, err := u.reach(c)
	if err != nil {
		// A node without a kubeconfig never came that far.
		plan.Note(ctx, firstLine(err.Error()))
		return false, nil
	}
	bound := apiBound
	if n.Running {
		// An API that was up answers at once; one that never came up never does.
		bound = 20 * time.Second
	}
	var whole bool
	err = wait(ctx, bound, check.Check{Name: "the API answers", Probe: func(ctx context.Context) (err error) {
		whole, err = access.Objects.Object(ctx, made, &map[string]any{})
		return err
	}})
	if timeout := (*check.TimeoutError)(nil); errors.As(err, &timeout) {
		return false, nil
	}
	if err != nil || !whole {
		return false, err
	}
	return true, wait(ctx, apiBound, check.Check{Name: "the node is ready", Probe: access.Objects.NodeReady})
}

func (u *up) reach(c topology.Cluster) (Access, error) {
	access, err := u.Driver.access(u.topology.Name, c.Name)
	if err != nil {
		return Access{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clusters[c.Name] = access
	return access, nil
}

// ports returns how the pages of a cluster's workloads are reached: each has a
// port of the node of its own.
func (u *up) ports(c topology.Cluster) map[netip.AddrPort]int {
	ports := map[netip.AddrPort]int{}
	for i, w := range u.topology.Workloads {
		if w.Cluster == c.Name && w.Expose.IsValid() {
			ports[w.Expose] = nodePort(i)
		}
	}
	return ports
}

// nodePort returns the port of the node that leads to the i-th workload.
func nodePort(i int) int { return 30080 + i }

func (u *up) metallb(ctx context.Context, c topology.Cluster) error {
	first, last, err := u.addresses.Pool(c.Name)
	if err != nil {
		return err
	}
	access := u.access(c.Name)
	changed, err := access.Releases.Apply(ctx, Release{
		Name: "metallb", Namespace: metallb.Namespace, Chart: u.images.MetalLBChart,
		Values: metallb.Values(u.images.MetalLBController, u.images.MetalLBSpeaker),
	})
	if err != nil {
		return err
	}
	if changed {
		plan.Did(ctx)
	}
	return wait(ctx, apiBound, check.Check{Name: "MetalLB takes its address pool", Probe: func(ctx context.Context) error {
		applied, err := access.Objects.Apply(ctx, metallb.Objects(first, last)...)
		if applied {
			plan.Did(ctx)
		}
		return err
	}})
}

func (u *up) spireServer(ctx context.Context, td topology.TrustDomain) error {
	access := u.access(td.Cluster)
	applied, err := access.Objects.Apply(ctx, u.images.CRDs...)
	if err != nil {
		return err
	}
	address, err := u.addresses.Server(td)
	if err != nil {
		return err
	}
	changed, err := access.Releases.Apply(ctx, Release{
		Name: "spire", Namespace: spire.Namespace, Chart: "spire",
		Values: spire.NewValues(td, address, spire.Images{
			Server: u.images.SPIREServer, Agent: u.images.SPIREAgent, ControllerManager: u.images.SPIREControllerManager,
		}),
	})
	if err != nil {
		return err
	}
	if applied || changed {
		plan.Did(ctx)
	}
	err = wait(ctx, rolloutBound, check.Check{Name: "the SPIRE server runs", Probe: func(ctx context.Context) error {
		return access.Pods.Ready(ctx, serverKey)
	}})
	if err != nil {
		return err
	}
	server, err := connectServer(ctx, access, td.Name)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.servers[td.Name] = server
	return nil
}

func (u *up) spireAgents(ctx context.Context, td topology.TrustDomain) error {
	return wait(ctx, rolloutBound, check.Check{Name: "the SPIRE agent runs", Probe: func(ctx context.Context) error {
		return u.access(td.Cluster).Pods.Ready(ctx, agentKey)
	}})
}

// What of SPIRE runs in each cluster.
var (
	serverKey = ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: spire.Namespace, Name: spire.ServerStatefulSet}
	agentKey  = ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: spire.Namespace, Name: spire.AgentDaemonSet}
)

// federate makes one trust domain trust another: the bundle of the trusted one
// is read from its own server over an authenticated path and handed to the
// truster, whose server then fetches it by itself from the bundle endpoint.
func (u *up) federate(ctx context.Context, r topology.Relationship) error {
	truster, trusted := u.server(r.Truster), u.server(r.Trusted)
	td, err := u.topology.TrustDomain(r.Trusted)
	if err != nil {
		return err
	}
	address, err := u.addresses.Server(td)
	if err != nil {
		return err
	}
	of, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return err
	}
	access := u.access(of.Cluster)
	key := ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterFederatedTrustDomain", Name: spire.ResourceName(r.Trusted)}
	there, err := access.Objects.Object(ctx, key, &map[string]any{})
	if err != nil {
		return err
	}
	if !there {
		// The bundle in the resource counts only when the relationship is made
		// (facts: the controller manager ignores later edits), so that a
		// relationship that is there is left alone.
		plan.Did(ctx)
		source, err := trusted.Bundle(ctx)
		if err != nil {
			return err
		}
		resource, err := spire.FederatedTrustDomain(r, td.BundleEndpoint, address, source)
		if err != nil {
			return err
		}
		err = wait(ctx, apiBound, check.Check{Name: "the controller manager takes the relationship", Probe: func(ctx context.Context) error {
			_, err := access.Objects.Apply(ctx, resource)
			return err
		}})
		if err != nil {
			return err
		}
	}
	// The truster's server fetches by itself as soon as it has the relationship.
	// Asking it to before would make it never fetch again: in SPIRE 1.15.3 a
	// refresh that meets a new relationship ends the polling with its own call.
	// So it is asked only once it has had its time.
	began, asked := time.Now(), false
	return wait(ctx, apiBound, check.Check{Name: r.Truster.Name() + " holds the bundle of " + r.Trusted.Name(), Probe: func(ctx context.Context) error {
		source, err := trusted.Bundle(ctx)
		if err != nil {
			return err
		}
		held, err := truster.HeldBundle(ctx, r.Trusted)
		if err != nil {
			return err
		}
		c := federation.Compare(held, source)
		if c.State == federation.InSync {
			return nil
		}
		if late := time.Since(began) > firstFetch; (there || late) && !asked {
			asked = true
			if err := truster.RefreshBundle(ctx, r.Trusted); err != nil {
				asked = false
				return fmt.Errorf("%s; %w", c, err)
			}
		}
		return errors.New(c.String())
	}})
}

// register lets a workload have its identity.
func (u *up) register(ctx context.Context, w topology.Workload) error {
	identity, err := spire.WorkloadIdentity(u.topology, w)
	if err != nil {
		return err
	}
	return wait(ctx, apiBound, check.Check{Name: "the controller manager takes the registration", Probe: func(ctx context.Context) error {
		applied, err := u.access(w.Cluster).Objects.Apply(ctx, identity)
		if applied {
			plan.Did(ctx)
		}
		return err
	}})
}

func (u *up) exportKubeconfig(ctx context.Context) error {
	names := make([]string, len(u.topology.Clusters))
	for i, c := range u.topology.Clusters {
		names[i] = c.Name
	}
	return u.Parts.Kubeconfigs.Export(ctx, u.topology.Name, names, "")
}
