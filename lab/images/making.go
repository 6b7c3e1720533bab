package images

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

func (s stock) run(ctx context.Context, f recipe.Flavour, need Need, optional []string) error {
	p, err := s.plan(ctx, f, need, optional)
	if err != nil {
		return err
	}
	// Compilers use all cores by themselves; one build next to another fills
	// them while that one links.
	return plan.Runner{Observe: s.Observe, Limit: max(2, runtime.NumCPU()/2)}.Run(ctx, p)
}

// plan holds a step for each artifact and image that is missing, and none where
// all that is needed is there.
func (s stock) plan(ctx context.Context, f recipe.Flavour, need Need, optional []string) (*plan.Plan, error) {
	node := false
	if need&Node != 0 {
		_, there, err := s.Engine.Image(ctx, s.engine.NodeReference(f.Key))
		if err != nil {
			return nil, err
		}
		node = !there
	}
	missing, err := s.lacking(f, node, need, optional)
	if err != nil {
		return nil, err
	}
	var errs []error
	var ingredients []plan.ID
	p := &plan.Plan{}
	for _, a := range missing {
		name := plan.ID("build/" + a.Name)
		if a.Only == Pull {
			name = plan.ID("pull/" + a.Name)
		}
		errs = append(errs, p.Add(plan.Step{Name: name, Title: a.Title, Typical: a.Typical, Do: func(ctx context.Context) error {
			plan.Did(ctx)
			_, err := s.Store.Make(ctx, a.Name, a.Key, a.Fill)
			return err
		}}))
		if s.goesIntoNode(a, f) {
			ingredients = append(ingredients, name)
		}
	}
	if node {
		errs = append(errs, p.Add(plan.Step{
			Name: "image/node", Title: "node image with Kubernetes, SPIRE and MetalLB", Typical: time.Minute, After: ingredients,
			Do: func(ctx context.Context) error { return s.makeNode(ctx, f) },
		}))
	}
	return p, errors.Join(errs...)
}

// lacking lists the artifacts that are to be made for a set with the node image of that
// flavour; node says that the node image is missing.
func (s stock) lacking(f recipe.Flavour, node bool, need Need, optional []string) ([]recipe.Artifact, error) {
	var missing []recipe.Artifact
	for _, a := range s.book.Artifacts {
		wanted := a.Only == "" || a.Only == f.Source && (a.Foundation && need&Foundations != 0 || need&Hosts != 0 && s.forHosts(a))
		if a.Optional {
			wanted = slices.ContainsFunc(optional, func(name string) bool {
				o, there := s.book.Optional(name)
				return there && o.From(f.Source) == a.Name
			})
		}
		if !wanted && (!node || !s.goesIntoNode(a, f)) {
			continue
		}
		_, there, err := s.Store.Path(a.Name, a.Key)
		if err != nil {
			return nil, err
		}
		if !there {
			missing = append(missing, a)
		}
	}
	return missing, nil
}

// goesIntoNode tells whether a node image of that flavour is made of an artifact.
func (s stock) goesIntoNode(a recipe.Artifact, f recipe.Flavour) bool {
	return a.Only == f.Source && !a.Optional || s.book.InNode(a)
}

func (s stock) makeNode(ctx context.Context, f recipe.Flavour) error {
	return s.engine.MakeNode(ctx, f.Key, func(n engine.Node) error {
		images, err := s.demosInNode(f.Source)
		if err != nil {
			return err
		}
		if f.Source == Pull {
			return s.pulledNode(ctx, n, images)
		}
		return s.builtNode(ctx, n, images)
	})
}

// builtNode makes it of a root file system, kind's node files and programs.
func (s stock) builtNode(ctx context.Context, n engine.Node, demos []engine.Image) error {
	var dirs [3]string
	for i, name := range []string{"rootfs", "kind-files", "kubernetes"} {
		dir, err := s.path(name)
		if err != nil {
			return err
		}
		dirs[i] = dir
	}
	rootfs, kindFiles, kubernetes := filepath.Join(dirs[0], build.RootfsFile), filepath.Join(dirs[1], "files"), filepath.Join(dirs[2], "bin")
	files := func(w io.Writer, spec []byte) error { return recipe.NodeFiles().Write(w, kindFiles, kubernetes, spec) }
	var images []engine.Image
	for _, img := range s.book.Images {
		images = append(images, engine.Image{Reference: img.Reference, Open: func() (v1.Image, error) {
			dir, err := s.path(img.Artifact)
			if err != nil {
				return nil, err
			}
			beneath := func(w *layer.Writer) {
				if img.Packages != nil {
					w.Packages(rootfs, img.Packages)
				}
			}
			return layer.Onto(empty.Image, build.ProgramPath(dir, img.Program), img.Path, beneath)
		}})
	}
	return n.Build(ctx, rootfs, files, append(images, demos...))
}

// pulledNode makes it of kind's own node image and upstream's other images.
func (s stock) pulledNode(ctx context.Context, n engine.Node, demos []engine.Image) error {
	open := func(img Image) func() (v1.Image, error) {
		return func() (v1.Image, error) {
			dir, err := s.path(recipe.PulledName(img))
			if err != nil {
				return nil, err
			}
			return tarball.ImageFromPath(filepath.Join(dir, pull.File), nil)
		}
	}
	kind, err := open(s.book.KindNode)()
	if err != nil {
		return err
	}
	var images []engine.Image
	for _, img := range s.book.Images {
		if !img.Kubernetes {
			images = append(images, engine.Image{Reference: img.Reference, Open: open(img)})
		}
	}
	return n.Add(ctx, kind, append(images, demos...))
}

// demosInNode are the images of demo programs that the node image brings, on a
// foundation of that source.
func (s stock) demosInNode(source Source) ([]engine.Image, error) {
	var images []engine.Image
	for _, p := range s.book.Programs {
		if p.On == nil {
			continue
		}
		ref, err := s.book.Reference(p)
		if err != nil {
			return nil, err
		}
		below, err := s.book.Artifact(p.On.From(source))
		if err != nil {
			return nil, err
		}
		images = append(images, engine.Image{Reference: ref, Open: func() (v1.Image, error) { return s.imageOn(p, below) }})
	}
	return images, nil
}
