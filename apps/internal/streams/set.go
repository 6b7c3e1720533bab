// Package streams makes the calls that a probe is ordered to make, and keeps the
// record of them.
//
// It refuses to know what is broken meanwhile, and what the record is held
// against.
package streams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// orderLimit is the most that an order may have, in bytes.
const orderLimit = 16 << 10

// Set is the streams of one probe. Records are kept in memory.
type Set struct {
	holder identity.Holder
	name   func() string
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex
	streams map[string]*stream
	ended   bool // for good: no order is taken any more
}

// NewSet returns a set without streams, in which calls are made as holder. name
// says from whom they are, for the record.
func NewSet(holder identity.Holder, name func() string, now func() time.Time, log *slog.Logger) *Set {
	return &Set{holder: holder, name: name, now: now, log: log, streams: map[string]*stream{}}
}

// Run returns when ctx has ended, and with it all calls.
func (s *Set) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	all := slices.Collect(maps.Values(s.streams))
	s.mu.Unlock()
	for _, running := range all {
		running.cancel()
		<-running.done
	}
	return nil
}

// Handler answers /streams/{name}: PUT starts a stream, GET reads its record,
// DELETE ends it, returns the record and forgets it.
func (s *Set) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /streams/{name}", s.put)
	mux.HandleFunc("GET /streams/{name}", s.get)
	mux.HandleFunc("DELETE /streams/{name}", s.delete)
	return mux
}

func (s *Set) put(w http.ResponseWriter, r *http.Request) {
	order, err := readOrder(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if status, err := s.start(order); err != nil {
		refuse(w, status, err)
		return
	}
	s.log.InfoContext(r.Context(), "stream started", "name", order.Name, "address", order.Address, "server", order.Server,
		"every", order.Every, "connection", order.Connection)
	service.JSON(w, http.StatusCreated, order)
}

func readOrder(r *http.Request) (order traffic.Order, err error) {
	decoder := json.NewDecoder(io.LimitReader(r.Body, orderLimit))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&order); err != nil {
		return order, fmt.Errorf("read order: %w", err)
	}
	if name := r.PathValue("name"); order.Name != name {
		return order, fmt.Errorf("read order: it is of %q, and was sent to %q", order.Name, name)
	}
	return order, order.Check()
}

func (s *Set) start(order traffic.Order) (status int, err error) {
	started, err := newStream(order, s.holder, s.now)
	if err != nil {
		return http.StatusBadRequest, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return http.StatusServiceUnavailable, errors.New("the probe is about to end")
	}
	if _, taken := s.streams[order.Name]; taken {
		return http.StatusConflict, fmt.Errorf("the name %q is in use", order.Name)
	}
	s.streams[order.Name] = started
	started.start()
	return 0, nil
}

func (s *Set) get(w http.ResponseWriter, r *http.Request) {
	if found := s.find(w, r); found != nil {
		s.answer(w, found)
	}
}

func (s *Set) delete(w http.ResponseWriter, r *http.Request) {
	found := s.find(w, r)
	if found == nil {
		return
	}
	found.stop()
	select {
	case <-found.done:
	case <-r.Context().Done():
		return // nobody is there to take the record: it stays
	}
	if !s.forget(found) {
		refuse(w, http.StatusNotFound, fmt.Errorf("the stream %q has just been taken by somebody else", r.PathValue("name")))
		return
	}
	s.log.InfoContext(r.Context(), "stream ended", "name", r.PathValue("name"))
	s.answer(w, found)
}

// find returns the stream that r names; it answers itself when there is none.
func (s *Set) find(w http.ResponseWriter, r *http.Request) *stream {
	s.mu.Lock()
	found := s.streams[r.PathValue("name")]
	s.mu.Unlock()
	if found == nil {
		refuse(w, http.StatusNotFound, fmt.Errorf("no stream is called %q", r.PathValue("name")))
	}
	return found
}

// forget returns false when it has been done.
func (s *Set) forget(gone *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := gone.caller.order.Name
	if s.streams[name] != gone {
		return false
	}
	delete(s.streams, name)
	return true
}

func (s *Set) answer(w http.ResponseWriter, found *stream) {
	record := found.soFar()
	record.From = s.name()
	service.JSON(w, http.StatusOK, record)
}

func refuse(w http.ResponseWriter, status int, err error) {
	service.JSON(w, status, service.Refusal{Kind: strings.ToLower(http.StatusText(status)), Reason: err.Error()})
}
