package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
)

// routeBound is how long an upstream may take: less than a caller of this
// gateway waits, so that it hears why there is no answer.
const routeBound = identity.CallBound - 500*time.Millisecond

func checkUpstreams(upstreams []calls.Target) error {
	name := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	for _, u := range upstreams {
		where, err := url.Parse(u.URL)
		switch {
		case err != nil:
			return process.Usagef("read flags: -upstreams: %w", err)
		case !name.MatchString(u.Name) || u.Name == "api":
			return process.Usagef("read flags: -upstreams: name is %q: want lower-case letters, digits and dashes, and not api", u.Name)
		case where.Path != "" || where.RawQuery != "":
			return process.Usagef("read flags: -upstreams: url of %s is %q: want no path", u.Name, u.URL)
		}
	}
	return nil
}

// probes are calls of the upstreams' health, by which the gateway tells
// whether it could take requests there.
func probes(upstreams []calls.Target) []calls.Target {
	targets := slices.Clone(upstreams)
	for i := range targets {
		targets[i].URL += "/api/health"
	}
	return targets
}

// route takes requests to upstream in the gateway's own name. The upstream
// sees that the gateway calls, and decides by that. For whom it calls is said
// in a header, where anybody might have put it: a thing to log, not to act on.
// What the caller itself wrote there is dropped, as are the headers by which
// proxies name their clients. A token is for this gateway, and goes no further.
//
// So a gateway is a deputy: who may call it may do what it may do. Its own
// list of callers is what keeps others from that.
func route(upstream calls.Target, own identity.Holder, now func() time.Time, log *slog.Logger) http.Handler {
	where := &url.URL{Scheme: "https", Host: upstream.Address()}
	words := diagnosis.Call{
		Caller: "this gateway", Server: "the upstream " + upstream.Name, ID: upstream.Server, Address: where.Host, Bound: routeBound,
	}
	fail := func(w http.ResponseWriter, r *http.Request, err error) {
		p := diagnosis.Explain(err, words, now(), now())
		log.WarnContext(r.Context(), "upstream fails", "upstream", upstream.Name, "class", string(p.Class), "error", err)
		status := http.StatusBadGateway
		if p.Class == diagnosis.NoAnswer {
			status = http.StatusGatewayTimeout
		}
		service.Refusal{Status: status, Reason: p.What}.Write(w, own)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(where)
			r.Out.Header.Del("Authorization")
			r.Out.Header.Set(service.OriginalCallerHeader, service.CallerOf(r.In).ID.String())
		},
		Transport:    identity.Client{Server: upstream.Server, Holder: own, Log: log},
		ErrorHandler: fail,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := identity.Check(own, now()); err != nil {
			fail(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), routeBound)
		defer cancel()
		proxy.ServeHTTP(w, r.WithContext(ctx))
	})
}
