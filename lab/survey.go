package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// MismatchError says that what runs under the name of a lab cannot become what
// its file asks for: the lab has to be removed first.
type MismatchError struct {
	Lab string
	// Differences holds a sentence about each cluster that does not fit.
	Differences []string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("lab %s runs and is not what its file asks for: %s", e.Lab, strings.Join(e.Differences, "; "))
}

// settleBound is how long Docker may go on with what a killed command asked for.
// Making a node takes some seconds, removing one up to ten.
const settleBound = time.Minute

// settle waits until nothing is on its way any more that a killed command asked
// for: it would come after the look at what is there.
func (d *Driver) settle(ctx context.Context, lab string) error {
	underWay, err := d.Parts.Networks.Unsettled(ctx, lab)
	if err != nil || len(underWay) == 0 {
		return err
	}
	return wait(ctx, settleBound, check.Check{Name: "Docker has done what a killed command asked for", Probe: func(ctx context.Context) error {
		underWay, err := d.Parts.Networks.Unsettled(ctx, lab)
		if err == nil && len(underWay) > 0 {
			err = errors.New(strings.Join(underWay, "; "))
		}
		return err
	}})
}

// survey looks at the clusters that are there before anything is changed, and
// gives those of the file that are there the places that they have.
func (u *up) survey(ctx context.Context) (err error) {
	if err := u.settle(ctx, u.topology.Name); err != nil {
		return err
	}
	if u.nodes, err = u.Parts.Nodes.List(ctx, u.topology.Name); err != nil {
		return err
	}
	// Better now than when images have been built for minutes.
	if err := u.namesFree(ctx); err != nil {
		return err
	}
	before, err := u.remember(ctx)
	if err != nil {
		return err
	}
	mismatch := &MismatchError{Lab: u.topology.Name}
	for _, n := range u.nodes {
		if _, err := u.topology.Cluster(n.Cluster); err != nil {
			continue // it goes
		}
		if err := fits(u.topology, n); err != nil {
			mismatch.Differences = append(mismatch.Differences, err.Error())
		}
	}
	mismatch.Differences = append(mismatch.Differences, immutable(before, u.topology)...)
	if mismatch.Differences != nil {
		return mismatch
	}
	u.topology = u.topology.Placed(before)
	if err := u.watchers(); err != nil {
		return err
	}
	return u.missingPorts(ctx)
}

// watchers returns nil when the clusters that are to be made or started find what
// they need of the kernel. Those that run have it.
func (u *up) watchers() error {
	for _, c := range u.topology.Clusters {
		// A node that was made and never started is removed, and with it what Docker
		// may be giving it just now: the ports.
		if n, there := node(u.nodes, c.Name); !there || !n.Running && !n.Unstarted {
			return u.Parts.Watchers(len(u.topology.Clusters))
		}
	}
	return nil
}

// namesFree returns nil when the clusters that are not there can have their names:
// two labs may make the same name of other parts.
func (u *up) namesFree(ctx context.Context) error {
	var errs []error
	for _, c := range u.topology.Clusters {
		if _, there := node(u.nodes, c.Name); !there {
			errs = append(errs, u.Parts.NameFree(ctx, u.topology.Name, c.Name))
		}
	}
	return errors.Join(errs...)
}

// portBound is how long a container of a killed command may have its ports and not
// be seen yet, neither by itself nor by the docker command that asks for it.
const portBound = 3 * time.Second

// missingPorts returns nil when the ports of the clusters that are not there, or are
// stopped, can be had.
func (u *up) missingPorts(ctx context.Context) error {
	taken := u.portsTaken()
	if taken == nil {
		return nil
	}
	err := wait(ctx, portBound, check.Check{Name: "the ports are free", Probe: func(ctx context.Context) (err error) {
		if err := u.settle(ctx, u.topology.Name); err != nil {
			return err
		}
		if u.nodes, err = u.Parts.Nodes.List(ctx, u.topology.Name); err != nil {
			return err
		}
		taken = u.portsTaken()
		return taken
	}})
	if timeout := (*check.TimeoutError)(nil); errors.As(err, &timeout) && taken != nil {
		return taken
	}
	return err
}

// portsTaken says which ports cannot be had. A node that was made and never started
// is removed, and with it what Docker may be giving it just now: they do not count.
func (u *up) portsTaken() error {
	var errs []error
	for _, c := range u.topology.Clusters {
		if n, there := node(u.nodes, c.Name); !there || !n.Running && !n.Unstarted {
			errs = append(errs, u.portsFree(c, u.going()))
		}
	}
	return errors.Join(errs...)
}

// going returns the ports of the clusters that the file no longer has.
func (u *up) going() map[netip.AddrPort]int {
	ports := map[netip.AddrPort]int{}
	for _, n := range u.nodes {
		if _, err := u.topology.Cluster(n.Cluster); err != nil {
			maps.Copy(ports, n.Ports)
		}
	}
	return ports
}

