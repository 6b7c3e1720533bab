package lab_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// spread is a lab with a trust domain over two clusters, a and b, and another one in c.
func spread(t *testing.T) topology.Topology {
	t.Helper()
	return topologyOf(t, spreadFile(t))
}

func spreadFile(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/spread.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// next returns a name that nothing else has.
func (w *world) next(kind string) string {
	w.counted++
	return fmt.Sprintf("%s-%d", kind, w.counted)
}

// nodeUID returns what Kubernetes calls a node that is made: the one that was before it, in
// the same cluster, had another UID.
func (w *world) nodeUID(name nodeName) string {
	if w.uids == nil {
		w.uids = map[nodeName]int{}
	}
	if w.uids[name]++; w.uids[name] > 1 {
		return fmt.Sprintf("node-%d", w.uids[name])
	}
	return "node"
}

// isAgents reports whether a release with these values is of agents without a server.
func isAgents(values any) bool {
	_, is := values.(spire.AgentValues)
	return is
}

func tokenKey(namespace string) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: spire.TokenSecret}
}

// admits has Kubernetes make the token of the server that a release is for, and reports
// whether it did.
func (n *node) admits(r *release) bool {
	key := tokenKey(r.Namespace)
	if _, there := n.objects[key]; there || !isAgents(r.Values) {
		return false
	}
	n.objects[key] = string(encode(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"data": map[string][]byte{"token": []byte(n.next("token")), "ca.crt": []byte("CA of " + n.name.String())},
	}))
	return true
}

// opens returns nil for a kubeconfig that leads into the node's cluster, with the token of
// the server whose agents are in a namespace.
func (n *node) opens(config []byte, namespace string) error {
	var is struct {
		Clusters []struct{ Cluster struct{ Server string } }
		Users    []struct{ User struct{ Token string } }
	}
	if len(config) > 0 {
		is = decode[struct {
			Clusters []struct{ Cluster struct{ Server string } }
			Users    []struct{ User struct{ Token string } }
		}](string(config))
	}
	token := n.objects[tokenKey(namespace)]
	switch {
	case len(is.Clusters) == 0 || is.Clusters[0].Cluster.Server != networkAPI(n.name.lab, n.name.cluster):
		return errors.New("no such host")
	case token == "" || string(decode[struct{ Data map[string][]byte }](token).Data["token"]) != is.Users[0].User.Token:
		return errors.New("Unauthorized")
	}
	return n.answers()
}

// attendant is the agents of a cluster whose server is in another one.
type attendant struct {
	*node
	namespace string
	values    spire.AgentValues
	// bundle is what they have started with, and keep: a kubelet brings another one later.
	bundle string
	// attested is set once they have attested.
	attested bool
	// stale: they hand out SVIDs of an authority that was revoked.
	stale bool
}

// attend starts the agents of a release.
func (n *node) attend(r *release) {
	values, is := r.Values.(spire.AgentValues)
	if !is || values.WithoutAgents {
		return
	}
	a := &attendant{node: n, namespace: r.Namespace, values: values}
	a.start()
	n.attendants[r.Namespace] = a
}

func (a *attendant) start() {
	a.attested, a.stale, a.bundle = false, false, a.objects[bundleKey(a.namespace)]
}

// hung reports whether they wait for a bundle, which was not there when they started. A
// kubelet looks for it in ever longer intervals; here they wait for good.
func (a *attendant) hung() bool { return !strings.Contains(a.bundle, "BEGIN CERTIFICATE") }

