package docs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
)

// TestArticles tries what docs/from-an-article.md says is wrong in an article on
// SPIRE's own programs. Each statement is named by the first cell of its row.
func TestArticles(t *testing.T) {
	page, err := os.ReadFile("from-an-article.md")
	if err != nil {
		t.Fatal(err)
	}
	server, agent := spiretest.Program(t, spiretest.ServerVariable), spiretest.Program(t, spiretest.AgentVariable)
	a := spiretest.Start(t, spiretest.Config{TrustDomain: spiffeid.RequireTrustDomainFromString("a.test"), AdminID: spiffeid.RequireFromString("spiffe://a.test/admin")})
	for _, statement := range []struct {
		says string
		try  func(*testing.T)
	}{
		{"`bundle show -trustDomain`", func(t *testing.T) {
			t.Helper()
			refused(t, server, "flag provided but not defined: -trustDomain", "bundle", "show", "-trustDomain", "a.test")
			knows(t, server, "-id", "bundle", "list", "-help")
		}},
		{"`bundle refresh`", func(t *testing.T) {
			t.Helper()
			refused(t, server, "one of the subcommands below", "bundle", "refresh")
			knows(t, server, "-id", "federation", "refresh", "-help")
		}},
		{"`validate-jwt-svid`", func(t *testing.T) {
			t.Helper()
			refused(t, server, "Usage: spire-server", "validate-jwt-svid")
			knows(t, agent, "-audience", "api", "validate", "jwt", "-help")
		}},
		{"`spire-agent bundle show`", func(t *testing.T) {
			t.Helper()
			refused(t, agent, "Usage: spire-agent", "bundle", "show")
			knows(t, agent, "-socketPath", "api", "fetch", "x509", "-help")
		}},
		{"`-ttl 300`", func(t *testing.T) {
			t.Helper()
			refused(t, server, "flag provided but not defined: -ttl", "entry", "create", "-ttl", "300")
			knows(t, server, "-x509SVIDTTL", "entry", "create", "-help")
			knows(t, server, "-jwtSVIDTTL", "entry", "create", "-help")
		}},
		{"trust domains `trustdomainA` and `trustdomainB`", func(t *testing.T) {
			t.Helper()
			file := saved(t, a.Run(t, "bundle", "show", "-format", "spiffe"))
			if _, err := a.Exec(t.Context(), "bundle", "set", "-format", "spiffe", "-id", "spiffe://trustdomainB", "-path", file); err == nil || !strings.Contains(err.Error(), "trust domain characters are limited to lowercase") {
				t.Errorf("bundle set of spiffe://trustdomainB: %v", err)
			}
			a.Run(t, "bundle", "set", "-format", "spiffe", "-id", "spiffe://trustdomain-b", "-path", file)
		}},
		{"the bundle is saved as `trust-bundleB.pem`", func(t *testing.T) {
			t.Helper()
			keysOf(t, a.Run(t, "bundle", "show", "-format", "spiffe"))
		}},
		{"`bundle set` without `-format`", func(t *testing.T) {
			t.Helper()
			file := saved(t, a.Run(t, "bundle", "show", "-format", "spiffe"))
			if _, err := a.Exec(t.Context(), "bundle", "set", "-id", "spiffe://other.test", "-path", file); err == nil {
				t.Error("bundle set takes JSON without -format spiffe")
			}
			a.Run(t, "bundle", "set", "-id", "spiffe://other.test", "-path", saved(t, a.Run(t, "bundle", "show")))
		}},
		{"`federates_with { \"gcp.company.com\" { … } }` with `type = \"https_spiffe\"`", func(t *testing.T) {
			t.Helper()
			invalid(t, server, `federates_with {
				"gcp.company.com" {
					bundle_endpoint_url = "https://spire-bundle.gcp.company.com:8443"
					bundle_endpoint_profile { type = "https_spiffe" endpoint_spiffe_id = "spiffe://gcp.company.com/spire/server" }
				}
			}`)
			valid(t, server, peer(""))
		}},
		{"`trust_level` and `additional_validation` of a peer, `transitive_trust` next to the peers", func(t *testing.T) {
			t.Helper()
			valid(t, server, peer(`trust_level = "high"`))
			valid(t, server, peer(`additional_validation { certificate_transparency = true }`))
			valid(t, server, peer("")+` transitive_trust { max_chain_length = 3 }`)
		}},
		{"`time_restrictions`, `ip_restrictions`, `emergency_access`, `geographic_restrictions`", func(t *testing.T) {
			t.Helper()
			for _, block := range []string{
				`time_restrictions { allowed_hours = ["09:00-17:00"] }`, `ip_restrictions { allowed_cidrs = ["203.0.113.0/24"] }`,
				`emergency_access { max_duration = "4h" }`, `geographic_restrictions { allowed_regions = ["eu-west-1"] }`,
			} {
				valid(t, server, peer(block))
			}
		}},
		{"`refresh_hint` in `federates_with`", func(t *testing.T) {
			t.Helper()
			valid(t, server, peer(`refresh_hint = "3600s"`))
			// It is not read: a word that is no duration is taken just as well.
			valid(t, server, peer(`refresh_hint = "soon"`))
		}},
		{"`bundles_path`", func(t *testing.T) {
			t.Helper()
			valid(t, server, `bundles_path = "/bundles"`)
		}},
		{"`bundle_endpoint { address profile }` inside `federates_with`", func(t *testing.T) {
			t.Helper()
			invalid(t, server, `federates_with "other.domain.com" { bundle_endpoint { address = "spire-server-other:8443" profile = "https_web" } }`)
		}},
		{"selectors `k8s:cluster`, `k8s:agent_sa`, `k8s:pod_uid`, `k8s:namespace`", func(t *testing.T) {
			t.Helper()
			a.Run(t, "entry", "create", "-spiffeID", "spiffe://a.test/my-app", "-parentID", "spiffe://a.test/node",
				"-selector", "k8s:cluster:cluster-a", "-selector", "k8s:agent_sa:spire-agent", "-selector", "k8s:pod_uid:a1b2", "-selector", "k8s:namespace:default")
		}},
		{"parent `…/k8s_psat/cluster-a/node/{{node_uid}}`", func(t *testing.T) {
			t.Helper()
			a.Run(t, "entry", "create", "-spiffeID", "spiffe://a.test/nobodys", "-parentID", "spiffe://a.test/spire/agent/k8s_psat/cluster-a/node/a1b2", "-selector", "k8s:ns:default")
		}},
		{"the Go program imports `spiffeid` and `x509svid`", func(t *testing.T) {
			t.Helper()
			built := func(imports string) (string, error) {
				file := filepath.Join(t.TempDir(), "main.go")
				text := "package main\nimport (\n" + imports + `"context"
					"github.com/spiffe/go-spiffe/v2/workloadapi"
				)
				func main() {
					source, err := workloadapi.NewX509Source(context.Background())
					if err != nil { panic(err) }
					defer source.Close()
					svid, err := source.GetX509SVID()
					if err != nil { panic(err) }
					println(svid.ID.String())
				}`
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				output, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput()
				return string(output), err
			}
			if output, err := built("\"github.com/spiffe/go-spiffe/v2/spiffeid\"\n\"github.com/spiffe/go-spiffe/v2/svid/x509svid\"\n"); err == nil || !strings.Contains(output, "imported and not used") {
				t.Errorf("with both imports: %v: %s", err, output)
			}
			if output, err := built(""); err != nil {
				t.Errorf("without them: %v: %s", err, output)
			}
		}},
		{"`refresh_hint` in the bundle, `use: x509-svid` keys alone", func(t *testing.T) {
			t.Helper()
			served := served(t, a.BundleEndpoint)
			if !bytes.Contains(served, []byte(`"spiffe_refresh_hint"`)) || bytes.Contains(served, []byte(`"refresh_hint"`)) {
				t.Errorf("the endpoint serves %s", served)
			}
			uses := map[string]bool{}
			for _, key := range keysOf(t, served) {
				uses[key.Use] = true
			}
			if !uses["x509-svid"] || !uses["jwt-svid"] {
				t.Errorf("the keys are for %v", uses)
			}
		}},
		{"\"transitive\" trust", func(t *testing.T) {
			t.Helper()
			// A is handed the bundle of B. What A's endpoint tells others is A's own.
			before := served(t, a.BundleEndpoint)
			b := spiretest.StartServer(t, spiffeid.RequireTrustDomainFromString("b.test"), spiffeid.RequireFromString("spiffe://b.test/admin"))
			a.Run(t, "bundle", "set", "-format", "spiffe", "-id", "spiffe://b.test", "-path", saved(t, b.Run(t, "bundle", "show", "-format", "spiffe")))
			held := keysOf(t, a.Run(t, "bundle", "list", "-format", "spiffe", "-id", "spiffe://b.test"))
			if len(held) == 0 {
				t.Fatal("a.test does not hold the bundle of b.test")
			}
			if after := served(t, a.BundleEndpoint); len(keysOf(t, after)) != len(keysOf(t, before)) {
				t.Errorf("the endpoint of a.test served %d keys and serves %d", len(keysOf(t, before)), len(keysOf(t, after)))
			}
		}},
		{"`spire_server_bundle_expiry_timestamp_seconds` and the six other metric names", metrics},
		{"`spiffe.workload.Workload/FetchX509SVID`", func(t *testing.T) {
			t.Helper()
			address := a.StartAgent(t)
			if code := call(t, address, "/spiffe.workload.Workload/FetchX509SVID"); code != codes.Unimplemented {
				t.Errorf("as the article has it: %s", code)
			}
			if code := call(t, address, "/SpiffeWorkloadAPI/FetchX509SVID"); code != codes.InvalidArgument {
				t.Errorf("without the header: %s", code)
			}
		}},
		{"`spiffeid.Must`", func(t *testing.T) {
			t.Helper()
			refused(t, "go", "no symbol Must in package", "doc", "github.com/spiffe/go-spiffe/v2/spiffeid", "Must")
			knows(t, "go", "func FromSegments(", "doc", "github.com/spiffe/go-spiffe/v2/spiffeid", "FromSegments")
		}},
		{"`tlsconfig.MTLSServerConfig(client, client, …)` with a `workloadapi.Client`", func(t *testing.T) {
			t.Helper()
			if _, ok := any((*workloadapi.Client)(nil)).(x509svid.Source); ok {
				t.Error("a workloadapi.Client is a source of X509-SVIDs")
			}
			if _, ok := any((*workloadapi.X509Source)(nil)).(x509svid.Source); !ok {
				t.Error("a workloadapi.X509Source is no source of X509-SVIDs")
			}
		}},
	} {
		t.Run(statement.says, func(t *testing.T) {
			if !bytes.Contains(page, []byte("| "+statement.says+" |")) {
				t.Fatalf("from-an-article.md has no row that begins with %s", statement.says)
			}
			statement.try(t)
		})
	}
}

