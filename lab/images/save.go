package images

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

func (s stock) save(ctx context.Context, w io.Writer) error {
	have, err := s.look(ctx, All)
	if err != nil {
		return err
	}
	if len(have.missing) > 0 {
		return &MissingError{What: have.missing}
	}
	return s.Store.Scratch(ctx, func(dir string) error {
		s := saving{stock: s, parts: map[string]io.ReadSeeker{}, manifest: manifest{
			APIVersion: archiveAPI, Kind: archiveKind, Version: s.Version,
			Source: have.flavour.Source, Node: have.flavour.Key, Artifacts: map[string]string{},
		}}
		err := s.artifacts(ctx, dir)
		if err == nil {
			err = s.node(ctx, dir, have.flavour)
		}
		if err == nil {
			err = s.write(ctx, w)
		}
		return errors.Join(err, s.close())
	})
}

// saving is an archive being made.
type saving struct {
	stock
	manifest manifest
	parts    map[string]io.ReadSeeker
	files    []*os.File
}

// create opens a file that is closed at the end.
func (s *saving) create(dir, name string) (*os.File, error) {
	f, err := os.Create(filepath.Join(dir, name))
	if err == nil {
		s.files = append(s.files, f)
	}
	return f, err
}

func (s *saving) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// add lists a part, for whose size and hash it reads it. Without a name it is
// called after its hash.
func (s *saving) add(ctx context.Context, name string, content io.ReadSeeker) (string, error) {
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	size, sum, err := digest(until(ctx, content))
	if err != nil {
		return "", err
	}
	if name == "" {
		name = blobName(sum)
	}
	if s.parts[name] == nil {
		s.parts[name] = content
		s.manifest.Parts = append(s.manifest.Parts, part{Name: name, Size: size, SHA256: sum})
	}
	return name, nil
}

// artifacts packs those that every set has, and a foundation of each demo
// program that needs one.
func (s *saving) artifacts(ctx context.Context, dir string) error {
	all := slices.DeleteFunc(slices.Clone(s.book.Artifacts), func(a recipe.Artifact) bool { return a.Only != "" })
	for _, d := range s.book.Programs {
		if d.On != nil {
			a, _, err := s.foundation(*d.On)
			if err != nil {
				return err
			}
			all = append(all, a)
		}
	}
	for _, a := range all {
		from, err := s.path(a.Name)
		if err != nil {
			return err
		}
		f, err := s.create(dir, a.Slug())
		if err != nil {
			return err
		}
		if err := packFolder(f, from); err != nil {
			return err
		}
		if _, err := s.add(ctx, artifactName(a.Slug()), f); err != nil {
			return err
		}
		s.manifest.Artifacts[a.Name] = a.Key
	}
	return nil
}

// node lists the parts of the node image.
func (s *saving) node(ctx context.Context, dir string, f recipe.Flavour) error {
	refs := []string{s.engine.NodeReference(f.Key)}
	file, err := s.create(dir, "docker.tar")
	if err != nil {
		return err
	}
	if err := s.saveImages(ctx, refs, file); err != nil {
		return err
	}
	saved, err := readDockerTar(file)
	if err != nil {
		return err
	}
	images, err := saved.images(refs)
	if err != nil {
		return err
	}
	blobs := map[string]string{}
	blob := func(name string) (string, error) {
		name, err := saved.resolve(name)
		if err != nil || blobs[name] != "" {
			return blobs[name], err
		}
		blobs[name], err = s.add(ctx, "", saved.files[name])
		return blobs[name], err
	}
	for i, img := range images {
		one := savedImage{Reference: refs[i]}
		if one.Config, err = blob(img.Config); err != nil {
			return err
		}
		for _, layer := range img.Layers {
			name, err := blob(layer)
			if err != nil {
				return err
			}
			one.Layers = append(one.Layers, name)
		}
		s.manifest.Images = append(s.manifest.Images, one)
	}
	return nil
}

// write writes the manifest and the parts.
func (s *saving) write(ctx context.Context, w io.Writer) error {
	slices.SortFunc(s.manifest.Parts, func(a, b part) int { return strings.Compare(a.Name, b.Name) })
	data, err := json.MarshalIndent(s.manifest, "", "  ")
	if err != nil {
		return err
	}
	compressed, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(archiveWindow))
	if err != nil {
		return err
	}
	archive := layer.NewWriter(compressed)
	archive.File(manifestName, 0o644, data)
	for _, p := range s.manifest.Parts {
		content := s.parts[p.Name]
		if _, err := content.Seek(0, io.SeekStart); err != nil {
			return errors.Join(err, compressed.Close())
		}
		archive.Stream(p.Name, 0o644, p.Size, until(ctx, content))
	}
	return errors.Join(archive.Close(), compressed.Close())
}
