package matrix_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/e2e/matrix"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// TestLab: the lab is one that up takes, with all rows and without each group.
func TestLab(t *testing.T) {
	for name, rows := range map[string][]matrix.Row{"all": matrix.Rows(), "0": matrix.Of(0), "1": matrix.Of(1)} {
		t.Run(name, func(t *testing.T) {
			data, err := config.Marshal(matrix.Lab("e2e-matrix", rows))
			if err != nil {
				t.Fatal(err)
			}
			top, err := config.For(demo.Apps()).Load(data, "matrix.yaml")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := topology.Resolve(top, netip.Prefix{}); err != nil {
				t.Fatal(err)
			}
			want := 0
			for _, r := range rows {
				want += len(r.Ways())
			}
			if got := len(top.Relationships); got != want {
				t.Errorf("%d relationships, want %d", got, want)
			}
			for _, w := range top.Workloads {
				if len(w.Calls) > 0 {
					t.Errorf("%s calls %q: another call would start it again when a row goes", w.Name, w.Calls)
				}
			}
		})
	}
}

// TestRows: all 14 are there, and when a group goes, each truster that polls keeps as many
// as it loses, and each endpoint keeps one.
func TestRows(t *testing.T) {
	rows := matrix.Rows()
	if len(rows) != 14 || len(matrix.Of(0))+len(matrix.Of(1)) != 14 {
		t.Errorf("%d rows, of which %d and %d go together", len(rows), len(matrix.Of(0)), len(matrix.Of(1)))
	}
	type half struct {
		name  string
		group int
	}
	count := map[half]int{}
	for _, r := range rows {
		count[half{r.Truster, r.Group}]++
		count[half{r.Trusted, r.Group}]++
	}
	for _, r := range rows {
		mine, others := count[half{r.Truster, r.Group}], count[half{r.Truster, 1 - r.Group}]
		if mine != others {
			t.Errorf("%s loses %d rows and keeps %d", r.Truster, mine, others)
		}
		if count[half{r.Trusted, 1 - r.Group}] == 0 {
			t.Errorf("no row of %s stays when group %d goes", r.Trusted, r.Group)
		}
	}
}

// TestRefused: a desk that refused somebody whom it trusts would show nothing.
func TestRefused(t *testing.T) {
	trusted := func(way matrix.Way) bool {
		return slices.ContainsFunc(matrix.Rows(), func(r matrix.Row) bool { return slices.Contains(r.Ways(), way) })
	}
	for _, desk := range matrix.Domains() {
		if third := matrix.Third(desk); third == desk || trusted(matrix.Way{Server: desk, Caller: third}) {
			t.Errorf("%s trusts %s", desk, third)
		}
	}
	for _, r := range matrix.Rows() {
		if trusted(r.Back()) != r.TwoWays {
			t.Errorf("%s: %s trusts %s: %t, want %t", r, r.Trusted, r.Truster, !r.TwoWays, r.TwoWays)
		}
	}
}

// TestTable: a table says of each row what was seen, and that it is no result where a row
// has not been seen.
func TestTable(t *testing.T) {
	const noResult = "is not a result"
	seen := map[matrix.Row]matrix.Seen{}
	for i, r := range matrix.Rows() {
		if table := matrix.Table(seen); !strings.Contains(table, noResult) {
			t.Errorf("with %d rows seen:\n%s", i, table)
		}
		seen[r] = matrix.Seen{Bundle: "in sync", Call: "answered", Back: "refused", Third: "refused", Handshake: "refused", Open: "goes on", Others: r.String()}
	}
	table := matrix.Table(seen)
	if strings.Contains(table, noResult) {
		t.Errorf("with all rows seen:\n%s", table)
	}
	read, err := matrix.Read(table)
	if err != nil || matrix.Table(read) != table || len(read) != len(seen) {
		t.Errorf("error %v; of %d rows %d are read", err, len(seen), len(read))
	}
	for name, spoilt := range map[string]string{
		"a row is gone":   strings.Replace(table, "`manual`, two ways", "`manual`, three ways", 1),
		"a cell is empty": strings.Replace(table, "| goes on |", "|  |", 1),
		"a cell is gone":  strings.Replace(table, "| goes on |", "|", 1),
	} {
		if _, err := matrix.Read(spoilt); err == nil {
			t.Errorf("%s, and it is read", name)
		}
	}
}
