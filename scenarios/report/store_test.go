package report

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

func TestReadReturnsWhatWriteWrote(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "records")
	if err := Write(dir, stored()...); err != nil {
		t.Fatal(err)
	}
	changed := empty()
	changed.Claim = "another"
	if err := Write(dir, changed); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"drift-unmanaged-relationship.json", "outage-partition.json", "rotation-faster-than-refresh.json", "rotation-x509-authority.json"}
	if !slices.Equal(names, want) {
		t.Errorf("the folder has %q, want %q", names, want)
	}

	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []trial.Record{changed, partition(), failed(), rotation()}; !reflect.DeepEqual(got, want) {
		t.Errorf("the records of the folder differ from those that were written")
	}
	got, err = Read(filepath.Join(dir, "outage-partition.json"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []trial.Record{partition()}; !reflect.DeepEqual(got, want) {
		t.Errorf("the record of the file differs from the one that was written")
	}
}

func TestReadRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ content, want string }{
		"no JSON":         {"hello", "read record FILE: this is no ScenarioRecord: invalid character 'h' looking for beginning of value"},
		"half a file":     {`{"apiVersion":"fedlab.dev/v1alpha1","kind":"Sc`, "read record FILE: this is no ScenarioRecord: unexpected end of JSON input"},
		"another kind":    {`{"apiVersion":"fedlab.dev/v1alpha1","kind":"Status"}`, `read record FILE: this is no ScenarioRecord: its kind is "Status"`},
		"no kind":         {`{}`, `read record FILE: this is no ScenarioRecord: its kind is ""`},
		"another version": {`{"apiVersion":"fedlab.dev/v2","kind":"ScenarioRecord","steps":"many"}`, `read record FILE: its version is "fedlab.dev/v2", and this fedlab reads fedlab.dev/v1alpha1`},
		"a wrong field":   {`{"apiVersion":"fedlab.dev/v1alpha1","kind":"ScenarioRecord","holds":"yes"}`, "read record FILE: json: cannot unmarshal string into Go struct field Record.holds of type bool"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "x.json")
			if err := os.WriteFile(file, []byte(tt.content), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{file, dir} {
				_, err := Read(path)
				if want := strings.ReplaceAll(tt.want, "FILE", file); err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
			}
		})
	}
	dir := t.TempDir()
	long := filepath.Join(dir, "long.json")
	if err := errors.Join(os.WriteFile(long, nil, 0o644), os.Truncate(long, fileLimit+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(long); err == nil || err.Error() != "read record "+long+": the file has more than 32 MiB, which no record of a run has" {
		t.Errorf("error of a long file is %v", err)
	}
	if err := os.Remove(long); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                         "read records: " + dir + " has no file *.json",
		filepath.Join(dir, "x.txt"): "read records: stat " + filepath.Join(dir, "x.txt") + ": no such file or directory",
	} {
		if _, err := Read(path); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestWriteRefusesTwoRecordsOfOneFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	err := Write(dir, record("a/b-c", "", 1), record("a-b/c", "", 1))
	if want := `write records: "a/b-c" and "a-b/c" would both be a-b-c.json`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}

func TestWriteStaysInItsFolder(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, record("../../evil", "", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "..-..-evil.json")); err != nil {
		t.Error(err)
	}
}
