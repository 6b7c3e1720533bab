package lab_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// spireServer is as much of SPIRE as the driver asks for, over its real API: a
// trust domain with one X.509 and one JWT authority, and a controller manager
// that acts at once.
type spireServer struct {
	// ordered is what it has by ACME since it was started at orderedSince.
	ordered      []*x509.Certificate
	orderedSince time.Time
	bundlev1.UnimplementedBundleServer
	trustdomainv1.UnimplementedTrustDomainServer
	agentv1.UnimplementedAgentServer
	entryv1.UnimplementedEntryServer
	localauthorityv1.UnimplementedLocalAuthorityServer

	node *node
	td   spiffeid.TrustDomain
	// values and since are those of the last start.
	values spire.Values
	since  time.Time
	// away is the pod of a replica that does not run.
	away     string
	listener *bufconn.Listener
	server   *grpc.Server
	// root is what the bundle has, issuer what signs; key is the issuer's. former are roots
	// of an upstream that has lost its data.
	root, issuer *x509.Certificate
	key          crypto.Signer
	former       []*x509.Certificate
	// between are the authorities between that of a nested server and the root.
	between []*x509.Certificate
	// prepared is an authority of a nested server that does not sign yet.
	prepared *nestedAuthority
	// relationships and what is held because of them; held may be there without
	// a relationship. static are those of the configuration.
	relationships, static map[spiffeid.TrustDomain]*relationship
	held                  map[spiffeid.TrustDomain]*spiffebundle.Bundle
	// fetches are what it has counted.
	fetches map[spiffeid.TrustDomain]spire.Fetches
	// entries leads from SPIFFE IDs to the trust domains that they federate with.
	entries map[string][]string
	// selectors are those of the entries, by SPIFFE ID, and origins where they come from.
	selectors map[string][]string
	origins   map[string]origin
	// downstream are the entries of nested servers.
	downstream map[string]bool
	// attested are the agents in other clusters that have attested, and opened the
	// kubeconfigs that were there when the server started.
	attested map[spiffeid.ID]bool
	opened   map[string][]byte
	// plain are the entries, by their IDs, that somebody has given an ID.
	plain map[string]*types.Entry
	// tokens are the join tokens that no agent has shown yet.
	tokens map[string]bool
	// again is when registrations that were refused are tried again; zero for
	// none.
	again time.Time
	// banned is whose agents are refused.
	banned bool
	// agents is how many have attested.
	agents int
	// minted is what mint returns: one SVID is as good as another.
	minted []byte
	// shown is the chain that the bundle endpoint shows, if it is not the right
	// one.
	shown []*x509.Certificate
	// hangs makes the endpoint take requests and not answer, lies makes it serve
	// something else than the server has.
	hangs bool
	lies  *spiffebundle.Bundle
	// stale is whose workloads present SVIDs of an authority that was revoked, and
	// staleWebhook whose webhook does; staleReplica is the pod of a replica of which the
	// webhook does.
	stale, staleWebhook bool
	staleReplica        string
	// hung is whose agent waits for the bundle that it starts with.
	hung bool
}

type relationship struct {
	url     string
	profile topology.EndpointProfile
	// endpointID is empty with https_web.
	endpointID string
	// fetches is when the server fetches by itself; zero once it has.
	fetches time.Time
	// tried is set once it has tried.
	tried bool
	// stalled is set by a refresh that overtakes the first fetch: the server
	// never polls again.
	stalled bool
}

// never is the end of an authority's life. Time starts in 2000 in a test.
var never = time.Date(2000, 1, 2, 12, 0, 0, 0, time.UTC)

