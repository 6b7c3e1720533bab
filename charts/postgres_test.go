package charts_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fedlab-dev/fedlab/lab/spire"
)

// startPostgres runs the program of apps/postgres with these settings until the
// test ends, waits until it lets the role in, and returns where it is, as a
// connection string has it, and the role's password.
func startPostgres(t *testing.T, settings spire.PostgresValues) (where, password string) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("PostgreSQL is not installed: want Debian's package postgresql")
		}
		t.Skip("PostgreSQL is not installed: apt-get install --no-install-recommends postgresql")
	}
	// Where root runs the test, the server runs as nobody, who cannot pass through
	// the folders of a test and has an entry in passwd everywhere, which initdb wants.
	dir, err := os.MkdirTemp("", "postgres-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, data, passwordFile := filepath.Join(dir, "postgres"), filepath.Join(dir, "data"), filepath.Join(dir, "password")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../apps/postgres").CombinedOutput(); err != nil {
		t.Fatalf("build apps/postgres: %v\n%s", err, output)
	}
	// It looks like those that the chart makes up.
	password = "aLongPasswordThatIsNotASecret012"
	if err := os.WriteFile(passwordFile, []byte(password), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	command := exec.CommandContext(t.Context(), program, "-run-as=65534", "-bin="+filepath.Dir(found[len(found)-1]), "-data="+data, "-listen=127.0.0.1", "-port="+port,
		"-database="+settings.Database, "-user="+settings.User, "-password-file="+passwordFile)
	var log bytes.Buffer
	command.Dir, command.Stdout, command.Stderr = dir, &log, &log
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 30 * time.Second
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait(); close(ended) }()
	t.Cleanup(func() {
		// The test's context is done by now, and with it the program.
		for range ended {
		}
		if t.Failed() {
			t.Logf("log of postgres:\n%s", log.String())
		}
	})

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@127.0.0.1:%s/%s?sslmode=disable", settings.User, password, port, settings.Database))
		if err == nil {
			if err := conn.Close(ctx); err != nil {
				t.Error(err)
			}
			return "host=127.0.0.1 port=" + port, password
		}
		select {
		case err := <-ended:
			t.Fatalf("postgres ended before it let anybody in: %v", err)
		case <-ctx.Done():
			t.Fatalf("postgres lets nobody in: %v", err)
		case <-again.C:
		}
	}
}

// freePort returns a port of the loopback interface that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}
