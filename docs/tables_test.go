package docs_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/e2e/mutants"
	"github.com/fedlab-dev/fedlab/lab/doctor"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/host"
	"github.com/fedlab-dev/fedlab/lab/troubles"
	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/mutant"
)

// TestTiming says when the table of docs/concepts.md is not that of the code;
// -update writes it.
func TestTiming(t *testing.T) { made(t, "docs/concepts.md", "timing", timing()) }

// TestDiagnoses says when what documents say of doctor is not what the code has; -update
// writes it.
func TestDiagnoses(t *testing.T) {
	var b, symptoms, steps strings.Builder
	for _, e := range doctor.Catalogue() {
		at := string(e.Kind)
		if e.Note {
			at += "; a note"
		}
		fmt.Fprintf(&b, "### `%s`\n\n%s\n\nWhat to do: %s\n\nAbout: %s.\n\n", e.ID, e.Cause, asCommands(e.Cure), cmp.Or(at, "what could not be asked"))
	}
	made(t, "docs/troubleshooting.md", "diagnoses", b.String())
	for _, s := range doctor.Symptoms() {
		fmt.Fprintf(&symptoms, "- `%s`: %s. %s\n", s.Says, s.Check, ofDiagnoses(s.IDs, "#"))
	}
	made(t, "docs/troubleshooting.md", "symptoms", symptoms.String())
	steps.WriteString("| command | what doctor does | what it says |\n|---|---|---|\n")
	for _, s := range doctor.Steps() {
		fmt.Fprintf(&steps, "| `%s` | %s | %s |\n", strings.ReplaceAll(s.Command, "|", "\\|"), s.Check, cmp.Or(ofDiagnoses(s.IDs, "troubleshooting.md#"), "-"))
	}
	made(t, "docs/from-an-article.md", "steps", steps.String())
}

// ofDiagnoses lists IDs, each with a link to what there is to know of it.
func ofDiagnoses(ids []doctor.ID, document string) string {
	var all []string
	for _, id := range ids {
		all = append(all, fmt.Sprintf("[`%s`](%s%s)", id, document, id))
	}
	return strings.Join(all, ", ")
}

// asCommands has the commands of a message as a document writes them.
func asCommands(text string) string {
	return regexp.MustCompile(`'(fedlab [^']*)'`).ReplaceAllString(text, "`bin/$1`")
}

