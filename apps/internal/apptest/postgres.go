package apptest

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Postgres is a real PostgreSQL server, run by the program of apps/postgres.
type Postgres struct {
	Bin          string // folder of PostgreSQL's programs
	Address      string // host:port
	Data         string // its volume
	PasswordFile string
	program      string
}

// The database of a Postgres, its role, and the role's password at first.
const (
	PostgresName     = "demo"
	PostgresUser     = "clerk"
	PostgresPassword = "not-a-secret-of-anybody"
)

// Nobody is the number of the user that the server runs as where root runs the test.
// It has an entry in passwd everywhere, which initdb wants.
const Nobody = 65534

// NewPostgres prepares a server with an empty volume. It skips the test where
// PostgreSQL is not installed, except in CI, where nothing may be skipped.
func NewPostgres(t *testing.T) *Postgres {
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
	// Where root runs the test, the server runs as somebody else, who cannot pass
	// through the folders of a test.
	dir, err := os.MkdirTemp("", "postgres-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &Postgres{
		Bin: filepath.Dir(found[len(found)-1]), Data: filepath.Join(dir, "data"), PasswordFile: filepath.Join(dir, "password"),
		program: Build(t, dir, "postgres"),
	}
	p.Address = Address(t)
	if err := os.Mkdir(p.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	p.SetPassword(t, PostgresPassword)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// SetPassword writes what the server gives its role at the next start.
func (p *Postgres) SetPassword(t *testing.T, password string) {
	t.Helper()
	if err := os.WriteFile(p.PasswordFile, []byte(password+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Start starts the server. It need not be ready yet; clients wait. stop ends
// it in good order, kill at once, as does the end of the test.
func (p *Postgres) Start(t *testing.T, log *Log) (stop, kill func() error) {
	t.Helper()
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		t.Fatal(err)
	}
	return Start(t, log, p.program, "-run-as="+strconv.Itoa(Nobody), "-bin="+p.Bin, "-data="+p.Data, "-listen="+host, "-port="+port,
		"-database="+PostgresName, "-user="+PostgresUser, "-password-file="+p.PasswordFile)
}