// refused runs a command that has to fail with these words.
func refused(t *testing.T, program, words string, argv ...string) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), program, argv...).CombinedOutput()
	if err == nil || !bytes.Contains(output, []byte(words)) {
		t.Errorf("%s %s: %v: %s; want a failure with %q", filepath.Base(program), strings.Join(argv, " "), err, output, words)
	}
}

// knows runs a command that explains itself, whose output has these words.
func knows(t *testing.T, program, words string, argv ...string) {
	t.Helper()
	// Asked for help, some of SPIRE's commands end with an error.
	output, _ := exec.CommandContext(t.Context(), program, argv...).CombinedOutput()
	if !bytes.Contains(output, []byte(words)) {
		t.Errorf("%s %s: %s; want %q in it", filepath.Base(program), strings.Join(argv, " "), output, words)
	}
}

func saved(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type key struct {
	Use string `json:"use"`
}

func keysOf(t *testing.T, bundle []byte) []key {
	t.Helper()
	var set struct{ Keys []key }
	if err := json.Unmarshal(bundle, &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("%s is no JWK Set with keys: %v", bundle, err)
	}
	return set.Keys
}

// peer is a relationship in a server's configuration, with more in its block.
func peer(more string) string {
	return fmt.Sprintf(`federates_with "gcp.company.com" {
		bundle_endpoint_url = "https://192.0.2.1:8443"
		bundle_endpoint_profile "https_spiffe" { endpoint_spiffe_id = "spiffe://gcp.company.com/spire/server" }
		%s
	}`, more)
}

// validate asks spire-server what it thinks of a configuration with that in its
// federation section.
func validate(t *testing.T, server, federation string) (string, error) {
	t.Helper()
	config := fmt.Sprintf(`server {
		trust_domain = "a.test"
		bind_address = "127.0.0.1"
		bind_port = 8081
		data_dir = %q
		federation {
			bundle_endpoint { address = "127.0.0.1" port = 8443 profile "https_spiffe" {} }
			%s
		}
	}
	plugins {
		DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = %q } }
		KeyManager "memory" { plugin_data {} }
		NodeAttestor "join_token" { plugin_data {} }
	}`, t.TempDir(), federation, filepath.Join(t.TempDir(), "datastore.sqlite3"))
	output, err := exec.CommandContext(t.Context(), server, "validate", "-config", saved(t, []byte(config))).CombinedOutput()
	return string(output), err
}

func valid(t *testing.T, server, federation string) {
	t.Helper()
	if output, err := validate(t, server, federation); err != nil {
		t.Errorf("SPIRE refuses %s: %s", federation, output)
	}
}

func invalid(t *testing.T, server, federation string) {
	t.Helper()
	if output, err := validate(t, server, federation); err == nil {
		t.Errorf("SPIRE takes %s: %s", federation, output)
	}
}

// served returns what an endpoint answers, whoever it is.
func served(t *testing.T, url string) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: anyone()}}
	defer client.CloseIdleConnections()
	return get(t, client, url)
}

