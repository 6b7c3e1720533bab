// Package report keeps the records of scenarios as files and renders them: for a
// browser, for CI and for a terminal.
//
// A record was written by a run and may have passed through other hands: what is
// in it is shown and never believed to be harmless. The package refuses to know
// how a scenario runs, and judges nothing: whether a verdict holds is in the
// record.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// recordKind is the kind of the JSON that a record is written as.
const recordKind = "ScenarioRecord"

// Read returns the record in a file, or those of a folder: of all its *.json
// files, in the order of their names. It refuses what is no record, a record of a
// version that it does not know, and one that is too large or too wrong to be
// judged and drawn; the error names the file and the field.
func Read(path string) ([]trial.Record, error) {
	files, err := filesOf(path)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	records := make([]trial.Record, len(files))
	for i, file := range files {
		if records[i], err = read(file); err != nil {
			return nil, fmt.Errorf("read record %s: %w", file, err)
		}
	}
	return records, nil
}

func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".json" && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if files == nil { // a report of nothing would say that all of it holds
		return nil, fmt.Errorf("%s has no file *.json", path)
	}
	return files, nil
}

func read(file string) (r trial.Record, err error) {
	data, err := readFile(file)
	if err != nil {
		return r, err
	}
	// Another version may have other types in its fields, so these two are read
	// first.
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return r, fmt.Errorf("this is no %s: %w", recordKind, err)
	}
	if head.Kind != recordKind {
		return r, fmt.Errorf("this is no %s: its kind is %q", recordKind, head.Kind)
	}
	if !slices.Contains([]string{trial.RecordVersion, allowing}, head.APIVersion) {
		return r, fmt.Errorf("its version is %q, and this fedlab reads %s and %s", head.APIVersion, allowing, trial.RecordVersion)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, err
	}
	if head.APIVersion == allowing {
		if r, err = migrated(r, data); err != nil {
			return r, err
		}
	}
	return r, check(r)
}

// allowing is the version of records that have, in the place of a slack that was measured, what
// each wait was allowed; the bounds of their verdicts have it in them.
const allowing = "fedlab.dev/v1alpha1"

// migrated returns a record of that version as one of today's. What it allowed counts as slack,
// so that nothing holds that did not hold then, and what held then holds or is late.
func migrated(r trial.Record, data []byte) (trial.Record, error) {
	var old struct {
		Measures []struct {
			Allowed time.Duration `json:"allowed"`
		} `json:"measures"`
	}
	if err := json.Unmarshal(data, &old); err != nil {
		return r, err
	}
	for i, m := range old.Measures {
		r.Measures[i].Slack = m.Allowed - r.Measures[i].Bound
	}
	r.APIVersion = trial.RecordVersion
	if err := check(r); err != nil {
		return r, err
	}
	return trial.Judge(r), nil
}

// readFile reads a file that is not longer than fileLimit, whatever its folder
// says of its size.
func readFile(name string) (data []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, fileLimit+1))
	if err == nil && len(data) > fileLimit {
		err = fmt.Errorf("the file has more than %d MiB, which no record of a run has", fileLimit>>20)
	}
	return data, err
}

// Write writes each record into a file of its own in dir, which it makes where
// it is missing: the scenario's name with dashes for slashes, the relationship, and .json. A file
// of that name is replaced, and never half written. It writes nothing when two
// records would have the same file.
func Write(dir string, records ...trial.Record) error {
	owners := map[string]string{}
	for _, r := range records {
		file := FileOf(r)
		if owner, taken := owners[file]; taken {
			return fmt.Errorf("write records: %q and %q would both be %s", owner, r.Scenario, file)
		}
		owners[file] = r.Scenario
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	for _, r := range records {
		data, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = replace(filepath.Join(dir, FileOf(r)), append(data, '\n'))
		}
		if err != nil {
			return fmt.Errorf("write record of %s: %w", r.Scenario, err)
		}
	}
	return nil
}

// FileOf names the file of a record in the folder of its run.
func FileOf(r trial.Record) string {
	name := strings.ReplaceAll(r.Scenario, "/", "-")
	if r.On != (trial.On{}) {
		name += "." + strings.NewReplacer("->", "-trusts-", "/", "-").Replace(r.On.String())
	}
	return name + ".json"
}

// replace writes data next to name and renames it into place, so that a reader
// finds the old content or the new one.
func replace(name string, data []byte) (err error) {
	next, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(next.Name()))
		}
	}()
	_, err = next.Write(data)
	if err = errors.Join(err, next.Chmod(0o644), next.Sync(), next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), name)
}
