package charts_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// spread returns a server whose trust domain has agents in two other clusters. In the
// second of them another trust domain is the first.
func spread() *topology.Server {
	s := server()
	for i, name := range []string{"branch", "depot"} {
		m := &topology.Member{Domain: s.Domain, Server: s, Place: topology.Place{
			Cluster: &topology.Cluster{ClusterSpec: topology.ClusterSpec{Name: name}}, Namespace: []string{"spire-system", "spire-system-2"}[i],
		}}
		if i > 0 {
			m.Class = m.Place.Namespace
		}
		s.Members = append(s.Members, m)
	}
	s.Domain.Members = s.Members
	return s
}

func spreadValues() spire.Values {
	return values(func(settings *spire.Settings) {
		settings.Server = spread()
		settings.Kubeconfigs = map[*topology.Member][]byte{}
		for _, m := range settings.Server.Remote() {
			settings.Kubeconfigs[m] = []byte("kubeconfig of " + m.Cluster().Name)
		}
	})
}

// renderAgents renders the chart as it is where the server is in another cluster.
func renderAgents(t *testing.T, m *topology.Member) map[string]string {
	t.Helper()
	manifests, err := render("spire", m.Place.Namespace, spire.NewAgentValues(m, "example.com/spire-agent:1.15.3"))
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(manifests, func(_, manifest string) bool { return strings.TrimSpace(manifest) == "" })
	return manifests
}

func TestSpreadGolden(t *testing.T) {
	all, same := mustRender(t, spreadValues()), mustRender(t, market())
	maps.DeleteFunc(all, func(file, manifest string) bool { return manifest == same[file] })
	golden(t, "testdata/spire-spread.yaml", all)
	golden(t, "testdata/spire-agents.yaml", renderAgents(t, spread().Remote()[0]))
}

// What a server finds in another cluster is what it looks for there.
func TestMembersAndServerFitTogether(t *testing.T) {
	s := spread()
	manifests := mustRender(t, spreadValues())
	all := objects(t, manifests)
	pod := all["StatefulSet/"+spire.ServerStatefulSet].Spec.Template.Spec
	config := all["ConfigMap/spire-server"].Data["server.conf"]
	var containers []string
	ports := map[int]string{}
	for _, c := range pod.Containers {
		containers = append(containers, c.Name)
		for _, p := range c.Ports {
			if other, taken := ports[p.ContainerPort]; taken {
				t.Errorf("%s and %s both listen on %d", other, c.Name, p.ContainerPort)
			}
			ports[p.ContainerPort] = c.Name
		}
	}
	want := []string{spire.ServerContainer}
	prefixes := map[string]bool{}
	for _, m := range s.Members {
		want = append(want, spire.ManagerContainer(m))
		file := "controller-manager.yaml"
		if m.Remote() {
			file = "controller-manager-" + m.Cluster().Name + ".yaml"
		}
		manager := all["ConfigMap/spire-controller-manager"].Data[file]
		for _, line := range []string{`clusterName: "` + m.Cluster().Name + `"`, `entryIDPrefix: "` + m.Cluster().Name + `"`} {
			if !strings.Contains(manager, line+"\n") {
				t.Errorf("%s has no %s:\n%s", file, line, manager)
			}
		}
		prefixes[m.Cluster().Name] = true
		if got := strings.Contains(manager, "clusterFederatedTrustDomains: false\n  clusterStaticEntries: false\n"); got != m.Remote() {
			t.Errorf("%s reconciles registrations alone: %t", file, got)
		}
		if got := strings.Contains(manager, `entryIDPrefixCleanup: ""`); got == m.Remote() {
			t.Errorf("%s deletes entries without a prefix: %t", file, got)
		}
		if class := `className: "` + m.Class + `"`; strings.Contains(manager, "className:") != (m.Class != "") || m.Class != "" && !strings.Contains(manager, class) {
			t.Errorf("%s does not serve the class %q", file, m.Class)
		}
		if !m.Remote() {
			continue
		}
		path := "/run/spire/kubeconfigs/" + m.Cluster().Name
		agents := objects(t, renderAgents(t, m))
		for what, holds := range map[string]bool{
			"attestation":     strings.Contains(config, `kube_config_file = "`+path+"\"\n"),
			"account":         strings.Contains(config, `service_account_allow_list = ["`+m.Place.Namespace+`:spire-agent"]`),
			"bundle":          strings.Contains(config, `kubeconfig_path = "`+path+"\"\n") && agents["ConfigMap/"+spire.BundleConfigMap].Kind != "",
			"manager":         slices.Contains(pod.Containers[len(want)-1].Command, "--kubeconfig="+path),
			"token":           agents["Secret/"+spire.TokenSecret].Metadata.Namespace == m.Place.Namespace,
			"right":           agents["ClusterRole/spire-server"+suffix(m)].Kind != "" && agents["ClusterRole/spire-controller-manager"+suffix(m)].Kind != "",
			"agents":          agents["DaemonSet/"+spire.AgentDaemonSet].Kind != "" && strings.Contains(agents["ConfigMap/spire-agent"].Data["agent.conf"], `cluster = "`+m.Cluster().Name+`"`),
			"server":          strings.Contains(agents["ConfigMap/spire-agent"].Data["agent.conf"], "server_address = \"10.192.1.1\"\n  server_port = 8081\n"),
			"nothing besides": agents["StatefulSet/"+spire.ServerStatefulSet].Kind == "" && agents["ValidatingWebhookConfiguration/spire-controller-manager-webhook"+suffix(m)].Kind == "" && agents["Service/spire-server"].Kind == "",
		} {
			if !holds {
				t.Errorf("%s of %s does not fit", what, m.Cluster().Name)
			}
		}
	}
	if !slices.Equal(containers, want) {
		t.Errorf("containers %v, want %v", containers, want)
	}
	if len(prefixes) != len(s.Members) {
		t.Errorf("prefixes %v", prefixes)
	}
	for _, volume := range pod.Volumes {
		if volume.Name == "kubeconfigs" && volume.Secret.SecretName != spire.KubeconfigsSecret {
			t.Errorf("kubeconfigs are in Secret %s, want %s", volume.Secret.SecretName, spire.KubeconfigsSecret)
		}
	}
	if services := manifests["server-services.yaml"]; !strings.Contains(services, "- {name: api, port: 8081, targetPort: api}") {
		t.Errorf("agents in other clusters do not reach the API:\n%s", services)
	}
}

