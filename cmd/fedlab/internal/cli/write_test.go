package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Who reads a report while it is written again finds the one before, and what is
// cut off by a full disk is not taken for a report.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.html")
	text := func(text string) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}
	}
	if size, err := writeWhole(path, text("first")); size != 5 || err != nil {
		t.Fatalf("wrote %d bytes, error %v", size, err)
	}
	errFull := errors.New("no space left")
	_, err := writeWhole(path, func(w io.Writer) error {
		err := text("half")(w)
		if data, read := os.ReadFile(path); string(data) != "first" || read != nil {
			t.Errorf("a reader finds %q, error %v, want the first one", data, read)
		}
		return errors.Join(err, errFull)
	})
	if want := "write " + path + ": no space left"; !errors.Is(err, errFull) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if data, err := os.ReadFile(path); string(data) != "first" || err != nil {
		t.Errorf("after a failure it has %q, error %v, want the first one", data, err)
	}
	if left, err := os.ReadDir(dir); len(left) != 1 || err != nil {
		t.Errorf("left %v, error %v, want the file alone", left, err)
	}
}
