package lab_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// nested is a lab with a trust domain whose root is in a and that has a nested server in
// b, and another trust domain in c.
func nested(t *testing.T) topology.Topology {
	t.Helper()
	return topologyOf(t, nestedFile(t))
}

func nestedFile(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/nested.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// nestedAuthority is what a nested server signs with.
type nestedAuthority struct {
	root, issuer *x509.Certificate
	between      []*x509.Certificate
	key          crypto.Signer
}

// above returns the upstream of a nested server while it answers; nil for none.
func (s *spireServer) above() *spireServer {
	if s.values.Upstream == nil {
		return nil
	}
	for name, other := range s.node.nodes {
		if name.lab != s.node.name.lab || other == s.node || other.spire == nil || other.answers() != nil {
			continue
		}
		if other.spire.values.BundleEndpoint.Address == s.values.Upstream.Address {
			return other.spire
		}
	}
	return nil
}

// asksAbove has the upstream of a nested server sign an authority, by the agent of the
// upstream that is on the node.
func (s *spireServer) asksAbove() (*nestedAuthority, error) {
	unready := func(why error) error { return fmt.Errorf("0 of 1 pods are ready: %w", why) }
	above := s.above()
	if above == nil || above.node.serves() != nil {
		return nil, unready(errors.New("its upstream does not answer"))
	}
	entitled := false
	for id := range above.entries {
		entitled = entitled || above.downstream[id] && above.origins[id].prefix == s.node.name.cluster
	}
	var through *attendant
	for _, a := range s.node.attendants {
		if a.values.SocketDir == s.values.Upstream.SocketDir {
			through = a
		}
	}
	if err := through.attest(); err != nil {
		return nil, err
	}
	if through.stale {
		return nil, unready(errors.New("remote error: tls: bad certificate"))
	}
	if !entitled {
		return nil, unready(errors.New("no identity issued"))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer, err := above.sign(&x509.Certificate{URIs: []*url.URL{s.td.ID().URL()}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, key.Public())
	made := &nestedAuthority{root: above.root, issuer: issuer, key: key}
	if above.issuer != above.root {
		made.between = []*x509.Certificate{above.issuer}
	}
	return made, err
}

// signedAbove is what a nested server does when it starts for the first time.
func (s *spireServer) signedAbove() error {
	authority, err := s.asksAbove()
	if err == nil {
		s.activate(authority)
	}
	return err
}

func (s *spireServer) activate(a *nestedAuthority) {
	if s.root != nil && !s.root.Equal(a.root) {
		s.former = append(s.former, s.root)
	}
	s.root, s.issuer, s.between, s.key, s.prepared, s.minted = a.root, a.issuer, a.between, a.key, nil, nil
}

func (s *spireServer) PrepareX509Authority(context.Context, *localauthorityv1.PrepareX509AuthorityRequest) (*localauthorityv1.PrepareX509AuthorityResponse, error) {
	authority, err := s.asksAbove()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	s.prepared = authority
	return &localauthorityv1.PrepareX509AuthorityResponse{PreparedAuthority: &localauthorityv1.AuthorityState{AuthorityId: "next"}}, nil
}

func (s *spireServer) ActivateX509Authority(_ context.Context, r *localauthorityv1.ActivateX509AuthorityRequest) (*localauthorityv1.ActivateX509AuthorityResponse, error) {
	if s.prepared == nil || r.AuthorityId != "next" {
		return nil, status.Error(codes.InvalidArgument, "no prepared authority "+r.AuthorityId)
	}
	s.activate(s.prepared)
	return &localauthorityv1.ActivateX509AuthorityResponse{ActivatedAuthority: &localauthorityv1.AuthorityState{AuthorityId: r.AuthorityId}}, nil
}

// nested returns what the controller manager of a cluster with a nested server registers
// for the pod of a release, if it is that of the server, with its selectors.
func (m manager) nested(r *release, td spiffeid.TrustDomain) map[string][]string {
	all := map[string][]string{}
	if values, is := r.Values.(spire.Values); !is || !m.downstream || values.Upstream == nil {
		return all
	}
	for key, text := range m.node.objects {
		if key.Kind != "ClusterSPIFFEID" || specOf[struct{ ClassName string }](text).ClassName != m.class {
			continue
		}
		spec := specOf[spire.WorkloadIdentitySpec](text)
		labels := map[string]string{spire.ProgramLabel: spire.ServerStatefulSet}
		if !spec.Downstream || spec.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != r.Namespace || !hasAll(labels, spec.PodSelector.MatchLabels) {
			continue
		}
		id := "spiffe://" + td.Name() + spec.SPIFFEIDTemplate[len("spiffe://{{ .TrustDomain }}"):]
		all[id] = append([]string{"k8s:pod-uid:uid-of-" + spire.ServerPod}, spec.WorkloadSelectorTemplates...)
	}
	return all
}
