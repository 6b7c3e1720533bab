package lab_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// spireServer is as much of SPIRE as the driver asks for, over its real API: a
// trust domain with one X.509 and one JWT authority, and a controller manager
// that acts at once.
type spireServer struct {
	bundlev1.UnimplementedBundleServer
	trustdomainv1.UnimplementedTrustDomainServer
	agentv1.UnimplementedAgentServer
	entryv1.UnimplementedEntryServer

	node     *node
	td       spiffeid.TrustDomain
	url      string
	listener *bufconn.Listener
	root     *x509.Certificate
	key      *ecdsa.PrivateKey
	// relationships and what is held because of them; held may be there without
	// a relationship.
	relationships map[spiffeid.TrustDomain]*relationship
	held          map[spiffeid.TrustDomain]*spiffebundle.Bundle
	entries       []string
	// federatesWith goes with entries.
	federatesWith [][]string
	// agents is how many have attested.
	agents int
	// minted is what mint returns: one SVID is as good as another.
	minted []byte
}

type relationship struct {
	url string
	// fetches is when the server fetches by itself; zero once it has.
	fetches time.Time
	// stalled is set by a refresh that overtakes the first fetch: the server
	// never polls again.
	stalled bool
}

// never is the end of an authority's life. Time starts in 2000 in a test.
var never = time.Date(2000, 1, 2, 12, 0, 0, 0, time.UTC)

func newSPIREServer(n *node, values spire.Values) (*spireServer, error) {
	s := &spireServer{
		node: n, td: spiffeid.RequireTrustDomainFromString(values.TrustDomain), listener: bufconn.Listen(64 << 10),
		url:           fmt.Sprintf("https://%s:%d", values.BundleEndpoint.Address, values.BundleEndpoint.Port),
		relationships: map[spiffeid.TrustDomain]*relationship{}, held: map[spiffeid.TrustDomain]*spiffebundle.Bundle{},
		agents: 1,
	}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if s.root, err = s.sign(&x509.Certificate{URIs: []*url.URL{s.td.ID().URL()}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, s.key.Public()); err != nil {
		return nil, err
	}
	own, err := s.svid(spire.ServerID(s.td))
	if err != nil {
		return nil, err
	}
	bundle := s.bundle().X509Bundle()
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(tlsconfig.MTLSServerConfig(own, bundle, tlsconfig.AuthorizeID(spire.AdminID(s.td))))),
		grpc.UnaryInterceptor(s.intercept))
	bundlev1.RegisterBundleServer(server, s)
	trustdomainv1.RegisterTrustDomainServer(server, s)
	agentv1.RegisterAgentServer(server, s)
	entryv1.RegisterEntryServer(server, s)
	go func() { _ = server.Serve(s.listener) }()
	n.stop = append(n.stop, server.Stop)
	return s, nil
}

// intercept makes each call of the API one of the world's.
func (s *spireServer) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	err = s.node.api(ctx, "SPIRE "+path.Base(info.FullMethod), func(changed func()) (err error) {
		s.fetchDue()
		if answer, err = handle(ctx, request); err == nil && strings.Contains(info.FullMethod, "Set") {
			changed()
		}
		return err
	})
	if err != nil && status.Code(err) == codes.Unknown {
		err = status.Error(codes.Unavailable, err.Error())
	}
	return answer, err
}

func (s *spireServer) dial(ctx context.Context) (net.Conn, error) {
	if s == nil {
		return nil, errors.New("connection refused")
	}
	return s.listener.DialContext(ctx)
}

