package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// beat is how often progress says what still runs.
const beat = 15 * time.Second

// progress shows the events of a plan, and of the image builds that run inside of
// one of its steps: as whole lines for people, or as JSON, one object a line, for
// programs.
type progress struct {
	cmd   *cmd
	began time.Time
	// typical is how long it took the last time from the first cluster on; 0
	// where nobody knows.
	typical time.Duration

	mu            sync.Mutex
	steps, builds track
	changed       int
	// clusters is when the first step began that makes or starts a cluster; zero
	// while every cluster was there.
	clusters time.Time

	stop, done chan struct{}
}

type track struct {
	began     time.Time
	ended, of int
	running   []running
}

type running struct {
	event plan.Event
	began time.Time
	note  string
}

// progress starts to show events; end must be called.
func (c *cmd) progress() *progress {
	p := &progress{cmd: c, began: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
				p.heartbeat()
			}
		}
	}()
	return p
}

func (p *progress) end() {
	close(p.stop)
	<-p.done
}

// Observe takes an event of a lab's plan, Build one of an image build.
func (p *progress) Observe(e plan.Event) { p.take(&p.steps, e) }

// Build takes an event of an image build.
func (p *progress) Build(e plan.Event) { p.take(&p.builds, e) }

func (p *progress) take(t *track, e plan.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.output == "json" {
		p.json(e)
	}
	i := slices.IndexFunc(t.running, func(r running) bool { return r.event.Step == e.Step })
	switch e.State {
	case plan.Started:
		if e.Number == 1 {
			t.began, t.ended = time.Now(), 0 // another plan than before
		}
		t.of = e.Of
		t.running = append(t.running, running{event: e, began: time.Now()})
	case plan.Noted:
		if i >= 0 {
			t.running[i].note = e.Note
		}
	case plan.Remarked:
		if i >= 0 && p.cmd.output != "json" {
			p.cmd.printf("note %s %7s  %s: %s\n", p.position(), brief(time.Since(t.running[i].began)), e.Title, e.Note)
		}
	default:
		if i >= 0 {
			t.running = slices.Delete(t.running, i, i+1)
		}
		t.ended++
		if e.State == plan.Changed {
			p.changed++
			if began := time.Now().Add(-e.Took); e.Step.Kind() == "cluster" && (p.clusters.IsZero() || began.Before(p.clusters)) {
				p.clusters = began
			}
		}
		p.line(t, e)
	}
}

func (p *progress) line(t *track, e plan.Event) {
	mark := map[plan.State]string{plan.Changed: "ok  ", plan.Failed: "FAIL", plan.Cancelled: "stop"}[e.State]
	if p.cmd.output == "json" || mark == "" {
		return
	}
	title := e.Title
	if t == &p.builds && p.steps.of > 0 {
		title = fmt.Sprintf("made %d of %d: %s", t.ended, t.of, title)
	}
	p.cmd.printf("%s %s %7s  %s\n", mark, p.position(), brief(e.Took), title)
}

// outer is the plan that others run inside of.
func (p *progress) outer() track {
	if p.steps.of == 0 {
		return p.builds
	}
	return p.steps
}

// position says how many steps of how many are done, at equal width.
func (p *progress) position() string {
	t := p.outer()
	return fmt.Sprintf("[%*d/%d]", len(fmt.Sprint(t.of)), t.ended, t.of)
}

// most is how many running steps one line names.
const most = 4

// heartbeat says in one line what runs, what that waits for, and how long it may
// still take.
func (p *progress) heartbeat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Concat(p.steps.running, p.builds.running)
	if p.cmd.output == "json" || len(all) == 0 {
		return
	}
	var items []string
	for _, r := range all[:min(most, len(all))] {
		items = append(items, r.String())
	}
	if rest := len(all) - most; rest > 0 {
		items = append(items, fmt.Sprintf("and %d more", rest))
	}
	text := strings.Join(items, "; ")
	if left := p.typical - time.Since(p.clusters); left > 0 && !p.clusters.IsZero() {
		text += "; about " + brief(left.Round(time.Second)) + " to go"
	}
	p.cmd.printf("...  %s %7s  %s\n", p.position(), brief(time.Since(p.outer().began)), text)
}

func (r running) String() string {
	var details []string
	if r.event.Typical > 0 {
		details = append(details, fmt.Sprintf("%s of about %s on two cores", brief(time.Since(r.began)), brief(r.event.Typical)))
	}
	if r.note != "" {
		details = append(details, shortened(r.note))
	}
	if details == nil {
		return r.event.Title
	}
	return r.event.Title + " (" + strings.Join(details, ", ") + ")"
}

// shortened cuts a note to what fits on a line next to others.
func shortened(note string) string {
	const longest = 90
	if runes := []rune(note); len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return note
}

// event is a plan.Event as programs see it. The reference of events is made of
// what each field says.
type event struct {
	APIVersion string     `json:"apiVersion" says:"the version of this format, \x60fedlab.dev/v1alpha1\x60"`
	Kind       string     `json:"kind" says:"\x60Event\x60"`
	Time       time.Time  `json:"time" says:"when it happened, by the clock of this machine"`
	Step       plan.ID    `json:"step" says:"the step, such as \x60cluster/market\x60; \x60fedlab plan\x60 lists those of a lab"`
	Title      string     `json:"title" says:"what the step makes true"`
	Number     int        `json:"number" says:"the place of the step in its plan, from 1"`
	Of         int        `json:"of" says:"how many steps the plan has"`
	State      plan.State `json:"state" says:"what happened: see below"`
	Seconds    float64    `json:"seconds,omitempty" says:"how long the step took, once it has ended"`
	Note       string     `json:"note,omitempty" says:"what the step waits for, where the state is \x60noted\x60; what people should read, where it is \x60remarked\x60"`
	Error      string     `json:"error,omitempty" says:"why the step failed, where the state is \x60failed\x60"`
}

func (p *progress) json(e plan.Event) {
	shown := event{
		APIVersion: apiVersion, Kind: "Event", Time: time.Now(),
		Step: e.Step, Title: e.Title, Number: e.Number, Of: e.Of, State: e.State, Seconds: e.Took.Seconds(), Note: e.Note,
	}
	if e.Err != nil {
		shown.Error = e.Err.Error()
	}
	// A reader that is gone is no reason to stop.
	_ = json.NewEncoder(p.cmd.Out).Encode(shown)
}

// brief writes a duration as people say it: 0.4s, 12s, 3m05s, 24h, 23h59m.
func brief(d time.Duration) string {
	if d.Round(100*time.Millisecond) < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	d = d.Round(time.Second)
	minutes, seconds := d/time.Minute, d%time.Minute/time.Second
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", seconds)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", minutes, seconds)
	}
	d = d.Round(time.Minute)
	hours, minutes := d/time.Hour, d%time.Hour/time.Minute
	if minutes == 0 {
		return fmt.Sprintf("%dh", hours)
	}
	return fmt.Sprintf("%dh%02dm", hours, minutes)
}
