package spire_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// webEndpoint is the file that the certificate of an https_web endpoint is in,
// and the CA that its clients know.
type webEndpoint struct {
	ca   pki.Authority
	file string
}

func newWebEndpoint(t *testing.T) *webEndpoint {
	t.Helper()
	w := &webEndpoint{ca: newAuthority(t, "Web CA"), file: filepath.Join(t.TempDir(), "serving.pem")}
	w.show(t, w.ca, loopback, time.Hour)
	return w
}

func newAuthority(t *testing.T, name string) pki.Authority {
	t.Helper()
	authority, err := pki.NewRoot(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

// show makes the endpoint's certificate one that ca issues for that address, as
// apps/serving-cert does: in one file, replaced at once.
func (w *webEndpoint) show(t *testing.T, ca pki.Authority, name netip.Addr, ttl time.Duration) {
	t.Helper()
	certificate, key, err := ca.ServingCert(nil, []netip.Addr{name}, ttl)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, slices.Concat(certificate, key))
}

func (w *webEndpoint) write(t *testing.T, content []byte) {
	t.Helper()
	if err := os.WriteFile(w.file+".next", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.file+".next", w.file); err != nil {
		t.Fatal(err)
	}
}

// profile is what the server's configuration says.
func (w *webEndpoint) profile() string {
	return fmt.Sprintf("profile \"https_web\" {\nserving_cert_file {\ncert_file_path = %[1]q\nkey_file_path = %[1]q\nfile_sync_interval = \"50ms\"\n}\n}", w.file)
}

// roots is what a truster's environment says, so that it knows the CA and no
// other.
func (w *webEndpoint) roots(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(path, w.ca.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"SSL_CERT_FILE=" + path, "SSL_CERT_DIR=" + dir}
}

// served waits until a server shows the certificate that its file holds.
func (w *webEndpoint) served(t *testing.T, process *spiretest.Server) {
	t.Helper()
	want, err := tls.LoadX509KeyPair(w.file, w.file)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		if shown := shown(ctx, t, process); !slices.Equal(shown.SerialNumber.Bytes(), want.Leaf.SerialNumber.Bytes()) {
			return fmt.Errorf("endpoint shows certificate %x, want %x", shown.SerialNumber, want.Leaf.SerialNumber)
		}
		return nil
	})
}

// startWith is start with more said about the server.
func startWith(t *testing.T, c spiretest.Config) (*spiretest.Server, *spire.Server) {
	t.Helper()
	c.AdminID = spire.AdminID(c.TrustDomain)
	process := spiretest.Start(t, c)
	return process, connect(t, process, process.Dial)
}

func mustBundle(t *testing.T, server *spire.Server) *spiffebundle.Bundle {
	t.Helper()
	bundle, err := server.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// inSync waits until truster holds that bundle.
func inSync(t *testing.T, truster *spire.Server, source *spiffebundle.Bundle) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		held, err := truster.HeldBundle(ctx, source.TrustDomain())
		if err != nil {
			return err
		}
		if c := federation.Compare(held, source); c.State != federation.InSync {
			return errors.New(c.String())
		}
		return nil
	})
}

// withoutJWT is what a relationship is begun with: a fetch adds the rest.
func withoutJWT(bundle *spiffebundle.Bundle) *spiffebundle.Bundle {
	return spiffebundle.FromX509Authorities(bundle.TrustDomain(), bundle.X509Authorities())
}

