// Command serving-cert keeps a web server in a serving certificate: it issues
// one with a certificate authority that it reads from files, writes it and its
// key to a file that the server reads, and does so again when a third of its
// life remains.
//
// It refuses to know what is served, and SPIFFE: this is the certificate that an
// https_web bundle endpoint shows to those who know the endpoint by its name.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"golang.org/x/sync/errgroup"
)

func main() { process.Main(process.With(parse, run)) }

// shortest is the least life that a certificate may have: a server must find the
// file changed while a third of that remains.
const shortest = 10 * time.Second

type settings struct {
	caCertificate, caKey string
	out                  string
	names                names
	ttl                  time.Duration
	health               string
}

type names struct {
	dns []string
	ips []net.IP
}

// String lists the names, separated by commas.
func (n *names) String() string {
	all := append([]string(nil), n.dns...)
	for _, ip := range n.ips {
		all = append(all, ip.String())
	}
	return strings.Join(all, ",")
}

// Set reads what String writes.
func (n *names) Set(text string) error {
	*n = names{}
	for name := range strings.SplitSeq(text, ",") {
		switch ip := net.ParseIP(name); {
		case ip != nil:
			n.ips = append(n.ips, ip)
		case name == "" || strings.ContainsAny(name, " :/"):
			return fmt.Errorf("%q is no DNS name and no address", name)
		default:
			n.dns = append(n.dns, name)
		}
	}
	return nil
}

func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	flags := process.Flags("serving-cert", stderr)
	flags.StringVar(&s.caCertificate, "ca-certificate", "/run/secrets/web-ca/tls.crt", "file with the authority's certificate, in PEM")
	flags.StringVar(&s.caKey, "ca-key", "/run/secrets/web-ca/tls.key", "file with the authority's key, as PKCS #8 in PEM")
	flags.StringVar(&s.out, "out", "/run/serving-cert/serving.pem", "file to write, certificate and key in one; its folder is nobody else's")
	flags.Var(&s.names, "names", "DNS names and addresses of the server, separated by commas; required")
	flags.DurationVar(&s.ttl, "ttl", 24*time.Hour, "life of a certificate, at least "+shortest.String())
	flags.StringVar(&s.health, "health-listen", ":8084", "address of /healthz and /readyz, in plain HTTP")
	err := process.Parse(flags, "SERVING_CERT", nil, args, env)
	switch {
	case err != nil:
		return s, err
	case s.names.String() == "":
		return s, process.Usagef("read flags: -names (or SERVING_CERT_NAMES) is empty: say what the server is called, such as 10.192.1.1,bundle.cluster1.com")
	case s.ttl < shortest:
		return s, process.Usagef("read flags: -ttl is %s: want at least %s", s.ttl, shortest)
	}
	return s, nil
}

func run(ctx context.Context, s settings, log *slog.Logger) error {
	health, err := process.Listen(ctx, s.health, log)
	if err != nil {
		return fmt.Errorf("open the health port: %w", err)
	}
	keeper := &keeper{settings: s, log: log}
	probes := http.NewServeMux()
	process.Probes(probes, keeper.ready)
	log.InfoContext(ctx, "starting", "names", s.names.String(), "ttl", s.ttl, "out", s.out)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return keeper.run(ctx) })
	group.Go(func() error { return process.HTTP(health, probes, 5*time.Second, log).Run(ctx) })
	return group.Wait()
}
