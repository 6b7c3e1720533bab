// Command fedlab brings up, inspects and takes down local labs of federated
// SPIFFE trust domains.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/fedlab-dev/fedlab/cmd/fedlab/internal/cli"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		_, _ = fmt.Fprintln(os.Stderr, cli.Stopping)
		cancel(cli.ErrInterrupted)
		// A second signal ends the clean-up of the first one.
		signal.Stop(signals)
	}()
	err := cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	if err != nil && errors.Is(context.Cause(ctx), cli.ErrInterrupted) {
		return cli.Interrupted
	}
	return cli.ExitCode(err)
}