func TestWebEndpoint(t *testing.T) {
	web := newWebEndpoint(t)
	marketProcess, marketServer := startWith(t, spiretest.Config{TrustDomain: market, Profile: web.profile()})
	brokerProcess, brokerServer := startWith(t, spiretest.Config{TrustDomain: broker, Env: web.roots(t)})
	source := mustBundle(t, marketServer)

	federate(t, brokerProcess, marketProcess, source, spiffeid.ID{})
	relationships, err := brokerServer.Relationships(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []spire.Relationship{{
		RelationshipSpec: topology.RelationshipSpec{Truster: broker, Trusted: market, Profile: topology.HTTPSWeb},
		URL:              marketProcess.BundleEndpoint,
	}}
	if !reflect.DeepEqual(relationships, want) {
		t.Errorf("relationships = %+v, want %+v", relationships, want)
	}
	inSync(t, brokerServer, source)

	// A bundle that verifies nothing of the trust domain's is repaired by a fetch,
	// where https_spiffe needs it to fetch at all.
	if err := brokerServer.SetBundle(t.Context(), relabelled(mustBundle(t, brokerServer), market)); err != nil {
		t.Fatal(err)
	}
	if err := brokerServer.RefreshBundle(t.Context(), market); err != nil {
		t.Fatal(err)
	}
	inSync(t, brokerServer, source)

	// The next certificate is picked up from the file while the server runs.
	web.show(t, web.ca, loopback, 30*time.Minute)
	web.served(t, marketProcess)
	if err := brokerServer.RefreshBundle(t.Context(), market); err != nil {
		t.Errorf("refresh from an endpoint with a new certificate: %v", err)
	}

	// One that is no pair, such as the half of a write, is not.
	before := shown(t.Context(), t, marketProcess)
	certificate, _, err := web.ca.ServingCert(nil, []netip.Addr{loopback}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := web.ca.ServingCert(nil, []netip.Addr{loopback}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	web.write(t, slices.Concat(certificate, key))
	logged(t, marketProcess, "Failed to load certificate: tls: private key does not match public key")
	if after := shown(t.Context(), t, marketProcess); !after.Equal(before) {
		t.Error("endpoint shows a certificate whose key it does not have")
	}
	web.show(t, web.ca, loopback, time.Hour)
	web.served(t, marketProcess)
}

// logged waits until a server has logged a line with that text.
func logged(t *testing.T, process *spiretest.Server, text string) {
	t.Helper()
	eventually(t, func(context.Context) error {
		if !strings.Contains(process.Log(), text) {
			return fmt.Errorf("the log has no %q", text)
		}
		return nil
	})
}

// shown returns the certificate that a server's bundle endpoint shows.
func shown(ctx context.Context, t *testing.T, process *spiretest.Server) *x509.Certificate {
	t.Helper()
	return shownChain(ctx, t, process)[0]
}

// shownChain returns it with those that come after it.
func shownChain(ctx context.Context, t *testing.T, process *spiretest.Server) []*x509.Certificate {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(process.BundleEndpoint, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	return chain
}

// relate makes the relationship of truster with td, which exists, another: the
// endpoint is at url and must show endpointID; with none the profile is
// https_web.
func relate(t *testing.T, truster *spiretest.Server, td spiffeid.TrustDomain, url, endpointID string) {
	t.Helper()
	command := []string{"federation", "update", "-trustDomain", td.Name(), "-bundleEndpointURL", url, "-bundleEndpointProfile"}
	if endpointID == "" {
		truster.Run(t, append(command, "https_web")...)
		return
	}
	truster.Run(t, append(command, "https_spiffe", "-endpointSpiffeID", endpointID)...)
}

// closing is an endpoint that answers nobody.
func closing(t *testing.T) (url string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	})
	return "https://" + listener.Addr().String()
}

// SPIRE tells what is wrong with a relationship in the text of an error and in
// nothing else. These are the texts of SPIRE 1.15.3: who reads them finds out
// here when another version has others.
func TestFaults(t *testing.T) {
	web := newWebEndpoint(t)
	other, namesake := newAuthority(t, "Other CA"), newAuthority(t, "Web CA")
	spiffeProcess, spiffeServer := start(t, market)
	webProcess, webServer := startWith(t, spiretest.Config{TrustDomain: absent, Profile: web.profile()})
	trusterProcess, truster := startWith(t, spiretest.Config{TrustDomain: broker, Env: web.roots(t)})
	source := mustBundle(t, spiffeServer)

	repair := func(t *testing.T) {
		t.Helper()
		web.show(t, web.ca, loopback, time.Hour)
		web.served(t, webProcess)
		if err := truster.SetBundle(t.Context(), withoutJWT(source)); err != nil {
			t.Fatal(err)
		}
		relate(t, trusterProcess, market, spiffeProcess.BundleEndpoint, "spiffe://cluster1.com/spire/server")
		relate(t, trusterProcess, absent, webProcess.BundleEndpoint, "")
		for _, td := range []spiffeid.TrustDomain{market, absent} {
			if err := truster.RefreshBundle(t.Context(), td); err != nil {
				t.Fatalf("without a fault: %v", err)
			}
		}
	}
	federate(t, trusterProcess, spiffeProcess, source, spire.ServerID(market))
	inSync(t, truster, source)
	federate(t, trusterProcess, webProcess, mustBundle(t, webServer), spiffeid.ID{})
	inSync(t, truster, mustBundle(t, webServer))

	show := func(ca pki.Authority, name string, ttl time.Duration) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			web.show(t, ca, netip.MustParseAddr(name), ttl)
			web.served(t, webProcess)
		}
	}
	to := func(td spiffeid.TrustDomain, url, endpointID string) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			relate(t, trusterProcess, td, url, endpointID)
		}
	}
	const (
		failed  = "failed to refresh bundle: "
		fetch   = failed + "failed to fetch federated bundle from endpoint: "
		get     = fetch + `failed to fetch bundle: Get "URL": `
		verify  = "tls: failed to verify certificate: x509: "
		unknown = "certificate signed by unknown authority"
	)
	for _, fault := range []struct {
		name string
		of   spiffeid.TrustDomain
		made func(*testing.T)
		want string // a regular expression, except URL
	}{
		{"endpoint unreachable", market, to(market, "https://127.0.0.1:1", "spiffe://cluster1.com/spire/server"),
			get + `dial tcp 127.0.0.1:1: connect: connection refused`},
		{"endpoint that answers nobody", market, to(market, closing(t), "spiffe://cluster1.com/spire/server"),
			get + `(EOF|read tcp .*: connection reset by peer)`},
		{"path that is none", market, to(market, spiffeProcess.BundleEndpoint+"/bundle", "spiffe://cluster1.com/spire/server"),
			fetch + "unexpected status 404 fetching bundle: 404 page not found\n"},
		{"https_web of an https_spiffe endpoint", market, to(market, spiffeProcess.BundleEndpoint, ""),
			fetch + `failed to authenticate bundle endpoint using web authentication but the server certificate contains SPIFFE ID ` +
				`"spiffe://cluster1.com/spire/server": maybe use https_spiffe instead of https_web: Get "URL": ` +
				verify + `cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs`},
		{"https_spiffe of an https_web endpoint", absent, to(absent, webProcess.BundleEndpoint, "spiffe://absent.com/spire/server"),
			get + `x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN`},
		{"wrong path of endpointSPIFFEID", market, to(market, spiffeProcess.BundleEndpoint, "spiffe://cluster1.com/spire/other"),
			get + `unexpected ID "spiffe://cluster1.com/spire/server"`},
		{"wrong trust domain of endpointSPIFFEID", market, to(market, spiffeProcess.BundleEndpoint, "spiffe://absent.com/spire/server"),
			get + `x509svid: could not get X509 bundle: x509bundle: no X.509 bundle found for trust domain: "cluster1.com"`},
		{"unheld trust domain of endpointSPIFFEID", market, to(market, spiffeProcess.BundleEndpoint, "spiffe://nowhere.com/spire/server"),
			failed + `can't perform SPIFFE Authentication: local copy of bundle not found`},
		{"missing bundle", market, func(t *testing.T) {
			t.Helper()
			if err := truster.DeleteBundle(t.Context(), market, spire.DeleteRestrict); err != nil {
				t.Fatal(err)
			}
		}, failed + `can't perform SPIFFE Authentication: local copy of bundle not found`},
		{"bundle that does not verify the endpoint", market, func(t *testing.T) {
			t.Helper()
			if err := truster.SetBundle(t.Context(), relabelled(mustBundle(t, truster), market)); err != nil {
				t.Fatal(err)
			}
		}, get + `x509svid: could not verify leaf certificate: x509: ` + unknown},
		{"unknown root", absent, show(other, "127.0.0.1", time.Hour),
			get + verify + unknown},
		{"unknown root with the name of a known one", absent, show(namesake, "127.0.0.1", time.Hour),
			get + verify + unknown + ` \(possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "Web CA"\)`},
		{"expired certificate", absent, show(web.ca, "127.0.0.1", -time.Hour),
			get + verify + `certificate has expired or is not yet valid: current time \S+ is after \S+`},
		{"misnamed certificate", absent, show(web.ca, "127.0.0.2", time.Hour),
			get + verify + `certificate is valid for 127.0.0.2, not 127.0.0.1`},
		{"misnamed certificate of an unknown root", absent, show(other, "127.0.0.2", time.Hour),
			get + verify + `certificate is valid for 127.0.0.2, not 127.0.0.1`},
		{"expired and misnamed certificate", absent, show(web.ca, "127.0.0.2", -time.Hour),
			get + verify + `certificate has expired or is not yet valid: current time \S+ is after \S+`},
	} {
		t.Run(fault.name, func(t *testing.T) {
			repair(t)
			fault.made(t)
			err := truster.RefreshBundle(t.Context(), fault.of)
			if failed := (*spire.FetchError)(nil); !errors.As(err, &failed) {
				t.Fatalf("error = %v, want a FetchError", err)
			}
			said := endpointURL.ReplaceAllString(err.Error(), `Get "URL"`)
			want := "refresh held bundle of " + fault.of.Name() + " on SPIRE server of cluster2.com: rpc error: code = Internal desc = " + fault.want
			if !regexp.MustCompile(`^` + strings.ReplaceAll(want, ".com", `\.com`) + `$`).MatchString(said) {
				t.Errorf("error = %s, want %s", said, want)
			}
		})
	}
	repair(t)
}

