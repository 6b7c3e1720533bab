package watch

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
)

// Severities of alerts.
const (
	Warning  = "warning"
	Critical = "critical"
)

// Finding is an alert and what it is about.
type Finding struct {
	Alert    string `json:"alert"`
	Severity string `json:"severity"`
	// Truster and Trusted are those of a pair. Trusted alone is a trust domain, and Name
	// what else it is about.
	Truster string `json:"truster,omitempty"`
	Trusted string `json:"trusted,omitempty"`
	Name    string `json:"name,omitempty"`
	// Text says what was seen, and of what.
	Text string `json:"text"`
	// Since is when it was first seen, and Firing says that it has been there for as long as
	// the alert wants.
	Since  time.Time `json:"since"`
	Firing bool      `json:"firing"`
	// refresh says that a fetch may be the cure, and poll is the interval of a pair. A server
	// that has not fetched yet is left alone: see spire.Server.RefreshBundle.
	refresh bool
	poll    time.Duration
}

// key tells a finding apart from others.
type key struct{ alert, truster, trusted, name string }

func (f Finding) key() key { return key{f.Alert, f.Truster, f.Trusted, f.Name} }

// Refreshable reports whether the finding is about a pair, and a fetch may be the cure.
func (f Finding) Refreshable() bool { return f.refresh }

// alert is one thing that somebody is told, in a look and in Prometheus.
type alert struct {
	name, severity, summary string
	// polls is for how many polls it holds before somebody is told.
	polls int
	// in finds it in a look; it is nil for what only Prometheus can see.
	in func(Look, time.Duration) []Finding
	// expr is the same for Prometheus.
	expr func(Intervals) string
}

// slow is when an endpoint counts as slow: half of what lab/local gives it for its answer.
const slow = 2500 * time.Millisecond

// alerts are all that there are. The first five have the names of an article, which
// docs/from-an-article.md compares.
var alerts = []alert{
	{
		"SPIREFederationBundleExpiry", Warning, "The newest X.509 authority of a held bundle ends soon", 0,
		pairs(func(l Look, p Pair, own time.Duration) string {
			a, notice, there := p.newest(own)
			if left := a.NotAfter.Sub(l.At); there && left < notice {
				return fmt.Sprintf("the newest X.509 authority, %s, %s, and somebody should look from %s on", a.ID, ends(left), brief(notice))
			}
			return ""
		}),
		func(Intervals) string {
			return "max by (truster, trusted) (fedlab_authority_expiry_timestamp_seconds) - time() < on (truster, trusted) fedlab_bundle_notice_seconds"
		},
	},
	{
		"SPIREFederationEndpointDown", Critical, "A bundle endpoint serves no bundle", 1,
		domains(func(d Domain) string {
			if d.Endpoint != "" && !d.EndpointUp {
				return fmt.Sprintf("%s serves no bundle: %s", d.Endpoint, d.Problem)
			}
			return ""
		}),
		func(Intervals) string { return "fedlab_endpoint_up == 0" },
	},
	{
		"SPIREFederationTrustBundleUpdateFailed", Warning, "Fetches of a bundle fail", 0,
		pairs(func(_ Look, p Pair, _ time.Duration) string {
			if p.LastFailure.After(p.LastFetch) {
				return fmt.Sprintf("the last fetch failed%s", after(p.Cause))
			}
			return ""
		}),
		func(i Intervals) string {
			return fmt.Sprintf(`increase(fedlab_fetches_total{result="failed"}[%s]) > 0`, i.window())
		},
	},
	{
		"SPIRECrossDomainAuthenticationFailures", Warning, "Calls between trust domains fail", 1,
		func(l Look, _ time.Duration) (all []Finding) {
			for _, c := range l.Crossing() {
				if c.Outcome == Failed {
					all = append(all, Finding{Truster: c.Server, Trusted: c.Caller, Name: c.Name(), Text: "calls of " + c.Name() + " fail" + after(c.Problem)})
				}
			}
			return all
		},
		func(i Intervals) string {
			return fmt.Sprintf(`rate(fedlab_calls_total{outcome="failed"}[%s]) > 0`, i.window())
		},
	},
	{
		"SPIREFederationLatencyHigh", Warning, "A bundle endpoint is slow", 1,
		domains(func(d Domain) string {
			if d.LatencySeconds > slow.Seconds() {
				return fmt.Sprintf("%s answered after %.1fs", d.Endpoint, d.LatencySeconds)
			}
			return ""
		}),
		func(i Intervals) string {
			return fmt.Sprintf("histogram_quantile(0.99, sum by (trusted, le) (rate(fedlab_endpoint_latency_seconds_bucket[%s]))) > %g", i.window(), slow.Seconds())
		},
	},
	{
		"SPIREFederationBundleNotInSync", Warning, "A held bundle is not what its trust domain serves", 2,
		pairs(func(_ Look, p Pair, _ time.Duration) string {
			if p.State != federation.InSync {
				return cmp.Or(p.Problem, string(p.State))
			}
			return ""
		}),
		func(Intervals) string { return `fedlab_bundle_state{state!="in sync"} == 1` },
	},
	{
		"SPIREFederationNoFetch", Critical, "A server does not fetch a bundle any more", 0,
		pairs(func(l Look, p Pair, _ time.Duration) string {
			if late := l.At.Sub(p.NextPollBy); p.PollSeconds > 0 && late > p.Poll() {
				return fmt.Sprintf("no fetch was counted for %s, and each %s there should be one", brief(late+p.Poll()), brief(p.Poll()))
			}
			return ""
		}),
		func(Intervals) string { return "fedlab_next_poll_seconds < -fedlab_poll_seconds" },
	},
	{
		"SPIREFederationEntryFailures", Warning, "A server does not take entries that its controller manager asks for", 2,
		domains(func(d Domain) string {
			if d.EntryFailures > 0 {
				return fmt.Sprintf("%d entries are refused: most often they federate with a trust domain of which no bundle is held", d.EntryFailures)
			}
			return ""
		}),
		func(Intervals) string { return "fedlab_entry_failures > 0" },
	},
	{
		"SPIREFederationSVIDExpiry", Warning, "An X509-SVID or serving certificate ends soon", 0,
		func(l Look, own time.Duration) (all []Finding) {
			for _, i := range l.Identities {
				if left := i.Expires.Sub(l.At); !i.Expires.IsZero() && left < i.notice(own) {
					all = append(all, Finding{Trusted: i.TrustDomain, Name: i.What + " " + i.Name, Text: fmt.Sprintf("what %s %s presents %s, and was to be replaced before", i.What, i.Name, ends(left))})
				}
			}
			return all
		},
		func(Intervals) string {
			return "fedlab_svid_expiry_timestamp_seconds - time() < fedlab_svid_notice_seconds"
		},
	},
	{
		"SPIREFederationWatchSilent", Critical, "Nobody watches the federation", 2, nil,
		func(i Intervals) string {
			return fmt.Sprintf("absent(fedlab_look_timestamp_seconds) or time() - fedlab_look_timestamp_seconds > %g", i.Poll.Seconds())
		},
	},
}