func (s *spireServer) sign(c *x509.Certificate, parent *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	c.SerialNumber, c.Subject = big.NewInt(1), pkix.Name{CommonName: s.td.Name()}
	c.NotBefore, c.NotAfter, c.BasicConstraintsValid = time.Now().Add(-time.Minute), never, true
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, s.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (s *spireServer) svid(id spiffeid.ID) (*x509svid.SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := s.sign(&x509.Certificate{
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, s.root, key.Public())
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{certificate}, PrivateKey: key}, nil
}

// mint is the program's x509 mint with JSON output.
func (s *spireServer) mint(argv []string) ([]byte, error) {
	if len(argv) < 4 || argv[0] != "x509" || argv[1] != "mint" || argv[2] != "-spiffeID" || argv[3] != spire.AdminID(s.td).String() {
		return nil, fmt.Errorf("unknown arguments %q", argv)
	}
	if s.minted != nil {
		return s.minted, nil
	}
	svid, err := s.svid(spire.AdminID(s.td))
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
	if err != nil {
		return nil, err
	}
	s.minted = encode(map[string]any{
		"x509_svid": [][]byte{svid.Certificates[0].Raw}, "private_key": key, "root_cas": [][]byte{s.root.Raw},
	})
	return s.minted, nil
}

func (s *spireServer) bundle() *spiffebundle.Bundle {
	b := spiffebundle.FromX509Authorities(s.td, []*x509.Certificate{s.root})
	if err := b.AddJWTAuthority("jwt-of-"+s.td.Name(), s.key.Public()); err != nil {
		panic(err)
	}
	return b
}

// at returns the server whose bundle endpoint has a URL, if it answers.
func (w *world) at(endpoint string) *spireServer {
	for _, n := range w.nodes {
		if n.spire != nil && n.spire.url == endpoint && n.answers() == nil && n.objects[poolKey] != "" {
			return n.spire
		}
	}
	return nil
}

// certificates is what a bundle endpoint shows.
func (w *world) certificates(ctx context.Context, endpoint netip.AddrPort) (chain []*x509.Certificate, err error) {
	err = w.do(ctx, "Certificates", func(func()) error {
		s := w.at("https://" + endpoint.String())
		if s == nil {
			return errors.New("connection refused")
		}
		own, err := s.svid(spire.ServerID(s.td))
		if err == nil {
			chain = own.Certificates
		}
		return err
	})
	return chain, err
}

// authority returns the server of a trust domain.
func (w *world) authority(td spiffeid.TrustDomain) *spireServer {
	for _, n := range w.nodes {
		if n.spire != nil && n.spire.td == td {
			return n.spire
		}
	}
	return nil
}

// poolKey is that without which nobody reaches a cluster's Services.
var poolKey = keyOf(map[string]any{
	"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": map[string]any{"name": "lab", "namespace": "metallb-system"},
})

// federate is what a new or changed ClusterFederatedTrustDomain comes to.
func (s *spireServer) federate(f spire.FederatedTrustDomainSpec) {
	td := spiffeid.RequireTrustDomainFromString(f.TrustDomain)
	pinned, err := spiffebundle.Parse(td, []byte(f.TrustDomainBundle))
	if err != nil {
		panic(err)
	}
	s.held[td] = pinned
	s.relationships[td] = &relationship{url: f.BundleEndpointURL, fetches: time.Now().Add(latency)}
}

// fetchDue makes the first fetches whose time has come.
func (s *spireServer) fetchDue() {
	for td, r := range s.relationships {
		if !r.fetches.IsZero() && !time.Now().Before(r.fetches) {
			r.fetches = time.Time{}
			_ = s.fetch(td) // as SPIRE, which only logs it
		}
	}
}

// fetch fetches a bundle from its endpoint, which what is held authenticates.
func (s *spireServer) fetch(td spiffeid.TrustDomain) error {
	peer := s.node.at(s.relationships[td].url)
	switch {
	case peer == nil:
		return errors.New("connection refused")
	case s.held[td] == nil:
		return errors.New("local bundle not found")
	case !s.verifies(peer):
		return errors.New("x509: certificate signed by unknown authority")
	}
	s.held[td] = peer.bundle()
	return nil
}

func (s *spireServer) verifies(peer *spireServer) bool {
	held := s.held[peer.td]
	return held != nil && held.HasX509Authority(peer.root)
}

// register is what a ClusterSPIFFEID comes to: an entry, unless a bundle that it
// asks for is missing.
func (s *spireServer) register(w spire.WorkloadIdentitySpec) {
	for _, name := range w.FederatesWith {
		if s.held[spiffeid.RequireTrustDomainFromString(name)] == nil {
			return
		}
	}
	s.unregister(w)
	id := s.td.ID().String() + strings.TrimPrefix(w.SPIFFEIDTemplate, "spiffe://{{ .TrustDomain }}")
	s.entries, s.federatesWith = append(s.entries, id), append(s.federatesWith, w.FederatesWith)
}

// unregister is what the end of a ClusterSPIFFEID comes to.
func (s *spireServer) unregister(w spire.WorkloadIdentitySpec) {
	id := s.td.ID().String() + strings.TrimPrefix(w.SPIFFEIDTemplate, "spiffe://{{ .TrustDomain }}")
	for i := slices.Index(s.entries, id); i >= 0; i = slices.Index(s.entries, id) {
		s.entries, s.federatesWith = slices.Delete(s.entries, i, i+1), slices.Delete(s.federatesWith, i, i+1)
	}
}

func (s *spireServer) identified(path string) bool {
	return s != nil && slices.Contains(s.entries, s.td.ID().String()+path)
}

func (s *spireServer) trusted() []spiffeid.TrustDomain {
	var tds []spiffeid.TrustDomain
	for td := range s.relationships {
		tds = append(tds, td)
	}
	slices.SortFunc(tds, spiffeid.TrustDomain.Compare)
	return tds
}

func (s *spireServer) CountBundles(context.Context, *bundlev1.CountBundlesRequest) (*bundlev1.CountBundlesResponse, error) {
	return &bundlev1.CountBundlesResponse{}, nil
}

func (s *spireServer) GetBundle(context.Context, *bundlev1.GetBundleRequest) (*types.Bundle, error) {
	return asAPI(s.bundle()), nil
}

func (s *spireServer) GetFederatedBundle(_ context.Context, r *bundlev1.GetFederatedBundleRequest) (*types.Bundle, error) {
	held := s.held[spiffeid.RequireTrustDomainFromString(r.TrustDomain)]
	if held == nil {
		return nil, status.Error(codes.NotFound, "bundle not found")
	}
	return asAPI(held), nil
}

func (s *spireServer) ListFederatedBundles(context.Context, *bundlev1.ListFederatedBundlesRequest) (*bundlev1.ListFederatedBundlesResponse, error) {
	answer := &bundlev1.ListFederatedBundlesResponse{}
	for _, b := range s.held {
		answer.Bundles = append(answer.Bundles, asAPI(b))
	}
	return answer, nil
}

func (s *spireServer) BatchSetFederatedBundle(_ context.Context, r *bundlev1.BatchSetFederatedBundleRequest) (*bundlev1.BatchSetFederatedBundleResponse, error) {
	for _, b := range r.Bundle {
		td := spiffeid.RequireTrustDomainFromString(b.TrustDomain)
		peer := s.node.authority(td)
		if peer == nil || federation.Compare(peer.bundle(), fromAPI(b)).State != federation.InSync {
			return nil, status.Error(codes.InvalidArgument, "that is not the bundle of "+td.Name())
		}
		s.held[td] = peer.bundle()
	}
	return &bundlev1.BatchSetFederatedBundleResponse{}, nil
}

func (s *spireServer) BatchDeleteFederatedBundle(_ context.Context, r *bundlev1.BatchDeleteFederatedBundleRequest) (*bundlev1.BatchDeleteFederatedBundleResponse, error) {
	answer := &bundlev1.BatchDeleteFederatedBundleResponse{}
	for _, name := range r.TrustDomains {
		delete(s.held, spiffeid.RequireTrustDomainFromString(name))
		for i := range s.federatesWith {
			s.federatesWith[i] = slices.DeleteFunc(slices.Clone(s.federatesWith[i]), func(other string) bool { return other == name })
		}
		answer.Results = append(answer.Results, &bundlev1.BatchDeleteFederatedBundleResponse_Result{Status: &types.Status{}, TrustDomain: name})
	}
	return answer, nil
}

func (s *spireServer) ListFederationRelationships(context.Context, *trustdomainv1.ListFederationRelationshipsRequest) (*trustdomainv1.ListFederationRelationshipsResponse, error) {
	answer := &trustdomainv1.ListFederationRelationshipsResponse{}
	for _, td := range s.trusted() {
		answer.FederationRelationships = append(answer.FederationRelationships, &types.FederationRelationship{
			TrustDomain: td.Name(), BundleEndpointUrl: s.relationships[td].url,
			BundleEndpointProfile: &types.FederationRelationship_HttpsSpiffe{
				HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: spire.ServerID(td).String()},
			},
		})
	}
	return answer, nil
}

