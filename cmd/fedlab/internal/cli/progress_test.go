package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// TestProgress shows a bring-up with an image build inside of it, as a person
// reads it.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, err bytes.Buffer
		c := &cmd{Streams: Streams{Out: &out, Err: &err}, output: "text"}
		p := c.progress()
		p.typical = time.Minute
		at := func(d time.Duration) { <-time.After(d - time.Since(p.began)) }
		step := func(number int, name plan.ID, title string, s plan.State, took time.Duration) plan.Event {
			return plan.Event{Step: name, Title: title, Number: number, Of: 12, State: s, Took: took}
		}
		build := plan.Event{Step: "build/etcd", Title: "etcd 3.6.8", Number: 1, Of: 3, State: plan.Started, Typical: 44 * time.Second}

		p.Observe(step(1, "survey/quotes", "what is there", plan.Started, 0))
		p.Observe(step(1, "survey/quotes", "what is there", plan.Unchanged, 0))
		p.Observe(step(2, "images/quotes", "images and charts", plan.Started, 0))
		p.Build(build)
		at(40 * time.Second)
		build.State, build.Took = plan.Changed, 40*time.Second
		p.Build(build)
		p.Observe(step(2, "images/quotes", "images and charts", plan.Unchanged, 40*time.Second))
		for i, name := range []string{"market", "broker"} {
			p.Observe(step(3+i, plan.ID("cluster/"+name), "cluster "+name, plan.Started, 0))
		}
		noted := step(3, "cluster/market", "cluster market", plan.Noted, 0)
		noted.Note = "waits until the node is ready: NotReady: " + strings.Repeat("so it is ", 20)
		p.Observe(noted)
		remarked := step(4, "cluster/broker", "cluster broker", plan.Remarked, 0)
		remarked.Note = "goes on without its context"
		p.Observe(remarked)
		at(50 * time.Second)
		p.Observe(step(3, "cluster/market", "cluster market", plan.Changed, 9960*time.Millisecond))
		for i, name := range []string{"a", "b", "c", "d", "e"} {
			p.Observe(step(5+i, plan.ID("x/"+name), name, plan.Started, 0))
		}
		at(61 * time.Second)
		p.Observe(step(4, "cluster/broker", "cluster broker", plan.Failed, 21*time.Second))
		p.Observe(step(5, "x/a", "a", plan.Cancelled, 11*time.Second))
		at(2*time.Minute - time.Second)
		p.end()

		want := strings.Join([]string{
			"...  [ 1/12]     15s  images and charts; etcd 3.6.8 (15s of about 44s on two cores)",
			"...  [ 1/12]     30s  images and charts; etcd 3.6.8 (30s of about 44s on two cores)",
			"ok   [ 1/12]     40s  made 1 of 3: etcd 3.6.8",
			"note [ 2/12]    0.0s  cluster broker: goes on without its context",
			"...  [ 2/12]     45s  cluster market (waits until the node is ready: NotReady: so it is so it is so it is so it is so it is so …); cluster broker",
			"ok   [ 3/12]     10s  cluster market",
			"...  [ 3/12]   1m00s  cluster broker; a; b; c; and 2 more; about 40s to go",
			"FAIL [ 4/12]     21s  cluster broker",
			"stop [ 5/12]     11s  a",
			"...  [ 5/12]   1m15s  b; c; d; e; about 25s to go",
			"...  [ 5/12]   1m30s  b; c; d; e; about 10s to go",
			"...  [ 5/12]   1m45s  b; c; d; e",
		}, "\n") + "\n"
		if got := err.String(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if out.Len() > 0 {
			t.Errorf("standard output has %q", out.String())
		}
		if p.changed != 2 || p.clusters.Sub(p.began).Round(time.Second) != 40*time.Second {
			t.Errorf("changed %d, the first cluster after %s", p.changed, p.clusters.Sub(p.began))
		}
	})
}

// TestProgressOfASecondPlan: its seconds count from its own first step, not from
// that of a plan before it in the same process.
func TestProgressOfASecondPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err bytes.Buffer
		p := (&cmd{Streams: Streams{Out: io.Discard, Err: &err}, output: "text"}).progress()
		survey := plan.Event{Step: "survey/quotes", Title: "survey", Number: 1, Of: 2, State: plan.Started}
		p.Observe(survey)
		survey.State = plan.Unchanged
		p.Observe(survey)
		<-time.After(time.Minute - time.Second)
		survey.State = plan.Started
		p.Observe(survey)
		<-time.After(2 * time.Second)
		p.end()
		if want := "...  [0/2]    1.0s  survey\n"; err.String() != want {
			t.Errorf("got %q, want %q", err.String(), want)
		}
	})
}

