package trial

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Where the program of the synthetic trust domain listens.
const (
	syntheticProgram = "synthetic"
	syntheticBundle  = 8443
	syntheticControl = 8080
	syntheticToken   = "SYNTHETIC_TOKEN"
)

// Synthetic is the trust domain that is made up for a trial: a container next to
// the clusters, whose keys are gone with it.
type Synthetic struct {
	Domain spiffeid.TrustDomain
	Client *synthetic.Client

	trial    *Trial
	endpoint netip.AddrPort
}

// Synthetic starts it; the end of the trial removes it.
func (t *Trial) Synthetic(ctx context.Context) (*Synthetic, error) {
	parts, name := t.session.runner.Driver.Parts, t.session.lab.Graph.Name
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails
	token := hex.EncodeToString(secret)
	t.Restore("remove the synthetic trust domain", func(ctx context.Context) error {
		return parts.Sidecars.Remove(ctx, name, syntheticProgram)
	})
	made, err := parts.Sidecars.Run(ctx, name, syntheticProgram,
		map[string]string{syntheticToken: token, "SYNTHETIC_TRUST_DOMAIN": topology.SyntheticTrustDomain}, syntheticControl)
	if err != nil {
		return nil, err
	}
	client, err := synthetic.Dial("http://"+made.Control.String(), token)
	if err != nil {
		return nil, err
	}
	return &Synthetic{
		Domain: spiffeid.RequireTrustDomainFromString(topology.SyntheticTrustDomain), Client: client,
		trial: t, endpoint: netip.AddrPortFrom(made.Address, syntheticBundle),
	}, nil
}

// ID is the SPIFFE ID under which it calls when it does not lie.
func (s *Synthetic) ID() spiffeid.ID {
	return spiffeid.RequireFromPath(s.Domain, topology.Probe().IDTemplate)
}

