package charts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"

	"github.com/fedlab-dev/fedlab/charts"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// render returns the manifests of an embedded chart by the names of their
// templates.
func render(name, namespace string, values any) (map[string]string, error) {
	var files []*loader.BufferedFile
	err := fs.WalkDir(charts.FS, name, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := charts.FS.ReadFile(path)
		files = append(files, &loader.BufferedFile{Name: strings.TrimPrefix(path, name+"/"), Data: content})
		return err
	})
	if err != nil {
		return nil, err
	}
	loaded, err := loader.LoadFiles(files)
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	var plain map[string]any
	if err := json.Unmarshal(encoded, &plain); err != nil {
		return nil, err
	}
	release := chartutil.ReleaseOptions{Name: name, Namespace: namespace, Revision: 1, IsInstall: true}
	toRender, err := chartutil.ToRenderValues(loaded, plain, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(loaded, toRender)
	if err != nil {
		return nil, err
	}
	manifests := map[string]string{}
	for path, manifest := range rendered {
		if strings.HasSuffix(path, ".yaml") {
			manifests[filepath.Base(path)] = manifest
		}
	}
	return manifests, nil
}

func mustRender(t *testing.T, values spire.Values) map[string]string {
	t.Helper()
	manifests, err := render("spire", topology.ServerNamespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

// server is that of a trust domain with everything that a lab file may ask for in the
// plainest of labs.
func server() *topology.Server {
	s := &topology.Server{
		Place:   topology.Place{Cluster: &topology.Cluster{ClusterSpec: topology.ClusterSpec{Name: "market"}}},
		Address: netip.MustParseAddr("10.192.1.1"),
		Domain: &topology.Domain{Name: spiffeid.RequireTrustDomainFromString("cluster1.com"), Settings: topology.Settings{
			BundleEndpoint: topology.BundleEndpoint{
				Profile:     topology.HTTPSSPIFFE,
				Port:        8443,
				RefreshHint: time.Minute,
			},
			CATTL:             24 * time.Hour,
			X509SVIDTTL:       time.Hour,
			JWTSVIDTTL:        5 * time.Minute,
			CASubject:         topology.CASubject{Country: "US", Organization: "Company Corp", CommonName: "SPIRE Server CA - Market"},
			JWTIssuer:         "https://oidc.cluster1.com",
			LogLevel:          "info",
			Datastore:         topology.SQLite,
			UpstreamAuthority: topology.SelfSigned,
		}},
	}
	s.Members = []*topology.Member{{Domain: s.Domain, Server: s, Place: s.Place}}
	return s
}

// values returns those of server, once change has been made to what they
// are made of.
func values(change func(*spire.Settings)) spire.Values {
	settings := spire.Settings{
		Server: server(),
		Images: spire.Images{
			Server:            "example.com/spire-server:1.15.3",
			Agent:             "example.com/spire-agent:1.15.3",
			ControllerManager: "example.com/spire-controller-manager:0.7.0",
			ServingCert:       "example.com/serving-cert:1",
			Postgres:          "example.com/postgres:15",
		},
	}
	change(&settings)
	return spire.NewValues(settings)
}

func market() spire.Values { return values(func(*spire.Settings) {}) }

// plain is a trust domain that leaves out what may be left out.
func plain() spire.Values {
	values := market()
	values.Server.CASubject = spire.CASubjectValues{}
	values.Server.JWTIssuer = ""
	return values
}

// web is a trust domain with an https_web endpoint.
func web() spire.Values {
	return values(func(s *spire.Settings) {
		s.Server.Domain.BundleEndpoint.Profile = topology.HTTPSWeb
		s.Server.Domain.BundleEndpoint.ServingCert = topology.ServingCert{TTL: time.Hour, FileSyncInterval: 30 * time.Second}
	})
}

// peers is a trust domain that has others in its configuration, one of each
// profile, and the web CA of one of them.
func peers() spire.Values {
	return values(func(s *spire.Settings) {
		for i, profile := range []topology.EndpointProfile{topology.HTTPSSPIFFE, topology.HTTPSWeb} {
			trusted := &topology.Domain{
				Name:     spiffeid.RequireTrustDomainFromString(fmt.Sprintf("cluster%d.com", i+2)),
				Settings: topology.Settings{BundleEndpoint: topology.BundleEndpoint{Profile: profile, Port: 8443}},
			}
			trusted.Servers = []*topology.Server{{Domain: trusted, Address: netip.AddrFrom4([4]byte{10, 192, byte(i + 2), 1})}}
			s.Static = append(s.Static, spire.StaticRelationship(&topology.Trust{
				Truster: s.Server.Domain, Trusted: trusted, RelationshipSpec: topology.RelationshipSpec{Profile: profile, Mode: topology.Static},
			}))
		}
		s.WebRoots = []string{webRoot}
	})
}

// company is a trust domain as an enterprise runs it.
func company() spire.Values {
	return values(func(s *spire.Settings) {
		s.Server.Domain.Datastore = topology.Postgres
		s.Server.Domain.UpstreamAuthority = topology.Disk
	})
}

// keyed is a trust domain whose authorities have keys of other types than SPIRE's own,
// X.509 and JWT authorities different ones.
func keyed() spire.Values {
	return values(func(s *spire.Settings) {
		s.Server.Domain.CAKeyType, s.Server.Domain.JWTKeyType = topology.RSA2048, topology.ECP384
	})
}

// related is a trust domain whose relationships are made by SPIRE's API.
func related() spire.Values {
	return values(func(s *spire.Settings) {
		s.Server.Domain.Trusts = []*topology.Trust{{Truster: s.Server.Domain, Trusted: s.Server.Domain, RelationshipSpec: topology.RelationshipSpec{Mode: topology.API}}}
	})
}

// owned is a trust domain whose serving certificate is the person's own.
func owned() spire.Values {
	return values(func(s *spire.Settings) {
		s.Server.Domain.BundleEndpoint.Profile = topology.HTTPSWeb
		s.Server.Domain.BundleEndpoint.ServingCert = topology.ServingCert{FileSyncInterval: time.Hour, Own: &topology.OwnCertificate{Secret: "federation-tls"}}
		s.Images.ServingCert = ""
	})
}

// ordering is a trust domain whose server orders its serving certificate.
func ordering() spire.Values {
	return values(func(s *spire.Settings) {
		s.Server.Domain.BundleEndpoint.Profile, s.Server.Domain.BundleEndpoint.Host = topology.HTTPSWeb, "federation.cluster1.com"
		s.Server.Domain.BundleEndpoint.ACME = &topology.ACME{Email: "admin@cluster1.com"}
		s.WebRoots, s.Images.ServingCert = []string{webRoot}, ""
	})
}

// webRoot is what a web CA in PEM looks like; nobody reads it here.
const webRoot = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGUgYXQgYWxsLCBidXQgaXQgd291bGQgbG9vayBsaWtlIHRo\naXM=\n-----END CERTIFICATE-----\n"

func TestSPIREGolden(t *testing.T) {
	golden(t, "testdata/spire.yaml", mustRender(t, market()))
	// Nothing else changes with these.
	for name, values := range map[string]spire.Values{"web": web(), "peers": peers(), "company": company(), "keyed": keyed(), "by-api": related(), "own-certificate": owned(), "acme": ordering()} {
		all, same := mustRender(t, values), mustRender(t, market())
		maps.DeleteFunc(all, func(file, manifest string) bool { return manifest == same[file] })
		golden(t, "testdata/spire-"+name+".yaml", all)
	}
}

// golden compares manifests with a file, or rewrites it.
func golden(t *testing.T, file string, manifests map[string]string) {
	t.Helper()
	var got strings.Builder
	for _, name := range slices.Sorted(maps.Keys(manifests)) {
		fmt.Fprintf(&got, "# %s\n---\n%s\n", name, strings.TrimSpace(manifests[name]))
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("chart renders otherwise than %s says; look at the difference, then run: go test ./charts -update", file)
	}
}

// object is what the tests below read of a manifest.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Rules    []struct {
		Resources, Verbs []string
		ResourceNames    []string `yaml:"resourceNames"`
	}
	Spec struct {
		Selector             map[string]any
		VolumeClaimTemplates []struct {
			Metadata struct{ Name string }
		} `yaml:"volumeClaimTemplates"`
		Template struct {
			Metadata struct{ Annotations, Labels map[string]string }
			Spec     struct {
				ServiceAccountName string      `yaml:"serviceAccountName"`
				InitContainers     []container `yaml:"initContainers"`
				Containers         []container
				Volumes            []struct {
					Name   string
					Secret struct {
						SecretName string `yaml:"secretName"`
					}
					ConfigMap struct{ Name string } `yaml:"configMap"`
				}
			}
		}
	}
}

