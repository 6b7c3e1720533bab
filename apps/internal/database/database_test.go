package database_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
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
	db, err := database.Open(settings(p), numbers.Make, slog.New(slog.NewTextHandler(log, nil)))
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
