package lab_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// provider is what an OIDC discovery provider does otherwise than it should.
type provider struct {
	// down makes it refuse connections, shown is another chain than its own.
	down  bool
	shown []*x509.Certificate
	// status is another one than 200, issuer another than that of the values.
	status int
	issuer string
	// keys are served in the place of those of its agent.
	keys []byte
}

// providers returns the OIDC discovery provider in a node by the name of its namespace.
func (n *node) provider(namespace string) *provider {
	if n.providers == nil {
		n.providers = map[string]*provider{}
	}
	if n.providers[namespace] == nil {
		n.providers[namespace] = &provider{}
	}
	return n.providers[namespace]
}

// discovers returns nil when a provider has had keys from the agent next to it.
func (n *node) discovers() error {
	if err := n.serves(); err != nil {
		return fmt.Errorf("0 of 1 pods are ready: no keys yet: %w", err)
	}
	for _, id := range []string{"/fedlab/oidc-discovery-provider", "/fedlab/nodes/" + n.name.cluster} {
		if _, there := n.spire.entries["spiffe://"+n.spire.td.Name()+id]; !there {
			return errors.New("0 of 1 pods are ready: no keys yet: no identity issued")
		}
	}
	return nil
}

// asked answers a request for a URL at an address where an OIDC discovery provider is; there
// is none where it returns false.
func (w peers) discovery(u *url.URL, at netip.Addr) (answer lab.Answer, there bool, err error) {
	for _, n := range w.nodes {
		for _, r := range n.releases {
			values, is := r.Values.(spire.DiscoveryValues)
			port := u.Port()
			if port == "" {
				port = "443"
			}
			if !is || values.Service.Address != at.String() || strconv.Itoa(values.Service.Port) != port || n.objects[poolKey] == "" {
				continue
			}
			if n.runs(r) != nil || n.provider(r.Namespace).down {
				return answer, true, errors.New("connection refused")
			}
			answer, err = n.provider(r.Namespace).answer(n.spire, values, u)
			return answer, true, err
		}
	}
	return answer, false, nil
}

func (p *provider) answer(s *spireServer, values spire.DiscoveryValues, u *url.URL) (answer lab.Answer, err error) {
	if answer.Chain = p.shown; answer.Chain == nil {
		if answer.Chain, err = s.servingCert([]string{values.Host}, never.Sub(s.since)); err != nil {
			return answer, err
		}
	}
	issuer, base := values.Issuer, strings.TrimSuffix(values.Issuer, "/")
	if p.issuer != "" {
		issuer = p.issuer
	}
	answer.Status = http.StatusOK
	switch u.String() {
	case base + "/.well-known/openid-configuration":
		answer.Body, err = json.Marshal(map[string]string{"issuer": issuer, "jwks_uri": base + "/keys"})
	case base + "/keys":
		if answer.Body = p.keys; answer.Body == nil {
			answer.Body, err = s.bundle().JWTBundle().Marshal()
		}
	default:
		answer.Status = http.StatusNotFound
	}
	if p.status != 0 {
		answer.Status, answer.Body = p.status, nil
	}
	return answer, err
}
