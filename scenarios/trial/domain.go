package trial

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// Domain is a trust domain of the lab in a trial: its SPIRE server, its cluster
// and its probe.
type Domain struct {
	*topology.Domain
	site  *lab.Site
	trial *Trial
}

// Domain returns a trust domain of the lab as scenarios know it.
func (t *Trial) Domain(d *topology.Domain) Domain { return Domain{d, t.session.sites[d], t} }

// Pair returns the two trust domains of the relationship that the scenario runs on: called is
// the trusted one, whose bundle, server and cluster are mostly broken, caller the truster, from
// which that is seen.
func (t *Trial) Pair() (called, caller Domain) {
	return t.Domain(t.pair.Trusted), t.Domain(t.pair.Truster)
}

// Server returns the connection to the SPIRE server.
func (d Domain) Server() *spire.Server { return d.site.API }

// Signing returns the authorities that the replicas of the server sign with, of both
// kinds, by the names of their pods. Each replica has its own.
func (d Domain) Signing(ctx context.Context) (map[string][2]string, error) {
	sites, err := d.trial.session.runner.Driver.Replicas(ctx, d.site.Server)
	if err != nil {
		return nil, err
	}
	all := map[string][2]string{}
	for _, site := range sites {
		x509, ofX509 := site.API.X509Authorities(ctx)
		jwt, ofJWT := site.API.JWTAuthorities(ctx)
		if err = errors.Join(err, ofX509, ofJWT, site.Close()); err != nil {
			continue
		}
		if x509.Active == nil || jwt.Active == nil {
			err = errors.Join(err, fmt.Errorf("%s of %s has no active authority", site.Pod, d))
			continue
		}
		all[site.Pod] = [2]string{x509.Active.ID, jwt.Active.ID}
	}
	return all, err
}

// Access returns what can be done in the cluster.
func (d Domain) Access() access.Cluster { return d.site.Cluster }

// Cluster returns the one that the server and the probe are in.
func (d Domain) Cluster() *topology.Cluster { return d.site.Place.Cluster }

// probe returns the workload by which scenarios call.
func (d Domain) probe() (*topology.Workload, error) {
	for _, w := range d.Workloads() {
		if w.App.Name == topology.Probe().Name {
			return w, nil
		}
	}
	return nil, fmt.Errorf("%s has no probe", d)
}

// ID returns the SPIFFE ID of the probe.
func (d Domain) ID() spiffeid.ID {
	return spiffeid.RequireFromPath(d.Name, topology.Probe().IDTemplate)
}

// Probe returns a client of the probe.
func (d Domain) Probe() *traffic.Probe {
	return d.pod(probeLabels())
}

func probeLabels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": topology.Probe().Name}
}

// KillProbe deletes the pod of the probe: calls of it fail until its Deployment has made another.
func (d Domain) KillProbe(ctx context.Context) error {
	pod := access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: d.namespace()}
	names, err := d.Access().Objects.Named(ctx, pod, probeLabels())
	for _, pod.Name = range names {
		err = errors.Join(err, d.Access().Objects.Delete(ctx, pod))
	}
	return err
}

// pod returns a client of the one pod with these labels that runs the probe's
// program, whether or not it is ready: without an identity it never is.
func (d Domain) pod(labels map[string]string) *traffic.Probe {
	return traffic.NewProbe(func(ctx context.Context) (net.Conn, error) {
		key := access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: d.namespace()}
		names, err := d.Access().Objects.Named(ctx, key, labels)
		if err != nil {
			return nil, err
		}
		if len(names) != 1 {
			return nil, fmt.Errorf("%d pods of %s have the labels %v, want one", len(names), d.Cluster().Name, labels)
		}
		return d.Access().Pods.Dial(ctx, key.Namespace, names[0], topology.ProbeControlPort)
	})
}

// Bundle returns the bundle that the server serves as its own.
func (d Domain) Bundle(ctx context.Context) (*spiffebundle.Bundle, error) {
	return d.Server().Bundle(ctx)
}

// Compare compares what the server holds of another with its source.
func (d Domain) Compare(ctx context.Context, of Domain) (federation.Comparison, error) {
	source, err := of.Bundle(ctx)
	if err != nil {
		return federation.Comparison{}, err
	}
	held, err := d.Server().HeldBundle(ctx, of.Name)
	return federation.Compare(held, source), err
}

