package charts_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// discovery is a provider in the place of server, with an issuer that has all parts.
func discovery() *topology.Discovery {
	s := server()
	s.Domain.Servers = []*topology.Server{s}
	s.Domain.OIDCDiscovery.PollInterval = time.Second
	return &topology.Discovery{
		Domain: s.Domain, Issuer: "https://oidc.cluster1.com:9443/tenants/one/", Host: "oidc.cluster1.com", Path: "/tenants/one", Port: 9443,
		Address: netip.MustParseAddr("10.192.1.100"), Member: s.Members[0],
	}
}

func discoveryValues() spire.DiscoveryValues {
	return spire.NewDiscoveryValues(discovery(), spire.DiscoveryImages{Provider: "example.com/oidc-discovery-provider:1.15.3", ServingCert: "example.com/serving-cert:1"})
}

func renderDiscovery(t *testing.T, values spire.DiscoveryValues) map[string]string {
	t.Helper()
	manifests, err := render(spire.DiscoveryChart, topology.ServerNamespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

func TestDiscoveryGolden(t *testing.T) {
	golden(t, "testdata/oidc-discovery-provider.yaml", renderDiscovery(t, discoveryValues()))
}

func TestDiscoveryNamesAreThoseOfThePackage(t *testing.T) {
	all := objects(t, renderDiscovery(t, discoveryValues()))
	pods := all["Deployment/"+spire.DiscoveryName].Spec.Template
	if len(pods.Spec.Containers) != 1 || pods.Spec.Containers[0].Name != spire.DiscoveryContainer || pods.Spec.Containers[0].Ports[0].ContainerPort != spire.DiscoveryPort {
		t.Errorf("containers %+v, want %s with port %d", pods.Spec.Containers, spire.DiscoveryContainer, spire.DiscoveryPort)
	}
	for _, kind := range []string{"Service", "ServiceAccount", "ConfigMap"} {
		if _, there := all[kind+"/"+spire.DiscoveryName]; !there {
			t.Errorf("there is no %s %s among %v", kind, spire.DiscoveryName, slices.Sorted(maps.Keys(all)))
		}
	}
	// The provider is known by its service account.
	if selectors := fmt.Sprint(spire.DiscoveryEntries(discovery())[1].Spec); pods.Spec.ServiceAccountName != spire.DiscoveryName || !strings.Contains(selectors, "k8s:sa:"+spire.DiscoveryName) {
		t.Errorf("pods run as %s, and the entry is %s", pods.Spec.ServiceAccountName, selectors)
	}
	// The key of the CA is in no container but that of the keeper.
	if volumes := pods.Spec.Volumes; !slices.ContainsFunc(volumes, func(v struct {
		Name   string
		Secret struct {
			SecretName string `yaml:"secretName"`
		}
		ConfigMap struct{ Name string } `yaml:"configMap"`
	}) bool {
		return v.Name == "web-ca" && v.Secret.SecretName == spire.WebCASecret
	}) {
		t.Errorf("no volume web-ca is of the Secret %s: %+v", spire.WebCASecret, volumes)
	}
	provider, keeper := pods.Spec.Containers[0], pods.Spec.InitContainers[0]
	if provider.mounts("web-ca") || !keeper.mounts("web-ca") || !provider.mounts("serving-cert") || !keeper.mounts("serving-cert") {
		t.Error("web-ca is mounted into the provider, or not into the keeper, or one of them has not what the keeper writes")
	}
}

// TestDiscoveryRestartsWithItsConfiguration: the provider reads it once.
func TestDiscoveryRestartsWithItsConfiguration(t *testing.T) {
	template := func(values spire.DiscoveryValues) string {
		return fmt.Sprint(objects(t, renderDiscovery(t, values))["Deployment/"+spire.DiscoveryName].Spec.Template)
	}
	other, moved := discoveryValues(), discoveryValues()
	other.Issuer, moved.Service.Address = "https://oidc.cluster1.com:9443/tenants/two/", "10.192.1.99"
	if template(other) == template(discoveryValues()) || template(moved) != template(discoveryValues()) {
		t.Error("another issuer leaves the pods as they are, or another address does not")
	}
}

func TestDiscoveryRefusesValues(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*spire.DiscoveryValues)
		want  string
	}{
		"an issuer in plain HTTP":       {func(v *spire.DiscoveryValues) { v.Issuer = "http://oidc.cluster1.com" }, "issuer"},
		"a host that is an IP address":  {func(v *spire.DiscoveryValues) { v.Host = "2001:db8::1" }, "host"},
		"a host in capitals":            {func(v *spire.DiscoveryValues) { v.Host = "OIDC.cluster1.com" }, "host"},
		"a path that ends with a slash": {func(v *spire.DiscoveryValues) { v.Path = "/tenants/" }, "path"},
		"no interval":                   {func(v *spire.DiscoveryValues) { v.PollInterval = "" }, "pollInterval"},
		"no image":                      {func(v *spire.DiscoveryValues) { v.Images.Provider = "" }, "provider"},
		"port 0":                        {func(v *spire.DiscoveryValues) { v.Service.Port = 0 }, "port"},
		"a relative folder":             {func(v *spire.DiscoveryValues) { v.SPIFFE.SocketDir = "run/spire" }, "socketDir"},
	} {
		t.Run(name, func(t *testing.T) {
			values := discoveryValues()
			tt.spoil(&values)
			_, err := render(spire.DiscoveryChart, topology.ServerNamespace, values)
			if err == nil || !strings.Contains(err.Error(), "values don't meet the specifications of the schema") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one of the schema's about %s", err, tt.want)
			}
		})
	}
}

