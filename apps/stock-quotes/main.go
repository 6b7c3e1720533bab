// Command stock-quotes answers phony stock quotes to clients that prove an
// allowed SPIFFE ID, over gRPC with mutual TLS. Its own identity comes from
// the Workload API; it refuses to know any certificate file.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
)

func main() { process.Main(run) }

// settings are what flags and environment say.
type settings struct {
	listen         string
	health         string
	socket         string
	clients        idSet
	seed           uint64
	reauthenticate time.Duration
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("stock-quotes", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.listen, "listen", ":8090", "address that answers quotes, over mutual TLS")
	flags.StringVar(&s.health, "health-listen", ":8091", "address of /healthz and /readyz, in plain HTTP")
	flags.StringVar(&s.socket, "socket", identity.DefaultSocket, "address of the Workload API")
	flags.Var(&s.clients, "allow-clients", "SPIFFE IDs that may ask for quotes, separated by commas; required")
	flags.Uint64Var(&s.seed, "seed", 0, "seed of the prices; 0 takes a new one, which is logged")
	flags.DurationVar(&s.reauthenticate, "reauthenticate", 10*time.Second, "how long one handshake stands for, at least 1s")
	err := process.Parse(flags, "QUOTES", map[string]string{"socket": identity.SocketVariable}, args, env)
	switch {
	case err != nil:
		return s, err
	case len(s.clients) == 0:
		return s, &process.UsageError{Cause: fmt.Errorf("read flags: -allow-clients (or QUOTES_ALLOW_CLIENTS) is empty: " +
			"name the SPIFFE IDs that may ask for quotes, such as spiffe://cluster2.com/client")}
	case s.reauthenticate < time.Second:
		return s, &process.UsageError{Cause: fmt.Errorf("read flags: -reauthenticate is %s: want at least 1s", s.reauthenticate)}
	}
	return s, nil
}

func run(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
	s, err := parse(args, env, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	source, err := identity.NewSource(s.socket, log)
	if err != nil {
		return &process.UsageError{Cause: fmt.Errorf("read flags: -socket (or %s): %w", identity.SocketVariable, err)}
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	health, err := process.Listen(ctx, s.health)
	if err != nil {
		return fmt.Errorf("open -health-listen: %w", err)
	}
	probes := http.NewServeMux()
	process.Probes(probes, func() error {
		// An expired SVID is ready too: a client that sees it can say what is
		// wrong, where one that finds nobody cannot.
		_, err := source.GetX509SVID()
		return err
	})
	log.InfoContext(ctx, "starting", "listen", s.listen, "health", s.health, "seed", s.seed,
		"allowed_clients", s.clients.String(), "workload_api", s.socket)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.Run(ctx) })
	group.Go(func() error { return process.HTTP(health, probes, 5*time.Second, log).Run(ctx) })
	group.Go(func() error {
		// A port that is open before there is an identity would only answer
		// with failed handshakes.
		select {
		case <-source.Ready():
		case <-ctx.Done():
			return nil
		}
		listener, err := process.Listen(ctx, s.listen)
		if err != nil {
			return fmt.Errorf("open -listen: %w", err)
		}
		log.InfoContext(ctx, "serving quotes", "listen", listener.Addr().String())
		return newServer(listener, source, s, newMarket(s.seed, time.Now), log).Run(ctx)
	})
	return group.Wait()
}

// idSet is a flag that lists SPIFFE IDs, separated by commas.
type idSet map[spiffeid.ID]struct{}

func (s *idSet) String() string {
	names := make([]string, 0, len(*s))
	for id := range *s {
		names = append(names, id.String())
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

func (s *idSet) Set(text string) error {
	ids := idSet{}
	for name := range strings.SplitSeq(text, ",") {
		id, err := identity.ParseID(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		ids[id] = struct{}{}
	}
	*s = ids
	return nil
}
