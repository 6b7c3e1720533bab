package scenarios

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

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

// domain returns a trust domain as scenarios know it.
func (t *Trial) domain(d *topology.Domain) Domain { return Domain{d, t.ground.sites[d], t} }

// Pair returns two trust domains that trust each other: called is the one whose
// bundle, server and cluster are mostly broken, caller the one from which that is
// seen.
func (t *Trial) Pair() (called, caller Domain) {
	return t.domain(t.ground.called), t.domain(t.ground.caller)
}

// bond is a relationship of the lab in a trial.
type bond struct {
	truster, trusted Domain
	mode             topology.Mode
}

// bonds returns the relationships of the lab.
func (t *Trial) bonds() []bond { return t.bondsOf(t.lab().Graph.Trusts) }

// bondsTo returns the relationships of those who trust a trust domain: a lab may
// have more of them than the pair's other one.
func (t *Trial) bondsTo(trusted Domain) []bond { return t.bondsOf(trusted.TrustedBy) }

func (t *Trial) bondsOf(trusts []*topology.Trust) []bond {
	var all []bond
	for _, r := range trusts {
		all = append(all, bond{t.domain(r.Truster), t.domain(r.Trusted), r.Mode})
	}
	return all
}

// Server returns the connection to the SPIRE server.
func (d Domain) Server() *spire.Server { return d.site.API }

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
	return d.pod(map[string]string{"app.kubernetes.io/name": topology.Probe().Name})
}

// controlPort is where a probe takes orders, on its pod's loopback alone.
const controlPort = 8080

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
		return d.Access().Pods.Dial(ctx, key.Namespace, names[0], controlPort)
	})
}

// Poll returns how often the server fetches the bundle of another.
func (d Domain) Poll(of Domain) time.Duration {
	return federation.PollInterval(of.BundleEndpoint.RefreshHint, of.CATTL)
}

// Formulas of bounds, in words.
const (
	registrationFormula = "entry cache + agent synchronisation"
	taintFormula        = "two agent synchronisations"
	reconcileFormula    = "controller manager's interval + entry cache + agent synchronisation"
)

// ToServer bounds the way of a new authority to the server.
func (d Domain) ToServer(of Domain) Bound {
	poll := d.Poll(of)
	return Bound{Within: federation.FetchBound(poll), Formula: fmt.Sprintf("endpoint cache + one poll (%s)", poll)}
}

// ToWorkloads bounds the way of a new authority to the workloads.
func (d Domain) ToWorkloads(of Domain) Bound {
	poll := d.Poll(of)
	return Bound{
		Within: federation.PropagationBound(poll), Propagation: true,
		Formula: fmt.Sprintf("endpoint cache + one poll (%s) + %s", poll, registrationFormula),
	}
}

// registered bounds the way of a change of an entry to its workload.
func registered() Bound {
	return Bound{Within: federation.RegistrationBound(), Formula: registrationFormula}
}

// tainted bounds how long an SVID of a tainted authority is presented.
func tainted() Bound { return Bound{Within: federation.TaintBound(), Formula: taintFormula} }

// reconciled bounds the way of an entry that the controller manager could not
// make before.
func reconciled() Bound {
	return Bound{Within: federation.ReconcileBound() + federation.RegistrationBound(), Formula: reconcileFormula}
}

// immediate is for what no interval of SPIRE's stands before.
func immediate() Bound { return Bound{Formula: "no interval: the machine alone"} }

// Bundle returns the bundle that the server serves as its own.
func (d Domain) Bundle(ctx context.Context) (*spiffebundle.Bundle, error) {
	return d.Server().Bundle(ctx)
}

// Held returns the bundle that the server holds of another, nil for none.
func (d Domain) Held(ctx context.Context, of spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	return d.Server().HeldBundle(ctx, of)
}

// Compare compares what the server holds of another with its source.
func (d Domain) Compare(ctx context.Context, of Domain) (federation.Comparison, error) {
	source, err := of.Bundle(ctx)
	if err != nil {
		return federation.Comparison{}, err
	}
	held, err := d.Held(ctx, of.Name)
	return federation.Compare(held, source), err
}

// InState checks how the held bundle of another stands to its source.
func (d Domain) InState(of Domain, want federation.State) check.Check {
	return check.Check{
		Name: fmt.Sprintf("what %s holds of %s is %s", d, of, want),
		Probe: func(ctx context.Context) error {
			seen, err := d.Compare(ctx, of)
			if err == nil && seen.State != want {
				err = errors.New(seen.String())
			}
			return err
		},
	}
}

