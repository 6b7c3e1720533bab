package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Library gives out what labs run on, and makes what is not there yet.
type Library struct {
	Store  *Store
	Engine *docker.Client
	// Source is fedlab's own source, from which the demo programs Demos are
	// built.
	Source fs.FS
	Demos  []string
	// Observe is told what is being made; it may be nil.
	Observe func(plan.Event)
}

// Set names all that labs of one fedlab version run on.
type Set struct {
	// NodeImage is the Docker image of a cluster's node; every other image is
	// in it.
	NodeImage string
	// DefaultCNI reports that the node image brings a network of its own that
	// kind installs.
	DefaultCNI bool
	// Demos gives the reference of each demo program's image.
	Demos map[string]string
	// MetalLBChart is the folder with MetalLB's chart.
	MetalLBChart string
	// CRDs are the controller manager's CustomResourceDefinitions as YAML.
	CRDs [][]byte
}

// keys are the names of everything in a set.
type keys struct {
	artifacts map[string]string // by artifact name
	base      string            // node image with the upstream images
	node      string            // node image with the demo programs on top
}

func (l *Library) keys() (keys, error) {
	k := keys{artifacts: map[string]string{"rootfs": rootfsKey()}}
	var errs []error
	add := func(name string, key func() (string, error)) {
		value, err := key()
		k.artifacts[name] = value
		errs = append(errs, err)
	}
	for _, m := range modules() {
		add(m.name, m.key)
	}
	for _, e := range extracts() {
		add(e.name, e.key)
	}
	own, err := nodeFilesHash()
	errs = append(errs, err)
	base := []string{"node base 1", own}
	for _, img := range Catalogue() {
		base = append(base, img.Reference, img.Path, strings.Join(img.Packages, " "), k.artifacts[img.Artifact])
	}
	base = append(base, k.artifacts["rootfs"], k.artifacts["kind-files"], k.artifacts["kubernetes"])
	k.base = hash(base...)

	node := []string{"node 1", k.base}
	for _, d := range l.demos() {
		add(d.name, d.key)
		node = append(node, d.name, k.artifacts[d.name])
	}
	k.node = hash(node...)
	return k, errors.Join(errs...)
}

func nodeFilesHash() (string, error) {
	var texts []string
	err := fs.WalkDir(nodeFiles, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := nodeFiles.ReadFile(name)
		texts = append(texts, name, string(data))
		return err
	})
	return hash(texts...), err
}

func (l *Library) demos() []demo {
	var demos []demo
	for _, name := range l.Demos {
		demos = append(demos, demo{name: name, source: l.Source})
	}
	return demos
}

func baseReference(key string) string { return "fedlab.local/node-base:" + key }
func nodeReference(key string) string { return "fedlab.local/node:" + key }

// Need says how much of a set is asked for.
type Need int

const (
	// Parts is everything that clusters which run already may need: charts and
	// the demo programs.
	Parts Need = iota
	// Node is the node image as well, for clusters that are to be made.
	Node
)

// Ensure makes what is missing, side by side where it can, and returns the set.
// Killed at any moment, the next Ensure takes up what was finished, and of what
// was being compiled, what the Go build cache has.
func (l *Library) Ensure(ctx context.Context, need Need) (Set, error) {
	k, err := l.keys()
	if err != nil {
		return Set{}, err
	}
	p, err := l.plan(ctx, k, need)
	if err != nil {
		return Set{}, err
	}
	// Compilers use all cores by themselves; one build beside another fills
	// them while that one links.
	if err := (plan.Runner{Observe: l.Observe, Limit: max(2, runtime.NumCPU()/2)}).Run(ctx, p); err != nil {
		return Set{}, err
	}
	return l.set(k)
}

// plan holds a step for each artifact that is missing, and none where all that
// is needed is there.
func (l *Library) plan(ctx context.Context, k keys, need Need) (*plan.Plan, error) {
	m := &making{Library: l, keys: k, plan: &plan.Plan{}}
	for _, d := range l.demos() {
		m.build(d.name, "demo program "+d.name, 20*time.Second, d.fill)
	}
	base, err := m.missing(ctx, baseReference(k.base), need)
	if err != nil {
		return nil, err
	}
	for _, e := range extracts() {
		if base || !e.forNode {
			m.build(e.name, e.title, time.Minute, e.fill)
		}
	}
	if base {
		m.build("rootfs", "root file system of Debian "+suite, 2*time.Minute, fillRootfs)
		for _, mod := range modules() {
			m.build(mod.name, mod.name+" "+mod.version, mod.typical, mod.fill)
		}
		m.image("node-base", "node image with Kubernetes, SPIRE and MetalLB", time.Minute, l.makeBase)
	}
	node, err := m.missing(ctx, nodeReference(k.node), need)
	if err != nil {
		return nil, err
	}
	if node {
		m.image("node", "node image with the demo programs", 15*time.Second, l.makeNode)
	}
	return m.plan, errors.Join(m.errs...)
}

// making is a plan being made; its errors are those of Plan.Add.
type making struct {
	*Library
	keys keys
	plan *plan.Plan
	errs []error
}

// missing reports whether a node image has to be made.
func (m *making) missing(ctx context.Context, ref string, need Need) (bool, error) {
	if need != Node {
		return false, nil
	}
	_, there, err := m.Engine.Image(ctx, ref)
	return !there, err
}

