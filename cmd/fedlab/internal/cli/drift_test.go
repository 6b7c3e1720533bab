package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
)

var driftNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// driftedLab has one held bundle of each shape.
func driftedLab() lab.Drift {
	return lab.Drift{
		Lab: "quotes", At: driftNow,
		Held: []lab.HeldBundle{
			{Health: lab.Health{Well: true}, Truster: "cluster1.com", Trusted: "cluster2.com", State: federation.InSync, NextPollBy: driftNow.Add(15 * time.Second)},
			{
				Health: lab.Health{Problem: "behind: lacks X.509 authority 0a1b"}, Truster: "cluster2.com", Trusted: "cluster1.com",
				State: federation.Behind, Since: driftNow.Add(-185 * time.Second), NextPollBy: driftNow.Add(15 * time.Second),
			},
			{
				Health: lab.Health{Problem: "it takes requests\nand does not answer"}, Truster: "cluster3.com", Trusted: "cluster1.com",
				State: lab.Hanging, Unpolled: "kept waiting by the endpoint",
			},
			{Health: lab.Health{Problem: "the server of cluster4.com does not answer"}, Truster: "cluster4.com", Trusted: "cluster1.com", State: lab.Unknown},
		},
		Unasked: []lab.HeldBundle{
			{Health: lab.Health{Problem: "no relationship of the lab asks for it"}, Truster: "cluster1.com", Trusted: "stranger.com", State: lab.Unknown, Unpolled: "no relationship"},
		},
	}
}

func TestShowDrift(t *testing.T) {
	const want = `
HELD BUNDLE                         STATE    SINCE      NEXT POLL                           WHAT IS WRONG
cluster1.com holds of cluster2.com  in sync  -          within 15s                          -
cluster2.com holds of cluster1.com  behind   3m05s ago  within 15s                          lacks X.509 authority 0a1b
cluster3.com holds of cluster1.com  hanging  -          none: kept waiting by the endpoint  it takes requests; and does not answer
cluster4.com holds of cluster1.com  unknown  -          -                                   the server of cluster4.com does not answer

WITHOUT RELATIONSHIP                STATE    SINCE  NEXT POLL              WHAT IS WRONG
cluster1.com holds of stranger.com  unknown  -      none: no relationship  no relationship of the lab asks for it
`
	var out bytes.Buffer
	c := &cmd{Streams: Streams{Out: &out}}
	if err := c.showDrift(driftedLab(), nil); ExitCode(err) != NotWell || err.Error() != "not every held bundle is in sync" {
		t.Errorf("error %v", err)
	}
	if out.String() != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", out.String(), want)
	}

	out.Reset()
	well := lab.Drift{Well: true, At: driftNow, Held: driftedLab().Held[:1]}
	if err := c.showDrift(well, nil); err != nil {
		t.Error(err)
	}
	if got, want := out.String(), "HELD BUNDLE                         STATE    SINCE  NEXT POLL   WHAT IS WRONG\ncluster1.com holds of cluster2.com  in sync  -      within 15s  -\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	out.Reset()
	c.output = "json"
	repaired := []lab.Repaired{{Truster: "cluster1.com", Trusted: "cluster2.com", Was: federation.Foreign}}
	if err := c.showDrift(well, repaired); err != nil {
		t.Error(err)
	}
	var got struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Well       bool           `json:"well"`
		Repaired   []lab.Repaired `json:"repaired"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.APIVersion != apiVersion || got.Kind != "Drift" || !got.Well || !reflect.DeepEqual(got.Repaired, repaired) {
		t.Errorf("error %v, got %s", err, out.String())
	}
}

func TestRepairedLine(t *testing.T) {
	m := lab.Repaired{Truster: "cluster1.com", Trusted: "cluster2.com", Was: federation.Foreign}
	if got, want := repairedLine(m, driftNow), "set what cluster1.com holds of cluster2.com, which was foreign"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	m.NextPollBy = driftNow.Add(36 * time.Minute)
	if got, want := repairedLine(m, driftNow), "set what cluster1.com holds of cluster2.com, which was foreign; the next poll is within 36m00s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWatchDrift has a bundle fall behind, come back, lose its server for a while,
// and its endpoint, while nothing that is told twice is told twice.
func TestWatchDrift(t *testing.T) {
	errInterrupted := errors.New("interrupted")
	// looks are what is seen, a second apart.
	held := func(state federation.State, problem string) lab.HeldBundle {
		return lab.HeldBundle{Health: lab.Health{Well: problem == "", Problem: problem}, Truster: "cluster2.com", Trusted: "cluster1.com", State: state}
	}
	lacking := func(id string) lab.HeldBundle {
		h := held(federation.Behind, "behind: lacks X.509 authority "+id)
		h.Lacking = []federation.Authority{{Kind: federation.X509, ID: id}}
		return h
	}
	stray := lab.HeldBundle{Health: lab.Health{Problem: "no relationship of the lab asks for it; it is in sync"}, Truster: "cluster2.com", Trusted: "cluster3.com", State: federation.InSync}
	silent := held(lab.Unknown, "the server of cluster2.com does not answer")
	looks := []lab.Drift{
		{Held: []lab.HeldBundle{held(federation.InSync, "")}},
		{Held: []lab.HeldBundle{held(federation.InSync, "")}},
		{Held: []lab.HeldBundle{lacking("01")}},
		{Held: []lab.HeldBundle{lacking("02")}, Unasked: []lab.HeldBundle{stray}},
		{Held: []lab.HeldBundle{held(federation.InSync, "")}, Unasked: []lab.HeldBundle{stray}},
		{Held: []lab.HeldBundle{silent}, Silent: []string{"cluster2.com"}},
		{Held: []lab.HeldBundle{silent}, Silent: []string{"cluster2.com"}},
		{Held: []lab.HeldBundle{held(federation.InSync, "")}, Unasked: []lab.HeldBundle{stray}},
		{Held: []lab.HeldBundle{held(lab.Unreachable, "from port 4711: connection refused")}},
		{Held: []lab.HeldBundle{held(lab.Unreachable, "from port 4712: connection refused")}},
	}
	watch := func(t *testing.T, c *cmd) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			n := 0
			err := watchDrift(ctx, func(context.Context) (lab.Drift, error) {
				if n == len(looks) {
					cancel(errInterrupted)
					return lab.Drift{}, context.Cause(ctx)
				}
				d := looks[n]
				d.At = time.Now().UTC()
				for i := range d.Held {
					d.Held[i].NextPollBy = d.At.Add(15 * time.Second)
				}
				n++
				return d, nil
			}, c.tellChange)
			if !errors.Is(err, errInterrupted) {
				t.Errorf("error %v, want %v", err, errInterrupted)
			}
		})
	}
	const want = `
