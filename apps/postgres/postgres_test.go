package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connect waits for the server, and connects as user.
func connect(t *testing.T, p *apptest.Postgres, user, password string) (*pgx.Conn, error) {
	t.Helper()
	config, err := pgx.ParseConfig("postgres://" + user + "@" + p.Address + "/" + apptest.PostgresName + "?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.Password = password
	var (
		conn    *pgx.Conn
		refused *pgconn.PgError
	)
	apptest.Await(t, "an answer of the server", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), apptest.Patience)
		defer cancel()
		conn, err = pgx.ConnectConfig(ctx, config)
		// 57P03: the server is starting up.
		return err == nil || errors.As(err, &refused) && refused.Code != "57P03"
	})
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

func mustConnect(t *testing.T, p *apptest.Postgres, password string) *pgx.Conn {
	t.Helper()
	conn, err := connect(t, p, apptest.PostgresUser, password)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func count(t *testing.T, conn *pgx.Conn, query string) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestTheRoleOwnsItsDatabaseAndNothingElse(t *testing.T) {
	p := apptest.NewPostgres(t)
	var log apptest.Log
	stop, _ := p.Start(t, &log)
	conn := mustConnect(t, p, apptest.PostgresPassword)
	execute(t, conn, "create table notes (n int)")
	for statement, code := range map[string]string{
		"create role other superuser":                   "42501",
		"copy notes from program 'id'":                  "42501",
		"alter system set log_statement = 'all'":        "42501",
		"create database other":                         "42501",
		"select pg_read_file('/etc/passwd')":            "42501",
		"select * from pg_authid where rolpassword <>0": "42501",
	} {
		_, err := conn.Exec(t.Context(), statement)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != code && refused.Code != "42883" {
			t.Errorf("%s: %v, want it refused with %s", statement, err, code)
		}
	}
	for user, password := range map[string]string{apptest.PostgresUser: "wrong", superuser: "", "nobody": "x"} {
		if _, err := connect(t, p, user, password); err == nil {
			t.Errorf("%s is let in with password %q", user, password)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if log.Count("database system is shut down") == 0 {
		t.Error("the server did not stop in good order although a client was connected")
	}
	if n := log.Count(apptest.PostgresPassword); n != 0 {
		t.Errorf("the password is in %d lines of the log", n)
	}
}

func TestAVolumeOutlivesServersAndPasswords(t *testing.T) {
	p := apptest.NewPostgres(t)
	stop, _ := p.Start(t, &apptest.Log{})
	conn := mustConnect(t, p, apptest.PostgresPassword)
	execute(t, conn, "create table notes as select 42 as n")
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	p.SetPassword(t, "it's-another $1")
	var log apptest.Log
	p.Start(t, &log)
	conn = mustConnect(t, p, "it's-another $1")
	if n := count(t, conn, "select n from notes"); n != 42 {
		t.Errorf("found %d, want what was stored", n)
	}
	if _, err := connect(t, p, apptest.PostgresUser, apptest.PostgresPassword); err == nil {
		t.Error("the old password still works")
	}
	if log.Count("making databases") != 0 {
		t.Error("databases were made again")
	}
	var second apptest.Log
	p.Start(t, &second)
	second.Await(t, "another server uses this volume")
}

// TestKilledAtAnyMoment kills the server again and again, mostly while it is
// still being made, and finds it whole in the end.
func TestKilledAtAnyMoment(t *testing.T) {
	p := apptest.NewPostgres(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 12 {
		_, kill := p.Start(t, &apptest.Log{})
		<-time.After(time.Duration(random.IntN(1500)) * time.Millisecond)
		if err := kill(); err != nil {
			t.Fatal(err)
		}
	}
	_, kill := p.Start(t, &apptest.Log{})
	conn := mustConnect(t, p, apptest.PostgresPassword)
	execute(t, conn, "create table notes as select 42 as n")
	if err := kill(); err != nil {
		t.Fatal(err)
	}
	p.Start(t, &apptest.Log{})
	if n := count(t, mustConnect(t, p, apptest.PostgresPassword), "select n from notes"); n != 42 {
		t.Errorf("found %d, want what was stored before the kill", n)
	}
}

// TestAwait: a program that waits for the server goes on when it takes sessions, and
// not before.
func TestAwait(t *testing.T) {
	p := apptest.NewPostgres(t)
	wait := func(ctx context.Context, log io.Writer) error {
		return await(ctx, []string{"-bin=" + p.Bin, "-address=" + p.Address}, func(string) string { return "" }, log)
	}
	var log apptest.Log
	ended := make(chan error, 1)
	go func() { ended <- wait(t.Context(), &log) }()
	log.Await(t, "waiting for the server")
	select {
	case err := <-ended:
		t.Fatalf("it ended before there was a server: %v", err)
	default:
	}
	p.Start(t, &apptest.Log{})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, p, apptest.PostgresUser, apptest.PostgresPassword); err != nil {
		t.Errorf("the server lets nobody in: %v", err)
	}
}

func TestAwaitEnds(t *testing.T) {
	p := apptest.NewPostgres(t)
	stopped, stop := context.WithCancel(t.Context())
	var log apptest.Log
	ended := make(chan error, 1)
	go func() {
		ended <- await(stopped, []string{"-bin=" + p.Bin, "-address=" + p.Address}, func(string) string { return "" }, &log)
	}()
	log.Await(t, "waiting for the server")
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "last seen: "+p.Address) {
		t.Errorf("told to stop, it says: %v", err)
	}
	for name, test := range map[string]struct{ bin, address, want string }{
		"no address":    {p.Bin, "", `read flags: -address is "": want host:port`},
		"no port":       {p.Bin, "database", `read flags: -address is "database": want host:port`},
		"no PostgreSQL": {"/nowhere", p.Address, "fork/exec /nowhere/pg_isready: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			err := await(t.Context(), []string{"-bin=" + test.bin, "-address=" + test.address}, func(string) string { return "" }, io.Discard)
			if err == nil || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct{ arg, want string }{
		"a name that needs quotes": {"-database=my-data", `read flags: -database or -user is "my-data": want lower-case letters, digits and underscores, and not postgres`},
		"root as user":             {"-run-as=0", `read flags: -run-as is 0: want the number of a user that is not root`},
		"the superuser as role":    {"-user=postgres", `read flags: -database or -user is "postgres": want lower-case letters, digits and underscores, and not postgres`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse([]string{test.arg}, func(string) string { return "" }, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestPasswordsThatWouldNeedToBeNormalisedAreRefused(t *testing.T) {
	for _, password := range []string{"pässword", "tab\t", "bell\a"} {
		if _, err := scramVerifier(password); err == nil || !strings.Contains(err.Error(), "outside of printable ASCII") {
			t.Errorf("%q: error is %v", password, err)
		}
	}
}

// TestTheVolumeOfRoot: started by root, the server gives itself the volume and is
// nobody from then on.
func TestTheVolumeOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give folders away")
	}
	p := apptest.NewPostgres(t)
	for range 2 {
		stop, _ := p.Start(t, &apptest.Log{})
		mustConnect(t, p, apptest.PostgresPassword)
		for path, mode := range map[string]os.FileMode{p.Data: 0o700, filepath.Join(p.Data, "cluster"): 0o700, filepath.Join(p.Data, "lock"): 0o600} {
			found, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if owner := found.Sys().(*syscall.Stat_t); owner.Uid != apptest.Nobody || owner.Gid != apptest.Nobody || found.Mode().Perm() != mode {
				t.Errorf("%s belongs to %d:%d with mode %s", path, owner.Uid, owner.Gid, found.Mode())
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}
