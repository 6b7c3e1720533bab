// Command broker-webapp shows stock quotes in a browser. It fetches them over
// gRPC with mutual TLS from a server that must prove one SPIFFE ID, and shows
// who answered and why that is believed. It refuses to know any certificate
// file: its own identity comes from the Workload API.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/feed"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
	"github.com/fedlab-dev/fedlab/lab/web"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func main() { process.Main(svid.Or(service.With(parse, run))) }

type settings struct {
	service.WorkloadAPI

	listen         string
	address        string
	server         spiffeid.ID
	reauthenticate time.Duration
	names          web.Names
}

// words is how the page speaks of the call for quotes.
func (s settings) words() diagnosis.Call {
	return diagnosis.Call{Caller: "this broker", Server: "the quotes server", ID: s.server, Address: s.address, Bound: identity.CallBound}
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("broker-webapp", stderr)
	flags.StringVar(&s.listen, "listen", ":8080", "address of the page, in plain HTTP")
	flags.StringVar(&s.address, "quotes-address", "", "host:port of the quotes server; required")
	flags.Func("quotes-id", "SPIFFE ID that the quotes server must prove; required", func(text string) (err error) {
		s.server, err = identity.ParseID(text)
		return err
	})
	flags.DurationVar(&s.reauthenticate, "reauthenticate", 5*time.Second, "how long one handshake stands for; 0 makes one for each call")
	flags.Var(&s.names, "names", "host names by which browsers reach the page, separated by commas; it always answers to localhost and to addresses")
	if err := process.Parse(flags, "BROKER", s.Flags(flags), args, env); err != nil {
		return s, err
	}
	if s.server.IsZero() {
		return s, process.Usagef("read flags: -quotes-id (or BROKER_QUOTES_ID) is empty: " +
			"name the SPIFFE ID of the quotes server, such as spiffe://cluster1.com/server")
	}
	if _, port, err := net.SplitHostPort(s.address); err != nil || port == "" {
		return s, process.Usagef("read flags: -quotes-address (or BROKER_QUOTES_ADDRESS) is %q: "+
			"want host:port, such as stock-quotes-service:8090", s.address)
	}
	if s.reauthenticate < 0 {
		return s, process.Usagef("read flags: -reauthenticate is %s: want 0 or more", s.reauthenticate)
	}
	return s, nil
}

func run(ctx context.Context, s settings, source *identity.Source, log *slog.Logger) error {
	listener, err := process.Listen(ctx, s.listen, log)
	if err != nil {
		return fmt.Errorf("open -listen: %w", err)
	}
	log.InfoContext(ctx, "serving the page", "listen", listener.Addr().String(),
		"quotes_server", s.address, "quotes_id", s.server.String(), "workload_api", s.Socket)

	caller := &caller{settings: s, holder: source, now: time.Now, log: log}
	handler := newHandler(feed.New("quotes", caller.call, time.Now, log), source, s, time.Now)
	return service.Serve(ctx, source, process.HTTP(listener, handler, 2*identity.CallBound, log))
}
