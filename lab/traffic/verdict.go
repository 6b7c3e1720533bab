package traffic

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Rule is what a verdict says of a stream.
type Rule string

const (
	// AllAnswered says that each call between From and Until was answered.
	AllAnswered Rule = "all-answered"
	// AnsweredOutside says that each call that ended before From or began after Until
	// was answered; there are some of both.
	AnsweredOutside Rule = "answered-outside"
	// NoneAnswered says that no call between From and Until was answered.
	NoneAnswered Rule = "none-answered"
	// RefusedBy says that each call that began later than From+Within ended with one of
	// Outcomes, and that from the first call that did on, until Until, each did.
	RefusedBy Rule = "refused-by"
	// AnsweredBy says that each call that began later than From+Within was answered, and
	// that from the first call that was on, until Until, each was.
	AnsweredBy Rule = "answered-by"
	// AuthorityBy says that each call that began later than From+Within was answered by a
	// server whose SVID Authority had signed, and that from the first call that was on,
	// until Until, each was.
	AuthorityBy Rule = "authority-by"
	// ResumedSome says that at least one call between From and Until resumed a session.
	ResumedSome Rule = "resumed-some"
	// ResumedNone says that no call between From and Until resumed a session.
	ResumedNone Rule = "resumed-none"
)

// Verdict is a claim on one stream of a record.
type Verdict struct {
	// Says is the claim in words.
	Says   string `json:"says"`
	Rule   Rule   `json:"rule"`
	Stream string `json:"stream"`
	// From and Until bound the calls that count: those that began and ended between
	// them. A zero Until is the end of the stream.
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero"`
	// Within, Outcomes and Authority are parameters of some rules. Slack is how much later
	// than Within the machine may have made it.
	Within    time.Duration `json:"within,omitempty"`
	Slack     time.Duration `json:"slack,omitempty"`
	Outcomes  []Outcome     `json:"outcomes,omitempty"`
	Authority string        `json:"authority,omitempty"`
	// Control says that the verdict needs one: a call of the same caller to the same address
	// that was answered before From. Records of earlier versions have none.
	Control bool `json:"control,omitempty"`
}

// Negative tells whether a rule says that calls are not answered. It says nothing of a caller
// who never was.
func (r Rule) Negative() bool { return r == NoneAnswered || r == RefusedBy }

// Judge returns no error when v holds on the stream that it is about, and otherwise
// what in the record speaks against it. What came after Within, and not by more than Slack,
// holds, and late is by how much. A verdict does not hold for lack of evidence: calls must
// have gone on all the time that it is about.
func (v Verdict) Judge(streams []Stream) (late time.Duration, err error) {
	s, err := v.find(streams)
	if err != nil {
		return 0, err
	}
	for _, err := range []error{v.check(), s.check()} {
		if err != nil {
			return 0, fmt.Errorf("stream %q: %w", v.Stream, err)
		}
	}
	late, err = v.against(s)
	if err == nil && v.Control {
		err = v.controlled(s, streams)
	}
	if err != nil {
		return 0, fmt.Errorf("stream %q: %w", v.Stream, err)
	}
	return late, nil
}

// controlled returns nil when the caller of s, in s or in another stream, was answered at the
// same address before v begins.
func (v Verdict) controlled(s Stream, streams []Stream) error {
	before := func(c Call) bool { return c.Outcome == Answered && !c.over().After(v.From) }
	for _, other := range streams {
		same := other.From == s.From && other.Order.Address == s.Order.Address
		if same && other.check() == nil && slices.ContainsFunc(other.Calls, before) {
			return nil
		}
	}
	return fmt.Errorf("the control is missing: no call from %s to %s was answered before %s", s.From, s.Order.Address, clock(v.From))
}

// First returns the first call that began at since or later and is so.
func (s Stream) First(since time.Time, is func(Call) bool) (Call, bool) {
	for _, c := range s.Calls {
		if !c.At.Before(since) && is(c) {
			return c, true
		}
	}
	return Call{}, false
}

