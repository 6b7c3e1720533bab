package scenarios

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Fault returns the trust domain's cluster as package fault knows it.
func (d Domain) Fault() fault.Cluster {
	return faultCluster(d.trial.ground.driver.Parts, d.site.Server, d.Access())
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
	return fault.Cluster{Name: name, Namespace: s.Place.Namespace, Cluster: in, Node: at, Power: at}
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

// spoiled makes what the mutation makes wrong before the first step.
func (t *Trial) spoiled(ctx context.Context) error {
	if t.mutation != NeverRefresh {
		return nil
	}
	called, _ := t.Pair()
	injected, err := fault.EndpointCut(called.Fault()).Inject(ctx)
	if injected != nil { // also one that failed, and whose own undoing failed, too
		t.Restore("let the peer fetch again", injected.Recover)
	}
	if err != nil {
		return err
	}
	return t.until(ctx, injected.Felt())
}

// CutEndpoint cuts the bundle endpoint of a trust domain off, and waits until a
// peer does not get through to it any more: that Kubernetes has no pods behind it
// is not yet in each rule of the node. It is healed once the peer gets through.
func (t *Trial) CutEndpoint(ctx context.Context, of, peer Domain) (*Breakage, error) {
	cut, err := t.Break(ctx, fault.EndpointCut(of.Fault()))
	if err != nil || cut.over {
		return cut, err
	}
	from, nodes := peer.Cluster(), t.ground.driver.Parts.Nodes
	reach := func(ctx context.Context) error {
		_, err := nodes.Get(ctx, from.Lab, from.Name, spire.BundleEndpointURL(of.site.Server), of.site.Address)
		return err
	}
	cut.injected = cutOff{cut.injected, check.Check{Name: fmt.Sprintf("%s gets through to the bundle endpoint of %s", peer, of), Probe: reach}}
	return cut, t.until(ctx, check.Check{Name: fmt.Sprintf("%s does not get through to the bundle endpoint of %s", peer, of), Probe: func(ctx context.Context) error {
		if reach(ctx) == nil {
			return errors.New("it does")
		}
		return nil
	}})
}

// cutOff is a cut that is healed once the peer gets through again.
type cutOff struct {
	fault.Injected
	through check.Check
}

func (c cutOff) Healed() check.Check {
	healed := c.Injected.Healed()
	return check.Check{Name: healed.Name + ", and " + c.through.Name, Probe: func(ctx context.Context) error {
		if err := healed.Probe(ctx); err != nil {
			return err
		}
		return c.through.Probe(ctx)
	}}
}

// Reconfigure changes what the server of a trust domain is installed with, which
// restarts it, and has that put back at the end.
func (t *Trial) Reconfigure(ctx context.Context, d Domain, change func(*topology.Settings)) error {
	before := t.lab().Graph.Intent()
	changed := before
	changed.TrustDomains = slices.Clone(changed.TrustDomains)
	for i := range changed.TrustDomains {
		if changed.TrustDomains[i].Name == d.Name {
			change(&changed.TrustDomains[i].Settings)
		}
	}
	t.Restore("give the server of "+d.String()+" its settings back", func(ctx context.Context) error {
		return t.ground.hold.Up(ctx, before)
	})
	if err := t.ground.hold.Up(ctx, changed); err != nil {
		return err
	}
	return t.until(ctx, d.Ready())
}

// shownBy returns the authority that has signed what the bundle endpoint shows. It
// looks in the server's pod, where no fault of the network is.
func (d Domain) shownBy(ctx context.Context) (string, error) {
	chain, err := d.site.Presented(ctx, spire.BundlePort)
	if err != nil {
		return "", err
	}
	bundle, err := d.Bundle(ctx)
	if err != nil {
		return "", err
	}
	_, verified, err := x509svid.Verify(chain, bundle)
	if err != nil {
		return "", err
	}
	if len(verified) == 0 || len(verified[0]) == 0 {
		return "", errors.New("nothing verifies it")
	}
	return hex.EncodeToString(verified[0][len(verified[0])-1].SubjectKeyId), nil
}

// relationshipKey names the resource by which the trust domain trusts another.
func (d Domain) relationshipKey(trusted Domain) access.ObjectKey {
	return access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind, Name: spire.NameFor(d.site.Server, trusted.Name)}
}

// Related returns the resource by which the trust domain trusts another.
func (d Domain) Related(ctx context.Context, to Domain) (spire.FederatedTrustDomainSpec, error) {
	var resource struct {
		Spec spire.FederatedTrustDomainSpec `json:"spec"`
	}
	there, err := d.Access().Objects.Object(ctx, d.relationshipKey(to), &resource)
	if err == nil && !there {
		err = fmt.Errorf("%s has no resource by which it trusts %s", d, to)
	}
	return resource.Spec, err
}

