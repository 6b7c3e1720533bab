package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// artifact is something that the store keeps a folder of.
type artifact struct {
	name, title, version string
	kind                 Kind
	// key is the hash of its recipe.
	key     string
	typical time.Duration
	fill    store.Fill
	// ask returns nil when a registry has it, and fetches nothing; nil for what
	// is made here.
	ask func(context.Context) error
	// only says with which source the node image needs it; where it is empty,
	// every set needs it.
	only Source
	// foundation says that images of demo programs stand on it.
	foundation bool
}

func (a artifact) slug() string { return store.Slug(a.name, a.key) }

// demo is a demo program, built from fedlab's own source.
type demo struct {
	build.Program
	// on is what its image holds below the program; nil is nothing.
	on *foundation
}

// reference is what the image is called in a cluster. The tag changes with the
// source, so that a changed program is a changed Deployment.
func (d demo) reference(key string) string { return "fedlab.local/" + d.Name + ":" + key }

// image makes the program's image from its artifact, on top of another one.
func (d demo) image(artifact string, below v1.Image) (v1.Image, error) {
	return layer.Onto(below, build.ProgramPath(artifact, d.Name), "/"+d.Name, nil)
}

// flavour is one of the two ways in which the node image can be had.
type flavour struct {
	source Source // Pull or Build
	key    string
}

// recipes are all that a set is made of, each with its key.
type recipes struct {
	// realm starts the names and labels of Docker images and containers; only
	// tests, which must not touch a lab's, have one.
	realm string
	// kind is kind's own node image, images are all others.
	kind      Image
	images    []Image
	artifacts []artifact
	demos     []demo
	// flavours has that which is tried first in front.
	flavours []flavour
}

func (r recipes) nodeReference(f flavour) string { return "fedlab.local/" + r.realm + "node:" + f.key }

// flavour returns that of a source.
func (r recipes) flavour(source Source) flavour {
	for _, f := range r.flavours {
		if f.source == source {
			return f
		}
	}
	return flavour{}
}

// artifact finds an artifact by its name; names are unique.
func (r recipes) artifact(name string) (artifact, error) {
	for _, a := range r.artifacts {
		if a.name == name {
			return a, nil
		}
	}
	return artifact{}, fmt.Errorf("the catalogue has no %q", name)
}

// demo finds a demo program by its name.
func (r recipes) demo(name string) (demo, error) {
	i := slices.IndexFunc(r.demos, func(d demo) bool { return d.Name == name })
	if i < 0 {
		return demo{}, fmt.Errorf("there is no demo program %q", name)
	}
	return r.demos[i], nil
}

// inNode tells whether an artifact is a demo program that the node image brings,
// as it was when the node image was made: LoadDemo brings one that has changed, so
// that no node image has to be made anew for it.
func (r recipes) inNode(a artifact) bool {
	return slices.ContainsFunc(r.demos, func(d demo) bool { return d.Name == a.name && d.on != nil })
}

// demoReference is what a demo program's image is called in a cluster.
func (r recipes) demoReference(d demo) (string, error) {
	program, err := r.artifact(d.Name)
	if err != nil || d.on == nil {
		return d.reference(program.key), err
	}
	keys := []string{program.key}
	for _, source := range []Source{Build, Pull} {
		below, err := r.artifact(d.on.artifact(source))
		if err != nil {
			return "", err
		}
		keys = append(keys, below.key)
	}
	return d.reference(store.Key(keys...)), nil
}

// engineReference is what a demo program's image is called in Docker: the same.
func (r recipes) engineReference(d demo) (string, error) {
	ref, err := r.demoReference(d)
	return strings.Replace(ref, "/", "/"+r.realm, 1), err
}