// newSPIREServer makes what a server makes when it starts for the first time.
func newSPIREServer(n *node, values spire.Values) (*spireServer, error) {
	s := &spireServer{
		node: n, td: spiffeid.RequireTrustDomainFromString(values.TrustDomain), relationships: map[spiffeid.TrustDomain]*relationship{},
		held: map[spiffeid.TrustDomain]*spiffebundle.Bundle{}, fetches: map[spiffeid.TrustDomain]spire.Fetches{}, entries: map[string][]string{}, selectors: map[string][]string{}, agents: 1,
		origins: map[string]origin{}, attested: map[spiffeid.ID]bool{}, downstream: map[string]bool{}, tokens: map[string]bool{}, plain: map[string]*types.Entry{},
	}
	if values.Upstream != nil {
		s.values = values
		if err := s.signedAbove(); err != nil {
			return nil, err
		}
		return s, nil
	}
	if values.UpstreamAuthority == topology.Disk {
		return s, s.readUpstream(n.secret(spire.UpstreamAuthoritySecret))
	}
	var err error
	if s.key, err = newKey(values.Server.CAKeyType); err != nil {
		return nil, err
	}
	s.root, err = s.sign(&x509.Certificate{URIs: []*url.URL{s.td.ID().URL()}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, s.key.Public())
	s.issuer = s.root
	return s, err
}

// newKey makes the key of an authority: RSA where that is asked for, or else EC.
func newKey(of topology.KeyType) (crypto.Signer, error) {
	if of == topology.RSA2048 {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// readUpstream takes the authority that is in files. A server would sign one
// of its own with it; here it signs all itself.
func (s *spireServer) readUpstream(files map[string][]byte) error {
	pair, err := tls.X509KeyPair(files[spire.SecretCertificate], files[spire.SecretKey])
	if err != nil {
		return err
	}
	roots, err := pki.Parse(files[spire.SecretBundle])
	if err != nil {
		return err
	}
	s.root, s.issuer = roots[0], pair.Leaf
	s.key, _ = pair.PrivateKey.(crypto.Signer)
	return nil
}

// secret returns the data of a Secret of SPIRE's namespace.
func (n *node) secret(name string) map[string][]byte {
	text := n.objects[access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: topology.ServerNamespace, Name: name}]
	if text == "" {
		return nil
	}
	return decode[struct{ Data map[string][]byte }](text).Data
}

// start starts the server again, with a configuration that it reads now and what
// it had stored before.
func (s *spireServer) start(values spire.Values, since time.Time) error {
	opened := s.node.secret(spire.KubeconfigsSecret)
	for _, m := range values.Members {
		if len(opened[m.Cluster]) == 0 {
			return fmt.Errorf("0 of 1 pods are ready: open /run/spire/kubeconfigs/%s: no such file or directory", m.Cluster)
		}
		if n := s.node.nodes[nodeName{s.node.name.lab, m.Cluster}]; values.BundlePlugin == topology.K8sBundle && n != nil && n.opens(opened[m.Cluster], m.Namespace) != nil {
			return fmt.Errorf("0 of 1 pods are ready: unable to update: unable to get list of %s", m.Cluster)
		}
	}
	s.opened, s.values, s.since, s.static = opened, values, since, map[spiffeid.TrustDomain]*relationship{}
	for _, f := range values.FederatesWith {
		s.static[spiffeid.RequireTrustDomainFromString(f.TrustDomain)] = &relationship{
			url: f.URL, profile: f.Profile, endpointID: f.EndpointSPIFFEID, fetches: since.Add(latency),
		}
	}
	// What has no resource any more, the controller manager removes when it sees it.
	resources := map[spiffeid.TrustDomain]bool{}
	for key, text := range s.node.objects {
		if key.Kind == "ClusterFederatedTrustDomain" {
			resources[spiffeid.RequireTrustDomainFromString(specOf[spire.FederatedTrustDomainSpec](text).TrustDomain)] = true
		}
	}
	maps.DeleteFunc(s.relationships, func(td spiffeid.TrustDomain, _ *relationship) bool { return !s.byAPI() && !resources[td] })
	s.register()
	s.publish()

	own, err := s.svid(spire.ServerID(s.td))
	if err != nil {
		return err
	}
	if s.server != nil {
		go s.server.Stop() // waits for handshakes, which wait for the world
	}
	s.listener = bufconn.Listen(64 << 10)
	s.server = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(tlsconfig.MTLSServerConfig(own, s, tlsconfig.AuthorizeID(spire.AdminID(s.td))))),
		grpc.UnaryInterceptor(s.intercept))
	bundlev1.RegisterBundleServer(s.server, s)
	trustdomainv1.RegisterTrustDomainServer(s.server, s)
	agentv1.RegisterAgentServer(s.server, s)
	entryv1.RegisterEntryServer(s.server, s)
	localauthorityv1.RegisterLocalAuthorityServer(s.server, s)
	server, listener := s.server, s.listener
	go func() { _ = server.Serve(listener) }()
	s.node.stop = append(s.node.stop, server.Stop)
	return nil
}

