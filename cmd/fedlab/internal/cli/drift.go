package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *cmd) drift() *cobra.Command {
	var repair, renamed, watch bool
	command := &cobra.Command{
		Use:     "drift",
		GroupID: "lab",
		Short:   "Compare each held bundle with the bundle that its trust domain serves",
		Long: `drift compares two bundles for each relationship of the lab: the one that the
truster holds, and the one that the trusted domain's endpoint serves. The state is in
sync, behind, differing, foreign, empty or missing. It is unreachable if the endpoint
gives no bundle, hanging if the endpoint takes requests and does not answer, and
unknown if a server cannot be asked. drift says which authorities differ, since when,
and when the next poll is due. It lists held bundles without a relationship
separately. The exit code is 0 only when every bundle that the lab asks for is in
sync, and 3 otherwise.

With --repair fedlab sets each bundle that differs from what the trusted domain's
server has. It reads the bundle from that server through its cluster, not from the
endpoint. What keeps a server from fetching stays as it is; 'fedlab status' names it.

With --watch it keeps looking until it is interrupted, and prints a line when
something changes; with -o json an object.`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if renamed {
				return usage(cmd, errors.New("--mend is called --repair now"))
			}
			if repair && watch {
				return usage(cmd, errors.New("--repair sets bundles and --watch only looks: want one of them"))
			}
			c.events = watch
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				switch {
				case watch:
					look := func(ctx context.Context) (lab.Drift, error) { return d.Drift(ctx, t) }
					return watchDrift(cmd.Context(), look, c.tellChange)
				case repair:
					return c.repairDrift(cmd.Context(), d, t)
				}
				drift, err := d.Drift(cmd.Context(), t)
				if err != nil {
					return err
				}
				return c.showDrift(drift, nil)
			})
		},
	}
	command.Flags().BoolVar(&repair, "repair", false, "set each bundle that differs from what the trusted domain's server has")
	command.Flags().BoolVar(&renamed, "mend", false, "")
	_ = command.Flags().MarkHidden("mend") // it fails for a flag that is not there
	command.Flags().BoolVar(&watch, "watch", false, "keep looking, and print what changes")
	return command
}

// repairDrift repairs, and shows what there is afterwards. What was set before
// something failed is shown, too.
func (c *cmd) repairDrift(ctx context.Context, d *local.Driver, t topology.Topology) error {
	repaired, err := d.Repair(ctx, t)
	for _, m := range repaired {
		c.printf("%s\n", repairedLine(m, time.Now()))
	}
	if err != nil {
		return err
	}
	drift, err := d.Drift(ctx, t)
	if err != nil {
		return err
	}
	return c.showDrift(drift, repaired)
}

func repairedLine(m lab.Repaired, now time.Time) string {
	text := fmt.Sprintf("set what %s holds of %s, which was %s", m.Holder(), m.Trusted, m.Was)
	if !m.NextPollBy.IsZero() {
		text += "; the next poll is within " + brief(m.NextPollBy.Sub(now).Round(time.Second))
	}
	return text
}

func (c *cmd) showDrift(drift lab.Drift, repaired []lab.Repaired) (err error) {
	if c.output == "json" {
		err = c.json("Drift", struct {
			lab.Drift
			Repaired []lab.Repaired `json:"repaired,omitempty"`
		}{drift, repaired})
	} else {
		err = printDrift(c.Out, drift)
	}
	if err == nil && !drift.Well {
		err = errDrifted
	}
	return err
}

func printDrift(out io.Writer, d lab.Drift) error {
	w := newTable(out)
	row := func(h lab.HeldBundle) {
		since, poll := "-", "within "+brief(h.NextPollBy.Sub(d.At))
		if !h.Since.IsZero() {
			since = brief(d.At.Sub(h.Since)) + " ago"
		}
		if h.NextPollBy.IsZero() {
			poll = "-"
		}
		if h.Unpolled != "" {
			poll = "none: " + h.Unpolled
		}
		_, _ = fmt.Fprintf(w, "%s holds of %s\t%s\t%s\t%s\t%s\n", h.Holder(), h.Trusted, h.State, since, poll, orDash(difference(h)))
	}
	_, _ = fmt.Fprintln(w, "HELD BUNDLE\tSTATE\tSINCE\tNEXT POLL\tWHAT IS WRONG")
	for _, h := range d.Held {
		row(h)
	}
	if len(d.Unasked) > 0 {
		_, _ = fmt.Fprintln(w, "\nWITHOUT RELATIONSHIP\tSTATE\tSINCE\tNEXT POLL\tWHAT IS WRONG")
	}
	for _, h := range d.Unasked {
		row(h)
	}
	if len(d.Published) > 0 {
		_, _ = fmt.Fprintln(w, "\nBUNDLE OF\tPUBLISHED IN\tWHAT IS WRONG")
	}
	for _, p := range d.Published {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", p.TrustDomain, inPart(p.Cluster, p.Downstream), orDash(p.Problem))
	}
	return w.Flush()
}