// container is what the tests below read of one.
type container struct {
	Name         string
	Command      []string
	Env          []variable
	VolumeMounts []struct{ Name string } `yaml:"volumeMounts"`
	Ports        []struct {
		ContainerPort int `yaml:"containerPort"`
	}
}

// mounts reports whether the container has that volume.
func (c container) mounts(volume string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m struct{ Name string }) bool { return m.Name == volume })
}

func objects(t *testing.T, manifests map[string]string) map[string]object {
	t.Helper()
	all := map[string]object{}
	for file, manifest := range manifests {
		decoder := yaml.NewDecoder(strings.NewReader(manifest))
		for {
			var o object
			err := decoder.Decode(&o)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			all[o.Kind+"/"+o.Metadata.Name] = o
		}
	}
	return all
}

func TestSPIRENamesAreThoseOfThePackage(t *testing.T) {
	all := objects(t, mustRender(t, market()))
	server, ok := all["StatefulSet/"+spire.ServerStatefulSet]
	if !ok || server.Metadata.Namespace != topology.ServerNamespace {
		t.Fatalf("no StatefulSet in namespace %s makes pod %s", topology.ServerNamespace, spire.ServerPod)
	}
	container := server.Spec.Template.Spec.Containers[0]
	if container.Name != spire.ServerContainer || container.Command[0] != spire.ServerProgram || container.Ports[0].ContainerPort != spire.APIPort {
		t.Errorf("container %+v, want %s with %s and port %d", container, spire.ServerContainer, spire.ServerProgram, spire.APIPort)
	}
	if other := server.Spec.Template.Spec.Containers[1].Name; other != spire.ControllerManagerContainer {
		t.Errorf("container %s next to it, want %s", other, spire.ControllerManagerContainer)
	}
	if claim := server.Spec.VolumeClaimTemplates[0].Metadata.Name + "-" + spire.ServerPod; claim != spire.ServerClaim {
		t.Errorf("volume claim %s, want %s", claim, spire.ServerClaim)
	}
	for kind, name := range map[string]string{"StatefulSet": spire.ServerStatefulSet, "DaemonSet": spire.AgentDaemonSet} {
		if got := all[kind+"/"+name].Spec.Template.Metadata.Labels[spire.ProgramLabel]; got != name {
			t.Errorf("pods of %s %s have the label %s=%s", kind, name, spire.ProgramLabel, got)
		}
	}
	// A fault puts the selector back as it stands here.
	endpoint := all["Service/"+spire.BundleEndpointService].Spec.Selector
	if want := (map[string]any{spire.ProgramLabel: spire.ServerStatefulSet}); !maps.Equal(endpoint, want) {
		t.Errorf("Service %s selects %v, want %v", spire.BundleEndpointService, endpoint, want)
	}
}

