package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var serverID = spiffeid.RequireFromString("spiffe://gcp.company.com/data")

// world is a data service on a real PostgreSQL, and those who may call it.
type world struct {
	gcp, aws, onprem *apptest.CA
	store            store
	settings         settings
	address          string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	p := apptest.NewPostgres(t)
	p.Start(t, &apptest.Log{})
	w := &world{gcp: apptest.NewCA(t, "gcp.company.com"), aws: apptest.NewCA(t, "aws.company.com"), onprem: apptest.NewCA(t, "onprem.company.com")}
	w.settings = settings{orders: 250, seed: 7, database: database.Settings{
		Address: p.Address, Name: apptest.PostgresName, User: apptest.PostgresUser, PasswordFile: p.PasswordFile,
	}}
	err := errors.Join(w.settings.raw.Set("onprem.company.com"), w.settings.Rules.TrustDomains.Set("aws.company.com,onprem.company.com"),
		w.settings.Rules.IDs.Set("spiffe://aws.company.com/frontend,spiffe://onprem.company.com/bridge"))
	if err != nil {
		t.Fatal(err)
	}
	if w.store, err = openStore(w.settings, nil, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	apptest.Run(t, w.store.Run)
	apptest.Await(t, "the orders", func() bool { return w.store.Ready() == nil })
	holder := apptest.NewHolder(w.gcp.Issue(t, "/data"), w.gcp.Bundle(), w.aws.Bundle(), w.onprem.Bundle())
	clock := func() time.Time { return time.Unix(1_700_000_000, 0) }
	handler := service.Guard(holder, w.settings.allow, slog.New(slog.DiscardHandler), processData(w.store, w.settings, holder, clock))
	w.address = "https://" + apptest.ServeHTTPS(t, holder, handler) + "/api/process-data"
	return w
}

// get asks for data as path of ca, and reads the answer into v.
func (w *world) get(t *testing.T, ca *apptest.CA, path, query string, v any) (status int, body string) {
	t.Helper()
	client := apptest.NewHolder(ca.Issue(t, path), w.gcp.Bundle())
	status, body, _, err := apptest.Get(t, client, serverID, w.address+query)
	if err == nil && v != nil {
		err = json.Unmarshal([]byte(body), v)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	return status, strings.TrimSpace(body)
}

// answer is processed with data of a known type.
type answer[T any] struct {
	Type      string
	Source    string
	Client    string
	Timestamp int64
	Records   int
	Data      []T
	Next      int64
}

func TestAggregatesAreComputedOfTheOrders(t *testing.T) {
	w := newWorld(t)
	var got answer[aggregate]
	if status, body := w.get(t, w.aws, "/frontend", "", &got); status != http.StatusOK {
		t.Fatalf("answer is %d %s", status, body)
	}
	want := answer[aggregate]{
		Type: "aggregated", Source: "gcp.company.com", Client: "spiffe://aws.company.com/frontend", Timestamp: 1_700_000_000, Records: 250,
		Data: aggregateOf(invent(250, 7)),
	}
	for i := range got.Data {
		got.Data[i].LastOrder = got.Data[i].LastOrder.UTC()
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("answer is\n%+v\nwant\n%+v", got, want)
	}
}

// aggregateOf does in Go what the store has PostgreSQL do.
func aggregateOf(orders []order) []aggregate {
	type key struct{ region, category string }
	all := map[key][]order{}
	for _, o := range orders {
		k := key{o.Region, o.Category}
		all[k] = append(all[k], o)
	}
	var result []aggregate
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b key) int {
		return cmp.Or(strings.Compare(a.region, b.region), strings.Compare(a.category, b.category))
	}) {
		a := aggregate{Region: k.region, Category: k.category, Orders: len(all[k])}
		var sum, returned float64
		for _, o := range all[k] {
			sum += float64(o.AmountCents)
			if o.Status == "returned" {
				returned++
			} else {
				a.RevenueCents += o.AmountCents
			}
			a.LastOrder = o.PlacedAt
		}
		a.AverageCents = int64(math.Round(sum / float64(a.Orders)))
		a.ReturnedShare = math.Round(returned/float64(a.Orders)*1000) / 1000
		result = append(result, a)
	}
	return result
}

func TestRawRecordsInPages(t *testing.T) {
	w := newWorld(t)
	var all []order
	for query, pages := "?limit=100", 0; query != ""; pages++ {
		if pages > 3 {
			t.Fatal("there is no last page")
		}
		var got answer[order]
		if status, body := w.get(t, w.onprem, "/bridge", query, &got); status != http.StatusOK || got.Type != "raw" || got.Records != 250 {
			t.Fatalf("answer is %d %.200s", status, body)
		}
		all = append(all, got.Data...)
		query = ""
		if got.Next != 0 {
			query = fmt.Sprintf("?type=raw&limit=100&after=%d", got.Next)
		}
	}
	for i := range all {
		all[i].PlacedAt = all[i].PlacedAt.UTC()
	}
	if !slices.Equal(all, invent(250, 7)) {
		t.Errorf("%d records in pages are not the 250 there are", len(all))
	}
}

