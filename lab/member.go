package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about members whose server is in another cluster. The server asks the
// API of their cluster about agents and pods, and publishes its bundle there: it needs a
// kubeconfig. The agents ask the server at its address on the lab's network.

// remote are the members whose server is in another cluster.
func (u *up) remote() (all []*topology.Member) {
	for _, s := range u.Servers() {
		all = append(all, s.Remote()...)
	}
	return all
}

// admit lets a server into the cluster of a member. Agents that are not there yet come
// with attend, once there is a bundle for them to start with.
func (u *up) admit(ctx context.Context, m *topology.Member) error {
	in := u.in(m.Cluster())
	applied, err := in.Objects.Apply(ctx, u.images.CRDs...)
	if err != nil {
		return err
	}
	lacks, err := lacksAgents(ctx, in.Objects, m)
	if err != nil {
		return err
	}
	if err := u.installMember(ctx, m, lacks); err != nil {
		return err
	}
	if applied {
		plan.Did(ctx)
	}
	return wait(ctx, apiBound, check.Check{Name: "Kubernetes has made the token of the SPIRE server", Probe: func(ctx context.Context) error {
		config, err := u.kubeconfig(ctx, in.Objects, m)
		if err != nil {
			return err
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.kubeconfigs[m] = config
		return nil
	}})
}

// installMember installs what a member has of SPIRE.
func (u *up) installMember(ctx context.Context, m *topology.Member, withoutAgents bool) error {
	values := spire.NewAgentValues(m, u.images.SPIREAgent)
	values.WithoutAgents = withoutAgents
	changed, err := u.in(m.Cluster()).Releases.Apply(ctx, access.Release{Name: spireRelease, Namespace: m.Place.Namespace, Chart: "spire", Values: values})
	if changed {
		plan.Did(ctx)
	}
	return err
}

// kubeconfig returns the one by which the server of a member gets into the member's
// cluster, where it has the rights of its service account there. The node is found by
// its name, because Docker may give it another address at each start.
func (d *Driver) kubeconfig(ctx context.Context, in access.Objects, m *topology.Member) ([]byte, error) {
	key := secretKey(m.Place, spire.TokenSecret)
	var is struct {
		Data struct {
			Token []byte `json:"token"`
			CA    []byte `json:"ca.crt"`
		} `json:"data"`
	}
	there, err := in.Object(ctx, key, &is)
	switch {
	case err != nil:
		return nil, err
	case !there:
		return nil, fmt.Errorf("cluster %s has no Secret %s/%s", m.Cluster().Name, key.Namespace, key.Name)
	case len(is.Data.Token) == 0 || len(is.Data.CA) == 0:
		return nil, fmt.Errorf("the Secret %s/%s of cluster %s has no token yet", key.Namespace, key.Name, m.Cluster().Name)
	}
	type fields = map[string]any
	name := m.Cluster().Name
	return json.Marshal(fields{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": []fields{{"name": name, "cluster": fields{
			"server": d.Parts.NetworkAPI(m.Cluster().Lab, name), "certificate-authority-data": is.Data.CA,
		}}},
		"users":    []fields{{"name": name, "user": fields{"token": string(is.Data.Token)}}},
		"contexts": []fields{{"name": name, "context": fields{"cluster": name, "user": name}}},
	})
}

// kubeconfigsOf returns the kubeconfigs that a server has, by the names of the clusters,
// and whether it has the Secret that they are in.
func kubeconfigsOf(ctx context.Context, objects access.Objects, s *topology.Server) (map[string][]byte, bool, error) {
	var is struct {
		Data map[string][]byte `json:"data"`
	}
	there, err := objects.Object(ctx, secretKey(s.Place, spire.KubeconfigsSecret), &is)
	return is.Data, there, err
}

// bringKubeconfigs gives a server the kubeconfigs of its members in other clusters. They
// are no part of the release, since Helm keeps what its last revisions made.
func (u *up) bringKubeconfigs(ctx context.Context, s *topology.Server) error {
	want := map[string][]byte{}
	for m, config := range u.kubeconfigsFor(s) {
		want[m.Cluster().Name] = config
	}
	objects, key := u.in(s.Place.Cluster).Objects, secretKey(s.Place, spire.KubeconfigsSecret)
	is, _, err := kubeconfigsOf(ctx, objects, s)
	if err != nil || maps.EqualFunc(is, want, bytes.Equal) {
		return err
	}
	changed, err := objects.Apply(ctx, namespace(s.Place.Namespace), map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"data":     want,
	})
	if changed {
		plan.Did(ctx)
	}
	return err
}

