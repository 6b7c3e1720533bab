// Package database connects a service to its PostgreSQL, and keeps it served
// while the database comes and goes.
//
// It refuses to know what is stored, and keeps the password to itself: it is
// read from a file for each connection, so that it may change, and is in no
// log and in no error.
package database

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const retryDelay = 500 * time.Millisecond

// errNoAnswer is what the callers of a service are told.
var errNoAnswer = errors.New("the database does not answer")

// Settings say which database, and who connects.
type Settings struct {
	Address, Name, User, PasswordFile string
	// TLS asks for a server whose certificate is of our own trust domain, and for its host
	// name, as PostgreSQL's sslmode=verify-full does.
	TLS bool
	// Bridge is whom a connection goes through: it proves to be that, and passes on what
	// comes over mutual TLS. The zero value is nobody.
	Bridge spiffeid.ID
}

// Flags defines the flags that fill s.
func (s *Settings) Flags(flags *flag.FlagSet) {
	flags.StringVar(&s.Address, "database-address", "", "host:port of the PostgreSQL server; required")
	flags.StringVar(&s.Name, "database-name", "app", "name of the database")
	flags.StringVar(&s.User, "database-user", "app", "role that connects")
	flags.BoolVar(&s.TLS, "database-tls", false, "whether the server has to prove its host name with a certificate of our own trust domain")
	flags.StringVar(&s.PasswordFile, "database-password-file", "/run/secrets/database/password", "file with the role's password")
}

// Complete returns a usage error when the address is none.
func (s Settings) Complete() error {
	if _, port, err := net.SplitHostPort(s.Address); err != nil || port == "" {
		return process.Usagef("read flags: -database-address is %q: want host:port, such as postgres:5432", s.Address)
	}
	return nil
}

// Database is a pool of connections to one database.
type Database struct {
	*pgxpool.Pool

	address string
	log     *slog.Logger
	unready atomic.Pointer[error] // why it is not prepared; nil once it is
}

// Open returns the database of s; it connects to nothing yet. prepare makes
// what the service needs in it, in one transaction that no other replica's
// overlaps, and must do nothing where all is there. It is called on each new
// connection: a database may have come back with an empty volume. own is asked only where
// s says TLS or a bridge.
func Open(s Settings, prepare func(context.Context, pgx.Tx) error, own identity.Holder, log *slog.Logger) (*Database, error) {
	// Inside a cluster, next to its service: PostgreSQL knows of no SPIFFE, and
	// a certificate that nobody verifies would only look like security. SCRAM
	// does not send the password. BeforeConnect asks for TLS where s does.
	where := url.URL{Scheme: "postgres", User: url.User(s.User), Host: s.Address, Path: s.Name, RawQuery: "sslmode=disable"}
	config, err := pgxpool.ParseConfig(where.String())
	if err != nil {
		return nil, fmt.Errorf("read database settings: %w", err)
	}
	config.MaxConns = 4
	config.ConnConfig.ConnectTimeout = identity.ConnectBound
	config.ConnConfig.RuntimeParams["statement_timeout"] = fmt.Sprint(identity.ConnectBound.Milliseconds())
	if !s.Bridge.IsZero() {
		config.ConnConfig.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) {
			return identity.Dial(ctx, address, s.Bridge, own, log)
		}
	}
	config.BeforeConnect = func(_ context.Context, connect *pgx.ConnConfig) error {
		password, err := os.ReadFile(s.PasswordFile)
		connect.Password = string(bytes.TrimSpace(password))
		if err == nil && s.TLS {
			connect.TLSConfig, err = verified(connect.Host, own)
		}
		return err
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// Any number will do: it is the same for all replicas.
			if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock(1)"); err != nil {
				return err
			}
			return prepare(ctx, tx)
		})
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	d := &Database{Pool: pool, address: s.Address, log: log}
	d.failed(errors.New("no try has ended yet"))
	return d, nil
}

// verified lets in a server that proves a host name by an authority of our own trust domain,
// as the bundle has them now. Those of federated trust domains do not count: PostgreSQL and
// its clients look at names, and any of those authorities could sign any name.
func verified(host string, own identity.Holder) (*tls.Config, error) {
	svid, err := own.GetX509SVID()
	if err != nil {
		return nil, err
	}
	bundle, err := own.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, authority := range bundle.X509Authorities() {
		roots.AddCert(authority)
	}
	return &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// Table is one that a service makes and fills.
type Table struct {
	Name    string
	Schema  string // statements that may be run again and again
	Columns []string
	Rows    func() [][]any // the same each time; values in the order of Columns
}

// Make makes t, and fills it if it is empty.
func (t Table) Make(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, t.Schema); err != nil {
		return fmt.Errorf("make table %s: %w", t.Name, err)
	}
	name := pgx.Identifier{t.Name}
	var filled bool
	if err := tx.QueryRow(ctx, "select exists (select from "+name.Sanitize()+")").Scan(&filled); err != nil || filled {
		return err
	}
	if _, err := tx.CopyFrom(ctx, name, t.Columns, pgx.CopyFromRows(t.Rows())); err != nil {
		return fmt.Errorf("fill table %s: %w", t.Name, err)
	}
	return nil
}

// Run prepares the database, for as long as that takes, and closes it when ctx
// ends.
func (d *Database) Run(ctx context.Context) error {
	defer d.Close()
	begun := time.Now()
	for warned := false; ; warned = true {
		err := d.Ping(ctx)
		if err == nil {
			break
		}
		d.failed(err)
		if !warned && ctx.Err() == nil {
			d.log.WarnContext(ctx, "database not ready", "address", d.address, "error", err)
		}
		select {
		case <-time.After(retryDelay):
		case <-ctx.Done():
			return nil
		}
	}
	d.unready.Store(nil)
	d.log.InfoContext(ctx, "database ready", "address", d.address, "after", time.Since(begun).Round(time.Millisecond).String())
	<-ctx.Done()
	return nil
}

func (d *Database) failed(err error) {
	err = fmt.Errorf("prepare database at %s: %w", d.address, err)
	d.unready.Store(&err)
}

// Ready returns nil once the database has been prepared. That it goes away
// later is no reason to take the service away, which can say so itself.
func (d *Database) Ready() error {
	if err := d.unready.Load(); err != nil {
		return *err
	}
	return nil
}

// Refuse answers, in the name of the server that holds own, that a query
// failed; why, the log tells.
func (d *Database) Refuse(ctx context.Context, w http.ResponseWriter, own x509svid.Source, err error) {
	d.log.ErrorContext(ctx, "query fails", "address", d.address, "error", err)
	service.Refusal{Status: http.StatusServiceUnavailable, Reason: errNoAnswer.Error()}.Write(w, own)
}

// Check returns an error, fit for the callers of a service, unless the
// database answers; why, the log tells.
func (d *Database) Check(ctx context.Context) error {
	if err := d.Ping(ctx); err != nil {
		d.log.WarnContext(ctx, "database does not answer", "address", d.address, "error", err)
		return errNoAnswer
	}
	return nil
}
