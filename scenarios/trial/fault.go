package trial

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Breakage is a fault that is injected.
type Breakage struct {
	trial    *Trial
	injected fault.Injected
	window   int
	over     bool
}

// Break injects a fault and waits until it is felt. The end of the run recovers
// from it where the scenario has not.
func (t *Trial) Break(ctx context.Context, f fault.Fault) (*Breakage, error) {
	t.mu.Lock()
	t.record.Windows = append(t.record.Windows, Window{Name: f.Name(), Injected: time.Now()})
	b := &Breakage{trial: t, window: len(t.record.Windows) - 1}
	t.mu.Unlock()
	injected, err := t.operator.Inject(ctx, f)
	if injected != nil {
		// Also one that failed, and whose own undoing failed, too.
		b.injected = injected
		t.Restore("undo: "+f.Name(), b.Recover)
	}
	if err != nil {
		return nil, err
	}
	if err := t.WaitFor(ctx, injected.Felt()); err != nil {
		return nil, err
	}
	b.note(func(w *Window) { w.Felt = time.Now() })
	t.Seen("%s: it is felt", f.Name())
	return b, nil
}

// Goes checks that the fault is in force still.
func (b *Breakage) Goes() check.Check { return b.injected.Felt() }

// Recover puts back what the fault has changed, and waits until all is healed.
// Repeated, it does nothing.
func (b *Breakage) Recover(ctx context.Context) error {
	if b.over {
		return nil
	}
	began := time.Now()
	if err := b.injected.Recover(ctx); err != nil {
		return err
	}
	b.note(func(w *Window) { w.Recovered = began })
	if err := b.trial.WaitFor(ctx, b.injected.Healed()); err != nil {
		return err
	}
	b.over = true
	b.note(func(w *Window) { w.Healed = time.Now() })
	b.trial.Seen("%s: healed after %s", b.Window().Name, time.Since(began).Round(100*time.Millisecond))
	return nil
}

func (b *Breakage) note(change func(*Window)) {
	b.trial.mu.Lock()
	defer b.trial.mu.Unlock()
	change(&b.trial.record.Windows[b.window])
}

// Window returns when the fault was injected, felt, recovered and healed.
func (b *Breakage) Window() Window {
	b.trial.mu.Lock()
	defer b.trial.mu.Unlock()
	return b.trial.record.Windows[b.window]
}

// CutEndpoint cuts the bundle endpoint of a trust domain off, and waits until a
// peer does not get through to it any more. It is healed once the peer gets
// through.
func (t *Trial) CutEndpoint(ctx context.Context, of, peer Domain) (*Breakage, error) {
	return t.Break(ctx, endpointCut{fault.EndpointCut(of.Fault()), of, peer})
}

// endpointCut is an endpoint that is cut off for a peer: that Kubernetes has no
// pods behind it is not at once in each rule of the node.
type endpointCut struct {
	fault.Fault
	of, peer Domain
}

func (c endpointCut) Inject(ctx context.Context) (fault.Injected, error) {
	injected, err := c.Fault.Inject(ctx)
	if injected == nil {
		return nil, err
	}
	return endpointIsCut{injected, c}, err
}

type endpointIsCut struct {
	fault.Injected
	endpointCut
}

func (i endpointIsCut) Felt() check.Check {
	return i.and(i.Injected.Felt(), "does not get through", func(through error) error {
		if through == nil {
			return errors.New("it does")
		}
		return nil
	})
}

func (i endpointIsCut) Healed() check.Check {
	return i.and(i.Injected.Healed(), "gets through", func(through error) error { return through })
}

// and holds when a check does, and then what the peer has met is as it should be.
func (c endpointCut) and(first check.Check, peer string, is func(through error) error) check.Check {
	name := fmt.Sprintf("%s, and %s %s to the bundle endpoint of %s", first.Name, c.peer, peer, c.of)
	return check.Check{Name: name, Probe: func(ctx context.Context) error {
		if err := first.Probe(ctx); err != nil {
			return err
		}
		return is(c.peer.reach(ctx, c.of))
	}}
}