// publish is what the server's notifier and its publisher do when the server starts.
func (s *spireServer) publish() {
	for _, m := range s.managers() {
		key, by := bundleKey(m.namespace), spire.BundlePublisher
		if s.values.BundlePlugin == topology.K8sBundle {
			by = notifier
		}
		if by != notifier && m.node != s.node && strings.Contains(m.node.objects[key], spire.SecretBundle) && m.node.managers[key] != spire.BundlePublisher {
			continue // a conflict: somebody else has written it
		}
		m.node.managers[key] = by
		m.node.objects[key] = string(encode(map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
			"data": map[string]any{spire.SecretBundle: string(pki.Marshal(s.bundle().X509Authorities()...))},
		}))
	}
}

// notifier is the field manager by which a server writes with k8sbundle.
const notifier = "spire-server"

// managed is the ConfigMap of the bundle, with who has written the bundle.
func (n *node) managed(key access.ObjectKey, text string) string {
	type fields = map[string]any
	object := decode[fields](text)
	metadata, _ := object["metadata"].(fields)
	metadata["managedFields"] = []fields{
		{"manager": "helm", "fieldsV1": fields{"f:metadata": fields{}}},
		{"manager": cmp.Or(n.managers[key], "fedlab"), "fieldsV1": fields{"f:data": fields{"f:" + spire.SecretBundle: fields{}}}},
	}
	return string(encode(object))
}

func bundleKey(namespace string) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: namespace, Name: spire.BundleConfigMap}
}

// GetX509BundleForTrustDomain returns what a server verifies its callers by, as it is now.
func (s *spireServer) GetX509BundleForTrustDomain(spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return s.bundle().X509Bundle(), nil
}

// alters are the calls that change a server.
var alters = regexp.MustCompile("Set|Delete|Prepare|Activate")

// intercept makes each call of the API one of the world's.
func (s *spireServer) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	err = s.node.api(ctx, "SPIRE "+path.Base(info.FullMethod), func(changed func()) (err error) {
		if err := s.node.serves(); err != nil {
			return err
		}
		s.fetchDue()
		if answer, err = handle(ctx, request); err == nil && alters.MatchString(info.FullMethod) {
			changed()
		}
		return err
	})
	if err != nil && status.Code(err) == codes.Unknown {
		err = status.Error(codes.Unavailable, err.Error())
	}
	return answer, err
}