// What the driver makes before the chart must be what the chart looks for.
func TestSPIRESecretsAreThoseOfThePackage(t *testing.T) {
	tests := []struct {
		values spire.Values
		volume string
		secret string
		keys   []string
	}{
		{web(), "web-ca", spire.WebCASecret, []string{spire.SecretCertificate, spire.SecretKey}},
		{company(), "upstream-authority", spire.UpstreamAuthoritySecret, []string{spire.SecretCertificate, spire.SecretKey, spire.SecretBundle}},
	}
	for _, test := range tests {
		manifests := mustRender(t, test.values)
		pod := objects(t, manifests)["StatefulSet/spire-server"].Spec.Template.Spec
		var secret string
		for _, volume := range pod.Volumes {
			if volume.Name == test.volume {
				secret = volume.Secret.SecretName
			}
		}
		if secret != test.secret {
			t.Errorf("volume %s is Secret %q, want %s", test.volume, secret, test.secret)
		}
		for _, key := range test.keys {
			if path := "/run/spire/" + test.volume + "/" + key; !strings.Contains(manifests["server.yaml"]+manifests["server-config.yaml"], path) {
				t.Errorf("nothing reads %s", path)
			}
		}
	}
	// The key of the web CA is next to the server, not in it.
	pod := objects(t, mustRender(t, web()))["StatefulSet/spire-server"].Spec.Template.Spec
	if !pod.InitContainers[0].mounts("web-ca") || slices.ContainsFunc(pod.Containers, func(c container) bool { return c.mounts("web-ca") }) {
		t.Errorf("web-ca is mounted by others than %s alone", pod.InitContainers[0].Name)
	}
}

