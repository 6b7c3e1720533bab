// Package process is what each demo program needs to be a well-behaved
// process: settings from flags and the environment, probes, and servers that
// end when they are told to. It refuses to know what is served, and to whom.
package process

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// stopBound is how long a server may finish what it is doing once it is told
// to stop. It is far below the 30 s after which Kubernetes kills.
const stopBound = 2 * time.Second

// Run is what a program does.
type Run = func(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error

// With makes a program of how it reads its settings, and of what it does with them
// and with a log on stderr.
func With[S any](parse func(args []string, env func(string) string, stderr io.Writer) (S, error), run func(context.Context, S, *slog.Logger) error) Run {
	return func(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
		s, err := parse(args, env, stderr)
		if err != nil {
			return err
		}
		return run(ctx, s, slog.New(slog.NewTextHandler(stderr, nil)))
	}
}

// Main runs a program until it ends or is told to stop (SIGINT, SIGTERM), and
// exits: 0 done, 1 failed, 2 wrong usage. Logs and errors go to stderr.
func Main(run Run) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	cancel()
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if _, wrong := errors.AsType[*UsageError](err); wrong {
		os.Exit(2)
	}
	os.Exit(1)
}

// UsageError says which setting is wrong, and what would be right.
type UsageError struct{ Cause error }

func (e *UsageError) Error() string { return e.Cause.Error() }

func (e *UsageError) Unwrap() error { return e.Cause }

// Usagef returns a *UsageError of what Errorf returns.
func Usagef(format string, args ...any) error {
	return &UsageError{Cause: fmt.Errorf(format, args...)}
}

// Flags returns a set of flags for a program, whose help goes to stderr.
func Flags(program string, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(stderr)
	return flags
}

// Parse sets flags from args and, where args do not name one, from the
// environment: a flag called allow-clients of a program whose prefix is
// QUOTES reads QUOTES_ALLOW_CLIENTS. named gives the variables that have a
// name of their own. Whatever is wrong comes back as a *UsageError.
func Parse(flags *flag.FlagSet, prefix string, named map[string]string, args []string, env func(string) string) error {
	variable := func(name string) string {
		if own, ok := named[name]; ok {
			return own
		}
		return prefix + "_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	}
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "Usage of %s (each flag also reads the variable in brackets):\n", flags.Name())
		flags.VisitAll(func(f *flag.Flag) {
			fmt.Fprintf(flags.Output(), "  -%s [%s]\n    \t%s (default %q)\n", f.Name, variable(f.Name), f.Usage, f.DefValue)
		})
	}
	help := flags.Output()
	flags.SetOutput(io.Discard) // the error is printed once, by Main
	err := flags.Parse(args)
	flags.SetOutput(help)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.Usage()
		return err
	case err != nil:
		return Usagef("read flags: %w", err)
	case flags.NArg() > 0:
		return Usagef("read flags: unexpected argument %q: every setting is a flag", flags.Arg(0))
	}

	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	flags.VisitAll(func(f *flag.Flag) {
		value := env(variable(f.Name))
		if given[f.Name] || value == "" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("read environment: invalid value %q of %s: %w", value, variable(f.Name), err))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return &UsageError{err}
	}
	return nil
}

// Probes answers /healthz as long as the process lives, and /readyz with 200
// when ready returns nil, else 503 and its reason.
func Probes(mux *http.ServeMux, ready func() error) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

// Server is something that serves until it is stopped: gracefully, which may
// take for ever, or at once.
type Server struct {
	Serve func() error // nil after a stop
	Drain func() error
	Stop  func() error
}

// Run serves until ctx ends, then lets the server finish what it is doing,
// but not for longer than a short bound.
func (s Server) Run(ctx context.Context) error {
	served, drained := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve() }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	go func() { drained <- s.Drain() }()
	select {
	case err := <-drained:
		return errors.Join(err, <-served)
	case <-time.After(stopBound):
		return errors.Join(s.Stop(), <-drained, <-served)
	}
}

// HTTP is a Server that answers on listener with handler. An answer may take
// up to bound.
func HTTP(listener net.Listener, handler http.Handler, bound time.Duration, log *slog.Logger) Server {
	server := newHTTP(handler, bound, log)
	return serveHTTP(server, listener, func() error { return server.Serve(listener) })
}

// HTTPS is HTTP over TLS.
func HTTPS(listener net.Listener, config *tls.Config, handler http.Handler, bound time.Duration, log *slog.Logger) Server {
	server := newHTTP(handler, bound, log)
	server.TLSConfig = config
	return serveHTTP(server, listener, func() error { return server.ServeTLS(listener, "", "") })
}

func newHTTP(handler http.Handler, bound time.Duration, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       bound,
		WriteTimeout:      bound,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func serveHTTP(server *http.Server, listener net.Listener, serve func() error) Server {
	return Server{
		Serve: func() error {
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
			}
			return nil
		},
		Drain: func() error { return server.Shutdown(context.Background()) },
		Stop:  server.Close,
	}
}
