package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/stock-quotes/quotes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestOnlyAllowedClientsGetQuotes(t *testing.T) {
	market, broker := apptest.NewCA(t, "cluster1.com"), apptest.NewCA(t, "cluster2.com")
	impostor := apptest.NewCA(t, "cluster2.com")
	address := start(t, market, broker, time.Minute)
	for name, test := range map[string]struct {
		client  *apptest.Holder
		code    codes.Code
		message string
	}{
		"the broker": {
			client: apptest.NewHolder(broker.Issue(t, "/client"), market.Bundle()),
			code:   codes.OK,
		},
		"a longer path": {
			client:  apptest.NewHolder(broker.Issue(t, "/client/more"), market.Bundle()),
			code:    codes.PermissionDenied,
			message: "spiffe://cluster2.com/client/more may not ask for quotes",
		},
		"the same path in another domain": {
			client:  apptest.NewHolder(market.Issue(t, "/client"), market.Bundle()),
			code:    codes.PermissionDenied,
			message: "spiffe://cluster1.com/client may not ask for quotes",
		},
		"the right name, signed by nobody we know": {
			client: apptest.NewHolder(impostor.Issue(t, "/client"), market.Bundle()),
			code:   codes.Unavailable, // the handshake fails
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, address, market, test.client)
			if status.Code(err) != test.code {
				t.Fatalf("error is %v, want code %s", err, test.code)
			}
			if test.message != "" && status.Convert(err).Message() != test.message {
				t.Errorf("message is %q, want %q", status.Convert(err).Message(), test.message)
			}
			if test.code == codes.OK && len(got.GetQuotes()) != 12 {
				t.Errorf("%d quotes, want 12", len(got.GetQuotes()))
			}
		})
	}
}

// TestAHandshakeStandsForALimitedTime keeps a connection open while the
// bundle that its client was verified with goes away.
func TestAHandshakeStandsForALimitedTime(t *testing.T) {
	market, broker := apptest.NewCA(t, "cluster1.com"), apptest.NewCA(t, "cluster2.com")
	server := apptest.NewHolder(market.Issue(t, "/server"), market.Bundle(), broker.Bundle())
	address := startWith(t, server, time.Second)
	conn := connect(t, address, market, apptest.NewHolder(broker.Issue(t, "/client"), market.Bundle()))
	client := quotes.NewStockQuotesClient(conn)
	if _, err := client.Quotes(t.Context(), &quotes.QuotesRequest{}); err != nil {
		t.Fatal(err)
	}
	server.Set(market.Issue(t, "/server"), market.Bundle())
	apptest.Await(t, "the client to be dropped", func() bool {
		_, err := client.Quotes(t.Context(), &quotes.QuotesRequest{})
		return status.Code(err) == codes.Unavailable
	})
}

func TestParse(t *testing.T) {
	none := func(string) string { return "" }
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no clients": {
			want: "read flags: -allow-clients (or QUOTES_ALLOW_CLIENTS) is empty: name the SPIFFE IDs that may ask for quotes, such as spiffe://cluster2.com/client",
		},
		"a client that is no SPIFFE ID": {
			args: []string{"-allow-clients", "spiffe://cluster2.com/client,cluster2.com/other"},
			want: `read flags: invalid value "spiffe://cluster2.com/client,cluster2.com/other" for flag -allow-clients: want a SPIFFE ID such as spiffe://cluster2.com/client: scheme is missing or invalid`,
		},
		"handshakes all the time": {
			args: []string{"-allow-clients=spiffe://cluster2.com/client", "-reauthenticate=1ms"},
			want: "read flags: -reauthenticate is 1ms: want at least 1s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args, none, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
	s, err := parse([]string{"-allow-clients=spiffe://b.test/two, spiffe://a.test/one"}, none, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.clients.String(); got != "spiffe://a.test/one,spiffe://b.test/two" {
		t.Errorf("clients are %s", got)
	}
	if _, err := parse([]string{"-h"}, none, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: error is %v", err)
	}
}

// TestRun starts the program before its agent, and stops it while a client
// is connected.
func TestRun(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	log := &apptest.Log{}
	env := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket,
		"QUOTES_ALLOW_CLIENTS":   "spiffe://cluster2.com/client",
		"QUOTES_LISTEN":          "127.0.0.1:0",
		"QUOTES_HEALTH_LISTEN":   "127.0.0.1:0",
		"QUOTES_SEED":            "42",
	}
	ended := make(chan error, 1)
	go func() {
		ended <- service.With(parse, run)(ctx, nil, func(name string) string { return env[name] }, log)
	}()

	log.Await(t, "seed=42")
	market, broker := apptest.NewCA(t, "cluster1.com"), apptest.NewCA(t, "cluster2.com")
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	api.Set(t, market.Issue(t, "/server"), market.Bundle(), broker.Bundle())
	line := log.Await(t, `what=quotes listen=`)
	_, address, _ := strings.Cut(line, "listen=")

	conn := connect(t, address, market, apptest.NewHolder(broker.Issue(t, "/client"), market.Bundle()))
	if _, err := quotes.NewStockQuotesClient(conn).Quotes(t.Context(), &quotes.QuotesRequest{}); err != nil {
		t.Fatal(err)
	}
	log.Await(t, "client authenticated")
	stop()
	if err := apptest.Ended(t, ended); err != nil {
		t.Errorf("run: %v", err)
	}
}

func start(t *testing.T, market, broker *apptest.CA, reauthenticate time.Duration) string {
	t.Helper()
	return startWith(t, apptest.NewHolder(market.Issue(t, "/server"), market.Bundle(), broker.Bundle()), reauthenticate)
}

// startWith serves quotes to spiffe://cluster2.com/client until the test ends.
func startWith(t *testing.T, holder identity.Holder, reauthenticate time.Duration) string {
	t.Helper()
	listener, err := process.Listen(t.Context(), "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var clients identity.IDs
	if err := clients.Set("spiffe://cluster2.com/client"); err != nil {
		t.Fatal(err)
	}
	s := settings{clients: clients, reauthenticate: reauthenticate}
	server := newServer(listener, holder, s, newMarket(1, time.Now), slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := apptest.Ended(t, ended); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return listener.Addr().String()
}

func connect(t *testing.T, address string, market *apptest.CA, client *apptest.Holder) *identity.Conn {
	t.Helper()
	server, err := identity.ParseID(market.TrustDomain.IDString() + "/server")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := identity.NewConn(address, server, client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func ask(t *testing.T, address string, market *apptest.CA, client *apptest.Holder) (*quotes.QuotesResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), apptest.Patience)
	defer cancel()
	return quotes.NewStockQuotesClient(connect(t, address, market, client)).Quotes(ctx, &quotes.QuotesRequest{})
}
