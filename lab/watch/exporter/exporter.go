// Package exporter shows to Prometheus what a watch has seen. The metrics are those of
// package watch.
//
// It refuses to know how something is seen.
package exporter

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fedlab-dev/fedlab/lab/watch"
)

// Exporter has the last look, and what was counted over all of them.
type Exporter struct {
	notice   time.Duration
	registry *prometheus.Registry
	shown    map[string]*prometheus.Desc

	errors, calls        *prometheus.CounterVec
	latency, propagation *prometheus.HistogramVec

	mu   sync.Mutex
	look watch.Look
}

// New returns an exporter that has not seen anything. The notice is that of the Watcher.
func New(notice time.Duration) *Exporter {
	e := &Exporter{
		notice: notice, registry: prometheus.NewRegistry(), shown: map[string]*prometheus.Desc{},
		errors: counter(watch.FetchErrors), calls: counter(watch.CallsTotal),
		latency:     histogram(watch.EndpointLatency, prometheus.DefBuckets),
		propagation: histogram(watch.Propagation, []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 3600}),
	}
	for _, m := range watch.Metrics() {
		e.shown[m.Name] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
	}
	e.registry.MustRegister(e, e.errors, e.calls, e.latency, e.propagation)
	return e
}

func counter(m watch.Metric) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
}

func histogram(m watch.Metric, buckets []float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: buckets}, m.Labels)
}

// Observe takes a look, and what has arrived with it.
func (e *Exporter) Observe(look watch.Look, travels []watch.Travel) {
	e.mu.Lock()
	before := e.look
	e.look = look
	e.mu.Unlock()
	for _, p := range look.Pairs {
		was, there := before.Pair(p.Truster, p.Trusted)
		if !there || p.CountedSince.IsZero() || was.CountedSince.IsZero() {
			continue
		}
		failed := p.Failures - was.Failures
		if failed < 0 {
			failed = p.Failures // the server was started again
		}
		if failed > 0 {
			e.errors.WithLabelValues(p.Truster, p.Trusted, cmp.Or(p.Cause, "unknown")).Add(float64(failed))
		}
	}
	for _, d := range look.Domains {
		if d.EndpointUp {
			e.latency.WithLabelValues(d.Name).Observe(d.LatencySeconds)
		}
	}
	for _, t := range travels {
		e.propagation.WithLabelValues(t.Truster, t.Trusted).Observe(t.Took.Seconds())
	}
	for _, c := range look.Crossing() {
		// Both are there from the beginning: a rate needs two values.
		for _, outcome := range []string{watch.Answered, watch.Failed} {
			series := e.calls.WithLabelValues(c.Caller, c.Server, c.Name(), outcome)
			if c.Outcome == outcome {
				series.Inc()
			}
		}
	}
}

// Describe implements prometheus.Collector. The labels of what a look shows are not known
// before.
func (e *Exporter) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (e *Exporter) Collect(to chan<- prometheus.Metric) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.look.At.IsZero() {
		return
	}
	for _, s := range e.look.Samples(e.notice) {
		kind := prometheus.GaugeValue
		if s.Metric.Kind == watch.Counter {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(e.shown[s.Metric.Name], kind, s.Value, s.Labels...)
	}
}

// Handler answers Prometheus.
func (e *Exporter) Handler() http.Handler {
	// One series that is there twice does not hide all others.
	return promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// patience is how long a client may take to ask.
const patience = 5 * time.Second

// Serve answers at /metrics of an address until stop is called, which returns what went
// wrong.
func (e *Exporter) Serve(ctx context.Context, at netip.AddrPort) (stop func() error, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", e.Handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	return func() error {
		err := server.Close()
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}
