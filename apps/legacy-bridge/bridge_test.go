package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var bridgeID = spiffeid.RequireFromString("spiffe://onprem.company.com/bridge")

// world is a bridge in front of a real PostgreSQL.
type world struct {
	t             *testing.T
	postgres      *apptest.Postgres
	onprem, gcp   *apptest.CA
	api           *apptest.WorkloadAPI
	log           apptest.Log
	https, tunnel string      // where the bridge listens
	expected      spiffeid.ID // whom tunnels expect
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, postgres: apptest.NewPostgres(t), onprem: apptest.NewCA(t, "onprem.company.com"), gcp: apptest.NewCA(t, "gcp.company.com"), expected: bridgeID}
	w.postgres.Start(t, &apptest.Log{})
	socket := filepath.Join(t.TempDir(), "agent.sock")
	w.api, _ = apptest.ServeWorkloadAPI(t, socket)
	w.trust(w.gcp)
	env := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket, "BRIDGE_LISTEN": "127.0.0.1:0", "BRIDGE_HEALTH_LISTEN": "127.0.0.1:0",
		"BRIDGE_DATABASE_LISTEN": "127.0.0.1:0", "BRIDGE_VERIFY_EVERY": "20ms",
		"ALLOWED_CLIENT_TRUST_DOMAINS": "gcp.company.com", "ALLOWED_CLIENT_IDS": "spiffe://gcp.company.com/data",
		"ALLOWED_DATABASE_CLIENT_IDS": "spiffe://gcp.company.com/analyst",
		"BRIDGE_DATABASE_ADDRESS":     w.postgres.Address, "BRIDGE_DATABASE_NAME": apptest.PostgresName, "BRIDGE_DATABASE_USER": apptest.PostgresUser,
		"BRIDGE_DATABASE_PASSWORD_FILE": w.postgres.PasswordFile,
	}
	apptest.Run(t, func(ctx context.Context) error {
		return service.With(parse, run)(ctx, nil, func(name string) string { return env[name] }, &w.log)
	})
	_, w.https, _ = strings.Cut(w.log.Await(t, "what=HTTPS"), "listen=")
	_, w.tunnel, _ = strings.Cut(w.log.Await(t, `what="the database"`), "listen=")
	w.log.Await(t, "database ready")
	return w
}

// trust gives the bridge the bundles of its own domain and of others.
func (w *world) trust(others ...*apptest.CA) {
	w.t.Helper()
	var bundles []*x509bundle.Bundle
	for _, other := range others {
		bundles = append(bundles, other.Bundle())
	}
	w.api.Set(w.t, w.onprem.Issue(w.t, "/bridge"), w.onprem.Bundle(), bundles...)
}

// psql runs a statement with the real psql, through a tunnel with the identity
// of path in ca.
func (w *world) psql(ca *apptest.CA, path, statement string) (output string, log *apptest.Log, err error) {
	w.t.Helper()
	host, port, log := w.open(ca, path)
	command := exec.CommandContext(w.t.Context(), filepath.Join(w.postgres.Bin, "psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align",
		"--host="+host, "--port="+port, "--username="+apptest.PostgresUser, "--dbname="+apptest.PostgresName, "--command="+statement)
	command.Env = []string{"PGPASSWORD=" + apptest.PostgresPassword, "PGCONNECT_TIMEOUT=10"}
	text, err := command.CombinedOutput()
	return strings.TrimSpace(string(text)), log, err
}

// open opens a tunnel for clients next to it.
func (w *world) open(ca *apptest.CA, path string) (host, port string, log *apptest.Log) {
	w.t.Helper()
	socket := filepath.Join(w.t.TempDir(), "agent.sock")
	api, _ := apptest.ServeWorkloadAPI(w.t, socket)
	api.Set(w.t, ca.Issue(w.t, path), ca.Bundle(), w.onprem.Bundle())
	log = &apptest.Log{}
	args := []string{"-listen=127.0.0.1:0", "-to=" + w.tunnel, "-server-id=" + w.expected.String(), "-socket=unix://" + socket}
	apptest.Run(w.t, func(ctx context.Context) error {
		return service.With(parseTunnel, runTunnel)(ctx, args, func(string) string { return "" }, log)
	})
	_, rest, _ := strings.Cut(log.Await(w.t, "tunnel open"), "listen=")
	address, _, _ := strings.Cut(rest, " ")
	log.Await(w.t, "identity received")
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		w.t.Fatal(err)
	}
	return host, port, log
}

func TestPsqlThroughTheBridge(t *testing.T) {
	w := newWorld(t)
	output, _, err := w.psql(w.gcp, "/analyst", "select count(*), sum(amount_cents) from ledger")
	if err != nil || !strings.HasPrefix(output, "800|") {
		t.Errorf("an allowed identity gets %q, %v", output, err)
	}
	w.log.Await(t, `msg="client authenticated" spiffe_id=spiffe://gcp.company.com/analyst`)
	w.log.Await(t, `msg="database session ended"`)

	for name, test := range map[string]struct {
		ca          *apptest.CA
		path        string
		log, bridge string
	}{
		"an ID that may ask for data, but not reach the database": {w.gcp, "/data", "remote error: tls: bad certificate", "spiffe://gcp.company.com/data is not in ALLOWED_DATABASE_CLIENT_IDS"},
		"the right name, signed by nobody we know":                {apptest.NewCA(t, "gcp.company.com"), "/analyst", "remote error: tls: bad certificate", "certificate signed by unknown authority"},
		"a domain that is not federated":                          {apptest.NewCA(t, "aws.company.com"), "/analyst", "remote error: tls: bad certificate", "no bundle held for trust domain aws.company.com"},
	} {
		t.Run(name, func(t *testing.T) {
			output, log, err := w.psql(test.ca, test.path, "select 42")
			if err == nil || !strings.Contains(output, "server closed the connection unexpectedly") {
				t.Errorf("psql says %q, %v", output, err)
			}
			log.Await(t, test.log)
			w.log.Await(t, test.bridge)
		})
	}
}