var endpointURL = regexp.MustCompile(`Get "https://[^"]*"`)

// Without its root in the place of the public ones, nobody trusts a private CA.
func TestWebEndpointWithoutItsRoot(t *testing.T) {
	web := newWebEndpoint(t)
	marketProcess, marketServer := startWith(t, spiretest.Config{TrustDomain: market, Profile: web.profile()})
	brokerProcess, brokerServer := start(t, broker)
	federate(t, brokerProcess, marketProcess, mustBundle(t, marketServer), spiffeid.ID{})
	logged(t, brokerProcess, `level=error msg="Error updating bundle" error="failed to fetch federated bundle from endpoint: `+
		`failed to fetch bundle: Get \"`+marketProcess.BundleEndpoint+`\": tls: failed to verify certificate: x509: certificate signed by unknown authority"`)
	wantRefused(t, brokerServer.RefreshBundle(t.Context(), market), "certificate signed by unknown authority")
}

// federatesWith is what charts/spire renders of static relationships.
func federatesWith(values ...spire.FederatesWithValues) string {
	var config strings.Builder
	for _, v := range values {
		id := ""
		if v.EndpointSPIFFEID != "" {
			id = fmt.Sprintf("endpoint_spiffe_id = %q", v.EndpointSPIFFEID)
		}
		fmt.Fprintf(&config, "federates_with %q {\nbundle_endpoint_url = %q\nbundle_endpoint_profile %q { %s }\n}\n", v.TrustDomain, v.URL, v.Profile, id)
	}
	return config.String()
}