// TestEachDiagnosisIsExplained: 'fedlab explain ID' finds each, by its ID alone.
func TestEachDiagnosisIsExplained(t *testing.T) {
	document, err := os.ReadFile(filepath.Join(root, "docs/troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	entries := troubles.Read(string(document))
	for _, id := range doctor.IDs() {
		if found := troubles.Find(entries, string(id)); len(found) == 0 || found[0].Title != string(id) {
			t.Errorf("explain %s finds %+v", id, found)
		}
	}
}

// TestCatalogue says when the table of docs/scenarios.md is not that of the code;
// -update writes it.
func TestAlerts(t *testing.T) { made(t, "docs/guides/watch.md", "alerts", alerts()) }

// alerts are those of a watch, with what they are for a lab that polls each 15 s.
func alerts() string {
	var b strings.Builder
	b.WriteString("| alert | what it says | after | for Prometheus |\n|---|---|---|---|\n")
	for _, r := range watch.Rules(watch.Intervals{Poll: 15 * time.Second}).Groups[0].Rules {
		fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` |\n", r.Alert, r.Annotations["summary"], map[string]string{"": "at once", "15s": "1 poll", "30s": "2 polls"}[r.For], strings.ReplaceAll(r.Expr, "|", "\\|"))
	}
	return b.String()
}

func TestMetrics(t *testing.T) { made(t, "docs/guides/watch.md", "metrics", metricTable()) }

func metricTable() string {
	var b strings.Builder
	b.WriteString("| metric | kind | labels | what it is |\n|---|---|---|---|\n")
	for _, m := range watch.Metrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, [...]string{"gauge", "counter", "histogram"}[m.Kind], strings.Join(m.Labels, ", "), m.Help)
	}
	return b.String()
}

func TestCatalogue(t *testing.T) { made(t, "docs/scenarios.md", "catalogue", catalogue()) }

// TestClaims says when the table of docs/reference/claims.md is not that of the catalogue;
// -update writes it.
func TestClaims(t *testing.T) {
	var b strings.Builder
	for _, s := range scenarios.Catalogue() {
		fmt.Fprintf(&b, "\n## `%s`\n\n%s\n\n| words of the claim | carried by |\n|---|---|\n", s.Name, s.Claim)
		for _, p := range s.Parts {
			fmt.Fprintf(&b, "| %s | %s |\n", cmp.Or(p.Words, "*control*"), strings.Join(p.By, "<br>"))
		}
	}
	b.WriteString("\n")
	made(t, "docs/reference/claims.md", "claims", b.String())
}

// TestMutants says when the table of mutants in docs/scenarios.md is not that of the suite;
// -update writes it.
func TestMutants(t *testing.T) {
	var b strings.Builder
	b.WriteString("\n| scenario | mutation | what catches it |\n|---|---|---|\n")
	for _, m := range mutants.All() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", m.Scenario, m.Mutation, m.Caught)
	}
	b.WriteString("\n")
	made(t, "docs/scenarios.md", "mutants", b.String())
}

// made compares what stands between two marks of a document with what the code
// makes of it.
func made(t *testing.T, document, what, want string) {
	t.Helper()
	begin, end := "<!-- BEGIN "+what+": made by go test ./docs -update -->\n", "<!-- END "+what+" -->"
	write(t, document, begin, end, want)
}

// write is made for a document whose table has marks of its own.
func write(t *testing.T, document, begin, end, want string) {
	t.Helper()
	inside := section(t, document, begin, end)
	if inside == want {
		return
	}
	if !*update {
		t.Errorf("%s has\n%s\nand the code says\n%s", document, inside, want)
		return
	}
	source := string(documents(t)[document])
	source = strings.Replace(source, begin+inside+end, begin+want+end, 1)
	if err := os.WriteFile(filepath.Join(root, document), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
}

func catalogue() string {
	var b strings.Builder
	b.WriteString("\n| scenario | what it claims | labels |\n|---|---|---|\n")
	for _, s := range scenarios.Catalogue() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Name, s.Claim, strings.Join(s.Labels, ", "))
	}
	b.WriteString("\n")
	return b.String()
}

// TestEachRowIsShown: what the documents say of changes by hand, a test shows. A row
// names the package of the test, and its function or the name of the case.
func TestEachRowIsShown(t *testing.T) {
	const document = "docs/troubleshooting.md"
	rows := regexp.MustCompile(`(?m)^\| [^|]+ \| [^|]+ \| [^|]+ \| ([^|]+) \|$`).FindAllStringSubmatch(section(t, document, "\n## What you change by hand\n", "\n## "), -1)
	if len(rows) < 2 {
		t.Fatalf("%s has no table of changes", document)
	}
	for _, row := range rows[1:] {
		tests := regexp.MustCompile("`([a-z0-9/]+): ([^`]+)`").FindAllStringSubmatch(row[1], -1)
		if len(tests) == 0 {
			t.Errorf("no test is named in %q", row[0])
		}
		for _, test := range tests {
			if dir, name := test[1], test[2]; !cases(t, dir)[name] {
				t.Errorf("%s names the test %q, which %s does not have", document, name, dir)
			}
		}
	}
}

// cases returns the names of the test functions of a package, and what is written in
// quotes in their files.
func cases(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for name := range files(t, "_test.go") {
		if filepath.ToSlash(filepath.Dir(name)) != dir {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				all[n.Name.Name] = true
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil {
					all[text] = true
				}
			}
			return true
		})
	}
	return all
}

// TestEachMutationIsExplained compares the table of mutations with the code.
func TestEachMutationIsExplained(t *testing.T) {
	var explained []mutant.Mutation
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(section(t, "docs/scenarios.md", "\n## Mutations\n", "\n## "), -1) {
		explained = append(explained, mutant.Mutation(row[1]))
	}
	if want := mutant.Mutations(); !slices.Equal(explained, want) {
		t.Errorf("docs/scenarios.md explains the mutations %q, want %q", explained, want)
	}
}

// TestGoAPIHasWhatTheExampleImports: who copies the example, and who reads which
// types its packages have, imports nothing that may go without a word.
func TestGoAPIHasWhatTheExampleImports(t *testing.T) {
	const document, example = "docs/reference/go.md", "scenarios/trial/example_test.go"
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, example), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, spec := range parsed.Imports {
		local, found := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "github.com/fedlab-dev/fedlab/")
		if !found {
			continue
		}
		ours++
		if row := fmt.Sprintf("| [%s](../../%s) | ", local, local); !strings.Contains(string(documents(t)[document]), row) {
			t.Errorf("%s imports %s, and %s does not list it", example, local, document)
		}
	}
	if ours == 0 {
		t.Errorf("%s imports nothing of fedlab", example)
	}
}

