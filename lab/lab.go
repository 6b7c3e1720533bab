// Package lab brings labs up, tells how they are, and takes them down.
//
// It has no state of its own: what a lab is can be read from its containers and
// clusters, so that any process can open, inspect and remove it, and an up that
// was killed is simply run again. It refuses to know which programs do the
// work: those come as Parts.
package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Driver brings labs up and down.
type Driver struct {
	Parts Parts
	// Observe is told about each step; it may be nil.
	Observe func(plan.Event)
}

// Lab is a running lab: the graph of what it was meant to be, and access to each of
// its clusters. What its methods are given must be parts of its own Graph. It is not
// for concurrent use.
type Lab struct {
	Graph    *topology.Graph
	driver   *Driver
	clusters map[*topology.Cluster]access.Cluster
	sites    map[*topology.Server]*Site
}

// NotUpError says that a lab, or a part of it, does not run.
type NotUpError struct {
	Lab  string
	What string
}

func (e *NotUpError) Error() string { return fmt.Sprintf("lab %s is not up: %s", e.Lab, e.What) }

// Open returns a handle on a lab that runs. It is a *NotUpError when the lab
// has no network or a cluster does not run. The caller closes the handle.
func (d *Driver) Open(ctx context.Context, t topology.Topology) (*Lab, error) {
	network, found, err := d.Parts.Networks.Find(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &NotUpError{Lab: t.Name, What: "it has no network"}
	}
	nodes, err := d.Parts.Nodes.List(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	told, err := d.recall(ctx, t.Name, nodes)
	if err != nil {
		return nil, err
	}
	g, err := topology.Resolve(t.Placed(gather(t.Name, told)), network)
	if err != nil {
		return nil, err
	}
	l := &Lab{Graph: g, driver: d, clusters: map[*topology.Cluster]access.Cluster{}, sites: map[*topology.Server]*Site{}}
	for _, c := range g.Clusters {
		n, there := nodeOf(c, nodes)
		if err := runs(c, n, there); err != nil {
			return nil, err
		}
		for _, m := range told {
			if m.node.Cluster != c.Name {
				continue
			}
			if m.shut != nil {
				return nil, m.shut
			}
			l.clusters[c] = m.in
		}
	}
	if err := d.hostsRun(ctx, g); err != nil {
		return nil, err
	}
	return l, nil
}

// hostsRun returns a *NotUpError when something of a host is not there, or stopped.
func (d *Driver) hostsRun(ctx context.Context, g *topology.Graph) error {
	if len(g.Hosts) == 0 {
		return nil
	}
	found, err := d.Parts.Hosts.List(ctx, g.Name)
	if err != nil {
		return err
	}
	for _, h := range g.Hosts {
		for _, program := range programsOf(h) {
			if err := runsOnHost(h, program, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close ends the connections of the handle; the lab runs on.
func (l *Lab) Close() error {
	var errs []error
	for _, s := range l.sites {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Access returns what can be done in a cluster of the lab.
func (l *Lab) Access(c *topology.Cluster) access.Cluster { return l.clusters[c] }

// Site returns a connection to a SPIRE server of the lab, the same one each time;
// Close of the lab's handle ends it.
func (l *Lab) Site(ctx context.Context, s *topology.Server) (*Site, error) {
	if site, ok := l.sites[s]; ok {
		return site, nil
	}
	if s.Place.Host != nil && slices.Contains(l.Graph.Hosts, s.Place.Host) {
		site, err := l.driver.connectOnHost(ctx, s)
		if err != nil {
			return nil, err
		}
		l.sites[s] = site
		return site, nil
	}
	in, ok := l.clusters[s.Place.Cluster]
	if !ok {
		return nil, fmt.Errorf("the server of %s is not one of this handle's graph of lab %s", s.Domain, l.Graph.Name)
	}
	site, err := connect(ctx, s, in)
	if err != nil {
		return nil, err
	}
	l.sites[s] = site
	return site, nil
}

func note(ctx context.Context, waiting string) func(error) {
	last := ""
	return func(seen error) {
		// The same sight again is no news.
		if text := seen.Error(); text != last {
			last = text
			plan.Note(ctx, "waits until "+waiting+": "+firstLine(text))
		}
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