// InState checks how the held bundle of another stands to its source.
func (d Domain) InState(of Domain, want federation.State) check.Check {
	return check.Check{Name: fmt.Sprintf("what %s holds of %s is %s", d, of, want), Probe: func(ctx context.Context) error {
		seen, err := d.Compare(ctx, of)
		if err == nil && seen.State != want {
			err = errors.New(seen.String())
		}
		return err
	}}
}

// Held is how what the server holds of another compares with its source, a federation.State.
func (d Domain) Held(of Domain) Fact {
	return Fact{Of: fmt.Sprintf("what %s holds of %s", d, of), Well: string(federation.InSync), Look: func(ctx context.Context) (string, error) {
		seen, err := d.Compare(ctx, of)
		return string(seen.State), err
	}}
}

// SignsWith is the ID of the X.509 authority that the server signs with.
func (d Domain) SignsWith() Fact {
	return Fact{Of: fmt.Sprintf("the X.509 authority that %s signs with", d), Look: func(ctx context.Context) (string, error) {
		active, err := d.Active(ctx, X509)
		return active.ID, err
	}}
}

// Authorities are the IDs of those that the server has in a bundle, its own or that of another.
func (d Domain) Authorities(of Domain) Fact {
	return Fact{Of: fmt.Sprintf("the authorities of %s that %s has", of, d), Look: func(ctx context.Context) (string, error) {
		b, err := d.Server().HeldBundle(ctx, of.Name)
		if d.Name == of.Name {
			b, err = d.Bundle(ctx)
		}
		if err != nil || b == nil {
			return Absent, err
		}
		return strings.Join(slices.Sorted(slices.Values(slices.Concat(federation.X509IDs(b), federation.JWTIDs(b)))), " "), nil
	}}
}

// NotInSync are the states in which a held bundle is not what its source is.
func NotInSync() []string {
	return []string{string(federation.Behind), string(federation.Differing), string(federation.Foreign), string(federation.Empty), string(federation.Missing)}
}

// What a look at a thing that may be there or not sees.
const (
	There  = "there"
	Absent = "absent"
)

// AuthorityOf is whether the probe has an authority of another from its Workload API.
func (d Domain) AuthorityOf(of Domain, kind Kind, id string) Fact {
	return Fact{Of: fmt.Sprintf("%s authority %s of %s at workloads of %s", kind, Brief(id), of, d), Well: There, Look: func(ctx context.Context) (string, error) {
		ids, err := d.ids(ctx, of, kind)
		if slices.Contains(ids, id) {
			return There, err
		}
		return Absent, err
	}}
}

// Has checks that the probe has an authority of another from its Workload API.
func (d Domain) Has(of Domain, kind Kind, id string) check.Check {
	return check.Check{Name: fmt.Sprintf("workloads of %s have %s authority %s of %s", d, kind, Brief(id), of), Probe: func(ctx context.Context) error {
		ids, err := d.ids(ctx, of, kind)
		if err == nil && !slices.Contains(ids, id) {
			err = fmt.Errorf("they have %v", briefs(ids))
		}
		return err
	}}
}

// Dropped checks that the probe has a bundle of another without an authority.
func (d Domain) Dropped(of Domain, kind Kind, id string) check.Check {
	return check.Check{Name: fmt.Sprintf("workloads of %s no longer have %s authority %s of %s", d, kind, Brief(id), of), Probe: func(ctx context.Context) error {
		ids, err := d.ids(ctx, of, kind)
		if err == nil && slices.Contains(ids, id) {
			err = errors.New("they have it")
		}
		return err
	}}
}

// ids returns the IDs of the authorities that the probe has of another.
func (d Domain) ids(ctx context.Context, of Domain, kind Kind) ([]string, error) {
	holding, err := d.Probe().Holding(ctx)
	if err != nil {
		return nil, err
	}
	bundles := holding.Bundles
	if kind == JWT {
		bundles = holding.JWTBundles
	}
	ids, there := bundles[of.String()]
	if !there {
		return nil, fmt.Errorf("they have no bundle of %s, but of %v", of, slices.Sorted(maps.Keys(bundles)))
	}
	return ids, nil
}

// Presents checks that an authority has signed the SVID that the probe presents.
func (d Domain) Presents(id string) check.Check {
	return check.Check{Name: fmt.Sprintf("workloads of %s present SVIDs of authority %s", d, Brief(id)), Probe: func(ctx context.Context) error {
		svid, err := d.SVID(ctx)
		if err == nil && svid.Authority != id {
			err = fmt.Errorf("theirs is of authority %s", Brief(svid.Authority))
		}
		return err
	}}
}

