package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/lab/watch/exporter"
	"github.com/fedlab-dev/fedlab/lab/watch/notify"
)

// errFound says that a watch has found something. What, has been shown already.
var errFound = errors.New("there is something to look at")

// watchOptions are the flags of watch.
type watchOptions struct {
	once, refresh bool
	threshold     time.Duration
	program, url  string
	metrics       string
}

func (c *cmd) watch() *cobra.Command {
	var o watchOptions
	command := &cobra.Command{
		Use:     "watch",
		GroupID: "lab",
		Short:   "Tell when a bundle or an identity ends soon, or is not fetched any more",
		Long: `watch looks at the federation of a lab again and again, and prints a line when an
alert fires and when it is over. It first shows what there is: for each held bundle the
state, the last fetch, the next poll, and what is left of each X.509 authority, and for
each X509-SVID and serving certificate of endpoints, webhooks, agents and workloads what
is left of that. The last fetch is known once a server's own counter has changed between
two looks.

An alert on an end fires when the next authority, or the next SVID, should have come
some time ago: for the newest authority of a bundle when a third of its life is left, or
20 days. --threshold sets one time for all.

With --refresh the server fetches at once when an alert fires that a fetch may cure, and
again each 15 seconds. With --exec a program is run for each line, with the change as
JSON on its standard input. With --alertmanager all that fires is sent to an
Alertmanager, each minute again. With --metrics Prometheus can read what is seen.

With --once it looks once, and the exit code is 3 if there is something to look at.`,
		Example: `  fedlab watch --once
  fedlab watch --refresh --alertmanager http://127.0.0.1:9093`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := o.alertmanager()
			if err != nil {
				return usage(cmd, err)
			}
			show, err := o.listen()
			if err != nil {
				return usage(cmd, err)
			}
			c.events = !o.once
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) (err error) {
				w := watching{
					look:  func(ctx context.Context, before watch.Look) (watch.Look, error) { return d.Look(ctx, t, before) },
					judge: &watch.Watcher{Notice: o.threshold},
				}
				if show.IsValid() {
					e := exporter.New(o.threshold)
					stop, taken := e.Serve(cmd.Context(), show)
					if taken != nil {
						return fmt.Errorf("show metrics: %w", taken)
					}
					defer func() { err = errors.Join(err, stop()) }()
					w.show = e.Observe
				}
				if o.once {
					return c.watchOnce(cmd.Context(), w)
				}
				if o.refresh {
					w.refresh = func(ctx context.Context, truster, trusted string) error { return d.Refresh(ctx, t, truster, trusted) }
				}
				if o.program != "" {
					w.run = func(ctx context.Context, change watch.Change) error { return notify.Run(ctx, o.program, change) }
				}
				if at != nil {
					w.tell = (&notify.Alertmanager{URL: at, Lab: t.Name}).Tell
				}
				return c.keepWatching(cmd.Context(), w)
			})
		},
	}
	command.Flags().BoolVar(&o.once, "once", false, "look once")
	command.Flags().BoolVar(&o.refresh, "refresh", false, "have a server fetch at once what an alert is about")
	command.Flags().DurationVar(&o.threshold, "threshold", 0, "how long before an end an alert fires; by default it follows from each life")
	command.Flags().StringVar(&o.program, "exec", "", "the program to run for each change, such as ./page.sh")
	command.Flags().StringVar(&o.metrics, "metrics", "", "where to show metrics to Prometheus, at /metrics, such as 127.0.0.1:9464")
	command.Flags().StringVar(&o.url, "alertmanager", "", "the URL of an Alertmanager to tell, such as http://127.0.0.1:9093")
	command.AddCommand(c.watchRules(), c.watchDashboard())
	return command
}

// alertmanager returns where to tell; nil for nowhere.
func (o watchOptions) alertmanager() (*url.URL, error) {
	if o.threshold < 0 {
		return nil, fmt.Errorf("invalid value %q of --threshold: want a duration that is not negative", o.threshold)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"--refresh", o.refresh}, {"--exec", o.program != ""}, {"--alertmanager", o.url != ""}, {"--metrics", o.metrics != ""}} {
		if o.once && f.set {
			return nil, fmt.Errorf("--once only looks and %s acts: want one of them", f.name)
		}
	}
	if o.url == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	at, err := url.Parse(o.url)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("invalid value %q of --alertmanager: want a URL such as http://127.0.0.1:9093", o.url)
	}
	return at, nil
}

// listen returns where to show metrics; the zero value for nowhere.
func (o watchOptions) listen() (netip.AddrPort, error) {
	if o.metrics == "" {
		return netip.AddrPort{}, nil
	}
	at, err := netip.ParseAddrPort(o.metrics)
	if err != nil || !at.Addr().IsLoopback() {
		return at, fmt.Errorf("invalid value %q of --metrics: want a loopback address of this machine with a port, such as 127.0.0.1:9464", o.metrics)
	}
	return at, nil
}

// watching is what a watch does with what it sees; all but the first two may be nil.
type watching struct {
	look    func(context.Context, watch.Look) (watch.Look, error)
	judge   *watch.Watcher
	refresh func(ctx context.Context, truster, trusted string) error
	run     func(context.Context, watch.Change) error
	tell    func(context.Context, time.Time, []watch.Finding, []watch.Change) error
	show    func(watch.Look, []watch.Travel)
}

