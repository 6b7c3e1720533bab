package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// Writer is an archive being made: images are added first, then it is written.
type Writer struct {
	index     v1.IndexManifest
	manifests [][]byte
	// blobs are configurations and layers.
	blobs map[v1.Hash]blob
}

// blob is what can be read again; who opens it closes it.
type blob struct {
	size int64
	open func() (io.ReadCloser, error)
}

// NewWriter returns an archive without images, by a version of fedlab, whose node
// image is from a source.
func NewWriter(version, source string) *Writer {
	return &Writer{blobs: map[v1.Hash]blob{}, index: v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Annotations: map[string]string{versionKey: version, sourceKey: source},
	}}
}

// AddFolder adds an image of the files below a folder.
func (w *Writer) AddFolder(ctx context.Context, name, key, folder string) error {
	files, err := w.add(ctx, types.OCIUncompressedLayer, func() (io.ReadCloser, error) {
		r, files := io.Pipe()
		go func() { files.CloseWithError(pack(files, folder)) }()
		return r, nil
	})
	if err != nil {
		return err
	}
	config, err := json.Marshal(v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{files.Digest}},
	})
	if err != nil {
		return err
	}
	return w.addImage(ctx, name, key, config, files)
}

// AddSaved adds image ref of a file that Docker has saved, which must stay until the
// archive is written.
func (w *Writer) AddSaved(ctx context.Context, image, key, ref, file string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	img, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	var all []v1.Descriptor
	for _, l := range layers {
		d, err := w.add(ctx, types.OCIUncompressedLayer, l.Uncompressed)
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	return w.addImage(ctx, image, key, config, all...)
}

func (w *Writer) addImage(ctx context.Context, name, key string, config []byte, layers ...v1.Descriptor) error {
	c, err := w.add(ctx, types.OCIConfigJSON, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(config)), nil })
	if err != nil {
		return err
	}
	data, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: c, Layers: layers})
	if err != nil {
		return err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return err
	}
	w.manifests = append(w.manifests, data)
	w.index.Manifests = append(w.index.Manifests, v1.Descriptor{
		MediaType: types.OCIManifestSchema1, Size: size, Digest: digest, Annotations: map[string]string{nameKey: name, keyKey: key},
	})
	return nil
}

// add adds a blob, for whose size and digest it reads it.
func (w *Writer) add(ctx context.Context, media types.MediaType, open func() (io.ReadCloser, error)) (v1.Descriptor, error) {
	content, err := open()
	if err != nil {
		return v1.Descriptor{}, err
	}
	digest, size, err := v1.SHA256(until(ctx, content))
	w.blobs[digest] = blob{size: size, open: open}
	return v1.Descriptor{MediaType: media, Size: size, Digest: digest}, errors.Join(err, content.Close())
}

// order is that in which configurations and layers follow the manifests.
func order[T any](blobs map[v1.Hash]T) []v1.Hash {
	return slices.SortedFunc(maps.Keys(blobs), func(a, b v1.Hash) int { return strings.Compare(a.String(), b.String()) })
}

// Write writes the archive; out stays open.
func (w *Writer) Write(ctx context.Context, out io.Writer) error {
	index, err := json.MarshalIndent(w.index, "", "  ")
	if err != nil {
		return err
	}
	compressed, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(window))
	if err != nil {
		return err
	}
	files := layer.NewWriter(compressed)
	files.File(layoutName, 0o644, []byte(`{"imageLayoutVersion":"`+layoutVersion+`"}`))
	files.File(indexName, 0o644, index)
	for i, m := range w.index.Manifests {
		files.File(blobName(m.Digest), 0o644, w.manifests[i])
	}
	for _, digest := range order(w.blobs) {
		b := w.blobs[digest]
		content, err := b.open()
		if err != nil {
			return errors.Join(err, compressed.Close())
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: blobName(digest), Mode: 0o644, Size: b.size}
		if err := errors.Join(files.Entry(&h, until(ctx, content)), content.Close()); err != nil {
			return errors.Join(err, compressed.Close())
		}
	}
	return errors.Join(files.Close(), compressed.Close())
}