// The token of the server leads from one cluster into another, and never expires: it may do
// what k8s_psat, k8s_configmap and a controller manager for ClusterSPIFFEIDs ask for.
func TestTokenMayDoLittle(t *testing.T) {
	all := objects(t, renderAgents(t, spread().Remote()[0]))
	var got []string
	for _, role := range []string{"ClusterRole/spire-server", "ClusterRole/spire-controller-manager", "Role/spire-server"} {
		for _, rule := range all[role].Rules {
			got = append(got, fmt.Sprintf("%s: %v %v of %v", role, rule.Verbs, rule.Resources, rule.ResourceNames))
		}
	}
	want := []string{
		"ClusterRole/spire-server: [create] [tokenreviews] of []",
		"ClusterRole/spire-server: [get] [nodes] of []",
		"ClusterRole/spire-controller-manager: [get list watch] [endpoints namespaces nodes pods] of []",
		"ClusterRole/spire-controller-manager: [get list watch] [clusterspiffeids] of []",
		"ClusterRole/spire-controller-manager: [update] [clusterspiffeids/status] of []",
		"Role/spire-server: [get] [pods] of []",
		"Role/spire-server: [get patch] [configmaps] of [spire-bundle]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("it may\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, object := range all {
		if bound := strings.HasSuffix(object.Kind, "Binding"); bound && !strings.HasSuffix(name, "/spire-server") && !strings.HasSuffix(name, "/spire-controller-manager") && !strings.HasSuffix(name, "/spire-agent") {
			t.Errorf("%s gives more", name)
		}
	}
}

// Agents hang until there is a bundle. What the server needs there is there before them.
func TestMemberWithoutAgents(t *testing.T) {
	m := spread().Remote()[0]
	values := spire.NewAgentValues(m, "example.com/spire-agent:1.15.3")
	values.WithoutAgents = true
	manifests, err := render("spire", m.Place.Namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	without, with := objects(t, manifests), objects(t, renderAgents(t, m))
	for name := range with {
		if _, there := without[name]; there == (name == "DaemonSet/"+spire.AgentDaemonSet) {
			t.Errorf("%s is there: %t", name, there)
		}
	}
}

func suffix(m *topology.Member) string {
	if m.Class == "" {
		return ""
	}
	return "-" + m.Class
}

// With another token all that has read the old one starts again.
func TestAnotherKubeconfigRestartsTheServer(t *testing.T) {
	annotations := func(v spire.Values) map[string]string {
		return objects(t, mustRender(t, v))["StatefulSet/spire-server"].Spec.Template.Metadata.Annotations
	}
	changed := spreadValues()
	changed.Members[0].Kubeconfig = "0123456789abcdef"
	if maps.Equal(annotations(spreadValues()), annotations(changed)) {
		t.Error("another kubeconfig leaves the server's pod as it is")
	}
	if !maps.Equal(annotations(market()), annotations(values(func(s *spire.Settings) { s.Server = server() }))) {
		t.Error("a server alone is not the same each time")
	}
}

func TestAgentsRefuseValues(t *testing.T) {
	good := func() map[string]any {
		return map[string]any{
			"trustDomain": "cluster1.com", "cluster": "branch", "class": "", "socketDir": "/run/spire/agent-sockets", "logLevel": "info",
			"images": map[string]any{"agent": "example.com/spire-agent:1.15.3"}, "remoteServer": map[string]any{"address": "10.192.1.1", "port": 8081},
		}
	}
	if _, err := render("spire", "spire-system", good()); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spoil func(map[string]any)
		want  string
	}{
		"without the server's port":  {func(v map[string]any) { v["remoteServer"] = map[string]any{"address": "10.192.1.1"} }, "port"},
		"with a name for an address": {func(v map[string]any) { v["remoteServer"] = map[string]any{"address": "market", "port": 8081} }, "address"},
		"with a server of their own": {func(v map[string]any) { v["adminID"] = "spiffe://cluster1.com/fedlab/admin" }, "adminID"},
		"with an image without tag":  {func(v map[string]any) { v["images"] = map[string]any{"agent": "example.com/spire-agent"} }, "agent"},
	} {
		t.Run(name, func(t *testing.T) {
			v := good()
			tt.spoil(v)
			if _, err := render("spire", "spire-system", v); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %s", err, tt.want)
			}
		})
	}
	// A member of a server needs to be told apart from another.
	if _, err := render("spire", "spire-system", change(spreadValues(), func(v *spire.Values) { v.Members[0].Kubeconfig = "" })); err == nil {
		t.Error("a member without a kubeconfig is taken")
	}
}

