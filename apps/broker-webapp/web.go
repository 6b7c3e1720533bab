package main

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

//go:embed page
var page embed.FS

// contentPolicy lets the page load from this broker and nowhere else.
const contentPolicy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// holder is what this broker knows of itself.
type holder interface {
	identity.Holder
	TrustDomains() []spiffeid.TrustDomain
}

// view is the answer of /api/quotes. It is 200 whether or not there are new
// quotes: error says if there are none, quotes and peer are those of the last
// good call.
type view struct {
	Quotes  []quote        `json:"quotes"`
	Changed time.Time      `json:"changed,omitzero"`
	Peer    *identity.Peer `json:"peer,omitempty"`
	Self    *self          `json:"self,omitempty"`
	Error   *problem       `json:"error,omitempty"`
	Server  expected       `json:"server"`
	Now     time.Time      `json:"now"`
	// NextInMillis is when to ask again: not before that is there news.
	NextInMillis int64 `json:"nextInMillis"`
}

// self is the broker's own identity, and whom it could verify.
type self struct {
	identity.Document
	Bundles []spiffeid.TrustDomain `json:"bundles"`
}

// expected is whom the broker wants to talk to.
type expected struct {
	Address string      `json:"address"`
	ID      spiffeid.ID `json:"id"`
}

func newHandler(feed *feed, own holder, s settings, now func() time.Time) http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // only for a malformed path, and ours is a constant
	}
	mux := http.NewServeMux()
	process.Probes(mux, func() error { return identity.Check(own, now()) })
	mux.Handle("GET /{$}", http.RedirectHandler("/quotes", http.StatusFound))
	mux.HandleFunc("GET /quotes", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "quotes.html")
	})
	mux.Handle("GET /assets/", http.FileServerFS(files))
	mux.HandleFunc("GET /api/quotes", func(w http.ResponseWriter, r *http.Request) {
		answer := viewOf(feed.look(r.Context()), own, s, now())
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		// An error here is a browser that has gone away.
		_ = json.NewEncoder(w).Encode(answer)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		mux.ServeHTTP(w, r)
	})
}

func viewOf(st state, own holder, s settings, now time.Time) view {
	v := view{
		Quotes:       st.answer.quotes,
		Changed:      st.changed,
		Peer:         st.peer(),
		Server:       expected{Address: s.address, ID: s.server},
		Now:          now,
		NextInMillis: max(0, st.next.Sub(now).Milliseconds()),
	}
	if v.Quotes == nil {
		v.Quotes = []quote{}
	}
	if svid, err := own.GetX509SVID(); err == nil {
		v.Self = &self{Document: identity.DocumentOf(svid), Bundles: own.TrustDomains()}
	}
	if st.err != nil {
		v.Error = explain(st.err, s, st.since, now)
	}
	return v
}