00:00:00  cluster2.com holds of cluster1.com: in sync
00:00:02  cluster2.com holds of cluster1.com: behind: lacks X.509 authority 01 (before, for 2.0s: in sync)
00:00:03  cluster2.com holds of cluster1.com: behind: lacks X.509 authority 02 (before, for 1.0s: behind)
00:00:03  cluster2.com holds of cluster3.com: in sync: no relationship of the lab asks for it; it is in sync
00:00:04  cluster2.com holds of cluster1.com: in sync (before, for 1.0s: behind)
00:00:05  cluster2.com holds of cluster1.com: unknown: the server of cluster2.com does not answer (before, for 1.0s: in sync)
00:00:05  cluster2.com holds of cluster3.com: unknown: the server of cluster2.com does not answer (before, for 2.0s: in sync)
00:00:07  cluster2.com holds of cluster1.com: in sync (before, for 2.0s: unknown)
00:00:07  cluster2.com holds of cluster3.com: in sync: no relationship of the lab asks for it; it is in sync (before, for 2.0s: unknown)
00:00:08  cluster2.com holds of cluster1.com: unreachable: from port 4711: connection refused (before, for 1.0s: in sync)
00:00:08  cluster2.com holds of cluster3.com: missing (before, for 1.0s: in sync)
`
	var out bytes.Buffer
	watch(t, &cmd{Streams: Streams{Out: &out}})
	if out.String() != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant%s", out.String(), want)
	}

	out.Reset()
	watch(t, &cmd{Streams: Streams{Out: &out}, output: "json", events: true})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != strings.Count(want, "\n")-1 {
		t.Errorf("%d lines, want one for each change:\n%s", len(lines), out.String())
	}
	if got, want := lines[1], `{"apiVersion":"fedlab.dev/v1alpha1","at":"2000-01-01T00:00:02Z","kind":"DriftChange","lacking":[{"id":"01","kind":"X.509"}],"nextPollBy":"2000-01-01T00:00:17Z","problem":"behind: lacks X.509 authority 01","state":"behind","trusted":"cluster1.com","truster":"cluster2.com","was":"in sync","wasSeconds":2,"well":false}`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestWatchDriftEnds: what cannot be asked or told ends it.
func TestWatchDriftEnds(t *testing.T) {
	broken := errors.New("docker is gone")
	look := func(context.Context) (lab.Drift, error) { return lab.Drift{}, broken }
	if err := watchDrift(t.Context(), look, nil); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	look = func(context.Context) (lab.Drift, error) { return driftedLab(), nil }
	if err := watchDrift(t.Context(), look, func(driftChange) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	tell := func(driftChange) error { cancel(broken); return nil }
	if err := watchDrift(ctx, look, tell); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

func TestPrintDriftOfMembers(t *testing.T) {
	var b bytes.Buffer
	if err := printDrift(&b, lab.Drift{Published: []lab.PublishedBundle{
		{Health: lab.Health{Well: true}, TrustDomain: "one.test", Cluster: "a"},
		{Health: lab.Health{Problem: "the ConfigMap spire-bundle is not there"}, TrustDomain: "one.test", Cluster: "b"},
	}}); err != nil {
		t.Fatal(err)
	}
	want := `
BUNDLE OF  PUBLISHED IN  WHAT IS WRONG
one.test   a             -
one.test   b             the ConfigMap spire-bundle is not there
`
	if got := b.String(); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant at its end%s", got, want)
	}
}
