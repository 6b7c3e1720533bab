package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

type stock struct {
	*Library
	book   recipe.Book
	engine engine.Engine
}

// open computes the keys of everything.
func (l *Library) open() (stock, error) {
	book, err := recipe.New(recipe.Choices{Code: l.Code, Demos: l.Demos, Mirror: l.Mirror, KindNode: l.KindNode})
	return stock{Library: l, book: book, engine: engine.New(l.Engine, l.Store, "")}, err
}

func with[T any](l *Library, do func(stock) (T, error)) (T, error) {
	s, err := l.open()
	if err != nil {
		var none T
		return none, err
	}
	return do(s)
}

func (s stock) ensure(ctx context.Context, need Need, optional ...string) (Set, error) {
	have, err := s.look(ctx, need, optional...)
	if err != nil {
		return Set{}, err
	}
	if len(have.missing) > 0 {
		if err := s.obtain(ctx, have, need, optional); err != nil {
			return Set{}, err
		}
		if have, err = s.look(ctx, need, optional...); err != nil {
			return Set{}, err
		}
	}
	if len(have.missing) > 0 { // another process is removing it
		return Set{}, fmt.Errorf("take images that were made: %w", &MissingError{What: have.missing})
	}
	return s.set(have.flavour, need)
}

type holding struct {
	// flavour is that of the node image that is there; its zero value where
	// none is, or where there was no need to look.
	flavour recipe.Flavour
	missing []string
}

func (s stock) look(ctx context.Context, need Need, optional ...string) (holding, error) {
	var have holding
	choices, err := s.choices(need, optional...)
	if err != nil {
		return holding{}, err
	}
	for _, c := range choices {
		_, _, there, err := s.first(c)
		if err != nil {
			return holding{}, err
		}
		if !there {
			have.missing = append(have.missing, c.title)
		}
	}
	if need == Parts && len(optional) == 0 {
		return have, nil
	}
	f, there, err := s.nodeImage(ctx)
	if err != nil {
		return holding{}, err
	}
	have.flavour = f
	if !there && need&Node != 0 {
		have.missing = append(have.missing, "node image")
	}
	return have, nil
}

// nodeImage finds the node image that is there; the flavour is the zero value
// where there is none.
func (s stock) nodeImage(ctx context.Context) (f recipe.Flavour, there bool, err error) {
	for _, f := range s.book.Flavours {
		if s.Source == Pull && f.Source != Pull || s.Source == Build && f.Source != Build {
			continue
		}
		if _, there, err := s.Engine.Image(ctx, s.engine.NodeReference(f.Key)); err != nil || there {
			return f, there, err
		}
	}
	return recipe.Flavour{}, false, nil
}

// choice is something that a set has next to its node image: one of some artifacts.
type choice struct {
	title string
	of    []recipe.Artifact
}

