// Package mutant runs scenarios with one thing wrong on purpose, which must not
// hold: it shows that a scenario can fail.
//
// It wraps a scenario from the outside, by an operator who makes a mistake or by a
// record that is wrong. It refuses to know which scenarios there are, and no
// scenario knows of it.
package mutant

import (
	"context"
	"errors"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// Mutation names the one thing that is wrong.
type Mutation string

const (
	// SkipTaint leaves an authority untainted that a scenario taints.
	SkipTaint Mutation = "skip-taint"
	// KeepOldBundle leaves an authority in the bundle that a scenario revokes.
	KeepOldBundle Mutation = "keep-old-bundle"
	// AcceptAny has each call recorded as answered.
	AcceptAny Mutation = "accept-any"
	// NoAuthentication has services called that answer everybody with a certificate, whoever
	// signed it.
	NoAuthentication Mutation = "no-authentication"
	// NeverRefresh keeps the truster from fetching, from the first step on and until
	// the scenario itself gives the endpoint other settings; what it forces is left
	// out.
	NeverRefresh Mutation = "never-refresh"
	// RecordNothing loses the record of the traffic, and of what was looked at.
	RecordNothing Mutation = "record-nothing"
	// RecoverEarly undoes a fault as soon as it is felt.
	RecoverEarly Mutation = "recover-early"
	// NoFault leaves out what a scenario breaks.
	NoFault Mutation = "no-fault"
	// NoCure leaves out what ends it.
	NoCure Mutation = "no-cure"
	// KillWorkload kills the called workload together with the first thing that a scenario
	// does: calls fail of which it is claimed that they do not.
	KillWorkload Mutation = "kill-workload"
)

// Mutations returns all mutations.
func Mutations() []Mutation {
	return []Mutation{SkipTaint, KeepOldBundle, AcceptAny, NoAuthentication, NeverRefresh, RecordNothing, RecoverEarly, NoFault, NoCure, KillWorkload}
}

// OfRecord tells whether the mutation changes what is recorded, and not what happens.
func (m Mutation) OfRecord() bool { return m == AcceptAny || m == RecordNothing }

// Run runs a scenario on a relationship with a mutation, or as it is where that is empty, and
// returns its record and error as Session.Run does.
func (m Mutation) Run(ctx context.Context, in *trial.Session, s trial.Scenario, on trial.On) (trial.Record, error) {
	run := s.Run
	s.Run = func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		t.Employ(func(careful trial.Operator) trial.Operator {
			return &operator{Operator: careful, makes: m, kill: called.KillProbe}
		})
		if m == NeverRefresh {
			if _, err := t.CutEndpoint(ctx, called, caller); err != nil {
				return err
			}
		}
		return run(ctx, t)
	}
	record, err := in.Run(ctx, s, on)
	return m.record(record), err
}

// record returns a record with what the mutation makes wrong in it, judged again.
func (m Mutation) record(r trial.Record) trial.Record {
	if m == "" {
		return r
	}
	r.Mutation = string(m)
	r.Streams = slices.Clone(r.Streams)
	if m == RecordNothing {
		r.Looks = nil
	}
	for i := range r.Streams {
		calls := &r.Streams[i].Calls
		switch m {
		case RecordNothing:
			*calls = nil
		case AcceptAny:
			*calls = slices.Clone(*calls)
			for j := range *calls {
				(*calls)[j].Outcome = traffic.Answered
			}
		}
	}
	return trial.Judge(r)
}

// operator makes the mistake of a mutation, where it is one of an operator.
type operator struct {
	trial.Operator
	makes Mutation
	kill  func(ctx context.Context) error
	// did tells whether anything was done.
	did bool
}

// leftOut is the act that each mutation of that kind leaves out.
func leftOut() map[Mutation]trial.Act {
	return map[Mutation]trial.Act{
		SkipTaint: trial.ToTaint, KeepOldBundle: trial.ToRevoke, NeverRefresh: trial.ToRefresh, NoFault: trial.ToChange, NoCure: trial.ToCure,
	}
}

func (o *operator) Inject(ctx context.Context, f fault.Fault) (fault.Injected, error) {
	if o.makes == NoFault {
		return nothing{}, nil
	}
	injected, err := o.Operator.Inject(ctx, f)
	if err == nil && o.makes == RecoverEarly {
		injected = &recovered{Injected: injected}
	}
	return injected, errors.Join(err, o.first(ctx))
}

func (o *operator) Do(ctx context.Context, act trial.Act, do func(context.Context) error) error {
	if leftOut()[o.makes] == act {
		return nil
	}
	return errors.Join(o.Operator.Do(ctx, act, do), o.first(ctx))
}

func (o *operator) Port(meant int) int {
	if o.makes == NoAuthentication {
		return trial.AnybodyPort
	}
	return o.Operator.Port(meant)
}

// first kills the workload, where that is the mutation, with the first thing that is done.
func (o *operator) first(ctx context.Context) error {
	if o.makes != KillWorkload || o.did {
		return nil
	}
	o.did = true
	return o.kill(ctx)
}

// nothing is a fault that was not injected.
type nothing struct{}

func (nothing) Felt() check.Check   { return isNothing() }
func (nothing) Healed() check.Check { return isNothing() }

func (nothing) Recover(context.Context) error { return nil }

func isNothing() check.Check {
	return check.Check{Name: "nothing is broken", Probe: func(context.Context) error { return nil }}
}

// recovered is a fault that is felt only once it is over again.
type recovered struct {
	fault.Injected
	over bool
}

func (r *recovered) Felt() check.Check {
	felt, healed := r.Injected.Felt(), r.Healed()
	return check.Check{Name: felt.Name + ", and is over too early", Probe: func(ctx context.Context) error {
		if !r.over {
			if err := felt.Probe(ctx); err != nil {
				return err
			}
			if err := r.Recover(ctx); err != nil {
				return err
			}
			r.over = true
		}
		return healed.Probe(ctx)
	}}
}