func (s *spireServer) sign(c *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	c.SerialNumber, c.Subject = big.NewInt(1), pkix.Name{CommonName: s.td.Name()}
	c.NotBefore, c.BasicConstraintsValid = time.Now().Add(-time.Minute), true
	if c.NotAfter.IsZero() {
		c.NotAfter = never
	}
	parent := s.issuer
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, s.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// signer returns who has signed what workloads or the webhook present.
func (s *spireServer) signer(stale bool) (*spireServer, error) {
	if !stale {
		return s, nil
	}
	return newSPIREServer(s.node, spire.Values{TrustDomain: s.td.Name()})
}

// webhook connects to the webhook of the controller manager.
func (s *spireServer) webhook(ctx context.Context, pod string) (net.Conn, error) {
	signer, err := s.signer(s.staleWebhook || s.staleReplica == pod)
	if err != nil {
		return nil, err
	}
	svid, err := signer.svid(spiffeid.RequireFromPath(s.td, "/spire-controller-manager-webhook"))
	if err != nil {
		return nil, err
	}
	pair := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	near, far := net.Pipe()
	go func() {
		defer func() { _ = far.Close() }()
		_ = tls.Server(far, &tls.Config{Certificates: []tls.Certificate{pair}}).HandshakeContext(ctx)
	}()
	return near, nil
}

func (s *spireServer) svid(id spiffeid.ID) (*x509svid.SVID, error) { return s.svidUntil(id, never) }

func (s *spireServer) svidUntil(id spiffeid.ID, end time.Time) (*x509svid.SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := s.sign(&x509.Certificate{
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature, NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key.Public())
	if err != nil {
		return nil, err
	}
	chain := []*x509.Certificate{certificate}
	if s.issuer != s.root {
		chain = append(append(chain, s.issuer), s.between...)
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, nil
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
	var chain [][]byte
	for _, c := range svid.Certificates {
		chain = append(chain, c.Raw)
	}
	var roots [][]byte
	for _, c := range s.bundle().X509Authorities() {
		roots = append(roots, c.Raw)
	}
	s.minted = encode(map[string]any{"x509_svid": chain, "private_key": key, "root_cas": roots})
	return s.minted, nil
}

func (s *spireServer) bundle() *spiffebundle.Bundle {
	key := s.key.Public()
	b := spiffebundle.FromX509Authorities(s.td, append([]*x509.Certificate{s.root}, s.former...))
	if above := s.above(); above != nil {
		b.AddX509Authority(above.root) // polled
		key = above.key.Public()
	}
	if err := b.AddJWTAuthority("jwt-of-"+s.td.Name(), key); err != nil {
		panic(err)
	}
	return b
}

// finds is behind for a server that has to know the host of the URL.
func (n *node) finds(endpoint string) (*spireServer, *front) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, nil
	}
	at, known := n.knows(u.Hostname())
	if !known {
		if at, err = netip.ParseAddr(u.Hostname()); err != nil {
			return nil, nil
		}
	}
	if s, proxy := n.behind(u, at); s != nil && proxy.answers(u) {
		return s, proxy
	}
	return nil, nil
}

// at returns the server whose bundle endpoint has a URL, if it answers.
func (w *world) at(endpoint string) *spireServer {
	u, err := url.Parse(endpoint)
	if err != nil || !root(u) {
		return nil
	}
	host := u.Hostname()
	for _, n := range w.nodes {
		r := n.server()
		if r == nil || n.answers() != nil || n.objects[poolKey] == "" {
			continue
		}
		values, _ := r.Values.(spire.Values)
		if host == values.BundleEndpoint.Address && u.Port() == strconv.Itoa(values.BundleEndpoint.Port) && n.runs(r) == nil {
			return n.spire
		}
	}
	for _, m := range w.hosts {
		if p := m.programs["server"]; p != nil && p.Address.String() == host && m.serveOnHost() == nil && strconv.Itoa(m.spire.values.BundleEndpoint.Port) == u.Port() {
			return m.spire
		}
	}
	return nil
}

// serves is the bundle that the endpoint serves.
func (s *spireServer) serves() *spiffebundle.Bundle {
	b := s.bundle()
	if s.lies != nil {
		b = s.lies.Clone()
	}
	b.SetRefreshHint(duration(s.values.BundleEndpoint.RefreshHint))
	return b
}

func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

// shows is the chain of the bundle endpoint.
func (s *spireServer) shows() ([]*x509.Certificate, error) {
	switch {
	case s.shown != nil:
		return s.shown, nil
	case s.values.BundleEndpoint.ACME != nil:
		return s.order()
	case s.values.BundleEndpoint.OwnCertificate != nil:
		return pki.Parse(s.node.secret(s.values.BundleEndpoint.OwnCertificate.Secret)[spire.SecretCertificate])
	case s.values.BundleEndpoint.Profile == topology.HTTPSWeb:
		return s.servingCert(s.values.BundleEndpoint.ServingCert.Names, time.Hour)
	}
	own, err := s.svid(spire.ServerID(s.td))
	if err != nil {
		return nil, err
	}
	return own.Certificates, nil
}

// servingCert is what the web CA of the trust domain issues for names and addresses.
func (s *spireServer) servingCert(names []string, ttl time.Duration) ([]*x509.Certificate, error) {
	files := s.node.secret(spire.WebCASecret)
	ca, err := pki.ParseAuthority(files[spire.SecretCertificate], files[spire.SecretKey])
	if err != nil {
		return nil, err
	}
	var dns []string
	var addresses []netip.Addr
	for _, name := range names {
		if address, err := netip.ParseAddr(name); err == nil {
			addresses = append(addresses, address)
		} else {
			dns = append(dns, name)
		}
	}
	text, _, err := ca.ServingCert(dns, addresses, ttl)
	if err != nil {
		return nil, err
	}
	return pki.Parse(text)
}

// authority returns the server of a trust domain of a lab.
func (w *world) authority(of string, td spiffeid.TrustDomain) *spireServer {
	for name, n := range w.nodes {
		if name.lab == of && n.spire != nil && n.spire.td == td && n.spire.values.Upstream == nil {
			return n.spire
		}
	}
	for name, m := range w.hosts {
		if name.lab == of && m.spire != nil && m.spire.td == td {
			return m.spire
		}
	}
	return nil
}

// poolKey is that without which nobody reaches a cluster's Services.
var poolKey = keyOf(map[string]any{
	"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": map[string]any{"name": "lab", "namespace": "metallb-system"},
})

// byAPI reports whether no controller manager makes the server's relationships.
func (s *spireServer) byAPI() bool { return s.node.host != nil || s.values.RelationshipsByAPI }

// manage makes relationships of what is in the cluster: of the oldest resource
// for each trust domain that has no class.
func (s *spireServer) manage() {
	if s.byAPI() {
		return
	}
	oldest := map[spiffeid.TrustDomain]access.ObjectKey{}
	for key, text := range s.node.objects {
		if key.Kind != spire.FederatedTrustDomainKind {
			continue
		}
		spec := specOf[spire.FederatedTrustDomainSpec](text)
		td := spiffeid.RequireTrustDomainFromString(spec.TrustDomain)
		if other, twice := oldest[td]; spec.ClassName == "" && (!twice || s.node.made[key] < s.node.made[other]) {
			oldest[td] = key
		}
	}
	maps.DeleteFunc(s.relationships, func(td spiffeid.TrustDomain, _ *relationship) bool { return oldest[td].Kind == "" })
	for _, key := range oldest {
		s.federate(specOf[spire.FederatedTrustDomainSpec](s.node.objects[key]))
	}
}

// federate is what a new or changed ClusterFederatedTrustDomain comes to: only
// with a new endpoint is its bundle read.
func (s *spireServer) federate(f spire.FederatedTrustDomainSpec) {
	td := spiffeid.RequireTrustDomainFromString(f.TrustDomain)
	made := &relationship{
		url: f.BundleEndpointURL, profile: f.BundleEndpointProfile.Type, endpointID: f.BundleEndpointProfile.EndpointSPIFFEID,
		fetches: time.Now().Add(latency),
	}
	if had := s.relationships[td]; had != nil && had.url == made.url && had.profile == made.profile && had.endpointID == made.endpointID {
		return
	}
	pinned, err := spiffebundle.Parse(td, []byte(f.TrustDomainBundle))
	if err != nil {
		panic(err)
	}
	s.held[td], s.relationships[td] = pinned, made
}

// relationship returns the one that counts: that of the configuration, where
// there are two.
func (s *spireServer) relationship(td spiffeid.TrustDomain) *relationship {
	if r := s.static[td]; r != nil {
		return r
	}
	return s.relationships[td]
}

// fetchDue makes the fetches whose time has come, and registers what was refused.
func (s *spireServer) fetchDue() {
	due := func(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }
	for _, td := range slices.Concat(trusted(s.relationships), trusted(s.static)) {
		r := s.relationship(td)
		if !due(r.fetches) {
			continue
		}
		r.tried, r.fetches = true, time.Time{}
		if s.fetch(td) != nil { // SPIRE only logs it
			r.fetches = time.Now().Add(s.interval(td))
		}
	}
	if due(s.again) {
		s.again = time.Time{}
		s.register()
	}
}

// interval is when a server comes back that could not fetch
// (pkg/server/bundle/client/updater.go).
func (s *spireServer) interval(td spiffeid.TrustDomain) time.Duration {
	if held := s.held[td]; held != nil {
		if hint, there := held.RefreshHint(); there {
			return hint / 4
		}
	}
	return time.Minute
}

// fetch fetches a bundle from its endpoint, which has to prove who it is.
func (s *spireServer) fetch(td spiffeid.TrustDomain) (err error) {
	defer func() {
		f := s.fetches[td]
		if err == nil {
			f.Done++
		} else {
			f.Failed++
		}
		s.fetches[td] = f
	}()
	r := s.relationship(td)
	peer, proxy := s.node.finds(r.url)
	if peer == nil {
		return errors.New("connection refused")
	}
	chain, err := proxy.shows(peer)
	if err != nil {
		return err
	}
	if r.profile == topology.HTTPSWeb {
		err = s.verifiesWeb(chain, r.url)
	} else {
		err = s.verifiesSPIFFE(chain, r.endpointID)
	}
	if err != nil {
		return err
	}
	s.held[td] = peer.serves()
	return nil
}

// metrics answers one request for what it has counted.
func (s *spireServer) metrics() net.Conn {
	var text strings.Builder
	for td, f := range s.fetches {
		label := strings.ReplaceAll(td.Name(), ".", "_")
		_, _ = fmt.Fprintf(&text, "spire_server_bundle_manager_update_federated_bundle{trust_domain_id=%q} %d\n", label, f.Done)
		_, _ = fmt.Fprintf(&text, "spire_server_bundle_manager_fetch_federated_bundle{status=\"Unknown\",trust_domain_id=%q} %d\n", label, f.Failed)
	}
	near, far := net.Pipe()
	go answered(far, "200 OK", text.String())
	return near
}

// answered answers one request.
func answered(conn net.Conn, status, body string) {
	defer func() { _ = conn.Close() }()
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(body), body)
}