// Of several servers each has a controller manager for each cluster, and in each cluster
// one of them is the leader.
func TestReplicasGolden(t *testing.T) {
	replicated := func(v *spire.Values) {
		v.Replicas = topology.MaxReplicas
		v.Datastore = spire.DatastoreValues{Type: topology.Postgres, Postgres: &spire.PostgresValues{
			Image: "example.com/postgres:15", Release: spire.DatabaseRelease, Database: spire.DatabaseName, User: spire.DatabaseUser,
		}}
	}
	one := change(spreadValues(), func(v *spire.Values) { replicated(v); v.Replicas = 0 })
	all, same := mustRender(t, change(spreadValues(), replicated)), mustRender(t, one)
	maps.DeleteFunc(all, func(file, manifest string) bool { return manifest == same[file] })
	golden(t, "testdata/spire-replicas.yaml", all)

	remote := spread().Remote()[1]
	remote.Domain.Replicas = topology.MaxReplicas
	for what, manifests := range map[string]map[string]string{"server's": all, "agents'": renderAgents(t, remote)} {
		if role := objects(t, manifests)["Role/spire-controller-manager"]; role.Kind == "" {
			t.Errorf("in the %s cluster no controller manager may become the leader", what)
		}
	}
	if _, err := render("spire", "spire-system", change(spreadValues(), func(v *spire.Values) { v.Replicas = 2 })); err == nil || !strings.Contains(err.Error(), "postgres") {
		t.Errorf("two servers on one SQLite: %v", err)
	}
	pods := spire.ServerPods(remote.Server)
	if want := []string{spire.ServerPod, "spire-server-1"}; !slices.Equal(pods, want) {
		t.Errorf("pods %v, want %v", pods, want)
	}
}

// TestEntryIDPrefix: a prefix that is given is the manager's next to the server, which then
// deletes nothing of others; those of other clusters have their own.
func TestEntryIDPrefix(t *testing.T) {
	prefixed := func(v spire.Values) spire.Values {
		v.EntryIDPrefix = "lab"
		return v
	}
	for name, tt := range map[string]struct {
		values spire.Values
		want   []string
	}{
		"alone":                     {market(), nil},
		"alone with a prefix":       {prefixed(market()), []string{`entryIDPrefix: "lab"`}},
		"with members":              {spreadValues(), []string{`entryIDPrefix: "market"`, `entryIDPrefixCleanup: ""`, `entryIDPrefix: "branch"`, `entryIDPrefix: "depot"`}},
		"with members and a prefix": {prefixed(spreadValues()), []string{`entryIDPrefix: "lab"`, `entryIDPrefix: "branch"`, `entryIDPrefix: "depot"`}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for line := range strings.SplitSeq(mustRender(t, tt.values)["controller-manager-config.yaml"], "\n") {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, "entryIDPrefix") {
					got = append(got, line)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	bad := prefixed(market())
	bad.EntryIDPrefix = "lab."
	if _, err := render("spire", topology.ServerNamespace, bad); err == nil || !strings.Contains(err.Error(), "entryIDPrefix") {
		t.Errorf("error %v, want one about entryIDPrefix", err)
	}
}
