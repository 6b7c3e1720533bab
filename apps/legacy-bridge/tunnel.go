package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

type tunnelSettings struct {
	service.WorkloadAPI

	listen, to string
	server     spiffeid.ID
}

func parseTunnel(args []string, env func(string) string, stderr io.Writer) (tunnelSettings, error) {
	var s tunnelSettings
	flags := process.Flags("legacy-bridge tunnel", stderr)
	flags.StringVar(&s.listen, "listen", "127.0.0.1:5432", "address for the clients next to this tunnel; nobody else should reach it")
	flags.StringVar(&s.to, "to", "", "host:port of the bridge's database port; required")
	flags.Func("server-id", "SPIFFE ID that the bridge must prove; required", func(text string) (err error) {
		s.server, err = identity.ParseID(text)
		return err
	})
	if err := process.Parse(flags, "TUNNEL", s.Flags(flags), args, env); err != nil {
		return s, err
	}
	if s.server.IsZero() {
		return s, process.Usagef("read flags: -server-id (or TUNNEL_SERVER_ID) is empty: " +
			"name the SPIFFE ID of the bridge, such as spiffe://onprem.company.com/datacenter/primary/system/mainframe-bridge")
	}
	if _, port, err := net.SplitHostPort(s.to); err != nil || port == "" {
		return s, process.Usagef("read flags: -to (or TUNNEL_TO) is %q: want host:port, such as legacy-bridge:5432", s.to)
	}
	return s, nil
}

// runTunnel takes what comes in on a local port to the bridge, over TLS with
// the identity of this workload.
func runTunnel(ctx context.Context, s tunnelSettings, source *identity.Source, log *slog.Logger) error {
	listener, err := process.Listen(ctx, s.listen, log)
	if err != nil {
		return fmt.Errorf("open -listen: %w", err)
	}
	log.InfoContext(ctx, "tunnel open", "listen", listener.Addr().String(), "to", s.to, "server_id", s.server.String(), "workload_api", s.Socket)
	return service.Serve(ctx, source, process.TCP(listener, func(ctx context.Context, client net.Conn) {
		if err := s.pass(ctx, client, source, log); err != nil {
			log.WarnContext(ctx, "connection fails", "error", err)
		}
	}))
}

func (s tunnelSettings) pass(ctx context.Context, client net.Conn, holder identity.Holder, log *slog.Logger) error {
	if err := identity.Check(holder, time.Now()); err != nil {
		return err
	}
	dial, cancel := context.WithTimeout(ctx, identity.ConnectBound)
	defer cancel()
	server, err := identity.Dial(dial, s.to, s.server, holder, log)
	if err != nil {
		return err
	}
	_, _, err = splice(ctx, client, server)
	return err
}