// kubeconfigsFor returns those that admit has made for a server.
func (u *up) kubeconfigsFor(s *topology.Server) map[*topology.Member][]byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := map[*topology.Member][]byte{}
	for _, m := range s.Remote() {
		all[m] = u.kubeconfigs[m]
	}
	return all
}

// Where an agent has to start with another bundle or the server has to read another
// kubeconfig, more goes by than a rollout.
const (
	// kubeletSync is how long kubelet may take to bring a changed Secret into a pod (its
	// --sync-frequency).
	kubeletSync = time.Minute
	// rebootstrapDelay is how long an agent holds on to a server whose keys it does not
	// know (charts/spire, rebootstrap_delay).
	rebootstrapDelay = time.Minute
	attestBound      = rolloutBound + kubeletSync + rebootstrapDelay
	// kubeletBackOff is the longest pause before a container that has failed starts again
	// (kubelet, MaxContainerBackOff): a controller manager fails while its cluster is away.
	kubeletBackOff = 5 * time.Minute
	// startSlack is how long agents that are there are left to become ready by
	// themselves.
	startSlack = 10 * time.Second
)

// attend brings the agents of a member, and waits until they have attested to the server,
// which is in another cluster. Agents that run and whom the server does not know are
// started again, and so are those that were there before and do not become ready: they may
// have started with another bundle.
func (u *up) attend(ctx context.Context, m *topology.Member) error {
	if err := u.publish(ctx, m); err != nil {
		return err
	}
	in, site := u.in(m.Cluster()), u.site(m.Server)
	lacked, err := lacksAgents(ctx, in.Objects, m)
	if err == nil && lacked {
		err = u.installMember(ctx, m, false)
	}
	if err != nil {
		return err
	}
	began := time.Now()
	name := fmt.Sprintf("the SPIRE agent in %s has attested to the server of %s", m.Cluster().Name, m.Domain)
	err = wait(ctx, attestBound, check.Check{Name: name, Probe: func(ctx context.Context) error {
		running := in.Pods.Ready(ctx, AgentKey(m.Place))
		agents, err := site.API.Agents(ctx)
		if err != nil {
			return errors.Join(running, err)
		}
		err = attested(ctx, in.Objects, m, agents)
		switch {
		case running == nil && err == nil:
			return nil
		case running == nil, !lacked && time.Since(began) > startSlack:
			err = errors.Join(err, u.renewAgents(ctx, m))
		}
		return errors.Join(running, err, u.findsNode(ctx, site, m))
	}})
	if err != nil {
		return err
	}
	name = fmt.Sprintf("the controller manager of %s runs next to the server of %s", m.Cluster().Name, m.Domain)
	return wait(ctx, rolloutBound+kubeletBackOff, check.Check{Name: name, Probe: func(ctx context.Context) error {
		return site.Pods.Started(ctx, ServerKey(site.Place), spire.ManagerContainer(m))
	}})
}

// findsNode returns nil when a server finds the node of a member by its name.
func (d *Driver) findsNode(ctx context.Context, site *Site, m *topology.Member) error {
	at, err := url.Parse(d.Parts.NetworkAPI(m.Cluster().Lab, m.Cluster().Name))
	if err == nil {
		_, err = lookup(ctx, site.Pods, site.Place, at.Hostname())
	}
	return err
}