// The program must know the variables that the chart sets, and take their values.
func TestServingCertTakesWhatTheChartSets(t *testing.T) {
	program := filepath.Join(t.TempDir(), "serving-cert")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../apps/serving-cert").CombinedOutput(); err != nil {
		t.Fatalf("build apps/serving-cert: %v\n%s", err, output)
	}
	help, err := exec.CommandContext(t.Context(), program, "-h").CombinedOutput()
	if err != nil {
		t.Fatalf("serving-cert -h: %v\n%s", err, help)
	}
	var env []string
	for _, variable := range objects(t, mustRender(t, web()))["StatefulSet/spire-server"].Spec.Template.Spec.InitContainers[0].Env {
		if !strings.Contains(string(help), "["+variable.Name+"]") {
			t.Errorf("the program does not know %s", variable.Name)
		}
		env = append(env, variable.Name+"="+variable.Value)
	}
	// It reads all its settings, and then cannot open a port that is none.
	command := exec.CommandContext(t.Context(), program, "-health-listen=256.0.0.1:0")
	command.Env = env
	var said bytes.Buffer
	command.Stderr = &said
	var ended *exec.ExitError
	if err := command.Run(); !errors.As(err, &ended) || ended.ExitCode() != 1 {
		t.Errorf("serving-cert ends with %v:\n%s", err, said.String())
	}
}

func TestSPIREPodsRestartWithTheirConfiguration(t *testing.T) {
	annotations := func(values spire.Values, name string) map[string]string {
		return objects(t, mustRender(t, values))[name].Spec.Template.Metadata.Annotations
	}
	changed := market()
	changed.Server.JWTSVIDTTL = "1m"
	if maps.Equal(annotations(market(), "StatefulSet/spire-server"), annotations(changed, "StatefulSet/spire-server")) {
		t.Errorf("another TTL leaves the server's pod as it is")
	}
	if !maps.Equal(annotations(market(), "DaemonSet/spire-agent"), annotations(changed, "DaemonSet/spire-agent")) {
		t.Errorf("another TTL of the server's restarts the agents")
	}
	roots := market()
	roots.WebRoots = []string{webRoot}
	if maps.Equal(annotations(market(), "StatefulSet/spire-server"), annotations(roots, "StatefulSet/spire-server")) {
		t.Errorf("another root leaves the server's pod as it is, which has read them")
	}
	reversed := values(func(s *spire.Settings) {
		s.WebRoots = []string{"b", "a"}
		s.Static = []spire.FederatesWithValues{{TrustDomain: "b"}, {TrustDomain: "a"}}
	})
	if !slices.IsSorted(reversed.WebRoots) || reversed.FederatesWith[0].TrustDomain != "a" {
		t.Errorf("another order of peers restarts the server")
	}
	elsewhere := market()
	elsewhere.BundleEndpoint.Address = "10.192.1.9"
	if !maps.Equal(annotations(market(), "StatefulSet/spire-server"), annotations(elsewhere, "StatefulSet/spire-server")) {
		t.Errorf("another address restarts the server")
	}
}

