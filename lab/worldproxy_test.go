package lab_test

import (
	"cmp"
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// front is a proxy in front of a bundle endpoint. Nil is none: the endpoint itself answers.
type front struct{ values spire.ProxyValues }

// behind returns the server whose bundle endpoint answers for a URL at an address, and the
// proxy in front of it. The server is nil where nobody answers.
func (w *world) behind(u *url.URL, at netip.Addr) (*spireServer, *front) {
	port := cmp.Or(u.Port(), "443")
	for _, n := range w.nodes {
		for _, r := range n.releases {
			values, is := r.Values.(spire.ProxyValues)
			if !is || values.Service.Address != at.String() || strconv.Itoa(values.Service.Port) != port || n.objects[poolKey] == "" || n.runs(r) != nil {
				continue
			}
			if values.Route == topology.Passthrough && values.Host != u.Hostname() {
				return nil, nil
			}
			return w.at("https://" + net.JoinHostPort(values.Endpoint.Address, strconv.Itoa(values.Endpoint.Port))), &front{values}
		}
	}
	return w.at("https://" + net.JoinHostPort(at.String(), port)), nil
}

func (f *front) endsTLS() bool { return f != nil && f.values.Route == topology.Reencrypt }

// answers reports whether there is a bundle at a URL.
func (f *front) answers(u *url.URL) bool {
	if f.endsTLS() {
		return u.RequestURI() == f.values.Path
	}
	return root(u)
}

// shows is the chain that peers of a server see.
func (f *front) shows(s *spireServer) ([]*x509.Certificate, error) {
	switch {
	case !f.endsTLS():
		return s.shows()
	case f.values.Certificate.Secret != "":
		return pki.Parse(s.node.secret(f.values.Certificate.Secret)[spire.SecretCertificate])
	}
	return s.servingCert([]string{f.values.Host}, never.Sub(s.since))
}