// recipes computes the keys of everything.
func (l *Library) recipes() (recipes, error) {
	if l.standIn != nil {
		return *l.standIn, nil
	}
	r := recipes{kind: kindNode(), images: Catalogue()}
	var errs []error
	if l.KindNode != "" {
		var err error
		if r.kind, err = otherKindNode(l.KindNode); err != nil {
			return recipes{}, err
		}
	}
	add := func(a artifact, key string, err error) {
		a.key = key
		r.artifacts = append(r.artifacts, a)
		errs = append(errs, err)
	}
	for _, name := range l.Demos {
		d := demo{Program: build.Program{Name: name, Code: l.Code}}
		if on, ok := foundations()[name]; ok {
			d.on = &on
		}
		key, err := d.Key()
		add(artifact{name: name, title: "demo program " + name, kind: Demo, typical: 20 * time.Second, fill: d.Fill}, key, err)
		r.demos = append(r.demos, d)
	}
	extracts := func(list []extract, only Source) {
		for _, e := range list {
			key, err := e.Key()
			add(artifact{name: e.Name, title: e.title, version: e.From.Version, kind: e.kind, typical: time.Minute, fill: e.Fill, only: only}, key, err)
		}
	}
	extracts(setExtracts(), "")
	extracts(nodeExtracts(), Build)
	add(artifact{name: "rootfs", title: "root file system of Debian " + build.Suite, version: build.Suite, kind: Ingredient, typical: 2 * time.Minute, fill: build.Rootfs, only: Build}, build.RootfsKey(), nil)
	for _, m := range modules() {
		key, err := m.Key()
		add(artifact{name: m.Name, title: m.Name + " " + m.Version, version: m.Version, kind: Ingredient, typical: m.Typical, fill: m.Fill, only: Build}, key, err)
	}
	p := pull.New(l.Mirror, pull.Usual())
	for _, img := range append([]Image{r.kind}, r.images...) {
		if !img.Kubernetes {
			r.artifacts = append(r.artifacts, pulled(p, img))
		}
	}
	for _, d := range r.demos {
		if d.on != nil {
			r.artifacts = append(r.artifacts, d.on.artifacts(p)...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return recipes{}, err
	}
	return r, r.computeFlavours()
}

// computeFlavours computes the keys of the node images from those of all that
// goes into them.
func (r *recipes) computeFlavours() error {
	own, err := nodeFiles().Hash()
	if err != nil {
		return err
	}
	built := []string{"built node 2", own}
	for _, img := range r.images {
		built = append(built, img.Reference, img.Artifact, img.Program, img.Path, strings.Join(img.Packages, " "))
	}
	pulled := []string{"pulled node 1"}
	for _, a := range r.artifacts {
		switch a.only {
		case Build:
			built = append(built, a.name, a.key)
		case Pull:
			pulled = append(pulled, a.name, a.key)
		}
	}
	r.flavours = []flavour{{source: Pull, key: store.Key(pulled...)}, {source: Build, key: store.Key(built...)}}
	return nil
}

func pulledName(img Image) string { return "pulled-" + img.Name }

// pulled is an upstream image in the store.
func pulled(p pull.Registries, img Image) artifact {
	from := func(do func(name.Reference) error) error {
		ref, err := p.Reference(img.Reference, img.Digest)
		if err != nil {
			return fmt.Errorf("pull %s: %w", img.Reference, err)
		}
		if err := do(ref); err != nil {
			return &SourceError{Source: Pull, Err: fmt.Errorf("pull %s: %w", ref, err)}
		}
		return nil
	}
	return artifact{
		name: pulledName(img), title: "upstream image " + img.Reference, version: img.Reference,
		key:  store.Key("pulled 1", runtime.GOARCH, img.Reference, img.Digest),
		kind: Ingredient, typical: 20 * time.Second, only: Pull,
		fill: func(ctx context.Context, dir string, log *os.File) error {
			return from(func(ref name.Reference) error {
				_, err := fmt.Fprintf(log, "pull %s\n", ref)
				return errors.Join(err, p.Fetch(ctx, ref, filepath.Join(dir, pull.File)))
			})
		},
		ask: func(ctx context.Context) error {
			return from(func(ref name.Reference) error { return p.Ask(ctx, ref) })
		},
	}
}
