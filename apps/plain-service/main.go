// Command plain-service is a service that knows nothing of SPIFFE: it answers in plain
// HTTP on its own loopback address, and calls others in plain HTTP at addresses of its own
// machine. Programs next to it, such as ghostunnel, give it an identity, let in who may
// call, and see to it that the right one answers.
//
// It refuses to know of certificates, trust domains and sockets: what it says of its calls
// is what it was told.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

func main() { process.Main(process.With(parse, run)) }

type settings struct {
	name, listen, health string
	calls                targets
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("plain-service", stderr)
	flags.StringVar(&s.name, "name", "plain-service", "name by which the service answers")
	flags.StringVar(&s.listen, "listen", "127.0.0.1:8080", "address of the service, in plain HTTP; nobody but the program next to it should reach it")
	flags.StringVar(&s.health, "health-listen", ":8081", "address of /healthz and /readyz")
	flags.Var(&s.calls, "calls", "JSON array of the calls that this service makes to show that it can")
	if err := process.Parse(flags, "PLAIN", nil, args, env); err != nil {
		return s, err
	}
	if s.name == "" {
		return s, process.Usagef("read flags: -name is empty: want a name such as stock")
	}
	return s, nil
}

// answerBound is how long an answer may take; it is longer than a call.
const answerBound = 5 * time.Second

func run(ctx context.Context, s settings, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]string{"status": "healthy", "service": s.name})
	})
	mux.HandleFunc("GET /api/calls", func(w http.ResponseWriter, r *http.Request) { answer(w, s.calls.report(r.Context(), time.Now)) })
	probes := http.NewServeMux()
	process.Probes(probes, func() error { return nil })
	health, err := process.Listen(ctx, s.health, log)
	if err != nil {
		return fmt.Errorf("open the health port: %w", err)
	}
	listener, err := process.Listen(ctx, s.listen, log)
	if err != nil {
		return errors.Join(fmt.Errorf("open the port of the service: %w", err), health.Close())
	}
	log.InfoContext(ctx, "serving", "what", "HTTP", "name", s.name, "calls", s.calls.String(), "listen", listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return process.HTTP(health, probes, answerBound, log).Run(ctx) })
	group.Go(func() error { return process.HTTP(listener, mux, answerBound, log).Run(ctx) })
	return group.Wait()
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // an error here is a client that has gone away
}
