// Command data-service answers orders from its PostgreSQL over HTTPS with
// mutual TLS: aggregates to the clients of one trust domain, raw records to
// those of another, and nothing to anybody else.
//
// It refuses to know any certificate file, and who a client says it is: what
// counts is whom TLS has authenticated.
package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
)

func main() { process.Main(svid.Or(service.With(parse, run))) }

type settings struct {
	service.Settings
	raw      identity.TrustDomains
	database database.Settings
	legacy   legacySettings
	orders   int
	seed     uint64
	calls    calls.Targets
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("data-service", stderr)
	named := s.Flags(flags)
	named["raw-trust-domains"] = rawVariable
	s.database.Flags(flags)
	named["legacy-database-url"] = legacyVariable
	flags.StringVar(&s.legacy.url, "legacy-database-url", "", "postgres://user@host:port/name of a database behind a bridge; empty if there is none")
	flags.Func("legacy-database-bridge", "SPIFFE ID that the bridge must prove", func(text string) (err error) {
		s.legacy.bridge, err = identity.ParseID(text)
		return err
	})
	flags.StringVar(&s.legacy.passwordFile, "legacy-database-password-file", "/run/secrets/legacy/password", "file with the password for the database behind the bridge")
	flags.Var(&s.raw, "raw-trust-domains", "those of the allowed trust domains that get raw records; all others get aggregates")
	flags.IntVar(&s.orders, "orders", 1500, "how many orders an empty database is filled with")
	flags.Uint64Var(&s.seed, "seed", 1, "seed of the orders: the same seed makes the same orders")
	flags.Var(&s.calls, "calls", "JSON array of the calls that this service makes to show that it can")
	if err := process.Parse(flags, "DATA", named, args, env); err != nil {
		return s, err
	}
	if err := s.Rules.Complete(); err != nil {
		return s, err
	}
	if s.orders < 1 || s.orders > 100_000 {
		return s, process.Usagef("read flags: -orders is %d: want 1 to 100000", s.orders)
	}
	if _, _, err := s.legacy.settings(); err != nil {
		return s, err
	}
	return s, s.database.Complete()
}

func run(ctx context.Context, s settings, source *identity.Source, log *slog.Logger) error {
	store, err := openStore(s, source, log)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "starting", "allowed_trust_domains", s.Rules.TrustDomains.String(), "allowed_ids", s.Rules.IDs.String(),
		"raw_trust_domains", s.raw.String(), "database", s.database.Address, "database_tls", s.database.TLS, "workload_api", s.Socket)
	mux := http.NewServeMux()
	mux.Handle("GET /api/process-data", processData(store, s, source, time.Now))
	mux.Handle("GET /api/health", service.Health("data-processing", source, store.Check))
	mux.Handle("GET /api/calls", calls.NewWatch(s.calls, source, time.Now, log))
	tasks := []func(context.Context) error{store.Run}
	behind, there, err := s.legacy.settings()
	if err != nil {
		return err
	}
	if there {
		legacy, err := openLegacy(behind, source, log)
		if err != nil {
			return err
		}
		// That it is away is no reason to take this service away.
		tasks = append(tasks, legacy.Run)
		mux.Handle("GET /api/legacy-data", legacyData(legacy, source))
	}
	return service.Program{
		Source: source,
		Health: s.Health,
		Ready:  store.Ready,
		Ports:  []service.Port{s.Port(source, s.allow, mux, log)},
		Tasks:  tasks,
		Log:    log,
	}.Run(ctx)
}
