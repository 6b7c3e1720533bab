package charts_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

const (
	routedHost = "federation.apps.cluster1.com"
	routedPath = "/federation?format=spiffe"
)

// routed is the proxy in front of server, with a route.
func routed(route topology.Route) *topology.Proxy {
	s := server()
	s.Domain.Servers = []*topology.Server{s}
	s.Domain.BundleEndpoint.Host, s.Domain.BundleEndpoint.Route = routedHost, route
	if route == topology.Reencrypt {
		s.Domain.BundleEndpoint.Profile, s.Domain.BundleEndpoint.Path = topology.HTTPSWeb, routedPath
	}
	s.Domain.Proxy = &topology.Proxy{Domain: s.Domain, Address: netip.MustParseAddr("10.192.1.100")}
	return s.Domain.Proxy
}

func proxyValues(p *topology.Proxy) spire.ProxyValues {
	return spire.NewProxyValues(p, spire.ProxyImages{HAProxy: "example.com/haproxy:1", ServingCert: "example.com/serving-cert:1"}, "c0ffee")
}

func ownProxy() *topology.Proxy {
	p := routed(topology.Reencrypt)
	p.Domain.BundleEndpoint.ServingCert.Own = &topology.OwnCertificate{Secret: "spire-server-federation-tls"}
	return p
}

