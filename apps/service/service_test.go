package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
)

const (
	trainer = "/service/ml-pipeline"
	edge    = "/service/edge-gateway"
)

// started runs a service of a trust domain that lets one caller in; it returns its URL.
func started(t *testing.T, ca *apptest.CA, path, name string, allowed spiffeid.ID, peer *apptest.CA, targets ...calls.Target) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	env := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket, "SERVICE_LISTEN": "127.0.0.1:0", "SERVICE_HEALTH_LISTEN": "127.0.0.1:0", "SERVICE_NAME": name,
		"ALLOWED_CLIENT_TRUST_DOMAINS": allowed.TrustDomain().Name(), "ALLOWED_CLIENT_IDS": allowed.String(),
		"SERVICE_CALLS": calls.Targets(targets).String(),
	}
	var log apptest.Log
	stop := apptest.Run(t, func(ctx context.Context) error {
		return service.With(parse, run)(ctx, nil, func(name string) string { return env[name] }, &log)
	})
	t.Cleanup(stop)
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	api.Set(t, ca.Issue(t, path), ca.Bundle(), peer.Bundle())
	_, address, _ := strings.Cut(log.Await(t, "what=HTTPS"), "listen=")
	return "https://" + address
}

// A service of gcp.company.com calls one of onprem.company.com, which lets nobody else in.
func TestAServiceCallsAnother(t *testing.T) {
	gcp, onprem := apptest.NewCA(t, "gcp.company.com"), apptest.NewCA(t, "onprem.company.com")
	id := func(domain, path string) spiffeid.ID { return spiffeid.RequireFromString("spiffe://" + domain + path) }
	watcher := id("gcp.company.com", "/watcher")
	called := started(t, onprem, edge, "edge-gateway", id("gcp.company.com", trainer), gcp)
	caller := started(t, gcp, trainer, "ml-pipeline", watcher, onprem, calls.Target{
		Name: "health of edge-gateway", URL: called + "/api/health", Server: id("onprem.company.com", edge),
	})
	get := func(from string, to spiffeid.ID, url string) (int, string) {
		t.Helper()
		status, body, _, err := apptest.Get(t, apptest.NewHolder(gcp.Issue(t, from), gcp.Bundle(), onprem.Bundle()), to, url)
		if err != nil {
			t.Fatal(err)
		}
		return status, strings.TrimSpace(body)
	}
	apptest.Await(t, "the call to be answered", func() bool {
		_, body := get("/watcher", id("gcp.company.com", trainer), caller+"/api/calls")
		var r calls.Report
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		return len(r.Calls) == 1 && r.Calls[0].State == calls.Answered && r.Calls[0].Caller == id("gcp.company.com", trainer)
	})
	if status, body := get("/watcher", id("gcp.company.com", trainer), caller+"/api/health"); status != 200 || body != `{"service":"ml-pipeline","status":"healthy","trust_domain":"gcp.company.com"}` {
		t.Errorf("answer is %d %s", status, body)
	}
	if status, body := get("/watcher", id("onprem.company.com", edge), called+"/api/health"); status != 403 || !strings.Contains(body, "spiffe://gcp.company.com/watcher is not in ALLOWED_CLIENT_IDS") {
		t.Errorf("who may not call is answered %d %s", status, body)
	}
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no name":    {[]string{"-name=", "-allow-trust-domains=aws.test", "-allow-ids=spiffe://aws.test/x"}, "read flags: -name is empty: want a name such as auth-service"},
		"nobody may": {[]string{"-name=auth-service"}, "ALLOWED_CLIENT_TRUST_DOMAINS"},
		"a call":     {[]string{"-calls=orders"}, "invalid character 'o'"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args, func(string) string { return "" }, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}