// verifiesWeb returns nil for a chain that the server's web roots verify; without
// any it knows those of the internet only.
func (s *spireServer) verifiesWeb(chain []*x509.Certificate, endpoint string) error {
	at, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	for _, root := range s.values.WebRoots {
		roots.AppendCertsFromPEM([]byte(root))
	}
	_, err = chain[0].Verify(x509.VerifyOptions{DNSName: at.Hostname(), Roots: roots})
	return err
}

// verifiesSPIFFE returns nil for a chain that a held bundle verifies.
func (s *spireServer) verifiesSPIFFE(chain []*x509.Certificate, endpointID string) error {
	id, err := x509svid.IDFromCert(chain[0])
	switch {
	case err != nil:
		return err
	case id.String() != endpointID:
		return fmt.Errorf("unexpected SPIFFE ID %s", id)
	case s.held[id.TrustDomain()] == nil:
		return errors.New("local bundle not found")
	}
	_, _, err = x509svid.Verify(chain, s.held[id.TrustDomain()])
	return err
}

// verifies holds when the server has what verifies the SVIDs of another's
// workloads.
func (s *spireServer) verifies(peer *spireServer) bool {
	held := s.held[peer.td]
	return held != nil && held.HasX509Authority(peer.root)
}

// register makes entries of all ClusterSPIFFEIDs for all pods. One that federates
// with a trust domain whose bundle is not held is refused, and stays as it was
// until the controller manager comes back (its gcInterval).
func (s *spireServer) register() {
	for _, m := range s.managers() {
		registered := map[string]bool{}
		for _, r := range m.node.releases {
			r.registrations = slices.DeleteFunc(r.registrations, func(other registration) bool { return other.by == s })
			for id, selectors := range m.nested(r, s.td) {
				registered[id], s.entries[id], s.selectors[id], s.downstream[id] = true, nil, selectors, true
				s.origins[id] = origin{prefix: m.prefix, parent: s.agentIn(m.node)}
			}
			for _, wanted := range m.node.registrations(r, s.td, m.class) {
				wanted.by, wanted.agents = s, m.namespace
				r.registrations = append(r.registrations, wanted)
				registered[wanted.id] = true
				if slices.ContainsFunc(wanted.federatesWith, func(td string) bool { return s.held[spiffeid.RequireTrustDomainFromString(td)] == nil }) {
					s.again = time.Now().Add(10 * time.Second)
					continue
				}
				s.entries[wanted.id], s.selectors[wanted.id] = wanted.federatesWith, wanted.selectors
				s.origins[wanted.id] = origin{prefix: m.prefix, parent: s.agentIn(m.node), hint: wanted.hint}
			}
		}
		if m.node == s.node {
			s.registerStatic(m, registered)
		}
		maps.DeleteFunc(s.entries, func(id string, _ []string) bool { return m.reconciles(s.origins[id].prefix) && !registered[id] })
		maps.DeleteFunc(s.plain, func(id string, _ *types.Entry) bool { return m.deletes(id) })
	}
}