// agentsOf returns the SPIFFE IDs that the agents of a member have, by the names of their
// nodes.
func agentsOf(ctx context.Context, in access.Objects, m *topology.Member) (map[string]spiffeid.ID, error) {
	var nodes []struct {
		Metadata struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"metadata"`
	}
	if err := in.List(ctx, access.ObjectKey{APIVersion: "v1", Kind: "Node"}, nil, &nodes); err != nil {
		return nil, err
	}
	ids := map[string]spiffeid.ID{}
	for _, n := range nodes {
		ids[n.Metadata.Name] = spire.AgentID(m.Domain.Name, m.Cluster().Name, n.Metadata.UID)
	}
	return ids, nil
}

// attested returns nil when the agents of all nodes of a member are among these, which
// their server knows.
func attested(ctx context.Context, in access.Objects, m *topology.Member, agents []spire.Agent) error {
	ids, err := agentsOf(ctx, in, m)
	if err != nil {
		return err
	}
	var errs []error
	for _, node := range slices.Sorted(maps.Keys(ids)) {
		if !slices.ContainsFunc(agents, func(a spire.Agent) bool { return a.ID == ids[node] && live(a) }) {
			errs = append(errs, because(NotAttested, "no agent of the node %s has attested to the server in cluster %s", node, m.Server.Place.Cluster.Name))
		}
	}
	return errors.Join(errs...)
}

// live reports whether an agent may ask for identities.
func live(a spire.Agent) bool { return !a.Banned && a.ExpiresAt.After(time.Now()) }

// admitted returns nil when a server has the kubeconfig by which it gets into the
// cluster of a member.
func (d *Driver) admitted(ctx context.Context, site *Site, in access.Objects, m *topology.Member) error {
	want, err := d.kubeconfig(ctx, in, m)
	if err != nil {
		return because(ShutOut, "the server cannot be let into cluster %s: %w: the next up restores it", m.Cluster().Name, err)
	}
	all, _, err := kubeconfigsOf(ctx, site.Objects, m.Server)
	if err != nil {
		return err
	}
	is := all[m.Cluster().Name]
	differs := func(seen string) error {
		return because(ShutOut, "the Secret %s, by which the server gets into cluster %s, %s: the next up restores it", spire.KubeconfigsSecret, m.Cluster().Name, seen)
	}
	switch {
	case len(is) == 0:
		return differs("has no kubeconfig of it")
	case !bytes.Equal(is, want):
		return differs("has another kubeconfig than the cluster asks for")
	}
	return nil
}

// dismiss takes out of a server what came of clusters that are no members any more, or were
// made again since: agents of nodes that are gone, and entries that a controller manager
// made which is gone. The Secret with the kubeconfigs tells that there were any, and goes
// last.
func (u *up) dismiss(ctx context.Context, site *Site) error {
	_, there, err := kubeconfigsOf(ctx, site.Objects, site.Server)
	if err != nil || !there {
		return err
	}
	if err := dismissEntries(ctx, site); err != nil {
		return err
	}
	if err := u.dismissAgents(ctx, site); err != nil {
		return err
	}
	if len(site.Remote()) > 0 {
		return nil
	}
	plan.Did(ctx)
	return site.Objects.Delete(ctx, secretKey(site.Place, spire.KubeconfigsSecret))
}

func dismissEntries(ctx context.Context, site *Site) error {
	entries, err := site.API.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		in := spire.AttestedIn(e.ParentID)
		if in == "" || e.Declared() || slices.ContainsFunc(site.InClusters(), func(m *topology.Member) bool { return m.Cluster().Name == in }) {
			continue
		}
		plan.Did(ctx)
		if err := known(site.API.DeleteEntry(ctx, e.ID)); err != nil {
			return err
		}
	}
	return nil
}

func (u *up) dismissAgents(ctx context.Context, site *Site) error {
	stay := map[spiffeid.ID]bool{}
	for _, m := range site.InClusters() {
		ids, err := agentsOf(ctx, u.in(m.Cluster()).Objects, m)
		if err != nil {
			return err
		}
		for _, id := range ids {
			stay[id] = true
		}
	}
	agents, err := site.API.Agents(ctx)
	if err != nil {
		return err
	}
	for _, a := range agents {
		if spire.AttestedIn(a.ID) == "" || stay[a.ID] {
			continue
		}
		plan.Did(ctx)
		if err := known(site.API.DeleteAgent(ctx, a.ID)); err != nil {
			return err
		}
	}
	return nil
}

// known leaves out that a server does not know any more what it should forget.
func known(err error) error {
	if unknown := (*spire.NotFoundError)(nil); errors.As(err, &unknown) {
		return nil
	}
	return err
}
