package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// mark is the ConfigMap that is written when a cluster has been made whole. A
// cluster without it was left by an up that was killed, and is made again. It
// holds what the lab is meant to be, so that a lab can be opened without its
// file.
var mark = access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-system", Name: "fedlab"}

const markTopology = "topology.json"

// mark writes into a cluster what the lab is meant to be: the next up, and who has
// no lab file, read it there.
func (u *up) mark(ctx context.Context, c *topology.Cluster) error {
	intent, err := json.Marshal(u.Intent())
	if err != nil {
		return err
	}
	changed, err := u.in(c).Objects.Apply(ctx, map[string]any{
		"apiVersion": mark.APIVersion, "kind": mark.Kind,
		"metadata": map[string]any{"name": mark.Name, "namespace": mark.Namespace},
		"data":     map[string]any{"lab": c.Lab, "cluster": c.Name, markTopology: string(intent)},
	})
	if changed {
		plan.Did(ctx)
	}
	if err != nil {
		return err
	}
	// The node says it, too, for the day that its cluster does not answer.
	marked, err := u.Parts.Marks.Whole(ctx, c.Lab, c.Name)
	if err != nil || marked {
		return err
	}
	plan.Did(ctx)
	return u.Parts.Marks.SetWhole(ctx, c.Lab, c.Name)
}

// Topology returns what a lab that runs is meant to be, as the last up was told;
// no lab file is needed. It is a *NotUpError when no cluster of the lab answers.
func (d *Driver) Topology(ctx context.Context, lab string) (topology.Topology, error) {
	nodes, err := d.Parts.Nodes.List(ctx, lab)
	if err != nil {
		return topology.Topology{}, err
	}
	notUp := &NotUpError{Lab: lab, What: "there is no cluster of it"}
	for _, n := range nodes {
		m := d.connectNode(lab, n)
		if m.ask(ctx); m.tells {
			return m.intent, nil
		}
		notUp.What = fmt.Sprintf("cluster %s does not say what the lab is: %v", n.Cluster, m.silent)
	}
	return topology.Topology{}, notUp
}

// memory is what the cluster of a node tells that the lab is meant to be.
type memory struct {
	node Node
	// in is what can be done in the cluster; shut says why it cannot be connected to.
	in   access.Cluster
	shut error
	// intent is what the cluster tells, where it tells; silent says why it does not,
	// once it was asked.
	intent topology.Topology
	tells  bool
	silent error
}

// connectNode connects to the cluster of a node that runs.
func (d *Driver) connectNode(lab string, n Node) memory {
	m := memory{node: n, shut: errors.New("its node is stopped")}
	if n.Running {
		m.in, m.shut = d.access(lab, n.Cluster)
	}
	m.silent = m.shut
	return m
}

// ask has the cluster tell.
func (m *memory) ask(ctx context.Context) {
	if m.silent != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	m.intent, m.silent = readMark(ctx, m.in.Objects)
	m.tells = m.silent == nil
}

// readMark returns what a cluster's mark says, and an error for a cluster without
// one.
func readMark(ctx context.Context, objects access.Objects) (t topology.Topology, err error) {
	var m struct {
		Data map[string]string `json:"data"`
	}
	found, err := objects.Object(ctx, mark, &m)
	switch {
	case err != nil:
		return t, err
	case !found:
		return t, errors.New("it was left half-made, and the next up makes it again")
	}
	return t, json.Unmarshal([]byte(m.Data[markTopology]), &t)
}

// recall asks all clusters that are there, side by side.
func (d *Driver) recall(ctx context.Context, lab string, nodes []Node) ([]memory, error) {
	told := make([]memory, len(nodes))
	each(len(nodes), func(i int) {
		told[i] = d.connectNode(lab, nodes[i])
		told[i].ask(ctx)
	})
	return told, context.Cause(ctx)
}

// has reports whether a cluster knows of another one, or of itself.
func (m memory) has(cluster string) bool {
	return m.tells && slices.ContainsFunc(m.intent.Clusters, func(c topology.ClusterSpec) bool { return c.Name == cluster })
}

// gather puts together what clusters tell that the lab is meant to be. Each is
// believed about itself, since the others may have been changed since; of one
// that does not tell, another may know.
//
// A trust domain of which no cluster tells where its server was has the zero value
// there: that cluster is gone.
func gather(lab string, told []memory) topology.Topology {
	before := gathered{topology.Topology{Name: lab}}
	for _, m := range told {
		source, cluster := m, m.node.Cluster
		for _, other := range told {
			if !source.tells && other.has(cluster) {
				source = other
			}
		}
		for _, c := range source.intent.Clusters {
			if c.Name == cluster {
				before.Clusters = append(before.Clusters, c)
			}
		}
		for _, td := range source.intent.TrustDomains {
			before.gatherDomain(td, cluster, "")
		}
		for _, w := range source.intent.Workloads {
			if w.Cluster == cluster {
				before.Workloads = append(before.Workloads, w)
			}
		}
	}
	before.gatherHosts(told)
	return before.Topology
}

// gatherHosts adds what clusters tell of hosts, which do not tell themselves. The first that
// knows a host is believed: hosts keep their places.
func (g *gathered) gatherHosts(told []memory) {
	for _, m := range told {
		if !m.tells {
			continue
		}
		for _, h := range m.intent.Hosts {
			if slices.ContainsFunc(g.Hosts, func(other topology.HostSpec) bool { return other.Name == h.Name }) {
				continue
			}
			g.Hosts = append(g.Hosts, h)
			for _, td := range m.intent.TrustDomains {
				g.gatherDomain(td, "", h.Name)
			}
			for _, w := range m.intent.Workloads {
				if w.Host == h.Name {
					g.Workloads = append(g.Workloads, w)
				}
			}
		}
	}
}

// gathered is what clusters tell, as far as they have been asked.
type gathered struct{ topology.Topology }

// gatherDomain adds what is said of a cluster, or of a host, as one of a trust domain's.
func (g *gathered) gatherDomain(td topology.TrustDomainSpec, cluster, host string) {
	var members []topology.MemberSpec
	for _, m := range td.Members {
		if m.Cluster == cluster && m.Host == host {
			members = append(members, m)
		}
	}
	serves := td.Cluster == cluster && td.Host == host
	if !serves && members == nil {
		return
	}
	i := slices.IndexFunc(g.TrustDomains, func(other topology.TrustDomainSpec) bool { return other.Name == td.Name })
	if i < 0 {
		i = len(g.TrustDomains)
		g.TrustDomains = append(g.TrustDomains, topology.TrustDomainSpec{Name: td.Name})
	}
	is := &g.TrustDomains[i]
	members = append(is.Members, members...)
	if serves {
		*is = td
	}
	is.Members = members
}
