package database_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func settings(p *apptest.Postgres) database.Settings {
	return database.Settings{Address: p.Address, Name: apptest.PostgresName, User: apptest.PostgresUser, PasswordFile: p.PasswordFile}
}

// numbers is a table of five rows.
var numbers = database.Table{
	Name: "numbers", Schema: "create table if not exists numbers (n int primary key)", Columns: []string{"n"},
	Rows: func() [][]any { return [][]any{{1}, {2}, {3}, {4}, {5}} },
}

func open(t *testing.T, p *apptest.Postgres, log *apptest.Log) *database.Database {
	t.Helper()
	db, err := database.Open(settings(p), numbers.Make, nil, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	apptest.Run(t, db.Run)
	return db
}

func ready(t *testing.T, db *database.Database) {
	t.Helper()
	apptest.Await(t, "the database to be prepared", func() bool { return db.Ready() == nil })
}

func count(t *testing.T, db *database.Database) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), "select count(*) from numbers").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReplicasPrepareADatabaseOnce starts them before the database.
func TestReplicasPrepareADatabaseOnce(t *testing.T) {
	p := apptest.NewPostgres(t)
	var log apptest.Log
	first, second := open(t, p, &log), open(t, p, &log)
	log.Await(t, "database not ready")
	if err := first.Ready(); err == nil || !strings.HasPrefix(err.Error(), "prepare database at "+p.Address+": ") {
		t.Errorf("before there is a server: %v", err)
	}
	p.Start(t, &apptest.Log{})
	ready(t, first)
	ready(t, second)
	if n := count(t, first); n != 5 {
		t.Errorf("%d rows, want 5", n)
	}
	if _, err := second.Exec(t.Context(), "delete from numbers where n > 2"); err != nil {
		t.Fatal(err)
	}
	third := open(t, p, &log)
	ready(t, third)
	if n := count(t, third); n != 2 {
		t.Errorf("%d rows, want the 2 that were left: a table that has rows is not filled", n)
	}
	if n := log.Count("database not ready"); n != 2 {
		t.Errorf("%d lines say that the database is not ready, want one of each that waited", n)
	}
	if n := log.Count(apptest.PostgresPassword); n != 0 {
		t.Errorf("the password is in %d lines of the log", n)
	}
}

// TestADatabaseComesBackWithAnotherPassword keeps the service throughout.
func TestADatabaseComesBackWithAnotherPassword(t *testing.T) {
	p := apptest.NewPostgres(t)
	stop, _ := p.Start(t, &apptest.Log{})
	var log apptest.Log
	db := open(t, p, &log)
	ready(t, db)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := db.Check(t.Context()); err == nil || err.Error() != "the database does not answer" {
		t.Errorf("without a server: %v", err)
	}
	if err := db.Ready(); err != nil {
		t.Errorf("an outage makes the service unready: %v", err)
	}
	p.SetPassword(t, "something else")
	p.Start(t, &apptest.Log{})
	apptest.Await(t, "the database to answer", func() bool { return db.Check(t.Context()) == nil })

	w := httptest.NewRecorder()
	gcp := apptest.NewCA(t, "gcp.test")
	db.Refuse(context.Background(), w, apptest.NewHolder(gcp.Issue(t, "/server")), errors.New("secret detail"))
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a failed query is answered with %d %s", w.Code, w.Body)
	}
	log.Await(t, "secret detail")
}

// TestADatabaseComesBackEmpty: its volume was lost, and the service stays.
func TestADatabaseComesBackEmpty(t *testing.T) {
	p := apptest.NewPostgres(t)
	stop, _ := p.Start(t, &apptest.Log{})
	db := open(t, p, &apptest.Log{})
	ready(t, db)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(p.Data, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in its volume, error %v", len(files), err)
	}
	for _, file := range files {
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
	}
	p.Start(t, &apptest.Log{})
	apptest.Await(t, "the database to answer", func() bool { return db.Check(t.Context()) == nil })
	if n := count(t, db); n != 5 {
		t.Errorf("%d rows, want 5", n)
	}
}

func TestAnAddressIsRequired(t *testing.T) {
	err := database.Settings{Address: "postgres"}.Complete()
	var usage *process.UsageError
	if !errors.As(err, &usage) || err.Error() != `read flags: -database-address is "postgres": want host:port, such as postgres:5432` {
		t.Errorf("error is %v", err)
	}
}

// TestTLS: a client lets in the server that proves its host by its own trust domain, a new
// certificate takes effect without the end of a connection, and nobody comes in without TLS.
func TestTLS(t *testing.T) {
	p := apptest.NewPostgres(t)
	p.NewTLS(t)
	host, _, err := net.SplitHostPort(p.Address)
	if err != nil {
		t.Fatal(err)
	}
	mine, partner := apptest.NewCA(t, "depot.test"), apptest.NewCA(t, "shop.test")
	issue := func(ca *apptest.CA, at string) *x509svid.SVID {
		return ca.IssueSpoilt(t, "/database", func(leaf *x509.Certificate) { leaf.IPAddresses = []net.IP{net.ParseIP(at)} })
	}
	first, second := issue(mine, host), issue(mine, host)
	var log apptest.Log
	p.Start(t, &log)
	log.Await(t, "waiting for a certificate")
	p.Keep(t, first)

	own := apptest.NewHolder(mine.Issue(t, "/service"), mine.Bundle(), partner.Bundle())
	s := settings(p)
	s.TLS = true
	db, err := database.Open(s, numbers.Make, own, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	apptest.Run(t, db.Run)
	ready(t, db)
	held, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	shown := func(c *pgx.Conn) string {
		secured, ok := c.PgConn().Conn().(*tls.Conn)
		if !ok {
			t.Fatal("the connection has no TLS")
		}
		return secured.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if got, want := shown(held.Conn()), first.Certificates[0].SerialNumber.String(); got != want {
		t.Errorf("the server shows certificate %s, want %s", got, want)
	}

	p.Keep(t, second)
	p.Renewed(t)
	apptest.Await(t, "the new certificate", func() bool {
		db.Reset() // closes what nobody holds
		another, err := db.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer another.Release()
		return shown(another.Conn()) == second.Certificates[0].SerialNumber.String()
	})
	var n int
	if err := held.QueryRow(t.Context(), "select count(*) from numbers").Scan(&n); err != nil || n != 5 {
		t.Errorf("the connection of before finds %d rows, error %v", n, err)
	}

	plain := db.Config().ConnConfig
	plain.Password = apptest.PostgresPassword
	var refused *pgconn.PgError
	if _, err := pgx.ConnectConfig(t.Context(), plain); !errors.As(err, &refused) || !strings.Contains(refused.Message, "no encryption") {
		t.Errorf("a client with the password and without TLS: error %v, want it refused", err)
	}

	for name, tt := range map[string]struct {
		svid *x509svid.SVID
		want string
	}{
		"of a federated trust domain": {issue(partner, host), "certificate signed by unknown authority"},
		"for another host":            {issue(mine, "127.9.9.9"), "certificate is valid for 127.9.9.9, not " + host},
	} {
		p.Keep(t, tt.svid)
		p.Renewed(t)
		apptest.Await(t, "a certificate "+name+" to be refused", func() bool {
			db.Reset()
			_, err := db.Exec(t.Context(), "select 1")
			return err != nil && strings.Contains(err.Error(), tt.want)
		})
	}
}
