// Command service is a service of a company of which the lab needs no more than that it
// is there: it answers those that it may, over HTTPS with mutual TLS, and calls the
// services that it is told to, while somebody asks how that goes.
//
// It has the name that it is given, and refuses to know whether it authenticates people
// or trains models: the identities and the calls are real, and the business is not.
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
	name  string
	calls calls.Targets
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("service", stderr)
	named := s.Flags(flags)
	flags.StringVar(&s.name, "name", "service", "name by which the service answers")
	flags.Var(&s.calls, "calls", "JSON array of the calls that this service makes to show that it can")
	if err := process.Parse(flags, "SERVICE", named, args, env); err != nil {
		return s, err
	}
	if s.name == "" {
		return s, process.Usagef("read flags: -name is empty: want a name such as auth-service")
	}
	return s, s.Rules.Complete()
}

func run(ctx context.Context, s settings, source *identity.Source, log *slog.Logger) error {
	log.InfoContext(ctx, "starting", "name", s.name, "allowed_trust_domains", s.Rules.TrustDomains.String(), "allowed_ids", s.Rules.IDs.String(),
		"calls", s.calls.String(), "workload_api", s.Socket)
	mux := http.NewServeMux()
	mux.Handle("GET /api/health", service.Health(s.name, source, nil))
	mux.Handle("GET /api/calls", calls.NewWatch(s.calls, source, time.Now, log))
	return service.Program{
		Source: source,
		Health: s.Health,
		Ports:  []service.Port{s.Port(source, s.Rules.Allow, mux, log)},
		Log:    log,
	}.Run(ctx)
}
