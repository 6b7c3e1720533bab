package main

import (
	"embed"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/feed"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/page"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/lab/web"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

//go:embed page
var files embed.FS

// view is the answer of /api/quotes. It is 200 whether or not there are new
// quotes: error says if there are none, quotes and peer are those of the last
// good call.
type view struct {
	Quotes  []quote            `json:"quotes"`
	Changed time.Time          `json:"changed,omitzero"`
	Peer    *identity.Peer     `json:"peer,omitempty"`
	Self    *identity.Self     `json:"self,omitempty"`
	Error   *diagnosis.Problem `json:"error,omitempty"`
	Server  expected           `json:"server"`
	Now     time.Time          `json:"now"`
	// NextInMillis is when to ask again: not before that is there news.
	NextInMillis int64 `json:"nextInMillis"`
}

// expected is whom the broker wants to talk to.
type expected struct {
	Address string      `json:"address"`
	ID      spiffeid.ID `json:"id"`
}

func newHandler(feed *feed.Feed[answer], own identity.Own, s settings, now func() time.Time) http.Handler {
	mux := page.Mux(files, "quotes")
	process.Probes(mux, func() error { return identity.Check(own, now()) })
	mux.HandleFunc("GET /api/quotes", func(w http.ResponseWriter, r *http.Request) {
		service.JSON(w, http.StatusOK, viewOf(feed.Look(r.Context()), own, s, now()))
	})
	return web.Secure(mux, s.names)
}

func viewOf(st feed.State[answer], own identity.Own, s settings, now time.Time) view {
	v := view{
		Quotes:       st.Answer.quotes,
		Changed:      st.Answer.changed,
		Self:         identity.SelfOf(own),
		Server:       expected{Address: s.address, ID: s.server},
		Now:          now,
		NextInMillis: max(0, st.Next.Sub(now).Milliseconds()),
	}
	if v.Quotes == nil {
		v.Quotes = []quote{}
	}
	if !st.Answer.peer.ID.IsZero() {
		v.Peer = &st.Answer.peer
	}
	if st.Err != nil {
		v.Error = diagnosis.Explain(st.Err, s.words(), st.Since, now)
	}
	return v
}
