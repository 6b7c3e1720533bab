package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/evidence"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/kube"
	"github.com/fedlab-dev/fedlab/lab/metallb"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

// connectBound is how long a cluster or a server may take to be connected to, and a
// lab to say how it is, before evidence is gathered without it.
const connectBound = 30 * time.Second

// Evidence gathers what is known of a lab into dir, which must not exist or be
// empty; see package evidence. The lab may be broken, half made or not there:
// what cannot be had is in the summary. An error means that the folder cannot be
// written, or that ctx ended.
// What the caller has of its own comes first.
func (d *Driver) Evidence(ctx context.Context, t topology.Topology, dir string, own ...evidence.Piece) (_ evidence.Summary, err error) {
	g, err := topology.Resolve(t, netip.Prefix{})
	if err != nil {
		return evidence.Summary{}, err
	}
	status := once(ctx, func(ctx context.Context) (lab.Status, error) { return d.Status(ctx, t) })
	look := once(ctx, func(ctx context.Context) (watch.Look, error) { return d.Look(ctx, t, watch.Look{}) })
	pieces := []evidence.Piece{
		{Path: "verdict.txt", Title: "What is wrong", Read: func(context.Context) (any, error) { return verdict(status()) }},
		{Path: "calls.txt", Title: "Calls that are not answered", Read: func(context.Context) (any, error) { return unanswered(look()) }},
		{Path: "status.json", Title: "What status says", Read: func(context.Context) (any, error) { return status() }},
		{Path: "look.json", Title: "Authorities, held bundles and identities", Read: func(context.Context) (any, error) { return look() }},
		{Path: "topology.json", Title: "Topology", Read: func(context.Context) (any, error) { return t, nil }},
		{Path: "versions.json", Title: "Versions", Read: func(context.Context) (any, error) { return versions(), nil }},
		{Path: "containers.json", Read: func(ctx context.Context) (any, error) { return d.engine.ContainersOn(ctx, networkName(t.Name)) }},
	}
	for _, h := range g.Hosts {
		of, end := d.ofHost(ctx, h)
		defer func() { err = errors.Join(err, end()) }()
		pieces = append(pieces, of...)
	}
	found := make([][]evidence.Piece, len(g.Clusters))
	closers := make([]func() error, len(g.Clusters))
	var group sync.WaitGroup
	for i, c := range g.Clusters {
		group.Go(func() { found[i], closers[i] = d.ofCluster(ctx, c, namespaces(g)) })
	}
	group.Wait() // each piece has its own error
	for _, end := range closers {
		defer func() { err = errors.Join(err, end()) }()
	}
	return evidence.Write(ctx, dir, slices.Concat(own, pieces, slices.Concat(found...)))
}

// once asks a lab once for all pieces that need the answer.
func once[T any](ctx context.Context, ask func(context.Context) (T, error)) func() (T, error) {
	return sync.OnceValues(func() (T, error) {
		ctx, cancel := context.WithTimeout(ctx, connectBound)
		defer cancel()
		return ask(ctx)
	})
}

// versions are those of this program and of what it runs in labs.
func versions() map[string]any {
	all := map[string]any{"components": images.Components()}
	if info, ok := debug.ReadBuildInfo(); ok {
		all["fedlab"], all["go"] = info.Main.Version, info.GoVersion
	}
	return all
}

// verdict is what a status finds wrong, a line for each.
func verdict(s lab.Status, err error) (any, error) {
	if err == nil && s.Well {
		return "All of the lab is well.\n", nil
	}
	return strings.Join(s.Problems(), "\n") + "\n", err
}

// unanswered are the calls that fail, a line for each; nothing where none does.
func unanswered(l watch.Look, err error) (any, error) {
	var lines []string
	for _, c := range l.Calls {
		if c.Outcome != watch.Answered {
			lines = append(lines, fmt.Sprintf("%s calls %s: %s: %s\n", c.From, c.To, c.Outcome, c.Problem))
		}
	}
	if lines == nil {
		return nil, err
	}
	return strings.Join(lines, ""), err
}

