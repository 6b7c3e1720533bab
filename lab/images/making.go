package images

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
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
	node := false
	if need&Node != 0 {
		_, there, err := l.Engine.Image(ctx, r.nodeReference(f))
		if err != nil {
			return nil, err
		}
		node = !there
	}
	m := making{Library: l, recipes: r, plan: &plan.Plan{}}
	var ingredients []plan.ID
	for _, a := range r.artifacts {
		switch {
		case node && r.goesIntoNode(a, f):
			ingredients = append(ingredients, m.artifact(a)...)
		case r.wanted(a, f, need):
			m.artifact(a)
		}
	}
	if node {
		m.errs = append(m.errs, m.plan.Add(plan.Step{
			Name: "image/node", Title: "node image with Kubernetes, SPIRE and MetalLB", Typical: time.Minute, After: ingredients,
			Do: func(ctx context.Context) error { return l.makeNode(ctx, r, f) },
		}))
	}
	return m.plan, errors.Join(m.errs...)
}

// goesIntoNode tells whether a node image of that flavour is made of an artifact.
func (r recipes) goesIntoNode(a artifact, f flavour) bool { return a.only == f.source || r.inNode(a) }

// wanted tells whether a set has an artifact beside its node image.
func (r recipes) wanted(a artifact, f flavour, need Need) bool {
	return a.only == "" || a.foundation && a.only == f.source && need&Foundations != 0
}

// making is a plan being made; its errors are those of Plan.Add.
type making struct {
	*Library
	recipes recipes
	plan    *plan.Plan
	errs    []error
}

// artifact adds the step that makes an artifact, unless it is there.
func (m *making) artifact(a artifact) []plan.ID {
	_, there, err := m.Store.Path(a.name, a.key)
	if err != nil || there {
		m.errs = append(m.errs, err)
		return nil
	}
	kind := "build/"
	if a.only == Pull {
		kind = "pull/"
	}
	name := plan.ID(kind + a.name)
	m.errs = append(m.errs, m.plan.Add(plan.Step{
		Name: name, Title: a.title, Typical: a.typical,
		Do: func(ctx context.Context) error {
			plan.Did(ctx)
			_, err := m.Store.Make(ctx, a.name, a.key, a.fill)
			return err
		},
	}))
	return []plan.ID{name}
}

// makeNode makes the node image.
func (l *Library) makeNode(ctx context.Context, r recipes, f flavour) error {
	return l.nodeMaker(r, f.key).make(ctx, r.nodeReference(f), func(n nodeMaker, ref string) error {
		if f.source == Pull {
			return l.pulledNode(ctx, r, n, ref)
		}
		return l.builtNode(ctx, r, n, ref)
	})
}

// builtNode makes it of a root file system, kind's node files and programs.
func (l *Library) builtNode(ctx context.Context, r recipes, n nodeMaker, ref string) error {
	var dirs [3]string
	for i, name := range []string{"rootfs", "kind-files", "kubernetes"} {
		dir, err := l.path(r, name)
		if err != nil {
			return err
		}
		dirs[i] = dir
	}
	rootfs, kindFiles, kubernetes := filepath.Join(dirs[0], build.RootfsFile), filepath.Join(dirs[1], "files"), filepath.Join(dirs[2], "bin")
	var images []loaded
	for _, img := range r.images {
		images = append(images, loaded{reference: img.Reference, open: func() (v1.Image, error) {
			dir, err := l.path(r, img.Artifact)
			if err != nil {
				return nil, err
			}
			var beneath func(*layer.Writer)
			if img.Packages != nil {
				beneath = func(t *layer.Writer) { t.Packages(rootfs, img.Packages) }
			}
			return layer.Onto(empty.Image, build.ProgramPath(dir, img.Program), img.Path, beneath)
		}})
	}
	demos, err := l.demosInNode(r, Build)
	if err != nil {
		return err
	}
	return n.build(ctx, rootfs, kindFiles, kubernetes, ref, append(images, demos...))
}

// pulledNode makes it of kind's own node image and upstream's other images.
func (l *Library) pulledNode(ctx context.Context, r recipes, n nodeMaker, ref string) error {
	open := func(img Image) func() (v1.Image, error) {
		return func() (v1.Image, error) {
			dir, err := l.path(r, pulledName(img))
			if err != nil {
				return nil, err
			}
			return tarball.ImageFromPath(filepath.Join(dir, pull.File), nil)
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
	demos, err := l.demosInNode(r, Pull)
	if err != nil {
		return err
	}
	return n.add(ctx, from, ref, append(images, demos...))
}

// demosInNode are the images of demo programs that the node image brings, on a
// foundation of that source.
func (l *Library) demosInNode(r recipes, source Source) ([]loaded, error) {
	var images []loaded
	for _, d := range r.demos {
		if d.on == nil {
			continue
		}
		ref, err := r.demoReference(d)
		if err != nil {
			return nil, err
		}
		below, err := r.artifact(d.on.artifact(source))
		if err != nil {
			return nil, err
		}
		images = append(images, loaded{reference: ref, open: func() (v1.Image, error) { return l.imageOn(r, d, below) }})
	}
	return images, nil
}
