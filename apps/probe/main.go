// Command probe calls the probes of other trust domains for as long as it is told
// to, and keeps the record; it answers those who call with who they are. It is
// how a scenario sees what a workload sees.
//
// It refuses to know what is broken meanwhile. Orders come through the loopback
// address alone, which is the way of a port forward of the Kubernetes API:
// nobody else can have it call anybody.
package main

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/streams"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
)

func main() { process.Main(svid.Or(run)) }

// trustDomainsVariable lists the trust domains whose workloads are answered.
const trustDomainsVariable = "ALLOWED_CLIENT_TRUST_DOMAINS"

type settings struct {
	service.Settings
	careless string
	anybody  string
	control  string
	allowed  identity.TrustDomains
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("probe", stderr)
	flags.StringVar(&s.Listen, "listen", ":8443", "address that answers over HTTPS with mutual TLS")
	flags.StringVar(&s.careless, "careless-resumption", "", "address that does so too, such as :8444, but resumes TLS sessions "+
		"and verifies nobody again whom it has verified once; empty serves none")
	flags.StringVar(&s.anybody, "anybody", "", "address that answers everybody with a certificate, whoever signed it, such as :8445: "+
		"a service without authentication, by which a refusal shows that it is one; empty serves none")
	flags.StringVar(&s.control, "control-listen", "127.0.0.1:8080", "loopback address that takes orders, in plain HTTP")
	flags.StringVar(&s.Health, "health-listen", ":8081", "address of /healthz and /readyz, in plain HTTP")
	flags.StringVar(&s.Socket, "socket", identity.DefaultSocket, "address of the Workload API")
	flags.Var(&s.allowed, "allow-trust-domains", "trust domains whose workloads are answered, separated by commas; required")
	named := map[string]string{"socket": identity.SocketVariable, "allow-trust-domains": trustDomainsVariable}
	if err := process.Parse(flags, "PROBE", named, args, env); err != nil {
		return s, err
	}
	if len(s.allowed) == 0 {
		return s, process.Usagef("read flags: -allow-trust-domains (or %s) must be given: name who may call, such as cluster2.com", trustDomainsVariable)
	}
	if control, err := netip.ParseAddrPort(s.control); err != nil || !control.Addr().IsLoopback() {
		return s, process.Usagef("read flags: -control-listen is %q: want a loopback address, such as 127.0.0.1:8080", s.control)
	}
	return s, nil
}

func run(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
	s, err := parse(args, env, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	source, err := service.Source(s.Socket, log)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "starting", "allowed_trust_domains", s.allowed.String(), "careless_resumption", s.careless, "anybody", s.anybody, "workload_api", s.Socket)
	set := streams.NewSet(source, func() string { return service.TrustDomainOf(source) }, time.Now, log)
	orders := newControl(source, workloadAPI{s.Socket}, set.Handler())
	// Several calls a second would fill the log; the callers have a record of
	// those that were answered.
	refusals := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ports := []service.Port{s.Port(source, s.allow, http.HandlerFunc(tellCaller), refusals)}
	for name, wrong := range map[string]struct {
		address string
		config  *tls.Config
	}{
		"HTTPS with careless resumption": {s.careless, carelessConfig(s, source)},
		"HTTPS for anybody":              {s.anybody, anybodyConfig(source)},
	} {
		if wrong.address != "" {
			ports = append(ports, wrongPort(name, wrong.address, wrong.config, log))
		}
	}
	return service.Program{
		Source: source,
		Health: s.Health,
		Ports:  ports,
		Tasks: []func(context.Context) error{
			set.Run,
			func(ctx context.Context) error { return serveControl(ctx, s.control, orders, log) },
		},
		Log: log,
	}.Run(ctx)
}
