package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
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

// survey is the look at what is there of a lab, before anything of it is planned.
// What is found has names only: here, and not later, they are matched with what the
// lab file asks for.
type survey struct {
	*Driver
	// asked is what the lab file asks for, without the places and addresses that a
	// running lab has.
	asked *topology.Graph
	// nodes and hosts are as they were before anything was changed.
	nodes []Node
	hosts []FoundHost
	// before is what the clusters and hosts that are there were meant to be.
	before topology.Topology
	// found is what the lab file asks for, in its place; the last step sets it.
	found *topology.Graph
}

// newSurvey returns an error for a lab of which one part names another that is not
// there.
func (d *Driver) newSurvey(t topology.Topology) (*survey, error) {
	asked, err := topology.Resolve(t, netip.Prefix{})
	return &survey{Driver: d, asked: asked}, err
}

// contents are the steps that come before all others.
func (s *survey) contents() (*plan.Plan, error) {
	c, lab := &contents{}, s.asked.Name
	c.step(surveyStep(lab), "what is there already fits the lab file", s.look)
	c.step(surplusStep(lab), "clusters and hosts that the lab file no longer has", s.removeSurplus, surveyStep(lab))
	c.step(networkStep(lab), "container network of the lab", s.network, surplusStep(lab))
	return c.done()
}

// look looks at the clusters that are there before anything is changed, and recalls
// the places of those of the file that are there.
func (s *survey) look(ctx context.Context) (err error) {
	if err := s.settle(ctx, s.asked.Name); err != nil {
		return err
	}
	if s.nodes, err = s.Parts.Nodes.List(ctx, s.asked.Name); err != nil {
		return err
	}
	if s.hosts, err = s.Parts.Hosts.List(ctx, s.asked.Name); err != nil {
		return err
	}
	// Better now than when images have been built for minutes.
	if err := s.namesFree(ctx); err != nil {
		return err
	}
	if s.before, err = s.remember(ctx); err != nil {
		return err
	}
	mismatch := &MismatchError{Lab: s.asked.Name}
	for _, n := range s.nodes {
		if c := clusterOf(n, s.asked.Clusters); c != nil && fits(c, n) != nil {
			mismatch.Differences = append(mismatch.Differences, fits(c, n).Error())
		}
	}
	placed, err := topology.Resolve(s.asked.Intent().Placed(s.before), netip.Prefix{})
	if err != nil {
		return err
	}
	mismatch.Differences = append(mismatch.Differences, immutable(s.before, placed)...)
	if mismatch.Differences != nil {
		return mismatch
	}
	if err := s.watchers(); err != nil {
		return err
	}
	return s.missingPorts(ctx)
}

// network makes the lab's network, and gives each part of the lab its place in it.
func (s *survey) network(ctx context.Context) error {
	subnet, made, err := s.Parts.Networks.Ensure(ctx, s.asked.Name)
	if err != nil {
		return err
	}
	if made {
		plan.Did(ctx)
	}
	s.found, err = topology.Resolve(s.asked.Intent().Placed(s.before), subnet)
	return err
}

// clusterOf returns the cluster that a node is of; nil where it is of none of these.
func clusterOf(n Node, clusters []*topology.Cluster) *topology.Cluster {
	i := slices.IndexFunc(clusters, func(c *topology.Cluster) bool { return c.Name == n.Cluster })
	if i < 0 {
		return nil
	}
	return clusters[i]
}

// nodeOf returns the node of a cluster, if there is one.
func nodeOf(c *topology.Cluster, nodes []Node) (Node, bool) {
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Cluster == c.Name })
	if i < 0 {
		return Node{}, false
	}
	return nodes[i], true
}

// missing reports whether a cluster has to be made.
func (s *survey) missing() bool {
	return slices.ContainsFunc(s.asked.Clusters, func(c *topology.Cluster) bool {
		_, there := nodeOf(c, s.nodes)
		return !there
	})
}

// still are the clusters that are to be made or started. A node that was made and
// never started is removed, and with it what Docker may be giving it just now, its
// ports: it does not count.
func (s *survey) still() []*topology.Cluster {
	return slices.DeleteFunc(slices.Clone(s.asked.Clusters), func(c *topology.Cluster) bool {
		n, there := nodeOf(c, s.nodes)
		return there && (n.Running || n.Unstarted)
	})
}

// watchers returns nil when the clusters that are to be made or started find what
// they need of the kernel. Those that run have it.
func (s *survey) watchers() error {
	if len(s.still()) == 0 {
		return nil
	}
	return s.Parts.Watchers(len(s.asked.Clusters))
}

// namesFree returns nil when the clusters that are not there can have their names:
// two labs may make the same name of other parts.
func (s *survey) namesFree(ctx context.Context) error {
	var errs []error
	for _, c := range s.asked.Clusters {
		if _, there := nodeOf(c, s.nodes); !there {
			errs = append(errs, s.Parts.NameFree(ctx, c.Lab, c.Name))
		}
	}
	return errors.Join(errs...)
}

