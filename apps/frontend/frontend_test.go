package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

func TestPages(t *testing.T) {
	aws := apptest.NewCA(t, "aws.company.com")
	handler := newHandler(nil, nil, apptest.NewHolder(aws.Issue(t, "/frontend"), aws.Bundle()), time.Now, slog.New(slog.DiscardHandler))
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Host = "localhost:30081"
		handler.ServeHTTP(w, r)
		return w
	}
	stranger := httptest.NewRecorder() // httptest asks for example.com
	handler.ServeHTTP(stranger, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/calls", nil))
	if stranger.Code != http.StatusMisdirectedRequest {
		t.Errorf("a request for another host is answered %d", stranger.Code)
	}
	for path, want := range map[string]struct {
		code        int
		contentType string
		contains    string
	}{
		"/federation":            {200, "text/html; charset=utf-8", `<svg id="map"`},
		"/assets/federation.js":  {200, "text/javascript; charset=utf-8", `url: "/api/calls"`},
		"/assets/map.js":         {200, "text/javascript; charset=utf-8", "export function drawMap"},
		"/assets/federation.css": {200, "text/css; charset=utf-8", "prefers-reduced-motion"},
		"/assets/live.js":        {200, "text/javascript; charset=utf-8", "export function live"},
		"/assets/look.css":       {200, "text/css; charset=utf-8", "color-scheme"},
		"/assets/icon.svg":       {200, "image/svg+xml", "<svg"},
		"/api/calls":             {200, "application/json", `"id":"spiffe://aws.company.com/frontend"`},
		"/readyz":                {200, "text/plain; charset=utf-8", "ok"},
		"/federation.html":       {404, "text/plain; charset=utf-8", "not found"},
	} {
		t.Run(path, func(t *testing.T) {
			w := get(path)
			if w.Code != want.code || w.Header().Get("Content-Type") != want.contentType || !strings.Contains(w.Body.String(), want.contains) {
				t.Errorf("%d %q, want %d %q with %q:\n%.200s", w.Code, w.Header().Get("Content-Type"), want.code, want.contentType, want.contains, w.Body)
			}
			if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'self'") {
				t.Errorf("Content-Security-Policy is %q", got)
			}
		})
	}
	if w := get("/"); w.Code != http.StatusFound || w.Header().Get("Location") != "/federation" {
		t.Errorf("/ answers %d to %q", w.Code, w.Header().Get("Location"))
	}
	// A page that asks for something from elsewhere would show it missing.
	for _, path := range []string{"/federation", "/assets/federation.css", "/assets/look.css"} {
		if body := get(path).Body.String(); strings.Contains(body, "//") && strings.Contains(body, "http") {
			t.Errorf("%s names another server", path)
		}
	}
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no calls": {nil, "read flags: -calls (or FRONTEND_CALLS) is empty: name whom to call, such as " +
			`[{"name": "orders", "url": "https://data.gcp.company.com:8443/api/process-data", "server": "spiffe://gcp.company.com/ns/demo/service/data-processing/version/v2"}]`},
		"a call that is none": {[]string{"-calls=[{}]"}, `read flags: invalid value "[{}]" for flag -calls: target 1 (""): name is empty`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args, func(string) string { return "" }, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}
