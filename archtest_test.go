package fedlab_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/fedlab-dev/fedlab"

// layer says what the packages at a path and below may import, besides the
// standard library and what is below the same path. The longest path counts.
type layer struct {
	path string
	may  []string
	why  string
}

// anything is for those who put the parts together.
const anything = "*"

// kindDefaults is the one package of kind that only names something: the node
// image that was made for that version.
const kindDefaults = "sigs.k8s.io/kind/pkg/apis/config/defaults"

// core is what all else may build on.
var core = []string{"lab/topology", "lab/plan", "lab/check", "lab/federation"}

func layers() []layer {
	const (
		goSPIFFE = "github.com/spiffe/go-spiffe/v2"
		goJOSE   = "github.com/go-jose/go-jose/v4"
		gRPC     = "google.golang.org/grpc"
		sync     = "golang.org/x/sync"
		flock    = "github.com/gofrs/flock"

		registries = "github.com/google/go-containerregistry"
	)
	library := func(more ...string) []string { return append(slices.Clone(core), more...) }
	return []layer{
		{".", nil, "the root holds the files that the command carries along, and nothing else"},
		{"cmd/fedlab", []string{anything}, "the command puts everything together"},
		{"e2e", []string{anything}, "the suite looks at real labs from all sides"},
		{"docs", []string{anything}, "the documents are held against what they speak of"},
		{"charts", nil, "charts are files; who installs them knows them, not the other way round"},
		{
			"apps", []string{"lab/web", goSPIFFE, goJOSE, gRPC, sync, "google.golang.org/protobuf", "github.com/jackc/pgx/v5"},
			"a demo program is what a user of SPIFFE would write: it knows nothing of the lab that runs it; to whom a page answers is one rule for all pages",
		},
		{"apps/internal/streams", []string{"apps/internal", "lab/traffic", goSPIFFE}, "the record of calls is one type, for those who write it and those who read it"},
		{"apps/probe", []string{"apps/internal", "lab/traffic", goSPIFFE, gRPC, sync}, "the record of calls is one type, for those who write it and those who read it"},
		{"apps/plain-service", []string{"apps/internal/process", sync}, "it stands for programs that know nothing of SPIFFE"},
		{"apps/synthetic", []string{"apps/internal", "lab/traffic", "lab/synthetic", goSPIFFE, sync}, "the synthetic trust domain is a library, so that tests have it in their process; the program only serves it"},

		{"scenarios", library("lab/fault", "lab/traffic", "lab/synthetic", "lab/spire", goSPIFFE), "the catalogue is written in the words that another repository has, too: it knows neither the driver nor an adapter"},
		{"scenarios/trial", library("lab", "lab/access", "lab/fault", "lab/traffic", "lab/synthetic", "lab/spire", goSPIFFE), "the engine runs any scenario: it is given a lab, and knows neither the catalogue nor Ginkgo nor an adapter"},
		{"scenarios/mutant", []string{"scenarios/trial", "lab/check", "lab/fault", "lab/traffic"}, "a mutant is made from the outside, of any scenario"},
		{"scenarios/report", []string{"scenarios/trial", "lab/federation", "lab/look", "lab/traffic"}, "a report is made of records alone"},

		{"lab", library("lab/access", "lab/doctor", "lab/spire", "lab/metallb", "lab/pki", "lab/traffic", "lab/watch", goSPIFFE, "golang.org/x/net/dns/dnsmessage"), "the driver is given its parts, so that it is tested, and compiled, without kind, Helm and client-go"},
		{"lab/demo", []string{"lab/topology", "lab/spire", goSPIFFE}, "the demo programs are guests: they know what a workload is, and nothing of who runs it"},
		{"lab/access", nil, "the ports are the ground floor: whoever acts through them and whoever implements them do not have to know each other"},
		{"lab/local", []string{anything}, "here the driver is given its parts, and only here"},
		{"lab/topology", []string{goSPIFFE}, "intent is values: whoever reads them does not have to know what runs"},
		{"lab/config", []string{"lab/topology", goSPIFFE, "go.yaml.in/yaml/v3", "github.com/google/jsonschema-go"}, "the lab file is one way to write intent down; only that is known here"},
		{"lab/plan", nil, "a plan is data, and knows nothing of what its steps do"},
		{"lab/check", nil, "waiting knows nothing of what is waited for"},
		{"lab/federation", []string{goSPIFFE}, "rules on bundles are pure: they are told what servers said"},
		{"lab/watch", []string{"lab/federation"}, "what is watched is judged by what was seen alone, wherever that comes from"},
		{"lab/watch/exporter", []string{"lab/watch", "github.com/prometheus/client_golang"}, "an adapter is a library of its own: it shows what was seen, whoever saw it"},
		{"lab/watch/notify", []string{"lab/watch"}, "whom a finding is told does not change what it is"},
		{"lab/doctor", []string{"lab/topology"}, "which of what was found is the cause follows from what needs what, whoever has looked"},
		{"lab/traffic", nil, "a stored record can be judged wherever it is read"},
		{"lab/fault", library("lab/access", "lab/spire", goSPIFFE), "a fault acts through small interfaces, so that each of its calls can be seen to fail"},
		{"lab/synthetic", []string{"lab/traffic", goSPIFFE}, "a trust domain that is made up needs nothing that runs"},
		{"lab/spire", library(goSPIFFE, gRPC, "github.com/spiffe/spire-api-sdk"), "one server's API in domain types; how a pod is reached comes from the caller"},
		{"lab/spire/spiretest", []string{goSPIFFE, "lab/pki", "golang.org/x/net/dns/dnsmessage"}, "real programs are run for tests, with what they need around them"},
		{"lab/metallb", nil, "address pools as values"},
		{"lab/pki", nil, "certificates of the web are made without knowing what they are for"},
		{"lab/images", library("lab/docker", registries, sync), "images know Docker and not labs, so that they are built before any"},
		{"lab/images/store", []string{"lab/plan", flock}, "the store keeps folders, whatever is in them"},
		{"lab/images/layer", []string{registries}, "a layer is files, wherever they come from"},
		{"lab/images/upstream", nil, "pins are files"},
		{"lab/images/build", []string{"lab/images/store", "lab/images/layer", "lab/plain", "golang.org/x/mod"}, "what is built knows what it is built of, and not what for"},
		{"lab/images/pull", []string{registries}, "a registry is asked for an image, whichever that is"},
		{"lab/images/node", []string{"lab/images/layer"}, "the files of a node do not know who runs it"},
		{"lab/images/recipe", []string{"lab/images/store", "lab/images/layer", "lab/images/upstream", "lab/images/build", "lab/images/pull", "lab/images/node", registries, kindDefaults}, "a recipe says what is made of what, and makes nothing"},
		{"lab/images/engine", library("lab/docker", "lab/images/store", "lab/images/layer", registries), "the engine is given images, and does not know what is in them"},
		{"lab/images/archive", []string{"lab/images/layer", registries, "github.com/klauspost/compress"}, "an archive has images, whichever a lab needs"},
		{"lab/images/own", []string{"lab/images/layer", registries, "github.com/klauspost/compress"}, "an image of somebody's is read and kept, wherever it comes from and whatever it is for"},
		{"lab/images/internal/imagestest", []string{"lab/check", registries}, "the tests of each room use it, so that it imports none"},
		{"lab/troubles", nil, "what goes wrong is told in a document: finding an entry needs no lab"},
		{"lab/host", nil, "what a machine lacks is found before anything else is installed"},
		{"lab/plain", nil, "foreign text is made plain wherever it is written, whatever it means"},
		{"lab/evidence", library(sync, "lab/look", "lab/plain"), "evidence is gathered through what the caller brings, so that it works on a lab in any state"},
		{"lab/look", nil, "pages look the same, whatever they show"},
		{"lab/live", library("lab/watch", "lab/look", "lab/web"), "the page is handed what it shows, so that a recording is shown as a lab is"},
		{"lab/web/webtest", []string{"lab/check", "github.com/chromedp"}, "the tests of each page use it, so that it knows none"},
		{"lab/web", nil, "to whom a page answers does not hang on what it shows"},

		{"lab/lock", []string{flock}, "an adapter is a library of its own: it knows neither labs nor other adapters"},
		{"lab/sidecar", []string{"lab/check", "github.com/testcontainers/testcontainers-go", "github.com/moby/moby/api/types", "github.com/containerd/errdefs"}, "an adapter is a library of its own: it knows neither labs nor other adapters"},
		{"lab/docker", []string{"github.com/docker/cli", "github.com/moby/moby", "github.com/containerd/errdefs"}, "an adapter is a library of its own: it knows neither labs nor other adapters"},
		{"lab/kindcluster", []string{"sigs.k8s.io/kind", "go.yaml.in/yaml/v3"}, "an adapter is a library of its own: it knows neither labs nor other adapters"},
		{"lab/kube", []string{"lab/access", "k8s.io", "github.com/go-logr/logr"}, "an adapter is a library of its own: it implements ports, and knows neither labs nor other adapters"},
		{"lab/helmrelease", []string{"lab/access", "helm.sh/helm/v3", "k8s.io", "sigs.k8s.io/yaml"}, "an adapter is a library of its own: it implements ports, and knows neither labs nor other adapters"},
	}
}

