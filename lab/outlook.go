package lab

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// outlook is how the server of a trust domain sees bundle endpoints: by the names
// that its cluster knows, from its node, and with what it holds.
type outlook struct {
	peers Peers
	place topology.Place
	in    access.Cluster
	held  map[spiffeid.TrustDomain]*spiffebundle.Bundle
	// from is the cluster whose node asks.
	from *topology.Cluster
	// roots are the web roots of a server on a host, and names the DNS names that it knows;
	// a cluster has them itself.
	roots func(context.Context) ([]*x509.Certificate, error)
	names []topology.Name
}

// accepts returns nil when a server gets a bundle from where a relationship says;
// else the error says why not, with its cause.
func (o outlook) accepts(ctx context.Context, r spire.Relationship) error {
	answer, err := o.reached(ctx, r)
	if err != nil {
		return err
	}
	if len(answer.Chain) == 0 {
		return because(EndpointUnreachable, "the bundle endpoint %s shows no certificate", r.URL)
	}
	if r.Profile == topology.HTTPSWeb {
		err = o.verifiesWeb(ctx, r.URL, answer.Chain)
	} else {
		err = o.verifiesSPIFFE(r, answer.Chain)
	}
	if err != nil {
		return err
	}
	return mayBeBundle(r, answer)
}

// mayBeBundle returns nil for an answer that may be a bundle. SPIRE follows
// redirects.
func mayBeBundle(r spire.Relationship, answer Answer) error {
	switch {
	case answer.Status < http.StatusBadRequest:
		return nil
	case answer.Status >= http.StatusInternalServerError:
		return because(NotServed, "%s answers %d %s", r.URL, answer.Status, http.StatusText(answer.Status))
	}
	return because(NotServed, "%s answers %d %s: a SPIRE server serves its bundle at the path / only",
		r.URL, answer.Status, http.StatusText(answer.Status))
}

// reached returns what a truster's node gets from where a relationship says.
func (o outlook) reached(ctx context.Context, r spire.Relationship) (Answer, error) {
	at, err := url.Parse(r.URL)
	if err != nil {
		return Answer{}, because(EndpointUnreachable, "%w", err)
	}
	addresses, err := o.lookup(ctx, at.Hostname())
	if unknown := (*UnknownHostError)(nil); errors.As(err, &unknown) {
		return Answer{}, because(EndpointUnreachable, "%s: %w", r.URL, err)
	} else if err != nil {
		return Answer{}, err
	}
	var answer Answer
	c := o.from
	for _, address := range addresses {
		if answer, err = o.peers.Get(ctx, c.Lab, c.Name, r.URL, address); err == nil {
			return answer, nil
		}
	}
	if hanging := (*HangingError)(nil); errors.As(err, &hanging) {
		return answer, because(EndpointUnreachable, "asked from %s, %w", c.Name, err)
	}
	return answer, because(EndpointUnreachable, "%s does not get through to the bundle endpoint %s: %w", c.Name, r.URL, err)
}

// lookup returns the addresses that a server finds for a host. On a host nobody tells which
// names it knows besides those of the lab.
func (o outlook) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if o.place.Cluster != nil {
		return lookup(ctx, o.in.Pods, o.place, host)
	}
	for _, name := range o.names {
		if name.Host == host {
			return []netip.Addr{name.Address}, nil
		}
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return nil, fmt.Errorf("look up %s on %s: it is neither an address nor a name of the lab", host, o.place.Where())
	}
	return []netip.Addr{address}, nil
}

// verifiesSPIFFE says why a truster does not accept the chain of an endpoint by
// https_spiffe.
func (o outlook) verifiesSPIFFE(r spire.Relationship, chain []*x509.Certificate) error {
	id, err := x509svid.IDFromCert(chain[0])
	if err != nil {
		return because(WrongProfile, "the relationship is %s, and the endpoint shows a certificate without SPIFFE ID, as with %s", topology.HTTPSSPIFFE, topology.HTTPSWeb)
	}
	if id != r.EndpointID {
		return because(WrongEndpointID, "the relationship wants %s, and the endpoint shows %s", r.EndpointID, id)
	}
	held := o.held[id.TrustDomain()]
	switch {
	case held == nil && id.TrustDomain() == r.Trusted:
		return nil // to be said about the bundle itself
	case held == nil:
		return because(MissingBundle, "no bundle of %s is held that could verify the endpoint", id.TrustDomain().Name())
	}
	_, _, err = x509svid.Verify(chain, held)
	return certificateProblem("the bundle endpoint", err)
}

// verifiesWeb says why a truster does not accept the chain of an endpoint by
// https_web.
func (o outlook) verifiesWeb(ctx context.Context, at string, chain []*x509.Certificate) error {
	if id, err := x509svid.IDFromCert(chain[0]); err == nil {
		return because(WrongProfile, "the relationship is %s, and the endpoint shows the X509-SVID of %s, as with %s", topology.HTTPSWeb, id, topology.HTTPSSPIFFE)
	}
	parsed, err := url.Parse(at)
	if err != nil {
		return err
	}
	known, err := o.webRoots(ctx)
	if err != nil {
		return fmt.Errorf("read the web roots of %s: %w", o.place.Name(), err)
	}
	return certificateProblem("the bundle endpoint", verifyWeb(chain, parsed.Hostname(), known))
}

// webRoots returns what a server verifies https_web endpoints with.
func (o outlook) webRoots(ctx context.Context) (known []*x509.Certificate, err error) {
	if o.place.Cluster == nil {
		return o.roots(ctx)
	}
	var roots struct {
		Data map[string]string `json:"data"`
	}
	if _, err := o.in.Objects.Object(ctx, configMapKey(o.place, spire.WebRootsConfigMap), &roots); err != nil {
		return nil, err
	}
	for _, pem := range roots.Data {
		certificates, err := pki.Parse([]byte(pem))
		if err != nil {
			return nil, err
		}
		known = append(known, certificates...)
	}
	return known, nil
}

// verifyWeb returns nil for a chain that is for this host, and that one of these
// roots verifies.
func verifyWeb(chain []*x509.Certificate, host string, roots []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("it shows no certificate")
	}
	known, above := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		known.AddCert(c)
	}
	for _, c := range chain[1:] {
		above.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: known, Intermediates: above})
	return err
}

// certificateProblem classifies what crypto/x509 says.
func certificateProblem(of string, err error) error {
	if err == nil {
		return nil
	}
	cause := UnknownRoot
	if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		cause = ExpiredCertificate
	} else if misnamed := (x509.HostnameError{}); errors.As(err, &misnamed) {
		cause = MisnamedCertificate
	}
	return because(cause, "what %s shows is not accepted: %w", of, err)
}
