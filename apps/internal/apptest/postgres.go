package apptest

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Postgres is a real PostgreSQL server, run by the program of apps/postgres.
type Postgres struct {
	Bin          string // folder of PostgreSQL's programs
	Address      string // host:port
	Data         string // its volume
	PasswordFile string
	// TLS is the folder with its certificate; empty is no TLS.
	TLS     string
	program string
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
		"-database="+PostgresName, "-user="+PostgresUser, "-password-file="+p.PasswordFile, "-tls-dir="+p.TLS)
}

// NewTLS makes the folder for the server's certificate, as spiffe-helper keeps it.
func (p *Postgres) NewTLS(t *testing.T) {
	t.Helper()
	p.TLS = filepath.Join(filepath.Dir(p.Data), "tls")
	if err := os.Mkdir(p.TLS, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p.TLS, 0o777); err != nil {
		t.Fatal(err)
	}
}

// Keep writes a certificate and its key to that folder, for the server's user alone.
func (p *Postgres) Keep(t *testing.T, svid *x509svid.SVID) {
	t.Helper()
	certificates, key, err := svid.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"svid.pem": certificates, "key.pem": key} {
		file := filepath.Join(p.TLS, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(file, Nobody, Nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Renewed tells the server that its certificate is new, as spiffe-helper does.
func (p *Postgres) Renewed(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.TLS, "postgres.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}
