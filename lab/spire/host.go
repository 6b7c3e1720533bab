package spire

import (
	"crypto/rand"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Where SPIRE's programs on a host outside Kubernetes have their files, each in a
// container of its own. What is in charts/spire, too, is there at the same path.
const (
	// HostDataDir is what outlives the container of a server or an agent.
	HostDataDir = "/run/spire/data"
	// HostServerConfig and HostAgentConfig are the configurations.
	HostServerConfig = "/run/spire/config/server.conf"
	HostAgentConfig  = "/run/spire/config/agent.conf"
	// HostBundle holds the X.509 authorities, in PEM, that an agent knows its server by
	// at its first start, and HostJoinToken the token that it attests with then.
	HostBundle    = "/run/spire/start/bundle.crt"
	HostJoinToken = "/run/spire/start/join-token"
	// HostSocketDir is the folder of the agent's socket, spire-agent.sock. An agent that
	// starts again makes another socket, so workloads are given the folder.
	HostSocketDir = "/run/spire/agent-sockets"
	// HostWebRoots holds what verifies the https_web endpoints of others, in PEM, where a
	// server has such peers.
	HostWebRoots = "/run/spire/web-roots/roots.pem"
	// AgentProgram is SPIRE's agent in its image, as ServerProgram is the server.
	AgentProgram = "/opt/spire/bin/spire-agent"
	// HostHealthPort is where a server and an agent tell whether they are well, in HTTP.
	HostHealthPort = 8080
)

// HostServer is a SPIRE server in a container outside Kubernetes.
type HostServer struct {
	Domain *topology.Domain
	// Static are as Settings has them.
	Static []FederatesWithValues
}

// WebRoots returns the variables of a server by which it verifies the https_web endpoints
// of others with HostWebRoots alone.
func WebRoots() map[string]string {
	return map[string]string{"SSL_CERT_FILE": HostWebRoots, "SSL_CERT_DIR": path.Dir(HostWebRoots)}
}

// Config returns the configuration of the server. Its server section says what that of
// charts/spire says, except that no Service is in front of the bundle endpoint: it
// listens on the port that peers know. Agents attest with join tokens.
func (s HostServer) Config() string {
	static := slices.SortedFunc(slices.Values(s.Static), func(a, b FederatesWithValues) int { return strings.Compare(a.TrustDomain, b.TrustDomain) })
	return written(hostServer, struct {
		*topology.Domain
		AdminID string
		Static  []FederatesWithValues
	}{s.Domain, AdminID(s.Domain.Name).String(), static})
}

// HostAgent is a SPIRE agent in a container outside Kubernetes.
type HostAgent struct {
	Domain *topology.Domain
	// Server is where the API of the server is.
	Server netip.AddrPort
}

// Config returns the configuration of the agent. It attests with a join token, once:
// later it starts with the SVID and the key that are in its data. SPIRE does not let an
// agent that has lost them, or let the SVID expire, attest with the same token, and
// cannot take the server's keys again by itself, as it does for agents that can attest
// again (cmd/spire-agent/cli/run/run.go, rebootstrap_mode).
//
// Workloads are attested by who runs them and by their program. To find the program of
// another user's process the agent needs the capability SYS_PTRACE (proc(5)).
func (a HostAgent) Config() string { return written(hostAgent, a) }

func written(t *template.Template, values any) string {
	var text strings.Builder
	if err := t.Execute(&text, values); err != nil {
		panic(err) // the templates and their values are in this file
	}
	return text.String()
}

// hclText is somebody's text as a string of HCL, which takes "${" for the start of an
// interpolation.
func hclText(text string) string {
	return strings.ReplaceAll(strconv.Quote(text), "$", `\x24`)
}

func hostTemplate(name, text string) *template.Template {
	return template.Must(template.New(name).Option("missingkey=error").Funcs(template.FuncMap{"text": hclText}).Parse(text))
}

var hostServer = hostTemplate("server.conf", `server {
  trust_domain = "{{.Name.Name}}"
  bind_address = "0.0.0.0"
  bind_port = 8081
  socket_path = "/tmp/spire-server/private/api.sock"
  data_dir = "`+HostDataDir+`"
  log_level = "{{.LogLevel}}"
  admin_ids = ["{{.AdminID}}"]

  ca_ttl = "{{.CATTL}}"
  {{- with .CAKeyType}}
  ca_key_type = "{{.}}"
  {{- end}}
  {{- with .JWTKeyType}}
  jwt_key_type = "{{.}}"
  {{- end}}
  default_x509_svid_ttl = "{{.X509SVIDTTL}}"
  default_jwt_svid_ttl = "{{.JWTSVIDTTL}}"
  {{- with .JWTIssuer}}
  jwt_issuer = {{text .}}
  {{- end}}
  {{- with .CASubject}}
  {{- if or .Country .Organization .CommonName}}
  ca_subject {
    {{- with .Country}}
    country = [{{text .}}]
    {{- end}}
    {{- with .Organization}}
    organization = [{{text .}}]
    {{- end}}
    {{- with .CommonName}}
    common_name = {{text .}}
    {{- end}}
  }
  {{- end}}
  {{- end}}

  experimental {
    # SPIRE's own is 5s.
    cache_reload_interval = "1s"
  }

  federation {
    bundle_endpoint {
      address = "0.0.0.0"
      port = {{.BundleEndpoint.Port}}
      refresh_hint = "{{.BundleEndpoint.RefreshHint}}"
      profile "https_spiffe" {}
    }
    {{- range .Static}}
    federates_with "{{.TrustDomain}}" {
      bundle_endpoint_url = "{{.URL}}"
      {{- if .EndpointSPIFFEID}}
      bundle_endpoint_profile "https_spiffe" {
        endpoint_spiffe_id = "{{.EndpointSPIFFEID}}"
      }
      {{- else}}
      bundle_endpoint_profile "{{.Profile}}" {}
      {{- end}}
    }
    {{- end}}
  }
}

plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = "`+HostDataDir+`/datastore.sqlite3"
    }
  }
  KeyManager "disk" {
    plugin_data {
      keys_path = "`+HostDataDir+`/keys.json"
    }
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
}

health_checks {
  listener_enabled = true
  bind_address = "0.0.0.0"
  bind_port = "8080"
  live_path = "/live"
  ready_path = "/ready"
}

telemetry {
  Prometheus {
    host = "0.0.0.0"
    port = 9988
  }
}
`)

var hostAgent = hostTemplate("agent.conf", `agent {
  trust_domain = "{{.Domain.Name.Name}}"
  server_address = "{{.Server.Addr}}"
  server_port = {{.Server.Port}}
  socket_path = "`+HostSocketDir+`/spire-agent.sock"
  data_dir = "`+HostDataDir+`"
  log_level = "{{.Domain.LogLevel}}"
  trust_bundle_path = "`+HostBundle+`"
  join_token_file = "`+HostJoinToken+`"
  experimental {
    # SPIRE's own is 5s.
    sync_interval = "1s"
  }
}

plugins {
  NodeAttestor "join_token" {
    plugin_data {}
  }
  KeyManager "disk" {
    plugin_data {
      directory = "`+HostDataDir+`"
    }
  }
  WorkloadAttestor "unix" {
    plugin_data {
      discover_workload_path = true
      # A selector by the program's digest is not asked for: it would be computed for
      # every request.
      workload_size_limit = -1
    }
  }
}

health_checks {
  listener_enabled = true
  bind_address = "0.0.0.0"
  bind_port = "8080"
  live_path = "/live"
  ready_path = "/ready"
}
`)

// joinedPath is where the IDs of agents begin that have attested with a join token
// (pkg/server/api/agent/v1/service.go, joinTokenID). The token itself follows.
const joinedPath = "/spire/agent/join_token/"

// NewJoinToken returns a token for an agent on a host, which nobody can guess. The
// host's name is in it, so that the agent's SPIFFE ID tells where it is.
func NewJoinToken(host string) string { return host + "." + rand.Text() }

// JoinedAgentID returns the SPIFFE ID of the agent of td that has attested with a token.
func JoinedAgentID(td spiffeid.TrustDomain, token string) spiffeid.ID {
	return spiffeid.RequireFromPath(td, joinedPath+token)
}

// JoinedOn returns the host on which an agent has attested with a token of
// NewJoinToken, by its SPIFFE ID; empty for what is none.
func JoinedOn(agent spiffeid.ID) string {
	token, joined := strings.CutPrefix(agent.Path(), joinedPath)
	host, secret, ours := strings.Cut(token, ".")
	if !joined || !ours || secret == "" {
		return ""
	}
	return host
}
