package images

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// run makes what is missing of a set with the node image of that flavour.
func (l *Library) run(ctx context.Context, r recipes, f flavour, need Need) error {
	p, err := l.plan(ctx, r, f, need)
	if err != nil {
		return err
	}
	// Compilers use all cores by themselves; one build beside another fills
	// them while that one links.
	return plan.Runner{Observe: l.Observe, Limit: max(2, runtime.NumCPU()/2)}.Run(ctx, p)
}

// plan holds a step for each artifact and image that is missing, and none where
// all that is needed is there.
func (l *Library) plan(ctx context.Context, r recipes, f flavour, need Need) (*plan.Plan, error) {
	base, node := false, false
	if need == Node {
		_, there, err := l.Engine.Image(ctx, r.nodeReference(f))
		if err != nil {
			return nil, err
		}
		if node = !there; node {
			_, there, err := l.Engine.Image(ctx, r.baseReference(f))
			if err != nil {
				return nil, err
			}
			base = !there
		}
	}
	m := making{Library: l, recipes: r, plan: &plan.Plan{}}
	for _, a := range r.artifacts {
		if a.only == "" || a.only == f.source && (base || node && a.top) {
			m.artifact(a)
		}
	}
	if base {
		m.image("node-base", "node image with Kubernetes, SPIRE and MetalLB", time.Minute, f, l.makeBase)
	}
	if node {
		m.image("node", "node image with the demo programs", 15*time.Second, f, l.makeNode)
	}
	return m.plan, errors.Join(m.errs...)
}

// making is a plan being made; its errors are those of Plan.Add.
type making struct {
	*Library
	recipes recipes
	plan    *plan.Plan
	errs    []error
}

// artifact adds the step that makes an artifact, unless it is there.
func (m *making) artifact(a artifact) {
	_, there, err := m.Store.Path(a.name, a.key)
	if err != nil || there {
		m.errs = append(m.errs, err)
		return
	}
	kind := "build/"
	if a.only == Pull {
		kind = "pull/"
	}
	m.errs = append(m.errs, m.plan.Add(plan.Step{
		Name: plan.ID(kind + a.name), Title: a.title, Typical: a.typical,
		Do: func(ctx context.Context) error {
			plan.Did(ctx)
			_, err := m.Store.Make(ctx, a.name, a.key, a.fill)
			return err
		},
	}))
}

// image adds the step that makes a node image of all that comes before it.
func (m *making) image(name, title string, typical time.Duration, f flavour, do func(context.Context, recipes, flavour) error) {
	var after []plan.ID
	for _, s := range m.plan.Steps() {
		after = append(after, s.Name)
	}
	m.errs = append(m.errs, m.plan.Add(plan.Step{
		Name: plan.ID("image/" + name), Title: title, Typical: typical, After: after,
		Do: func(ctx context.Context) error { return do(ctx, m.recipes, f) },
	}))
}

// makeBase makes the node image without the demo programs.
func (l *Library) makeBase(ctx context.Context, r recipes, f flavour) error {
	return l.nodeMaker(r, f.base).make(ctx, r.baseReference(f), func(n nodeMaker, ref string) error {
		if f.source == Pull {
			return l.pulledBase(ctx, r, n, ref)
		}
		return l.builtBase(ctx, r, n, ref)
	})
}

// builtBase makes it of a root file system, kind's node files and programs.
func (l *Library) builtBase(ctx context.Context, r recipes, n nodeMaker, ref string) error {
	var dirs [3]string
	for i, name := range []string{"rootfs", "kind-files", "kubernetes"} {
		dir, err := l.path(r, name)
		if err != nil {
			return err
		}
		dirs[i] = dir
	}
	rootfs, kindFiles, kubernetes := filepath.Join(dirs[0], "rootfs.tar"), filepath.Join(dirs[1], "files"), filepath.Join(dirs[2], "bin")
	var images []loaded
	for _, img := range r.images {
		images = append(images, loaded{reference: img.Reference, open: func() (v1.Image, error) {
			dir, err := l.path(r, img.Artifact)
			if err != nil {
				return nil, err
			}
			var beneath func(*tree)
			if img.Packages != nil {
				beneath = func(t *tree) { t.packages(rootfs, img.Packages) }
			}
			return assemble(programPath(dir, img.Program), img.Path, beneath)
		}})
	}
	return n.build(ctx, rootfs, kindFiles, kubernetes, ref, images)
}

// pulledBase makes it of kind's own node image and upstream's other images.
func (l *Library) pulledBase(ctx context.Context, r recipes, n nodeMaker, ref string) error {
	open := func(img Image) func() (v1.Image, error) {
		return func() (v1.Image, error) {
			dir, err := l.path(r, pulledName(img))
			if err != nil {
				return nil, err
			}
			return tarball.ImageFromPath(filepath.Join(dir, pulledFile), nil)
		}
	}
	kind, err := open(r.kind)()
	if err != nil {
		return err
	}
	from, err := n.load(ctx, kind)
	if err != nil {
		return err
	}
	var images []loaded
	for _, img := range r.images {
		if !img.Kubernetes {
			images = append(images, loaded{reference: img.Reference, open: open(img)})
		}
	}
	return n.add(ctx, from, ref, images)
}

// makeNode puts the demo programs on top.
func (l *Library) makeNode(ctx context.Context, r recipes, f flavour) error {
	return l.nodeMaker(r, f.node).make(ctx, r.nodeReference(f), func(n nodeMaker, ref string) error {
		var images []loaded
		for _, d := range r.demos {
			name, err := r.demoReference(d)
			if err != nil {
				return err
			}
			images = append(images, loaded{reference: name, open: func() (v1.Image, error) { return l.demoImage(r, d, f) }})
		}
		return n.add(ctx, r.baseReference(f), ref, images)
	})
}
