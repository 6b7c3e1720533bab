// Command tokens verifies a JWT-SVID as a program does that knows OIDC and nothing of
// SPIFFE: by the documents of the issuer and by a CA. It prints whose token it is.
//
// It refuses to know what a lab is: the guide says how to get to the issuer.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/coreos/go-oidc/v3/oidc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tokens:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tokens", flag.ContinueOnError)
	issuer := flags.String("issuer", "", "the issuer whose tokens are accepted, as its URL")
	audience := flags.String("audience", "", "whom a token must be for")
	ca := flags.String("ca", "", "file with the CA of the issuer's web server, in PEM")
	connect := flags.String("connect", "", "host:port to connect to, in the place of the issuer's own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || *issuer == "" || *audience == "" || *ca == "" {
		return errors.New("want -issuer, -audience, -ca and one token")
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s has no certificate in PEM", *ca)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if *connect != "" {
				address = *connect
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	ctx = oidc.ClientContext(ctx, client)
	provider, err := oidc.NewProvider(ctx, *issuer)
	if err != nil {
		return err
	}
	token, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: *audience}).Verify(ctx, flags.Arg(0))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s, issued by %s for %q\n", token.Subject, token.Issuer, token.Audience)
	return err
}