// reach returns nil where the bundle endpoint of another answers who asks it from the cluster
// of the trust domain.
func (d Domain) reach(ctx context.Context, of Domain) error {
	from, peers := d.Cluster(), d.trial.session.runner.Driver.Parts.Peers
	answer, err := peers.Get(ctx, from.Lab, from.Name, spire.BundleEndpointURL(of.site.Server), of.site.PublicAddress())
	if err == nil && answer.Status >= http.StatusInternalServerError {
		err = fmt.Errorf("a proxy answers %d %s", answer.Status, http.StatusText(answer.Status))
	}
	return err
}

// Reaches is whether the bundle endpoint of another answers who asks it from the cluster of the
// trust domain: There or Absent.
func (d Domain) Reaches(of Domain) Fact {
	return Fact{Of: fmt.Sprintf("an answer of the bundle endpoint of %s to %s", of, d), Well: There, Look: func(ctx context.Context) (string, error) {
		if err := d.reach(ctx, of); err != nil {
			d.trial.Seen("there is none: %v", err)
			return Absent, nil
		}
		return There, nil
	}}
}

// Freeze has the nodes of all clusters of the lab stand still, and waits until they do. Nothing
// of the lab can be asked for then.
func (t *Trial) Freeze(ctx context.Context) (*Breakage, error) {
	parts := t.session.runner.Driver.Parts
	var all []fault.Cluster
	for _, c := range t.session.lab.Graph.Clusters {
		all = append(all, fault.Cluster{Name: c.Name, Cluster: t.session.lab.Access(c), Power: machine{parts.Hands, parts.Nodes, c}})
	}
	return t.Break(ctx, fault.Frozen(all...))
}

// Reconfigure changes what the servers of trust domains are installed with, which
// restarts them, and has that put back at the end.
func (t *Trial) Reconfigure(ctx context.Context, d Domain, change func(*topology.Settings), others ...Domain) error {
	before := t.session.lab.Graph.Intent()
	changed := before
	changed.TrustDomains = slices.Clone(changed.TrustDomains)
	all := append([]Domain{d}, others...)
	for i := range changed.TrustDomains {
		if slices.ContainsFunc(all, func(d Domain) bool { return d.Name == changed.TrustDomains[i].Name }) {
			change(&changed.TrustDomains[i].Settings)
		}
	}
	t.Restore("give servers their settings back", func(ctx context.Context) error {
		return t.session.hold.Up(ctx, before)
	})
	if err := t.session.hold.Up(ctx, changed); err != nil {
		return err
	}
	for _, d := range all {
		if err := t.WaitFor(ctx, d.Ready()); err != nil {
			return err
		}
	}
	return nil
}

// Fault returns the trust domain's cluster as package fault knows it.
func (d Domain) Fault() fault.Cluster {
	return faultCluster(d.trial.session.runner.Driver.Parts, d.site.Server, d.Access())
}

// faultCluster returns the cluster of a server that there is access to as package
// fault knows it.
func faultCluster(parts lab.Parts, s *topology.Server, in access.Cluster) fault.Cluster {
	c := s.Place.Cluster
	at := machine{parts.Hands, parts.Nodes, c}
	name := c.Name
	if s.Class != "" {
		name += "/" + s.Class
	}
	return fault.Cluster{Name: name, Namespace: s.Place.Namespace, Replicas: s.Domain.Replicas, Cluster: in, Node: at, Power: at}
}

// machine is the node of one cluster, as a person at it has it.
type machine struct {
	hands lab.Hands
	nodes lab.Nodes
	of    *topology.Cluster
}

func (m machine) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	return m.hands.Exec(ctx, m.of.Lab, m.of.Name, argv...)
}

func (m machine) Address(ctx context.Context) (netip.Addr, error) {
	return m.hands.Address(ctx, m.of.Lab, m.of.Name)
}

func (m machine) Stop(ctx context.Context, grace time.Duration) error {
	return m.hands.Stop(ctx, m.of.Lab, m.of.Name, grace)
}

func (m machine) Freeze(ctx context.Context) error { return m.hands.Freeze(ctx, m.of.Lab, m.of.Name) }

func (m machine) Start(ctx context.Context) error { return m.nodes.Start(ctx, m.of.Lab, m.of.Name) }

func (m machine) Running(ctx context.Context) (bool, error) {
	all, err := m.nodes.List(ctx, m.of.Lab)
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(all, func(n lab.Node) bool { return n.Cluster == m.of.Name })
	if i < 0 {
		return false, fmt.Errorf("lab %s has no cluster %s any more", m.of.Lab, m.of.Name)
	}
	return all[i].Running, nil
}
