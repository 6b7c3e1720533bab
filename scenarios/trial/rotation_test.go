package trial

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// alone returns a trust domain that nobody trusts, with a server of its own.
func alone(t *testing.T) Domain {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString("cluster1.com")
	process := spiretest.StartServer(t, td, spire.AdminID(td))
	server, err := spire.Connect(t.Context(), process.Exec, process.Dial, td)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return Domain{&topology.Domain{Name: td}, &lab.Site{API: server}, &Trial{session: &Session{runner: &Runner{}}}}
}

// stages are what an operator does, in order, and whether a rotation is under way
// after it.
var stages = []struct {
	name             string
	do               func(ctx context.Context, all authorities, old, next string) error
	begun, activated bool
}{
	{"nothing", func(context.Context, authorities, string, string) error { return nil }, false, false},
	{"prepare", func(ctx context.Context, all authorities, _, _ string) error {
		_, err := all.publish(ctx)
		return err
	}, true, false},
	{"activate", func(ctx context.Context, all authorities, _, next string) error {
		_, err := all.sign(ctx, next)
		return err
	}, true, true},
	{"taint", func(ctx context.Context, all authorities, old, _ string) error { return all.taint(ctx, old) }, true, true},
	{"revoke", func(ctx context.Context, all authorities, old, _ string) error { return all.revoke(ctx, old) }, false, false},
}

// through does the stages up to one, and returns the authority that was active
// before, and that which takes its place.
func through(t *testing.T, all authorities, stage int) (old, next string) {
	t.Helper()
	for i, s := range stages[:stage+1] {
		if err := s.do(t.Context(), all, old, next); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		state, err := all.state(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		switch i {
		case 0:
			old = state.Active.ID
		case 1:
			next = state.Prepared.ID
		}
	}
	return old, next
}

// TestBegunRotationIsFound after each stage that somebody else may have left.
func TestBegunRotationIsFound(t *testing.T) {
	for _, kind := range []Kind{X509, JWT} {
		for i, stage := range stages {
			t.Run(string(kind)+"/"+stage.name, func(t *testing.T) {
				d := alone(t)
				old, next := through(t, d.authorities(kind), i)
				want := "none"
				if stage.begun {
					want = fmt.Sprintf("%s by %s, activated %t", old, next, stage.activated)
				}
				r, err := d.begun(t.Context(), kind)
				got := "none"
				if r != nil {
					got = fmt.Sprintf("%s by %s, activated %t", r.Old.ID, r.Next.ID, r.activated)
				}
				if err != nil || got != want {
					t.Errorf("it finds %s, %v\nwant %s", got, err, want)
				}
			})
		}
	}
}

// TestBegunRotationIsFinished from each of them, with JWT authorities: with X.509,
// agents and a pod have a part in it.
func TestBegunRotationIsFinished(t *testing.T) {
	for i, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			d := alone(t)
			all := d.authorities(JWT)
			active, next := through(t, all, i)
			if i > 0 {
				active = next
			}
			for range 2 { // repeated, it does nothing
				if err := d.finishBegun(t.Context(), JWT); err != nil {
					t.Fatal(err)
				}
				state, err := all.state(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				bundle, err := d.Bundle(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if state.Active.ID != active || state.Prepared != nil || !slices.Equal(JWT.in(bundle), []string{active}) {
					t.Errorf("active is %v, prepared %v, in the bundle %v; want %s alone", state.Active, state.Prepared, JWT.in(bundle), active)
				}
			}
		})
	}
}

// TestRotationCatchesUp: an answer may have been lost, and what the
// server did already is not done again.
func TestRotationCatchesUp(t *testing.T) {
	for i, stage := range stages[1:] {
		t.Run(stage.name, func(t *testing.T) {
			d := alone(t)
			all := d.authorities(JWT)
			old, next := through(t, all, i+1)
			r := &Rotation{kind: JWT, of: d, Old: spire.Authority{ID: old}, Next: spire.Authority{ID: next}}
			if err := r.catchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r.activated != (i >= 1) || r.revoked != (i >= 3) {
				t.Errorf("activated %t, revoked %t", r.activated, r.revoked)
			}
		})
	}
}
