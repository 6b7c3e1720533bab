package topology

import "fmt"

// This file resolves what a person types: nothing else of a graph takes a name.

// UnknownError says that a lab has no part of a name.
type UnknownError struct {
	Lab string
	// What is "cluster", "trust domain" or "workload".
	What, Name string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("lab %s has no %s %q", e.Lab, e.What, e.Name)
}

// FindCluster returns the cluster of a name. The error is an *UnknownError.
func (g *Graph) FindCluster(name string) (*Cluster, error) {
	return find(g, "cluster", name, g.Clusters, func(c *Cluster) string { return c.Name })
}

// FindDomain returns the trust domain of a name. The error is an *UnknownError.
func (g *Graph) FindDomain(name string) (*Domain, error) {
	return find(g, "trust domain", name, g.Domains, (*Domain).String)
}

// FindServer returns the server of a name: that of a trust domain for its root, and with
// the cluster for a nested one ("one.test@b"). The error is an *UnknownError.
func (g *Graph) FindServer(name string) (*Server, error) {
	return find(g, "trust domain", name, g.Servers(), (*Server).String)
}

// FindWorkload returns the workload of a name. The error is an *UnknownError.
func (g *Graph) FindWorkload(name string) (*Workload, error) {
	return find(g, "workload", name, g.Workloads, func(w *Workload) string { return w.Name })
}

func find[T any](g *Graph, what, name string, all []*T, nameOf func(*T) string) (*T, error) {
	for _, x := range all {
		if nameOf(x) == name {
			return x, nil
		}
	}
	return nil, &UnknownError{g.Name, what, name}
}
