package charts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/fedlab-dev/fedlab/lab/spire"
)

// The workloads of the enterprise demo, and how they call each other.
const (
	frontendID = "spiffe://aws.company.com/ns/demo/service/frontend"
	dataID     = "spiffe://gcp.company.com/ns/demo/service/data-processing/version/v2"
	bridgeID   = "spiffe://onprem.company.com/datacenter/primary/system/mainframe-bridge"
	gatewayID  = "spiffe://aws.company.com/gateway/edge/us-east-1"
)

type target = map[string]any

func call(name, url, server string, more target) target {
	made := target{"name": name, "url": url, "server": server, "profile": "https_spiffe"}
	maps.Copy(made, more)
	return made
}

// demos are the charts of the demo programs with values as a lab gives them.
func demos() map[string]any {
	allowed := func(more target) target {
		made := target{"trustDomains": []string{"aws.company.com", "onprem.company.com"}, "ids": []string{frontendID, gatewayID, bridgeID}}
		maps.Copy(made, more)
		return made
	}
	service := target{"address": "10.192.1.2"}
	return map[string]any{
		"stock-quotes":  target{"image": "example.com/stock-quotes:1", "service": service},
		"broker-webapp": target{"image": "example.com/broker-webapp:1", "quotes": target{"address": "10.192.1.2:8090"}, "service": target{"nodePort": 30080}},
		"frontend": target{"image": "example.com/frontend:1", "service": target{"nodePort": 30081}, "calls": []target{
			call("orders", "https://10.192.1.2:8443/api/process-data", dataID, nil),
			call("raw records", "https://10.192.1.2:8443/api/process-data?type=raw", dataID, target{"expect": "not-permitted"}),
			call("calls of the bridge", "https://10.192.1.3:8443/api/calls", bridgeID, target{"profile": "https_web", "report": true}),
			call("health of the gateway with a JWT-SVID", "https://10.192.1.4:8443/api/health", gatewayID, target{"token": true}),
		}},
		"data-service": target{"image": "example.com/data-service:1", "allowed": allowed(nil), "service": service, "database": target{"tls": true},
			"legacy": target{"url": "postgres://app@10.192.1.3:5432/app", "bridge": bridgeID, "secret": "data-service-lent-login"}},
		"legacy-bridge": target{"image": "example.com/legacy-bridge:1", "allowed": allowed(target{"databaseIDs": []string{dataID}}), "service": service,
			"calls": []target{call("raw records", "https://10.192.1.2:8443/api/process-data", dataID, nil)}},
		"api-gateway": target{"image": "example.com/api-gateway:1", "allowed": allowed(nil), "service": service,
			"upstreams": []target{call("gcp", "https://10.192.1.2:8443", dataID, nil)},
			"issuers":   target{"onprem.company.com": "https://oidc.onprem.company.com", "aws.company.com": "https://oidc.aws.company.com"}},
		"service": target{"image": "example.com/service:1", "name": "auth-service", "allowed": allowed(nil), "service": service,
			"calls": []target{call("health of edge-gateway", "https://10.192.1.4:8443/api/health", gatewayID, nil)}},
		"plain-service": target{"image": "example.com/plain-service:1", "ghostunnel": "example.com/ghostunnel:1", "name": "stock", "allowed": target{"ids": []string{frontendID}}, "service": service,
			"calls":   []target{call("health of edge-gateway", "http://127.0.0.1:9001/api/health", gatewayID, nil)},
			"tunnels": []target{{"listen": "127.0.0.1:9001", "target": "10.192.1.4:8443", "server": gatewayID}}},
		"probe":    target{"image": "example.com/probe:1", "allowedTrustDomains": []string{"cluster1.com", "synthetic.test"}, "service": service},
		"postgres": target{"image": "example.com/postgres:15"},
	}
}

// installed is a release as the driver makes it: the tests of package lab write
// down what they see installed.
type installed struct {
	Cluster, Name, Namespace, Chart string
	Values                          target
}

// driven returns, by the lab that it is of, what the driver installs.
func driven(t *testing.T) map[string][]installed {
	t.Helper()
	files, err := filepath.Glob("../lab/testdata/values-*.json")
	if err != nil {
		t.Fatal(err)
	}
	labs := map[string][]installed{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var releases []installed
		if err := json.Unmarshal(data, &releases); err != nil {
			t.Fatalf("read %s: %v", file, err)
		}
		labs[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "values-"), ".json")] = releases
	}
	if len(labs["quotes"]) == 0 || len(labs["enterprise"]) == 0 {
		t.Fatalf("no values of the presets are among %s: write them with go test ./lab -run TestValues -update", files)
	}
	return labs
}