// gate says who alone may import a library, in tests, too. The first that fits
// counts.
type gate struct {
	library string
	by      []string
	// tests are packages whose tests may, too.
	tests []string
	why   string
}

func gates() []gate {
	return []gate{
		{kindDefaults, []string{"lab/kindcluster", "lab/images/recipe"}, nil, "which node image a version of kind wants concerns only who makes nodes and images"},
		{"sigs.k8s.io/kind", []string{"lab/kindcluster"}, nil, "kind changes its API between versions, and takes no context: one place lives with that"},
		{"helm.sh/helm", []string{"lab/helmrelease"}, []string{"charts"}, "Helm takes minutes to compile; the tests of the charts render with it"},
		{"k8s.io/client-go", []string{"lab/kube", "lab/helmrelease"}, []string{"charts"}, "client-go takes minutes to compile; Helm's configuration is made of it; the tests of the charts apply what they render to its fake"},
		{"github.com/testcontainers", []string{"lab/sidecar"}, nil, "its settings are read once in a process, and one place sees to them"},
		{"github.com/docker", []string{"lab/docker"}, nil, "which engine all parts use is found in one place"},
		{"github.com/moby/moby/api/types", []string{"lab/docker", "lab/sidecar"}, nil, "testcontainers-go takes in these types which ports are published; they ask for nothing by themselves"},
		{"github.com/moby", []string{"lab/docker"}, nil, "which versions of Docker's API are spoken is decided in one place"},
		{"github.com/google/go-containerregistry", []string{"lab/images"}, []string{"e2e"}, "what an image is made of is known in one place; the suite stands for the registries that images are pulled from"},
		{"github.com/spiffe/spire-api-sdk", []string{"lab/spire"}, []string{"lab"}, "all else speaks of SPIRE in domain types; the tests of the driver serve the API"},
		{"github.com/prometheus", []string{"lab/watch/exporter"}, nil, "how Prometheus is answered concerns one place; what there is to show is a table of package watch"},
		{"github.com/spf13", []string{"cmd/fedlab/internal/cli"}, nil, "flags and arguments end at the command"},
		{"github.com/onsi/ginkgo", []string{"e2e"}, nil, "only specs assert; a library returns errors"},
		{"github.com/onsi/gomega", []string{"e2e"}, nil, "only specs assert; a library returns errors"},
	}
}

