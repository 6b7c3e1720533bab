package lab

import (
	"cmp"
	"context"
	"slices"
)

// Found is a lab of which something is there.
type Found struct {
	Name string
	// Owner is the user who made the lab; empty where nothing says so.
	Owner string
}

// Summary is a lab as it is listed.
type Summary struct {
	Name string `json:"name"`
	// State is running, stopped, partly running, or without clusters.
	State string `json:"state"`
	// Owner is the user who made the lab; empty where nothing says so.
	Owner    string           `json:"owner,omitempty"`
	Clusters []ClusterSummary `json:"clusters"`
}

// ClusterSummary is a cluster of a listed lab.
type ClusterSummary struct {
	Name string `json:"name"`
	// State is running or stopped.
	State string `json:"state"`
}

// Labs lists all labs of which something is there, by name. It asks no cluster:
// whether a lab is well, Status says.
func (d *Driver) Labs(ctx context.Context) ([]Summary, error) {
	found, err := d.Parts.Labs(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Summary, 0, len(found))
	for _, f := range found {
		nodes, err := d.Parts.Nodes.List(ctx, f.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, summary(f, nodes))
	}
	slices.SortFunc(all, func(a, b Summary) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

func summary(f Found, nodes []Node) Summary {
	s := Summary{Name: f.Name, Owner: f.Owner, State: "partly running", Clusters: []ClusterSummary{}}
	running := 0
	for _, n := range nodes {
		s.Clusters = append(s.Clusters, ClusterSummary{Name: n.Cluster, State: state(n)})
		if n.Running {
			running++
		}
	}
	slices.SortFunc(s.Clusters, func(a, b ClusterSummary) int { return cmp.Compare(a.Name, b.Name) })
	switch running {
	case 0:
		s.State = "stopped"
	case len(nodes):
		s.State = "running"
	}
	if len(nodes) == 0 {
		s.State = "without clusters"
	}
	return s
}
