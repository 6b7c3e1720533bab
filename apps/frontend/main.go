// Command frontend shows in a browser who calls whom in a federation: it makes
// calls to services of other trust domains while somebody watches, asks those
// that report their own, and shows identities, latencies and refusals.
//
// It refuses to know how the trust domains are federated: that a call comes
// through, or why not, is all it sees.
package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/page"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
	"github.com/fedlab-dev/fedlab/lab/web"
)

//go:embed page
var files embed.FS

func main() { process.Main(svid.Or(service.With(parse, run))) }

type settings struct {
	service.WorkloadAPI

	listen string
	calls  calls.Targets
	names  web.Names
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("frontend", stderr)
	flags.StringVar(&s.listen, "listen", ":8080", "address of the page, in plain HTTP")
	flags.Var(&s.calls, "calls", "JSON array of the calls to make; required")
	flags.Var(&s.names, "names", "host names by which browsers reach the page, separated by commas; it always answers to localhost and to addresses")
	if err := process.Parse(flags, "FRONTEND", s.Flags(flags), args, env); err != nil {
		return s, err
	}
	if len(s.calls) == 0 {
		return s, process.Usagef("read flags: -calls (or FRONTEND_CALLS) is empty: name whom to call, such as " +
			`[{"name": "orders", "url": "https://data.gcp.company.com:8443/api/process-data", "server": "spiffe://gcp.company.com/ns/demo/service/data-processing/version/v2"}]`)
	}
	return s, nil
}

func run(ctx context.Context, s settings, source *identity.Source, log *slog.Logger) error {
	listener, err := process.Listen(ctx, s.listen, log)
	if err != nil {
		return fmt.Errorf("open -listen: %w", err)
	}
	log.InfoContext(ctx, "serving the page", "listen", listener.Addr().String(), "calls", s.calls.String(), "workload_api", s.Socket)
	handler := newHandler(s.calls, s.names, source, time.Now, log)
	return service.Serve(ctx, source, process.HTTP(listener, handler, 2*identity.CallBound, log))
}

func newHandler(targets []calls.Target, names web.Names, own calls.Caller, now func() time.Time, log *slog.Logger) http.Handler {
	mux := page.Mux(files, "federation")
	process.Probes(mux, func() error { return identity.Check(own, now()) })
	mux.Handle("GET /api/calls", calls.NewWatch(targets, own, now, log))
	return web.Secure(mux, names)
}