// source is one Go file of the module.
type source struct {
	name, dir string
	test      bool
	imports   []string
	syntax    *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	set := token.NewFileSet()
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || anotherModule(name)):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s := source{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), syntax: file}
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, imported)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d files", len(all))
	}
	return all
}

func anotherModule(dir string) bool {
	_, err := os.Stat(path.Join(dir, "go.mod"))
	return !errors.Is(err, fs.ErrNotExist)
}

// within reports whether a package is at a path or below.
func within(pkg, at string) bool {
	return pkg == at || strings.HasPrefix(pkg, at+"/")
}

// layerOf returns the layer of a folder; lab's own files are no others' layer.
func layerOf(all []layer, dir string) (layer, bool) {
	var found layer
	for _, l := range all {
		if (within(dir, l.path) && l.path != "lab" || dir == l.path) && len(l.path) > len(found.path) {
			found = l
		}
	}
	return found, found.path != ""
}

// refused says why a file may not import something, "" if it may.
func refused(all []layer, s source, imported string) string {
	local, ours := strings.CutPrefix(imported, module+"/")
	if imported == module {
		local, ours = ".", true
	}
	if first, _, _ := strings.Cut(imported, "/"); !ours && !strings.Contains(first, ".") {
		return "" // the standard library
	}
	l, known := layerOf(all, s.dir)
	switch {
	case !known:
		return "no layer has " + s.dir + ": say in archtest_test.go what it may import, and why"
	case slices.Contains(l.may, anything), ours && l.path != "lab" && within(local, l.path):
		return ""
	case s.test && (l.path != "apps" || !ours):
		return "" // a test brings what it compares with
	}
	for _, may := range l.may {
		// The driver is not what lies below it.
		if within(imported, may) || ours && (local == may || may != "lab" && within(local, may)) {
			return ""
		}
	}
	return l.path + " may not: " + l.why
}