func TestChartsTakeWhatTheDriverSets(t *testing.T) {
	rendered := map[string]bool{"probe": true} // of the scenarios, not of the driver
	for lab, releases := range driven(t) {
		for _, r := range releases {
			rendered[r.Chart] = true
			if _, err := render(r.Chart, r.Namespace, r.Values); err != nil {
				t.Errorf("lab %s, release %s in %s: %v", lab, r.Name, r.Cluster, err)
			}
		}
	}
	for chart := range demos() {
		if !rendered[chart] {
			t.Errorf("no lab has a release of %s", chart)
		}
	}
}

func TestDemoGolden(t *testing.T) {
	for name, values := range demos() {
		t.Run(name, func(t *testing.T) {
			manifests, err := render(name, "demo", values)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+name+".yaml", manifests)
		})
	}
}

// TestServicesTakeNoNodePorts: what MetalLB gives an address to is reached there,
// and takes no port of the nodes as well.
func TestServicesTakeNoNodePorts(t *testing.T) {
	balanced := 0
	check := func(name string, values any) {
		t.Helper()
		manifests, err := render(name, "demo", values)
		if err != nil {
			t.Fatal(err)
		}
		for file, text := range manifests {
			for manifest := range strings.SplitSeq(text, "\n---\n") {
				var service struct {
					Kind string
					Spec struct {
						Type     string
						Allocate *bool `yaml:"allocateLoadBalancerNodePorts"`
					}
				}
				if err := yaml.Unmarshal([]byte(manifest), &service); err != nil {
					t.Fatalf("%s of %s: %v", file, name, err)
				}
				if service.Kind != "Service" || service.Spec.Type != "LoadBalancer" {
					continue
				}
				balanced++
				if service.Spec.Allocate == nil || *service.Spec.Allocate {
					t.Errorf("%s of %s takes node ports", file, name)
				}
			}
		}
	}
	for name, values := range demos() {
		check(name, values)
	}
	for _, releases := range driven(t) {
		for _, r := range releases {
			check(r.Chart, r.Values)
		}
	}
	if balanced < 6 {
		t.Errorf("only %d Services of type LoadBalancer were looked at", balanced)
	}
}

func TestDemosRefuseValues(t *testing.T) {
	for name, test := range map[string]struct {
		chart string
		spoil func(target)
		want  string
	}{
		"nobody is allowed":       {"data-service", func(v target) { v["allowed"] = target{"trustDomains": []string{}, "ids": []string{frontendID}} }, "trustDomains"},
		"a whole domain as ID":    {"legacy-bridge", func(v target) { v["allowed"] = target{"databaseIDs": []string{"spiffe://aws.company.com"}} }, "databaseIDs"},
		"an upstream with a path": {"api-gateway", func(v target) { v["upstreams"] = []target{call("gcp", "https://10.1.1.1:8443/api", dataID, nil)} }, "url"},
		"an issuer in plain HTTP": {"api-gateway", func(v target) { v["issuers"] = target{"aws.company.com": "http://oidc.aws.company.com"} }, "issuers"},
		"a call in plain HTTP":    {"frontend", func(v target) { v["calls"] = []target{call("gcp", "http://10.1.1.1:8080/", dataID, nil)} }, "url"},
		"a field that does not exist": {"frontend", func(v target) {
			v["calls"] = []target{call("gcp", "https://10.1.1.1:8443/", dataID, target{"id": "x"})}
		}, "id"},
		"a label that is none": {"data-service", func(v target) { v["version"] = "v2/beta" }, "version"},
		"a tunnel for others": {"plain-service", func(v target) {
			v["tunnels"] = []target{{"listen": "0.0.0.0:9001", "target": "10.1.1.1:8443", "server": dataID}}
		}, "listen"},
		"a tunnel to anybody": {"plain-service", func(v target) {
			v["tunnels"] = []target{{"listen": "127.0.0.1:9001", "target": "10.1.1.1:8443", "server": "spiffe://gcp.company.com"}}
		}, "server"},
		"anybody may call":  {"plain-service", func(v target) { v["allowed"] = target{"ids": []string{}} }, "ids"},
		"all trust domains": {"probe", func(v target) { v["allowedTrustDomains"] = []string{"*"} }, "allowedTrustDomains"},
		"no trust domain":   {"probe", func(v target) { v["allowedTrustDomains"] = []string{} }, "allowedTrustDomains"},
		"the article's database": {"data-service", func(v target) {
			v["legacy"] = target{"url": "https://database.onprem.company.com:5432", "bridge": bridgeID, "secret": "x"}
		}, "url"},
		"a bridge that is anybody": {"data-service", func(v target) {
			v["legacy"] = target{"url": "postgres://app@10.192.1.3:5432/app", "bridge": "spiffe://onprem.company.com", "secret": "x"}
		}, "bridge"},
		"TLS without a helper":     {"postgres", func(v target) { v["tls"] = target{"socketDir": "/run/spire/agent-sockets"} }, "helper"},
		"a role that needs quotes": {"postgres", func(v target) { v["user"] = "data-service" }, "user"},
	} {
		t.Run(name, func(t *testing.T) {
			values, _ := demos()[test.chart].(target)
			test.spoil(values)
			_, err := render(test.chart, "demo", values)
			if err == nil || !strings.Contains(err.Error(), "values don't meet the specifications of the schema") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one of the schema's about %s", err, test.want)
			}
		})
	}
}

