package trial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// How calls are made: often enough that a fault of a second is seen, seldom
// enough that two cores do not feel it.
const (
	callEvery  = 400 * time.Millisecond
	callWithin = 3 * time.Second
)

// takeBound is how long it may take to end calls and to take their record.
const takeBound = 45 * time.Second

// carelessPort is the probe's port that resumes sessions and verifies nobody
// again.
const carelessPort = 8444

// AnybodyPort is the probe's port that answers everybody with a certificate, whoever signed it.
const AnybodyPort = 8445

// Caller is told whom to call: the probe of a trust domain, or the synthetic one.
type Caller interface {
	Start(ctx context.Context, order traffic.Order) error
	Stream(ctx context.Context, name string) (traffic.Stream, error)
	Stop(ctx context.Context, name string) (traffic.Stream, error)
}

// Traffic is calls that go on during a trial.
type Traffic struct {
	trial  *Trial
	probe  Caller
	order  traffic.Order
	from   string
	since  time.Time
	record traffic.Stream
}

// Call is how calls are made; the zero value makes a handshake for each.
type Call struct {
	Connection traffic.Connection
	// Careless calls the port that resumes sessions.
	Careless bool
	// Name tells streams between the same two apart.
	Name string
}

// Traffic has the probe of one trust domain call that of another until the trial
// is over, once a call has come through: the control without which no refusal
// means anything.
func (t *Trial) Traffic(ctx context.Context, from, to Domain, call Call) (*Traffic, error) {
	s, err := t.Attempt(ctx, from.String(), from.Probe(), to, call)
	if err != nil {
		return nil, err
	}
	return s, t.Soon(ctx, s.Ends(traffic.Answered))
}

// CallsThroughout is the step that most scenarios begin with: one trust domain's
// probe calls the other's, with a handshake each time, until the trial is over.
// Only steps that come after it may use what it returns.
func (t *Trial) CallsThroughout(ctx context.Context, from, to Domain) (calls *Traffic) {
	t.StepWith(ctx, "call across the federation", "the demo's page shows the demo's own calls", func(ctx context.Context) (err error) {
		calls, err = t.Traffic(ctx, from, to, Call{})
		return err
	})
	return calls
}

// StillAnswered is the step that many scenarios end with: no call has failed, from
// the first to the last, and calls are answered now.
func (t *Trial) StillAnswered(ctx context.Context, calls *Traffic, name, says string) {
	t.Step(ctx, name, func(ctx context.Context) error {
		calls.AllAnswered(says)
		return t.Soon(ctx, calls.Ends(traffic.Answered))
	})
}

// Attempt has a probe call that of a trust domain, whatever comes of it.
func (t *Trial) Attempt(ctx context.Context, from string, probe Caller, to Domain, call Call) (*Traffic, error) {
	w, err := to.probe()
	if err != nil {
		return nil, err
	}
	port := w.App.Port
	if call.Careless {
		port = carelessPort
	}
	if call.Connection == "" {
		call.Connection = traffic.Fresh
	}
	name := t.streamName(cmp.Or(call.Name, fmt.Sprintf("%s calls %s", from, to)))
	s := &Traffic{trial: t, probe: probe, from: from, order: traffic.Order{
		Name: name, Address: net.JoinHostPort(w.Address.String(), strconv.Itoa(t.operator.Port(port))), Server: to.ID().String(),
		Every: callEvery, Within: callWithin, Connection: call.Connection,
	}}
	s.since = time.Now()
	if err := probe.Start(ctx, s.order); err != nil {
		// A run that was killed may have left its calls going on.
		if _, none := probe.Stop(ctx, name); none != nil {
			return nil, err
		}
		if err := probe.Start(ctx, s.order); err != nil {
			return nil, err
		}
	}
	t.streams = append(t.streams, s)
	return s, nil
}

// streamName returns a name that no other stream of the trial has.
func (t *Trial) streamName(name string) string {
	again := 0
	for _, s := range t.streams {
		if s.order.Name == name || strings.HasPrefix(s.order.Name, name+", again") {
			again++
		}
	}
	if again == 0 {
		return name
	}
	return fmt.Sprintf("%s, again (%d)", name, again)
}

// End ends the calls, before the trial is over where a scenario asks for it, and
// takes the record.
func (s *Traffic) End(ctx context.Context) error {
	if !s.record.Ended.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, takeBound)
	defer cancel()
	record, err := s.probe.Stop(ctx, s.order.Name)
	record.From = s.from
	s.record = record
	if err != nil {
		return fmt.Errorf("fetch the record of %q: %w", s.order.Name, err)
	}
	return nil
}

// Ends checks that the last calls ended in one of these ways: as many as it takes
// that no call under way is meant.
func (s *Traffic) Ends(outcomes ...traffic.Outcome) check.Check {
	return s.ends(fmt.Sprintf("%s: %v", s.order.Name, words(outcomes)), func(c traffic.Call) error {
		if slices.Contains(outcomes, c.Outcome) {
			return nil
		}
		return fmt.Errorf("%s %s", c.Outcome, c.Detail)
	})
}

// Meets checks that the last calls were answered under an authority.
func (s *Traffic) Meets(authority string) check.Check {
	return s.ends(fmt.Sprintf("%s and meets authority %s", s.order.Name, Brief(authority)), func(c traffic.Call) error {
		switch {
		case c.Outcome != traffic.Answered:
			return fmt.Errorf("%s %s", c.Outcome, c.Detail)
		case c.Server == nil || c.Server.Authority != authority:
			return errors.New("answered under another authority")
		}
		return nil
	})
}

