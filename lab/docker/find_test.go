package docker

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	endpoint "github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
)

// commandConfig is a folder of the docker command's, in which currentContext
// chooses, and nothing in the environment.
func commandConfig(t *testing.T, current string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{hostVariable, tlsVariable, certsVariable, skipVariable, contextVariable, "DOCKER_API_VERSION"} {
		t.Setenv(name, "")
	}
	t.Setenv(configVariable, dir)
	if current != "" {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"currentContext": "`+current+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// addContext makes a context as "docker context create" does.
func addContext(t *testing.T, dir, name string, meta endpoint.EndpointMeta, files map[string][]byte) {
	t.Helper()
	contexts := store.New(filepath.Join(dir, "contexts"), store.NewConfig(func() any { return &map[string]any{} }))
	err := contexts.CreateOrUpdate(store.Metadata{Name: name, Metadata: map[string]any{"Description": "of a test"}, Endpoints: map[string]any{endpoint.DockerEndpoint: meta}})
	if err == nil && files != nil {
		err = contexts.ResetEndpointTLSMaterial(name, endpoint.DockerEndpoint, &store.EndpointTLSData{Files: files})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	const chosen, other = "unix:///run/chosen.sock", "unix:///run/other.sock"
	for name, tt := range map[string]struct {
		current     string
		environment map[string]string
		want        string
		context     string
	}{
		"nothing is said":                    {"", nil, client.DefaultDockerHost, "default"},
		"the current context":                {"chosen", nil, chosen, "chosen"},
		"the default context by its name":    {"default", nil, client.DefaultDockerHost, "default"},
		"DOCKER_CONTEXT before the file":     {"chosen", map[string]string{contextVariable: "other"}, other, "other"},
		"DOCKER_CONTEXT names the default":   {"chosen", map[string]string{contextVariable: "default"}, client.DefaultDockerHost, "default"},
		"DOCKER_HOST before either of them":  {"chosen", map[string]string{contextVariable: "other", hostVariable: "unix:///run/third.sock"}, "unix:///run/third.sock", "default"},
		"DOCKER_HOST before a broken choice": {"nowhere", map[string]string{hostVariable: "unix:///run/third.sock"}, "unix:///run/third.sock", "default"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := commandConfig(t, tt.current)
			addContext(t, dir, "chosen", endpoint.EndpointMeta{Host: chosen}, nil)
			addContext(t, dir, "other", endpoint.EndpointMeta{Host: other}, nil)
			for name, value := range tt.environment {
				t.Setenv(name, value)
			}
			got, err := Find()
			if err != nil || got.Host != tt.want || got.Context != tt.context {
				t.Errorf("engine %s of context %q, error %v, want %s of %q", got.Host, got.Context, err, tt.want, tt.context)
			}
		})
	}
}

func TestFindRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(*testing.T, string)
		want    string
	}{
		"a context that is not there": {func(*testing.T, string) {}, `find docker engine: context "chosen": context not found: `},
		"a context without a host": {func(t *testing.T, dir string) {
			t.Helper()
			addContext(t, dir, "chosen", endpoint.EndpointMeta{}, nil)
		}, `find docker engine: context "chosen": it names no host`},
		"a configuration that is not JSON": {func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "read docker's configuration: "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := commandConfig(t, "chosen")
			tt.arrange(t, dir)
			_, err := New()
			var unreachable *UnreachableError
			if !errors.As(err, &unreachable) || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %s…", err, tt.want)
			}
		})
	}
}

// exported is what Export left for children, without what is unset.
func exported(t *testing.T, c *Client) map[string]string {
	t.Helper()
	if err := c.Engine().Export(); err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for _, name := range []string{hostVariable, tlsVariable, certsVariable, skipVariable} {
		if value := os.Getenv(name); value != "" {
			set[name] = value
		}
	}
	return set
}

// TestEngineOfAContext: the client talks to the engine of the context, and those
// who know variables alone find the same one.
func TestEngineOfAContext(t *testing.T) {
	dir := commandConfig(t, "chosen")
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: newEngine(t).handler()}} //nolint:gosec // a test's server
	server.Start()
	t.Cleanup(server.Close)
	addContext(t, dir, "chosen", endpoint.EndpointMeta{Host: "unix://" + socket}, nil)
	first := newClient(t)
	if err := first.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := exported(t, first); len(got) != 1 || got[hostVariable] != "unix://"+socket {
		t.Errorf("exported %v", got)
	}
	t.Setenv(configVariable, t.TempDir()) // where no context is
	if err := newClient(t).Ping(t.Context()); err != nil {
		t.Errorf("by the variables: %v", err)
	}
}

// TestEngineOfAContextWithTLS does so with the certificates of the context.
func TestEngineOfAContextWithTLS(t *testing.T) {
	dir := commandConfig(t, "chosen")
	server := httptest.NewUnstartedServer(newEngine(t).handler())
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	shown := server.TLS.Certificates[0]
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shown.Certificate[0]})
	key, err := x509.MarshalPKCS8PrivateKey(shown.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"ca.pem": certificate, "cert.pem": certificate, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
	host := "tcp://" + server.Listener.Addr().String()
	addContext(t, dir, "chosen", endpoint.EndpointMeta{Host: host}, files)
	first := newClient(t)
	if err := first.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := exported(t, first)
	if got[hostVariable] != host || got[tlsVariable] != "1" || got[skipVariable] != "" {
		t.Errorf("exported %v", got)
	}
	for name, want := range files {
		if data, err := os.ReadFile(filepath.Join(got[certsVariable], name)); err != nil || string(data) != string(want) {
			t.Errorf("%s in %s: error %v", name, got[certsVariable], err)
		}
	}
	t.Setenv(configVariable, t.TempDir())
	if err := newClient(t).Ping(t.Context()); err != nil {
		t.Errorf("by the variables: %v", err)
	}
}

func newClient(t *testing.T) *Client {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// The structure that the docker command writes is the one that is read.
func TestFindReadsWhatTheCommandWrites(t *testing.T) {
	dir := commandConfig(t, "chosen")
	addContext(t, dir, "chosen", endpoint.EndpointMeta{Host: "unix:///run/chosen.sock"}, nil)
	files, err := filepath.Glob(filepath.Join(dir, "contexts", "meta", "*", "meta.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %q, error %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var meta struct {
		Name      string
		Endpoints map[string]struct{ Host string }
	}
	if err := json.Unmarshal(data, &meta); err != nil || meta.Endpoints["docker"].Host != "unix:///run/chosen.sock" {
		t.Errorf("%s, error %v", data, err)
	}
}