func get(t *testing.T, client *http.Client, url string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// call calls a method of a Workload API without any header, and returns the code
// of the answer.
func call(t *testing.T, address, method string) codes.Code {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err == nil {
		err = stream.SendMsg(&emptypb.Empty{})
	}
	if err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	return status.Code(err)
}

// metrics looks for the article's metrics on a server that federates.
func metrics(t *testing.T) {
	t.Helper()
	trusted := spiretest.StartServer(t, spiffeid.RequireTrustDomainFromString("trusted.test"), spiffeid.RequireFromString("spiffe://trusted.test/admin"))
	truster := spiretest.Start(t, spiretest.Config{
		TrustDomain: spiffeid.RequireTrustDomainFromString("truster.test"), AdminID: spiffeid.RequireFromString("spiffe://truster.test/admin"), Metrics: true,
	})
	truster.Run(t, "federation", "create", "-trustDomain", "trusted.test", "-bundleEndpointURL", trusted.BundleEndpoint,
		"-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID", "spiffe://trusted.test/spire/server",
		"-trustDomainBundleFormat", "spiffe", "-trustDomainBundlePath", saved(t, trusted.Run(t, "bundle", "show", "-format", "spiffe")))
	const fetches = "spire_server_bundle_manager_fetch_federated_bundle{"
	var shown []byte
	if err := check.Until(t.Context(), check.Bound{Within: time.Minute, Every: 100 * time.Millisecond}, check.Check{
		Name: "the server counts a fetch",
		Probe: func(context.Context) error {
			if shown = get(t, http.DefaultClient, truster.Metrics); !bytes.Contains(shown, []byte(fetches)) {
				return fmt.Errorf("no %s among %d bytes of metrics", fetches, len(shown))
			}
			return nil
		},
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"spire_server_bundle_expiry_timestamp_seconds", "spire_server_federation_authentication_failures_total",
		"spire_server_federation_bundle_update_errors_total", "spire_server_federation_errors_total",
		"spire_server_federation_relationship_active", "spire_server_federation_request_duration_seconds", "spire_server_federation_requests_total",
	} {
		if bytes.Contains(shown, []byte(name)) {
			t.Errorf("a server shows %s", name)
		}
	}
}

// anyone accepts whatever an endpoint shows: what it serves is no secret, and
// nothing here trusts it.
func anyone() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true}
}