func (v Verdict) find(streams []Stream) (Stream, error) {
	found := which(streams, func(s Stream) bool { return s.Order.Name == v.Stream })
	if len(found) != 1 {
		return Stream{}, fmt.Errorf("%d streams are called %q, want one", len(found), v.Stream)
	}
	return found[0], nil
}

// check returns what is wrong with v itself: a moment that was never reached, and
// a parameter that was forgotten.
func (v Verdict) check() error {
	problem := ""
	switch {
	case v.From.IsZero():
		problem = "from is not set"
	case !v.Until.IsZero() && v.Until.Before(v.From):
		problem = fmt.Sprintf("until is %s, before from, which is %s", clock(v.Until), clock(v.From))
	case v.Within < 0:
		problem = fmt.Sprintf("within is %s", v.Within)
	case v.Slack < 0:
		problem = fmt.Sprintf("slack is %s", v.Slack)
	case v.Rule == AnsweredOutside && v.Until.IsZero():
		problem = "until is not set"
	case v.Rule == RefusedBy && (len(v.Outcomes) == 0 || slices.ContainsFunc(v.Outcomes, func(o Outcome) bool { return o == Answered || !known(o) })):
		problem = fmt.Sprintf("outcomes are %q, want some that a refusal can have", v.Outcomes)
	case v.Rule == AuthorityBy && v.Authority == "":
		problem = "authority is not set"
	default:
		return nil
	}
	return fmt.Errorf("rule %s cannot be judged: %s", v.Rule, problem)
}

func known(o Outcome) bool { return slices.Contains(Outcomes(), o) }

// check returns nil when no call was taken out of s.
func (s Stream) check() error {
	for i, c := range s.Calls {
		switch {
		case c.Number != i+1:
			return fmt.Errorf("the record is not whole: call %d stands where call %d should", c.Number, i+1)
		case i > 0 && c.At.Before(s.Calls[i-1].At):
			return fmt.Errorf("the record is not whole: call %d began before call %d", c.Number, i)
		case !known(c.Outcome):
			return fmt.Errorf("the record is not whole: the outcome of call %d is %q", c.Number, c.Outcome)
		}
	}
	return nil
}

// end is when s ended; of one that goes on, when its last call began.
func (s Stream) end() time.Time {
	if s.Ended.IsZero() && len(s.Calls) > 0 {
		return s.Calls[len(s.Calls)-1].At
	}
	return s.Ended
}

func (v Verdict) against(s Stream) (late time.Duration, err error) {
	until := v.Until
	if until.IsZero() {
		if len(s.Calls) >= MaxCalls {
			return 0, fmt.Errorf("the record is full: nothing was recorded after %s", clock(s.end()))
		}
		until = s.end()
	}
	if v.Rule == AnsweredOutside {
		return 0, v.outside(s)
	}
	calls := which(s.Calls, func(c Call) bool { return !c.At.Before(v.From) && !c.over().After(until) })
	if err := s.covers(calls, v.From, until); err != nil {
		return 0, err
	}
	switch v.Rule {
	case AllAnswered:
		return 0, failed("not answered", calls, unanswered)
	case NoneAnswered:
		return 0, failed("answered", calls, func(c Call) bool { return c.Outcome == Answered })
	case ResumedSome:
		if len(which(calls, resumed)) == 0 {
			return 0, fmt.Errorf("no session resumed: %d calls, the last is %s", len(calls), calls[len(calls)-1].words())
		}
		return 0, nil
	case ResumedNone:
		if err := s.offers(calls); err != nil {
			return 0, err
		}
		return 0, failed("session resumed", calls, resumed)
	case AnsweredBy:
		return v.settles("not answered", calls, unanswered)
	case RefusedBy:
		return v.settles(fmt.Sprintf("other than %s", either(v.Outcomes)), calls, func(c Call) bool { return !slices.Contains(v.Outcomes, c.Outcome) })
	case AuthorityBy:
		return v.settles(fmt.Sprintf("not answered under authority %s", v.Authority), calls, func(c Call) bool {
			return unanswered(c) || c.Server == nil || c.Server.Authority != v.Authority
		})
	}
	return 0, fmt.Errorf("rule %q is not known", v.Rule)
}

