package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	Pause func(ctx context.Context, next StepRecord) error
	// Keep leaves the probes in the lab; the next up removes them.
	Keep bool
	// Mutation makes one thing wrong on purpose.
	Mutation Mutation
}

// NeedsError says what a lab lacks for scenarios, or for one of them.
type NeedsError struct {
	Lab string
	// Scenario is empty where the lab is one for no scenario at all.
	Scenario string
	What     string
}

func (e *NeedsError) Error() string {
	if e.Scenario == "" {
		return fmt.Sprintf("lab %s is not one that scenarios can run on: %s", e.Lab, e.What)
	}
	return fmt.Sprintf("lab %s is not one that %s can run on: it needs %s", e.Lab, e.Scenario, e.What)
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

// pairOf returns two trust domains that trust each other by https_spiffe and a
// resource, which can come and go while servers run.
func pairOf(g *topology.Graph) (called, caller *topology.Domain, err error) {
	fits := func(truster, trusted *topology.Domain) bool {
		r := truster.TrustIn(trusted)
		return r != nil && r.Mode == topology.CRD && r.Profile == topology.HTTPSSPIFFE
	}
	for i, a := range g.Domains {
		for _, b := range g.Domains[i+1:] {
			if fits(a, b) && fits(b, a) && a.UpstreamAuthority == topology.SelfSigned {
				return a, b, nil
			}
		}
	}
	return nil, nil, &NeedsError{Lab: g.Name, What: "it has no two trust domains that trust each other with " +
		"profile https_spiffe and mode crd, the first of them without an upstream authority; 'between: [a, b]' in its file makes them do"}
}

// Session is a lab that is ready for scenarios. The caller closes it.
type Session struct {
	runner *Runner
	ground *ground
	// begun is set once there may be probes in the lab.
	begun bool
}

// ground is what the trials of a session stand on.
type ground struct {
	driver *lab.Driver
	hold   *lab.Hold
	// lab is with probes; nil as long as these are not there.
	lab            *lab.Lab
	sites          map[*topology.Domain]*lab.Site
	called, caller *topology.Domain
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
	if _, _, err := pairOf(asked); err != nil {
		return nil, err
	}
	l, err := r.Driver.Open(ctx, r.Topology)
	if err != nil {
		return nil, err
	}
	g := &ground{driver: r.Driver}
	if g.hold, err = r.Driver.Hold(ctx, r.Topology.Name, "scenario run"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// Where a cluster cannot be swept, the look says more of why. SVIDs that a
	// run has left unverified are replaced by the up that brings the probes.
	err = errors.Join(sweep(ctx, r.Driver.Parts, l.Graph.Servers(), l.Access), r.well(ctx, r.Topology, lab.Unverified))
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, errors.Join(err, g.hold.Release())
	}
	s := &Session{runner: r, ground: g}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// sweep takes away what a run that was killed has left of servers and their clusters:
// its faults, and its newcomers, whose names the next ones have.
func sweep(ctx context.Context, parts lab.Parts, servers []*topology.Server, in func(*topology.Cluster) access.Cluster) error {
	var errs []error
	for _, s := range servers {
		c := s.Place.Cluster
		errs = append(errs, fault.Sweep(ctx, faultCluster(parts, s, in(c))))
		objects := in(c).Objects
		err := objects.Delete(ctx, newcomerPod(s.Domain))
		if err == nil {
			err = check.Until(ctx, check.Bound{Within: Machine, Every: pace}, newcomerGone(objects, s.Domain))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove newcomer from cluster %s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}

// well returns a *NotWellError when something of a lab is not well, but for what is
// not because of one of these causes.
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

func (s *Session) prepare(ctx context.Context) error {
	s.begun = true
	with := s.runner.Topology.WithProbes()
	if err := s.ground.hold.Up(ctx, with); err != nil {
		return err
	}
	return s.ground.connect(ctx, with)
}

// connect connects to all clusters and servers.
func (g *ground) connect(ctx context.Context, t topology.Topology) (err error) {
	if g.lab, err = g.driver.Open(ctx, t); err != nil {
		return err
	}
	if g.called, g.caller, err = pairOf(g.lab.Graph); err != nil {
		return err
	}
	g.sites = map[*topology.Domain]*lab.Site{}
	for _, d := range g.lab.Graph.Domains {
		if g.sites[d], err = g.lab.Site(ctx, d.Server()); err != nil {
			return err
		}
	}
	return nil
}

// Close takes the probes away, unless they are to be kept, and lets others change
// the lab.
func (s *Session) Close(ctx context.Context) error {
	var errs []error
	if s.ground.lab != nil {
		errs = append(errs, s.ground.lab.Close())
	}
	if s.begun && !s.runner.Keep {
		errs = append(errs, s.ground.hold.Up(ctx, s.runner.Topology))
	}
	return errors.Join(append(errs, s.ground.hold.Release())...)
}

// Run runs a scenario and returns its record. What it saw that does not hold is
// in the record; an error means that the lab could not be put back, and nothing
// that runs on it afterwards would mean anything.
func (s *Session) Run(ctx context.Context, scenario Scenario) (Record, error) {
	t := &Trial{
		ground: s.ground, scenario: scenario, observe: s.runner.Observe, pause: s.runner.Pause, mutation: s.runner.Mutation,
		record: Record{
			APIVersion: RecordVersion, Kind: "ScenarioRecord", Scenario: scenario.Name, Claim: scenario.Claim, Lab: s.ground.lab.Graph.Name,
			Labels: scenario.AllLabels(), Sources: scenario.Sources, Mutation: string(s.runner.Mutation), Began: time.Now(),
		},
	}
	sampling, stop := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { t.sample(sampling) })
	t.Restore("see that each holds the bundles of those whom it trusts", func(ctx context.Context) error {
		errs := []error{handoverBehind(ctx, t.bonds())}
		for _, d := range t.late {
			errs = append(errs, d.restart(ctx))
		}
		return errors.Join(errs...)
	})
	err := t.takeUp(ctx)
	if err == nil && len(t.record.Steps) > 0 {
		// Those who trust the trust domain have yet to hear that it is over.
		t.Step(ctx, "see that the lab is well again", func(ctx context.Context) error {
			byHand := slices.DeleteFunc(t.bonds(), func(b bond) bool { return b.mode != topology.Manual })
			if err := handoverBehind(ctx, byHand); err != nil {
				return err
			}
			return s.proveRestored(ctx, t)
		})
		err = t.Err()
	}
	if err == nil {
		err = t.spoiled(ctx)
	}
	if err == nil {
		err = scenario.Run(ctx, t)
	}
	if t.err == nil {
		t.err = err
	}
	t.finish(ctx)
	stop()
	sampler.Wait()
	restored := s.proveRestored(context.WithoutCancel(ctx), t)
	if restored != nil {
		t.record.Holds = false
		t.record.Error = strings.TrimPrefix(t.record.Error+"\n"+restored.Error(), "\n")
	}
	t.tell(Event{Record: &t.record})
	return t.record, errors.Join(restored, context.Cause(ctx))
}

// takeUp finishes the rotations of the pair that a run which was killed has left,
// or that somebody has begun by hand. Another authority that is prepared would
// take their place in what the server remembers, and nobody could finish them any
// more.
func (t *Trial) takeUp(ctx context.Context) error {
	called, caller := t.Pair()
	t.restoring = true
	defer func() { t.restoring = false }()
	for _, d := range []Domain{called, caller} {
		kinds := []authorities{d.jwt()}
		if d.UpstreamAuthority == topology.SelfSigned { // no other can be tainted here
			kinds = append(kinds, d.x509())
		}
		for _, all := range kinds {
			r, err := d.begun(ctx, all)
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

// restoredBound is how long a lab may take to be well again once all is put back:
// the longest that anything takes by itself is one poll and the controller
// manager's interval.
func (g *ground) restoredBound() time.Duration {
	longest := federation.ReconcileBound()
	for _, td := range g.lab.Graph.Domains {
		longest = max(longest, federation.PollInterval(td.BundleEndpoint.RefreshHint, td.CATTL))
	}
	return longest + federation.ReconcileBound() + federation.RegistrationBound() + Machine
}

// proveRestored waits until the lab is well, and until workloads have what their
// servers hold: that comes some seconds after.
func (s *Session) proveRestored(ctx context.Context, t *Trial) error {
	g := s.ground.lab.Graph
	err := check.Until(ctx, check.Bound{Within: s.ground.restoredBound(), Every: time.Second}, check.Check{
		Name: "lab " + g.Name + " is well again", Probe: func(ctx context.Context) error {
			err := s.runner.well(ctx, g.Intent())
			for _, b := range t.bonds() {
				if err == nil {
					err = b.truster.Federated(b.trusted).Probe(ctx)
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

// sampleEvery is how often the bundles are looked at for the picture of a run.
const sampleEvery = time.Second

// looks are the last looks at bundles that came through, by holder and trust
// domain.
type looks map[[2]string]Holding

// sample notes which authorities servers have and hold: at first, whenever that
// changes, and at the end. What cannot be asked just now is no change.
func (t *Trial) sample(ctx context.Context) {
	last := looks{}
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		called, caller := t.Pair()
		for _, holder := range []Domain{called, caller} {
			t.sampleOf(ctx, holder, last)
		}
		select {
		case <-ctx.Done():
			// So that a lane ends when it was last looked at.
			for _, h := range last {
				t.look(h)
			}
			return
		case <-tick.C:
		}
	}
}

func (t *Trial) sampleOf(ctx context.Context, holder Domain, last looks) {
	ctx, cancel := context.WithTimeout(ctx, 3*sampleEvery)
	defer cancel()
	called, _ := t.Pair()
	source, unknown := called.Bundle(ctx)
	held, err := holder.Server().HeldBundles(ctx)
	own, ownErr := holder.Bundle(ctx)
	if errors.Join(unknown, err, ownErr) != nil {
		return
	}
	gone := map[[2]string]bool{}
	for key := range last {
		gone[key] = key[0] == holder.String()
	}
	for _, b := range append(held, own) {
		h := Holding{Holder: holder.String(), Of: b.TrustDomain().Name(), X509: federation.X509IDs(b), JWT: federation.JWTIDs(b)}
		if h.Of == called.String() && h.Holder != h.Of {
			h.State = federation.Compare(b, source).State
		}
		delete(gone, [2]string{h.Holder, h.Of})
		t.change(h, last)
	}
	for key, is := range gone {
		if is {
			t.change(Holding{Holder: key[0], Of: key[1], State: federation.Missing}, last)
		}
	}
}

// change notes a look at a bundle, unless the one before saw the same.
func (t *Trial) change(h Holding, last looks) {
	h.At = time.Now()
	key := [2]string{h.Holder, h.Of}
	before, known := last[key]
	last[key] = h
	if known && before.State == h.State && slices.Equal(before.X509, h.X509) && slices.Equal(before.JWT, h.JWT) {
		return
	}
	t.look(h)
}

func (t *Trial) look(h Holding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record.Holdings = append(t.record.Holdings, h)
}

// Shuffled returns scenarios in an order that a seed decides.
func Shuffled(all []Scenario, seed uint64) []Scenario {
	mixed := append([]Scenario(nil), all...)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	return mixed
}
