package docs_test

import (
	"path/filepath"
	"testing"

	"github.com/fedlab-dev/fedlab/e2e/matrix"
)

// TestMatrix: the table has the rows that the suite runs, in its order, and says by itself
// whether a run has filled it in. What was seen comes from a run and not from here: -update
// empties a table whose rows are others.
func TestMatrix(t *testing.T) {
	document := filepath.ToSlash(matrix.Document)
	seen, err := matrix.Read(section(t, document, matrix.Begin, matrix.End))
	if err != nil && !*update {
		t.Fatalf("%s: %v", document, err)
	}
	write(t, document, matrix.Begin, matrix.End, matrix.Table(seen))
}
