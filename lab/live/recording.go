package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// A line of a recording is a frame with these two.
const (
	apiVersion = "fedlab.dev/v1alpha1"
	kind       = "FederationFrame"
)

type line struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Frame
}

// Record returns what writes frames as lines of JSON, each at once.
func Record(w io.Writer) func(Frame) error {
	out := json.NewEncoder(w)
	return func(f Frame) error {
		if err := out.Encode(line{apiVersion, kind, f}); err != nil {
			return fmt.Errorf("record frame: %w", err)
		}
		return nil
	}
}

// What a recording may have: a browser must be able to show it.
const (
	maxSize    = 512 << 20
	maxDomains = 200
)

// Read returns the frames of a recording. It refuses what is none, and one that no page could
// show; the error names the frame and the field. A recording is shown, and never believed to be
// harmless.
func Read(path string) (frames []Frame, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if frames, err = read(f); err != nil {
		return nil, fmt.Errorf("read recording %s: %w", path, err)
	}
	return frames, nil
}

func read(r io.Reader) (frames []Frame, err error) {
	for in := json.NewDecoder(io.LimitReader(r, maxSize)); ; {
		var l line
		err := in.Decode(&l)
		n := len(frames)
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return frames, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("it has no frame")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("frame %d ends before it is whole: the file was cut off, or is larger than %d MiB", n+1, maxSize>>20)
		case err != nil:
			return nil, fmt.Errorf("frame %d: %w", n+1, err)
		case l.Kind != kind || l.APIVersion != apiVersion:
			return nil, fmt.Errorf("frame %d is a %q of %q, want a %s of %s, as 'fedlab ui --record' writes it", n+1, l.Kind, l.APIVersion, kind, apiVersion)
		case l.At.IsZero():
			return nil, fmt.Errorf("frame %d has no time in the field at", n+1)
		case n > 0 && l.At.Before(frames[n-1].At):
			return nil, fmt.Errorf("frame %d: at is %s, before the frame that comes before it", n+1, l.At)
		case len(l.Domains) > maxDomains || len(l.Pairs) > maxDomains*maxDomains:
			return nil, fmt.Errorf("frame %d has %d domains and %d pairs, want at most %d and %d", n+1, len(l.Domains), len(l.Pairs), maxDomains, maxDomains*maxDomains)
		}
		frames = append(frames, l.Frame)
	}
}

// replay is where a recording is.
type replay struct {
	At      int  `json:"at"` // counted from zero
	Of      int  `json:"of"`
	Running bool `json:"running"`
}

// move is what a person wants of a replay: another frame, where At is not negative, and whether
// it goes on.
type move struct {
	at      int
	running bool
}

// Play shows frames as they came, until ctx ends; people can stop it and choose a frame. There
// must be at least one.
func (p *Page) Play(ctx context.Context, frames []Frame) {
	to := move{0, true}
	for {
		p.seek(frames, to)
		var after <-chan time.Time
		if last := to.at == len(frames)-1; to.running && !last {
			after = time.After(frames[to.at+1].At.Sub(frames[to.at].At))
		}
		select {
		case <-ctx.Done():
			return
		case <-after:
			to.at++
		case m := <-p.moves:
			to.running = m.running
			if m.at >= 0 {
				to.at = min(m.at, len(frames)-1)
			}
		}
	}
}

// seek shows a frame, after those before it: when an authority came is told by them.
func (p *Page) seek(frames []Frame, to move) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := 0
	if p.replay != nil && p.replay.At <= to.at {
		from = p.replay.At + 1
	} else {
		p.now, p.keys, p.cells, p.news, p.calls = Frame{}, keys{looks: p.keys.looks}, nil, nil, nil
	}
	for _, f := range frames[from : to.at+1] {
		p.take(f)
	}
	p.replay = &replay{At: to.at, Of: len(frames), Running: to.running && to.at < len(frames)-1}
	p.tell()
}

// move hears what a person wants of a replay.
func (p *Page) move(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	none := p.replay == nil
	p.mu.Unlock()
	if none {
		http.Error(w, "this page shows a lab, and no recording", http.StatusNotFound)
		return
	}
	m := move{at: -1, running: r.FormValue("running") == "true"}
	if text := r.FormValue("at"); text != "" {
		at, err := strconv.Atoi(text)
		if err != nil || at < 0 {
			http.Error(w, fmt.Sprintf("at is %q, want the number of a frame", text), http.StatusBadRequest)
			return
		}
		m.at = at
	}
	select {
	case p.moves <- m:
		w.WriteHeader(http.StatusNoContent)
	case <-r.Context().Done():
	}
}
