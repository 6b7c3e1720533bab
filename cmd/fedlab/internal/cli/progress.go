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

// beat is how often progress says what still runs when nothing else happens.
const beat = 15 * time.Second

// progress shows the events of a plan: as whole lines for people, or as JSON,
// one object a line, for programs.
type progress struct {
	cmd     *cmd
	began   time.Time
	mu      sync.Mutex
	running []running
	changed int
	stop    chan struct{}
	done    chan struct{}
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

// end stops showing and returns how many steps changed something.
func (p *progress) end() int {
	close(p.stop)
	<-p.done
	return p.changed
}

// Observe takes an event; it is for plan.Runner.
func (p *progress) Observe(e plan.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.output == "json" {
		p.json(e)
	}
	i := slices.IndexFunc(p.running, func(r running) bool { return r.event.Step == e.Step })
	switch e.State {
	case plan.Started:
		p.running = append(p.running, running{event: e, began: time.Now()})
	case plan.Noted:
		if i >= 0 {
			p.running[i].note = e.Note
		}
	default:
		if i >= 0 {
			p.running = slices.Delete(p.running, i, i+1)
		}
		if e.State == plan.Changed {
			p.changed++
		}
		p.line(e)
	}
}

func (p *progress) line(e plan.Event) {
	if p.cmd.output == "json" || e.State == plan.Unchanged {
		return
	}
	mark := "ok  "
	if e.State == plan.Failed {
		mark = "FAIL"
	}
	p.cmd.printf("%s %s %7s  %s\n", mark, position(e), brief(e.Took), e.Title)
}

// position says which of how many steps it is, at equal width.
func position(e plan.Event) string {
	width := len(fmt.Sprint(e.Of))
	return fmt.Sprintf("[%*d/%d]", width, e.Number, e.Of)
}

func (p *progress) heartbeat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd.output == "json" {
		return
	}
	for _, r := range p.running {
		text := fmt.Sprintf("...  %s %7s  %s", position(r.event), brief(time.Since(r.began)), r.event.Title)
		if r.event.Typical > 0 {
			text += ", about " + brief(r.event.Typical) + " in all on two cores"
		}
		if r.note != "" {
			text += ": " + r.note
		}
		p.cmd.printf("%s\n", text)
	}
}

// event is a plan.Event as programs see it.
type event struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Step       plan.ID    `json:"step"`
	Title      string     `json:"title"`
	Number     int        `json:"number"`
	Of         int        `json:"of"`
	State      plan.State `json:"state"`
	Seconds    float64    `json:"seconds,omitempty"`
	Note       string     `json:"note,omitempty"`
	Error      string     `json:"error,omitempty"`
}

func (p *progress) json(e plan.Event) {
	shown := event{
		APIVersion: "fedlab.dev/v1alpha1", Kind: "Event",
		Step: e.Step, Title: e.Title, Number: e.Number, Of: e.Of, State: e.State, Seconds: e.Took.Seconds(), Note: e.Note,
	}
	if e.Err != nil {
		shown.Error = e.Err.Error()
	}
	// A reader that is gone is no reason to stop.
	_ = json.NewEncoder(p.cmd.Out).Encode(shown)
}

// brief writes a duration as people say it: 0.4s, 12s, 3m05s.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
}
