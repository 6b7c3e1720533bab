package charts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// A server outside Kubernetes is set up like one that the chart installs: the section of
// its own settings is the same text.
func TestServerOnAHostIsSetUpAsInACluster(t *testing.T) {
	for name, change := range map[string]func(*spire.Settings){
		"as it is": func(*spire.Settings) {},
		"with less": func(s *spire.Settings) {
			s.Server.Domain.CASubject, s.Server.Domain.JWTIssuer = topology.CASubject{}, ""
		},
		"with more": func(s *spire.Settings) {
			s.Server.Domain.CAKeyType, s.Server.Domain.JWTKeyType = topology.RSA2048, topology.ECP384
			s.Server.Domain.CASubject.Organization = `"Company" \ ${`
			s.Static = []spire.FederatesWithValues{
				{TrustDomain: "cluster3.com", URL: "https://10.192.3.1:8443", Profile: topology.HTTPSWeb},
				{TrustDomain: "cluster2.com", URL: "https://10.192.2.1:8443", Profile: topology.HTTPSSPIFFE, EndpointSPIFFEID: "spiffe://cluster2.com/spire/server"},
			}
		},
	} {
		var onHost spire.HostServer
		manifests := mustRender(t, values(func(s *spire.Settings) {
			change(s)
			onHost = spire.HostServer{Domain: s.Server.Domain, Static: s.Static}
		}))
		want := serverSection(t, objects(t, manifests)["ConfigMap/spire-server"].Data["server.conf"])
		if got := serverSection(t, onHost.Config()); got != want {
			t.Errorf("%s: on a host\n%s\nin a cluster\n%s", name, got, want)
		}
	}
}

// A server in a cluster lets agents on hosts attest with join tokens, and is reached by them,
// where its trust domain has any, and else not.
func TestServerOfAgentsOnHosts(t *testing.T) {
	for _, with := range []bool{false, true} {
		manifests := mustRender(t, values(func(s *spire.Settings) {
			if with {
				host := &topology.Host{HostSpec: topology.HostSpec{Name: "onprem"}}
				s.Server.Members = append(s.Server.Members, &topology.Member{Domain: s.Server.Domain, Server: s.Server, Place: topology.Place{Host: host}})
			}
		}))
		if got := strings.Contains(objects(t, manifests)["ConfigMap/spire-server"].Data["server.conf"], "NodeAttestor \"join_token\" {\n"); got != with {
			t.Errorf("with a host %t: the server takes join tokens: %t", with, got)
		}
		if reached := strings.Contains(manifests["server-services.yaml"], fmt.Sprintf("{name: api, port: %d", spire.APIPort)); reached != with {
			t.Errorf("with a host %t: the server's API is at its address: %t", with, reached)
		}
	}
}

// serverSection returns the first section of a server's configuration.
func serverSection(t *testing.T, config string) string {
	t.Helper()
	section, _, found := strings.Cut(config, "\n}\n")
	if !found || !strings.HasPrefix(section, "server {\n") {
		t.Fatalf("no section server in\n%s", config)
	}
	return section
}
