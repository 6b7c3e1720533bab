package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
)

func TestParse(t *testing.T) {
	none := func(string) string { return "" }
	id := "-quotes-id=spiffe://cluster1.com/server"
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no server": {
			[]string{"-quotes-address=quotes:8090"},
			"read flags: -quotes-id (or BROKER_QUOTES_ID) is empty: name the SPIFFE ID of the quotes server, such as spiffe://cluster1.com/server",
		},
		"a whole trust domain as server": {
			[]string{"-quotes-id=spiffe://cluster1.com"},
			`read flags: invalid value "spiffe://cluster1.com" for flag -quotes-id: want a SPIFFE ID with a path, such as spiffe://cluster1.com/client`,
		},
		"no address": {
			[]string{id},
			`read flags: -quotes-address (or BROKER_QUOTES_ADDRESS) is "": want host:port, such as stock-quotes-service:8090`,
		},
		"an address without a port": {
			[]string{id, "-quotes-address=quotes"},
			`read flags: -quotes-address (or BROKER_QUOTES_ADDRESS) is "quotes": want host:port, such as stock-quotes-service:8090`,
		},
		"handshakes backwards": {
			[]string{id, "-quotes-address=quotes:8090", "-reauthenticate=-1s"},
			"read flags: -reauthenticate is -1s: want 0 or more",
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
	if _, err := parse([]string{"-h"}, none, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: error is %v", err)
	}
}

// TestRun starts the program before its agent; identity and quotes come by
// themselves, and it stops when told.
func TestRun(t *testing.T) {
	p := newPair(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	env := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket,
		"BROKER_LISTEN":          "127.0.0.1:0",
		"BROKER_QUOTES_ADDRESS":  p.settings.address,
		"BROKER_QUOTES_ID":       p.settings.server.String(),
	}
	var log apptest.Log
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- service.With(parse, run)(ctx, nil, func(name string) string { return env[name] }, &log)
	}()
	_, rest, _ := strings.Cut(log.Await(t, "serving the page"), "listen=")
	address, _, _ := strings.Cut(rest, " ")

	if v := fetch(t, address); v.Error == nil || v.Error.Class != diagnosis.NoIdentity {
		t.Errorf("before there is an agent: %+v", v)
	}
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	svid, err := p.client.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	api.Set(t, svid, p.broker.Bundle(), p.market.Bundle())
	apptest.Await(t, "quotes", func() bool {
		v := fetch(t, address)
		return v.Error == nil && len(v.Quotes) == 1
	})
	stop()
	if err := apptest.Ended(t, ended); err != nil {
		t.Errorf("run: %v", err)
	}
}

func fetch(t *testing.T, address string) view {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/api/quotes", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	var v view
	if err := errors.Join(json.NewDecoder(response.Body).Decode(&v), response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return v
}
