package trial

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Runner runs scenarios on a lab that is up.
type Runner struct {
	Driver   *lab.Driver
	Topology topology.Topology
	// Observe is told what happens; it may be nil.
	Observe func(Event)
	// Pause, where it is set, is asked before each step, and ends the run with
	// its error.
	Pause func(ctx context.Context, next Step) error
	// Keep leaves the probes in the lab; the next up removes them.
	Keep bool
}

// NotWellError says what of a lab is not well, so that nothing that is seen on it
// would mean anything.
type NotWellError struct {
	Lab      string
	Problems []string
}

func (e *NotWellError) Error() string {
	return fmt.Sprintf("lab %s is not well: %s", e.Lab, strings.Join(e.Problems, "; "))
}

// Session is a lab that is ready for scenarios. The caller closes it.
type Session struct {
	runner *Runner
	hold   *lab.Hold
	// lab is with probes; nil as long as these are not there.
	lab   *lab.Lab
	sites map[*topology.Domain]*lab.Site
	// pairs are the relationships that scenarios can run on.
	pairs []*topology.Trust
	// late is by how much the control came after its bound.
	late time.Duration
}

// Open gets a lab ready: it must be up and well, nobody else may be changing it,
// and it is given a probe in each cluster. What a run that was killed has left in
// it is taken away first. The error is a *NeedsError, a *NotWellError, a
// *lab.HeldError or a *lab.NotUpError, and then nothing else has been changed.
func (r *Runner) Open(ctx context.Context) (_ *Session, err error) {
	asked, err := topology.Resolve(r.Topology, netip.Prefix{})
	if err != nil {
		return nil, err
	}
	if _, err := callable(asked); err != nil {
		return nil, err
	}
	l, err := r.Driver.Open(ctx, r.Topology)
	if err != nil {
		return nil, err
	}
	s := &Session{runner: r}
	if s.hold, err = r.Driver.Hold(ctx, r.Topology.Name, "scenario run"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// Where a cluster cannot be swept, the look says more of why. SVIDs that a
	// run has left unverified are replaced by the up that brings the probes.
	err = errors.Join(sweep(ctx, r.Driver.Parts, l.Graph.Servers(), l.Access), r.well(ctx, r.Topology, lab.Unverified))
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, errors.Join(err, s.hold.Release())
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// podGone is how long a pod may take to go: one that does not end when it is asked to is
// killed after 30 seconds, Kubernetes' terminationGracePeriodSeconds.
const podGone = 45 * time.Second

// sweep takes away what a run that was killed has left of servers and in their
// clusters: its faults, and its newcomers, whose names the next ones have.
func sweep(ctx context.Context, parts lab.Parts, servers []*topology.Server, in func(*topology.Cluster) access.Cluster) error {
	var errs []error
	for _, s := range servers {
		c := s.Place.Cluster
		if c == nil {
			continue // it is on a host, where scenarios break nothing
		}
		errs = append(errs, fault.Sweep(ctx, faultCluster(parts, s, in(c))))
		objects := in(c).Objects
		err := objects.Delete(ctx, newcomerPod(s.Domain))
		if err == nil {
			err = check.Until(ctx, check.Bound{Within: podGone, Every: pace}, newcomerGone(objects, s.Domain))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove newcomer from cluster %s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}

// well returns a *NotWellError when something of a lab is not well, except what is
// not well because of one of these causes.
func (r *Runner) well(ctx context.Context, t topology.Topology, but ...lab.Cause) error {
	status, err := r.Driver.Status(ctx, t)
	if err != nil {
		return err
	}
	if problems := status.Problems(but...); len(problems) > 0 {
		return &NotWellError{Lab: t.Name, Problems: problems}
	}
	return nil
}

// prepare brings the probes in, and connects to all clusters and servers.
func (s *Session) prepare(ctx context.Context) (err error) {
	with := s.runner.Topology.WithProbes()
	if err := s.hold.Up(ctx, with); err != nil {
		return err
	}
	if s.lab, err = s.runner.Driver.Open(ctx, with); err != nil {
		return err
	}
	if s.pairs, err = callable(s.lab.Graph); err != nil {
		return err
	}
	s.sites = map[*topology.Domain]*lab.Site{}
	for _, d := range s.lab.Graph.Domains {
		if s.sites[d], err = s.lab.Site(ctx, d.Server()); err != nil {
			return err
		}
	}
	if s.late, err = s.control(ctx); err != nil {
		return fmt.Errorf("a newcomer gets no identity while all is well: %w", err)
	}
	return nil
}

// Close takes the probes away, unless they are to be kept, and lets others change
// the lab.
func (s *Session) Close(ctx context.Context) error {
	var errs []error
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	if !s.runner.Keep {
		errs = append(errs, s.hold.Up(ctx, s.runner.Topology))
	}
	return errors.Join(append(errs, s.hold.Release())...)
}

// Run runs a scenario on a relationship of the lab, or on the first that fits where that is
// the zero value, and returns its record. What it saw that does not hold is in the record; an
// error means that the lab could not be put back, and nothing that runs on it afterwards would
// mean anything, or is a *NeedsError, and then nothing was done.
func (s *Session) Run(ctx context.Context, scenario Scenario, asked On) (Record, error) {
	name := ""
	if asked != (On{}) {
		name = asked.String()
	}
	pair, err := scenario.pick(s.lab.Graph.Name, s.pairs, name)
	if err != nil {
		return Record{}, err
	}
	trusts := s.lab.Graph.Trusts
	t := &Trial{session: s, pair: pair, parts: scenario.Parts, operator: honest{}, record: Record{
		APIVersion: RecordVersion, Kind: "ScenarioRecord", Scenario: scenario.Name, Claim: scenario.Claim, Lab: s.lab.Graph.Name, On: on(pair),
		Labels: scenario.AllLabels(), Sources: scenario.Sources, Began: time.Now(),
		Slack: Slack{Control: s.late},
	}}
	sampling, stop := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { t.sample(sampling) })
	sampler.Go(func() { t.measureSlack(sampling) })
	t.Restore("see that each holds the bundles of those whom it trusts", func(ctx context.Context) error {
		errs := []error{t.handoverBehind(ctx, trusts)}
		for _, d := range t.late {
			errs = append(errs, d.restart(ctx))
		}
		return errors.Join(errs...)
	})
	err = t.takeUp(ctx)
	if err == nil && len(t.record.Steps) > 0 {
		// Those who trust the trust domain have yet to hear that it is over.
		t.Step(ctx, "see that the lab is well again", func(ctx context.Context) error {
			byHand := slices.DeleteFunc(slices.Clone(trusts), func(r *topology.Trust) bool { return r.Mode != topology.Manual })
			if err := t.handoverBehind(ctx, byHand); err != nil {
				return err
			}
			return t.proveRestored(ctx)
		})
		err = t.Err()
	}
	if err == nil {
		// The control of all that is not well later.
		called, caller := t.Pair()
		for _, f := range []Fact{caller.Held(called), caller.Fetch(called)} {
			t.lookAt(ctx, f, time.Now())
		}
		err = scenario.Run(ctx, t)
	}
	if t.err == nil {
		t.err = err
	}
	t.finish(ctx)
	stop()
	sampler.Wait()
	restored := t.proveRestored(context.WithoutCancel(ctx))
	if restored != nil {
		t.record.Error = strings.TrimPrefix(t.record.Error+"\n"+restored.Error(), "\n")
		t.record = Judge(t.record)
	}
	return t.record, errors.Join(restored, context.Cause(ctx))
}

// takeUp finishes the rotations of the pair that a run which was killed has left,
// or that somebody has begun by hand. Another authority that is prepared would
// take their place in what the server remembers, and nobody could finish them any
// more.
func (t *Trial) takeUp(ctx context.Context) error {
	called, caller := t.Pair()
	for _, d := range []Domain{called, caller} {
		for _, kind := range []Kind{JWT, X509} {
			if kind == X509 && d.UpstreamAuthority != topology.SelfSigned {
				continue // it cannot be tainted here
			}
			r, err := d.begun(ctx, kind)
			if err != nil {
				return err
			}
			if r != nil {
				t.Step(ctx, "finish "+r.String()+" that was begun before", r.finish)
			}
		}
	}
	return t.Err()
}

// proveRestored waits until the lab is well, and until workloads have what their
// servers hold, which comes some seconds after. The longest that anything takes by
// itself is one poll and the controller manager's interval.
func (t *Trial) proveRestored(ctx context.Context) error {
	g := t.session.lab.Graph
	longest := federation.ReconcileBound()
	for _, d := range g.Domains {
		longest = max(longest, federation.PollInterval(d.BundleEndpoint.RefreshHint, d.CATTL))
	}
	err := check.Until(ctx, check.Bound{Within: longest + Reconciled().Within + faultBound, Every: time.Second}, check.Check{
		Name: "lab " + g.Name + " is well again", Probe: func(ctx context.Context) error {
			err := t.session.runner.well(ctx, g.Intent())
			for _, r := range g.Trusts {
				if err == nil {
					err = t.Domain(r.Truster).Federated(t.Domain(r.Trusted)).Probe(ctx)
				}
			}
			return err
		},
	})
	if err != nil {
		return fmt.Errorf("put the lab back: %w", err)
	}
	return nil
}