// remember recalls what the clusters that are there were meant to be. Where all
// of them are stopped, they are started for it, as they would be anyway. Where one
// has been whole and none tells, nothing can be done without losing it.
func (u *up) remember(ctx context.Context) (before topology.Topology, err error) {
	before, err = u.recall(ctx, u.topology.Name, u.nodes)
	if err != nil || len(before.Clusters) > 0 || len(u.nodes) == 0 {
		return before, err
	}
	bound := time.Nanosecond // they run, and do not know
	var whole string
	for _, n := range u.nodes {
		marked, err := u.Parts.Marks.Whole(ctx, u.topology.Name, n.Cluster)
		if err != nil {
			return before, err
		}
		if marked {
			bound, whole = max(bound, answerBound), n.Cluster
		}
		if n.Running {
			continue
		}
		bound = apiBound
		if err := u.start(ctx, n); err != nil {
			return before, err
		}
	}
	err = wait(ctx, bound, check.Check{Name: "a cluster tells what the lab is meant to be", Probe: func(ctx context.Context) (err error) {
		if u.nodes, err = u.Parts.Nodes.List(ctx, u.topology.Name); err != nil {
			return err
		}
		if before, err = u.recall(ctx, u.topology.Name, u.nodes); err == nil && len(before.Clusters) == 0 {
			err = u.mute()
		}
		return err
	}})
	if timeout := (*check.TimeoutError)(nil); !errors.As(err, &timeout) && !halfMade(err) {
		return before, err
	}
	if whole != "" {
		return before, &SilentError{Lab: u.topology.Name, Cluster: whole, Err: err}
	}
	return before, nil // they were left half-made
}

// mute says that no cluster tells what the lab is meant to be, and whether one
// may do so later. It returns nil when there is none any more.
func (u *up) mute() error {
	var last error
	for _, n := range u.nodes {
		if _, last = u.Parts.Kubeconfigs.Kubeconfig(u.topology.Name, n.Cluster); !halfMade(last) {
			return errors.New("none of them does")
		}
	}
	if last == nil {
		return nil
	}
	return check.Never(last)
}

// halfMade reports whether it was for want of a kubeconfig that a cluster could
// not be reached.
func halfMade(err error) bool {
	none := (*NoKubeconfigError)(nil)
	return errors.As(err, &none)
}

// immutable says what of the trust domains that run the file would change though
// it cannot be changed. That a profile cannot is a rule of the operator that seed
// 004 describes, too: peers have it in their relationships.
func immutable(before, asked topology.Topology) (differences []string) {
	for _, was := range before.TrustDomains {
		is, err := asked.TrustDomainOf(was.Cluster)
		if err != nil {
			continue // its cluster goes
		}
		for _, c := range []struct{ what, was, is, why string }{
			{"trust domain", was.Name.Name(), is.Name.Name(), "every identity in it would be another"},
			{"bundleEndpoint.profile", string(was.BundleEndpoint.Profile), string(is.BundleEndpoint.Profile), "peers authenticate the endpoint by it, and none would get through any more"},
			{"datastore", string(was.Datastore), string(is.Datastore), "entries and bundles would stay behind in the old one"},
			{"upstreamAuthority", string(was.UpstreamAuthority), string(is.UpstreamAuthority), "the authorities that peers hold would end at once"},
		} {
			if c.was != c.is {
				differences = append(differences, fmt.Sprintf("the %s of cluster %s is %s, and the file asks for %s; it cannot be changed once it is set: %s",
					c.what, was.Cluster, c.was, c.is, c.why))
			}
		}
	}
	return differences
}

// portsFree returns nil when nobody has the ports that a cluster is to have, but
// for those that will be free.
func (u *up) portsFree(c topology.Cluster, free map[netip.AddrPort]int) error {
	var errs []error
	for addr := range ports(u.topology, c.Name) {
		if _, soon := free[addr]; !soon {
			errs = append(errs, u.Parts.PortFree(addr))
		}
	}
	return errors.Join(errs...)
}

// fits says why a node cannot be one of the topology's.
func fits(t topology.Topology, n Node) error {
	if _, err := t.Cluster(n.Cluster); err != nil {
		return fmt.Errorf("cluster %s is there, and the file does not have it", n.Cluster)
	}
	if want := ports(t, n.Cluster); !maps.Equal(n.Ports, want) {
		return fmt.Errorf("cluster %s was made with other ports: it has %s, and the file asks for %s", n.Cluster, portList(n.Ports), portList(want))
	}
	return nil
}

// firstNodePort is the port of the node that leads to the first exposed workload
// of its cluster.
const firstNodePort = 30081

// ports returns how the pages of a cluster's workloads are reached: each has a
// port of the node of its own. The app decides which, not the place in the file,
// which may change while the cluster cannot.
func ports(t topology.Topology, cluster string) map[netip.AddrPort]int {
	exposed := slices.DeleteFunc(slices.Clone(t.Workloads), func(w topology.Workload) bool {
		return w.Cluster != cluster || !w.Expose.IsValid()
	})
	slices.SortFunc(exposed, func(a, b topology.Workload) int { return strings.Compare(a.App.Name, b.App.Name) })
	ports := map[netip.AddrPort]int{}
	for i, w := range exposed {
		ports[w.Expose] = firstNodePort + i
	}
	return ports
}

func portList(ports map[netip.AddrPort]int) string {
	if len(ports) == 0 {
		return "none"
	}
	var list []string
	for _, addr := range slices.SortedFunc(maps.Keys(ports), netip.AddrPort.Compare) {
		list = append(list, fmt.Sprintf("%s (to %d)", addr, ports[addr]))
	}
	return strings.Join(list, ", ")
}