// registerStatic makes entries of the ClusterStaticEntries that fedlab has made. Of two that
// ask for the same the older one counts.
func (s *spireServer) registerStatic(m manager, registered map[string]bool) {
	oldest := map[string]access.ObjectKey{}
	for key, text := range m.node.objects {
		if static := decode[staticEntry](text); static.Kind == "ClusterStaticEntry" && static.owned() {
			if other, twice := oldest[static.Spec.SPIFFEID]; !twice || m.node.made[key] < m.node.made[other] {
				oldest[static.Spec.SPIFFEID] = key
			}
		}
	}
	for key, text := range m.node.objects {
		if static := decode[staticEntry](text); static.Kind == "ClusterStaticEntry" && static.owned() && !static.Status.Rendered {
			id := static.Spec.SPIFFEID
			if masked := oldest[id] != key; masked != static.Status.Masked {
				object := decode[map[string]any](text)
				object["status"] = map[string]any{"masked": masked}
				if !masked {
					delete(object, "status")
				}
				m.node.objects[key] = string(encode(object))
			}
			registered[id] = true
			s.entries[id], s.selectors[id] = static.Spec.FederatesWith, static.Spec.Selectors
			s.origins[id] = origin{m.prefix, static.Spec.ParentID, static.Spec.Hint, static.Spec.DNSNames, 0}
			if ttl := static.Spec.X509SVIDTTL; ttl != "" {
				from := s.origins[id]
				from.x509TTL = duration(ttl)
				s.origins[id] = from
			}
		}
	}
}