// pairs finds something in each pair of which says has a text.
func pairs(says func(Look, Pair, time.Duration) string) func(Look, time.Duration) []Finding {
	return func(l Look, own time.Duration) (all []Finding) {
		for _, p := range l.Pairs {
			if text := says(l, p, own); text != "" {
				all = append(all, Finding{
					Truster: p.Truster, Trusted: p.Trusted, Text: fmt.Sprintf("%s holds of %s: %s", p.Truster, p.Trusted, text),
					refresh: p.PollSeconds > 0 && p.Fetches+p.Failures > 0, poll: p.Poll(),
				})
			}
		}
		return all
	}
}

// domains finds something in each domain of which says has a text.
func domains(says func(Domain) string) func(Look, time.Duration) []Finding {
	return func(l Look, _ time.Duration) (all []Finding) {
		for _, d := range l.Domains {
			if text := says(d); text != "" {
				all = append(all, Finding{Trusted: d.Name, Text: d.Name + ": " + text})
			}
		}
		return all
	}
}

// newest returns the X.509 authority of a held bundle that ends last, and when before its end
// somebody should look; false where there is none.
func (p Pair) newest(own time.Duration) (a federation.Authority, notice time.Duration, there bool) {
	for _, x := range p.Held {
		if x.Kind == federation.X509 && x.NotAfter.After(a.NotAfter) {
			a, there = x, true
		}
	}
	if notice = own; own == 0 {
		notice = federation.AuthorityNotice(a.NotAfter.Sub(a.NotBefore))
	}
	return a, notice, there
}

// notice is when before the end of an identity somebody should look.
func (i Identity) notice(own time.Duration) time.Duration {
	life := time.Duration(i.LifeSeconds * float64(time.Second))
	switch {
	case own > 0:
		return own
	case i.What == Endpoint:
		return federation.EndpointNotice(life)
	case i.What == Webhook:
		return federation.WebhookNotice(life)
	}
	return federation.SVIDNotice(life)
}

