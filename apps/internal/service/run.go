// Package service is what the demo's servers share once TLS has told who the
// caller is: how they start, who may call them, and how they answer, so that a
// refusal names its rule.
//
// It refuses to know what they are asked for.
package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"golang.org/x/sync/errgroup"
)

// Source returns the identity that the Workload API at socket hands out; a
// wrong address is a usage error.
func Source(socket string, log *slog.Logger) (*identity.Source, error) {
	source, err := identity.NewSource(socket, log)
	if err != nil {
		return nil, process.Usagef("read flags: -socket (or %s): %w", identity.SocketVariable, err)
	}
	return source, nil
}

// With is process.With for a program with an identity.
func With[S interface {
	source(*slog.Logger) (*identity.Source, error)
}](parse func(args []string, env func(string) string, stderr io.Writer) (S, error), run func(context.Context, S, *identity.Source, *slog.Logger) error) process.Run {
	return process.With(parse, func(ctx context.Context, s S, log *slog.Logger) error {
		source, err := s.source(log)
		if err != nil {
			return err
		}
		return run(ctx, s, source, log)
	})
}

// Serve runs a server together with the source of its identity, until ctx ends or one of
// them fails.
func Serve(ctx context.Context, source *identity.Source, server process.Server) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.Run(ctx) })
	group.Go(func() error { return server.Run(ctx) })
	return group.Wait()
}

// Program is a server with an identity.
type Program struct {
	Source *identity.Source
	// Health is the address of /healthz and /readyz, in plain HTTP.
	Health string
	// Ready returns nil once all is there that the program needs besides its
	// identity; nil if there is no such thing.
	Ready func() error
	Ports []Port
	// Tasks run as long as the ports, until their context ends.
	Tasks []func(context.Context) error
	Log   *slog.Logger
}

// Port is one that the program serves.
type Port struct {
	Name, Address string
	Serve         func(net.Listener) process.Server
}

// Run runs p until ctx ends or a part of it fails. It opens the ports once
// there is an identity: open before, they would only answer with failed
// handshakes.
func (p Program) Run(ctx context.Context) error {
	health, err := process.Listen(ctx, p.Health, p.Log)
	if err != nil {
		return fmt.Errorf("open the health port: %w", err)
	}
	probes := http.NewServeMux()
	process.Probes(probes, func() error {
		// An expired SVID is ready too: a client that sees it can say what is
		// wrong, where one that finds nobody cannot.
		if _, err := p.Source.GetX509SVID(); err != nil || p.Ready == nil {
			return err
		}
		return p.Ready()
	})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Source.Run(ctx) })
	group.Go(func() error { return process.HTTP(health, probes, 5*time.Second, p.Log).Run(ctx) })
	for _, task := range p.Tasks {
		group.Go(func() error { return task(ctx) })
	}
	for _, port := range p.Ports {
		group.Go(func() error {
			select {
			case <-p.Source.Ready():
			case <-ctx.Done():
				return nil
			}
			listener, err := process.Listen(ctx, port.Address, p.Log)
			if err != nil {
				return fmt.Errorf("open the port of %s: %w", port.Name, err)
			}
			p.Log.InfoContext(ctx, "serving", "what", port.Name, "listen", listener.Addr().String())
			return port.Serve(listener).Run(ctx)
		})
	}
	return group.Wait()
}