func TestStaticRelationships(t *testing.T) {
	web := newWebEndpoint(t)
	spiffeProcess, spiffeServer := start(t, market)
	webProcess, webServer := startWith(t, spiretest.Config{TrustDomain: absent, Profile: web.profile()})
	static := func(process *spiretest.Server, profile topology.EndpointProfile) spire.FederatesWithValues {
		values := spire.StaticRelationship(trust(broker, process.TrustDomain, profile).Trust)
		values.URL = process.BundleEndpoint
		return values
	}
	trusterProcess, truster := startWith(t, spiretest.Config{
		TrustDomain:   broker,
		Env:           web.roots(t),
		FederatesWith: federatesWith(static(spiffeProcess, topology.HTTPSSPIFFE), static(webProcess, topology.HTTPSWeb)),
	})

	// With https_web the server needs nothing of anybody.
	inSync(t, truster, mustBundle(t, webServer))

	// With https_spiffe it needs a first bundle. It would try again a minute
	// after it began; a refresh is sooner.
	logged(t, trusterProcess, `level=error msg="Error updating bundle" error="can't perform SPIFFE Authentication: local copy of bundle not found" subsystem_name=bundle_client trust_domain=cluster1.com`)
	wantRefused(t, truster.RefreshBundle(t.Context(), market), "local copy of bundle not found")
	wantNotHeld(t, truster, market)
	source := mustBundle(t, spiffeServer)
	if err := truster.SetBundle(t.Context(), withoutJWT(source)); err != nil {
		t.Fatal(err)
	}
	if err := truster.RefreshBundle(t.Context(), market); err != nil {
		t.Fatal(err)
	}
	inSync(t, truster, source)

	if relationships, err := truster.Relationships(t.Context()); err != nil || len(relationships) != 0 {
		t.Errorf("relationships = %+v, %v; want none: SPIRE lists those of its configuration nowhere", relationships, err)
	}
}