// unlocked says why a file may not import a library that stands behind a gate.
func unlocked(all []gate, s source, imported string) string {
	for _, g := range all {
		in := func(dir string) bool { return within(s.dir, dir) }
		if !within(imported, g.library) {
			continue
		}
		if slices.ContainsFunc(g.by, in) || s.test && slices.Contains(g.tests, s.dir) {
			return ""
		}
		return fmt.Sprintf("only %s may: %s", strings.Join(g.by, " and "), g.why)
	}
	return ""
}

func TestImports(t *testing.T) {
	layers, gates := layers(), gates()
	used := map[string]bool{}
	for _, s := range sources(t) {
		l, _ := layerOf(layers, s.dir)
		used[l.path] = true
		for _, imported := range s.imports {
			for _, why := range []string{refused(layers, s, imported), unlocked(gates, s, imported)} {
				if why != "" {
					t.Errorf("%s imports %s: %s", s.name, imported, why)
				}
			}
		}
	}
	for _, l := range layers {
		if !used[l.path] {
			t.Errorf("the layer %s is empty: take it out of archtest_test.go", l.path)
		}
	}
}

// TestImportRulesRefuse tries imports that must not be.
func TestImportRulesRefuse(t *testing.T) {
	const client = "k8s.io/client-go/kubernetes"
	for _, tt := range []struct {
		dir      string
		test     bool
		imported string
		want     string
	}{
		{"lab", false, module + "/lab/local", "lab may not: the driver is given its parts"},
		{"lab", false, client, "lab may not: the driver is given its parts"},
		{"lab", false, module + "/lab/demo", "lab may not: the driver is given its parts"},
		{"lab/config", false, module + "/lab/demo", "lab/config may not: the lab file is one way"},
		{"scenarios", false, module + "/lab/demo", "scenarios may not: the catalogue is written in the words"},
		{"lab/local", false, module + "/lab/demo", ""},
		{"lab", true, client, "only lab/kube and lab/helmrelease may: "},
		{"lab/plan", false, module + "/lab", "lab/plan may not: a plan is data"},
		{"scenarios", false, module + "/lab", "scenarios may not: the catalogue is written in the words"},
		{"scenarios", false, module + "/lab/kube", "scenarios may not: the catalogue is written in the words"},
		{"scenarios", false, module + "/scenarios/trial", ""},
		{"scenarios/trial", false, module + "/scenarios", "scenarios/trial may not: the engine runs any scenario"},
		{"scenarios/trial", false, module + "/lab/local", "scenarios/trial may not: the engine runs any scenario"},
		{"scenarios/mutant", false, module + "/scenarios", "scenarios/mutant may not: a mutant is made from the outside"},
		{"lab/access", false, module + "/lab/topology", "lab/access may not: the ports are the ground floor"},
		{"lab/fault", false, module + "/lab", "lab/fault may not: a fault acts through small interfaces"},
		{"lab/fault", false, module + "/lab/access", ""},
		{"lab/kube", false, module + "/lab/docker", "lab/kube may not: an adapter is a library of its own"},
		{"lab/kube", false, module + "/lab", "lab/kube may not: an adapter is a library of its own"},
		{"apps/stock-quotes", true, module + "/lab/check", "apps may not: a demo program is what a user of SPIFFE would write"},
		{"charts", false, module + "/lab/spire", "charts may not: charts are files"},
		{"cmd/fedlab/internal/cli", false, client, "only lab/kube and lab/helmrelease may: "},
		{"lab/new", false, module + "/lab/plan", "no layer has lab/new: "},
		{"lab/new", false, "fmt", ""},
		{"lab/kube", false, client, ""},
		{"lab/images/recipe", false, kindDefaults, ""},
		{"lab/images/recipe", false, "sigs.k8s.io/kind/pkg/cluster", "lab/images/recipe may not: a recipe says what is made of what"},
		{"lab/images/store", false, module + "/lab/images", "lab/images/store may not: the store keeps folders"},
		{"lab/images/build", false, module + "/lab/images/recipe", "lab/images/build may not: what is built knows what it is built of"},
		{"apps/frontend", true, "github.com/chromedp/chromedp", ""},
		{"lab/plan", true, module + "/lab/plan", ""},
		{"charts", true, "helm.sh/helm/v3/pkg/engine", ""},
	} {
		s := source{dir: tt.dir, test: tt.test}
		got := refused(layers(), s, tt.imported) + unlocked(gates(), s, tt.imported)
		if tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s (test %t) imports %s: %q, want %q", tt.dir, tt.test, tt.imported, got, tt.want)
		}
	}
}

