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
	const on = ".cluster2.com-trusts-cluster1.com.json"
	want := []string{"drift-unmanaged-relationship" + on, "outage-partition" + on, "rotation-faster-than-refresh" + on, "rotation-x509-authority" + on}
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
	got, err = Read(filepath.Join(dir, "outage-partition"+on))
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
		"another version": {`{"apiVersion":"fedlab.dev/v2","kind":"ScenarioRecord","steps":"many"}`, `read record FILE: its version is "fedlab.dev/v2", and this fedlab reads fedlab.dev/v1alpha1 and fedlab.dev/v1alpha2`},
		"a wrong field":   {`{"apiVersion":"fedlab.dev/v1alpha1","kind":"ScenarioRecord","result":1}`, "read record FILE: json: cannot unmarshal number into Go struct field Record.result of type trial.Result"},
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

// A record of the version before says what it allowed, and its claims are as strict as they
// were then.
func TestReadTakesARecordThatAllows(t *testing.T) {
	const old = `{"apiVersion":"fedlab.dev/v1alpha1","kind":"ScenarioRecord","scenario":"a/b","began":"2026-03-14T12:00:00Z","ended":"2026-03-14T12:01:00Z","holds":true,
		"measures":[{"what":"soon","at":"2026-03-14T12:00:00Z","took":3,"bound":4,"allowed":49},{"what":"later","at":"2026-03-14T12:00:00Z","took":49,"bound":4,"allowed":49}],
		"streams":[{"order":{"name":"calls","every":1000000000,"within":1000000000},"began":"2026-03-14T12:00:00Z","ended":"2026-03-14T12:00:01Z","calls":[{"number":1,"at":"2026-03-14T12:00:00Z","outcome":"answered"}]}],
		"verdicts":[{"says":"no call failed","rule":"all-answered","stream":"calls","from":"2026-03-14T12:00:00Z","holds":true}]}`
	file := filepath.Join(t.TempDir(), "a-b.json")
	for edit, want := range map[string][]trial.Result{
		"":            {trial.Late, trial.Holds, trial.Late, trial.Holds},
		`"took":49,`:  {trial.DoesNotHold, trial.Holds, trial.DoesNotHold, trial.Holds},
		`"answered"}`: {trial.DoesNotHold, trial.Holds, trial.Late, trial.DoesNotHold},
	} {
		text := old
		if edit != "" {
			text = strings.ReplaceAll(old, edit, map[string]string{`"took":49,`: `"took":50,`, `"answered"}`: `"no-answer"}`}[edit])
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		all, err := Read(file)
		if err != nil {
			t.Fatal(err)
		}
		r := all[0]
		got := []trial.Result{r.Result, r.Measures[0].Result, r.Measures[1].Result, r.Verdicts[0].Result}
		if !slices.Equal(got, want) || r.APIVersion != trial.RecordVersion {
			t.Errorf("%q: results %q of version %s, want %q of %s", edit, got, r.APIVersion, want, trial.RecordVersion)
		}
	}
}

func TestWriteRefusesTwoRecordsOfOneFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	err := Write(dir, record("a/b-c", "", 1), record("a-b/c", "", 1))
	if want := `write records: "a/b-c" and "a-b/c" would both be a-b-c.cluster2.com-trusts-cluster1.com.json`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}

func TestWriteStaysInItsFolder(t *testing.T) {
	dir := t.TempDir()
	strange := record("../../evil", "", 1)
	if err := Write(dir, strange); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "..-..-evil.cluster2.com-trusts-cluster1.com.json")); err != nil {
		t.Error(err)
	}
	strange.On.Truster = "../../worse"
	if err := Write(dir, strange); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "..-..-evil...-..-worse-trusts-cluster1.com.json")); err != nil {
		t.Error(err)
	}
}
