// Package recipe is the catalogue: every image, chart and program that a lab runs on,
// in which version, what it is made of, and the key of each, which is the hash of all
// that decides what comes out.
//
// It refuses to know what is there already, and who makes what is not.
package recipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// Artifact is something that the store keeps a folder of.
type Artifact struct {
	Name, Title, Version string
	Kind                 Kind
	// Key is the hash of its recipe.
	Key string
	// Typical is how long it takes to make.
	Typical time.Duration
	// Fill makes it.
	Fill store.Fill
	// Ask returns nil when a registry has it, and fetches nothing; nil for what
	// is made here.
	Ask func(context.Context) error
	// Only says with which source the node image, or an optional program, needs it;
	// where it is empty, every set needs it, or with each source the program.
	Only Source
	// Foundation says that images of demo programs stand on it.
	Foundation bool
	// Optional says that only the image of an optional program is made of it.
	Optional bool
}

// Slug is what it is called in the store.
func (a Artifact) Slug() string { return store.Slug(a.Name, a.Key) }

// Program is a demo program, built from fedlab's own source.
type Program struct {
	build.Program
	// On is what its image holds below the program; nil is nothing.
	On *Foundation
}

// reference is what the image is called in a cluster. The tag changes with the
// source, so that a changed program is a changed Deployment.
func (d Program) reference(key string) string { return "fedlab.local/" + d.Name + ":" + key }

// Image makes the program's image from its artifact, on top of another one.
func (d Program) Image(artifact string, below v1.Image) (v1.Image, error) {
	return layer.Onto(below, build.ProgramPath(artifact, d.Name), "/"+d.Name, nil)
}

// Flavour is one of the two ways in which the node image can be had.
type Flavour struct {
	Source Source // Pull or Build
	Key    string
}

// Book has all that a set is made of, each with its key.
type Book struct {
	// KindNode is kind's own node image, Images are all others.
	KindNode  Image
	Images    []Image
	Artifacts []Artifact
	Programs  []Program
	Optionals []Optional
	// Flavours has that which is tried first in front.
	Flavours []Flavour
}

// Flavour returns that of a source.
func (r Book) Flavour(source Source) Flavour {
	for _, f := range r.Flavours {
		if f.Source == source {
			return f
		}
	}
	return Flavour{}
}

// Artifact finds an artifact by its name; names are unique.
func (r Book) Artifact(name string) (Artifact, error) {
	for _, a := range r.Artifacts {
		if a.Name == name {
			return a, nil
		}
	}
	return Artifact{}, fmt.Errorf("the catalogue has no %q", name)
}

// Program finds a demo program by its name.
func (r Book) Program(name string) (Program, error) {
	i := slices.IndexFunc(r.Programs, func(d Program) bool { return d.Name == name })
	if i < 0 {
		return Program{}, fmt.Errorf("there is no demo program %q", name)
	}
	return r.Programs[i], nil
}

// InNode tells whether an artifact is a demo program that the node image brings,
// as it was when the node image was made: LoadDemo brings one that has changed, so
// that no new node image has to be made for it.
func (r Book) InNode(a Artifact) bool {
	return slices.ContainsFunc(r.Programs, func(d Program) bool { return d.Name == a.Name && d.On != nil })
}

// Reference is what a demo program's image is called in a cluster.
func (r Book) Reference(d Program) (string, error) {
	program, err := r.Artifact(d.Name)
	if err != nil || d.On == nil {
		return d.reference(program.Key), err
	}
	keys := []string{program.Key}
	for _, source := range []Source{Build, Pull} {
		below, err := r.Artifact(d.On.From(source))
		if err != nil {
			return "", err
		}
		keys = append(keys, below.Key)
	}
	return d.reference(store.Key(keys...)), nil
}

// Choices are the fields of images.Library that decide what there is, and where it comes
// from.
type Choices struct {
	Code             fs.FS
	Demos            []string
	Mirror, KindNode string
}