// TestProgressOfABuildAlone has no lab's plan around it.
func TestProgressOfABuildAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err bytes.Buffer
		p := (&cmd{Streams: Streams{Out: io.Discard, Err: &err}, output: "text"}).progress()
		p.Build(plan.Event{Step: "build/etcd", Title: "etcd", Number: 1, Of: 2, State: plan.Started})
		p.Build(plan.Event{Step: "build/etcd", Title: "etcd", Number: 1, Of: 2, State: plan.Changed, Took: 3 * time.Minute})
		p.Build(plan.Event{Step: "build/other", Title: "other", Number: 1, Of: 1, State: plan.Started})
		p.Build(plan.Event{Step: "build/other", Title: "other", Number: 1, Of: 1, State: plan.Changed, Took: time.Second})
		p.end()
		if want := "ok   [1/2]   3m00s  etcd\nok   [1/1]    1.0s  other\n"; err.String() != want {
			t.Errorf("got %q, want %q", err.String(), want)
		}
	})
}

// TestEventsForPrograms holds the names of the fields: programs read them.
func TestEventsForPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, err bytes.Buffer
		p := (&cmd{Streams: Streams{Out: &out, Err: &err}, output: "json"}).progress()
		e := plan.Event{Step: "cluster/market", Title: "cluster market", Number: 3, Of: 20, State: plan.Started}
		p.Observe(e)
		<-time.After(time.Minute)
		e.State, e.Note = plan.Noted, "waits"
		p.Observe(e)
		e.State, e.Note, e.Took, e.Err = plan.Failed, "", 1500*time.Millisecond, errors.New("no room")
		p.Observe(e)
		p.end()
		at := func(after time.Duration) string {
			return p.began.Add(after).Format(time.RFC3339Nano)
		}
		want := `{"apiVersion":"fedlab.dev/v1alpha1","kind":"Event","time":"` + at(0) + `","step":"cluster/market","title":"cluster market","number":3,"of":20,"state":"started"}
{"apiVersion":"fedlab.dev/v1alpha1","kind":"Event","time":"` + at(time.Minute) + `","step":"cluster/market","title":"cluster market","number":3,"of":20,"state":"noted","note":"waits"}
{"apiVersion":"fedlab.dev/v1alpha1","kind":"Event","time":"` + at(time.Minute) + `","step":"cluster/market","title":"cluster market","number":3,"of":20,"state":"failed","seconds":1.5,"error":"no room"}
`
		if out.String() != want || err.Len() > 0 {
			t.Errorf("got\n%s%s\nwant\n%s", out.String(), err.String(), want)
		}
	})
}

// TestResultAfterEvents is one line, as the events before it are.
func TestResultAfterEvents(t *testing.T) {
	var out bytes.Buffer
	c := &cmd{Streams: Streams{Out: &out}, events: true}
	if err := c.json("Down", map[string]any{"lab": "quotes"}); err != nil {
		t.Fatal(err)
	}
	var result map[string]any
	if err := json.Unmarshal(out.Bytes(), &result); err != nil || strings.Count(out.String(), "\n") != 1 || result["kind"] != "Down" {
		t.Errorf("error %v, got %s", err, out.String())
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 40 * time.Millisecond: "0.0s", 440 * time.Millisecond: "0.4s", 9940 * time.Millisecond: "9.9s",
		9960 * time.Millisecond: "10s", 12 * time.Second: "12s", 59400 * time.Millisecond: "59s", 59600 * time.Millisecond: "1m00s",
		79 * time.Second: "1m19s", 2 * time.Minute: "2m00s", 185 * time.Second: "3m05s", 59*time.Minute + 59600*time.Millisecond: "1h",
		time.Hour + 5*time.Minute: "1h05m", 23*time.Hour + 59*time.Minute + 20*time.Second: "23h59m", 24 * time.Hour: "24h",
	} {
		if got := brief(d); got != want {
			t.Errorf("%s reads %q, want %q", d, got, want)
		}
	}
}
