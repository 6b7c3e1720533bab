package main

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/jackc/pgx/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

//go:embed schema.sql
var schema string

const entries = 800

// ledger is the legacy database: entries of fixed width, that nobody ever
// changes.
type ledger struct{ *database.Database }

func openLedger(s database.Settings, log *slog.Logger) (ledger, error) {
	table := database.Table{
		Name: "ledger", Schema: schema,
		Columns: []string{"entry", "account", "booked_on", "narrative", "amount_cents"}, Rows: invent,
	}
	db, err := database.Open(s, table.Make, nil, log)
	return ledger{db}, err
}

type account struct {
	Account      string    `json:"account"`
	Entries      int       `json:"entries"`
	BalanceCents int64     `json:"balance_cents"`
	LastBooked   time.Time `json:"last_booked"`
}

func (l ledger) accounts(ctx context.Context) ([]account, error) {
	rows, err := l.Query(ctx, `
		select rtrim(account), count(*), sum(amount_cents)::bigint, max(booked_on)::timestamptz
		from ledger
		group by account
		order by account`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[account])
}

// legacy is the answer of /api/legacy-data.
type legacy struct {
	Type      string      `json:"type"`
	Format    string      `json:"format"`
	Source    string      `json:"source"` // the trust domain that answers
	Client    spiffeid.ID `json:"client"`
	Timestamp int64       `json:"timestamp"` // in seconds since 1970
	Records   int         `json:"records"`   // how many entries there are
	Data      []account   `json:"data"`
}

func legacyData(l ledger, own x509svid.Source, now func() time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		accounts, err := l.accounts(r.Context())
		if err != nil {
			l.Refuse(r.Context(), w, own, err)
			return
		}
		answer := legacy{
			Type: "legacy", Format: "legacy-v1", Source: service.TrustDomainOf(own),
			Client: service.CallerOf(r).ID, Timestamp: now().Unix(), Data: accounts,
		}
		for _, a := range accounts {
			answer.Records += a.Entries
		}
		service.JSON(w, http.StatusOK, answer)
	}
}

// invent returns the entries of an empty ledger, the same each time.
func invent() [][]any {
	var (
		random     = rand.New(rand.NewPCG(1987, 0))
		booked     = time.Date(1987, time.March, 2, 0, 0, 0, 0, time.UTC)
		narratives = []string{"GOODS RECEIVED", "INVOICE", "FREIGHT", "CREDIT NOTE", "YEAR-END ADJUSTMENT"}
		rows       [][]any
	)
	for entry := range int64(entries) {
		booked = booked.AddDate(0, 0, random.IntN(3))
		account := fmt.Sprintf("AC-%05d", 10000+random.IntN(12)*7)
		rows = append(rows, []any{entry + 1, account, booked, narratives[random.IntN(len(narratives))], random.Int64N(1_000_00) - 400_00})
	}
	return rows
}
