package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table prints a row of cells for each of some things, in columns below a head.
func table[T any](out io.Writer, head string, all []T, row func(T) []string) error {
	w := newTable(out)
	_, _ = fmt.Fprintln(w, head)
	for _, one := range all {
		_, _ = fmt.Fprintln(w, strings.Join(row(one), "\t"))
	}
	return w.Flush()
}

// newTable returns what puts text with tabs in it into columns; it is flushed at the
// end.
func newTable(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) }

// each returns what one function makes of each of some things.
func each[T, U any](all []T, of func(T) U) []U {
	made := make([]U, len(all))
	for i, one := range all {
		made[i] = of(one)
	}
	return made
}
