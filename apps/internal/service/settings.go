package service

import (
	"flag"
	"log/slog"
	"maps"
	"net"
	"net/http"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

// WorkloadAPI is what each program with an identity is told.
type WorkloadAPI struct{ Socket string }

// Flags defines the flag that fills w, and returns its variable, which has a name of
// its own.
func (w *WorkloadAPI) Flags(flags *flag.FlagSet) map[string]string {
	flags.StringVar(&w.Socket, "socket", identity.DefaultSocket, "address of the Workload API")
	return map[string]string{"socket": identity.SocketVariable}
}

func (w WorkloadAPI) source(log *slog.Logger) (*identity.Source, error) { return Source(w.Socket, log) }

// Settings are what each server over HTTPS is told.
type Settings struct {
	WorkloadAPI

	Listen, Health string
	Rules          Rules
}

// Flags defines the flags that fill s, and returns the variables that have a
// name of their own.
func (s *Settings) Flags(flags *flag.FlagSet) map[string]string {
	flags.StringVar(&s.Listen, "listen", ":8443", "address that answers over HTTPS with mutual TLS")
	flags.StringVar(&s.Health, "health-listen", ":8081", "address of /healthz and /readyz, in plain HTTP")
	named := s.Rules.Flags(flags)
	maps.Copy(named, s.WorkloadAPI.Flags(flags))
	return named
}

// Port returns one that lets requests through to handler as policy says.
func (s Settings) Port(holder identity.Holder, policy Policy, handler http.Handler, log *slog.Logger) Port {
	return s.port(holder, Guard(holder, policy, log, http.MaxBytesHandler(handler, bodyLimit)), log)
}

// TokenPort is Port for callers who may present JWT-SVIDs, too.
func (s Settings) TokenPort(holder identity.Holder, tokens identity.Tokens, policy Policy, handler http.Handler, log *slog.Logger) Port {
	return s.port(holder, GuardTokens(holder, tokens, policy, log, http.MaxBytesHandler(handler, bodyLimit)), log)
}

func (s Settings) port(holder identity.Holder, guarded http.Handler, log *slog.Logger) Port {
	return Port{Name: "HTTPS", Address: s.Listen, Serve: func(listener net.Listener) process.Server {
		return process.HTTPS(listener, identity.HTTPSConfig(holder), guarded, 2*identity.CallBound, log)
	}}
}