// TestASessionEndsWithWhatItsHandshakeProved keeps a session open while the
// bundle that its client was verified with goes away.
func TestASessionEndsWithWhatItsHandshakeProved(t *testing.T) {
	w := newWorld(t)
	ended := make(chan error, 1)
	go func() {
		_, _, err := w.psql(w.gcp, "/analyst", "select pg_sleep(600)")
		ended <- err
	}()
	w.log.Await(t, `msg="client authenticated"`)
	w.trust()
	if err := apptest.Ended(t, ended); err == nil {
		t.Error("psql ended without an error")
	}
	w.log.Await(t, "client no longer verifies: verify client: ")
}

// TestAPortWithoutTLSHearsNothing: the database must not answer anybody who
// has not proved who it is.
func TestAPortWithoutTLSHearsNothing(t *testing.T) {
	w := newWorld(t)
	host, port, err := net.SplitHostPort(w.tunnel)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), filepath.Join(w.postgres.Bin, "psql"), "--no-password", "--host="+host, "--port="+port,
		"--username="+apptest.PostgresUser, "--dbname="+apptest.PostgresName, "--command=select 42")
	command.Env = []string{"PGPASSWORD=" + apptest.PostgresPassword, "PGCONNECT_TIMEOUT=10"}
	if output, err := command.Output(); err == nil || len(output) > 0 {
		t.Errorf("psql without a tunnel gets %s, %v", output, err)
	}
	w.log.Await(t, "first record does not look like a TLS handshake")
}

func TestLegacyData(t *testing.T) {
	w := newWorld(t)
	client := apptest.NewHolder(w.gcp.Issue(t, "/data"), w.onprem.Bundle())
	status, body, _, err := apptest.Get(t, client, bridgeID, "https://"+w.https+"/api/legacy-data")
	if err != nil || status != http.StatusOK {
		t.Fatalf("answer is %d %s, %v", status, body, err)
	}
	var got legacy
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]account{}
	for _, row := range invent() {
		name, booked := row[1].(string), row[2].(time.Time)
		a := want[name]
		want[name] = account{Account: name, Entries: a.Entries + 1, BalanceCents: a.BalanceCents + row[4].(int64), LastBooked: booked}
	}
	if got.Type != "legacy" || got.Format != "legacy-v1" || got.Source != "onprem.company.com" || got.Client.String() != "spiffe://gcp.company.com/data" || got.Records != entries {
		t.Errorf("answer is %+v", got)
	}
	found := map[string]account{}
	for _, a := range got.Data {
		a.LastBooked = a.LastBooked.UTC()
		found[a.Account] = a
	}
	if !reflect.DeepEqual(found, want) {
		t.Errorf("accounts are\n%+v\nwant\n%+v", found, want)
	}

	analyst := apptest.NewHolder(w.gcp.Issue(t, "/analyst"), w.onprem.Bundle())
	status, body, _, err = apptest.Get(t, analyst, bridgeID, "https://"+w.https+"/api/legacy-data")
	if err != nil || status != http.StatusForbidden || !strings.Contains(body, "spiffe://gcp.company.com/analyst is not in ALLOWED_CLIENT_IDS") {
		t.Errorf("who may reach the database only is answered %d %s, %v", status, body, err)
	}
	if n := w.log.Count(apptest.PostgresPassword); n != 0 {
		t.Errorf("the password is in %d lines of the log", n)
	}
}

func TestATunnelSaysWhyItDoesNotConnect(t *testing.T) {
	w := newWorld(t)
	w.expected = spiffeid.RequireFromString("spiffe://onprem.company.com/other")
	_, log, err := w.psql(w.gcp, "/analyst", "select 42")
	if err == nil {
		t.Error("psql was let through to somebody else")
	}
	log.Await(t, "peer is spiffe://onprem.company.com/bridge, want spiffe://onprem.company.com/other")
}

func TestParse(t *testing.T) {
	none := func(string) string { return "" }
	allowed := []string{"-allow-trust-domains=gcp.test", "-allow-ids=spiffe://gcp.test/x"}
	bridge := func(args []string) error { _, err := parse(args, none, io.Discard); return err }
	tunnel := func(args []string) error { _, err := parseTunnel(args, none, io.Discard); return err }
	for name, test := range map[string]struct {
		parse func([]string) error
		args  []string
		want  string
	}{
		"no database":    {bridge, allowed, `read flags: -database-address is "": want host:port, such as postgres:5432`},
		"never verified": {bridge, append(allowed, "-verify-every=0s"), "read flags: -verify-every is 0s: want more than 0"},
		"a tunnel to nobody": {tunnel, nil, "read flags: -server-id (or TUNNEL_SERVER_ID) is empty: " +
			"name the SPIFFE ID of the bridge, such as spiffe://onprem.company.com/datacenter/primary/system/mainframe-bridge"},
		"a tunnel to nowhere": {tunnel, []string{"-server-id=spiffe://a.test/b"}, `read flags: -to (or TUNNEL_TO) is "": want host:port, such as legacy-bridge:5432`},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.parse(test.args)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}