// ofCluster returns the pieces of a cluster and of the SPIRE servers in it, and
// what ends the connections that the pieces use.
func (d *Driver) ofCluster(ctx context.Context, c *topology.Cluster, namespaces []string) ([]evidence.Piece, func() error) {
	folder := path.Join("clusters", c.Name)
	pieces := []evidence.Piece{{
		// The kubelet says why there are no pods, also where no API answers.
		Path: path.Join(folder, "node.log"),
		Read: func(ctx context.Context) (any, error) {
			return d.engine.Exec(ctx, NodeName(c.Lab, c.Name), []string{"journalctl", "--no-pager", "--lines=2000", "--unit=kubelet", "--unit=containerd"}, nil)
		},
	}}
	kubeconfig, err := d.Parts.Kubeconfigs.Kubeconfig(c.Lab, c.Name)
	var cluster *kube.Cluster
	if err == nil {
		cluster, err = kube.New(kubeconfig)
	}
	if err != nil {
		return append(pieces, failed(folder, err)), nothing
	}
	pieces = append(pieces, evidence.OfCluster(ctx, folder, cluster, namespaces)...)

	// Its servers can be asked even where other clusters are gone.
	bounded, cancel := context.WithTimeout(ctx, connectBound)
	defer cancel()
	var ends []func() error
	for _, s := range c.Servers {
		site, err := d.Site(bounded, s)
		if err != nil {
			pieces = append(pieces, failed(path.Join("servers", s.String()), err))
			continue
		}
		pieces, ends = append(pieces, ofServer(site)...), append(ends, site.Close)
	}
	return pieces, func() error {
		var errs []error
		for _, end := range ends {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
}

// ofHost returns the pieces of a host: the logs of its programs, and what its server has.
func (d *Driver) ofHost(ctx context.Context, h *topology.Host) ([]evidence.Piece, func() error) {
	folder := path.Join("hosts", h.Name)
	bounded, cancel := context.WithTimeout(ctx, connectBound)
	defer cancel()
	all, err := d.Parts.Hosts.List(bounded, h.Lab)
	pieces := []evidence.Piece{{Path: path.Join(folder, "programs.json"), Read: func(context.Context) (any, error) {
		return slices.DeleteFunc(slices.Clone(all), func(f lab.FoundHost) bool { return f.Name != h.Name }), err
	}}}
	for _, f := range all {
		for program := range f.Programs {
			if f.Name != h.Name {
				continue
			}
			pieces = append(pieces, evidence.Piece{Path: path.Join(folder, program+".log"), Read: func(ctx context.Context) (any, error) {
				var text bytes.Buffer
				err := d.Parts.OnHost(h.Lab, h.Name).Logs(ctx, program, access.LogOptions{}, &text)
				return text.Bytes(), err
			}})
		}
	}
	if h.Server == nil {
		return pieces, nothing
	}
	site, err := d.Site(bounded, h.Server)
	if err != nil {
		return append(pieces, failed(path.Join("servers", h.Server.Domain.String()), err)), nothing
	}
	return append(pieces, ofServer(site)...), site.Close
}

// namespaces are those in which only fedlab and kind put anything.
func namespaces(g *topology.Graph) []string {
	all := []string{"kube-system", "local-path-storage", metallb.Namespace}
	for _, d := range g.Domains {
		for _, m := range d.Members {
			if m.Host() != nil {
				continue
			}
			all = append(all, m.Place.Namespace, m.Namespace(topology.Probe()))
		}
	}
	for _, w := range g.Workloads {
		if w.Host() == nil {
			all = append(all, w.Namespace)
		}
	}
	return all
}

func nothing() error { return nil }

func failed(path string, err error) evidence.Piece {
	return evidence.Piece{Path: path, Read: func(context.Context) (any, error) { return nil, err }}
}

// ofServer returns what one SPIRE server has, in its own words.
func ofServer(site *lab.Site) []evidence.Piece {
	folder, server := path.Join("servers", site.String()), site.API
	return []evidence.Piece{
		{Path: path.Join(folder, "bundle.json"), Read: func(ctx context.Context) (any, error) {
			own, err := server.Bundle(ctx)
			return documents(err, own)
		}},
		{Path: path.Join(folder, "held-bundles.json"), Read: func(ctx context.Context) (any, error) {
			held, err := server.HeldBundles(ctx)
			return documents(err, held...)
		}},
		answer(folder, "relationships", server.Relationships),
		answer(folder, "agents", server.Agents),
		answer(folder, "entries", server.Entries),
	}
}

func answer[T spire.Relationship | spire.Agent | spire.Entry](folder, name string, ask func(context.Context) ([]T, error)) evidence.Piece {
	return evidence.Piece{Path: path.Join(folder, name+".json"), Read: func(ctx context.Context) (any, error) { return ask(ctx) }}
}

// documents writes bundles as endpoints serve them, by their trust domains.
func documents(err error, bundles ...*spiffebundle.Bundle) (any, error) {
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	for _, b := range bundles {
		document, err := b.Marshal()
		if err != nil {
			return nil, err
		}
		all[b.TrustDomain().Name()] = document
	}
	return all, nil
}
