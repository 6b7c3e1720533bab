package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/feed"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func get(t *testing.T, handler http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Host = "localhost:30080"
	handler.ServeHTTP(w, r)
	return w
}

func TestPages(t *testing.T) {
	p := newPair(t)
	handler := newHandler(feed.New("quotes", p.caller(t, &apptest.Log{}).call, time.Now, slog.New(slog.DiscardHandler)), p.client, p.settings, time.Now)
	stranger := httptest.NewRecorder() // httptest asks for example.com
	handler.ServeHTTP(stranger, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/quotes", nil))
	if stranger.Code != http.StatusMisdirectedRequest {
		t.Errorf("a request for another host is answered %d", stranger.Code)
	}
	for path, want := range map[string]struct {
		code        int
		contentType string
		contains    string
	}{
		"/quotes":            {200, "text/html; charset=utf-8", `<table id="quotes">`},
		"/assets/quotes.css": {200, "text/css; charset=utf-8", "prefers-reduced-motion"},
		"/assets/quotes.js":  {200, "text/javascript; charset=utf-8", `url: "/api/quotes"`},
		"/assets/look.css":   {200, "text/css; charset=utf-8", "color-scheme"},
		"/assets/live.js":    {200, "text/javascript; charset=utf-8", "export function live"},
		"/assets/icon.svg":   {200, "image/svg+xml", "<svg"},
		"/api/quotes":        {200, "application/json", `"symbol":"ACRN"`},
		"/healthz":           {200, "text/plain; charset=utf-8", "ok"},
		"/readyz":            {200, "text/plain; charset=utf-8", "ok"},
		"/quotes.html":       {404, "text/plain; charset=utf-8", "not found"},
	} {
		t.Run(path, func(t *testing.T) {
			w := get(t, handler, path)
			if w.Code != want.code || w.Header().Get("Content-Type") != want.contentType || !strings.Contains(w.Body.String(), want.contains) {
				t.Errorf("%d %q, want %d %q with %q:\n%.200s", w.Code, w.Header().Get("Content-Type"), want.code, want.contentType, want.contains, w.Body)
			}
			for name, value := range map[string]string{
				"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
				"X-Content-Type-Options":  "nosniff",
				"Referrer-Policy":         "no-referrer",
			} {
				if got := w.Header().Get(name); got != value {
					t.Errorf("%s is %q, want %q", name, got, value)
				}
			}
		})
	}
	if w := get(t, handler, "/"); w.Code != http.StatusFound || w.Header().Get("Location") != "/quotes" {
		t.Errorf("/ answers %d to %q, want a redirect to /quotes", w.Code, w.Header().Get("Location"))
	}
}

func TestAPIShowsQuotesAndBothIdentities(t *testing.T) {
	p := newPair(t)
	fails := false
	caller := p.caller(t, &apptest.Log{})
	clock := time.Now()
	now := func() time.Time { return clock }
	caller.now = now
	feed := feed.New("quotes", func(ctx context.Context) (answer, error) {
		if fails {
			return answer{}, &identity.NotFederatedError{TrustDomain: p.market.TrustDomain}
		}
		return caller.call(ctx)
	}, now, slog.New(slog.DiscardHandler))
	handler := newHandler(feed, p.client, p.settings, now)
	ask := func() view {
		t.Helper()
		w := get(t, handler, "/api/quotes")
		if got := w.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control is %q", got)
		}
		var v view
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}

	good := ask()
	if good.Error != nil || len(good.Quotes) != 1 || !good.Changed.Equal(clock) || good.NextInMillis != 1000 {
		t.Errorf("answer is %+v", good)
	}
	if good.Peer == nil || good.Peer.ID != p.settings.server || good.Peer.VerifiedBy.TrustDomain != p.market.TrustDomain || good.Peer.VerifiedBy.SubjectKeyID == "" {
		t.Errorf("peer is %+v", good.Peer)
	}
	if good.Self == nil || good.Self.ID.String() != "spiffe://cluster2.com/client" || !slices.Equal(good.Self.Bundles, []spiffeid.TrustDomain{p.market.TrustDomain, p.broker.TrustDomain}) {
		t.Errorf("self is %+v", good.Self)
	}

	fails = true
	clock = clock.Add(time.Minute)
	bad := ask()
	if bad.Error == nil || bad.Error.Class != diagnosis.NotFederated || !bad.Error.Since.Equal(clock) {
		t.Errorf("error is %+v", bad.Error)
	}
	if !slices.Equal(bad.Quotes, good.Quotes) || !bad.Changed.Equal(good.Changed) || *bad.Peer != *good.Peer {
		t.Errorf("the last good answer is gone: %+v", bad)
	}
}