// attest returns nil when the agents have attested, and else says what keeps them.
func (a *attendant) attest() error {
	switch {
	case a == nil:
		return errors.New("there are no agents")
	case a.hung():
		return errors.New("0 of 1 pods are ready: ContainerCreating")
	case a.attested:
		return nil
	}
	unready := func(why error) error { return fmt.Errorf("0 of 1 pods are ready: %w", why) }
	for name, other := range a.nodes {
		r := other.server()
		if name.lab != a.name.lab || r == nil || other.answers() != nil || other.serves() != nil || other.objects[poolKey] == "" {
			continue
		}
		s := other.spire
		for _, m := range s.values.Members {
			if s.td.Name() != a.values.TrustDomain || s.values.BundleEndpoint.Address != a.values.RemoteServer.Address || m.Cluster != a.name.cluster || m.Namespace != a.namespace {
				continue
			}
			// k8s_psat reads its kubeconfig at each attestation.
			if err := a.opens(other.secret(spire.KubeconfigsSecret)[m.Cluster], a.namespace); err != nil {
				return unready(err)
			}
			if !strings.Contains(a.bundle, strings.ReplaceAll(string(pki.Marshal(s.root)), "\n", "\\n")) {
				return unready(errors.New("x509: certificate signed by unknown authority"))
			}
			a.attested = true
			s.attested[spiffeid.RequireFromString(s.agentIn(a.node))] = true
			return nil
		}
	}
	return unready(errors.New("no server answers"))
}

// origin is where an entry comes from: the prefix of its controller manager, and the
// agent that hands it out.
type origin struct {
	prefix, parent, hint string
	// dnsNames and x509TTL are those of a ClusterStaticEntry.
	dnsNames []string
	x509TTL  time.Duration
}

// manager is one of the controller managers of a server.
type manager struct {
	node             *node
	namespace, class string
	prefix           string
	alone, cleansing bool
	// downstream: its cluster has a nested server.
	downstream bool
}

// reconciles reports whether it deletes an entry with a prefix that it has not made.
func (m manager) reconciles(prefix string) bool {
	return m.alone || prefix == m.prefix || m.cleansing && prefix == ""
}

// managers returns those that get into their clusters.
func (s *spireServer) managers() []manager {
	if s.node.host != nil {
		return nil
	}
	several := len(s.values.Members) > 0
	given := s.values.EntryIDPrefix != ""
	home := manager{node: s.node, namespace: topology.ServerNamespace, class: s.values.Class, alone: !several && !given, cleansing: several && !given}
	if several || given {
		home.prefix = cmp.Or(s.values.EntryIDPrefix, s.values.Cluster)
	}
	all := []manager{home}
	for _, m := range s.values.Members {
		n := s.node.nodes[nodeName{s.node.name.lab, m.Cluster}]
		if n != nil && n.opens(s.opened[m.Cluster], m.Namespace) == nil {
			all = append(all, manager{node: n, namespace: m.Namespace, class: m.Class, prefix: m.Cluster, downstream: m.Downstream})
		}
	}
	return all
}

// manages reports whether a controller manager of the server looks at a cluster.
func (s *spireServer) manages(n *node) bool {
	for _, m := range s.managers() {
		if m.node == n {
			return true
		}
	}
	return false
}

// agentIn returns the SPIFFE ID of the agent on a node.
func (s *spireServer) agentIn(n *node) string {
	return spire.AgentID(s.td, n.name.cluster, n.uid).String()
}

func (s *spireServer) DeleteAgent(_ context.Context, r *agentv1.DeleteAgentRequest) (*emptypb.Empty, error) {
	id := spiffeid.RequireFromPath(s.td, r.Id.Path)
	delete(s.attested, id)
	s.banned = s.banned && id.String() != s.agentID()
	return &emptypb.Empty{}, nil
}

func (s *spireServer) BatchDeleteEntry(_ context.Context, r *entryv1.BatchDeleteEntryRequest) (*entryv1.BatchDeleteEntryResponse, error) {
	answer := &entryv1.BatchDeleteEntryResponse{}
	for _, id := range r.Ids {
		delete(s.entries, id)
		delete(s.downstream, id)
		delete(s.plain, id)
		answer.Results = append(answer.Results, &entryv1.BatchDeleteEntryResponse_Result{Id: id, Status: &types.Status{}})
	}
	return answer, nil
}