func TestWhoGetsWhat(t *testing.T) {
	w := newWorld(t)
	const server = `,"server":"spiffe://gcp.company.com/data"}`
	for name, test := range map[string]struct {
		ca          *apptest.CA
		path, query string
		status      int
		want        string
	}{
		"aggregates, asked for by name": {w.aws, "/frontend", "?type=aggregated", 200, `{"type":"aggregated"`},
		"raw records for a domain of aggregates": {w.aws, "/frontend", "?type=raw", 403,
			`{"error":"forbidden","rule":"trust domain aws.company.com gets aggregated data, not raw, by RAW_CLIENT_TRUST_DOMAINS","caller":"spiffe://aws.company.com/frontend"` + server},
		"aggregates for a domain of raw records": {w.onprem, "/bridge", "?type=aggregated", 403,
			`{"error":"forbidden","rule":"trust domain onprem.company.com gets raw data, not aggregated, by RAW_CLIENT_TRUST_DOMAINS","caller":"spiffe://onprem.company.com/bridge"` + server},
		"somebody else of an allowed domain": {w.aws, "/other", "", 403,
			`{"error":"forbidden","rule":"spiffe://aws.company.com/other is not in ALLOWED_CLIENT_IDS","caller":"spiffe://aws.company.com/other"` + server},
		"its own domain, which is not on the list": {w.gcp, "/data", "", 403,
			`{"error":"forbidden","rule":"trust domain gcp.company.com is not in ALLOWED_CLIENT_TRUST_DOMAINS","caller":"spiffe://gcp.company.com/data"` + server},
		"a limit beyond the limit": {w.onprem, "/bridge", "?limit=1001", 400, `{"error":"bad request","reason":"limit is \"1001\": want 1 to 1000"` + server},
		"no number":                {w.onprem, "/bridge", "?after=x", 400, `{"error":"bad request","reason":"after is \"x\": want the number of a record"` + server},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := w.get(t, test.ca, test.path, test.query, nil)
			if status != test.status || !strings.HasPrefix(body, test.want) {
				t.Errorf("answer is %d %s\nwant %d %s", status, body, test.status, test.want)
			}
		})
	}
}

func TestOrdersFollowFromTheSeed(t *testing.T) {
	if !slices.Equal(invent(100, 1), invent(200, 1)[:100]) {
		t.Error("the same seed makes other orders")
	}
	if slices.Equal(invent(100, 1), invent(100, 2)) {
		t.Error("another seed makes the same orders")
	}
}

func TestParse(t *testing.T) {
	allowed := []string{"-allow-trust-domains=aws.test", "-allow-ids=spiffe://aws.test/x", "-database-address=db:5432"}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nobody may call": {nil, "read flags: -allow-trust-domains (or ALLOWED_CLIENT_TRUST_DOMAINS) and -allow-ids (or ALLOWED_CLIENT_IDS) must both be given: " +
			"name who may call, such as aws.company.com and spiffe://aws.company.com/ns/demo/service/frontend"},
		"no database":     {allowed[:2], `read flags: -database-address is "": want host:port, such as postgres:5432`},
		"too many orders": {append(allowed, "-orders=100001"), "read flags: -orders is 100001: want 1 to 100000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args, func(string) string { return "" }, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
	if _, err := parse(allowed, func(string) string { return "" }, io.Discard); err != nil {
		t.Error(err)
	}
}

