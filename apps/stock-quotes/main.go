// Command stock-quotes answers phony stock quotes to clients that prove an
// allowed SPIFFE ID, over gRPC with mutual TLS. Its own identity comes from
// the Workload API; it refuses to know any certificate file.
package main

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
)

func main() { process.Main(svid.Or(service.With(parse, run))) }

type settings struct {
	service.WorkloadAPI

	listen         string
	health         string
	clients        identity.IDs
	seed           uint64
	reauthenticate time.Duration
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("stock-quotes", stderr)
	flags.StringVar(&s.listen, "listen", ":8090", "address that answers quotes, over mutual TLS")
	flags.StringVar(&s.health, "health-listen", ":8091", "address of /healthz and /readyz, in plain HTTP")
	flags.Var(&s.clients, "allow-clients", "SPIFFE IDs that may ask for quotes, separated by commas; required")
	flags.Uint64Var(&s.seed, "seed", 0, "seed of the prices; 0 takes a new one, which is logged")
	flags.DurationVar(&s.reauthenticate, "reauthenticate", 10*time.Second, "how long one handshake stands for, at least 1s")
	err := process.Parse(flags, "QUOTES", s.Flags(flags), args, env)
	switch {
	case err != nil:
		return s, err
	case len(s.clients) == 0:
		return s, process.Usagef("read flags: -allow-clients (or QUOTES_ALLOW_CLIENTS) is empty: " +
			"name the SPIFFE IDs that may ask for quotes, such as spiffe://cluster2.com/client")
	case s.reauthenticate < time.Second:
		return s, process.Usagef("read flags: -reauthenticate is %s: want at least 1s", s.reauthenticate)
	}
	return s, nil
}

func run(ctx context.Context, s settings, source *identity.Source, log *slog.Logger) error {
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	log.InfoContext(ctx, "starting", "seed", s.seed, "allowed_clients", s.clients.String(), "workload_api", s.Socket)
	return service.Program{
		Source: source,
		Health: s.health,
		Log:    log,
		Ports: []service.Port{{Name: "quotes", Address: s.listen, Serve: func(listener net.Listener) process.Server {
			return newServer(listener, source, s, newMarket(s.seed, time.Now), log)
		}}},
	}.Run(ctx)
}