// settles returns no error when calls become what they should be in time, and then stay so.
func (v Verdict) settles(what string, calls []Call, wrong func(Call) bool) (late time.Duration, err error) {
	first := slices.IndexFunc(calls, func(c Call) bool { return !wrong(c) })
	if first < 0 {
		return 0, failed(what, calls, wrong)
	}
	if first > 0 {
		by, last := v.From.Add(v.Within), calls[first-1]
		if late = max(0, last.At.Sub(by)); late > v.Slack {
			return 0, fmt.Errorf("%s as late as call %d at %s, want none after %s", what, last.Number, clock(last.At), clock(by))
		}
	}
	return late, failed(what, calls[first:], wrong)
}

// outside judges the calls before and after the time in which they may fail.
func (v Verdict) outside(s Stream) error {
	before := which(s.Calls, func(c Call) bool { return c.over().Before(v.From) })
	after := which(s.Calls, func(c Call) bool { return c.At.After(v.Until) })
	if len(before) == 0 {
		return fmt.Errorf("nothing was recorded before %s", clock(v.From))
	}
	if err := s.covers(before, s.Began, v.From); err != nil {
		return err
	}
	if err := s.covers(after, v.Until, s.end()); err != nil {
		return err
	}
	return failed("not answered", slices.Concat(before, after), unanswered)
}

// covers returns nil when calls went on from one moment to another.
func (s Stream) covers(calls []Call, from, until time.Time) error {
	if len(calls) == 0 {
		return nothing(from, until)
	}
	longest := 2*s.Order.Every + s.Order.Within + time.Second
	last := from
	for _, c := range calls {
		if c.At.Sub(last) > longest {
			return nothing(last, c.At)
		}
		last = c.At
	}
	if until.Sub(last) > longest {
		return nothing(last, until)
	}
	return nil
}

func nothing(from, until time.Time) error {
	if !until.After(from) {
		return fmt.Errorf("nothing was recorded after %s", clock(from))
	}
	return fmt.Errorf("nothing was recorded between %s and %s", clock(from), clock(until))
}

// offers returns nil when one of calls had a session to offer and came to a
// handshake: of one that could not resume anything, it says nothing that it did
// not.
func (s Stream) offers(calls []Call) error {
	if s.Order.Connection != Resumed {
		return fmt.Errorf("no session was offered: the connection is %s", s.Order.Connection)
	}
	shook := func(c Call) bool { return c.Server != nil }
	first, ok := s.First(s.Began, shook)
	if !ok || !slices.ContainsFunc(calls, func(c Call) bool { return shook(c) && c.Number > first.Number }) {
		return errors.New("no session was offered: no two calls came to a handshake")
	}
	return nil
}

func (c Call) over() time.Time { return c.At.Add(c.Took) }

func unanswered(c Call) bool { return c.Outcome != Answered }

func resumed(c Call) bool { return c.Resumed }

// failed returns nil when none of calls is what it should not be.
func failed(what string, calls []Call, is func(Call) bool) error {
	wrong := which(calls, is)
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d calls, the first is %s", what, len(wrong), len(calls), wrong[0].words())
}

// words says of a call all that can speak against a verdict.
func (c Call) words() string {
	text := fmt.Sprintf("call %d at %s: %s", c.Number, clock(c.At), c.Outcome)
	if c.Server != nil {
		text += fmt.Sprintf(", server %s under authority %s", c.Server.ID, c.Server.Authority)
	}
	if c.Detail != "" {
		text += ": " + c.Detail
	}
	return text
}

func either(outcomes []Outcome) string {
	text := string(outcomes[0])
	for _, o := range outcomes[1:] {
		text += " or " + string(o)
	}
	return text
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000 UTC") }

func which[T any](all []T, is func(T) bool) []T {
	var some []T
	for _, one := range all {
		if is(one) {
			some = append(some, one)
		}
	}
	return some
}
