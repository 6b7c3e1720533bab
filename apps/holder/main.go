// Command holder is the first process of a host that is made of containers: it owns the
// PID namespace that the others join, and ends none of them before itself. It takes care
// of processes whose parents have gone, as the first process of a PID namespace must.
//
// It refuses to know who joins.
package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

func main() { process.Main(process.With(parse, run)) }

type settings struct{}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	return settings{}, process.Parse(process.Flags("holder", stderr), "HOLDER", nil, args, env)
}

// run takes the ends of processes until it is told to stop. The kernel reports several
// that end at a time by one signal, and gives those to it whose parents have gone
// (pid_namespaces(7), wait(2)).
func run(ctx context.Context, _ settings, log *slog.Logger) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		if err := reap(ctx, log); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
		}
	}
}

// reap takes the ends of all children that have ended.
func reap(ctx context.Context, log *slog.Logger) error {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD), err == nil && pid == 0:
			return nil
		case err != nil:
			return os.NewSyscallError("wait4", err)
		default:
			log.InfoContext(ctx, "a process ended whose parent has gone", "pid", pid)
		}
	}
}
