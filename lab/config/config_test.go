package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// format is that of lab files of the demo programs.
var format = For(demo.Apps())

func TestQuotes(t *testing.T) {
	f, err := format.Open(DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	market, broker := spiffeid.RequireTrustDomainFromString("cluster1.com"), spiffeid.RequireTrustDomainFromString("cluster2.com")
	trustDomain := func(name spiffeid.TrustDomain, cluster string) topology.TrustDomainSpec {
		return topology.TrustDomainSpec{Name: name, Cluster: cluster, Settings: topology.Settings{
			BundleEndpoint:    topology.BundleEndpoint{Profile: topology.HTTPSSPIFFE, Port: 8443, RefreshHint: time.Minute},
			CATTL:             24 * time.Hour,
			X509SVIDTTL:       time.Hour,
			JWTSVIDTTL:        5 * time.Minute,
			CASubject:         topology.CASubject{Country: "US", Organization: "SPIFFE", CommonName: name.Name()},
			LogLevel:          "info",
			Datastore:         topology.SQLite,
			UpstreamAuthority: topology.SelfSigned,
		}}
	}
	apps := demo.Apps()
	want := topology.Topology{
		Name:         "quotes",
		Clusters:     []topology.ClusterSpec{topology.NewCluster("market", 0), topology.NewCluster("broker", 1)},
		TrustDomains: []topology.TrustDomainSpec{trustDomain(market, "market"), trustDomain(broker, "broker")},
		Relationships: []topology.RelationshipSpec{
			{Truster: market, Trusted: broker, Profile: topology.HTTPSSPIFFE, Mode: topology.CRD},
			{Truster: broker, Trusted: market, Profile: topology.HTTPSSPIFFE, Mode: topology.CRD},
		},
		Workloads: []topology.WorkloadSpec{
			{Name: "stock-quotes", App: apps[0], Cluster: "market"},
			{Name: "broker-webapp", App: apps[1], Cluster: "broker", Expose: netip.MustParseAddrPort("127.0.0.1:8080"), Calls: []string{"stock-quotes"}},
		},
	}
	if !reflect.DeepEqual(f.Topology, want) {
		t.Errorf("got  %+v\nwant %+v", f.Topology, want)
	}
	checkInvariants(t, f.Topology)
	checkRoundTrip(t, f)
}

func TestEnterprise(t *testing.T) {
	f, err := format.Open("enterprise")
	if err != nil {
		t.Fatal(err)
	}
	type server struct {
		name, cluster, commonName, issuer string
		profile                           topology.EndpointProfile
		cert                              topology.ServingCert
		datastore                         topology.Datastore
		upstream                          topology.UpstreamAuthority
	}
	var servers []server
	for _, td := range f.Topology.TrustDomains {
		servers = append(servers, server{
			td.Name.Name(), td.Cluster, td.CASubject.CommonName, td.JWTIssuer,
			td.BundleEndpoint.Profile, td.BundleEndpoint.ServingCert, td.Datastore, td.UpstreamAuthority,
		})
		if s := td.CASubject; s.Country != "US" || s.Organization != "Company Corp" {
			t.Errorf("%s has the CA subject %+v", td.Name, s)
		}
	}
	if want := []server{
		{"aws.company.com", "aws", "SPIRE Server CA - AWS", "https://oidc.aws.company.com", "https_spiffe", topology.ServingCert{}, "postgres", "none"},
		{"gcp.company.com", "gcp", "SPIRE Server CA - GCP", "https://oidc.gcp.company.com", "https_spiffe", topology.ServingCert{}, "sqlite", "none"},
		{"onprem.company.com", "onprem", "SPIRE Server CA - OnPrem", "https://oidc.onprem.company.com", "https_web",
			topology.ServingCert{TTL: 15 * time.Minute, FileSyncInterval: 10 * time.Second}, "sqlite", "disk"},
	}; !slices.Equal(servers, want) {
		t.Errorf("got  %+v\nwant %+v", servers, want)
	}
	var federation []string
	for _, r := range f.Topology.Relationships {
		federation = append(federation, fmt.Sprintf("%s %s %s", r.ID(), r.Mode, r.Profile))
	}
	if want := []string{
		"aws.company.com->gcp.company.com crd https_spiffe", "gcp.company.com->aws.company.com crd https_spiffe",
		"aws.company.com->onprem.company.com crd https_web", "onprem.company.com->aws.company.com crd https_spiffe",
		"onprem.company.com->gcp.company.com crd https_spiffe", "gcp.company.com->onprem.company.com static https_web",
	}; !slices.Equal(federation, want) {
		t.Errorf("got  %v\nwant %v", federation, want)
	}
	g, err := topology.Resolve(f.Topology, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	var workloads []string
	for i, w := range g.Workloads {
		workloads = append(workloads, fmt.Sprintf("%s %s %v %s", w.Name, w.ID, f.Topology.Workloads[i].Calls, w.URL()))
	}
	if want := []string{
		"frontend spiffe://aws.company.com/ns/distributed-app/service/frontend [data-service legacy-bridge aws-gateway gcp-gateway onprem-gateway] http://localhost:8080/federation",
		"data-service spiffe://gcp.company.com/ns/distributed-app/service/data-processing/version/v2 [] ",
		"legacy-bridge spiffe://onprem.company.com/datacenter/primary/system/mainframe-bridge [data-service] ",
		"aws-gateway spiffe://aws.company.com/gateway/edge/aws [data-service legacy-bridge] ",
		"gcp-gateway spiffe://gcp.company.com/gateway/edge/gcp [data-service legacy-bridge] ",
		"onprem-gateway spiffe://onprem.company.com/gateway/edge/onprem [data-service legacy-bridge] ",
	}; !slices.Equal(workloads, want) {
		t.Errorf("got  %v\nwant %v", workloads, want)
	}
	checkRoundTrip(t, f)
}

// TestHosts: where servers and agents are, and how a truster without a controller manager
// comes to have its relationships.
func TestHosts(t *testing.T) {
	files := corpus(t, "good")
	places := func(name string) (got []string) {
		top, err := format.Load(files[name], "lab.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range top.Hosts {
			got = append(got, fmt.Sprint(h.Name, " ", h.Index))
		}
		for _, td := range top.TrustDomains {
			got = append(got, fmt.Sprintf("%s %s%s %v", td.Name, td.Cluster, td.Host, td.Members))
		}
		for _, r := range top.Relationships {
			got = append(got, fmt.Sprint(r.ID(), " ", r.Mode, " ", r.Profile))
		}
		for _, w := range top.Workloads {
			if w.Host != "" {
				got = append(got, fmt.Sprint(w.Name, " ", w.Host, " ", w.Slot, " ", w.Calls))
			}
		}
		return got
	}
	for name, want := range map[string][]string{
		"hosts": {
			"onprem 1", "partner 2", "partner-branch 3",
			"company.com market [{ onprem 0 false}]", "partner.example.com partner [{ partner-branch 0 false}]",
			"company.com->partner.example.com crd https_spiffe", "partner.example.com->company.com api https_web",
			"partner-quotes partner 0 []", "partner-broker partner 1 [stock-quotes]", "onprem-broker onprem 0 [partner-quotes]",
		},
		"hosts-modes": {
			"one 1", "two 2",
			"company.com market []", "one.example.com one []", "two.example.com two []",
			"company.com->one.example.com crd https_spiffe", "one.example.com->company.com api https_spiffe", "company.com->two.example.com crd https_spiffe",
			"two.example.com->company.com static https_spiffe", "one.example.com->two.example.com manual https_spiffe",
		},
	} {
		if got := places(name); !slices.Equal(got, want) {
			t.Errorf("%s: got\n%q, want\n%q", name, got, want)
		}
	}
}

// TestKeyTypes: a type that holds without a word is not written down, so that a lab that
// asks for no other is what it always was.
func TestKeyTypes(t *testing.T) {
	top, err := format.Load(corpus(t, "good")["key-types"], "lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, td := range top.TrustDomains {
		got = append(got, fmt.Sprintf("%s %q %q", td.Name, td.CAKeyType, td.JWTKeyType))
	}
	if want := []string{
		`cluster1.com "rsa-2048" ""`, `cluster2.com "" ""`, `cluster3.com "ec-p384" "rsa-4096"`, `cluster4.com "" "ec-p384"`,
	}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// modes are those that a relationship may have: where no controller manager makes any,
// there is no resource for one.
func modes(r *topology.Trust) []topology.Mode {
	if r.Truster.Server().RelatesByAPI() {
		return []topology.Mode{"api", "static", "manual"}
	}
	return []topology.Mode{"crd", "static", "manual"}
}

// checkInvariants states what a topology promises: whatever one part names,
// another defines, and no two things share what has to be their own.
func checkInvariants(tb testing.TB, top topology.Topology) {
	tb.Helper()
	g, err := topology.Resolve(top, topology.NetworkCandidates()[0])
	if err != nil {
		tb.Fatal(err)
	}
	seen := map[string]bool{}
	once := func(what string, value any) {
		key := fmt.Sprint(what, " ", value)
		if seen[key] {
			tb.Errorf("%s is there twice", key)
		}
		seen[key] = true
	}
	for _, c := range g.Clusters {
		once("cluster", c.Name)
		once("pods", c.PodSubnet)
		once("pool", c.Pool)
		if len(c.Members) == 0 {
			tb.Errorf("cluster %s has no trust domain", c.Name)
		}
		if node := top.Name + "-" + c.Name + "-control-plane"; len(node) > 63 {
			tb.Errorf("node name %s has %d characters", node, len(node))
		}
	}
	for _, h := range g.Hosts {
		once("cluster", h.Name) // they have their names from one list
		once("pool", h.Pool)
		if h.Member == nil {
			tb.Errorf("host %s has no trust domain", h.Name)
		}
	}
	for _, td := range g.Domains {
		once("trust domain", td.Name)
		once("address", td.Server().Address)
		once("namespace of a server", td.Server().Place)
		if d := td.Discovery; d != nil {
			once("address", d.Address)
			once("host of an issuer", d.Host)
			if !d.Member.Place.Cluster.Pool.First.IsValid() || d.Port < 1 || d.Port > 65535 || !strings.HasPrefix(d.Keys(), td.JWTIssuer) || strings.HasSuffix(d.Path, "/") {
				tb.Errorf("%s: provider %+v", td.Name, d)
			}
		}
		if td.CATTL < 6*td.X509SVIDTTL || td.CATTL < 6*td.JWTSVIDTTL || td.X509SVIDTTL < time.Second || td.JWTSVIDTTL < time.Second {
			tb.Errorf("%s: lives %s, %s under a CA of %s", td.Name, td.X509SVIDTTL, td.JWTSVIDTTL, td.CATTL)
		}
		if hint := td.BundleEndpoint.RefreshHint; hint < time.Minute || hint > time.Hour {
			tb.Errorf("%s: refresh hint %s", td.Name, hint)
		}
		if n := len(td.Trusts); n > 50 {
			tb.Errorf("%s trusts %d", td.Name, n)
		}
		checkServingCert(tb, td)
		if !slices.Contains([]topology.Datastore{"sqlite", "postgres"}, td.Datastore) || !slices.Contains([]topology.UpstreamAuthority{"none", "disk"}, td.UpstreamAuthority) {
			tb.Errorf("%s: datastore %q, upstream authority %q", td.Name, td.Datastore, td.UpstreamAuthority)
		}
		for _, keys := range []topology.KeyType{td.CAKeyType, td.JWTKeyType} {
			if !slices.Contains([]topology.KeyType{"", "rsa-2048", "rsa-4096", "ec-p256", "ec-p384"}, keys) {
				tb.Errorf("%s: keys of type %q", td.Name, keys)
			}
		}
	}
	for _, r := range g.Trusts {
		once("relationship", r.ID())
		if r.Truster == r.Trusted {
			tb.Errorf("relationship %s is one of a trust domain with itself", r.ID())
		}
		if r.Profile != r.Trusted.BundleEndpoint.Profile || !slices.Contains(modes(r), r.Mode) {
			tb.Errorf("relationship %s: mode %q, profile %q, and the endpoint has %q", r.ID(), r.Mode, r.Profile, r.Trusted.BundleEndpoint.Profile)
		}
	}
	for _, w := range g.Workloads {
		once("workload", w.Name)
		// Replicas have one, each in another cluster.
		once("SPIFFE ID", w.ID.String()+" in "+w.Member.Place.Name())
		once("address", w.Address)
		if w.Expose.IsValid() {
			once("exposed", w.Expose)
			if !w.Expose.Addr().IsLoopback() || w.Expose.Port() == 0 || w.App.Page == "" {
				tb.Errorf("workload %s is exposed at %s", w.Name, w.Expose)
			}
		}
		if n := len(w.Calls); n < w.App.MinCalls || w.App.MaxCalls > 0 && n > w.App.MaxCalls {
			tb.Errorf("workload %s calls %d others", w.Name, n)
		}
		for _, to := range w.Calls {
			once("call of "+w.Name, to.Name)
			checkCall(tb, w, to)
		}
	}
}

// checkServingCert states that an https_web endpoint, and no other, has a
// certificate, and reads each next one before the last one ends.
func checkServingCert(tb testing.TB, td *topology.Domain) {
	tb.Helper()
	cert := td.BundleEndpoint.ServingCert
	switch td.BundleEndpoint.Profile {
	case topology.HTTPSSPIFFE:
		if cert != (topology.ServingCert{}) {
			tb.Errorf("%s: https_spiffe with a serving certificate: %+v", td.Name, cert)
		}
	case topology.HTTPSWeb:
		if acme := td.BundleEndpoint.ACME; acme != nil {
			if cert != (topology.ServingCert{}) || td.BundleEndpoint.Host == "" || !strings.Contains(acme.Email, "@") || acme.TTL <= 30*24*time.Hour {
				tb.Errorf("%s: certificate by ACME %+v at host %q, next to %+v", td.Name, *acme, td.BundleEndpoint.Host, cert)
			}
		} else if own := cert.Own; own != nil {
			if cert.TTL != 0 || td.BundleEndpoint.Host == "" || own.Secret == "" || !filepath.IsAbs(own.Certificate) || !filepath.IsAbs(own.Key) || !filepath.IsAbs(own.CA) {
				tb.Errorf("%s: serving certificate of the person's own %+v at host %q", td.Name, *own, td.BundleEndpoint.Host)
			}
		} else if cert.FileSyncInterval < time.Second || cert.TTL <= 3*cert.FileSyncInterval {
			tb.Errorf("%s: serving certificate %+v", td.Name, cert)
		}
	default:
		tb.Errorf("%s: profile %q", td.Name, td.BundleEndpoint.Profile)
	}
}

func checkCall(tb testing.TB, w, to *topology.Workload) {
	tb.Helper()
	from, called := w.Domain(), to.Domain()
	if w == to.Checker && (from == called || from.TrustIn(called) != nil) {
		return
	}
	trusted := from == called || from.TrustIn(called) != nil && called.TrustIn(from) != nil
	if !trusted || w.Own == nil && !slices.Contains(w.App.Calls, to.App.Name) {
		tb.Errorf("workload %s calls %s, whose app is %s, trusted: %t", w.Name, to.Name, to.App.Name, trusted)
	}
}

func TestPresetsAreValid(t *testing.T) {
	if !slices.Contains(Presets(), DefaultPreset) {
		t.Errorf("presets %v lack %s", Presets(), DefaultPreset)
	}
	for _, name := range Presets() {
		f, err := format.Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Lab.Metadata.Name != name {
			t.Errorf("preset %s makes lab %s", name, f.Lab.Metadata.Name)
		}
		checkInvariants(t, f.Topology)
	}
}

// What a preset shows in comments is valid, and is what holds without it.
func TestPresetCommentsAreDefaults(t *testing.T) {
	setting := regexp.MustCompile(`(?m)^#(  )`)
	for _, name := range Presets() {
		data, err := Init(name)
		if err != nil {
			t.Fatal(err)
		}
		if !setting.Match(data) {
			t.Errorf("preset %s shows no optional setting", name)
		}
		shown, err := format.Load(setting.ReplaceAll(data, []byte("$1")), name)
		if err != nil {
			t.Fatal(err)
		}
		preset, err := format.Load(data, name)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(shown, preset) {
			t.Errorf("the comments of preset %s say %+v, the defaults are %+v", name, shown, preset)
		}
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	data, err := Init(DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(data, []byte("name: quotes"), []byte("name: mine"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := format.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Topology.Name != "mine" || f.Source != path {
		t.Errorf("got lab %s of %s, want mine of %s", f.Topology.Name, f.Source, path)
	}
}

func TestOpenRefuses(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("#\n"), maxSize), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	tests := map[string]struct {
		name, want string
		notExist   bool
	}{
		"misspelt preset": {"quots", `open lab file: open quots: no such file or directory; it is no preset either: write "quotes", the nearest of company, enterprise, quotes`, true},
		"folder":          {folder, "open lab file: read " + folder + ": it is a folder, want a file", false},
		"too large":       {large, large + ":1:1: the file is too large: at most 262144 bytes", false},
		"never ends":      {"/dev/zero", "/dev/zero:1:1: the file is too large: at most 262144 bytes", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := format.Open(test.name)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if errors.Is(err, fs.ErrNotExist) != test.notExist {
				t.Errorf("errors.Is(%v, fs.ErrNotExist) is not %t", err, test.notExist)
			}
		})
	}
}

func TestInitRefusesUnknownPreset(t *testing.T) {
	_, err := Init("../config")
	if err == nil || err.Error() != `there is no preset "../config": write one of company, enterprise, quotes` {
		t.Errorf("got %v", err)
	}
}

func TestNearest(t *testing.T) {
	tests := []struct {
		word       string
		candidates []string
		want       string
	}{
		{"trustDomian", []string{"name", "trustDomain"}, "trustDomain"},
		{"TrustDomain", []string{"name", "trustDomain"}, "trustDomain"},
		{"form", []string{"between", "from", "to"}, "from"},
		{"image", []string{"name", "trustDomain"}, ""},
		{"cluster2.co", []string{"cluster1.com", "cluster2.com"}, "cluster2.com"},
		{"", []string{"a"}, "a"},
		{"x", nil, ""},
		{strings.Repeat("x", 1<<20), []string{"name"}, ""},
	}
	for _, test := range tests {
		if got := Nearest(test.word, test.candidates); got != test.want {
			t.Errorf("Nearest(%.20q, %v) = %q, want %q", test.word, test.candidates, got, test.want)
		}
	}
}

// The pattern of a trust domain says what go-spiffe says.
func TestTrustDomainAgreesWithSPIFFE(t *testing.T) {
	v := trustDomain()
	for r := rune(0); r < 256; r++ {
		name := "a" + string(r)
		_, err := spiffeid.TrustDomainFromString(name)
		if cause, _ := v.refuse(name); (cause == "") != (err == nil) {
			t.Errorf("%q: go-spiffe says %v, the lab file %q", name, err, cause)
		}
	}
}