func (c *cmd) watchOnce(ctx context.Context, w watching) error {
	look, err := w.look(ctx, watch.Look{})
	if err != nil {
		return err
	}
	findings := w.judge.Judge(look)
	if c.output == "json" {
		err = c.json("Watch", struct {
			watch.Look
			Findings []watch.Finding `json:"findings"`
		}{look, findings})
	} else {
		err = printWatch(c.Out, look, findings)
	}
	if err == nil && len(findings) > 0 {
		err = errFound
	}
	return err
}

// keepWatching goes on until ctx ends. What cannot be told or refreshed is said, and tried
// again.
func (c *cmd) keepWatching(ctx context.Context, w watching) error {
	var look watch.Look
	var findings []watch.Finding
	refreshed := map[string]time.Time{}
	for first := true; ; first = false {
		var err error
		if look, err = w.look(ctx, look); err != nil {
			return err
		}
		if first && c.output != "json" {
			if err := printWatch(c.Out, look, nil); err != nil {
				return err
			}
		}
		if w.show != nil {
			w.show(look, w.judge.Travels(look))
		}
		before := findings
		findings = w.judge.Judge(look)
		changes := watch.Changes(before, findings, look.At)
		for _, change := range changes {
			if err := c.tellWatch(change); err != nil {
				return err
			}
			if w.run != nil {
				c.note(w.run(ctx, change))
			}
		}
		if w.tell != nil {
			c.note(w.tell(ctx, look.At, findings, changes))
		}
		if w.refresh != nil {
			if err := c.refreshAll(ctx, w, look, findings, refreshed); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(look.Pause()):
		}
	}
}

// refreshAll refreshes each pair of which an alert fires that a fetch may cure, and again after
// the shortest poll that SPIRE knows: the poll of the pair itself may come after the end.
func (c *cmd) refreshAll(ctx context.Context, w watching, look watch.Look, findings []watch.Finding, refreshed map[string]time.Time) error {
	for _, f := range findings {
		id := f.Truster + "->" + f.Trusted
		if !f.Firing || !f.Refreshable() || look.At.Sub(refreshed[id]) < federation.PollInterval(time.Minute, 0) {
			continue
		}
		refreshed[id] = look.At
		change := watch.Change{At: look.At, Status: "refreshed", Finding: f}
		if err := w.refresh(ctx, f.Truster, f.Trusted); err != nil {
			change.Status, change.Text = "not refreshed", err.Error()
		}
		if err := c.tellWatch(change); err != nil {
			return err
		}
	}
	return nil
}

// note says what could not be done, and goes on.
func (c *cmd) note(err error) {
	if err != nil {
		c.printf("%s\n", err)
	}
}

func (c *cmd) tellWatch(change watch.Change) error {
	if c.output == "json" {
		return c.json("WatchChange", change)
	}
	_, err := fmt.Fprintf(c.Out, "%s  %s  %s  %s\n", change.At.Format(time.TimeOnly), change.Status, change.Alert, firstLine(change.Text))
	return err
}

func printWatch(out io.Writer, look watch.Look, findings []watch.Finding) error {
	w := newTable(out)
	row := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) }
	left := func(end time.Time) string {
		if end.IsZero() {
			return "-"
		}
		return validFor(end.Sub(look.At))
	}
	row("HELD BUNDLE", "STATE", "LAST FETCH", "NEXT POLL", "LEFT OF EACH X.509 AUTHORITY")
	for _, p := range look.Pairs {
		fetched, next := "-", "none: "+p.Unpolled
		if !p.LastFetch.IsZero() {
			fetched = brief(look.At.Sub(p.LastFetch)) + " ago"
		}
		if p.PollSeconds > 0 {
			next = fmt.Sprintf("within %s, each %s", brief(p.NextPollBy.Sub(look.At)), brief(p.Poll()))
			if late := look.At.Sub(p.NextPollBy); late > 0 {
				next = fmt.Sprintf("late by %s, each %s", brief(late), brief(p.Poll()))
			}
		}
		var ends []string
		for _, a := range p.Held {
			if !a.NotAfter.IsZero() {
				ends = append(ends, shortID(a.ID)+" "+left(a.NotAfter))
			}
		}
		row(p.Truster+" holds of "+p.Trusted, string(p.State), fetched, next, orDash(strings.Join(ends, ", ")))
	}
	row("\nSHOWN BY", "IDENTITY", "LEFT", "SIGNED BY", "WHAT IS WRONG")
	for _, i := range look.Identities {
		row(i.What+" "+i.Name, orDash(i.SPIFFEID), left(i.Expires), orDash(shortID(i.Authority)), orDash(firstLine(i.Problem)))
	}
	if len(findings) > 0 {
		row("\nTO LOOK AT", "SEVERITY", "WHAT IS WRONG")
	}
	for _, f := range findings {
		row(f.Alert, f.Severity, firstLine(f.Text))
	}
	return w.Flush()
}

// validFor says how long something is still valid, in days where these are many.
func validFor(d time.Duration) string {
	switch {
	case d <= 0:
		return "over"
	case d >= 72*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return brief(d)
}

// shortID is the beginning of an ID, by which a person tells it apart.
func shortID(id string) string { return id[:min(len(id), 8)] }
