// Command synthetic is the synthetic trust domain (lab/synthetic) as a program in
// the lab's network: its bundle endpoint, and its control, for whoever has the
// token. It also makes the calls that it is ordered to make, with a right or a
// wrong X509-SVID of its own domain.
//
// It refuses to know its callers and whom it calls, and keeps nothing: its keys
// end with it. The control is in plain HTTP, for a network that ends at this
// machine and for its loopback.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/streams"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
)

func main() { process.Main(process.With(parse, run)) }

// tokenVariable is the environment variable that the token is read from. It is no
// flag: those of a process are there for all to see.
const tokenVariable = "SYNTHETIC_TOKEN"

type settings struct {
	trustDomain     spiffeid.TrustDomain
	bundle, control string
	token           string
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	s := settings{token: env(tokenVariable)}
	flags := process.Flags("synthetic", stderr)
	name := flags.String("trust-domain", "", "name of the trust domain, such as synthetic.test; required")
	flags.StringVar(&s.bundle, "bundle-listen", ":8443", "address of the bundle endpoint, in HTTPS")
	flags.StringVar(&s.control, "control-listen", ":8080", "address of the control, in plain HTTP, for whoever has the token in "+tokenVariable)
	if err := process.Parse(flags, "SYNTHETIC", nil, args, env); err != nil {
		return s, err
	}
	if s.token == "" {
		return s, process.Usagef("read environment: %s is empty: nobody could control the trust domain", tokenVariable)
	}
	var err error
	if s.trustDomain, err = spiffeid.TrustDomainFromString(*name); err != nil {
		return s, process.Usagef("read flags: -trust-domain is %q: want a name such as synthetic.test: %w", *name, err)
	}
	return s, nil
}

func run(ctx context.Context, s settings, log *slog.Logger) error {
	domain, err := synthetic.New(s.trustDomain, time.Now)
	if err != nil {
		return err
	}
	bundle, err := process.Listen(ctx, s.bundle, log)
	if err != nil {
		return fmt.Errorf("open the port of the bundle endpoint: %w", err)
	}
	control, err := process.Listen(ctx, s.control, log)
	if err != nil {
		return fmt.Errorf("open the port of the control: %w", err)
	}
	own := &presented{domain: domain, bundles: x509bundle.NewSet()}
	set := streams.NewSet(own, s.trustDomain.Name, time.Now, log)
	handler := http.NewServeMux()
	handler.Handle("/", domain.Control(s.token))
	handler.Handle("/streams/", synthetic.Guard(s.token, set.Handler()))
	handler.Handle("PUT /identity", synthetic.Guard(s.token, synthetic.Command(own.present)))
	handler.Handle("PUT /bundles", synthetic.Guard(s.token, synthetic.Command(own.trust)))
	log.InfoContext(ctx, "starting", "trust_domain", s.trustDomain, "bundle_endpoint", bundle.Addr(), "control", control.Addr())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return domain.Serve(ctx, bundle) })
	group.Go(func() error { return process.HTTP(control, handler, time.Minute, log).Run(ctx) })
	group.Go(func() error { return set.Run(ctx) })
	return group.Wait()
}