// TestPackagesSayWhatTheyAreFor: every package has one doc comment, next to its
// code; a folder of tests has it in one of them.
func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	docs, code := map[string][]string{}, map[string]bool{}
	for _, s := range sources(t) {
		code[s.dir] = code[s.dir] || !s.test
		starts := "Package " + s.syntax.Name.Name + " "
		if s.syntax.Name.Name == "main" {
			starts = "Command "
		}
		if strings.HasPrefix(s.syntax.Doc.Text(), starts) {
			docs[s.dir] = append(docs[s.dir], s.name)
		}
	}
	for dir := range code {
		files := docs[dir]
		switch {
		case len(files) == 0:
			t.Errorf("%s: no file starts with a comment \"Package …\", or \"Command …\", that says what it is for", dir)
		case len(files) > 1:
			t.Errorf("%s: more than one file says what it is for: %v", dir, files)
		case code[dir] && strings.HasSuffix(files[0], "_test.go"):
			t.Errorf("%s: what it is for is said in a test, where no reader of the documentation sees it", dir)
		}
	}
}

// TestNothingRunsByItself: a package that is imported does nothing yet.
func TestNothingRunsByItself(t *testing.T) {
	for _, s := range sources(t) {
		if ast.IsGenerated(s.syntax) {
			continue
		}
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: what it sets up is state that nobody passed in", s.name)
			}
		}
	}
}