// build adds the step that makes an artifact, unless it is there.
func (m *making) build(name, title string, typical time.Duration, fill func(ctx context.Context, dir string, log *os.File) error) {
	key := m.keys.artifacts[name]
	if _, there := m.Store.Path(name, key); there {
		return
	}
	m.errs = append(m.errs, m.plan.Add(plan.Step{
		Name: plan.ID("build/" + name), Title: title, Typical: typical,
		Do: func(ctx context.Context) error {
			plan.Did(ctx)
			_, err := m.Store.Make(ctx, name, key, fill)
			return err
		},
	}))
}

// image adds the step that makes a node image of all that comes before it.
func (m *making) image(name, title string, typical time.Duration, make func(context.Context, keys) error) {
	var after []plan.ID
	for _, s := range m.plan.Steps() {
		after = append(after, s.Name)
	}
	m.errs = append(m.errs, m.plan.Add(plan.Step{
		Name: plan.ID("image/" + name), Title: title, Typical: typical, After: after,
		Do: func(ctx context.Context) error {
			plan.Did(ctx)
			return make(ctx, m.keys)
		},
	}))
}

// artifact returns the folder of an artifact that has been made.
func (l *Library) artifact(k keys, name string) (string, error) {
	dir, there := l.Store.Path(name, k.artifacts[name])
	if !there {
		return "", fmt.Errorf("artifact %s is not in %s", name, l.Store.Root())
	}
	return dir, nil
}

func (l *Library) makeBase(ctx context.Context, k keys) error {
	var dirs [3]string
	for i, name := range []string{"rootfs", "kind-files", "kubernetes"} {
		dir, err := l.artifact(k, name)
		if err != nil {
			return err
		}
		dirs[i] = dir
	}
	var images []loaded
	for _, img := range Catalogue() {
		dir, err := l.artifact(k, img.Artifact)
		if err != nil {
			return err
		}
		var beneath func(*tree)
		if img.Packages != nil {
			beneath = func(t *tree) { t.packages(filepath.Join(dirs[0], "rootfs.tar"), img.Packages) }
		}
		made, err := assemble(programPath(dir, img.Program), img.Path, beneath)
		if err != nil {
			return err
		}
		images = append(images, loaded{reference: img.Reference, image: made})
	}
	n := nodeMaker{engine: l.Engine, key: k.base}
	if err := n.sweep(ctx); err != nil {
		return err
	}
	ref := baseReference(k.base)
	bare := ref + "-bare"
	if err := n.bare(ctx, filepath.Join(dirs[0], "rootfs.tar"), filepath.Join(dirs[1], "files"), filepath.Join(dirs[2], "bin"), bare); err != nil {
		return err
	}
	err := n.preload(ctx, bare, ref, images)
	return errors.Join(err, l.Engine.RemoveImage(context.WithoutCancel(ctx), bare))
}

func (l *Library) makeNode(ctx context.Context, k keys) error {
	var images []loaded
	for _, d := range l.demos() {
		made, err := l.demoImage(k, d)
		if err != nil {
			return err
		}
		images = append(images, loaded{reference: d.reference(k.artifacts[d.name]), image: made})
	}
	n := nodeMaker{engine: l.Engine, key: k.node}
	if err := n.sweep(ctx); err != nil {
		return err
	}
	return n.add(ctx, baseReference(k.base), nodeReference(k.node), images)
}

func (l *Library) demoImage(k keys, d demo) (v1.Image, error) {
	dir, err := l.artifact(k, d.name)
	if err != nil {
		return nil, err
	}
	return d.image(dir)
}

func (l *Library) set(k keys) (Set, error) {
	chart, err := l.artifact(k, "metallb-chart")
	if err != nil {
		return Set{}, err
	}
	crdDir, err := l.artifact(k, "spire-crds")
	if err != nil {
		return Set{}, err
	}
	files, err := filepath.Glob(filepath.Join(crdDir, "crds", "*.yaml"))
	if err != nil {
		return Set{}, err
	}
	s := Set{NodeImage: nodeReference(k.node), MetalLBChart: filepath.Join(chart, "chart"), Demos: map[string]string{}}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return Set{}, fmt.Errorf("read CRD: %w", err)
		}
		s.CRDs = append(s.CRDs, data)
	}
	for _, d := range l.demos() {
		s.Demos[d.name] = d.reference(k.artifacts[d.name])
	}
	return s, nil
}

// LoadDemo gives a running node, by its container, the image of a demo program,
// unless it has it already; it reports whether it had to.
func (l *Library) LoadDemo(ctx context.Context, node, name string) (bool, error) {
	k, err := l.keys()
	if err != nil {
		return false, err
	}
	d := demo{name: name, source: l.Source}
	ref := d.reference(k.artifacts[name])
	out, err := l.Engine.Exec(ctx, node, []string{"ctr", "--namespace", "k8s.io", "images", "ls", "--quiet", "name==" + ref}, nil)
	if err != nil {
		return false, fmt.Errorf("look for image %s: %w", ref, err)
	}
	if len(out) > 0 {
		return false, nil
	}
	img, err := l.demoImage(k, d)
	if err != nil {
		return false, err
	}
	return true, importImage(ctx, l.Engine, node, ref, img)
}
