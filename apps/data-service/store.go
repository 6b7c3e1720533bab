package main

import (
	"context"
	_ "embed"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/database"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/jackc/pgx/v5"
)

//go:embed schema.sql
var schema string

// store has the orders. All that is computed of them, PostgreSQL computes.
type store struct{ *database.Database }

// openStore returns the store of s, which fills an empty database with orders.
func openStore(s settings, own identity.Holder, log *slog.Logger) (store, error) {
	table := database.Table{Name: "orders", Schema: schema, Columns: columns, Rows: func() [][]any {
		var rows [][]any
		for _, o := range invent(s.orders, s.seed) {
			rows = append(rows, []any{o.ID, o.PlacedAt, o.Region, o.Category, o.Customer, o.AmountCents, o.Status})
		}
		return rows
	}}
	db, err := database.Open(s.database, table.Make, own, log)
	return store{db}, err
}

type order struct {
	ID          int64     `json:"id"`
	PlacedAt    time.Time `json:"placed_at"`
	Region      string    `json:"region"`
	Category    string    `json:"category"`
	Customer    string    `json:"customer"`
	AmountCents int64     `json:"amount_cents"`
	Status      string    `json:"status"`
}

var columns = []string{"id", "placed_at", "region", "category", "customer", "amount_cents", "status"}

// aggregate is what is said about the orders of one region and category.
type aggregate struct {
	Region        string    `json:"region"`
	Category      string    `json:"category"`
	Orders        int       `json:"orders"`
	RevenueCents  int64     `json:"revenue_cents"` // without what came back
	AverageCents  int64     `json:"average_cents"`
	ReturnedShare float64   `json:"returned_share"`
	LastOrder     time.Time `json:"last_order"`
}

func (s store) count(ctx context.Context) (n int, err error) {
	err = s.QueryRow(ctx, "select count(*) from orders").Scan(&n)
	return n, err
}

func (s store) aggregates(ctx context.Context) ([]aggregate, error) {
	rows, err := s.Query(ctx, `
		select region, category, count(*),
		       coalesce(sum(amount_cents) filter (where status <> 'returned'), 0)::bigint,
		       avg(amount_cents)::bigint,
		       round(avg((status = 'returned')::int), 3)::float8,
		       max(placed_at)
		from orders
		group by region, category
		order by region, category`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[aggregate])
}

// page returns up to limit orders, by their numbers, from the first after that
// numbered after.
func (s store) page(ctx context.Context, after int64, limit int) ([]order, error) {
	rows, err := s.Query(ctx, "select "+strings.Join(columns, ", ")+" from orders where id > $1 order by id limit $2", after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[order])
}

// invent returns n orders, about ten minutes apart, that follow from seed
// alone. Neither companies nor sales are real.
func invent(n int, seed uint64) []order {
	var (
		random     = rand.New(rand.NewPCG(seed, 0))
		regions    = []string{"Americas", "Asia-Pacific", "Europe", "Middle East"}
		categories = []string{"analytics", "ml-training", "reporting"}
		customers  = []string{
			"Acorn Foods", "Breeze Energy", "Cobalt Mining", "Driftwood Paper", "Ember Steel", "Fjord Shipping",
			"Glint Optics", "Halcyon Air", "Kiln Ceramics", "Loom Textiles", "Marsh Rail", "Quartz Watches",
		}
		statuses = []string{"paid", "shipped", "shipped", "shipped", "shipped", "shipped", "shipped", "returned"}
		at       = time.Date(2026, time.January, 5, 8, 0, 0, 0, time.UTC)
	)
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	orders := make([]order, n)
	for i := range orders {
		at = at.Add(time.Duration(1+random.IntN(1200)) * time.Second)
		orders[i] = order{
			ID: int64(i + 1), PlacedAt: at, Region: pick(regions), Category: pick(categories), Customer: pick(customers),
			AmountCents: 5_00 + random.Int64N(2_000_00), Status: pick(statuses),
		}
	}
	return orders
}