func renderProxy(t *testing.T, values spire.ProxyValues) map[string]string {
	t.Helper()
	manifests, err := render(spire.ProxyChart, topology.ServerNamespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

func TestProxyGolden(t *testing.T) {
	golden(t, "testdata/proxy-passthrough.yaml", renderProxy(t, proxyValues(routed(topology.Passthrough))))
	golden(t, "testdata/proxy-reencrypt.yaml", renderProxy(t, proxyValues(routed(topology.Reencrypt))))
	golden(t, "testdata/proxy-own-certificate.yaml", renderProxy(t, proxyValues(ownProxy())))
}

func TestProxyNamesAreThoseOfThePackage(t *testing.T) {
	for _, p := range []*topology.Proxy{routed(topology.Passthrough), routed(topology.Reencrypt), ownProxy()} {
		values := proxyValues(p)
		all := objects(t, renderProxy(t, values))
		pod := all["Deployment/"+spire.ProxyName].Spec.Template.Spec
		if len(pod.Containers) != 1 || pod.Containers[0].Name != spire.ProxyContainer {
			t.Errorf("containers %+v, want %s", pod.Containers, spire.ProxyContainer)
		}
		for _, kind := range []string{"Service", "ConfigMap"} {
			if _, there := all[kind+"/"+spire.ProxyName]; !there {
				t.Errorf("there is no %s %s", kind, spire.ProxyName)
			}
		}
		text := fmt.Sprint(renderProxy(t, values))
		for secret, want := range map[string]bool{
			`"` + "spire-server-federation-tls" + `"`: values.Certificate.Secret != "",
			"secretName: " + spire.EndpointCASecret:   values.Certificate.Secret != "",
			"secretName: " + spire.WebCASecret:        p.EndsTLS() && values.Certificate.Secret == "",
		} {
			if got := strings.Contains(text, secret); got != want {
				t.Errorf("%s, own certificate %q: %s is there: %t, want %t", values.Route, values.Certificate.Secret, secret, got, want)
			}
		}
	}
}

func TestProxyRefuses(t *testing.T) {
	for name, change := range map[string]func(*spire.ProxyValues){
		"no image":                         func(v *spire.ProxyValues) { v.Images.HAProxy = "" },
		"another route":                    func(v *spire.ProxyValues) { v.Route = "edge" },
		"a name without a dot":             func(v *spire.ProxyValues) { v.Host = "bundle" },
		"a path that ends a line":          func(v *spire.ProxyValues) { v.Path = "/a\nglobal" },
		"a path with a space":              func(v *spire.ProxyValues) { v.Path = "/a b" },
		"no address":                       func(v *spire.ProxyValues) { v.Service.Address = "" },
		"no endpoint":                      func(v *spire.ProxyValues) { v.Endpoint.Address = "" },
		"no program that issues":           func(v *spire.ProxyValues) { v.Images.ServingCert = "" },
		"nothing that starts it again":     func(v *spire.ProxyValues) { v.Certificate.Digest = "" },
		"a port of an endpoint that is no": func(v *spire.ProxyValues) { v.Endpoint.Port = 0 },
	} {
		values := proxyValues(routed(topology.Reencrypt))
		change(&values)
		if _, err := render(spire.ProxyChart, topology.ServerNamespace, values); err == nil {
			t.Errorf("the chart takes %s", name)
		}
	}
}

// front is HAProxy with the configuration of the chart, as a process of this machine.
type front struct {
	// at is where it listens, config what it runs with.
	at, config string
	ca         pki.Authority
}

// newFront configures HAProxy in front of a port of this machine. With a route that ends TLS,
// both it and whoever is behind it have a certificate of ca.
func newFront(t *testing.T, p *topology.Proxy, ca pki.Authority, behind int) front {
	t.Helper()
	dir := t.TempDir()
	for _, folder := range []string{"certificate", "ca"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	certificate, key, err := ca.ServingCert([]string{routedHost}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"certificate/serving.pem": append(certificate, key...), "ca/tls.crt": ca.CertificatePEM()}
	if p.Domain.BundleEndpoint.ServingCert.Own != nil {
		files["certificate/serving.pem"], files["certificate/serving.pem.key"] = certificate, key
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	values := proxyValues(p)
	values.Endpoint = spire.ProxyAddress{Address: "127.0.0.1", Port: behind}
	f := front{at: fmt.Sprintf("127.0.0.1:%d", spiretest.FreePorts(t, 1)[0]), ca: ca}
	f.config = strings.NewReplacer("bind :8443", "bind "+f.at, "/run/", dir+"/").
		Replace(objects(t, renderProxy(t, values))["ConfigMap/"+spire.ProxyName].Data["haproxy.cfg"])
	return f
}

func webAuthority(t *testing.T) pki.Authority {
	t.Helper()
	ca, err := pki.NewRoot("Web CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// A real HAProxy has nothing against the configurations of the chart, and something against one
// that is none.
func TestProxyConfigurationIsHAProxys(t *testing.T) {
	ca := webAuthority(t)
	for name, p := range map[string]*topology.Proxy{"passthrough": routed(topology.Passthrough), "reencrypt": routed(topology.Reencrypt), "own certificate": ownProxy()} {
		f := newFront(t, p, ca, 8443)
		if said, err := spiretest.CheckHAProxy(t, f.config); err != nil || strings.Contains(said, "WARNING") {
			t.Errorf("%s: %v: %s", name, err, said)
		}
		if said, err := spiretest.CheckHAProxy(t, strings.Replace(f.config, "default_backend endpoint", "default_backend nowhere", 1)); err == nil {
			t.Errorf("%s: it takes a backend that is not there: %s", name, said)
		}
	}
}

// TestPassthrough: through the proxy a peer sees the X509-SVID of a real SPIRE server, and who
// asks for another name gets no further.
func TestPassthrough(t *testing.T) {
	p := routed(topology.Passthrough)
	td := p.Domain.Name
	process, api := startServer(t, spiretest.Config{TrustDomain: td})
	f := newFront(t, p, webAuthority(t), process.Port(t))
	spiretest.StartHAProxy(t, f.config, f.at)
	own, err := api.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config := tlsconfig.TLSClientConfig(own, tlsconfig.AuthorizeID(spire.ServerID(td)))
	get := func(host string) error {
		config := config.Clone()
		config.ServerName = host
		body, _, err := ask(t.Context(), f.at, "https://"+host+"/", config)
		if err != nil {
			return err
		}
		_, err = spiffebundle.Parse(td, body)
		return err
	}
	if err := get(routedHost); err != nil {
		t.Error(err)
	}
	if err := get(strings.ToUpper(routedHost)); err != nil {
		t.Errorf("with capital letters: %v", err)
	}
	if err := get("other.apps.cluster1.com"); err == nil {
		t.Error("who asks for another name gets through")
	}
}

// TestReencrypt: the proxy shows a certificate of its own, and answers at the path with its
// query alone, with what a real SPIRE server serves at /. A second server follows it by
// https_web. By https_spiffe it does not, whatever it holds: the X509-SVID that it wants to
// see ends at the proxy.
func TestReencrypt(t *testing.T) {
	for name, p := range map[string]*topology.Proxy{"certificate of the web CA": routed(topology.Reencrypt), "own certificate": ownProxy()} {
		t.Run(name, func(t *testing.T) { reencrypt(t, p) })
	}
}

func reencrypt(t *testing.T, p *topology.Proxy) {
	t.Helper()
	ca, td := webAuthority(t), p.Domain.Name
	certificate, key, err := ca.ServingCert([]string{routedHost}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	serving, roots := filepath.Join(dir, "serving.pem"), filepath.Join(dir, "roots.pem")
	for file, content := range map[string][]byte{serving: append(certificate, key...), roots: ca.CertificatePEM()} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process, api := startServer(t, spiretest.Config{TrustDomain: td, Profile: fmt.Sprintf(
		"profile \"https_web\" {\nserving_cert_file {\ncert_file_path = %[1]q\nkey_file_path = %[1]q\nfile_sync_interval = \"1m\"\n}\n}", serving)})
	f := newFront(t, p, ca, process.Port(t))
	spiretest.StartHAProxy(t, f.config, f.at)
	own, err := api.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	for path, want := range map[string]int{
		routedPath: http.StatusOK, "/": http.StatusNotFound, "/federation": http.StatusNotFound, "/federation?format=other": http.StatusNotFound,
		"/Federation?format=spiffe": http.StatusNotFound, "/federation/?format=spiffe": http.StatusNotFound,
	} {
		body, status, err := ask(t.Context(), f.at, "https://"+routedHost+path, &tls.Config{RootCAs: pool})
		if err != nil || status != want {
			t.Errorf("%s: status %d, error %v, want %d", path, status, err, want)
			continue
		}
		if want != http.StatusOK {
			continue
		}
		if got, err := spiffebundle.Parse(td, body); err != nil || federation.Compare(got, own).State != federation.InSync {
			t.Errorf("%s: error %v, or not what the server has: %s", path, err, body)
		}
	}

	relate := func(profile topology.EndpointProfile, path string) error {
		t.Helper()
		// Each has a server of its own: one that has read a relationship keeps to it for 10 s.
		other := spiffeid.RequireTrustDomainFromString("cluster2.com")
		_, truster := startServer(t, spiretest.Config{TrustDomain: other, Env: []string{"SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=" + dir}})
		r := spire.Relationship{
			RelationshipSpec: topology.RelationshipSpec{Truster: other, Trusted: td, Profile: profile}, URL: "https://" + f.at + path,
		}
		if profile == topology.HTTPSSPIFFE {
			r.EndpointID = spire.ServerID(td)
		}
		if err := truster.CreateRelationship(t.Context(), r, own); err != nil {
			t.Fatal(err)
		}
		var last error
		within(t, "SPIRE has tried", func(ctx context.Context) error {
			last = truster.RefreshBundle(ctx, td)
			if failed := (*spire.FetchError)(nil); last == nil || errors.As(last, &failed) {
				return nil
			}
			return last
		})
		return last
	}
	if err := relate(topology.HTTPSWeb, routedPath); err != nil {
		t.Errorf("by https_web: %v", err)
	}
	if err := relate(topology.HTTPSWeb, "/"); err == nil {
		t.Error("by https_web, at another path: it fetches")
	}
	if err := relate(topology.HTTPSSPIFFE, routedPath); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("by https_spiffe, from a proxy that ends TLS: %v", err)
	}
}

// ask gets a URL from an address, whatever host the URL has.
func ask(ctx context.Context, at, url string, config *tls.Config) (body []byte, status int, err error) {
	transport := &http.Transport{TLSClientConfig: config, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, at)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err = io.ReadAll(response.Body)
	return body, response.StatusCode, err
}

// startServer runs a SPIRE server, and connects to it.
func startServer(t *testing.T, c spiretest.Config) (*spiretest.Server, *spire.Server) {
	t.Helper()
	c.AdminID = spire.AdminID(c.TrustDomain)
	process := spiretest.Start(t, c)
	api, err := spire.Connect(t.Context(), process.Exec, process.Dial, c.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	return process, api
}
