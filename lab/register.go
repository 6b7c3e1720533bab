package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// register lets a workload have its identity.
func (u *up) register(ctx context.Context, w *topology.Workload) error {
	identity, cluster := spire.WorkloadIdentity(w), w.Cluster()
	if w.Host() != nil {
		if cluster = w.Member.Server.Place.Cluster; cluster == nil {
			return u.registerByAPI(ctx, w)
		}
		identity = spire.StaticEntry(w, u.agentOn(w.Member))
	}
	return u.takesIdentity(ctx, u.in(cluster).Objects, identity)
}

// registerDatabase lets the PostgreSQL next to a workload have its identity.
func (u *up) registerDatabase(ctx context.Context, w *topology.Workload) error {
	return u.takesIdentity(ctx, u.in(w.Cluster()).Objects, spire.DatabaseIdentity(w))
}

// takesIdentity makes a resource of which an entry comes in a cluster.
func (u *up) takesIdentity(ctx context.Context, objects access.Objects, identity spire.Resource) error {
	replaced := false
	return wait(ctx, apiBound, check.Check{Name: "the controller manager takes the registration", Probe: func(ctx context.Context) error {
		applied, err := objects.Apply(ctx, identity)
		if applied {
			plan.Did(ctx)
		}
		if err != nil || replaced {
			return err
		}
		// What somebody has written into it besides, such as a class, stays there
		// when it is applied.
		if same, err := hasSpec(ctx, objects, identity); err != nil || same {
			return err
		}
		plan.Did(ctx)
		if err := objects.Delete(ctx, access.ObjectKey{APIVersion: identity.APIVersion, Kind: identity.Kind, Name: identity.Metadata.Name}); err != nil {
			return err
		}
		replaced = true
		_, err = objects.Apply(ctx, identity)
		return err
	}})
}

// hasSpec reports whether the spec of a resource is what it should be, and nothing
// besides.
func hasSpec(ctx context.Context, objects access.Objects, resource spire.Resource) (bool, error) {
	var is, want struct {
		Spec any `json:"spec"`
	}
	text, err := json.Marshal(resource)
	if err == nil {
		err = json.Unmarshal(text, &want)
	}
	if err != nil {
		return false, err
	}
	_, err = objects.Object(ctx, access.ObjectKey{APIVersion: resource.APIVersion, Kind: resource.Kind, Name: resource.Metadata.Name}, &is)
	return reflect.DeepEqual(is.Spec, want.Spec), err
}

// registrationBound is how long it may take until a resource that somebody has
// changed, or a pod that is new, has its entry, and the workload its identity.
const registrationSlack = 2 * time.Second

func registrationBound() time.Duration {
	return federation.ReconcileBound() + federation.RegistrationBound() + registrationSlack
}

// awaited is a wait for a workload that needs its identity.
type awaited struct {
	*topology.Workload
	// site is its server, in its cluster.
	site *Site
	in   access.Cluster
	// began is when it was first looked at.
	began time.Time
	// outranked is about its registration.
	outranked outranking
}

// outranking is since when something of somebody else keeps away what a wait is for; the
// zero value while nothing does.
type outranking struct{ since time.Time }

// judge returns what a look of the wait has seen. Once something has outranked what is
// waited for longer than a change needs to take effect, waiting does not help.
func (o *outranking) judge(err error) error {
	elder, rival := (*outrankedError)(nil), (*rivalError)(nil)
	switch {
	case !errors.As(err, &elder) && !errors.As(err, &rival):
		o.since = time.Time{}
	case o.since.IsZero():
		o.since = time.Now()
	case time.Since(o.since) > registrationBound():
		return check.Never(err)
	}
	return err
}

// registered returns nil when the workload gets its identity and the bundles that it
// needs. Where seen is an error, that is what the wait sees, and it is returned with
// what is wrong with the registration.
func (a *awaited) registered(ctx context.Context, seen error) error {
	all, err := readRegistry(ctx, a.site, a.in.Objects, a.Member)
	if err != nil {
		return errors.Join(seen, err)
	}
	is := identify(ctx, a.in.Objects, a.Workload)
	if is.unseen != nil {
		return errors.Join(seen, is.unseen)
	}
	err = all.registered(is)
	switch {
	case seen != nil && err != nil:
		err = fmt.Errorf("%w: %w", seen, err)
	case seen != nil:
		err = all.because(is, seen)
	}
	return a.outranked.judge(err)
}

// runs waits until a workload runs, which it does once it has its identity. Why it has
// none is looked at when that takes longer than it should.
func (u *up) runs(ctx context.Context, w *topology.Workload) error {
	a := &awaited{Workload: w, site: u.site(w.Member.Server), in: u.in(w.Cluster()), began: time.Now()}
	return wait(ctx, rolloutBound, check.Check{Name: w.Name + " runs", Probe: func(ctx context.Context) error {
		if h := w.Host(); h != nil {
			if err := u.ended(ctx, h, HostRun(w)); err != nil {
				return err
			}
		}
		err := u.ready(ctx, a.in, w)
		if err != nil && time.Since(a.began) > registrationBound() {
			err = a.registered(ctx, err)
		}
		return err
	}})
}
