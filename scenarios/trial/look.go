package trial

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// Fact is something of a lab that can be looked at again and again.
type Fact struct {
	// Of names it. Two facts of one name are the same.
	Of string
	// Well is what a look sees while nothing is wrong; empty where nothing is right or wrong
	// about it.
	Well string
	// Look returns what there is to see now, in words that can be compared.
	Look func(ctx context.Context) (string, error)
}

// Is checks that a look sees one of these.
func (f Fact) Is(want ...string) check.Check {
	return check.Check{Name: f.Of + ": " + strings.Join(want, " or "), Probe: func(ctx context.Context) error {
		seen, err := f.Look(ctx)
		if err == nil && !slices.Contains(want, seen) {
			err = fmt.Errorf("it is: %s", seen)
		}
		return err
	}}
}

// Looked is the rule of a claim on looks: each look between From and Until saw one of Want,
// and looks went on all the time. Where Want is not how things are while all is well, an
// earlier look saw them well: that is its control.
const Looked traffic.Rule = "looked"

// See claims what there is to see of a fact now.
func (t *Trial) See(ctx context.Context, says string, f Fact, want ...string) error {
	return t.Watch(ctx, says, Bound{}, f, want...)
}

// Watch claims what there is to see of a fact for a while: what must not happen is given the
// time in which it would. It ends with the first look that sees something else, and says so.
func (t *Trial) Watch(ctx context.Context, says string, during Bound, f Fact, want ...string) error {
	from := time.Now()
	until := from.Add(during.Within)
	t.claims = append(t.claims, Verdict{
		Verdict: traffic.Verdict{Says: says, Rule: Looked, Stream: f.Of, From: from, Until: until}, Well: f.Well, Want: want,
	})
	if during.Within > 0 {
		t.tell(Event{Seen: fmt.Sprintf("watches for %s (%s) that %s: %s", during.Within.Round(time.Second), during.Formula, f.Of, strings.Join(want, " or "))})
	}
	for at := from; ; at = time.Now() {
		l := t.lookAt(ctx, f, at)
		switch {
		case l.Error != "":
			return fmt.Errorf("look at %s: %s", f.Of, l.Error)
		case !slices.Contains(want, l.Seen):
			return fmt.Errorf("%s: %s, want %s", f.Of, l.Seen, strings.Join(want, " or "))
		case !at.Before(until):
			t.Seen("%s: %s, for %s", f.Of, l.Seen, during.Within.Round(100*time.Millisecond))
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pace):
		}
	}
}

// lookAt looks at a fact, and records what it sees.
func (t *Trial) lookAt(ctx context.Context, f Fact, at time.Time) Look {
	l := Look{Of: f.Of, At: at}
	seen, err := f.Look(ctx)
	l.Took, l.Seen = time.Since(at), seen
	if err != nil {
		l.Seen, l.Error = "", err.Error()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record.Looks = append(t.record.Looks, l)
	return l
}

// judge returns no error when v holds on a record, and by how much it is late.
func (v Verdict) judge(r Record) (late time.Duration, err error) {
	switch v.Rule {
	case "":
		return 0, errors.New("the run never came to it")
	case Looked:
	default:
		return v.Judge(r.Streams)
	}
	if err := v.looked(r.Looks); err != nil {
		return 0, fmt.Errorf("%s: %w", v.Stream, err)
	}
	return 0, nil
}

func (v Verdict) looked(all []Look) error {
	if v.From.IsZero() || v.Until.Before(v.From) || len(v.Want) == 0 {
		return fmt.Errorf("rule %s cannot be judged: want a time from which, one until which, and what is to be seen", v.Rule)
	}
	control := v.Well == "" || slices.Contains(v.Want, v.Well)
	// How long nobody may have looked.
	longest := 2*pace + v.Slack
	last, looks := v.From, 0
	for _, l := range all {
		switch {
		case l.Of != v.Stream || l.At.After(v.Until):
			continue
		case l.At.Before(v.From):
			control = control || l.Seen == v.Well
			continue
		case l.Error != "":
			return fmt.Errorf("the look at %s failed: %s", clock(l.At), l.Error)
		case !slices.Contains(v.Want, l.Seen):
			return fmt.Errorf("the look at %s saw: %s", clock(l.At), l.Seen)
		case l.At.Sub(last) > longest:
			return fmt.Errorf("nobody looked between %s and %s", clock(last), clock(l.At))
		}
		looks++
		last = l.At.Add(l.Took)
	}
	switch {
	case looks == 0:
		return errors.New("nobody looked")
	case v.Until.Sub(last) > longest:
		return fmt.Errorf("nobody looked between %s and %s", clock(last), clock(v.Until))
	case !control:
		return fmt.Errorf("the control is missing: no look before %s saw: %s", clock(v.From), v.Well)
	}
	return nil
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000 UTC") }
