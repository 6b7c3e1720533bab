package watch

import "time"

// MetricKind is what kind of metric one is.
type MetricKind int

// The kinds of metrics.
const (
	Gauge MetricKind = iota
	Counter
	Histogram
)

// Metric is one that a watch shows to Prometheus.
type Metric struct {
	Name   string
	Kind   MetricKind
	Help   string
	Labels []string
}

var (
	pair = []string{"truster", "trusted"}
	svid = []string{"what", "name", "trust_domain"}
)

// The metrics of a watch. What a look did not see is not shown.
var (
	BundleAge       = Metric{"fedlab_bundle_age_seconds", Gauge, "Time since the truster was last seen to have fetched.", pair}
	BundleState     = Metric{"fedlab_bundle_state", Gauge, "1 for the state of the held bundle, as fedlab drift names it.", with(pair, "state")}
	Poll            = Metric{"fedlab_poll_seconds", Gauge, "Interval at which the truster fetches.", pair}
	NextPoll        = Metric{"fedlab_next_poll_seconds", Gauge, "Time until the truster will have fetched; below zero where the fetch is late.", pair}
	FetchesTotal    = Metric{"fedlab_fetches_total", Counter, "Fetches that the truster's server has counted, by result: done or failed.", with(pair, "result")}
	FetchErrors     = Metric{"fedlab_fetch_errors_total", Counter, "Failed fetches by cause, as fedlab status names it at that moment.", with(pair, "cause")}
	AuthorityExpiry = Metric{"fedlab_authority_expiry_timestamp_seconds", Gauge, "When an X.509 authority of a held bundle ends.", with(pair, "authority")}
	BundleNotice    = Metric{"fedlab_bundle_notice_seconds", Gauge, "How long before the end of the newest authority somebody should look.", pair}
	EndpointUp      = Metric{"fedlab_endpoint_up", Gauge, "1 where the bundle endpoint serves a bundle.", []string{"trusted"}}
	EndpointLatency = Metric{"fedlab_endpoint_latency_seconds", Histogram, "How long the bundle endpoint took to answer.", []string{"trusted"}}
	Propagation     = Metric{"fedlab_propagation_seconds", Histogram, "How long an authority took from its own server to the truster's.", pair}
	SVIDExpiry      = Metric{"fedlab_svid_expiry_timestamp_seconds", Gauge, "When an X509-SVID or serving certificate ends.", svid}
	SVIDNotice      = Metric{"fedlab_svid_notice_seconds", Gauge, "How long before that end somebody should look.", svid}
	CallsTotal      = Metric{"fedlab_calls_total", Counter, "Looks at a call between two trust domains, by how it ended.", []string{"caller", "server", "name", "outcome"}}
	EntryFailures   = Metric{"fedlab_entry_failures", Gauge, "Entries that the server does not take from its controller managers.", []string{"trusted"}}
	LookTime        = Metric{"fedlab_look_timestamp_seconds", Gauge, "When the last look was taken.", nil}
)

// Metrics are all of them.
func Metrics() []Metric {
	return []Metric{
		BundleAge, BundleState, Poll, NextPoll, FetchesTotal, FetchErrors, AuthorityExpiry, BundleNotice, EndpointUp, EndpointLatency,
		Propagation, SVIDExpiry, SVIDNotice, CallsTotal, EntryFailures, LookTime,
	}
}

func with(labels []string, more ...string) []string {
	return append(append([]string{}, labels...), more...)
}

// Sample is a value of a metric, with the values of its labels.
type Sample struct {
	Metric Metric
	Value  float64
	Labels []string
}

// Samples returns what a look tells: the values of gauges, and what the servers count. The
// notice is that of a Watcher.
func (l Look) Samples(notice time.Duration) (all []Sample) {
	add := func(m Metric, value float64, labels ...string) { all = append(all, Sample{m, value, labels}) }
	for _, p := range l.Pairs {
		add(BundleState, 1, p.Truster, p.Trusted, string(p.State))
		if p.PollSeconds > 0 {
			add(Poll, p.PollSeconds, p.Truster, p.Trusted)
			add(NextPoll, p.NextPollBy.Sub(l.At).Seconds(), p.Truster, p.Trusted)
		}
		if !p.LastFetch.IsZero() {
			add(BundleAge, l.At.Sub(p.LastFetch).Seconds(), p.Truster, p.Trusted)
		}
		if !p.CountedSince.IsZero() {
			add(FetchesTotal, float64(p.Fetches), p.Truster, p.Trusted, "done")
			add(FetchesTotal, float64(p.Failures), p.Truster, p.Trusted, "failed")
		}
		for _, a := range p.Held {
			if !a.NotAfter.IsZero() {
				add(AuthorityExpiry, seconds(a.NotAfter), p.Truster, p.Trusted, a.ID)
			}
		}
		if _, before, there := p.newest(notice); there {
			add(BundleNotice, before.Seconds(), p.Truster, p.Trusted)
		}
	}
	for _, d := range l.Domains {
		if d.Endpoint != "" {
			up := 0.0
			if d.EndpointUp {
				up = 1
			}
			add(EndpointUp, up, d.Name)
		}
		add(EntryFailures, float64(d.EntryFailures), d.Name)
	}
	for _, i := range l.Identities {
		if !i.Expires.IsZero() {
			add(SVIDExpiry, seconds(i.Expires), i.What, i.Name, i.TrustDomain)
			add(SVIDNotice, i.notice(notice).Seconds(), i.What, i.Name, i.TrustDomain)
		}
	}
	add(LookTime, seconds(l.At))
	return all
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