// Crossing returns the calls from one trust domain to another.
func (l Look) Crossing() []Call {
	return slices.DeleteFunc(slices.Clone(l.Calls), func(c Call) bool { return c.Caller == c.Server })
}

// Name tells a call apart from others.
func (c Call) Name() string { return c.From + " to " + c.To }

func after(cause string) string {
	if cause == "" {
		return ""
	}
	return ": " + cause
}

func ends(left time.Duration) string {
	if left <= 0 {
		return fmt.Sprintf("ended %s ago", brief(-left))
	}
	return fmt.Sprintf("ends in %s", brief(left))
}

func brief(d time.Duration) string { return d.Round(time.Second).String() }

// Watcher keeps, from one look to the next, since when findings are there.
type Watcher struct {
	// Notice is how long before an end somebody is told; zero follows from each life, see
	// federation.AuthorityNotice.
	Notice time.Duration

	since map[key]time.Time
	// shown is when an authority was first seen in the bundle of its own server, and arrived
	// says that a truster holds it.
	shown   map[travelled]time.Time
	arrived map[travelled]bool
}

// Judge returns what there is to tell of a look, in the order of the alerts.
func (w *Watcher) Judge(l Look) []Finding {
	all := []Finding{}
	since := map[key]time.Time{}
	longest := l.longestPoll()
	for _, a := range alerts {
		if a.in == nil {
			continue
		}
		for _, f := range a.in(l, w.Notice) {
			f.Alert, f.Severity, f.Since = a.name, a.severity, l.At
			if before, there := w.since[f.key()]; there {
				f.Since = before
			}
			since[f.key()] = f.Since
			poll := longest
			if f.poll > 0 {
				poll = f.poll
			}
			f.Firing = l.At.Sub(f.Since) >= time.Duration(a.polls)*poll
			all = append(all, f)
		}
	}
	w.since = since
	return all
}

// longestPoll is that of all pairs.
func (l Look) longestPoll() (longest time.Duration) {
	for _, p := range l.Pairs {
		longest = max(longest, p.Poll())
	}
	return longest
}

// Pause returns how long to wait until the next look: a fifth of the shortest poll, so that
// the age of a bundle is known to a fifth of its poll; a minute where nobody polls.
func (l Look) Pause() time.Duration {
	shortest := 5 * time.Minute
	for _, p := range l.Pairs {
		if p.PollSeconds > 0 {
			shortest = min(shortest, p.Poll())
		}
	}
	return shortest / 5
}

// Travel is how long an authority took from its own server to one that trusts it, as looks
// saw it.
type Travel struct {
	Truster, Trusted, Authority string
	Took                        time.Duration
}

type travelled struct{ truster, trusted, authority string }

// Travels returns what has arrived since the look before. What the first look finds has no
// beginning.
func (w *Watcher) Travels(l Look) (all []Travel) {
	first := w.shown == nil
	if first {
		w.shown, w.arrived = map[travelled]time.Time{}, map[travelled]bool{}
	}
	for _, d := range l.Domains {
		for _, a := range d.Own {
			if k := (travelled{trusted: d.Name, authority: a.ID}); w.shown[k].IsZero() {
				w.shown[k] = l.At
			}
		}
	}
	for _, p := range l.Pairs {
		for _, a := range p.Held {
			k := travelled{p.Truster, p.Trusted, a.ID}
			began := w.shown[travelled{trusted: p.Trusted, authority: a.ID}]
			if !w.arrived[k] && !first && !began.IsZero() {
				all = append(all, Travel{p.Truster, p.Trusted, a.ID, l.At.Sub(began)})
			}
			w.arrived[k] = true
		}
	}
	return all
}

// Change is a finding that fires now and did not before, or the other way round.
type Change struct {
	At     time.Time `json:"at"`
	Status string    `json:"status"`
	Finding
}

// Statuses of a Change.
const (
	Firing   = "firing"
	Resolved = "resolved"
)

// Changes returns what is other than in the look before.
func Changes(before, now []Finding, at time.Time) (all []Change) {
	fires := func(in []Finding, f Finding) bool {
		return slices.ContainsFunc(in, func(x Finding) bool { return x.Firing && x.key() == f.key() })
	}
	for _, f := range before {
		if f.Firing && !fires(now, f) {
			f.Firing = false
			all = append(all, Change{at, Resolved, f})
		}
	}
	for _, f := range now {
		if f.Firing && !fires(before, f) {
			all = append(all, Change{at, Firing, f})
		}
	}
	return all
}