// owned reports whether fedlab has made it.
func (e staticEntry) owned() bool { return hasAll(e.Metadata.Labels, spire.Owned()) }

// trusted returns whom relationships trust, sorted.
func trusted(relationships map[spiffeid.TrustDomain]*relationship) []spiffeid.TrustDomain {
	return slices.SortedFunc(maps.Keys(relationships), spiffeid.TrustDomain.Compare)
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
		bundle := fromAPI(b)
		// SPIRE takes any. Here it shows that a bundle is made up.
		if peer := s.node.authority(s.node.name.lab, bundle.TrustDomain()); peer == nil || len(federation.Compare(bundle, peer.bundle()).Foreign) > 0 {
			return nil, status.Error(codes.InvalidArgument, "that is not the bundle of "+b.TrustDomain)
		}
		s.held[bundle.TrustDomain()] = bundle
	}
	return &bundlev1.BatchSetFederatedBundleResponse{}, nil
}

func (s *spireServer) BatchDeleteFederatedBundle(_ context.Context, r *bundlev1.BatchDeleteFederatedBundleRequest) (*bundlev1.BatchDeleteFederatedBundleResponse, error) {
	answer := &bundlev1.BatchDeleteFederatedBundleResponse{}
	for _, name := range r.TrustDomains {
		delete(s.held, spiffeid.RequireTrustDomainFromString(name))
		for id, federatesWith := range s.entries { // dissociated
			s.entries[id] = slices.DeleteFunc(slices.Clone(federatesWith), func(other string) bool { return other == name })
		}
		answer.Results = append(answer.Results, &bundlev1.BatchDeleteFederatedBundleResponse_Result{Status: &types.Status{}, TrustDomain: name})
	}
	return answer, nil
}

func (s *spireServer) ListFederationRelationships(context.Context, *trustdomainv1.ListFederationRelationshipsRequest) (*trustdomainv1.ListFederationRelationshipsResponse, error) {
	answer := &trustdomainv1.ListFederationRelationshipsResponse{}
	for _, td := range trusted(s.relationships) {
		r := s.relationships[td]
		f := &types.FederationRelationship{
			TrustDomain: td.Name(), BundleEndpointUrl: r.url,
			BundleEndpointProfile: &types.FederationRelationship_HttpsSpiffe{HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: r.endpointID}},
		}
		if r.profile == topology.HTTPSWeb {
			f.BundleEndpointProfile = &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}}
		}
		answer.FederationRelationships = append(answer.FederationRelationships, f)
	}
	return answer, nil
}

