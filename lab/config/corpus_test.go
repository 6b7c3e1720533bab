package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got with a file below testdata or docs.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; -update writes it", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale, -update rewrites it; got:\n%s", name, got)
	}
}

// corpus returns the lab files of a folder below testdata by their names.
func corpus(tb testing.TB, folder string) map[string][]byte {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("find corpus %s: %v, %d files", folder, err, len(paths))
	}
	files := map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(path), ".yaml")] = data
	}
	return files
}

func TestBadFiles(t *testing.T) {
	for name, data := range corpus(t, "bad") {
		t.Run(name, func(t *testing.T) {
			_, err := format.Load(data, "lab.yaml")
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("Load: got error %v, want Problems", err)
			}
			checkProblems(t, problems, data)
			// Only a file that cannot be split into fields has problems without a path.
			for _, p := range problems {
				if wholeFile := strings.HasPrefix(name, "file-"); p.Path == "" && !wholeFile {
					t.Errorf("no path in %q", p)
				}
			}
			golden(t, filepath.Join("testdata", "bad", name+".want"), []byte(err.Error()+"\n"))
		})
	}
}

// Each rule refuses one of the bad files; without it the file is not told the
// same.
func TestEachRuleRefuses(t *testing.T) {
	files, told := corpus(t, "bad"), map[string]string{}
	for name, data := range files {
		_, err := format.Load(data, "lab.yaml")
		told[name] = err.Error()
	}
	for i, rule := range format.apps.rules() {
		t.Run(rule.says, func(t *testing.T) {
			t.Parallel()
			others := slices.Delete(format.apps.rules(), i, i+1)
			for name, data := range files {
				if _, err := format.read(data, "lab.yaml", ".", others); err == nil || err.Error() != told[name] {
					return
				}
			}
			t.Errorf("no file of testdata/bad is refused by it")
		})
	}
}

// checkProblems states what each message has: a cause, a right form, and a
// position that lies in the file.
func checkProblems(tb testing.TB, problems Problems, data []byte) {
	tb.Helper()
	if len(problems) == 0 {
		tb.Fatal("Problems without a problem")
	}
	lines := bytes.Split(data, []byte("\n"))
	for _, p := range problems {
		if p.Cause == "" || p.Want == "" {
			tb.Errorf("%q lacks a cause or a right form", p)
		}
		if strings.ContainsAny(p.String(), "\n\r") {
			tb.Errorf("%q has more than one line", p)
		}
		if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCount(lines[p.Line-1])+1 {
			tb.Errorf("%q points outside of the file", p)
		}
	}
	if !slices.IsSortedFunc(problems, func(a, b Problem) int { return a.Line - b.Line }) {
		tb.Errorf("not in the order of the file:\n%v", problems)
	}
}

func TestGoodFiles(t *testing.T) {
	for name, data := range corpus(t, "good") {
		t.Run(name, func(t *testing.T) {
			f, err := format.Read(data, "lab.yaml")
			if err != nil {
				t.Fatal(err)
			}
			checkRoundTrip(t, f)
			complete, err := Marshal(f.Lab)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "good", name+".complete"), complete)
		})
	}
}

// checkRoundTrip states that the file with all defaults, as YAML and as JSON,
// asks for the same lab.
func checkRoundTrip(tb testing.TB, f File) {
	tb.Helper()
	asYAML, err := Marshal(f.Lab)
	if err != nil {
		tb.Fatal(err)
	}
	asJSON, err := json.Marshal(f.Lab)
	if err != nil {
		tb.Fatal(err)
	}
	for _, data := range [][]byte{asYAML, asJSON} {
		again, err := format.Read(data, "complete")
		if err != nil {
			tb.Fatalf("%v\nin:\n%s", err, data)
		}
		if !reflect.DeepEqual(again.Lab, f.Lab) {
			tb.Errorf("got lab %+v, want %+v, from:\n%s", again.Lab, f.Lab, data)
		}
		if !reflect.DeepEqual(again.Topology, f.Topology) {
			tb.Errorf("got topology %+v, want %+v, from:\n%s", again.Topology, f.Topology, data)
		}
	}
}

// TestEveryValueReplaced puts awkward values in the place of each value of each
// file: whatever comes of it is answered, and in one line for each problem.
func TestEveryValueReplaced(t *testing.T) {
	awkward := map[string]yaml.Node{
		"null":       {Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"},
		"number":     {Kind: yaml.ScalarNode, Tag: "!!int", Value: "8080"},
		"two lines":  {Kind: yaml.ScalarNode, Tag: "!!str", Value: "a\nb"},
		"name":       {Kind: yaml.ScalarNode, Tag: "!!str", Value: "market"},
		"app":        {Kind: yaml.ScalarNode, Tag: "!!str", Value: "broker-webapp"},
		"binary":     {Kind: yaml.ScalarNode, Tag: "!!binary", Value: "bmFtZQ=="},
		"wrong type": {Kind: yaml.ScalarNode, Tag: "!!int", Value: "name", Style: yaml.TaggedStyle},
		"own type":   {Kind: yaml.ScalarNode, Tag: "!own", Value: "name"},
		"object":     {Kind: yaml.MappingNode, Tag: "!!map"},
		"list":       {Kind: yaml.SequenceNode, Tag: "!!seq"},
	}
	for _, path := range []string{"good/settings", "good/key-types", "good/two-brokers", "good/profiles", "good/calls", "good/registrations", "bad/everything", "bad/clusters-missing-for-broker"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			folder, name := filepath.Split(path)
			var root yaml.Node
			if err := yaml.Unmarshal(corpus(t, folder)[name], &root); err != nil {
				t.Fatal(err)
			}
			var each func(n *yaml.Node)
			each = func(n *yaml.Node) {
				before := *n
				for kind, value := range awkward {
					*n = value
					changed, err := yaml.Marshal(&root)
					if err != nil {
						t.Fatal(err)
					}
					if f, err := format.Read(changed, "lab.yaml"); err == nil {
						checkInvariants(t, f.Topology)
					} else if problems := (Problems{}); errors.As(err, &problems) {
						checkProblems(t, problems, changed)
					} else {
						t.Errorf("with %s: got %v, want Problems, for:\n%s", kind, err, changed)
					}
				}
				*n = before
				for _, child := range n.Content {
					each(child)
				}
			}
			each(root.Content[0])
		})
	}
}

func FuzzLoad(f *testing.F) {
	for _, folder := range []string{"good", "bad"} {
		for _, data := range corpus(f, folder) {
			f.Add(data)
		}
	}
	for _, name := range Presets() {
		preset, err := Init(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(preset)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := format.Read(data, "lab.yaml")
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("Read: got error %v, want Problems", err)
			}
			checkProblems(t, problems, data)
			return
		}
		checkInvariants(t, file.Topology)
		checkRoundTrip(t, file)
	})
}