// choices are what every set has, and, if they are asked for, the foundations of demo
// programs, the images of hosts, and optional programs.
func (s stock) choices(need Need, optional ...string) ([]choice, error) {
	var all []choice
	for _, a := range s.book.Artifacts {
		if a.Only == "" && !a.Optional {
			all = append(all, choice{a.Title, []recipe.Artifact{a}})
		}
	}
	for _, p := range s.book.Programs {
		if p.On == nil || need&Foundations == 0 {
			continue
		}
		c, err := s.foundation(p)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	for _, img := range s.book.Images {
		if !img.Hosts || need&Hosts == 0 {
			continue
		}
		c, err := s.host(img)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	for _, name := range optional {
		o, there := s.book.Optional(name)
		if !there {
			return nil, fmt.Errorf("there is no optional program %q", name)
		}
		c, err := s.optional(o)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// optional is what the image of an optional program is made of, of whichever source.
func (s stock) optional(o recipe.Optional) (choice, error) {
	c := choice{title: o.Name}
	for _, f := range s.book.Flavours {
		a, err := s.book.Artifact(o.From(f.Source))
		if err != nil {
			return choice{}, err
		}
		c.of = append(c.of, a)
	}
	return c, nil
}

// foundation is what the image of a demo program stands on, of whichever source.
func (s stock) foundation(p recipe.Program) (choice, error) {
	c := choice{title: p.On.Title}
	for _, f := range s.book.Flavours {
		a, err := s.book.Artifact(p.On.From(f.Source))
		if err != nil {
			return choice{}, err
		}
		c.of = append(c.of, a)
	}
	return c, nil
}

// first finds the first artifact of a choice that is there, and its folder.
func (s stock) first(c choice) (a recipe.Artifact, dir string, there bool, err error) {
	for _, a = range c.of {
		if dir, there, err = s.Store.Path(a.Name, a.Key); err != nil || there {
			break
		}
	}
	return a, dir, there, err
}

// found is first where one has to be there.
func (s stock) found(c choice) (recipe.Artifact, string, error) {
	a, dir, there, err := s.first(c)
	if err == nil && !there {
		err = &MissingError{What: []string{c.title}}
	}
	return a, dir, err
}

func (s stock) path(name string) (string, error) {
	a, err := s.book.Artifact(name)
	if err != nil {
		return "", err
	}
	dir, there, err := s.Store.Path(a.Name, a.Key)
	if err != nil {
		return "", err
	}
	if !there {
		return "", &MissingError{What: []string{a.Title}}
	}
	return dir, nil
}

func (s stock) set(f recipe.Flavour, need Need) (Set, error) {
	chart, err := s.path("metallb-chart")
	if err != nil {
		return Set{}, err
	}
	crds, err := s.path("spire-crds")
	if err != nil {
		return Set{}, err
	}
	files, err := filepath.Glob(filepath.Join(crds, "crds", "*.yaml"))
	if err != nil {
		return Set{}, err
	}
	set := Set{MetalLBChart: filepath.Join(chart, "chart"), Demos: map[string]string{}}
	if need&Node != 0 {
		set.NodeImage, set.DefaultCNI = s.engine.NodeReference(f.Key), f.Source == Pull
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return Set{}, fmt.Errorf("read CRD: %w", err)
		}
		set.CRDs = append(set.CRDs, data)
	}
	for _, p := range s.book.Programs {
		if set.Demos[p.Name], err = s.book.Reference(p); err != nil {
			return Set{}, err
		}
	}
	for _, o := range s.book.Optionals {
		if set.Demos[o.Name], err = s.book.OptionalReference(o); err != nil {
			return Set{}, err
		}
	}
	return set, nil
}

func (s stock) loadDemo(ctx context.Context, node, name string) (bool, error) {
	g, err := s.given(name)
	if err != nil {
		return false, err
	}
	if there, err := s.engine.Has(ctx, node, g.ref); err != nil || there {
		return false, err
	}
	img, err := s.make(ctx, g)
	if err != nil {
		return false, err
	}
	return true, s.engine.Import(ctx, node, g.ref, img)
}

func (s stock) demoInEngine(ctx context.Context, name string) (string, error) {
	g, err := s.given(name)
	if err != nil {
		return "", err
	}
	ref := s.engine.Name(g.ref)
	return ref, s.engine.Demo(ctx, ref, func() (v1.Image, error) { return s.make(ctx, g) })
}

// given is an image that is given to nodes which run and to the engine: that of a demo
// program or of an optional one.
type given struct {
	ref string
	// need and optional are what is made where it is not there.
	need     Need
	optional []string
	open     func() (v1.Image, error)
}

func (s stock) given(name string) (given, error) {
	if o, is := s.book.Optional(name); is {
		ref, err := s.book.OptionalReference(o)
		return given{ref: ref, optional: []string{name}, open: func() (v1.Image, error) { return s.optionalImage(o) }}, err
	}
	p, ref, err := s.demo(name)
	g := given{ref: ref, open: func() (v1.Image, error) { return s.demoImage(p) }}
	if p.On != nil {
		g.need = Foundations
	}
	return g, err
}

func (s stock) make(ctx context.Context, g given) (v1.Image, error) {
	if _, err := s.ensure(ctx, g.need, g.optional...); err != nil {
		return nil, err
	}
	return g.open()
}

func (s stock) demo(name string) (p recipe.Program, ref string, err error) {
	if p, err = s.book.Program(name); err == nil {
		ref, err = s.book.Reference(p)
	}
	return p, ref, err
}

func (s stock) optionalImage(o recipe.Optional) (v1.Image, error) {
	c, err := s.optional(o)
	if err != nil {
		return nil, err
	}
	a, dir, err := s.found(c)
	if err != nil {
		return nil, err
	}
	return o.Open(a, dir)
}

func (s stock) demoImage(p recipe.Program) (v1.Image, error) {
	if p.On == nil {
		dir, err := s.path(p.Name)
		if err != nil {
			return nil, err
		}
		return p.Image(dir, empty.Image)
	}
	c, err := s.foundation(p)
	if err != nil {
		return nil, err
	}
	below, _, err := s.found(c)
	if err != nil {
		return nil, err
	}
	return s.imageOn(p, below)
}

func (s stock) imageOn(p recipe.Program, below recipe.Artifact) (v1.Image, error) {
	program, err := s.path(p.Name)
	if err != nil {
		return nil, err
	}
	files, err := s.path(below.Name)
	if err != nil {
		return nil, err
	}
	img, err := p.On.Open(below.Only, files)
	if err != nil {
		return nil, err
	}
	return p.Image(program, img)
}

func (s stock) program(ctx context.Context, name string) (string, error) {
	o, is := s.book.Optional(name)
	if is && o.Files != nil {
		return "", fmt.Errorf("%s is of Debian's packages, and runs in its image alone: a machine has it from its own packages", name)
	}
	if is && s.Source != Present && s.Source != Archive {
		// Upstream's image has no program that runs by itself.
		a, err := s.book.Artifact(o.From(Build))
		if err != nil {
			return "", err
		}
		if _, err := s.Store.Make(ctx, a.Name, a.Key, a.Fill); err != nil {
			return "", err
		}
	}
	for _, a := range s.book.Artifacts {
		dir, there, err := s.Store.Path(a.Name, a.Key)
		if err != nil {
			return "", err
		}
		if !there {
			continue
		}
		program := build.ProgramPath(dir, name)
		if _, err := os.Stat(program); err == nil {
			return program, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for program %s: %w", name, err)
		}
	}
	return "", &MissingError{What: []string{"program " + name}}
}

// Pruned is what Prune has removed.
type Pruned struct {
	// Names are those of artifacts, containers and Docker images.
	Names []string
	// Bytes is what that gave back at least: what a node image was made on top
	// of may serve others, and does not count.
	Bytes int64
}

func (s stock) prune(ctx context.Context) (Pruned, error) {
	artifacts, images := map[string]bool{}, map[string]bool{}
	for _, a := range s.book.Artifacts {
		artifacts[a.Slug()] = true
	}
	for _, f := range s.book.Flavours {
		images[s.engine.NodeReference(f.Key)] = true
	}
	for _, p := range s.book.Programs {
		ref, err := s.book.Reference(p)
		if err != nil {
			return Pruned{}, err
		}
		images[s.engine.Name(ref)] = true
	}
	for _, o := range s.book.Optionals {
		ref, err := s.book.OptionalReference(o)
		if err != nil {
			return Pruned{}, err
		}
		images[s.engine.Name(ref)] = true
	}
	for _, img := range s.book.Images {
		if !img.Hosts {
			continue
		}
		c, err := s.host(img)
		if err != nil {
			return Pruned{}, err
		}
		for _, a := range c.of {
			images[s.engine.Name(hostReference(img, a))] = true
		}
	}
	names, size, err := s.Store.Prune(artifacts)
	if err != nil {
		return Pruned{Names: names, Bytes: size}, err
	}
	more, freed, err := s.engine.Prune(ctx, images)
	return Pruned{Names: append(names, more...), Bytes: size + freed}, err
}