// portBound is how long a container of a killed command may have its ports and not
// be seen yet, neither by itself nor by the docker command that asks for it.
const portBound = 3 * time.Second

// missingPorts returns nil when the ports of the clusters that are not there, or are
// stopped, can be had.
func (s *survey) missingPorts(ctx context.Context) error {
	taken := s.portsTaken()
	if taken == nil {
		return nil
	}
	err := wait(ctx, portBound, check.Check{Name: "the ports are free", Probe: func(ctx context.Context) (err error) {
		if err := s.settle(ctx, s.asked.Name); err != nil {
			return err
		}
		if s.nodes, err = s.Parts.Nodes.List(ctx, s.asked.Name); err != nil {
			return err
		}
		taken = s.portsTaken()
		return taken
	}})
	if timeout := (*check.TimeoutError)(nil); errors.As(err, &timeout) && taken != nil {
		return taken
	}
	return err
}

// portsTaken says which ports cannot be had. Those of the clusters that the file no
// longer has will be free.
func (s *survey) portsTaken() error {
	soon := map[netip.AddrPort]int{}
	for _, n := range s.nodes {
		if clusterOf(n, s.asked.Clusters) == nil {
			maps.Copy(soon, n.Ports)
		}
	}
	var errs []error
	for _, c := range s.still() {
		errs = append(errs, s.portsFree(c, soon))
	}
	return errors.Join(errs...)
}

// stays reports whether a node that does not start is there once Docker has done what
// a killed command asked for, which may have been to remove it.
func (s *survey) stays(ctx context.Context, cluster string) (bool, error) {
	if err := s.settle(ctx, s.asked.Name); err != nil {
		return true, err
	}
	nodes, err := s.Parts.Nodes.List(ctx, s.asked.Name)
	return slices.ContainsFunc(nodes, func(n Node) bool { return n.Cluster == cluster }), err
}

// remember recalls what the clusters that are there were meant to be. Where all
// of them are stopped, they are started for it, as they would be anyway. Where one
// has been whole and none tells, nothing can be done without losing it.
func (s *survey) remember(ctx context.Context) (before topology.Topology, err error) {
	lab := s.asked.Name
	told, err := s.recall(ctx, lab, s.nodes)
	before = gather(lab, told)
	if err != nil || len(before.Clusters) > 0 || len(s.nodes) == 0 {
		return before, err
	}
	bound := time.Nanosecond // they run, and do not know
	var whole string
	for _, n := range s.nodes {
		marked, err := s.Parts.Marks.Whole(ctx, lab, n.Cluster)
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
		if err := s.start(ctx, lab, n); err != nil {
			if there, failed := s.stays(ctx, n.Cluster); there || failed != nil {
				return before, errors.Join(err, failed)
			}
		}
	}
	err = wait(ctx, bound, check.Check{Name: "a cluster tells what the lab is meant to be", Probe: func(ctx context.Context) (err error) {
		if s.nodes, err = s.Parts.Nodes.List(ctx, lab); err != nil {
			return err
		}
		told, err := s.recall(ctx, lab, s.nodes)
		if before = gather(lab, told); err == nil && len(before.Clusters) == 0 {
			err = s.mute()
		}
		return err
	}})
	if timeout := (*check.TimeoutError)(nil); !errors.As(err, &timeout) && !halfMade(err) {
		return before, err
	}
	if whole != "" {
		return before, &SilentError{Lab: lab, Cluster: whole, Err: err}
	}
	return before, nil // they were left half-made
}

// mute says that no cluster tells what the lab is meant to be, and whether one
// may do so later. It returns nil when there is none any more.
func (s *survey) mute() error {
	var last error
	for _, n := range s.nodes {
		if _, last = s.Parts.Kubeconfigs.Kubeconfig(s.asked.Name, n.Cluster); !halfMade(last) {
			return errors.New("none of them does")
		}
	}
	if last == nil {
		return nil
	}
	return check.Never(last)
}

// halfMade reports whether a cluster could not be reached because there is no
// kubeconfig.
func halfMade(err error) bool {
	none := (*NoKubeconfigError)(nil)
	return errors.As(err, &none)
}

