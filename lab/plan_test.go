package lab_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestPlan(t *testing.T) {
	// One lab of the plans has programs of one's own.
	intents := map[string]topology.Topology{}
	own, err := config.For(demo.Apps()).Open("../docs/guides/payments/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	intents["payments"] = own.Topology
	intents["spread"], intents["nested"], intents["hosts"] = spread(t), nested(t), hosted(t)
	intents["tokens"] = tokens(t)
	for _, preset := range config.Presets() {
		intents[preset] = presetOf(t, preset)
	}
	for name, intent := range intents {
		p, err := (&lab.Driver{}).Plan(intent)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, s := range p.Steps() {
			_, _ = fmt.Fprintf(&b, "%s: %s\n", s.Name, s.Title)
			for _, id := range s.After {
				_, _ = fmt.Fprintf(&b, "  after %s\n", id)
			}
		}
		golden(t, "plan-"+name+".txt", b.String())
	}
}

// TestLabFilesOfGuides: the suite brings them up, and that takes its time.
func TestLabFilesOfGuides(t *testing.T) {
	for _, pattern := range []string{"../docs/guides/*.yaml", "../docs/guides/*/lab.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: error %v, found %v", pattern, err, paths)
		}
		for _, path := range paths {
			opened, err := config.For(demo.Apps()).Open(path)
			if err == nil {
				_, err = (&lab.Driver{}).Plan(opened.Topology)
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func TestPlanRefusesWhatDoesNotHold(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*topology.Topology)
		want  string
	}{
		"a relationship of nobody": {func(top *topology.Topology) { top.TrustDomains = top.TrustDomains[:1] }, `lab quotes has no trust domain "cluster2.com"`},
		"a call to nobody":         {func(top *topology.Topology) { top.Workloads = top.Workloads[1:] }, `lab quotes has no workload "stock-quotes"`},
		"two clusters of one name": {func(top *topology.Topology) { top.Clusters[1].Name = "market" }, `lab quotes has two clusters "market"`},
		"a workload without place": {func(top *topology.Topology) { top.Workloads[0].Cluster = "moon" }, `workload stock-quotes: lab quotes has no cluster "moon"`},
	} {
		t.Run(name, func(t *testing.T) {
			top := quotes(t)
			tt.spoil(&top)
			if _, err := (&lab.Driver{}).Plan(top); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v lacks %q", err, tt.want)
			}
		})
	}
}

// TestPlanReadsAsATableOfContents: what a bring-up consists of is seen at one look.
func TestPlanReadsAsATableOfContents(t *testing.T) {
	const most = 40
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	lines := map[string]int{}
	for _, name := range files {
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			if of, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
				lines[fmt.Sprint(of.X)+"."+f.Name.Name] = set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1
			}
		}
	}
	for _, name := range []string{"Driver.Plan", "survey.contents", "up.contents"} {
		if n := lines[name]; n == 0 || n > most {
			t.Errorf("%s has %d lines, want at most %d: give its parts functions of their own", name, n, most)
		}
	}
}