func TestSPIRERefusesValues(t *testing.T) {
	tests := []struct {
		name   string
		values any
		want   string
	}{
		{"none at all", map[string]any{}, "trustDomain"},
		{"a field that does not exist", map[string]any{"server": map[string]any{"caTtl": "1h"}}, "caTtl"},
		{"a duration without a unit", with(func(v *spire.Values) { v.Server.CATTL = "3600" }), "caTTL"},
		{"a profile that does not exist", with(func(v *spire.Values) { v.BundleEndpoint.Profile = "https" }), "profile"},
		{"an https_web endpoint without names", with(func(v *spire.Values) { v.BundleEndpoint.Profile = topology.HTTPSWeb }), "names"},
		{"an https_web endpoint without its program", change(web(), func(v *spire.Values) { v.Images.ServingCert = "" }), "servingCert"},
		{"https_spiffe with nobody to expect", change(peers(), func(v *spire.Values) { v.FederatesWith[0].EndpointSPIFFEID = "" }), "endpointSPIFFEID"},
		{"https_web with somebody to expect", change(peers(), func(v *spire.Values) { v.FederatesWith[1].EndpointSPIFFEID = v.AdminID }), "endpointSPIFFEID"},
		{"a bundle over plain HTTP", change(peers(), func(v *spire.Values) { v.FederatesWith[0].URL = "http://10.192.2.1:8443" }), "url"},
		{"a root that is none", with(func(v *spire.Values) { v.WebRoots = []string{"/etc/ssl/root.pem"} }), "webRoots"},
		{"a database that needs quotes", change(company(), func(v *spire.Values) { v.Datastore.Postgres.Database = "spire'" }), "database"},
		{"a datastore that does not exist", with(func(v *spire.Values) { v.Datastore.Type = "mysql" }), "datastore"},
		{"an upstream authority that does not exist", with(func(v *spire.Values) { v.UpstreamAuthority = "vault" }), "upstreamAuthority"},
		{"a key type that does not exist", with(func(v *spire.Values) { v.Server.CAKeyType = "rsa-1024" }), "caKeyType"},
		{"a signature in the place of a key type", with(func(v *spire.Values) { v.Server.JWTKeyType = "RS256" }), "jwtKeyType"},
		{"an image without a tag", with(func(v *spire.Values) { v.Images.Agent = "example.com/spire-agent" }), "agent"},
		{"a name instead of an address", with(func(v *spire.Values) { v.BundleEndpoint.Address = "market.test" }), "address"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := render("spire", topology.ServerNamespace, test.values)
			if err == nil || !strings.Contains(err.Error(), "values don't meet the specifications of the schema") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one of the schema's about %s", err, test.want)
			}
		})
	}
}

func with(changed func(*spire.Values)) spire.Values { return change(market(), changed) }

func change(values spire.Values, changed func(*spire.Values)) spire.Values {
	changed(&values)
	return values
}

// SPIRE's own programs must take what the chart renders.
func TestSPIREConfigurationIsValid(t *testing.T) {
	tests := []struct {
		name, variable, object, key string
		values                      spire.Values
	}{
		{"server", spiretest.ServerVariable, "ConfigMap/spire-server", "server.conf", market()},
		{"plain server", spiretest.ServerVariable, "ConfigMap/spire-server", "server.conf", plain()},
		{"https_web server", spiretest.ServerVariable, "ConfigMap/spire-server", "server.conf", web()},
		{"server with peers", spiretest.ServerVariable, "ConfigMap/spire-server", "server.conf", peers()},
		{"company's server", spiretest.ServerVariable, "ConfigMap/spire-server", "server.conf", company()},
		{"server with other keys", spiretest.ServerVariable, "ConfigMap/spire-server", "server.conf", keyed()},
		{"server with agents in other clusters", spiretest.ServerVariable, "ConfigMap/spire-server", "server.conf", spreadValues()},
		{"agent", spiretest.AgentVariable, "ConfigMap/spire-agent", "agent.conf", market()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			program := spiretest.Program(t, test.variable)
			config := objects(t, mustRender(t, test.values))[test.object].Data[test.key]
			path := filepath.Join(t.TempDir(), test.key)
			// To validate is to load the certificate.
			config = strings.ReplaceAll(config, "/run/spire/serving-cert/serving.pem", servingCert(t))
			if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			output, err := exec.CommandContext(t.Context(), program, "validate", "-config", path).CombinedOutput()
			if err != nil {
				t.Errorf("%s validate: %v\n%s\n%s", program, err, bytes.TrimSpace(output), config)
			}
		})
	}
}