// A bundle that is set by hand is one that an entry may federate with, and that
// nobody refreshes.
func TestBundleByHand(t *testing.T) {
	process, server := start(t, broker)
	_, marketServer := start(t, market)
	source := mustBundle(t, marketServer)
	federating := []string{
		"entry", "create", "-spiffeID", "spiffe://cluster2.com/client", "-parentID", "spiffe://cluster2.com/agent",
		"-selector", "unix:uid:1000", "-federatesWith", "cluster1.com",
	}
	if _, err := process.Exec(t.Context(), federating...); err == nil || !strings.Contains(err.Error(), `unable to find federated bundle \"spiffe://cluster1.com\"`) {
		t.Errorf("entry that federates with whom nobody holds a bundle of: %v", err)
	}
	if err := server.SetBundle(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	inSync(t, server, source)
	process.Run(t, federating...)
	wantNotFound(t, server.RefreshBundle(t.Context(), market), "refresh held bundle of cluster1.com on SPIRE server of cluster2.com: ")
	if relationships, err := server.Relationships(t.Context()); err != nil || len(relationships) != 0 {
		t.Errorf("relationships = %+v, %v; want none", relationships, err)
	}

	// That is how the trust ends, too: with the entry left alone.
	if err := server.DeleteBundle(t.Context(), market, spire.DeleteDissociate); err != nil {
		t.Fatal(err)
	}
	entries, err := server.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || len(entries[0].FederatesWith) != 0 {
		t.Errorf("entries = %+v, want the one, without the trust domain", entries)
	}
}

// upstream returns an authority, one below it, and the plugin by which a server
// is below that.
func upstream(t *testing.T) (root, below pki.Authority, plugin string) {
	t.Helper()
	root = newAuthority(t, "Company Root")
	below, err := root.Intermediate("Company Intermediate", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, err := below.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		spire.SecretCertificate: below.CertificatePEM(), spire.SecretKey: key, spire.SecretBundle: root.CertificatePEM(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root, below, fmt.Sprintf(
		"UpstreamAuthority \"disk\" {\nplugin_data {\ncert_file_path = %q\nkey_file_path = %q\nbundle_file_path = %q\n}\n}\n",
		filepath.Join(dir, spire.SecretCertificate), filepath.Join(dir, spire.SecretKey), filepath.Join(dir, spire.SecretBundle))
}

func TestUpstreamAuthority(t *testing.T) {
	root, below, plugin := upstream(t)
	marketProcess, marketServer := startWith(t, spiretest.Config{TrustDomain: market, Plugins: plugin})
	brokerProcess, brokerServer := start(t, broker)

	source := mustBundle(t, marketServer)
	if authorities := source.X509Authorities(); len(authorities) != 1 || !authorities[0].Equal(root.Certificate) {
		t.Errorf("bundle has %d X.509 authorities, want the root and nothing else", len(authorities))
	}
	federate(t, brokerProcess, marketProcess, source, spire.ServerID(market))
	inSync(t, brokerServer, source)
	chain := shownChain(t.Context(), t, marketProcess)
	if len(chain) != 3 || !chain[2].Equal(below.Certificate) {
		t.Errorf("endpoint shows %d certificates, want the server's, its authority's and the intermediate", len(chain))
	}
}