// The programs must know the variables that the charts set, and take their
// values.
func TestProgramsTakeWhatTheChartsSet(t *testing.T) {
	bin := t.TempDir()
	all := map[string][]any{}
	for name, values := range demos() {
		all[name] = append(all[name], values)
	}
	for _, releases := range driven(t) {
		for _, r := range releases {
			all[r.Chart] = append(all[r.Chart], r.Values)
		}
	}
	delete(all, "spire")
	delete(all, spire.DiscoveryChart) // it has no variables
	for name, tries := range all {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(bin, name)
			if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../apps/"+name).CombinedOutput(); err != nil {
				t.Fatalf("build apps/%s: %v\n%s", name, err, output)
			}
			help, err := exec.CommandContext(t.Context(), program, "-h").CombinedOutput()
			if err != nil {
				t.Fatalf("%s -h: %v\n%s", name, err, help)
			}
			for _, values := range tries {
				takes(t, name, program, string(help), values)
			}
		})
	}
}

// takes runs a program with the variables that its chart sets for these values.
func takes(t *testing.T, name, program, help string, values any) {
	t.Helper()
	manifests, err := render(name, "demo", values)
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for _, variable := range variables(t, manifests) {
		if !strings.Contains(help, "["+variable.Name+"]") {
			t.Errorf("the program does not know %s", variable.Name)
		}
		env = append(env, variable.Name+"="+variable.Value)
	}
	// It reads all its settings, and then cannot open a port that is none.
	args := []string{"-listen=256.0.0.1:0"}
	if strings.Contains(help, "-health-listen") {
		args = []string{"-health-listen=256.0.0.1:0"}
	}
	if name == "postgres" {
		args = []string{"-data=" + filepath.Join(t.TempDir(), "nowhere")}
	}
	command := exec.CommandContext(t.Context(), program, args...)
	command.Env = env
	var said bytes.Buffer
	command.Stderr = &said
	var ended *exec.ExitError
	if err := command.Run(); !errors.As(err, &ended) || ended.ExitCode() != 1 {
		t.Errorf("%s ends with %v:\n%s\nwith %v", name, err, said.String(), env)
	}
}

type variable struct{ Name, Value string }

// variables returns what the first container of a chart's workload is told.
func variables(t *testing.T, manifests map[string]string) []variable {
	t.Helper()
	for _, file := range []string{"deployment.yaml", "statefulset.yaml"} {
		var workload struct {
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Env []variable } }
				}
			}
		}
		if err := yaml.Unmarshal([]byte(manifests[file]), &workload); err != nil {
			t.Fatal(err)
		}
		if containers := workload.Spec.Template.Spec.Containers; len(containers) > 0 {
			return containers[0].Env
		}
	}
	t.Fatal("the chart has no workload")
	return nil
}

// TestPostgresHasNoPassword: Helm keeps what a chart makes.
func TestPostgresHasNoPassword(t *testing.T) {
	manifests, err := render("postgres", "demo", demos()["postgres"])
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range manifests {
		if regexp.MustCompile(`(?m)^kind: Secret$`).MatchString(text) {
			t.Errorf("%s makes a Secret", file)
		}
	}
	if !strings.Contains(manifests["statefulset.yaml"], "secretName: postgres-login\n") {
		t.Errorf("the password is not taken from postgres-login:\n%s", manifests["statefulset.yaml"])
	}
}

// TestPostgresWithTLS renders what only a database with an identity has.
func TestPostgresWithTLS(t *testing.T) {
	values := target{"image": "example.com/postgres:15", "tls": target{"helper": "example.com/spiffe-helper:1", "socketDir": "/run/spire/agent-sockets"}}
	manifests, err := render("postgres", "demo", values)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/postgres-tls.yaml", manifests)
	plain, err := render("postgres", "demo", demos()["postgres"])
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range plain {
		if strings.Contains(text, "svid") || strings.Contains(text, "shareProcessNamespace") {
			t.Errorf("without TLS, %s has to do with it:\n%s", file, text)
		}
	}
}