// lacks checks that the server holds a bundle of another without an X.509
// authority.
func (d Domain) lacks(of Domain, id string) check.Check {
	return check.Check{
		Name: fmt.Sprintf("the server of %s lacks authority %s of %s", d, brief(id), of),
		Probe: func(ctx context.Context) error {
			held, err := d.Held(ctx, of.Name)
			switch {
			case err != nil:
				return err
			case held == nil:
				return errors.New("it holds no bundle")
			case slices.Contains(federation.X509IDs(held), id):
				return errors.New("it holds it")
			}
			return nil
		},
	}
}

// Has checks that the probe has an X.509 authority of another from its Workload
// API.
func (d Domain) Has(of Domain, id string) check.Check {
	return check.Check{
		Name: fmt.Sprintf("workloads of %s have authority %s of %s", d, brief(id), of),
		Probe: func(ctx context.Context) error {
			_, err := d.has(ctx, of.Name, id)
			return err
		},
	}
}

// Dropped checks that the probe has a bundle of another without an authority.
func (d Domain) Dropped(of Domain, id string) check.Check {
	return check.Check{
		Name: fmt.Sprintf("workloads of %s no longer have authority %s of %s", d, brief(id), of),
		Probe: func(ctx context.Context) error {
			has, err := d.has(ctx, of.Name, id)
			if has {
				return errors.New("they have it")
			}
			if missing := (*lacksError)(nil); errors.As(err, &missing) {
				return nil
			}
			return err
		},
	}
}

// lacksError says that a bundle is there, and an authority is not in it.
type lacksError struct{ has []string }

func (e *lacksError) Error() string { return fmt.Sprintf("they have %v", briefs(e.has)) }

func (d Domain) has(ctx context.Context, of spiffeid.TrustDomain, id string) (bool, error) {
	holding, err := d.Probe().Holding(ctx)
	if err != nil {
		return false, err
	}
	ids, there := holding.Bundles[of.Name()]
	switch {
	case !there:
		return false, fmt.Errorf("they have no bundle of %s, but of %v", of.Name(), slices.Sorted(maps.Keys(holding.Bundles)))
	case !slices.Contains(ids, id):
		return false, &lacksError{ids}
	}
	return true, nil
}

// Presents checks that an authority has signed the SVID that the probe presents.
func (d Domain) Presents(id string) check.Check {
	return check.Check{
		Name: fmt.Sprintf("workloads of %s present SVIDs of authority %s", d, brief(id)),
		Probe: func(ctx context.Context) error {
			holding, err := d.Probe().Holding(ctx)
			switch {
			case err != nil:
				return err
			case holding.Self == nil:
				return fmt.Errorf("they have no SVID: %s", holding.Problem)
			case holding.Self.Authority != id:
				return fmt.Errorf("theirs is of authority %s", brief(holding.Self.Authority))
			}
			return nil
		},
	}
}

// Ready returns nil when all of SPIRE in the cluster runs.
func (d Domain) Ready() check.Check {
	return check.Check{Name: "all of SPIRE runs in " + d.Cluster().Name, Probe: func(ctx context.Context) error {
		_, err := d.Bundle(ctx)
		return errors.Join(err,
			d.Access().Pods.Ready(ctx, lab.ServerKey(d.site.Place)), d.Access().Pods.Ready(ctx, lab.AgentKey(d.site.Place)))
	}}
}

// Refresh has the server fetch the bundle of another now.
func (d Domain) Refresh(ctx context.Context, of Domain) error {
	return d.Server().RefreshBundle(ctx, of.Name)
}

// Federated checks that the server holds the bundle of another in sync and that
// the workloads have all of it.
func (d Domain) Federated(of Domain) check.Check {
	return check.Check{Name: fmt.Sprintf("workloads of %s have the bundle that %s serves", d, of), Probe: func(ctx context.Context) error {
		seen, err := d.Compare(ctx, of)
		if err != nil {
			return err
		}
		if seen.State != federation.InSync {
			return errors.New(seen.String())
		}
		source, err := of.Bundle(ctx)
		if err != nil {
			return err
		}
		holding, err := d.Probe().Holding(ctx)
		if err != nil {
			return err
		}
		for _, kind := range []struct {
			name      string
			got, want []string
		}{
			{x509Kind, holding.Bundles[of.String()], federation.X509IDs(source)},
			{jwtKind, holding.JWTBundles[of.String()], federation.JWTIDs(source)},
		} {
			if !slices.Equal(slices.Sorted(slices.Values(kind.got)), slices.Sorted(slices.Values(kind.want))) {
				return fmt.Errorf("they have %s authorities %v", kind.name, briefs(kind.got))
			}
		}
		return nil
	}}
}

// brief shortens the ID of an authority to what tells two apart.
func brief(id string) string { return id[:min(8, len(id))] }

func briefs(ids []string) []string {
	short := make([]string, len(ids))
	for i, id := range ids {
		short[i] = brief(id)
	}
	return short
}