// difference is what is wrong, in one line and without the state before it.
func difference(h lab.HeldBundle) string {
	return strings.TrimPrefix(strings.ReplaceAll(h.Problem, "\n", "; "), string(h.State)+": ")
}

type driftChange struct {
	// Was is the state before, and WasSeconds how long it was seen to last; empty
	// and zero for the first look.
	Was        federation.State `json:"was,omitempty"`
	WasSeconds float64          `json:"wasSeconds,omitzero"`
	At         time.Time        `json:"at"`
	lab.HeldBundle
}

func (c *cmd) tellChange(change driftChange) error {
	if c.output == "json" {
		return c.json("DriftChange", change)
	}
	_, err := fmt.Fprintln(c.Out, change)
	return err
}

func (c driftChange) String() string {
	text := fmt.Sprintf("%s  %s holds of %s: %s", c.At.Format(time.TimeOnly), c.Holder(), c.Trusted, c.State)
	if problem := difference(c.HeldBundle); problem != "" {
		text += ": " + problem
	}
	if c.Was != "" {
		text += fmt.Sprintf(" (before, for %s: %s)", brief(time.Duration(c.WasSeconds*float64(time.Second))), c.Was)
	}
	return text
}

// watchDrift tells how each held bundle stands, and then each time that it stands
// differently, until ctx ends. To look more often than endpoints serve something
// new would show nothing more.
func watchDrift(ctx context.Context, look func(context.Context) (lab.Drift, error), tell func(driftChange) error) error {
	known := map[heldBy]driftChange{}
	for {
		drift, err := look(ctx)
		if err != nil {
			return err
		}
		for _, change := range driftChanges(known, drift) {
			known[nameOf(change.HeldBundle)] = change
			if err := tell(change); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(federation.EndpointBound()):
		}
	}
}

// heldBy names a held bundle.
type heldBy struct{ truster, cluster, trusted string }

func nameOf(h lab.HeldBundle) heldBy { return heldBy{h.Truster, h.Cluster, h.Trusted} }

func driftChanges(known map[heldBy]driftChange, drift lab.Drift) []driftChange {
	var changes []driftChange
	seen := map[heldBy]bool{}
	take := func(h lab.HeldBundle) {
		name := nameOf(h)
		seen[name] = true
		change := driftChange{At: drift.At, HeldBundle: h}
		before, there := known[name]
		if there && reflect.DeepEqual(essence(before.HeldBundle), essence(h)) {
			return
		}
		if there {
			change.Was, change.WasSeconds = before.State, drift.At.Sub(before.At).Seconds()
		}
		changes = append(changes, change)
	}
	for _, h := range drift.Held {
		take(h)
	}
	for _, h := range drift.Unasked {
		take(h)
	}
	for name, before := range known {
		if seen[name] || before.State == federation.Missing {
			continue
		}
		gone := lab.HeldBundle{Truster: name.truster, Cluster: name.cluster, Trusted: name.trusted, State: federation.Missing, Health: lab.Health{Well: true}}
		if slices.Contains(drift.Silent, gone.Holder()) {
			// Nobody knows whether it is gone.
			gone.State, gone.Health = lab.Unknown, lab.Health{Problem: "the server of " + gone.Holder() + " does not answer"}
		}
		take(gone)
	}
	return changes
}

// essence is what of a held bundle stays the same from one look to the next, as
// long as nothing changes: errors may name ports.
func essence(h lab.HeldBundle) lab.HeldBundle {
	h.Problem, h.NextPollBy = "", time.Time{}
	return h
}