// Relate makes the resource by which the trust domain trusts another what it is
// given as.
func (d Domain) Relate(ctx context.Context, to Domain, spec spire.FederatedTrustDomainSpec) error {
	_, err := d.Access().Objects.Apply(ctx, spire.Resource{
		APIVersion: spire.ResourceAPIVersion, Kind: d.relationshipKey(to).Kind,
		Metadata: spire.Metadata{Name: d.relationshipKey(to).Name, Labels: spire.Owned()}, Spec: spec,
	})
	return err
}

// Rerelate changes the resource by which the trust domain trusts another, and has
// it put back at the end.
func (d Domain) Rerelate(ctx context.Context, to Domain, change func(*spire.FederatedTrustDomainSpec)) error {
	before, err := d.Related(ctx, to)
	if err != nil {
		return err
	}
	d.trial.Restore(fmt.Sprintf("let %s trust %s as before", d, to), func(ctx context.Context) error {
		as, err := pinned(ctx, before, to)
		if err != nil {
			return err
		}
		return d.Relate(ctx, to, as)
	})
	after, err := pinned(ctx, before, to)
	if err != nil {
		return err
	}
	change(&after)
	return d.Relate(ctx, to, after)
}

// pinned gives a resource the bundle of today. Whoever changes another field of it
// has the controller manager set what it pins, and that may be older than what is
// held.
func pinned(ctx context.Context, spec spire.FederatedTrustDomainSpec, of Domain) (spire.FederatedTrustDomainSpec, error) {
	source, err := of.Bundle(ctx)
	if err != nil {
		return spec, err
	}
	document, err := spire.Pinned(of.BundleEndpoint, source).Marshal()
	spec.TrustDomainBundle = string(document)
	return spec, err
}

// Unrelate deletes the resource by which the trust domain trusts another, and has
// it put back at the end.
func (d Domain) Unrelate(ctx context.Context, to Domain) error {
	if err := d.Rerelate(ctx, to, func(*spire.FederatedTrustDomainSpec) {}); err != nil {
		return err
	}
	return d.Access().Objects.Delete(ctx, d.relationshipKey(to))
}

// expects checks which SPIFFE ID the server wants the endpoint of another to show.
func (d Domain) expects(of Domain, id string) check.Check {
	return check.Check{Name: fmt.Sprintf("%s expects %s at the endpoint of %s", d, id, of), Probe: func(ctx context.Context) error {
		all, err := d.Server().Relationships(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(r spire.Relationship) bool { return r.Trusted == of.Name })
		switch {
		case i < 0:
			return errors.New("it has no relationship with it")
		case all[i].EndpointID.String() != id:
			return fmt.Errorf("it expects %s", all[i].EndpointID)
		}
		return nil
	}}
}

// Handover sets what the server holds of another to what the other has now, by
// the authenticated path of both servers' APIs.
func (d Domain) Handover(ctx context.Context, of Domain) error {
	source, err := of.Bundle(ctx)
	if err != nil {
		return err
	}
	source = source.Clone()
	source.SetRefreshHint(of.BundleEndpoint.RefreshHint)
	return d.Server().SetBundle(ctx, source)
}

// PollsLate says that a server will come back for a bundle later than by what it
// holds at the end of the run: when it last fetched, it held none, or a longer
// hint, and no refresh makes it forget that (pkg/server/bundle/client/manager.go,
// runUpdateOnce). It is started again when all is put back.
func (d Domain) PollsLate() {
	if !slices.ContainsFunc(d.trial.late, func(other Domain) bool { return other.Name == d.Name }) {
		d.trial.late = append(d.trial.late, d)
	}
}

// cannotFetch has the server fetch the bundle of another, which is what a poll
// does, and returns nil where that fails. A watch that is as long as a poll does
// not show by itself that there was one.
func (d Domain) cannotFetch(ctx context.Context, of Domain) error {
	err := d.Refresh(ctx, of)
	if err == nil {
		return fmt.Errorf("%s has fetched the bundle of %s", d, of)
	}
	if refused := (*spire.FetchError)(nil); !errors.As(err, &refused) {
		return err
	}
	d.trial.Seen("asked to fetch, it cannot: %v", err)
	return nil
}

// handoverBehind hands bundles over to those who lack an authority of what they
// trust, or have one too many. Who is in sync is left alone.
func handoverBehind(ctx context.Context, bonds []bond) error {
	var errs []error
	for _, b := range bonds {
		seen, err := b.truster.Compare(ctx, b.trusted)
		if err == nil && len(seen.Lacking)+len(seen.Foreign) > 0 {
			err = b.truster.Handover(ctx, b.trusted)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("hand the bundle of %s over to %s: %w", b.trusted, b.truster, err))
		}
	}
	return errors.Join(errs...)
}
