package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/own"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Own is the image of a program that fedlab does not bring along. Exactly one of Go,
// Archive and Docker says where it comes from; paths are absolute.
type Own struct {
	// Name is what manifests call the image.
	Name string
	// Go is the folder of a Go main package, Archive a file as 'docker save' writes it
	// or an OCI layout in a tar, Docker an image of the local engine.
	Go, Archive, Docker string
}

// Own makes or reads the image of a program that fedlab does not bring along. It returns
// the reference that nodes know the image by, which changes with what is in the image.
// A Go program is built each time, which takes no time where nothing has changed. What
// comes of it lies in the store, for LoadOwn.
func (l *Library) Own(ctx context.Context, o Own) (reference string, err error) {
	reference, err = with(l, func(s stock) (string, error) { return s.own(ctx, o) })
	if err != nil {
		return "", fmt.Errorf("image %s: %w", o.Name, err)
	}
	return reference, nil
}

// LoadOwn gives a running node, by its container, an image that Own has made, unless it
// has it already; it reports whether it had to.
func (l *Library) LoadOwn(ctx context.Context, node, reference string) (bool, error) {
	return with(l, func(s stock) (bool, error) { return s.loadOwn(ctx, node, reference) })
}

// ownHome starts the references, ownArtifact the names in the store, and ownBench those of
// where a program was linked, so that it is linked again only when it changes.
const (
	ownHome     = "fedlab.local/own/"
	ownArtifact = "own-"
	ownBench    = "program-"
)

// ownReference has the slug of a name, and a key.
var ownReference = regexp.MustCompile(`^` + regexp.QuoteMeta(ownHome) + `([a-z0-9]+(?:-[a-z0-9]+)*):([0-9a-f]{16})$`)

var noSlug = regexp.MustCompile(`[^a-z0-9]+`)

// ownSlug is a name as references and files may have it.
func ownSlug(name string) string {
	const limit = 60
	slug := strings.Trim(noSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if slug = strings.Trim(slug[:min(len(slug), limit)], "-"); slug == "" {
		return "image"
	}
	return slug
}

func (s stock) own(ctx context.Context, o Own) (ref string, err error) {
	keep := func(img own.Image) error {
		key, err := img.Key()
		if err != nil {
			return err
		}
		ref = ownHome + ownSlug(o.Name) + ":" + key
		return s.keepOwn(ctx, o.Name, key, img)
	}
	switch {
	case o.Go != "" && o.Archive+o.Docker == "":
		err = s.Store.Bench(ctx, ownBench+store.Key(o.Go), func(dir string) error {
			program := filepath.Join(dir, "program")
			if err := build.Folder(ctx, o.Go, program); err != nil {
				return err
			}
			img, err := own.Program(program, filepath.Base(o.Go))
			if err != nil {
				return err
			}
			return keep(img)
		})
		return ref, err
	case o.Archive != "" && o.Go+o.Docker == "":
		if err := own.Read(ctx, o.Archive, o.Name, keep); err != nil {
			return "", fmt.Errorf("read archive %s: %w", o.Archive, err)
		}
		return ref, nil
	case o.Docker != "" && o.Go+o.Archive == "":
		return s.ownOfDocker(ctx, o)
	}
	return "", errors.New("want exactly one of a Go package, an archive and an image of Docker")
}

// keepOwn puts an image into the store, under a key.
func (s stock) keepOwn(ctx context.Context, name, key string, img own.Image) error {
	_, err := s.Store.Make(ctx, ownArtifact+ownSlug(name), key, img.Fill)
	return err
}

// ownOfDocker keeps an image of the engine, which is saved only once: its id tells
// what is in it.
func (s stock) ownOfDocker(ctx context.Context, o Own) (string, error) {
	found, there, err := s.Engine.Image(ctx, o.Docker)
	if err != nil {
		return "", err
	}
	if !there {
		return "", fmt.Errorf("the Docker engine has no image %s", o.Docker)
	}
	key := store.Key(found.ID)
	ref := ownHome + ownSlug(o.Name) + ":" + key
	if _, there, err := s.Store.Path(ownArtifact+ownSlug(o.Name), key); err != nil || there {
		return ref, err
	}
	err = s.Store.Scratch(ctx, ownArtifact+key, func(dir string) error {
		file := filepath.Join(dir, "docker.tar")
		// By its id: the name may go to another image meanwhile.
		if err := s.engine.Save(ctx, found.ID, file); err != nil {
			return err
		}
		return own.Read(ctx, file, o.Name, func(img own.Image) error { return s.keepOwn(ctx, o.Name, key, img) })
	})
	if err != nil {
		return "", fmt.Errorf("take image %s of the Docker engine: %w", o.Docker, err)
	}
	return ref, nil
}

func (s stock) loadOwn(ctx context.Context, node, ref string) (bool, error) {
	parts := ownReference.FindStringSubmatch(ref)
	if parts == nil {
		return false, fmt.Errorf("%q is not the reference of an image of a program of one's own", ref)
	}
	if there, err := s.engine.Has(ctx, node, ref); err != nil || there {
		return false, err
	}
	name, key := ownArtifact+parts[1], parts[2]
	dir, there, err := s.Store.Path(name, key)
	if err == nil && there {
		err = s.importOwn(ctx, node, ref, dir)
	}
	// Prune may remove it at any moment.
	if err == nil && !there || errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("image %s is not in the store any more: run 'fedlab up' again, which makes it", ref)
	}
	return err == nil, err
}

func (s stock) importOwn(ctx context.Context, node, ref, dir string) error {
	img, err := own.Open(dir)
	if err != nil {
		return err
	}
	return s.engine.Import(ctx, node, ref, img)
}
