// Command legacy-bridge lets workloads with an allowed identity reach a legacy
// database that knows nothing of identities: by /api/legacy-data over HTTPS,
// and by the database's own protocol through a port in front of it, both with
// mutual TLS.
//
// As "legacy-bridge tunnel" it is the far end of that port, next to a database
// client that knows nothing of identities either.
package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
)

func main() {
	process.Main(svid.Or(func(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
		if len(args) > 0 && args[0] == "tunnel" {
			return service.With(parseTunnel, runTunnel)(ctx, args[1:], env, stderr)
		}
		return service.With(parse, run)(ctx, args, env, stderr)
	}))
}

type settings struct {
	service.Settings
	database database.Settings
	proxy    string
	clients  identity.IDs
	verify   time.Duration
	calls    calls.Targets
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("legacy-bridge", stderr)
	named := s.Flags(flags)
	named["allow-database-ids"] = databaseIDsVariable
	s.database.Flags(flags)
	flags.StringVar(&s.proxy, "database-listen", ":5432", "address that lets database clients through, over mutual TLS")
	flags.Var(&s.clients, "allow-database-ids", "SPIFFE IDs that may reach the database itself, separated by commas; none if empty")
	flags.DurationVar(&s.verify, "verify-every", 10*time.Second, "how often a database client that stays connected is verified again")
	flags.Var(&s.calls, "calls", "JSON array of the calls that this service makes to show that it can")
	if err := process.Parse(flags, "BRIDGE", named, args, env); err != nil {
		return s, err
	}
	if err := s.Rules.Complete(); err != nil {
		return s, err
	}
	if s.verify <= 0 {
		return s, process.Usagef("read flags: -verify-every is %s: want more than 0", s.verify)
	}
	if s.database.TLS {
		return s, process.Usagef("read flags: -database-tls is set: the clients behind the bridge would have to speak TLS to a database that knows nothing of it")
	}
	return s, s.database.Complete()
}

func run(ctx context.Context, s settings, source *identity.Source, log *slog.Logger) error {
	ledger, err := openLedger(s.database, log)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "starting", "allowed_trust_domains", s.Rules.TrustDomains.String(), "allowed_ids", s.Rules.IDs.String(),
		"allowed_database_ids", s.clients.String(), "database", s.database.Address, "workload_api", s.Socket)
	mux := http.NewServeMux()
	mux.Handle("GET /api/legacy-data", legacyData(ledger, source, time.Now))
	mux.Handle("GET /api/health", service.Health("legacy-bridge", source, ledger.Check))
	mux.Handle("GET /api/calls", calls.NewWatch(s.calls, source, time.Now, log))
	proxy := &proxy{database: s.database.Address, clients: s.clients, every: s.verify, holder: source, log: log}
	return service.Program{
		Source: source,
		Health: s.Health,
		Ready:  ledger.Ready,
		Ports: []service.Port{
			s.Port(source, s.Rules.Allow, mux, log),
			{Name: "the database", Address: s.proxy, Serve: func(listener net.Listener) process.Server {
				return process.TCP(listener, proxy.serve)
			}},
		},
		Tasks: []func(context.Context) error{ledger.Run},
		Log:   log,
	}.Run(ctx)
}