// immutable says what of the trust domains that run the file would change though
// it cannot be changed. That a profile cannot is a rule of OpenShift's operator, too:
// peers have it in their relationships.
func immutable(before topology.Topology, asked *topology.Graph) (differences []string) {
	for _, was := range before.TrustDomains {
		differences = append(differences, immutableOnHosts(was, asked)...)
		setting := func(what, cluster, was, is, why string) {
			if was != is {
				differences = append(differences, fmt.Sprintf("the %s of cluster %s is %s, and the file asks for %s; it cannot be changed once it is set: %s",
					what, cluster, was, is, why))
			}
		}
		const identities = "every identity in it would be another"
		moved := ""
		if is := inPlaceOf(was.Name, was.Cluster, was.Slot, asked); is != nil {
			setting("trust domain", was.Cluster, was.Name.Name(), is.Domain.String(), identities)
			if root := is.Domain.Server().Place.Cluster.Name; is.Domain.Name == was.Name && root != was.Cluster {
				moved = root
			}
			is := is.Domain.Settings
			setting("bundleEndpoint.profile", was.Cluster, string(was.BundleEndpoint.Profile), string(is.BundleEndpoint.Profile), "peers authenticate the endpoint by it, and none would get through any more")
			setting("entryPrefix", was.Cluster, cmp.Or(was.EntryPrefix, "none"), cmp.Or(is.EntryPrefix, "none"), "the controller manager would keep no entry of before up to date, and refuse to make the same one again")
			if from, to := cmp.Or(was.SPIREVersion, topology.SPIREVersion), cmp.Or(is.SPIREVersion, topology.SPIREVersion); !topology.Successive(from, to) {
				differences = append(differences, fmt.Sprintf("the SPIRE server of cluster %s has version %s, and the file asks for %s: SPIRE supports a change by one minor version alone; write the one between them first",
					was.Cluster, from, to))
			}
			setting("datastore", was.Cluster, string(was.Datastore), string(is.Datastore), "entries and bundles would stay behind in the old one")
			setting("upstreamAuthority", was.Cluster, string(was.UpstreamAuthority), string(is.UpstreamAuthority), "the authorities that peers hold would end at once")
		}
		for _, m := range was.Members {
			is := inPlaceOf(was.Name, m.Cluster, m.Slot, asked)
			if is == nil {
				continue // it goes
			}
			setting("trust domain", m.Cluster, was.Name.Name(), is.Domain.String(), identities)
			switch {
			case is.Domain.Name != was.Name:
			case is.Domain.Server().Place.Cluster.Name == m.Cluster:
				moved = m.Cluster
			case m.Nested != is.Server.Nested():
				setting("SPIRE server of "+was.Name.Name(), m.Cluster, kindOf(m.Nested), kindOf(is.Server.Nested()), "agents know their server by its keys")
			}
		}
		if moved != "" {
			differences = append(differences, fmt.Sprintf("the SPIRE server of trust domain %s is in cluster %s, and the file asks for it in cluster %s; it cannot be moved: agents and peers know it by its keys",
				was.Name.Name(), cmp.Or(was.Cluster, "one that is gone"), moved))
		}
	}
	return differences
}

// kindOf says which server the agents of a further cluster attest to.
func kindOf(nested bool) string {
	if nested {
		return "a nested one"
	}
	return "that of another cluster"
}

// immutableOnHosts says the same where hosts have to do with it.
func immutableOnHosts(was topology.TrustDomainSpec, asked *topology.Graph) (differences []string) {
	on := []string{was.Host}
	for _, m := range was.Members {
		on = append(on, m.Host)
	}
	for _, h := range asked.Hosts {
		if slices.Contains(on, h.Name) && h.Member.Domain.Name != was.Name {
			differences = append(differences, fmt.Sprintf("the trust domain of host %s is %s, and the file asks for %s; it cannot be changed once it is set: every identity in it would be another",
				h.Name, was.Name.Name(), h.Member.Domain))
		}
	}
	i := slices.IndexFunc(asked.Domains, func(d *topology.Domain) bool { return d.Name == was.Name })
	if i < 0 {
		return differences
	}
	is := asked.Domains[i].Server().Place
	before := "host " + was.Host
	if was.Host == "" {
		before = "cluster " + was.Cluster
	}
	if was.Cluster+was.Host != is.Name() && was.Cluster+was.Host != "" && (was.Host != "" || is.Host != nil) {
		differences = append(differences, fmt.Sprintf("the SPIRE server of trust domain %s is in %s, and the file asks for it in %s; it cannot be moved: agents and peers know it by its keys",
			was.Name.Name(), before, is.Where()))
	}
	return differences
}

// inPlaceOf returns what the file asks for of a trust domain that was in a slot of a
// cluster: itself there, or the one that would take its place; nil where the trust domain
// goes and nobody does.
func inPlaceOf(was spiffeid.TrustDomain, cluster string, slot int, asked *topology.Graph) *topology.Member {
	var taker *topology.Member
	for _, c := range asked.Clusters {
		for _, m := range c.Members {
			switch {
			case c.Name != cluster || m.Downstream != nil:
			case m.Domain.Name == was:
				return m
			case m.Slot() == slot:
				taker = m
			}
		}
	}
	return taker
}

// portsFree returns nil when nobody has the ports that a cluster is to have, except
// those that will be free.
func (d *Driver) portsFree(c *topology.Cluster, free map[netip.AddrPort]int) error {
	var errs []error
	for addr := range c.Ports() {
		if _, soon := free[addr]; !soon {
			errs = append(errs, d.Parts.PortFree(addr))
		}
	}
	return errors.Join(errs...)
}

// fits says why a node cannot be that of a cluster.
func fits(c *topology.Cluster, n Node) error {
	if want := c.Ports(); !maps.Equal(n.Ports, want) {
		return fmt.Errorf("cluster %s was made with other ports: it has %s, and the file asks for %s", n.Cluster, portList(n.Ports), portList(want))
	}
	return nil
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