// TestRun starts the program before its agent and its database, and takes the
// database away in between.
func TestRun(t *testing.T) {
	p := apptest.NewPostgres(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	env := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket, "DATA_LISTEN": "127.0.0.1:0", "DATA_HEALTH_LISTEN": "127.0.0.1:0",
		"ALLOWED_CLIENT_TRUST_DOMAINS": "aws.company.com", "ALLOWED_CLIENT_IDS": "spiffe://aws.company.com/frontend",
		"DATA_DATABASE_ADDRESS": p.Address, "DATA_DATABASE_NAME": apptest.PostgresName, "DATA_DATABASE_USER": apptest.PostgresUser,
		"DATA_DATABASE_PASSWORD_FILE": p.PasswordFile,
	}
	var log apptest.Log
	stop := apptest.Run(t, func(ctx context.Context) error {
		return service.With(parse, run)(ctx, nil, func(name string) string { return env[name] }, &log)
	})
	log.Await(t, "database not ready")
	gcp, aws := apptest.NewCA(t, "gcp.company.com"), apptest.NewCA(t, "aws.company.com")
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	api.Set(t, gcp.Issue(t, "/data"), gcp.Bundle(), aws.Bundle())
	_, address, _ := strings.Cut(log.Await(t, "what=HTTPS"), "listen=")
	client := apptest.NewHolder(aws.Issue(t, "/frontend"), gcp.Bundle())
	get := func(path string) (int, string) {
		status, body, _, err := apptest.Get(t, client, serverID, "https://"+address+path)
		if err != nil {
			t.Fatal(err)
		}
		return status, strings.TrimSpace(body)
	}
	unavailable := `{"error":"service unavailable","reason":"the database does not answer","server":"spiffe://gcp.company.com/data"}`
	if status, body := get("/api/process-data"); status != 503 || body != unavailable {
		t.Errorf("without a database: %d %s", status, body)
	}
	stopDatabase, _ := p.Start(t, &apptest.Log{})
	apptest.Await(t, "data", func() bool { status, _ := get("/api/process-data"); return status == 200 })
	if status, body := get("/api/health"); status != 200 || body != `{"service":"data-processing","status":"healthy","trust_domain":"gcp.company.com"}` {
		t.Errorf("health is %d %s", status, body)
	}
	if err := stopDatabase(); err != nil {
		t.Fatal(err)
	}
	if status, body := get("/api/health"); status != 503 || body != unavailable {
		t.Errorf("health without a database is %d %s", status, body)
	}
	p.Start(t, &apptest.Log{})
	apptest.Await(t, "data again", func() bool { status, _ := get("/api/process-data"); return status == 200 })
	stop()
	if n := log.Count(apptest.PostgresPassword); n != 0 {
		t.Errorf("the password is in %d lines of the log", n)
	}
}

// TestLegacyDatabase: the database behind a bridge is reached as the identity of the service,
// through the bridge that it wants and no other.
func TestLegacyDatabase(t *testing.T) {
	p := apptest.NewPostgres(t)
	p.Start(t, &apptest.Log{})
	gcp, onprem := apptest.NewCA(t, "gcp.company.com"), apptest.NewCA(t, "onprem.company.com")
	own := apptest.NewHolder(gcp.Issue(t, "/data"), gcp.Bundle(), onprem.Bundle())
	bridge := apptest.NewHolder(onprem.Issue(t, "/bridge"), onprem.Bundle(), gcp.Bundle())
	listener := apptest.Listen(t)
	var log apptest.Log
	lines := slog.New(slog.NewTextHandler(&log, nil))
	apptest.Run(t, process.TCP(listener, func(ctx context.Context, raw net.Conn) {
		client, _, err := identity.Accept(ctx, raw, func(id spiffeid.ID) error {
			if id.String() != "spiffe://gcp.company.com/data" {
				return errors.New("you may not")
			}
			return nil
		}, bridge, lines)
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.Address)
		if err != nil {
			return // it is starting
		}
		go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}).Run)
	behind, there, err := legacySettings{
		url: "postgres://" + apptest.PostgresUser + "@" + listener.Addr().String() + "/" + apptest.PostgresName, bridge: spiffeid.RequireFromString("spiffe://onprem.company.com/bridge"), passwordFile: p.PasswordFile,
	}.settings()
	if err != nil || !there {
		t.Fatalf("there is a database: %t, error %v", there, err)
	}
	open := func(s database.Settings, as identity.Holder) *database.Database {
		legacy, err := openLegacy(s, as, lines)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(legacy.Close)
		return legacy
	}
	legacy := open(behind, own)
	apptest.Await(t, "the database behind the bridge", func() bool { return legacy.Ping(t.Context()) == nil })
	if _, err := legacy.Exec(t.Context(), "create table ledger as select n from generate_series(1, 5) as n"); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	legacyData(legacy, own)(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/legacy-data", nil))
	if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, `"type":"ledger"`) || !strings.Contains(body, `"records":5`) {
		t.Errorf("answer is %d %s", w.Code, body)
	}

	behind.Bridge = spiffeid.RequireFromString("spiffe://onprem.company.com/other")
	if err := open(behind, own).Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "peer is spiffe://onprem.company.com/bridge, want spiffe://onprem.company.com/other") {
		t.Errorf("through another bridge: %v", err)
	}
}

func TestLegacySettings(t *testing.T) {
	bridge := spiffeid.RequireFromString("spiffe://onprem.company.com/bridge")
	for name, tt := range map[string]struct {
		s    legacySettings
		want string
	}{
		"as the article has it": {legacySettings{url: "https://database.onprem.company.com:5432", bridge: bridge}, "want postgres://user@host:port/name"},
		"no user":               {legacySettings{url: "postgres://10.1.2.3:5432/app", bridge: bridge}, "want postgres://user@host:port/name"},
		"no name":               {legacySettings{url: "postgres://app@10.1.2.3:5432/", bridge: bridge}, "want postgres://user@host:port/name"},
		"no bridge":             {legacySettings{url: "postgres://app@10.1.2.3:5432/app"}, "-legacy-database-bridge is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := tt.s.settings()
			var usage *process.UsageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
	if _, there, err := (legacySettings{}).settings(); there || err != nil {
		t.Errorf("of none: there %t, error %v", there, err)
	}
}