// First returns the first call since a moment that is so, of those that were made so far.
func (s *Traffic) First(ctx context.Context, since time.Time, is func(traffic.Call) bool) (traffic.Call, error) {
	stream, err := s.probe.Stream(ctx, s.order.Name)
	if err != nil {
		return traffic.Call{}, err
	}
	first, found := stream.First(since, is)
	if !found {
		err = fmt.Errorf("%s: no call since %s was so", s.order.Name, since.UTC().Format(time.TimeOnly))
	}
	return first, err
}

// Last returns the last call that was made so far.
func (s *Traffic) Last(ctx context.Context) (traffic.Call, error) {
	stream, err := s.probe.Stream(ctx, s.order.Name)
	if err != nil || len(stream.Calls) == 0 {
		return traffic.Call{}, errors.Join(err, fmt.Errorf("%s: %d calls so far", s.order.Name, len(stream.Calls)))
	}
	return stream.Calls[len(stream.Calls)-1], nil
}

// settled is how many calls in a row show how calls end now.
const settled = 2

func (s *Traffic) ends(name string, is func(traffic.Call) error) check.Check {
	return check.Check{Name: name, Probe: func(ctx context.Context) error {
		stream, err := s.probe.Stream(ctx, s.order.Name)
		if err != nil {
			return err
		}
		calls := stream.Calls
		if len(calls) < settled {
			return fmt.Errorf("%d calls so far", len(calls))
		}
		for _, c := range calls[len(calls)-settled:] {
			if err := is(c); err != nil {
				return err
			}
		}
		s.trial.otherwise = &time.Time{}
		for _, c := range slices.Backward(calls) {
			if is(c) != nil {
				s.trial.otherwise = &c.At
				break
			}
		}
		return nil
	}}
}

func words(outcomes []traffic.Outcome) string {
	text := make([]string, len(outcomes))
	for i, o := range outcomes {
		text[i] = string(o)
	}
	return strings.Join(text, " or ")
}

// claim has a verdict on the stream computed when the trial is over. One that says that calls
// are refused does not hold without a control.
func (s *Traffic) claim(v traffic.Verdict) {
	v.Stream, v.Control = s.order.Name, v.Rule.Negative()
	if v.From.Before(s.since) {
		v.From = s.since
	}
	s.trial.claims = append(s.trial.claims, Verdict{Verdict: v})
}

// AllAnswered claims that no call failed, from the first to the last.
func (s *Traffic) AllAnswered(says string) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.AllAnswered})
}

// AnsweredBetween claims that no call that began between two moments failed; the
// zero moment is that of the first call.
func (s *Traffic) AnsweredBetween(says string, since, until time.Time) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.AllAnswered, From: since, Until: until})
}

// FailsOnlyBetween claims that calls fail between two moments only.
func (s *Traffic) FailsOnlyBetween(says string, since, until time.Time) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.AnsweredOutside, From: since, Until: until})
}

// RefusedBy claims that calls end in one of these ways soon after a moment, and
// then until another; the zero moment is that of the last call.
func (s *Traffic) RefusedBy(says string, since time.Time, bound Bound, until time.Time, outcomes ...traffic.Outcome) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.RefusedBy, From: since, Within: bound.Within, Until: until, Outcomes: outcomes})
}

// NoneAnswered claims that no call that began between two moments was answered;
// the zero moment is that of the first call.
func (s *Traffic) NoneAnswered(says string, since, until time.Time) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.NoneAnswered, From: since, Until: until})
}

// AnsweredBy claims that calls are answered soon after a moment, and from then
// on.
func (s *Traffic) AnsweredBy(says string, since time.Time, bound Bound) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.AnsweredBy, From: since, Within: bound.Within})
}

// AnsweredUntil claims that calls are answered soon after a moment, and then until another.
func (s *Traffic) AnsweredUntil(says string, since time.Time, bound Bound, until time.Time) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.AnsweredBy, From: since, Within: bound.Within, Until: until})
}

// MeetsBy claims that soon after a moment, and from then on, an authority has
// signed what the server presents.
func (s *Traffic) MeetsBy(says string, since time.Time, bound Bound, authority string) {
	s.claim(traffic.Verdict{Says: says, Rule: traffic.AuthorityBy, From: since, Within: bound.Within, Authority: authority})
}

// Resumes claims that some call between two moments resumed a session, or that
// none did.
func (s *Traffic) Resumes(says string, rule traffic.Rule, since, until time.Time) {
	s.claim(traffic.Verdict{Says: says, Rule: rule, From: since, Until: until})
}

// Refusal is what is claimed of calls until something is done about it: soon after
// a moment, they end in these ways.
type Refusal struct {
	Says  string
	Since time.Time
	Bound Bound
	Ends  []traffic.Outcome
}

// Cure does what ends a refusal, and waits until calls are as they should be again.
// It claims the refusal until it begins, and that calls are answered soon after it is done.
func (s *Traffic) Cure(ctx context.Context, from Refusal, do func(ctx context.Context) error, bound Bound, again check.Check) error {
	cured := time.Now()
	s.RefusedBy(from.Says, from.Since, from.Bound, cured, from.Ends...)
	if err := s.trial.Do(ctx, ToCure, do); err != nil {
		return err
	}
	done := time.Now()
	s.AnsweredBy("and calls are answered again after it", done, bound)
	return s.trial.Await(ctx, done, bound, again)
}
