// Package spiretest runs real SPIRE programs, and Pebble, as plain processes on this machine,
// for tests: a server answers within a second and needs no cluster.
//
// It refuses to take the place of SPIRE. Where the programs are not at hand, tests
// that need them are skipped, and fail where CI=true.
package spiretest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// ServerVariable is the environment variable that names spire-server.
	ServerVariable = "FEDLAB_SPIRE_SERVER"
	// AgentVariable is the environment variable that names spire-agent.
	AgentVariable = "FEDLAB_SPIRE_AGENT"
	// PebbleVariable is the environment variable that names pebble.
	PebbleVariable = "FEDLAB_PEBBLE"
	// DiscoveryVariable is the environment variable that names oidc-discovery-provider.
	DiscoveryVariable = "FEDLAB_OIDC_DISCOVERY_PROVIDER"
)

// startLimit is how long a process may take until it answers, on a machine that
// has much else to do.
const startLimit = time.Minute

// serverConfig is filled in by Start.
var serverConfig = template.Must(template.New("server.conf").Parse(`server {
	trust_domain = "{{.TrustDomain}}"
	bind_address = "127.0.0.1"
	bind_port = {{.APIPort}}
	socket_path = "{{.Socket}}"
	data_dir = "{{.Dir}}"
	log_level = "debug"
	admin_ids = ["{{.AdminID}}"]
	{{.Server}}
	federation {
		bundle_endpoint {
			address = "127.0.0.1"
			port = {{.EndpointPort}}
			refresh_hint = "1m"
			{{.Profile}}
		}
		{{.FederatesWith}}
	}
}
plugins {
	DataStore "sql" {
		plugin_data {
			{{.Datastore}}
		}
	}
	{{if .Keys}}KeyManager "disk" { plugin_data { keys_path = "{{.Keys}}" } }
	{{else}}KeyManager "memory" { plugin_data {} }
	{{end}}NodeAttestor "join_token" { plugin_data {} }
	{{.Plugins}}
}
{{if .Metrics}}telemetry {
	Prometheus { host = "127.0.0.1" port = {{.MetricsPort}} }
}{{end}}
`))

const agentConfig = `agent {
	trust_domain = %q
	server_address = %q
	server_port = %s
	socket_path = %q
	data_dir = %q
	join_token = %q
	trust_bundle_path = %q
	experimental { sync_interval = "1s" }
}
plugins {
	KeyManager "memory" { plugin_data {} }
	NodeAttestor "join_token" { plugin_data {} }
	WorkloadAttestor "unix" { plugin_data {} }
}
`

// Program returns the path of the program that the environment variable names.
// Without it the test ends here.
func Program(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	switch {
	case path != "":
		return path
	case os.Getenv("CI") == "true":
		t.Fatalf("%s must name the program in CI", variable)
	default:
		t.Skipf("%s does not name the program", variable)
	}
	return ""
}

// Config says how a server differs from the plainest one. Its texts are parts of
// a server's configuration, in HCL.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	// AdminID may use the API from afar.
	AdminID spiffeid.ID
	// Server is more of the server section.
	Server string
	// Profile is the profile of the bundle endpoint; empty is https_spiffe.
	Profile string
	// FederatesWith is any number of federates_with blocks.
	FederatesWith string
	// Datastore is the plugin_data of the datastore; empty is a new sqlite file.
	Datastore string
	// Keys is the file that keeps the server's keys; empty is its memory.
	Keys string
	// Plugins are further plugins.
	Plugins string
	// Metrics has the server show its metrics.
	Metrics bool
	// Env is added to the environment, as NAME=value.
	Env []string
}

// Server is a running spire-server.
type Server struct {
	TrustDomain spiffeid.TrustDomain
	// API is the host and port of its API.
	API string
	// BundleEndpoint is the URL of its bundle endpoint, with a refresh hint of a
	// minute. It names the address 127.0.0.1.
	BundleEndpoint string
	// Metrics is the URL of its metrics, where Config asks for them.
	Metrics string

	program, socket string
	log             *log
}

// StartServer starts a server for that trust domain, with join tokens and
// in-memory keys, and waits until it is healthy. It ends with the test, and its
// log is shown when the test has failed. adminID may use the API from afar.
func StartServer(t *testing.T, td spiffeid.TrustDomain, adminID spiffeid.ID) *Server {
	t.Helper()
	return Start(t, Config{TrustDomain: td, AdminID: adminID})
}

// Start is StartServer with more said about the server.
func Start(t *testing.T, c Config) *Server {
	t.Helper()
	program := Program(t, ServerVariable)
	dir := t.TempDir()
	ports := FreePorts(t, 3)
	s := &Server{
		TrustDomain:    c.TrustDomain,
		API:            fmt.Sprintf("127.0.0.1:%d", ports[0]),
		BundleEndpoint: fmt.Sprintf("https://127.0.0.1:%d", ports[1]),
		program:        program,
		socket:         filepath.Join(dir, "api.sock"),
	}
	if c.Metrics {
		s.Metrics = fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	}
	if c.Profile == "" {
		c.Profile = `profile "https_spiffe" {}`
	}
	if c.Datastore == "" {
		c.Datastore = fmt.Sprintf("database_type = \"sqlite3\"\nconnection_string = %q", filepath.Join(dir, "datastore.sqlite3"))
	}
	var config strings.Builder
	err := serverConfig.Execute(&config, struct {
		Config
		Dir, Socket                        string
		APIPort, EndpointPort, MetricsPort int
	}{c, dir, s.socket, ports[0], ports[1], ports[2]})
	if err != nil {
		t.Fatal(err)
	}
	s.log = start(t, dir, program, config.String(), c.Env, func(ctx context.Context) error {
		_, err := s.Exec(ctx, "healthcheck")
		return err
	})
	return s
}

