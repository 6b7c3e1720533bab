// Command api-gateway takes requests of allowed callers to services of any
// trust domain: /gcp/api/health to /api/health of the upstream called gcp, and
// so on, over HTTPS with mutual TLS on both sides. A caller may present a JWT-SVID for
// the gateway in place of its X509-SVID.
//
// It calls with its own identity and no other; it refuses to lend anybody the
// identity of its caller, and to believe a header that claims one.
package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
)

func main() { process.Main(svid.Or(service.With(parse, run))) }

type settings struct {
	service.Settings
	upstreams calls.Targets
	issuers   identity.Issuers
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("api-gateway", stderr)
	named := s.Flags(flags)
	flags.Var(&s.upstreams, "upstreams", "JSON array of the upstreams: the name is the first part of the paths that lead there, the url has no path")
	flags.Var(&s.issuers, "issuers", "issuers that the JWT-SVIDs of trust domains must have, as aws.company.com=https://oidc.aws.company.com separated by commas; those of others must have none")
	if err := process.Parse(flags, "GATEWAY", named, args, env); err != nil {
		return s, err
	}
	if err := s.Rules.Complete(); err != nil {
		return s, err
	}
	return s, checkUpstreams(s.upstreams)
}

func run(ctx context.Context, s settings, source *identity.Source, log *slog.Logger) error {
	log.InfoContext(ctx, "starting", "allowed_trust_domains", s.Rules.TrustDomains.String(), "allowed_ids", s.Rules.IDs.String(),
		"upstreams", s.upstreams.String(), "issuers", s.issuers.String(), "workload_api", s.Socket)
	bundles := identity.NewJWTBundles(s.Socket, log)
	tokens := identity.Tokens{Bundles: bundles, Issuers: s.issuers}
	return service.Program{
		Source: source,
		Health: s.Health,
		Ready:  bundles.Ready,
		Ports:  []service.Port{s.TokenPort(source, tokens, s.Rules.Allow, newHandler(s.upstreams, source, time.Now, log), log)},
		Tasks:  []func(context.Context) error{bundles.Run},
		Log:    log,
	}.Run(ctx)
}

func newHandler(upstreams []calls.Target, own calls.Caller, now func() time.Time, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/health", service.Health("api-gateway", own, nil))
	mux.Handle("GET /api/calls", calls.NewWatch(probes(upstreams), own, now, log))
	for _, upstream := range upstreams {
		mux.Handle("/"+upstream.Name+"/", http.StripPrefix("/"+upstream.Name, route(upstream, own, now, log)))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		service.Refusal{Status: http.StatusNotFound, Reason: "no upstream is called by the first part of " + r.URL.Path}.Write(w, own)
	})
	return mux
}