func timing() string {
	var b strings.Builder
	b.WriteString("\n| the bundle's refresh hint | the peer polls every | a new authority reaches a workload within |\n|---|---|---|\n")
	const day = 24 * time.Hour
	for _, row := range []struct {
		what       string
		hint, life time.Duration
	}{
		{"1m, a lab's default, or less", time.Minute, day},
		{"5m, SPIRE's default", 5 * time.Minute, day},
		{"1h", time.Hour, day},
		{"none, and an authority of 24h", 0, day},
		{"none, and an authority of ten years", 0, 3652 * day},
	} {
		poll := federation.PollInterval(row.hint, row.life)
		fmt.Fprintf(&b, "| %s | %s | %s |\n", row.what, say(poll), say(federation.PropagationBound(poll)))
	}
	b.WriteString("\n| an authority's life | its successor is published by | and signs by | time to hear of it |\n|---|---|---|---|\n")
	for _, life := range []time.Duration{6 * time.Minute, time.Hour, day, 365 * day} {
		prepared, activated := federation.PreparedBy(life), federation.ActivatedBy(life)
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", say(life), say(prepared), say(activated), say(activated-prepared))
	}
	b.WriteString("\n")
	return b.String()
}

// say writes a duration as people do: in days where hours would be many, and
// without units of none.
func say(d time.Duration) string {
	if days := d / (24 * time.Hour); days >= 2 {
		return fmt.Sprintf("%d days", days)
	}
	text := d.String()
	text = regexp.MustCompile(`([hm])0s$`).ReplaceAllString(text, "$1")
	return regexp.MustCompile(`h0m$`).ReplaceAllString(text, "h")
}

// TestReadmeSaysWhatALabNeeds asks what judges the machine.
func TestReadmeSaysWhatALabNeeds(t *testing.T) {
	full := &host.Space{Device: 1}
	findings := host.Machine{MemoryTotal: 1, DockerSpace: full, CacheSpace: full}.Findings(host.Needs{Clusters: 2, BuildImages: true})
	readme := string(documents(t)["README.md"])
	for _, subject := range []string{"memory", "disk of Docker"} {
		i := slices.IndexFunc(findings, func(f host.Finding) bool { return f.Subject == subject })
		if i < 0 {
			t.Errorf("nothing is found about the %s", subject)
			continue
		}
		amount, _, _ := strings.Cut(findings[i].Need, " GiB")
		number, err := strconv.ParseFloat(amount, 64)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%g GiB of %s", number, strings.Fields(subject)[0]); !strings.Contains(readme, want) {
			t.Errorf("README.md does not say %q", want)
		}
	}
}

// TestEachDependencyHasItsReason compares the list with what the code imports,
// tests included, and with the tools of go.mod.
func TestEachDependencyHasItsReason(t *testing.T) {
	const document = "docs/decisions/0002-dependencies.md"
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var required []string
	direct := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\s*([a-z0-9.-]+\.[a-z]+/\S+) v\S+`).FindAllStringSubmatch(string(data), -1) {
		required = append(required, m[1])
	}
	use := func(imported, by string) {
		// The longest path wins: a module may lie below another one.
		var module string
		for _, m := range required {
			if (imported == m || strings.HasPrefix(imported, m+"/")) && len(m) > len(module) {
				module = m
			}
		}
		if module != "" {
			direct[module] = by
		}
	}
	for _, tool := range regexp.MustCompile(`(?m)^tool (\S+)`).FindAllStringSubmatch(string(data), -1) {
		use(tool[1], "go.mod")
	}
	for name := range files(t, ".go") {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			use(imported, name)
		}
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\S+)` \\| (.+) \\|$").FindAllStringSubmatch(string(documents(t)[document]), -1) {
		if listed[row[1]] {
			t.Errorf("%s lists %s twice", document, row[1])
		}
		listed[row[1]] = true
	}
	for _, module := range slices.Sorted(maps.Keys(direct)) {
		if !listed[module] {
			t.Errorf("%s does not say why %s, which %s imports", document, module, direct[module])
		}
	}
	for _, module := range slices.Sorted(maps.Keys(listed)) {
		if direct[module] == "" {
			t.Errorf("%s lists %s, which nothing imports", document, module)
		}
	}
}
