package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
)

// legacyVariable names the database behind a bridge.
const legacyVariable = "LEGACY_DB_URL"

// legacySettings say where that database is. What an article calls https://host:5432 is
// PostgreSQL's own protocol, in mutual TLS up to the bridge.
type legacySettings struct {
	url          string
	bridge       spiffeid.ID
	passwordFile string
}

// settings returns those of a database, and whether there is one.
func (s legacySettings) settings() (d database.Settings, there bool, err error) {
	if s.url == "" {
		return d, false, nil
	}
	where, err := url.Parse(s.url)
	if err != nil || where.Scheme != "postgres" || where.Port() == "" || where.User.Username() == "" || len(where.Path) < 2 {
		return d, false, process.Usagef("read flags: -legacy-database-url (or %s) is %q: want postgres://user@host:port/name", legacyVariable, s.url)
	}
	if s.bridge.IsZero() {
		return d, false, process.Usagef("read flags: -legacy-database-bridge is empty: name the SPIFFE ID of the bridge, such as spiffe://onprem.company.com/datacenter/primary/system/mainframe-bridge")
	}
	return database.Settings{Address: where.Host, Name: where.Path[1:], User: where.User.Username(), PasswordFile: s.passwordFile, Bridge: s.bridge}, true, nil
}

// openLegacy opens the database behind the bridge. Nothing is made in it: it is somebody
// else's.
func openLegacy(s database.Settings, own identity.Holder, log *slog.Logger) (*database.Database, error) {
	return database.Open(s, func(context.Context, pgx.Tx) error { return nil }, own, log)
}

// legacyData tells how many entries the ledger behind the bridge has.
func legacyData(legacy *database.Database, own identity.Holder) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer := processed{Type: "ledger", Source: service.TrustDomainOf(own), Client: service.CallerOf(r).ID}
		if err := legacy.QueryRow(r.Context(), "select count(*) from ledger").Scan(&answer.Records); err != nil {
			legacy.Refuse(r.Context(), w, own, fmt.Errorf("count the ledger behind the bridge: %w", err))
			return
		}
		service.JSON(w, http.StatusOK, answer)
	}
}
