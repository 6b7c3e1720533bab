package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/e2e/guide"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// guides are the documents that are run. Their labs cost less than a minute
// each; specs that only look at a lab share the suite's own.
func guides() []string {
	found, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	if err != nil {
		panic(err) // the pattern is wrong
	}
	return found
}

// onEachSubmission is the guide that people begin with; the others are for the night.
const onEachSubmission = "first-lab"

var _ = Describe("The guide", Label("guide", "slow"), func() {
	for _, path := range guides() {
		name := strings.TrimSuffix(filepath.Base(path), ".md")
		labels := Label("night")
		if name == onEachSubmission {
			labels = Label()
		}

		It(name+" does what it shows", labels, func(ctx SpecContext) {
			under.rests(ctx)
			source, err := os.ReadFile(path)
			Expect(err).NotTo(HaveOccurred())
			checkout := filepath.Join(under.scratch, "guide-"+name)
			Expect(guide.Copy(checkout, root)).To(Succeed())
			DeferCleanup(os.RemoveAll, checkout)
			preset := labOf(source)
			opened := preset
			if strings.HasSuffix(preset, ".yaml") {
				opened = filepath.Join(checkout, preset)
			}
			file, err := labFile(ctx, opened, "guide-")
			Expect(err).NotTo(HaveOccurred())
			lesson, err := existing(under.command, file)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(lesson.close)
			DeferCleanup(lesson.end, name, NodeTimeout(2*time.Minute))
			shown, err := config.For(demo.Apps()).Open(opened)
			Expect(err).NotTo(HaveOccurred())
			began := time.Now()
			Expect(guide.Run(ctx, filepath.Join("docs", "guides", filepath.Base(path)), guide.Options{
				Dir: checkout,
				// A person types in a shell that no make has started, and commands
				// leave their traces where those of other specs do.
				Env:    []string{"LAB=" + file, "KUBECONFIG=" + filepath.Join(checkout, "kubeconfig"), "TMPDIR=" + under.tmp(), "MAKEFLAGS=", "MAKELEVEL=", "NO_COLOR=1"},
				Rename: renamed(preset, shown.Topology, file, lesson.graph.Intent()),
				Log:    GinkgoWriter,
			})).To(Succeed())
			measured("the guide takes", began)
			Expect(docker(ctx, "ps", "--all", "--quiet", "--filter", "name=^/"+lesson.graph.Name+"-")).To(BeEmpty(), "a guide takes down what it brings up")
		}, SpecTimeout(15*time.Minute))
	}
})

// end removes the lab of a guide that did not come to its end, with evidence.
func (s *subject) end(ctx context.Context, guide string) {
	if CurrentSpecReport().Failed() {
		s.gather(ctx, "guide "+guide)
	}
	Expect(s.fedlab(ctx, "down")).To(endWell())
}

// labOf returns the one lab that a guide brings up: that of a file next to it, the
// preset that it names, or else the default.
func labOf(source []byte) string {
	if file := regexp.MustCompile(`LAB=(docs/guides/\S+\.yaml)`).FindSubmatch(source); file != nil {
		return string(file[1])
	}
	for _, name := range config.Presets() {
		if name != config.DefaultPreset && regexp.MustCompile(`(LAB=|--lab )`+regexp.QuoteMeta(name)+`\b`).Match(source) {
			return name
		}
	}
	return config.DefaultPreset
}

// renamed makes a guide that speaks of a preset work on a lab of another name,
// with other ports: where a lab is named as one, and not each time that the word
// comes up.
func renamed(preset string, shown topology.Topology, file string, own topology.Topology) *strings.Replacer {
	pairs := []string{"LAB=" + preset, "LAB=" + file, "--lab " + preset, "--lab " + file, "lab " + shown.Name, "lab " + own.Name}
	for _, c := range shown.Clusters {
		pairs = append(pairs, shown.Name+"-"+c.Name, own.Name+"-"+c.Name)
	}
	for _, h := range shown.Hosts {
		pairs = append(pairs, shown.Name+"-"+h.Name, own.Name+"-"+h.Name)
	}
	address := func(w topology.WorkloadSpec) string { return strings.TrimSuffix(w.URL(), w.App.Page) }
	for i, w := range shown.Workloads { // own has them in the same order
		if w.URL() != "" {
			pairs = append(pairs, address(w), address(own.Workloads[i]))
		}
	}
	return strings.NewReplacer(pairs...)
}