// TestOIDCAlone has SPIRE's server, agent and OIDC discovery provider as processes of this
// machine, the provider with the configuration of the chart, and a client that knows OIDC
// and nothing of SPIFFE: it verifies a JWT-SVID, also after a rotation, and refuses others.
func TestOIDCAlone(t *testing.T) {
	for _, variable := range []string{spiretest.ServerVariable, spiretest.AgentVariable, spiretest.DiscoveryVariable} {
		spiretest.Program(t, variable)
	}
	d := discovery()
	td := d.Domain.Name
	server := spiretest.Start(t, spiretest.Config{TrustDomain: td, AdminID: spire.AdminID(td), Server: "jwt_issuer = " + strconv.Quote(d.Issuer)})
	socket := server.StartAgent(t)
	api, err := spire.Connect(t.Context(), server.Exec, server.Dial, td)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	agents, err := api.Agents(t.Context())
	if err != nil || len(agents) != 1 {
		t.Fatalf("%d agents, %v", len(agents), err)
	}
	// This process and the provider are of one user, and so have one entry each.
	caller := spiffeid.RequireFromPath(td, "/caller")
	for _, id := range []spiffeid.ID{spire.DiscoveryID(td), caller} {
		entry := spire.Entry{SPIFFEID: id, ParentID: agents[0].ID, Selectors: []string{fmt.Sprintf("unix:uid:%d", os.Getuid())}}
		if _, err := api.CreateEntry(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}

	root, err := pki.NewRoot("Web CA of "+td.Name(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := root.ServingCert([]string{d.Host}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	serving := filepath.Join(t.TempDir(), "serving.pem")
	if err := os.WriteFile(serving, slices.Concat(certificate, key), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := spiretest.FreePorts(t, 2)
	values := discoveryValues()
	values.SPIFFE.SocketDir = "/SOCKETS"
	config := strings.NewReplacer(
		"/run/spire/serving-cert/serving.pem", serving, "/SOCKETS/spire-agent.sock", strings.TrimPrefix(socket, "unix://"),
		":8443", fmt.Sprintf("127.0.0.1:%d", ports[0]), "bind_port = 8008", fmt.Sprintf("bind_port = %d", ports[1]),
	).Replace(objects(t, renderDiscovery(t, values))["ConfigMap/"+spire.DiscoveryName].Data["provider.conf"])
	spiretest.Launch(t, spiretest.DiscoveryVariable, config).Await(t, func(ctx context.Context) error {
		return answers(ctx, fmt.Sprintf("http://127.0.0.1:%d/ready", ports[1]))
	})

	pool := x509.NewCertPool()
	pool.AddCert(root.Certificate)
	client := onlyOIDC(pool, fmt.Sprintf("127.0.0.1:%d", ports[0]))
	const audience = "https://api.example.com"
	token := func() string {
		svid, err := workloadapi.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience, Subject: caller}, workloadapi.WithAddr(socket))
		if err != nil {
			t.Fatal(err)
		}
		return svid.Marshal()
	}
	verifies := func(token, audience string) error {
		ctx := oidc.ClientContext(t.Context(), client)
		provider, err := oidc.NewProvider(ctx, d.Issuer)
		if err != nil {
			return err
		}
		verified, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{oidc.ES256}}).Verify(ctx, token)
		if err == nil && verified.Subject != caller.String() {
			err = fmt.Errorf("the subject is %s", verified.Subject)
		}
		return err
	}
	first := token()
	if err := verifies(first, audience); err != nil {
		t.Fatal(err)
	}
	if err := verifies(first, "https://other.example.com"); err == nil || !strings.Contains(err.Error(), "audience") {
		t.Errorf("for another audience: %v", err)
	}
	forged := first[:strings.LastIndex(first, ".")+1] + strings.Repeat("A", 86)
	if err := verifies(forged, audience); err == nil {
		t.Error("a token with another signature verifies")
	}
	if _, err := oidc.NewProvider(oidc.ClientContext(t.Context(), client), strings.TrimSuffix(d.Issuer, "/")); err == nil {
		t.Error("an issuer that is not the same to the letter is taken")
	}
	if _, err := oidc.NewProvider(oidc.ClientContext(t.Context(), onlyOIDC(x509.NewCertPool(), fmt.Sprintf("127.0.0.1:%d", ports[0]))), d.Issuer); err == nil {
		t.Error("a CA that nobody knows is taken")
	}

	// The next authority is among the keys before it signs; the first one is revoked.
	next, err := api.PrepareJWTAuthority(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := func(want ...string) {
		t.Helper()
		within(t, "the keys are those of the server", func(ctx context.Context) error {
			var keys struct{ Keys []struct{ Kid string } }
			if err := document(ctx, client, d.Keys(), &keys); err != nil {
				return err
			}
			var is []string
			for _, k := range keys.Keys {
				is = append(is, k.Kid)
			}
			if slices.Sort(is); !slices.Equal(is, slices.Sorted(slices.Values(want))) {
				return fmt.Errorf("the keys are %q, want %q", is, want)
			}
			return nil
		})
	}
	bundle, err := api.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served(slices.Collect(maps.Keys(bundle.JWTAuthorities()))...)
	if _, err := api.ActivateJWTAuthority(t.Context(), next.ID); err != nil {
		t.Fatal(err)
	}
	old := slices.DeleteFunc(slices.Collect(maps.Keys(bundle.JWTAuthorities())), func(id string) bool { return id == next.ID })
	if len(old) != 1 {
		t.Fatalf("%q sign besides %s", old, next.ID)
	}
	if err := api.TaintJWTAuthority(t.Context(), old[0]); err != nil {
		t.Fatal(err)
	}
	// An agent that learns of the taint drops what it keeps. One that does not, because
	// the authority is revoked before it looks, hands out tokens of it until half of their
	// life is over.
	within(t, "the agent hands out a token of the next authority", func(context.Context) error {
		if token() == first {
			return errors.New("it hands out the first one")
		}
		return nil
	})
	if err := errors.Join(verifies(first, audience), verifies(token(), audience)); err != nil {
		t.Errorf("before the first authority is revoked: %v", err)
	}
	if err := api.RevokeJWTAuthority(t.Context(), old[0]); err != nil {
		t.Fatal(err)
	}
	served(next.ID)
	if err := verifies(first, audience); err == nil {
		t.Error("a token of a revoked authority verifies")
	}
	if err := verifies(token(), audience); err != nil {
		t.Error(err)
	}
}

func within(t *testing.T, name string, probe func(context.Context) error) {
	t.Helper()
	if err := check.Until(t.Context(), check.Bound{Within: time.Minute, Every: 200 * time.Millisecond}, check.Check{Name: name, Probe: probe}); err != nil {
		t.Fatal(err)
	}
}

// onlyOIDC is a client that finds each name at one address, and takes what these roots verify.
func onlyOIDC(roots *x509.CertPool, at string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, at)
		},
	}}
}

func answers(ctx context.Context, url string) error {
	return document(ctx, http.DefaultClient, url, nil)
}

// document gets a document, as JSON unless into is nil.
func document(ctx context.Context, client *http.Client, url string, into any) (err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	if into == nil {
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	return json.NewDecoder(response.Body).Decode(into)
}
