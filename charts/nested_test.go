package charts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// nested returns a server in the cluster branch that is nested below the one in market.
// The endpoint of their trust domain is https_web, and the notifier brings its bundle into
// other clusters: both are the root's alone.
func nested() *topology.Server {
	root := server()
	root.Domain.BundleEndpoint.Profile, root.Domain.BundlePlugin = topology.HTTPSWeb, topology.K8sBundle
	s := &topology.Server{
		Domain: root.Domain, Upstream: root,
		Place: topology.Place{Cluster: &topology.Cluster{ClusterSpec: topology.ClusterSpec{Name: "branch"}}, Namespace: topology.ServerNamespace},
	}
	s.Members = []*topology.Member{{Domain: s.Domain, Server: s, Place: s.Place}}
	s.Link = &topology.Member{
		Domain: s.Domain, Server: root, Downstream: s, Class: topology.UpstreamNamespace,
		Place: topology.Place{Cluster: s.Place.Cluster, Namespace: topology.UpstreamNamespace},
	}
	root.Members = append(root.Members, s.Link)
	return s
}

func valuesOf(s *topology.Server) spire.Values {
	return values(func(settings *spire.Settings) { settings.Server = s })
}

func TestNestedGolden(t *testing.T) {
	all, same := mustRender(t, valuesOf(nested())), mustRender(t, market())
	maps.DeleteFunc(all, func(file, manifest string) bool { return manifest == same[file] })
	golden(t, "testdata/spire-nested.yaml", all)
}

// What a nested server needs of its upstream, and of the agent of that, it finds.
func TestNestedFitsBelowItsUpstream(t *testing.T) {
	s := nested()
	manifests := mustRender(t, valuesOf(s))
	below := objects(t, manifests)
	link := objects(t, renderAgents(t, s.Link))
	above := objects(t, mustRender(t, change(valuesOf(s.Upstream), func(v *spire.Values) { v.BundleEndpoint.ServingCert.TTL = "24h" })))
	config := below["ConfigMap/spire-server"].Data["server.conf"]
	pod := below["StatefulSet/"+spire.ServerStatefulSet].Spec.Template
	managers := above["ConfigMap/spire-controller-manager"].Data
	home, other, own := managers["controller-manager.yaml"], managers["controller-manager-branch.yaml"], below["ConfigMap/spire-controller-manager"].Data["controller-manager.yaml"]
	const servers, upstreams = `  - ^spire-system(-[0-9]+)?$`, `  - ^spire-upstream(-[0-9]+)?$`
	entry := spire.NestedIdentity(s)
	spec, _ := entry.Spec.(spire.WorkloadIdentitySpec)
	folder := spire.SocketDir(s.Link)
	volume := func(pod string) bool {
		return strings.Contains(pod, `hostPath: {path: "`+folder+`", type: DirectoryOrCreate}`)
	}
	for what, holds := range map[string]bool{
		"upstream":                         strings.Contains(config, "server_address = \"10.192.1.1\"\n      server_port = \"8081\"\n"),
		"socket":                           strings.Contains(config, `workload_api_socket = "/run/spire/upstream/spire-agent.sock"`) && strings.Contains(manifests["server.yaml"], "{name: upstream, mountPath: /run/spire/upstream, readOnly: true}"),
		"socket's folder":                  volume(manifests["server.yaml"]) && volume(renderAgents(t, s.Link)["agent.yaml"]) && folder != spire.SocketDir(s.Home()),
		"plugin of the root":               valuesOf(s).BundlePlugin == "" && valuesOf(s.Upstream).BundlePlugin == topology.K8sBundle,
		"no other upstream":                strings.Count(config, "UpstreamAuthority ") == 1,
		"no bundle endpoint":               !strings.Contains(config, "bundle_endpoint") && below["Service/"+spire.BundleEndpointService].Kind == "",
		"no serving certificate":           !strings.Contains(manifests["server.yaml"], "serving-cert"),
		"bundle for its agents":            strings.Contains(config, `Notifier "k8sbundle"`) && below["DaemonSet/"+spire.AgentDaemonSet].Kind != "",
		"pod of the entry":                 hasAll(pod.Metadata.Labels, spec.PodSelector.MatchLabels) && spec.Downstream,
		"account of the entry":             slices.Contains(spec.WorkloadSelectorTemplates, "k8s:sa:"+pod.Spec.ServiceAccountName),
		"class of the entry":               spec.ClassName == s.Link.Class && strings.Contains(other, `className: "`+s.Link.Class+`"`),
		"namespace of the entry":           !strings.Contains(other, servers) && strings.Contains(other, upstreams),
		"namespaces of the root's manager": strings.Contains(home, servers) && !strings.Contains(home, upstreams),
		"namespaces of its own manager":    strings.Contains(own, servers) && strings.Contains(own, upstreams),
		"its manager is alone":             !strings.Contains(own, "entryIDPrefix"),
		"names in the cluster": !slices.ContainsFunc(slices.Collect(maps.Keys(link)), func(name string) bool {
			return strings.HasPrefix(name, "ClusterRole") && below[name].Kind != ""
		}),
	} {
		if !holds {
			t.Errorf("%s does not fit", what)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s\n%s", config, other, own)
	}
}

func hasAll(labels, selector map[string]string) bool {
	for label, value := range selector {
		if labels[label] != value {
			return false
		}
	}
	return true
}

func TestNestedRefusesValues(t *testing.T) {
	good := valuesOf(nested())
	for name, tt := range map[string]struct {
		spoil func(*spire.Values)
		want  string
	}{
		"without its upstream":        {func(v *spire.Values) { v.Upstream = nil }, "upstream"},
		"with a name for an address":  {func(v *spire.Values) { v.Upstream.Address = "market" }, "address"},
		"with a socket for a folder":  {func(v *spire.Values) { v.Upstream.SocketDir = "/run/spire/agent.sock" }, "socketDir"},
		"with a bundle endpoint":      {func(v *spire.Values) { v.BundleEndpoint.Address = "10.192.2.1" }, "address"},
		"with members":                {func(v *spire.Values) { v.Members = spreadValues().Members }, "members"},
		"that signs by itself":        {func(v *spire.Values) { v.UpstreamAuthority = topology.SelfSigned }, "upstream"},
		"with an https_web endpoint":  {func(v *spire.Values) { v.BundleEndpoint.Profile = topology.HTTPSWeb }, "profile"},
		"with an authority in files":  {func(v *spire.Values) { v.UpstreamAuthority = topology.Disk }, "upstream"},
		"and a root without address":  {func(v *spire.Values) { v.UpstreamAuthority, v.Upstream = topology.SelfSigned, nil }, "address"},
		"with a port that is no port": {func(v *spire.Values) { v.Upstream.Port = 0 }, "port"},
	} {
		t.Run(name, func(t *testing.T) {
			v := good
			upstream := *good.Upstream
			v.Upstream = &upstream
			tt.spoil(&v)
			if _, err := render("spire", topology.ServerNamespace, v); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %s", err, tt.want)
			}
		})
	}
}
