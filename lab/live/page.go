// Package live shows the federation of a lab in a browser while it changes: who trusts whom as a
// matrix, and for one relationship each key on its way from its source to what it signs.
//
// It refuses to know where frames come from: a lab that runs hands them over, or a recording.
package live

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/lab/look"
	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/lab/web"
)

//go:embed assets page.html
var files embed.FS

// Frame is what there is to see at one moment.
type Frame struct {
	watch.Look
	// Problem is why there was nothing to see at At. The page then goes on showing what it
	// has.
	Problem string `json:"unseen,omitempty"`
	// Doing are the steps of a scenario and the faults that were under way. A lab does not
	// tell them: a scenario's record does.
	Doing []string `json:"doing,omitempty"`
}

// Page is a page that all its browsers see change. It is ready as New returns it.
type Page struct {
	templates *template.Template
	moves     chan move

	mu sync.Mutex
	// changed is closed when there is something new.
	changed chan struct{}
	now     Frame // the last one that has a look
	problem string
	matrix  matrix
	cells   []cell
	keys    keys
	news    []news
	calls   []*calls
	replay  *replay
}

// newsKept is how many changes a browser is told that comes later.
const newsKept = 50

// news is one change, for the list of them. N counts them.
type news struct {
	N    int    `json:"n"`
	Time string `json:"time"`
	Text string `json:"text"`
}

// New returns a page that has nothing to show yet.
func New() *Page {
	p := &Page{changed: make(chan struct{}), moves: make(chan move)}
	p.templates = template.Must(template.New("page").Funcs(template.FuncMap{
		"patterns": look.Patterns,
		"tick":     func(i int) int { return 6*i + 3 },
	}).ParseFS(files, "page.html"))
	return p
}

// Show shows a frame in all browsers.
func (p *Page) Show(f Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take(f)
	p.tell()
}

// tell wakes what waits for something new.
func (p *Page) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// take makes a frame what there is to see.
func (p *Page) take(f Frame) {
	if p.problem = f.Problem; p.problem != "" {
		return
	}
	before := p.matrix
	p.matrix = matrixOf(f.Look)
	if p.matrix.Shape != before.Shape {
		p.cells = nil
	}
	was := p.cells
	p.cells = p.matrix.cells(f.Look)
	first := p.now.At.IsZero()
	for i, c := range p.cells {
		if was != nil && c.Word != was[i].Word {
			p.add(f.At, fmt.Sprintf("%s trusts %s: %s, was %s", p.matrix.row(i), p.matrix.column(i), c.Word, was[i].Word))
		}
	}
	for _, moved := range p.keys.see(f.Look) {
		if !first {
			p.add(f.At, moved)
		}
	}
	p.hear(f.Calls)
	p.now = f
}

// calls are how the calls of one workload to another went at the last looks.
type calls struct {
	From, To string
	Ticks    []watch.Call
}

// ticksKept is how many looks are kept of calls.
const ticksKept = 60

// hear adds a tick for the calls of each workload.
func (p *Page) hear(all []watch.Call) {
	for _, c := range all {
		i := slices.IndexFunc(p.calls, func(k *calls) bool { return k.From == c.From && k.To == c.To })
		if i < 0 {
			i, p.calls = len(p.calls), append(p.calls, &calls{From: c.From, To: c.To})
		}
		of := p.calls[i]
		of.Ticks = append(of.Ticks, c)
		of.Ticks = of.Ticks[max(0, len(of.Ticks)-ticksKept):]
	}
}

// Last is how the calls go.
func (c calls) Last() watch.Call { return c.Ticks[len(c.Ticks)-1] }

func (p *Page) add(at time.Time, text string) {
	n := 1
	if len(p.news) > 0 {
		n += p.news[len(p.news)-1].N
	}
	p.news = append(p.news, news{n, clock(at), text})
	p.news = p.news[max(0, len(p.news)-newsKept):]
}

// clock is a time of day as people on this machine read it.
func clock(t time.Time) string { return t.Local().Format("15:04:05") }

// Handler serves the page and nothing else, to this machine alone.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.document)
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("GET /assets/look.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write([]byte(look.CSS())) // a browser that is gone does not need it
	})
	mux.Handle("GET /assets/", http.FileServerFS(files))
	// What another page sends, the browser says so.
	mux.Handle("POST /replay", http.NewCrossOriginProtection().Handler(http.HandlerFunc(p.move)))
	return web.Secure(mux, nil)
}

func (p *Page) document(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = p.templates.ExecuteTemplate(w, "page.html", map[string]any{
		"Lab": p.now.Lab, "Shape": p.shape(), "Matrix": p.matrix, "States": legend(), "Replay": p.replay != nil, "Circle": p.matrix.drawn(),
	}) // a browser that is gone does not need it
}

// shape is that of the document: its table, and whether people can move a replay.
func (p *Page) shape() string {
	if p.replay != nil {
		return "replay " + p.matrix.Shape
	}
	return p.matrix.Shape
}

// event is what a browser is told.
type event struct {
	// Shape says which document the browser must have.
	Shape string `json:"shape"`
	// At is the time of what is seen, in milliseconds of Unix time, and Moves says that time
	// goes on.
	At      int64        `json:"at"`
	Time    string       `json:"time"`
	Moves   bool         `json:"moves"`
	Problem string       `json:"problem"`
	Summary string       `json:"summary"`
	Cells   map[int]cell `json:"cells"` // those that have changed, by their place
	News    []news       `json:"news"`
	Doing   []string     `json:"doing"`
	// Circle, Calls and Lanes are made by the templates.
	Circle string  `json:"circle"`
	Calls  string  `json:"calls"`
	Lanes  string  `json:"lanes"`
	Replay *replay `json:"replay,omitempty"`
}

// events tells a browser what changes, until it is gone. One that names a relationship
// ("?truster=…&trusted=…") is told of its keys.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	var sent []cell
	for {
		p.mu.Lock()
		changed := p.changed
		e, err := p.event(r.FormValue("truster"), r.FormValue("trusted"), sent)
		sent = p.cells
		p.mu.Unlock()
		if err == nil {
			var data []byte
			if data, err = json.Marshal(e); err == nil {
				_, err = fmt.Fprintf(w, "data: %s\n\n", data)
			}
		}
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil { // the browser asks again
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (p *Page) event(truster, trusted string, sent []cell) (e event, err error) {
	e = event{Shape: p.shape(), Problem: p.problem, Cells: map[int]cell{}, Moves: true}
	if p.replay != nil {
		is := *p.replay
		e.Replay, e.Moves = &is, is.Running
	}
	if p.now.At.IsZero() {
		return e, nil
	}
	e.At, e.Time, e.News, e.Doing = p.now.At.UnixMilli(), clock(p.now.At), p.news, p.now.Doing
	e.Summary = summary(p.now.Pairs)
	for i, c := range p.cells {
		if len(sent) != len(p.cells) || c != sent[i] {
			e.Cells[i] = c
		}
	}
	var errs [3]error
	if p.matrix.drawn() {
		e.Circle, errs[0] = p.part("circle", circleOf(p.matrix, p.cells))
	}
	if len(p.calls) > 0 {
		e.Calls, errs[1] = p.part("calls", p.calls)
	}
	if truster != "" {
		e.Lanes, errs[2] = p.part("lanes", p.keys.lanes(p.now.Look, truster, trusted))
	}
	return e, errors.Join(errs[:]...)
}

func (p *Page) part(name string, of any) (string, error) {
	var text strings.Builder
	err := p.templates.ExecuteTemplate(&text, name, of)
	return text.String(), err
}
