package images

import (
	"context"
	"os"
	"path/filepath"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Entry is one image, chart, program or ingredient, there or not.
type Entry struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Reference is an image's name with its version; for all else it is the
	// version, where upstream gives one.
	Reference string `json:"reference,omitempty"`
	Present   bool   `json:"present"`
	// From is Build, Pull or Archive; empty where it is not there.
	From Source `json:"from,omitempty"`
	// Size is what it takes on disk, in bytes. It is 0 where it is not there,
	// and for an image of which there is nothing but what is in the node image.
	Size int64 `json:"size"`
	// Key is the hash of its recipe; empty for an image that kind's own node
	// image brings.
	Key string `json:"key,omitempty"`
}

func (s stock) list(ctx context.Context) ([]Entry, error) {
	f, _, err := s.nodeImage(ctx)
	if err != nil {
		return nil, err
	}
	if f.Source == "" {
		f = s.book.Flavour(Build)
	}
	node, err := s.listNode(ctx, f)
	if err != nil {
		return nil, err
	}
	images, err := s.listImages(f, node)
	if err != nil {
		return nil, err
	}
	entries := append([]Entry{node}, images...)
	for _, a := range s.book.Artifacts {
		if a.Only != "" && a.Only != f.Source {
			continue
		}
		e, err := s.listArtifact(a)
		if err != nil {
			return nil, err
		}
		if a.Kind == recipe.Demo {
			if _, e.Reference, err = s.demo(a.Name); err != nil {
				return nil, err
			}
		}
		if a.Kind == recipe.OptionalProgram {
			if e.Name, e.Reference, err = s.optionalOf(a); err != nil {
				return nil, err
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (s stock) listNode(ctx context.Context, f recipe.Flavour) (Entry, error) {
	e := Entry{Kind: recipe.NodeImage, Name: "node", Reference: s.engine.NodeReference(f.Key), Key: f.Key}
	img, there, err := s.Engine.Image(ctx, e.Reference)
	if err != nil || !there {
		return e, err
	}
	e.Present, e.Size = true, img.Size
	e.From, err = s.from(engine.Slug(f.Key), f.Source)
	return e, err
}

// listImages lists the images that are in a node image. Where that is not
// there, they are as far as their programs, or what was pulled, is there.
func (s stock) listImages(f recipe.Flavour, node Entry) ([]Entry, error) {
	images := s.book.Images
	if f.Source == Pull {
		images = append([]Image{s.book.KindNode}, images...)
	}
	var entries []Entry
	for _, img := range images {
		name, file := img.Artifact, build.ProgramPath("", img.Program)
		if f.Source == Pull {
			name, file = recipe.PulledName(img), pull.File
		}
		e := Entry{Kind: recipe.ClusterImage, Name: img.Name, Reference: img.Reference}
		if f.Source == Pull && img.Kubernetes {
			continue // in kind's own node image, in a version of its own
		}
		a, err := s.book.Artifact(name)
		if err != nil {
			return nil, err
		}
		e.Key = a.Key
		made, err := s.listArtifact(a)
		if err != nil {
			return nil, err
		}
		if e.Present, e.From = made.Present, made.From; made.Present {
			dir, _, err := s.Store.Path(a.Name, a.Key)
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

func (s stock) listArtifact(a recipe.Artifact) (Entry, error) {
	e := Entry{Kind: a.Kind, Name: a.Name, Reference: a.Version, Key: a.Key}
	dir, there, err := s.Store.Path(a.Name, a.Key)
	if err != nil || !there {
		return e, err
	}
	e.Present = true
	if e.Size, err = store.TreeSize(dir); err != nil {
		return e, err
	}
	source := Build
	if a.Only == Pull {
		source = Pull
	}
	e.From, err = s.from(a.Slug(), source)
	return e, err
}

// from is where something that is there came from: made by source, unless it
// was loaded.
func (s stock) from(slug string, source Source) (Source, error) {
	loaded, err := s.Store.WasLoaded(slug)
	if loaded {
		return Archive, err
	}
	return source, err
}

// optionalOf names the optional program whose image is made of an artifact, and the image.
func (s stock) optionalOf(a recipe.Artifact) (name, reference string, err error) {
	for _, o := range s.book.Optionals {
		if o.From(Build) == a.Name || o.From(Pull) == a.Name {
			reference, err = s.book.OptionalReference(o)
			return o.Name, reference, err
		}
	}
	return a.Name, a.Version, nil
}