func (s *spireServer) RefreshBundle(_ context.Context, r *trustdomainv1.RefreshBundleRequest) (*emptypb.Empty, error) {
	td := spiffeid.RequireTrustDomainFromString(r.TrustDomain)
	known := s.relationship(td)
	if known == nil {
		return nil, status.Error(codes.NotFound, "no relationship with "+r.TrustDomain)
	}
	if !known.tried {
		known.stalled, known.fetches = true, time.Time{}
	}
	return &emptypb.Empty{}, s.fetch(td)
}

func (s *spireServer) ListAgents(context.Context, *agentv1.ListAgentsRequest) (*agentv1.ListAgentsResponse, error) {
	answer := &agentv1.ListAgentsResponse{}
	for range s.agents {
		answer.Agents = append(answer.Agents, &types.Agent{
			Id: &types.SPIFFEID{TrustDomain: s.td.Name(), Path: spiffeid.RequireFromString(s.agentID()).Path()}, X509SvidExpiresAt: never.Unix(), Banned: s.banned,
			Selectors: []*types.Selector{{Type: "k8s_psat", Value: "cluster:" + s.node.name.cluster}},
		})
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.attested), func(a, b spiffeid.ID) int { return strings.Compare(a.String(), b.String()) }) {
		answer.Agents = append(answer.Agents, &types.Agent{Id: &types.SPIFFEID{TrustDomain: s.td.Name(), Path: id.Path()}, X509SvidExpiresAt: never.Unix()})
	}
	return answer, nil
}

func (s *spireServer) ListEntries(context.Context, *entryv1.ListEntriesRequest) (*entryv1.ListEntriesResponse, error) {
	return &entryv1.ListEntriesResponse{Entries: s.all()}, nil
}

// all returns all entries.
func (s *spireServer) all() (all []*types.Entry) {
	add := func(id, parent string, selectors, federatesWith []string) {
		entry := &types.Entry{
			Id:            id,
			SpiffeId:      &types.SPIFFEID{TrustDomain: s.td.Name(), Path: spiffeid.RequireFromString(id).Path()},
			ParentId:      &types.SPIFFEID{TrustDomain: s.td.Name(), Path: spiffeid.RequireFromString(parent).Path()},
			FederatesWith: federatesWith, Hint: s.origins[id].hint, DnsNames: s.origins[id].dnsNames, X509SvidTtl: int32(s.origins[id].x509TTL / time.Second),
			Downstream: s.downstream[id],
		}
		for _, selector := range selectors {
			kind, value, _ := strings.Cut(selector, ":")
			entry.Selectors = append(entry.Selectors, &types.Selector{Type: kind, Value: value})
		}
		all = append(all, entry)
	}
	for _, text := range s.node.objects {
		if static := decode[staticEntry](text); static.Kind == "ClusterStaticEntry" && static.Status.Rendered {
			add(static.Spec.SPIFFEID, static.Spec.ParentID, static.Spec.Selectors, static.Spec.FederatesWith)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.entries)) {
		add(id, cmp.Or(s.origins[id].parent, s.agentID()), s.selectors[id], s.entries[id])
	}
	for _, id := range slices.Sorted(maps.Keys(s.plain)) {
		all = append(all, s.plain[id])
	}
	return all
}

// staticEntry is a ClusterStaticEntry of which the controller manager makes an entry.
type staticEntry struct {
	Kind     string
	Metadata struct{ Labels map[string]string }
	Spec     struct {
		SPIFFEID, ParentID, Hint, X509SVIDTTL string
		Selectors, FederatesWith, DNSNames    []string
	}
	Status struct{ Rendered, Masked bool }
}

// agentID is that of the agent in the server's own cluster.
func (s *spireServer) agentID() string { return s.agentIn(s.node) }

func asAPI(b *spiffebundle.Bundle) *types.Bundle {
	answer := &types.Bundle{TrustDomain: b.TrustDomain().Name()}
	if hint, there := b.RefreshHint(); there {
		answer.RefreshHint = int64(hint / time.Second)
	}
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
	if b.RefreshHint > 0 {
		bundle.SetRefreshHint(time.Duration(b.RefreshHint) * time.Second)
	}
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
