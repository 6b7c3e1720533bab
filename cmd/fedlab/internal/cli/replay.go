package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/live"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/scenarios/report"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// framesOf reads what a page can play: a recording, or the record of one scenario.
func framesOf(path string) ([]live.Frame, error) {
	frames, noRecording := live.Read(path)
	if noRecording == nil {
		return frames, nil
	}
	records, noRecord := report.Read(path)
	switch {
	case noRecord != nil:
		return nil, fmt.Errorf("replay %s: it is no recording and no record of a scenario: %w", path, errors.Join(noRecording, noRecord))
	case len(records) != 1:
		return nil, fmt.Errorf("replay %s: it has %d records: name the file of one", path, len(records))
	}
	return framesOfRecord(records[0]), nil
}

// mostFrames is how many a record becomes: one for each second, or fewer of a long run.
const mostFrames = 1000

// framesOfRecord shows a run of a scenario as the record has it. It does not say what endpoints
// served, nor when servers fetched.
func framesOfRecord(r trial.Record) []live.Frame {
	every := max(time.Second, r.Ended.Sub(r.Began)/mostFrames)
	var frames []live.Frame
	for at := r.Began; !at.After(r.Ended.Add(every)); at = at.Add(every) {
		f := live.Frame{Look: watch.Look{Lab: r.Lab, At: at}, Doing: doingAt(r, at)}
		for _, h := range r.Holdings {
			f.Look = held(f.Look, h, h.At.After(at), r.On)
		}
		for _, s := range r.Streams {
			f.Look = called(f.Look, s, at)
		}
		frames = append(frames, f)
	}
	return frames
}

// doingAt are the steps and faults that were under way.
func doingAt(r trial.Record, at time.Time) []string {
	all := []string{r.Scenario}
	for _, s := range r.Steps {
		if !s.Began.After(at) && s.Began.Add(s.Took).After(at) {
			all = append(all, "step: "+s.Name)
		}
	}
	for _, w := range r.Windows {
		if !w.Injected.IsZero() && !w.Injected.After(at) && (w.Healed.IsZero() || w.Healed.After(at)) {
			all = append(all, "fault: "+w.Name)
		}
	}
	return all
}

// held puts what a server had into a look. Of one that was looked at later only the place is
// there.
func held(l watch.Look, h trial.Holding, later bool, on trial.On) watch.Look {
	var has []federation.Authority
	for _, id := range h.X509 {
		has = append(has, federation.Authority{Kind: federation.X509, ID: id})
	}
	for _, id := range h.JWT {
		has = append(has, federation.Authority{Kind: federation.JWT, ID: id})
	}
	i := slices.IndexFunc(l.Domains, func(d watch.Domain) bool { return d.Name == h.Holder })
	if i < 0 {
		i, l.Domains = len(l.Domains), append(l.Domains, watch.Domain{Name: h.Holder})
	}
	if h.Holder == h.Of {
		if !later {
			l.Domains[i].Own = has
		}
		return l
	}
	i = slices.IndexFunc(l.Pairs, func(p watch.Pair) bool { return p.Truster == h.Holder && p.Trusted == h.Of })
	if i < 0 {
		p := watch.Pair{Truster: h.Holder, Trusted: h.Of, State: lab.Unknown, Unpolled: "a record does not say"}
		if p.Truster == on.Truster && p.Trusted == on.Trusted {
			p.Profile, p.Mode = string(on.Profile), string(on.Mode)
		}
		i, l.Pairs = len(l.Pairs), append(l.Pairs, p)
	}
	if !later {
		l.Pairs[i].Held = has
		if h.State != "" {
			l.Pairs[i].State = h.State
		}
	}
	return l
}

// called puts the last call of a stream into a look, and who had signed the SVID of the server.
func called(l watch.Look, s traffic.Stream, at time.Time) watch.Look {
	var last *traffic.Call
	for i, c := range s.Calls {
		if !c.At.After(at) && (last == nil || c.At.After(last.At)) {
			last = &s.Calls[i]
		}
	}
	if last == nil {
		return l
	}
	call := watch.Call{From: s.Order.Name, To: s.Order.Server, Outcome: watch.Answered}
	if last.Outcome != traffic.Answered {
		call.Outcome, call.Problem = watch.Failed, string(last.Outcome)+": "+last.Detail
	}
	l.Calls = append(l.Calls, call)
	if id, err := spiffeid.FromString(s.Order.Server); err == nil && last.Server != nil {
		l.Identities = append(l.Identities, watch.Identity{
			What: watch.Workload, Name: s.Order.Server, TrustDomain: id.TrustDomain().Name(), SPIFFEID: s.Order.Server, Authority: last.Server.Authority,
		})
	}
	return l
}
