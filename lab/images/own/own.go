// Package own has images of programs that fedlab does not bring along: it makes one of a
// program, or reads one from an archive of somebody's, and keeps it in a folder, from
// which it is given to nodes.
//
// It refuses to know who builds the programs and archives, and what the images are for.
package own

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// unpackedLimit is far more than the layers of an image have, in bytes.
const unpackedLimit = 8 << 30

// Image is an image that is read when it is kept.
type Image struct {
	config []byte
	ids    []v1.Hash // of the layers, unpacked
	layers []func() (io.ReadCloser, error)
}

// Program makes the image of a program, which has that name there, in its root folder.
func Program(file, name string) (Image, error) {
	if slices.Contains([]string{"dev", "etc", "proc", "sys", "tmp"}, name) {
		return Image{}, fmt.Errorf("a program is called after its folder, and in an image /%s is something else: the folder needs another name", name)
	}
	made, err := layer.Onto(empty.Image, file, "/"+name, nil)
	if err != nil {
		return Image{}, err
	}
	config, err := made.RawConfigFile()
	if err != nil {
		return Image{}, err
	}
	layers, err := made.Layers()
	if err != nil {
		return Image{}, err
	}
	img := Image{config: config}
	for _, l := range layers {
		id, err := l.DiffID()
		if err != nil {
			return Image{}, err
		}
		img.ids, img.layers = append(img.ids, id), append(img.layers, l.Uncompressed)
	}
	return img, nil
}

// Key is a short hash of all that is in the image: the configuration names each layer by
// its checksum.
func (i Image) Key() (string, error) {
	sum, _, err := v1.SHA256(bytes.NewReader(i.config))
	if err != nil {
		return "", err
	}
	return sum.Hex[:16], nil
}

// Fill writes the image to a folder, for Open. Each layer is unpacked, since nodes unpack
// it anyway, and compared with its checksum.
func (i Image) Fill(ctx context.Context, dir string, _ *os.File) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	left := int64(unpackedLimit)
	for n, open := range i.layers {
		size, err := write(ctx, dir, i.ids[n], open, left)
		if err != nil {
			return fmt.Errorf("layer %d of %d: %w", n+1, len(i.layers), err)
		}
		left -= size
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: types.DockerUncompressedLayer, Digest: i.ids[n], Size: size})
	}
	if manifest.Config, err = describe(ctx, dir, types.DockerConfigJSON, i.config); err != nil {
		return err
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	d, err := describe(ctx, dir, manifest.MediaType, text)
	if err != nil {
		return err
	}
	return path.AppendDescriptor(d)
}

// Open returns the image that Fill has written to a folder.
func Open(dir string) (v1.Image, error) {
	path := layout.Path(dir)
	index, err := path.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) != 1 {
		return nil, fmt.Errorf("%s has %d images, want 1", dir, len(m.Manifests))
	}
	return path.Image(m.Manifests[0].Digest)
}

// describe writes what describes an image to a layout.
func describe(ctx context.Context, dir string, media types.MediaType, text []byte) (v1.Descriptor, error) {
	sum, size, err := v1.SHA256(bytes.NewReader(text))
	if err == nil {
		_, err = write(ctx, dir, sum, data(text), size)
	}
	return v1.Descriptor{MediaType: media, Digest: sum, Size: size}, err
}

func data(text []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
}

// write writes a blob of at most limit bytes, with that checksum, to a layout. It returns
// the size.
func write(ctx context.Context, dir string, want v1.Hash, open func() (io.ReadCloser, error), limit int64) (size int64, err error) {
	r, err := open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f, err := os.Create(filepath.Join(dir, "blobs", want.Algorithm, want.Hex))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum, size, err := v1.SHA256(io.TeeReader(io.LimitReader(until{ctx, r}, limit+1), f))
	switch {
	case err != nil:
		return 0, err
	case size > limit:
		return 0, fmt.Errorf("the image has more than %d GiB", unpackedLimit>>30)
	case sum != want:
		return 0, fmt.Errorf("it is damaged: it has checksum %s, want %s", sum, want)
	}
	return size, nil
}

// until reads until a context ends.
type until struct {
	ctx context.Context //nolint:containedctx // a reader has no other way to be told
	io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.Reader.Read(p)
}
