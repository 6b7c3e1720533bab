package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/live"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

// betweenLooks is the pause from the end of one look to the begin of the next.
const betweenLooks = 2 * time.Second

// userInterface is what 'fedlab ui' was told.
type userInterface struct {
	port           int
	open           bool
	record, replay string
}

func (c *cmd) ui() *cobra.Command {
	var u userInterface
	cmd := &cobra.Command{
		Use:     "ui",
		GroupID: "lab",
		Short:   "Show the federation of a lab in a browser, while it changes",
		Long: `ui serves a page on 127.0.0.1 until it is interrupted, and prints its address. The
page shows who trusts whom as a table: how each held bundle compares with its source,
how old it is, and when it is fetched again. Each relationship opens the keys of the
trusted trust domain: where each authority is on its way from its own server to the
SVIDs that it signs.

--record keeps what the page is told, and --replay shows such a recording, or the
record of a scenario, without a lab.`,
		Example: `  fedlab ui --open
  fedlab ui --record rotation.jsonl
  fedlab ui --replay rotation.jsonl`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if u.record != "" && u.replay != "" {
				return usage(cmd, errors.New("--record cannot be combined with --replay: the recording is there already"))
			}
			if u.port < 0 || u.port > 65535 {
				return usage(cmd, fmt.Errorf("--port is %d, want 0 to 65535", u.port))
			}
			if u.replay != "" {
				frames, err := framesOf(u.replay)
				if err != nil {
					return err
				}
				return c.serve(cmd.Context(), u, func(ctx context.Context, p *live.Page) error {
					p.Play(ctx, frames)
					return nil
				})
			}
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				return c.showLab(cmd.Context(), d, t, u)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&u.port, "port", 8090, "port on 127.0.0.1; 0 is any free one")
	flags.BoolVar(&u.open, "open", false, "open the page in the browser, too")
	flags.StringVar(&u.record, "record", "", "write all that the page is told to a new file, a line of JSON for each look")
	flags.StringVar(&u.replay, "replay", "", "show a recording, or the record of a scenario, in the place of a lab")
	return cmd
}

// showLab shows a lab that runs. One that is not up has no page.
func (c *cmd) showLab(ctx context.Context, d *local.Driver, t topology.Topology, u userInterface) (err error) {
	record := func(live.Frame) error { return nil }
	before, err := d.Look(ctx, t, watch.Look{})
	if err != nil {
		return err
	}
	if u.record != "" {
		file, err := os.OpenFile(u.record, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		record = live.Record(file)
	}
	return c.serve(ctx, u, func(ctx context.Context, p *live.Page) error {
		frame := live.Frame{Look: before}
		for {
			if err := record(frame); err != nil {
				return err
			}
			p.Show(frame)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(betweenLooks):
			}
			look, err := d.Look(ctx, t, before)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // whoever stops the page wants to hear of no look
			}
			if frame = (live.Frame{Look: look}); err != nil {
				frame = live.Frame{Look: watch.Look{Lab: t.Name, At: time.Now()}, Problem: err.Error()}
			} else {
				before = look
			}
		}
	})
}

// serve serves a page while show shows something on it, until ctx ends: then all is well.
func (c *cmd) serve(ctx context.Context, u userInterface, show func(context.Context, *live.Page) error) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(u.port)))
	if err != nil {
		return fmt.Errorf("serve page: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	page := live.New()
	server := &http.Server{Handler: page.Handler(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	defer func() { _ = server.Close() }() // a browser that still listens does not matter
	go func() { cancel(fmt.Errorf("serve page: %w", server.Serve(listener))) }()
	url := "http://" + listener.Addr().String() + "/"
	_, _ = fmt.Fprintln(c.Out, url)
	if u.open {
		if err := c.browse(ctx, url); err != nil {
			return err
		}
	}
	if err := show(ctx, page); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, ErrInterrupted) {
		return err
	}
	return nil
}