// SVID returns the X509-SVID that the probe presents.
func (d Domain) SVID(ctx context.Context) (traffic.Party, error) {
	holding, err := d.Probe().Holding(ctx)
	switch {
	case err != nil:
		return traffic.Party{}, err
	case holding.Self == nil:
		return traffic.Party{}, fmt.Errorf("workloads of %s have no SVID: %s", d, holding.Problem)
	}
	return *holding.Self, nil
}

// Ready returns nil when all of SPIRE runs: the server, and the agents in each cluster.
func (d Domain) Ready() check.Check {
	return check.Check{Name: "all of SPIRE runs in " + d.Cluster().Name, Probe: func(ctx context.Context) error {
		_, err := d.Bundle(ctx)
		errs := []error{err, d.Access().Pods.Ready(ctx, lab.ServerKey(d.site.Place))}
		for _, m := range d.site.InClusters() {
			errs = append(errs, d.trial.session.lab.Access(m.Cluster()).Pods.Ready(ctx, lab.AgentKey(m.Place)))
		}
		return errors.Join(errs...)
	}}
}

// Agents is whether an agent of the trust domain runs in a cluster.
func (d Domain) Agents() Fact {
	return Fact{Of: "SPIRE agents of " + d.String(), Well: There, Look: func(ctx context.Context) (string, error) {
		for _, m := range d.site.InClusters() {
			in := d.trial.session.lab.Access(m.Cluster())
			if in.Pods.Ready(ctx, lab.AgentKey(m.Place)) == nil {
				return There, nil
			}
			// What cannot be asked is not away.
			if err := in.Objects.NodeReady(ctx); err != nil {
				return "", err
			}
		}
		return Absent, nil
	}}
}

// Started is whether the server that runs now still runs: There, or Absent once its container
// has been started again.
func (d Domain) Started(ctx context.Context) (Fact, error) {
	first, err := d.serverContainer(ctx)
	return Fact{Of: "the SPIRE server of " + d.String() + " that ran at first", Well: There, Look: func(ctx context.Context) (string, error) {
		now, err := d.serverContainer(ctx)
		if err != nil || now != first {
			return Absent, err
		}
		return There, nil
	}}, err
}

// serverContainer returns the ID of the container in which the server runs.
func (d Domain) serverContainer(ctx context.Context) (string, error) {
	var pod struct {
		Status struct {
			ContainerStatuses []struct {
				Name        string `json:"name"`
				ContainerID string `json:"containerID"`
			} `json:"containerStatuses"`
		} `json:"status"`
	}
	key := access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: d.site.Place.Namespace, Name: spire.ServerPod}
	if _, err := d.Access().Objects.Object(ctx, key, &pod); err != nil {
		return "", err
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == spire.ServerContainer && c.ContainerID != "" {
			return c.ContainerID, nil
		}
	}
	return "", fmt.Errorf("the SPIRE server of %s does not run", d)
}

// Federated checks that the server holds the bundle of another in sync and that
// the workloads have all of it. Of a server on a host it asks no workloads: scenarios
// reach probes in pods alone.
func (d Domain) Federated(of Domain) check.Check {
	return check.Check{Name: fmt.Sprintf("workloads of %s have the bundle that %s serves", d, of), Probe: func(ctx context.Context) error {
		seen, err := d.Compare(ctx, of)
		if err != nil {
			return err
		}
		if seen.State != federation.InSync {
			return errors.New(seen.String())
		}
		if onHost(d.Domain) {
			return nil
		}
		source, err := of.Bundle(ctx)
		for _, kind := range []Kind{X509, JWT} {
			if err != nil {
				return err
			}
			var ids []string
			ids, err = d.ids(ctx, of, kind)
			if err == nil && !slices.Equal(slices.Sorted(slices.Values(ids)), slices.Sorted(slices.Values(kind.in(source)))) {
				err = fmt.Errorf("they have %s authorities %v", kind, briefs(ids))
			}
		}
		return err
	}}
}

// Brief shortens the ID of an authority to what tells two apart.
func Brief(id string) string {
	letters := []rune(id)
	return string(letters[:min(8, len(letters))])
}

func briefs(ids []string) []string {
	short := make([]string, len(ids))
	for i, id := range ids {
		short[i] = Brief(id)
	}
	return short
}
