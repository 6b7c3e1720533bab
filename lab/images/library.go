package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/store"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Library gives out what labs run on, and makes what is not there yet.
type Library struct {
	Store  *store.Store
	Engine *docker.Client
	// Code is fedlab's own source, from which the demo programs Demos are
	// built.
	Code  fs.FS
	Demos []string
	// Source is where what is not there may come from; the zero value is Auto.
	Source Source
	// Archive is the file to load from; it may be empty with Auto.
	Archive string
	// Mirror is a registry that has the upstream images under the same names:
	// a host, with a port and a folder where it needs them
	// ("mirror.example:5000/upstream"). Empty, each image comes from where its
	// reference says. Plain HTTP is spoken to loopback and private addresses
	// only.
	Mirror string
	// KindNode replaces the node image that kind was published with, by
	// NAME:TAG or NAME:TAG@DIGEST; empty, it is kind's own, of which the digest is
	// known.
	KindNode string
	// Version says which fedlab this is; it stands in archives.
	Version string
	// Observe is told what is being made; it may be nil.
	Observe func(plan.Event)
	// Say is told, in one line, why a source was not taken; it may be nil.
	Say func(string)

	// standIn replaces the catalogue in tests.
	standIn *recipes
}

// Set names all that labs of one fedlab version run on.
type Set struct {
	// NodeImage is the Docker image of a cluster's node. Every image is in it but
	// those of the demo programs that stand on nothing: LoadDemo brings them, and
	// those that have changed since. It is empty where Node was not asked for.
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

// Need says how much of a set is asked for; needs are put together with |.
type Need int

const (
	// Parts is everything that clusters which run already may need: charts and
	// the demo programs.
	Parts Need = 0
	// Node is the node image as well, for clusters that are to be made.
	Node Need = 1
	// Foundations are what the images of some demo programs stand on as well, for
	// who needs such an image outside the node image.
	Foundations Need = 2
	// All is what an archive holds.
	All = Node | Foundations
)

// Ensure makes what is missing, side by side where it can, and returns the set.
// Killed at any moment, the next Ensure takes up what was finished, and of what
// was being compiled, what the Go build cache has.
//
// The error wraps a [*MissingError] when the source is Present and something is
// not there, and a [*SourceError] when the archive or the registry that was
// asked for does not give it.
func (l *Library) Ensure(ctx context.Context, need Need) (Set, error) {
	r, err := l.recipes()
	if err != nil {
		return Set{}, err
	}
	have, err := l.look(ctx, r, need)
	if err != nil {
		return Set{}, err
	}
	if len(have.missing) > 0 {
		if err := l.obtain(ctx, r, have, need); err != nil {
			return Set{}, err
		}
		if have, err = l.look(ctx, r, need); err != nil {
			return Set{}, err
		}
	}
	if len(have.missing) > 0 { // somebody is removing it
		return Set{}, fmt.Errorf("take images that were made: %w", &MissingError{What: have.missing})
	}
	return l.set(r, have.flavour, need)
}

// holding is what of a set is there.
type holding struct {
	// flavour is that of the node image that is there; its zero value where
	// none is, or where there was no need to look.
	flavour flavour
	// missing is what is not there, in words.
	missing []string
}

// look asks the store and, for a node image, the engine.
func (l *Library) look(ctx context.Context, r recipes, need Need) (holding, error) {
	var have holding
	for _, a := range r.artifacts {
		if a.only != "" {
			continue
		}
		_, there, err := l.Store.Path(a.name, a.key)
		if err != nil {
			return holding{}, err
		}
		if !there {
			have.missing = append(have.missing, a.title)
		}
	}
	if need&Foundations != 0 {
		for _, d := range r.demos {
			if d.on == nil {
				continue
			}
			found, err := l.foundation(r, *d.on)
			if err != nil {
				return holding{}, err
			}
			if found.name == "" {
				have.missing = append(have.missing, d.on.title)
			}
		}
	}
	if need == Parts {
		return have, nil
	}
	f, there, err := l.nodeImage(ctx, r)
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
func (l *Library) nodeImage(ctx context.Context, r recipes) (f flavour, there bool, err error) {
	for _, f := range r.flavours {
		if l.Source == Pull && f.source != Pull || l.Source == Build && f.source != Build {
			continue
		}
		if _, there, err := l.Engine.Image(ctx, r.nodeReference(f)); err != nil || there {
			return f, there, err
		}
	}
	return flavour{}, false, nil
}

// foundation finds the artifact of a foundation that is there, of whichever
// source; its zero value where there is none.
func (l *Library) foundation(r recipes, on foundation) (artifact, error) {
	for _, f := range r.flavours {
		a, err := r.artifact(on.artifact(f.source))
		if err != nil {
			return artifact{}, err
		}
		if _, there, err := l.Store.Path(a.name, a.key); err != nil || there {
			return a, err
		}
	}
	return artifact{}, nil
}

// path returns the folder of an artifact that is there.
func (l *Library) path(r recipes, name string) (string, error) {
	a, err := r.artifact(name)
	if err != nil {
		return "", err
	}
	dir, there, err := l.Store.Path(a.name, a.key)
	if err != nil {
		return "", err
	}
	if !there {
		return "", &MissingError{What: []string{a.title}}
	}
	return dir, nil
}

func (l *Library) set(r recipes, f flavour, need Need) (Set, error) {
	chart, err := l.path(r, "metallb-chart")
	if err != nil {
		return Set{}, err
	}
	crds, err := l.path(r, "spire-crds")
	if err != nil {
		return Set{}, err
	}
	files, err := filepath.Glob(filepath.Join(crds, "crds", "*.yaml"))
	if err != nil {
		return Set{}, err
	}
	s := Set{MetalLBChart: filepath.Join(chart, "chart"), Demos: map[string]string{}}
	if need&Node != 0 {
		s.NodeImage, s.DefaultCNI = r.nodeReference(f), f.source == Pull
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return Set{}, fmt.Errorf("read CRD: %w", err)
		}
		s.CRDs = append(s.CRDs, data)
	}
	for _, d := range r.demos {
		if s.Demos[d.Name], err = r.demoReference(d); err != nil {
			return Set{}, err
		}
	}
	return s, nil
}

// LoadDemo gives a running node, by its container, the image of a demo program,
// unless it has it already; it reports whether it had to. What the image stands
// on is made where it is not there.
func (l *Library) LoadDemo(ctx context.Context, node, name string) (bool, error) {
	r, err := l.recipes()
	if err != nil {
		return false, err
	}
	d, err := r.demo(name)
	if err != nil {
		return false, err
	}
	ref, err := r.demoReference(d)
	if err != nil {
		return false, err
	}
	out, err := l.Engine.Exec(ctx, node, []string{"ctr", "--namespace", "k8s.io", "images", "ls", "--quiet", "name==" + ref}, nil)
	if err != nil {
		return false, fmt.Errorf("look for image %s: %w", ref, err)
	}
	if len(out) > 0 {
		return false, nil
	}
	if d.on != nil {
		if _, err := l.Ensure(ctx, Foundations); err != nil {
			return false, err
		}
	}
	img, err := l.demoImage(r, d)
	if err != nil {
		return false, err
	}
	return true, importImage(ctx, l.Engine, node, ref, img)
}

// DemoInEngine gives the Docker engine the image of a demo program, for a
// container beside the clusters, unless it has it already; it returns the image's
// name, which changes with the program. What is missing is made, as by Ensure.
func (l *Library) DemoInEngine(ctx context.Context, name string) (_ string, err error) {
	r, err := l.recipes()
	if err != nil {
		return "", err
	}
	d, err := r.demo(name)
	if err != nil {
		return "", err
	}
	ref, err := r.engineReference(d)
	if err != nil {
		return "", err
	}
	_, key, _ := strings.Cut(ref, ":")
	unlock, err := l.Store.Lock(ctx, imageSlug(key))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, there, err := l.Engine.Image(ctx, ref); err != nil || there {
		return ref, err
	}
	need := Parts
	if d.on != nil {
		need = Foundations
	}
	if _, err := l.Ensure(ctx, need); err != nil {
		return "", err
	}
	img, err := l.demoImage(r, d)
	if err != nil {
		return "", err
	}
	return ref, loadImage(ctx, l.Engine, ref, img, map[string]string{labelRole: r.realm + roleDemo, labelKey: key})
}

// demoImage makes the image of a demo program.
func (l *Library) demoImage(r recipes, d demo) (v1.Image, error) {
	if d.on == nil {
		dir, err := l.path(r, d.Name)
		if err != nil {
			return nil, err
		}
		return d.image(dir, empty.Image)
	}
	found, err := l.foundation(r, *d.on)
	if err != nil {
		return nil, err
	}
	if found.name == "" {
		return nil, &MissingError{What: []string{d.on.title}}
	}
	return l.imageOn(r, d, found)
}

// imageOn makes the image of a demo program on a foundation.
func (l *Library) imageOn(r recipes, d demo, below artifact) (v1.Image, error) {
	program, err := l.path(r, d.Name)
	if err != nil {
		return nil, err
	}
	files, err := l.path(r, below.name)
	if err != nil {
		return nil, err
	}
	img, err := d.on.open(below.only, files)
	if err != nil {
		return nil, err
	}
	return d.image(program, img)
}

// Program returns where a program lies that was built for the images, such as
// spire-server. It runs on Linux. The error is a [*MissingError] where it was
// not built, as after a pull.
func (l *Library) Program(name string) (string, error) {
	r, err := l.recipes()
	if err != nil {
		return "", err
	}
	for _, a := range r.artifacts {
		dir, there, err := l.Store.Path(a.name, a.key)
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
