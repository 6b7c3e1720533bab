package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// mark is the ConfigMap that is written when a cluster has been made whole. A
// cluster without it was left by an up that was killed, and is made anew. It
// holds what the lab is meant to be, so that a lab can be opened without its
// file.
var mark = ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-system", Name: "fedlab"}

const markTopology = "topology.json"

// mark writes into a cluster what the lab is meant to be: the next up, and who has
// no lab file, read it there.
func (u *up) mark(ctx context.Context, c topology.Cluster) error {
	intent, err := json.Marshal(u.topology)
	if err != nil {
		return err
	}
	changed, err := u.access(c.Name).Objects.Apply(ctx, map[string]any{
		"apiVersion": mark.APIVersion, "kind": mark.Kind,
		"metadata": map[string]any{"name": mark.Name, "namespace": mark.Namespace},
		"data":     map[string]any{"lab": u.topology.Name, "cluster": c.Name, markTopology: string(intent)},
	})
	if changed {
		plan.Did(ctx)
	}
	if err != nil {
		return err
	}
	// The node says it, too, for the day that its cluster does not answer.
	marked, err := u.Parts.Marks.Whole(ctx, u.topology.Name, c.Name)
	if err != nil || marked {
		return err
	}
	plan.Did(ctx)
	return u.Parts.Marks.SetWhole(ctx, u.topology.Name, c.Name)
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
		t, err := d.marked(ctx, lab, n)
		if err == nil {
			return t, nil
		}
		notUp.What = fmt.Sprintf("cluster %s does not tell: %v", n.Cluster, err)
	}
	return topology.Topology{}, notUp
}

// marked returns what the mark of a cluster says that the lab is meant to be.
func (d *Driver) marked(ctx context.Context, lab string, n Node) (t topology.Topology, err error) {
	if !n.Running {
		return t, errors.New("its node is stopped")
	}
	access, err := d.access(lab, n.Cluster)
	if err != nil {
		return t, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	return readMark(ctx, access.Objects)
}

// readMark returns what a cluster's mark says, and an error for a cluster without
// one.
func readMark(ctx context.Context, objects Objects) (t topology.Topology, err error) {
	var m struct {
		Data map[string]string `json:"data"`
	}
	found, err := objects.Object(ctx, mark, &m)
	switch {
	case err != nil:
		return t, err
	case !found:
		return t, errors.New("it was left half-made, and the next up makes it anew")
	}
	return t, json.Unmarshal([]byte(m.Data[markTopology]), &t)
}

// recall returns what the clusters that are there were last meant to be.
func (d *Driver) recall(ctx context.Context, lab string, nodes []Node) (topology.Topology, error) {
	var mu sync.Mutex
	told := map[string]topology.Topology{}
	var group errgroup.Group
	for _, n := range nodes {
		group.Go(func() error {
			if t, err := d.marked(ctx, lab, n); err == nil {
				mu.Lock()
				defer mu.Unlock()
				told[n.Cluster] = t
			}
			return context.Cause(ctx)
		})
	}
	err := group.Wait()
	return gather(lab, nodes, told), err
}

// gather puts together what clusters tell that the lab is meant to be. Each is
// believed about itself, since the others may have been changed since; of one
// that does not tell, another may know.
func gather(lab string, nodes []Node, told map[string]topology.Topology) topology.Topology {
	before := topology.Topology{Name: lab}
	for _, n := range nodes {
		source, ok := told[n.Cluster]
		for _, other := range nodes {
			if _, err := told[other.Cluster].Cluster(n.Cluster); !ok && err == nil {
				source, ok = told[other.Cluster], true
			}
		}
		for _, c := range source.Clusters {
			if c.Name == n.Cluster {
				before.Clusters = append(before.Clusters, c)
			}
		}
		for _, td := range source.TrustDomains {
			if td.Cluster == n.Cluster {
				before.TrustDomains = append(before.TrustDomains, td)
			}
		}
		for _, w := range source.Workloads {
			if w.Cluster == n.Cluster {
				before.Workloads = append(before.Workloads, w)
			}
		}
	}
	return before
}