func (s *spireServer) RefreshBundle(_ context.Context, r *trustdomainv1.RefreshBundleRequest) (*emptypb.Empty, error) {
	td := spiffeid.RequireTrustDomainFromString(r.TrustDomain)
	known := s.relationships[td]
	if known == nil {
		return nil, status.Error(codes.NotFound, "no relationship with "+r.TrustDomain)
	}
	if !known.fetches.IsZero() {
		known.stalled, known.fetches = true, time.Time{}
	}
	return &emptypb.Empty{}, s.fetch(td)
}

func (s *spireServer) ListAgents(context.Context, *agentv1.ListAgentsRequest) (*agentv1.ListAgentsResponse, error) {
	answer := &agentv1.ListAgentsResponse{}
	for range s.agents {
		answer.Agents = append(answer.Agents, &types.Agent{
			Id: &types.SPIFFEID{TrustDomain: s.td.Name(), Path: "/spire/agent/k8s_psat/node"}, X509SvidExpiresAt: never.Unix(),
		})
	}
	return answer, nil
}

func (s *spireServer) ListEntries(context.Context, *entryv1.ListEntriesRequest) (*entryv1.ListEntriesResponse, error) {
	answer := &entryv1.ListEntriesResponse{}
	for i, id := range s.entries {
		answer.Entries = append(answer.Entries, &types.Entry{
			SpiffeId:      &types.SPIFFEID{TrustDomain: s.td.Name(), Path: spiffeid.RequireFromString(id).Path()},
			ParentId:      &types.SPIFFEID{TrustDomain: s.td.Name(), Path: "/spire/agent/k8s_psat/node"},
			FederatesWith: s.federatesWith[i],
		})
	}
	return answer, nil
}

func asAPI(b *spiffebundle.Bundle) *types.Bundle {
	answer := &types.Bundle{TrustDomain: b.TrustDomain().Name()}
	for _, authority := range b.X509Authorities() {
		answer.X509Authorities = append(answer.X509Authorities, &types.X509Certificate{Asn1: authority.Raw})
	}
	for id, key := range b.JWTAuthorities() {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			panic(err)
		}
		answer.JwtAuthorities = append(answer.JwtAuthorities, &types.JWTKey{KeyId: id, PublicKey: der})
	}
	return answer
}

func fromAPI(b *types.Bundle) *spiffebundle.Bundle {
	bundle := spiffebundle.New(spiffeid.RequireTrustDomainFromString(b.TrustDomain))
	for _, authority := range b.X509Authorities {
		certificate, err := x509.ParseCertificate(authority.Asn1)
		if err != nil {
			panic(err)
		}
		bundle.AddX509Authority(certificate)
	}
	for _, authority := range b.JwtAuthorities {
		key, err := x509.ParsePKIXPublicKey(authority.PublicKey)
		if err == nil {
			err = bundle.AddJWTAuthority(authority.KeyId, key)
		}
		if err != nil {
			panic(err)
		}
	}
	return bundle
}