// Log returns what the server has written to its log so far.
func (s *Server) Log() string { return s.log.String() }

// Exec runs the server's program against the server, as spire.Exec asks for it.
func (s *Server) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	var stderr bytes.Buffer
	command := exec.CommandContext(ctx, s.program, append(argv, "-socketPath", s.socket)...)
	command.Stderr = &stderr
	stdout, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("spire-server %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout, nil
}

// Run is Exec for a test that cannot go on without it.
func (s *Server) Run(t *testing.T, argv ...string) []byte {
	t.Helper()
	stdout, err := s.Exec(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout
}

// Dial connects to the server's API, as spire.Dial asks for it.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.API)
}

// StartAgent starts an agent that attests to the server with a join token, and
// waits until it is healthy. It ends with the test. It asks its server every
// second what is new, and attests workloads as the processes that they are, at
// the address that is returned.
func (s *Server) StartAgent(t *testing.T) (workloadAPI string) {
	t.Helper()
	program := Program(t, AgentVariable)
	dir := t.TempDir()
	var token struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(s.Run(t, "token", "generate", "-output", "json"), &token); err != nil {
		t.Fatalf("read join token: %v", err)
	}
	bundle := filepath.Join(dir, "bundle.crt")
	if err := os.WriteFile(bundle, s.Run(t, "bundle", "show"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "agent.sock")
	host, port, err := net.SplitHostPort(s.API)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(agentConfig, s.TrustDomain.Name(), host, port, socket, dir, token.Value, bundle)
	start(t, dir, program, config, nil, Healthy(program, socket))
	return "unix://" + socket
}

// Healthy returns a check of whether the program at a socket is well: a server at its
// private one, or an agent.
func Healthy(program, socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		output, err := exec.CommandContext(ctx, program, "healthcheck", "-socketPath", socket).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s healthcheck: %w: %s", filepath.Base(program), err, bytes.TrimSpace(output))
		}
		return nil
	}
}

// log is what a process writes, which may be read meanwhile.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs the program with that configuration, and with env added to the
// environment, until the test ends, and waits until healthy returns nil.
func start(t *testing.T, dir, program, config string, env []string, healthy func(context.Context) error) *log {
	t.Helper()
	p := launch(t, dir, program, []string{"run"}, config, env)
	p.Await(t, healthy)
	return &p.log
}

// Process is a program with a configuration of the test's own.
type Process struct {
	program string
	command *exec.Cmd
	log     log
	// ended is closed once the process has; err is how.
	ended chan struct{}
	err   error
}

// Launch runs the program that the environment variable names, with that configuration
// and with env added to the environment, until the test ends. It waits for nothing.
func Launch(t *testing.T, variable, config string, env ...string) *Process {
	t.Helper()
	verb := []string{"run"}
	if variable == DiscoveryVariable {
		verb = nil // it does nothing else
	}
	return launch(t, t.TempDir(), Program(t, variable), verb, config, env)
}

func launch(t *testing.T, dir, program string, verb []string, config string, env []string) *Process {
	t.Helper()
	path := filepath.Join(dir, "spire.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return execute(t, exec.CommandContext(t.Context(), program, append(verb, "-config", path)...), env)
}

// execute runs a command with env added to the environment until the test ends.
func execute(t *testing.T, command *exec.Cmd, env []string) *Process {
	t.Helper()
	program := command.Path
	p := &Process{program: program, ended: make(chan struct{})}
	command.Stdout, command.Stderr = &p.log, &p.log
	command.Env = append(os.Environ(), env...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	if err := command.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	p.command = command
	go func() { p.err = command.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		// The test's context is done by now, and with it the process.
		<-p.ended
		if t.Failed() {
			t.Logf("log of %s:\n%s", filepath.Base(program), p.Log())
		}
	})
	return p
}

// Log returns what the process has written so far.
func (p *Process) Log() string { return p.log.String() }

// Await waits until healthy returns nil. The test ends where the process does, or after
// the limit.
func (p *Process) Await(t *testing.T, healthy func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	last := errors.New("not asked yet")
	for {
		if err := healthy(ctx); err == nil {
			return
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-p.ended:
			t.Fatalf("%s ended before it was healthy: %v", p.program, p.err)
		case <-ctx.Done():
			t.Fatalf("%s is not healthy after %s: %v", p.program, startLimit, last)
		case <-again.C:
		}
	}
}

// Kill ends the process at once, as a power failure would.
func (p *Process) Kill(t *testing.T) {
	t.Helper()
	if err := p.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.ended
}

// Refused waits until the process has ended by itself with an error.
func (p *Process) Refused(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		if p.err == nil {
			t.Fatalf("%s ended without an error", p.program)
		}
	case <-time.After(startLimit):
		t.Fatalf("%s still runs after %s", p.program, startLimit)
	}
}

// lastPort is the one that FreePorts returned last. They lie below those of which
// the system gives one to who asks for any (32768 and up), as other tests do while
// a server starts. Processes that test side by side begin apart.
var (
	lastPort   = 10000 + os.Getpid()%50*200
	lastPortMu sync.Mutex
)

// FreePorts returns ports of the loopback interface that nobody listens on.
func FreePorts(t *testing.T, n int) []int {
	t.Helper()
	lastPortMu.Lock()
	defer lastPortMu.Unlock()
	var ports []int
	for len(ports) < n {
		lastPort++
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", lastPort))
		switch {
		case err == nil:
			ports = append(ports, lastPort)
			err = listener.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return ports
}