// New computes the keys of everything.
func New(c Choices) (Book, error) {
	r := Book{KindNode: kindNode(), Images: Catalogue(), Optionals: Optionals()}
	var errs []error
	if c.KindNode != "" {
		var err error
		if r.KindNode, err = otherKindNode(c.KindNode); err != nil {
			return Book{}, err
		}
	}
	add := func(a Artifact, key string, err error) {
		a.Key = key
		r.Artifacts = append(r.Artifacts, a)
		errs = append(errs, err)
	}
	for _, name := range c.Demos {
		d := Program{Program: build.Program{Name: name, Code: c.Code}}
		if on, ok := foundations()[name]; ok {
			d.On = &on
		}
		key, err := d.Key()
		add(Artifact{Name: name, Title: "demo program " + name, Kind: Demo, Typical: 20 * time.Second, Fill: d.Fill}, key, err)
		r.Programs = append(r.Programs, d)
	}
	extracts := func(list []extract, only Source) {
		for _, e := range list {
			key, err := e.Key()
			add(Artifact{Name: e.Name, Title: e.title, Version: e.From.Version, Kind: e.kind, Typical: time.Minute, Fill: e.Fill, Only: only}, key, err)
		}
	}
	extracts(setExtracts(), "")
	extracts(nodeExtracts(), Build)
	add(Artifact{Name: "rootfs", Title: "root file system of Debian " + build.Suite, Version: build.Suite, Kind: Ingredient, Typical: 2 * time.Minute, Fill: build.Rootfs, Only: Build}, build.RootfsKey(), nil)
	for _, m := range modules() {
		key, err := m.Key()
		add(Artifact{Name: m.Name, Title: m.Name + " " + m.Version, Version: m.Version, Kind: Ingredient, Typical: m.Typical, Fill: m.Fill, Only: Build}, key, err)
	}
	p := pull.New(c.Mirror, pull.Usual())
	for _, img := range append([]Image{r.KindNode}, r.Images...) {
		if !img.Kubernetes {
			r.Artifacts = append(r.Artifacts, FromRegistry(p, img))
		}
	}
	for _, d := range r.Programs {
		if d.On != nil {
			r.Artifacts = append(r.Artifacts, d.On.artifacts(p)...)
		}
	}
	for _, o := range r.Optionals {
		made, err := o.artifacts(p)
		r.Artifacts = append(r.Artifacts, made...)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return Book{}, err
	}
	return r.Keyed()
}

// Keyed returns the book with the keys of its node images, which are computed from
// those of all that goes into them.
func (r Book) Keyed() (Book, error) {
	own, err := NodeFiles().Hash()
	if err != nil {
		return Book{}, err
	}
	built := []string{"built node 2", own}
	for _, img := range r.Images {
		built = append(built, img.Reference, img.Artifact, img.Program, img.Path, strings.Join(img.Packages, " "))
	}
	pulled := []string{"pulled node 1"}
	for _, a := range r.Artifacts {
		switch {
		case a.Optional:
		case a.Only == Build:
			built = append(built, a.Name, a.Key)
		case a.Only == Pull:
			pulled = append(pulled, a.Name, a.Key)
		}
	}
	r.Flavours = []Flavour{{Source: Pull, Key: store.Key(pulled...)}, {Source: Build, Key: store.Key(built...)}}
	return r, nil
}

// PulledName is the name of the artifact that is an image as it was pulled.
func PulledName(img Image) string { return "pulled-" + img.Name }

// FromRegistry is an upstream image in the store.
func FromRegistry(p pull.Registries, img Image) Artifact {
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
	return Artifact{
		Name: PulledName(img), Title: "upstream image " + img.Reference, Version: img.Reference,
		Key:  store.Key("pulled 1", runtime.GOARCH, img.Reference, img.Digest),
		Kind: Ingredient, Typical: 20 * time.Second, Only: Pull,
		Fill: func(ctx context.Context, dir string, log *os.File) error {
			return from(func(ref name.Reference) error {
				_, err := fmt.Fprintf(log, "pull %s\n", ref)
				return errors.Join(err, p.Fetch(ctx, ref, filepath.Join(dir, pull.File)))
			})
		},
		Ask: func(ctx context.Context) error {
			return from(func(ref name.Reference) error { return p.Ask(ctx, ref) })
		},
	}
}
