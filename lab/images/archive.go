package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fedlab-dev/fedlab/lab/images/archive"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

// ForeignError says that an archive was made by a fedlab whose catalogue or
// demo programs are others.
type ForeignError struct {
	// Version is that of the fedlab that wrote it.
	Version string
	// Differs are the names of what it has in another version.
	Differs []string
}

func (e *ForeignError) Error() string {
	version := e.Version
	if version == "" {
		version = "of an unknown version"
	}
	return fmt.Sprintf("the archive was written by fedlab %s, this one needs another version of: %s", version, strings.Join(e.Differs, ", "))
}

// scratchName is that of the folder in the store in which archives are made and read.
const scratchName = "archive"

// nodeName is what an archive calls the node image; artifacts have their own names.
const nodeName = "node"

func (s stock) save(ctx context.Context, w io.Writer) error {
	have, err := s.look(ctx, All)
	if err != nil {
		return err
	}
	if len(have.missing) > 0 {
		return &MissingError{What: have.missing}
	}
	choices, err := s.choices(All)
	if err != nil {
		return err
	}
	for _, o := range s.book.Optionals {
		c, err := s.optional(o)
		if err != nil {
			return err
		}
		if _, _, there, err := s.first(c); err != nil {
			return err
		} else if there {
			choices = append(choices, c)
		}
	}
	key := have.flavour.Key
	saved := archive.NewWriter(s.Version, string(have.flavour.Source))
	var added []string
	for _, c := range choices {
		a, dir, _, err := s.first(c)
		if err != nil {
			return err
		}
		// Several images of hosts are made of one.
		if slices.Contains(added, a.Name) {
			continue
		}
		added = append(added, a.Name)
		if err := saved.AddFolder(ctx, a.Name, a.Key, dir); err != nil {
			return err
		}
	}
	return s.Store.Scratch(ctx, scratchName, func(dir string) error {
		file := filepath.Join(dir, "docker.tar")
		if err := s.engine.Save(ctx, s.engine.NodeReference(key), file); err != nil {
			return err
		}
		if err := saved.AddSaved(ctx, nodeName, key, s.engine.NodeReference(key), file); err != nil {
			return err
		}
		return saved.Write(ctx, w)
	})
}

func (s stock) load(ctx context.Context, file io.Reader) error {
	saved, err := archive.Open(ctx, file)
	if err != nil {
		return err
	}
	defer saved.Close()
	f, artifacts, err := s.check(saved)
	if err != nil {
		return err
	}
	names := []string{nodeName}
	for _, a := range artifacts {
		names = append(names, a.Name)
	}
	return s.Store.Scratch(ctx, scratchName, func(dir string) error {
		images, err := saved.Unpack(dir, names)
		if err != nil {
			return err
		}
		for _, a := range artifacts {
			if err := s.publish(ctx, a, images[a.Name]); err != nil {
				return err
			}
		}
		return s.engine.LoadNode(ctx, f.Key, images[nodeName])
	})
}

// check compares what an archive says that it has with what is needed. It returns the
// flavour of the node image and the artifacts to take, each once.
func (s stock) check(saved *archive.Reader) (recipe.Flavour, []recipe.Artifact, error) {
	foreign := &ForeignError{Version: saved.Version}
	var artifacts []recipe.Artifact
	choices, err := s.choices(All)
	if err != nil {
		return recipe.Flavour{}, nil, err
	}
	for _, o := range s.book.Optionals {
		c, err := s.optional(o)
		if err != nil {
			return recipe.Flavour{}, nil, err
		}
		// One that it has in another version is another fedlab's.
		if slices.ContainsFunc(c.of, func(a recipe.Artifact) bool { return saved.Keys[a.Name] != "" }) {
			choices = append(choices, c)
		}
	}
	for _, c := range choices {
		i := slices.IndexFunc(c.of, func(a recipe.Artifact) bool { return saved.Keys[a.Name] == a.Key })
		if i < 0 {
			foreign.Differs = append(foreign.Differs, c.title)
			continue
		}
		if !slices.ContainsFunc(artifacts, func(a recipe.Artifact) bool { return a.Name == c.of[i].Name }) {
			artifacts = append(artifacts, c.of[i])
		}
	}
	f := s.book.Flavour(Source(saved.Source))
	if saved.Keys[nodeName] != f.Key || f.Key == "" {
		foreign.Differs = append(foreign.Differs, "node image")
	}
	if len(foreign.Differs) > 0 {
		return recipe.Flavour{}, nil, foreign
	}
	return f, artifacts, nil
}

func (s stock) publish(ctx context.Context, a recipe.Artifact, img v1.Image) error {
	made := false
	_, err := s.Store.Make(ctx, a.Name, a.Key, func(_ context.Context, folder string, _ *os.File) error {
		made = true
		return archive.Extract(img, folder)
	})
	if err != nil || !made {
		return err
	}
	return s.Store.MarkLoaded(a.Slug(), true)
}
