package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	endpoint "github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
)

// The variables by which the docker command finds its engine.
const (
	hostVariable  = client.EnvOverrideHost
	tlsVariable   = client.EnvTLSVerify
	certsVariable = client.EnvOverrideCertPath
	// skipVariable wants TLS that verifies nobody; only the docker command
	// knows it.
	skipVariable    = "DOCKER_TLS"
	contextVariable = "DOCKER_CONTEXT"
	configVariable  = "DOCKER_CONFIG"
)

const defaultContext = "default"

// Engine says where an engine is, as the docker command finds it.
type Engine struct {
	// Host is its address: "unix:///var/run/docker.sock".
	Host string
	// Context is the name of the docker command's context that names it;
	// "default" is that of the variables, or of this machine.
	Context string

	endpoint endpoint.Endpoint
	// certs is the folder with the context's ca.pem, cert.pem and key.pem; empty
	// where it has none.
	certs string
}

// Find finds the engine that the docker command would talk to: the one that
// DOCKER_HOST names with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, else that of
// the context which DOCKER_CONTEXT, or else Docker's configuration file,
// chooses, else the one of this machine. It connects to nothing.
func Find() (Engine, error) {
	if host := os.Getenv(hostVariable); host != "" {
		return Engine{Host: host, Context: defaultContext, endpoint: endpoint.Endpoint{EndpointMeta: endpoint.EndpointMeta{Host: host}}}, nil
	}
	dir, err := configuration()
	if err != nil {
		return Engine{}, err
	}
	file, err := config.Load(dir)
	if err != nil {
		return Engine{}, fmt.Errorf("read docker's configuration: %w", err)
	}
	name := os.Getenv(contextVariable)
	if name == "" {
		name = file.CurrentContext
	}
	if name == "" || name == defaultContext {
		return Engine{Host: client.DefaultDockerHost, Context: defaultContext}, nil
	}
	engine, err := inContext(filepath.Join(dir, "contexts"), name)
	if err != nil {
		return Engine{}, fmt.Errorf("find docker engine: %w", err)
	}
	return engine, nil
}

// configuration is the docker command's folder. The command's own function
// remembers what it found first.
func configuration() (string, error) {
	if dir := os.Getenv(configVariable); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find docker's configuration: %w", err)
	}
	return filepath.Join(home, ".docker"), nil
}

func inContext(dir, name string) (Engine, error) {
	contexts := store.New(dir, store.NewConfig(func() any { return &map[string]any{} },
		store.EndpointTypeGetter(endpoint.DockerEndpoint, func() any { return &endpoint.EndpointMeta{} })))
	metadata, err := contexts.GetMetadata(name)
	if err != nil {
		return Engine{}, err
	}
	meta, err := endpoint.EndpointFromContext(metadata)
	if err != nil {
		return Engine{}, fmt.Errorf("context %q: %w", name, err)
	}
	if meta.Host == "" {
		return Engine{}, fmt.Errorf("context %q: it names no host", name)
	}
	found, err := endpoint.WithTLSData(contexts, name, meta)
	if err != nil {
		return Engine{}, fmt.Errorf("context %q: %w", name, err)
	}
	engine := Engine{Host: meta.Host, Context: name, endpoint: found}
	if found.TLSData != nil {
		engine.certs = filepath.Join(contexts.GetStorageInfo(name).TLSPath, endpoint.DockerEndpoint)
	}
	return engine, nil
}

// options are those of the client for the engine. The client's own reading of
// the variables knows no ssh.
func (e Engine) options() ([]client.Opt, error) {
	if e.Context == defaultContext && !strings.HasPrefix(e.Host, "ssh:") {
		return []client.Opt{client.FromEnv}, nil
	}
	return e.endpoint.ClientOpts()
}

// Export sets the variables of this process, so that the programs it starts and
// the libraries in it find the same engine, whether or not they know contexts.
func (e Engine) Export() error {
	set := map[string]string{hostVariable: e.Host}
	if e.Context != defaultContext {
		set[certsVariable], set[tlsVariable], set[skipVariable] = e.certs, "", ""
		switch {
		case e.endpoint.SkipTLSVerify:
			set[skipVariable] = "1"
		case e.certs != "":
			set[tlsVariable] = "1"
		}
	}
	for name, value := range set {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("pass on the docker engine: %w", err)
		}
	}
	return nil
}
