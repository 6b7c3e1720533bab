package scenarios

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
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

// Synthetic is the trust domain that is made up for a trial: a container beside
// the clusters, whose keys are gone with it.
type Synthetic struct {
	Domain spiffeid.TrustDomain
	Client *synthetic.Client

	trial    *Trial
	endpoint netip.AddrPort
}

// Synthetic starts it; the end of the trial removes it.
func (t *Trial) Synthetic(ctx context.Context) (*Synthetic, error) {
	parts, name := t.ground.driver.Parts, t.lab().Graph.Name
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails
	token := hex.EncodeToString(secret)
	t.Restore("remove the synthetic trust domain", func(ctx context.Context) error {
		return parts.Sidecars.Remove(ctx, name, syntheticProgram)
	})
	address, err := parts.Sidecars.Run(ctx, name, syntheticProgram,
		map[string]string{syntheticToken: token, "SYNTHETIC_TRUST_DOMAIN": topology.SyntheticTrustDomain}, []int{syntheticBundle, syntheticControl})
	if err != nil {
		return nil, err
	}
	base := fmt.Sprintf("http://%s", netip.AddrPortFrom(address, syntheticControl))
	client, err := synthetic.Dial(base, token)
	if err != nil {
		return nil, err
	}
	s := &Synthetic{
		Domain: spiffeid.RequireTrustDomainFromString(topology.SyntheticTrustDomain), Client: client,
		trial: t, endpoint: netip.AddrPortFrom(address, syntheticBundle),
	}
	// Containers on the lab's network are let in where nodes are.
	return s, t.Await(ctx, time.Now(), immediate(), check.Check{Name: "the synthetic trust domain answers", Probe: func(ctx context.Context) error {
		_, err := client.Bundle(ctx)
		return err
	}})
}

// ID is the SPIFFE ID under which it calls when it does not lie.
func (s *Synthetic) ID() spiffeid.ID {
	return spiffeid.RequireFromPath(s.Domain, topology.Probe().IDTemplate)
}

// Root returns its X.509 authority.
func (s *Synthetic) Root(ctx context.Context) (*x509.Certificate, error) {
	bundle, err := s.Client.Bundle(ctx)
	if err != nil {
		return nil, err
	}
	if len(bundle.X509Authorities()) == 0 {
		return nil, errors.New("the synthetic trust domain has no X.509 authority")
	}
	return bundle.X509Authorities()[0], nil
}

// RootID returns the ID of its X.509 authority.
func (s *Synthetic) RootID(ctx context.Context) (string, error) {
	root, err := s.Root(ctx)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(root.SubjectKeyId), nil
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
	if err := s.Client.Present(ctx, synthetic.X509Request{ID: as}); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s calls %s", s.Domain, to)
	if as.TrustDomain() != s.Domain {
		name = fmt.Sprintf("%s calls %s as one of %s", s.Domain, to, as.TrustDomain().Name())
	}
	if n := s.trial.streamsNamed(name); n > 0 {
		name = fmt.Sprintf("%s, again (%d)", name, n)
	}
	return s.trial.Attempt(ctx, s.Domain.Name(), s.Client, to, Call{Name: name})
}

// streamsNamed counts the streams whose names begin so.
func (t *Trial) streamsNamed(name string) int {
	n := 0
	for _, s := range t.streams {
		if len(s.order.Name) >= len(name) && s.order.Name[:len(name)] == name {
			n++
		}
	}
	return n
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

// holds checks that its endpoint has taken a request and does not answer it.
func (s *Synthetic) holds() check.Check {
	return check.Check{Name: fmt.Sprintf("the endpoint of %s has a request that it does not answer", s.Domain), Probe: func(ctx context.Context) error {
		requests, err := s.Client.Requests(ctx)
		if err == nil && !slices.ContainsFunc(requests, func(r synthetic.Request) bool { return r.Answer == synthetic.Hang && r.Ended == synthetic.UnderWay }) {
			err = fmt.Errorf("of %d requests each was answered", len(requests))
		}
		return err
	}}
}

// trustSynthetic has the server hold the synthetic bundle and the probe's entry
// federate with it; the end of the trial takes both away.
func (d Domain) trustSynthetic(ctx context.Context, s *Synthetic) error {
	bundle, err := s.Client.Bundle(ctx)
	if err != nil {
		return err
	}
	d.trial.Restore("forget the bundle of "+s.Domain.Name(), func(ctx context.Context) error { return d.forget(ctx, s.Domain) })
	if err := d.Server().SetBundle(ctx, bundle); err != nil {
		return err
	}
	return d.Reregister(ctx, func(spec *spire.WorkloadIdentitySpec) {
		if !slices.Contains(spec.FederatesWith, s.Domain.Name()) {
			spec.FederatesWith = append(spec.FederatesWith, s.Domain.Name())
		}
	})
}

// syntheticKey names the resource by which the synthetic trust domain is trusted.
func syntheticKey() access.ObjectKey {
	return access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterFederatedTrustDomain", Name: "fedlab-synthetic"}
}

// relateSynthetic makes a relationship with the synthetic trust domain; the end of
// the trial removes it, and the bundle with it.
func (d Domain) relateSynthetic(ctx context.Context, s *Synthetic) error {
	bundle, err := s.Client.Bundle(ctx)
	if err != nil {
		return err
	}
	document, err := bundle.Marshal()
	if err != nil {
		return err
	}
	d.trial.Restore("end the relationship with "+s.Domain.Name(), func(ctx context.Context) error {
		if err := d.unrelateSynthetic(ctx); err != nil {
			return err
		}
		return errors.Join(d.trial.until(ctx, d.unrelated(s.Domain)), d.forget(ctx, s.Domain))
	})
	_, err = d.Access().Objects.Apply(ctx, spire.Resource{
		APIVersion: spire.ResourceAPIVersion, Kind: syntheticKey().Kind,
		Metadata: spire.Metadata{Name: syntheticKey().Name, Labels: spire.Owned()},
		Spec: spire.FederatedTrustDomainSpec{
			TrustDomain:       s.Domain.Name(),
			BundleEndpointURL: "https://" + s.endpoint.String(),
			BundleEndpointProfile: spire.EndpointProfile{
				Type: topology.HTTPSSPIFFE, EndpointSPIFFEID: spire.ServerID(s.Domain).String(),
			},
			TrustDomainBundle: string(document),
		},
	})
	return err
}

func (d Domain) unrelateSynthetic(ctx context.Context) error {
	return d.Access().Objects.Delete(ctx, syntheticKey())
}

// polling is how often a server fetches the synthetic bundle, which has the
// shortest hint that counts.
func polling() time.Duration { return federation.PollInterval(time.Minute, 0) }
