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
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"

	"github.com/fedlab-dev/fedlab/charts"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// render returns the manifests of an embedded chart, which finds nothing in its
// cluster, by the names of their templates.
func render(name, namespace string, values any) (map[string]string, error) {
	return renderWith(engine.Render, name, namespace, values)
}

// renderer is what engine.Render is.
type renderer func(*chart.Chart, chartutil.Values) (map[string]string, error)

func renderWith(render renderer, name, namespace string, values any) (map[string]string, error) {
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
	rendered, err := render(loaded, toRender)
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
	manifests, err := render("spire", spire.Namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

// market is a trust domain with everything that a lab file may ask for.
func market() spire.Values {
	return spire.NewValues(topology.TrustDomain{
		Name:    spiffeid.RequireTrustDomainFromString("cluster1.com"),
		Cluster: "market",
		BundleEndpoint: topology.BundleEndpoint{
			Profile:     topology.HTTPSSPIFFE,
			Port:        8443,
			RefreshHint: time.Minute,
		},
		CATTL:       24 * time.Hour,
		X509SVIDTTL: time.Hour,
		JWTSVIDTTL:  5 * time.Minute,
		CASubject:   topology.CASubject{Country: "US", Organization: "Company Corp", CommonName: "SPIRE Server CA - Market"},
		JWTIssuer:   "https://oidc.cluster1.com",
		LogLevel:    "info",
	}, netip.MustParseAddr("10.192.1.1"), spire.Images{
		Server:            "example.com/spire-server:1.15.3",
		Agent:             "example.com/spire-agent:1.15.3",
		ControllerManager: "example.com/spire-controller-manager:0.7.0",
	})
}

// plain is a trust domain that leaves out what may be left out.
func plain() spire.Values {
	values := market()
	values.Server.CASubject = spire.CASubjectValues{}
	values.Server.JWTIssuer = ""
	return values
}

func TestSPIREGolden(t *testing.T) {
	golden(t, "testdata/spire.yaml", mustRender(t, market()))
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
	Spec     struct {
		Template struct {
			Metadata struct{ Annotations map[string]string }
			Spec     struct {
				Containers []struct {
					Name    string
					Command []string
					Ports   []struct {
						ContainerPort int `yaml:"containerPort"`
					}
				}
			}
		}
	}
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
	if !ok || server.Metadata.Namespace != spire.Namespace {
		t.Fatalf("no StatefulSet in namespace %s makes pod %s", spire.Namespace, spire.ServerPod)
	}
	container := server.Spec.Template.Spec.Containers[0]
	if container.Name != spire.ServerContainer || container.Command[0] != spire.ServerProgram || container.Ports[0].ContainerPort != spire.APIPort {
		t.Errorf("container %+v, want %s with %s and port %d", container, spire.ServerContainer, spire.ServerProgram, spire.APIPort)
	}
	if _, ok := all["DaemonSet/"+spire.AgentDaemonSet]; !ok {
		t.Errorf("no DaemonSet %s", spire.AgentDaemonSet)
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
		{"a profile for which the chart has no settings", with(func(v *spire.Values) { v.BundleEndpoint.Profile = "https_web" }), "profile"},
		{"an image without a tag", with(func(v *spire.Values) { v.Images.Agent = "example.com/spire-agent" }), "agent"},
		{"a name instead of an address", with(func(v *spire.Values) { v.BundleEndpoint.Address = "market.test" }), "address"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := render("spire", spire.Namespace, test.values)
			if err == nil || !strings.Contains(err.Error(), "values don't meet the specifications of the schema") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one of the schema's about %s", err, test.want)
			}
		})
	}
}

func with(change func(*spire.Values)) spire.Values {
	values := market()
	change(&values)
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
		{"agent", spiretest.AgentVariable, "ConfigMap/spire-agent", "agent.conf", market()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			program := spiretest.Program(t, test.variable)
			config := objects(t, mustRender(t, test.values))[test.object].Data[test.key]
			path := filepath.Join(t.TempDir(), test.key)
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
