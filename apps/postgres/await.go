package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

// lookEvery is how often a server that lets nobody in yet is asked again.
const lookEvery = 100 * time.Millisecond

// await is for programs that end when their database lets nobody in: it ends as soon
// as the server of an address takes sessions. It waits as long as it is let.
func await(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
	flags := process.Flags("postgres await", stderr)
	bin := flags.String("bin", programs, "folder of PostgreSQL's programs")
	address := flags.String("address", "", "host:port of the server to wait for")
	if err := process.Parse(flags, "POSTGRES", nil, args, env); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(*address)
	if err != nil || host == "" || port == "" {
		return process.Usagef("read flags: -address is %q: want host:port", *address)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last string
	for {
		// It needs no session, and so no role and no password; without a name for one
		// it asks the system, in which its user may have none.
		look := exec.CommandContext(ctx, filepath.Join(*bin, "pg_isready"), "-h", host, "-p", port, "-U", "nobody", "-d", "nothing")
		said, err := look.CombinedOutput()
		if err == nil {
			log.InfoContext(ctx, "the server takes sessions", "address", *address)
			return nil
		}
		if _, answered := errors.AsType[*exec.ExitError](err); !answered && ctx.Err() == nil {
			return err
		}
		if now := string(bytes.TrimSpace(said)); now != last {
			last = now
			log.InfoContext(ctx, "waiting for the server", "address", *address, "seen", now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the server at %s: %w; last seen: %s", *address, context.Cause(ctx), last)
		}
	}
}