// TestAPIFields fails when a field that scenarios and the page read is
// renamed or lost.
func TestAPIFields(t *testing.T) {
	p := newPair(t)
	caller := p.caller(t, &apptest.Log{})
	got, err := caller.call(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st := feed.State[answer]{Answer: got, Err: errors.New("no"), Since: time.Now()}
	raw, err := json.Marshal(viewOf(st, p.client, p.settings, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`changed error.class error.detail error.look error.since error.what nextInMillis now
		peer.id peer.notAfter peer.notBefore peer.serial peer.trustDomain
		peer.verifiedBy.notAfter peer.verifiedBy.subject peer.verifiedBy.subjectKeyID peer.verifiedBy.trustDomain
		quotes.changeCents quotes.company quotes.moved quotes.priceCents quotes.symbol
		self.bundles self.id self.notAfter self.notBefore self.serial self.trustDomain
		self.verifiedBy.notAfter self.verifiedBy.subject self.verifiedBy.subjectKeyID self.verifiedBy.trustDomain
		server.address server.id`)
	if fields := slices.Sorted(slices.Values(fieldsOf("", v))); !slices.Equal(fields, want) {
		t.Errorf("fields are\n%s\nwant\n%s", strings.Join(fields, " "), strings.Join(want, " "))
	}
}

func fieldsOf(path string, value any) []string {
	switch v := value.(type) {
	case map[string]any:
		var fields []string
		for name, inner := range v {
			fields = append(fields, fieldsOf(strings.TrimPrefix(path+"."+name, "."), inner)...)
		}
		return fields
	case []any:
		if _, ok := v[0].(map[string]any); ok {
			return fieldsOf(path, v[0])
		}
	}
	return []string{path}
}

func TestWithoutAnIdentityThePageIsServedButNotReady(t *testing.T) {
	s := settings{address: "127.0.0.1:1", server: spiffeid.RequireFromString("spiffe://cluster1.com/server")}
	caller := &caller{settings: s, holder: nobody{}, now: time.Now, log: slog.New(slog.DiscardHandler)}
	handler := newHandler(feed.New("quotes", caller.call, time.Now, slog.New(slog.DiscardHandler)), nobody{}, s, time.Now)
	if w := get(t, handler, "/readyz"); w.Code != 503 || w.Body.String() != "no identity yet: the Workload API has not answered\n" {
		t.Errorf("/readyz answers %d %q", w.Code, w.Body)
	}
	if w := get(t, handler, "/quotes"); w.Code != 200 {
		t.Errorf("/quotes answers %d", w.Code)
	}
	var v view
	if err := json.Unmarshal(get(t, handler, "/api/quotes").Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if v.Error == nil || v.Error.Class != diagnosis.NoIdentity || v.Self != nil || v.Peer != nil || v.Quotes == nil {
		t.Errorf("answer is %+v", v)
	}
}

// nobody holds no identity.
type nobody struct{}

func (nobody) GetX509SVID() (*x509svid.SVID, error) { return nil, &identity.MissingError{} }
func (nobody) GetX509BundleForTrustDomain(spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return nil, &identity.MissingError{}
}
func (nobody) TrustDomains() []spiffeid.TrustDomain { return nil }
