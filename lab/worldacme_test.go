package lab_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// order returns the certificate that a server orders by ACME at the first handshake, and has
// for as long as its pod runs. The error is what the handshake ends with.
func (s *spireServer) order() ([]*x509.Certificate, error) {
	if s.ordered != nil && s.orderedSince.Equal(s.since) {
		return s.ordered, nil
	}
	acme := s.values.BundleEndpoint.ACME
	refused := func(format string, args ...any) ([]*x509.Certificate, error) {
		return nil, fmt.Errorf("remote error: tls: internal error ("+format+")", args...)
	}
	directory, err := url.Parse(acme.DirectoryURL)
	if err != nil {
		return nil, err
	}
	at, known := s.node.knows(directory.Hostname())
	if !known {
		return refused("lookup %s: no such host", directory.Hostname())
	}
	for _, n := range s.node.nodes {
		for _, r := range n.releases {
			values, is := r.Values.(spire.ACMEServerValues)
			if !is || values.Service.Address != at.String() || n.objects[poolKey] == "" || n.runs(r) != nil {
				continue
			}
			root := decode[struct{ Data map[string][]byte }](n.objects[access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: spire.ACMENamespace, Name: spire.ACMERootSecret}]).Data
			if !strings.Contains(strings.Join(s.values.WebRoots, ""), string(root[spire.SecretCertificate])) {
				return refused("certificate signed by unknown authority")
			}
			// It looks for whoever has the name.
			address, known := n.knows(acme.DomainName)
			at := &url.URL{Scheme: "https", Host: net.JoinHostPort(acme.DomainName, strconv.Itoa(values.TLSPort))}
			if found, _ := n.behind(at, address); !known || found != s {
				return refused("urn:ietf:params:acme:error:unauthorized: %s at %s", acme.DomainName, address)
			}
			ca, err := pki.ParseAuthority(root[spire.SecretCertificate], root[spire.SecretKey])
			if err != nil {
				return nil, err
			}
			text, _, err := ca.ServingCert([]string{acme.DomainName}, []netip.Addr(nil), time.Duration(values.ValidityPeriod)*time.Second)
			if err != nil {
				return nil, err
			}
			s.ordered, err = pki.Parse(text)
			s.orderedSince = s.since
			return s.ordered, err
		}
	}
	return refused("dial tcp %s:443: connection refused", at)
}