// Calls has it call a trust domain's probe under a SPIFFE ID, its own or
// another's, with an SVID that its authority has signed.
func (s *Synthetic) Calls(ctx context.Context, as spiffeid.ID, to Domain) (*Traffic, error) {
	bundle, err := to.Bundle(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Client.Trust(ctx, bundle); err != nil {
		return nil, err
	}
	present := func(ctx context.Context) error { return s.Client.Present(ctx, synthetic.X509Request{ID: as}) }
	name := fmt.Sprintf("%s calls %s", s.Domain, to)
	if as.TrustDomain() == s.Domain {
		err = present(ctx)
	} else {
		err = s.trial.Do(ctx, ToChange, present)
		name = fmt.Sprintf("%s calls %s as one of %s", s.Domain, to, as.TrustDomain().Name())
	}
	if err != nil {
		return nil, err
	}
	return s.trial.Attempt(ctx, s.Domain.Name(), s.Client, to, Call{Name: name})
}

// Fetched checks that its bundle was asked for so many times.
func (s *Synthetic) Fetched(times int) check.Check {
	return check.Check{Name: fmt.Sprintf("the bundle of %s was asked for (request %d)", s.Domain, times), Probe: func(ctx context.Context) error {
		requests, err := s.Client.Requests(ctx)
		if err == nil && len(requests) < times {
			err = fmt.Errorf("%d requests so far", len(requests))
		}
		return err
	}}
}

// Fetch is what comes of it when a server is asked to fetch its bundle: see Domain.Fetch. The
// server has done so by itself before: a refresh that overtakes the first fetch ends the polling
// (spire.Server.RefreshBundle).
func (s *Synthetic) Fetch(by Domain) Fact { return by.fetch(s.Domain) }

// Holds checks that its endpoint has taken a request and does not answer it.
func (s *Synthetic) Holds() check.Check {
	return check.Check{Name: fmt.Sprintf("the endpoint of %s has a request that it does not answer", s.Domain), Probe: func(ctx context.Context) error {
		requests, err := s.Client.Requests(ctx)
		if err == nil && !slices.ContainsFunc(requests, func(r synthetic.Request) bool { return r.Answer == synthetic.Hang && r.Ended == synthetic.UnderWay }) {
			err = fmt.Errorf("of %d requests each was answered", len(requests))
		}
		return err
	}}
}

// Federate has the server hold the bundle of a synthetic trust domain and the
// probe's entry federate with it; the end of the trial takes both away.
func (d Domain) Federate(ctx context.Context, with *Synthetic) error {
	bundle, err := with.Client.Bundle(ctx)
	if err != nil {
		return err
	}
	return d.FederateBy(ctx, bundle)
}

// FederateBy is Federate with a trust domain of which there is no more than its bundle.
func (d Domain) FederateBy(ctx context.Context, bundle *spiffebundle.Bundle) error {
	with := bundle.TrustDomain()
	d.trial.Restore("forget the bundle of "+with.Name(), func(ctx context.Context) error { return d.Forget(ctx, with) })
	if err := d.Server().SetBundle(ctx, bundle); err != nil {
		return err
	}
	return d.EditRegistration(ctx, func(spec *spire.WorkloadIdentitySpec) {
		if !slices.Contains(spec.FederatesWith, with.Name()) {
			spec.FederatesWith = append(spec.FederatesWith, with.Name())
		}
	})
}

// Follow makes a relationship with a synthetic trust domain, whose endpoint the
// server polls from then on; the end of the trial removes it, and the bundle with
// it.
func (d Domain) Follow(ctx context.Context, s *Synthetic) error {
	bundle, err := s.Client.Bundle(ctx)
	if err != nil {
		return err
	}
	document, err := bundle.Marshal()
	if err != nil {
		return err
	}
	d.trial.Restore("end the relationship with "+s.Domain.Name(), func(ctx context.Context) error {
		if err := d.Unfollow(ctx, s); err != nil {
			return err
		}
		return errors.Join(d.trial.WaitFor(ctx, d.Unrelated(s.Domain)), d.Forget(ctx, s.Domain))
	})
	return d.SetRelationship(ctx, s.Domain, spire.FederatedTrustDomainSpec{
		TrustDomain:           s.Domain.Name(),
		BundleEndpointURL:     "https://" + s.endpoint.String(),
		BundleEndpointProfile: spire.EndpointProfile{Type: topology.HTTPSSPIFFE, EndpointSPIFFEID: spire.ServerID(s.Domain).String()},
		TrustDomainBundle:     string(document),
	})
}

// FollowByCommand makes a relationship with a synthetic trust domain by the server's API, as
// 'spire-server federation create' does, with its bundle; the end of the trial removes both.
func (d Domain) FollowByCommand(ctx context.Context, s *Synthetic) error {
	bundle, err := s.Client.Bundle(ctx)
	if err != nil {
		return err
	}
	d.trial.Restore("end the relationship with "+s.Domain.Name(), func(ctx context.Context) error {
		err := d.Server().DeleteRelationship(ctx, s.Domain)
		if gone := (*spire.NotFoundError)(nil); errors.As(err, &gone) {
			err = nil
		}
		return errors.Join(err, d.Forget(ctx, s.Domain))
	})
	return d.Server().CreateRelationship(ctx, spire.Relationship{
		RelationshipSpec: topology.RelationshipSpec{Truster: d.Name, Trusted: s.Domain, Profile: topology.HTTPSSPIFFE},
		URL:              "https://" + s.endpoint.String(),
		EndpointID:       spire.ServerID(s.Domain),
	}, bundle)
}

// Unfollow removes the relationship with a synthetic trust domain.
func (d Domain) Unfollow(ctx context.Context, s *Synthetic) error {
	return d.Access().Objects.Delete(ctx, d.relationshipKey(s.Domain))
}

// Polled bounds when a server that follows it fetches its bundle again: it has the
// shortest hint that counts.
func (s *Synthetic) Polled() Bound {
	poll := federation.PollInterval(time.Minute, 0)
	return Bound{Within: poll, Formula: fmt.Sprintf("one poll (%s)", poll)}
}