// servingCert returns a file with a certificate and its key.
func servingCert(t *testing.T) string {
	t.Helper()
	ca, err := pki.NewRoot("Web CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := ca.ServingCert([]string{"cluster1.com"}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "serving.pem")
	if err := os.WriteFile(path, slices.Concat(certificate, key), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What a lab file says must reach SPIRE as it stands there, though "${" begins
// something else in HCL.
func TestSPIRETakesTextAsItIs(t *testing.T) {
	const name, organization = `Prices in ${USD} & $HOME`, `"Company" \ ${`
	values := market()
	values.Server.CASubject = spire.CASubjectValues{Organization: organization, CommonName: name}
	config := objects(t, mustRender(t, values))["ConfigMap/spire-server"].Data["server.conf"]
	_, subject, found := strings.Cut(config, "ca_subject {")
	subject, _, end := strings.Cut(subject, "}\n")
	if !found || !end {
		t.Fatalf("no ca_subject in\n%s", config)
	}
	td := server().Domain.Name
	server := spiretest.Start(t, spiretest.Config{TrustDomain: td, AdminID: spire.AdminID(td), Server: "ca_subject {" + subject + "}\n"})
	authorities, err := pki.Parse(server.Run(t, "bundle", "show"))
	if err != nil {
		t.Fatal(err)
	}
	got := authorities[0].Subject
	if got.CommonName != name || !slices.Equal(got.Organization, []string{organization}) {
		t.Errorf("subject is %q of %q, want %q of %q", got.CommonName, got.Organization, name, organization)
	}
}

// The pods of a demo program must be those that its identity is for.
func TestDemosArePodsOfTheirIdentities(t *testing.T) {
	for _, app := range demo.Apps() {
		t.Run(app.Name, func(t *testing.T) {
			values, ok := demos()[app.Name].(target)
			if !ok {
				t.Fatal("no chart of that name")
			}
			g, err := topology.Resolve(topology.Topology{
				Clusters:     []topology.ClusterSpec{topology.NewCluster("cloud", 0)},
				TrustDomains: []topology.TrustDomainSpec{{Name: spiffeid.RequireTrustDomainFromString("cluster1.com"), Cluster: "cloud"}},
				Workloads:    []topology.WorkloadSpec{{Name: app.Name, App: app, Cluster: "cloud"}},
			}, netip.Prefix{})
			if err != nil {
				t.Fatal(err)
			}
			w := g.Workloads[0]
			if app.Regional {
				values["region"] = w.Cluster().Name
			}
			if app.Named {
				values["name"] = w.Name
			}
			manifests, err := render(app.Name, app.Namespace, values)
			if err != nil {
				t.Fatal(err)
			}
			deployment, ok := objects(t, manifests)["Deployment/"+app.Deployment]
			if !ok {
				t.Fatalf("no Deployment %s", app.Deployment)
			}
			pod := deployment.Spec.Template
			if got := pod.Spec.ServiceAccountName; got != app.ServiceAccount {
				t.Errorf("service account is %s, want %s", got, app.ServiceAccount)
			}
			want := w.PodLabels()
			want["app.kubernetes.io/name"] = app.Name
			for label, value := range want {
				if got := pod.Metadata.Labels[label]; got != value {
					t.Errorf("label %s is %q, want %q", label, got, value)
				}
			}
		})
	}
}

// With a PostgreSQL of its own a server keeps what it knows over a restart, and
// the password is in its environment alone.
func TestSPIREKeepsItsEntriesInPostgres(t *testing.T) {
	spiretest.Program(t, spiretest.ServerVariable)
	values := company()
	where, password := startPostgres(t, *values.Datastore.Postgres)
	manifests := mustRender(t, values)
	const awaits = `- name: await-datastore
          image: "example.com/postgres:15"
          imagePullPolicy: IfNotPresent
          args: [await, -address=spire-database:5432]
`
	if !strings.Contains(manifests["server.yaml"], awaits) {
		t.Errorf("the server does not wait for its datastore:\n%s", manifests["server.yaml"])
	}
	config := objects(t, manifests)["ConfigMap/spire-server"].Data["server.conf"]
	_, datastore, found := strings.Cut(config, "DataStore \"sql\" {\n    plugin_data {\n")
	datastore, _, end := strings.Cut(datastore, "    }\n")
	datastore = strings.Replace(datastore, "host=spire-database port=5432", where, 1)
	if !found || !end || !strings.Contains(datastore, where) {
		t.Fatalf("no connection to spire-database in\n%s", config)
	}
	td := server().Domain.Name
	settings := spiretest.Config{TrustDomain: td, AdminID: spire.AdminID(td), Datastore: datastore, Env: []string{"PGPASSWORD=" + password}}
	create := []string{"entry", "create", "-spiffeID", "spiffe://cluster1.com/server", "-parentID", "spiffe://cluster1.com/agent", "-selector", "unix:uid:1000"}
	t.Run("the first", func(t *testing.T) { spiretest.Start(t, settings).Run(t, create...) })
	t.Run("the next", func(t *testing.T) {
		if shown := spiretest.Start(t, settings).Run(t, "entry", "show"); !strings.Contains(string(shown), "spiffe://cluster1.com/server") {
			t.Errorf("entries are lost:\n%s", shown)
		}
	})
}

// Two releases in two namespaces of a cluster share no object of the whole cluster,
// no socket and no resource that a controller manager serves.
func TestTwoReleasesShareNothingOfTheCluster(t *testing.T) {
	second := server()
	second.Place.Namespace, second.Class, second.Home().Class = "spire-system-2", "spire-system-2", "spire-system-2"
	values := map[string]spire.Values{
		"spire-system":   market(),
		"spire-system-2": values(func(s *spire.Settings) { s.Server = second }),
	}
	owner, classes := map[string]string{}, map[string]bool{}
	for namespace, v := range values {
		manifests, err := render("spire", namespace, v)
		if err != nil {
			t.Fatal(err)
		}
		whole := 0
		for file, manifest := range manifests {
			for document := range strings.SplitSeq(manifest, "\n---\n") {
				var object struct {
					Kind     string
					Metadata struct{ Name, Namespace string }
				}
				if err := yaml.Unmarshal([]byte(document), &object); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				if object.Kind == "" || object.Metadata.Namespace != "" {
					continue
				}
				whole++
				key := object.Kind + " " + object.Metadata.Name
				if other, taken := owner[key]; taken {
					t.Errorf("%s and %s both have %s", namespace, other, key)
				}
				owner[key] = namespace
			}
		}
		if whole != 7 { // three pairs of a ClusterRole and its binding, and the webhook
			t.Errorf("%s has %d objects of the whole cluster", namespace, whole)
		}
		config := manifests["controller-manager-config.yaml"]
		classes["className: \""+v.Class+"\""] = strings.Contains(config, "className: \""+v.Class+"\"")
		owned := "validatingWebhookConfigurationName: " + map[bool]string{true: "spire-controller-manager-webhook\n", false: "spire-controller-manager-webhook-" + v.Class + "\n"}[v.Class == ""]
		if !strings.Contains(config, owned) {
			t.Errorf("the controller manager in %s does not have %q", namespace, owned)
		}
		if want := `== "` + v.Class + `"'`; strings.Count(manifests["controller-manager.yaml"], want) != 2 {
			t.Errorf("the webhooks in %s are not asked about class %q alone", namespace, v.Class)
		}
		socket := `{path: "` + v.SocketDir + `", type`
		if !strings.Contains(manifests["agent.yaml"], socket) || owner[socket] != "" {
			t.Errorf("the agents in %s do not have %s alone", namespace, socket)
		}
		owner[socket] = namespace
	}
	if classes[`className: ""`] || !classes[`className: "spire-system-2"`] {
		t.Errorf("classes %v", classes)
	}
}
