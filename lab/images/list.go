package images

import (
	"context"
	"os"
	"path/filepath"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Kind says what an [Entry] is.
type Kind string

// The kinds of entries.
const (
	// NodeImage is a Docker image from which clusters are made.
	NodeImage Kind = "node image"
	// ClusterImage is in the node image before a cluster boots.
	ClusterImage Kind = "image"
	// Demo is a demo program, whose image is given to the nodes that run it, or to
	// Docker for a container beside them.
	Demo Kind = "demo"
	// Chart is a Helm chart.
	Chart Kind = "chart"
	// CRDs are CustomResourceDefinitions.
	CRDs Kind = "crds"
	// Ingredient is what images are made of.
	Ingredient Kind = "ingredient"
)

// Entry is one image, chart, program or ingredient, there or not.
type Entry struct {
	Kind Kind
	Name string
	// Reference is an image's name with its version; for all else it is the
	// version, where upstream gives one.
	Reference string
	Present   bool
	// From is Build, Pull or Archive; empty where it is not there.
	From Source
	// Size is what it takes on disk, in bytes. It is 0 where it is not there,
	// and for an image of which there is nothing but what is in the node image.
	Size int64
	// Key is the hash of its recipe; empty for an image that kind's own node
	// image brings.
	Key string
}

// List tells what a set consists of, and of each thing whether it is there. It
// makes and fetches nothing. Ingredients are those of the node image that is
// there, or else of the one that would be built.
func (l *Library) List(ctx context.Context) ([]Entry, error) {
	r, err := l.recipes()
	if err != nil {
		return nil, err
	}
	f, _, err := l.nodeImage(ctx, r)
	if err != nil {
		return nil, err
	}
	if f.source == "" {
		f = r.flavour(Build)
	}
	node, err := l.listNode(ctx, r, f)
	if err != nil {
		return nil, err
	}
	images, err := l.listImages(r, f, node)
	if err != nil {
		return nil, err
	}
	entries := append([]Entry{node}, images...)
	for _, a := range r.artifacts {
		if a.only != "" && a.only != f.source {
			continue
		}
		e, err := l.listArtifact(a)
		if err != nil {
			return nil, err
		}
		if a.kind == Demo {
			d, err := r.demo(a.name)
			if err != nil {
				return nil, err
			}
			if e.Reference, err = r.demoReference(d); err != nil {
				return nil, err
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (l *Library) listNode(ctx context.Context, r recipes, f flavour) (Entry, error) {
	e := Entry{Kind: NodeImage, Name: "node", Reference: r.nodeReference(f), Key: f.key}
	img, there, err := l.Engine.Image(ctx, e.Reference)
	if err != nil || !there {
		return e, err
	}
	e.Present, e.Size = true, img.Size
	e.From, err = l.from(imageSlug(f.key), f.source)
	return e, err
}

// listImages lists the images that are in a node image. Where that is not
// there, they are as far as their programs, or what was pulled, is there.
func (l *Library) listImages(r recipes, f flavour, node Entry) ([]Entry, error) {
	images := r.images
	if f.source == Pull {
		images = append([]Image{r.kind}, images...)
	}
	var entries []Entry
	for _, img := range images {
		name, file := img.Artifact, build.ProgramPath("", img.Program)
		if f.source == Pull {
			name, file = pulledName(img), pull.File
		}
		e := Entry{Kind: ClusterImage, Name: img.Name, Reference: img.Reference}
		if f.source == Pull && img.Kubernetes {
			continue // in kind's own node image, in a version of its own
		}
		a, err := r.artifact(name)
		if err != nil {
			return nil, err
		}
		e.Key = a.key
		made, err := l.listArtifact(a)
		if err != nil {
			return nil, err
		}
		if e.Present, e.From = made.Present, made.From; made.Present {
			dir, _, err := l.Store.Path(a.name, a.key)
			if err != nil {
				return nil, err
			}
			info, err := os.Stat(filepath.Join(dir, file))
			if err != nil {
				return nil, err
			}
			e.Size = info.Size()
		}
		if node.Present {
			e.Present, e.From = true, node.From
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (l *Library) listArtifact(a artifact) (Entry, error) {
	e := Entry{Kind: a.kind, Name: a.name, Reference: a.version, Key: a.key}
	dir, there, err := l.Store.Path(a.name, a.key)
	if err != nil || !there {
		return e, err
	}
	e.Present = true
	if e.Size, err = store.TreeSize(dir); err != nil {
		return e, err
	}
	source := Build
	if a.only == Pull {
		source = Pull
	}
	e.From, err = l.from(a.slug(), source)
	return e, err
}

// from is where something that is there came from: made by source, unless it
// was loaded.
func (l *Library) from(slug string, source Source) (Source, error) {
	loaded, err := l.Store.WasLoaded(slug)
	if loaded {
		return Archive, err
	}
	return source, err
}
