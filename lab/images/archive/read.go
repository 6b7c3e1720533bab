package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// Reader is an archive being read. Until Unpack, only its index is.
type Reader struct {
	// Version is that of the fedlab that wrote it, Source that of the node image.
	Version, Source string
	// Keys are those of the images, by their names.
	Keys map[string]string

	index   v1.IndexManifest
	written []byte // the index as it is in the archive
	packed  *source
	plain   *zstd.Decoder
	files   *tar.Reader
}

// Open reads the index of an archive; the caller closes the reader.
func Open(ctx context.Context, archive io.Reader) (*Reader, error) {
	r := &Reader{packed: &source{Reader: until(ctx, archive)}, Keys: map[string]string{}}
	plain, err := zstd.NewReader(r.packed, zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return nil, r.packed.described(err)
	}
	r.plain, r.files = plain, tar.NewReader(plain)
	if err := r.readIndex(); err != nil {
		plain.Close()
		return nil, r.packed.described(err)
	}
	return r, nil
}

// Close frees what decompresses the archive, which stays open itself.
func (r *Reader) Close() { r.plain.Close() }

// source remembers why reading an archive ended, unless it ended well.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// described tells a person what an error in the midst of an archive means.
func (s *source) described(err error) error {
	var file *fs.PathError
	switch {
	case err == nil:
		return nil
	case s.err != nil:
		return s.err
	case errors.Is(err, zstd.ErrMagicMismatch):
		return fmt.Errorf("%w: it is not compressed with zstd", ErrForeign)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: it is compressed in another way, and takes more memory", ErrForeign)
	case errors.Is(err, ErrForeign), errors.Is(err, ErrOld), errors.Is(err, ErrWrong), errors.As(err, &file):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the archive is cut off: %w", err)
	}
	return fmt.Errorf("the archive is damaged: %w", err)
}

func (r *Reader) readIndex() error {
	h, err := r.files.Next()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, tar.ErrHeader), err == nil && h.Size > indexLimit:
		return ErrForeign
	case err != nil:
		return err
	}
	data, err := io.ReadAll(r.files)
	if err != nil {
		return err
	}
	// An earlier format began with a manifest of its own.
	var first struct{ Kind, ImageLayoutVersion string }
	err = json.Unmarshal(data, &first)
	switch {
	case err == nil && h.Name == "manifest.json" && first.Kind == "ImageArchive":
		return ErrOld
	case err != nil, h.Name != layoutName:
		return ErrForeign
	case first.ImageLayoutVersion != layoutVersion:
		return fmt.Errorf("%w: its layout has version %q, this fedlab knows %s", ErrWrong, first.ImageLayoutVersion, layoutVersion)
	}
	if h, err = r.next(indexName); err != nil {
		return err
	}
	if h.Size > indexLimit {
		return ErrForeign
	}
	if r.written, err = io.ReadAll(r.files); err != nil {
		return err
	}
	if err := json.Unmarshal(r.written, &r.index); err != nil {
		return ErrForeign
	}
	version, ours := r.index.Annotations[versionKey]
	if !ours {
		return ErrForeign
	}
	r.Version, r.Source = version, r.index.Annotations[sourceKey]
	for _, m := range r.index.Manifests {
		name := m.Annotations[nameKey]
		if _, twice := r.Keys[name]; twice || name == "" {
			return fmt.Errorf("%w: it has an image %q twice, or without a name", ErrWrong, name)
		}
		r.Keys[name] = m.Annotations[keyKey]
	}
	return nil
}

// next goes to the file of the archive that must follow.
func (r *Reader) next(name string) (*tar.Header, error) {
	h, err := r.files.Next()
	if errors.Is(err, io.EOF) || err == nil && h.Name != name {
		return nil, fmt.Errorf("%w: %s is not in its place", ErrWrong, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return h, nil
}

// Unpack reads the rest of the archive, which must have images of exactly these names,
// and writes it to an empty folder, in which the images that it returns lie. Sizes are
// compared before anything is written, and each file with its digest. Digests are in
// the archive itself: they tell damage, not forgery.
func (r *Reader) Unpack(dir string, names []string) (map[string]v1.Image, error) {
	images, err := r.unpack(dir, names)
	return images, r.packed.described(err)
}

func (r *Reader) unpack(dir string, names []string) (map[string]v1.Image, error) {
	for _, name := range names {
		if _, there := r.Keys[name]; !there {
			return nil, fmt.Errorf("%w: it has no image %s", ErrWrong, name)
		}
	}
	var manifests [][]byte
	sizes := map[v1.Hash]int64{}
	left, room := int64(blobsLimit), int64(indexLimit)
	for _, m := range r.index.Manifests {
		if name := m.Annotations[nameKey]; !slices.Contains(names, name) {
			return nil, fmt.Errorf("%w: nothing needs its image %s", ErrWrong, name)
		}
		if err := fits(m, types.OCIManifestSchema1, &room); err != nil {
			return nil, err
		}
		var data bytes.Buffer
		if err := r.blob(m.Digest, m.Size, &data); err != nil {
			return nil, err
		}
		var of v1.Manifest
		if err := json.Unmarshal(data.Bytes(), &of); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrWrong, err)
		}
		manifests = append(manifests, data.Bytes())
		config := int64(indexLimit) // it is read into memory
		if err := fits(of.Config, types.OCIConfigJSON, &config); err != nil {
			return nil, err
		}
		sizes[of.Config.Digest] = of.Config.Size
		for _, l := range of.Layers {
			if err := fits(l, types.OCIUncompressedLayer, &left); err != nil {
				return nil, err
			}
			sizes[l.Digest] = l.Size
		}
	}

	path := layout.Path(dir)
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	if err := path.WriteFile(indexName, r.written, 0o644); err != nil {
		return nil, err
	}
	for i, m := range r.index.Manifests {
		if err := path.WriteFile(blobName(m.Digest), manifests[i], 0o644); err != nil {
			return nil, err
		}
	}
	for _, digest := range order(sizes) {
		f, err := os.Create(filepath.Join(dir, blobName(digest)))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(r.blob(digest, sizes[digest], f), f.Close()); err != nil {
			return nil, err
		}
	}
	switch h, err := r.files.Next(); {
	case err == nil:
		return nil, fmt.Errorf("%w: %s is not in it", ErrWrong, h.Name)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	images := map[string]v1.Image{}
	for _, m := range r.index.Manifests {
		img, err := path.Image(m.Digest)
		if err != nil {
			return nil, err
		}
		images[m.Annotations[nameKey]] = img
	}
	return images, nil
}

// fits says whether a part is what it should be, and takes its size from what is left
// for such parts.
func fits(d v1.Descriptor, want types.MediaType, left *int64) error {
	if d.MediaType != want || d.Digest.Algorithm != "sha256" {
		return fmt.Errorf("%w: %s is of type %q, want %s with a SHA-256", ErrWrong, d.Digest, d.MediaType, want)
	}
	if d.Size < 0 || d.Size > *left {
		return fmt.Errorf("%w: %s has %d bytes, and %d are left for parts like it", ErrWrong, d.Digest, d.Size, *left)
	}
	*left -= d.Size
	return nil
}

// blob copies the next file of the archive, which must be a blob of that size.
func (r *Reader) blob(digest v1.Hash, size int64, to io.Writer) error {
	name := blobName(digest)
	h, err := r.next(name)
	if err != nil {
		return err
	}
	if h.Size != size {
		return fmt.Errorf("%s has %d bytes, want %d", name, h.Size, size)
	}
	sum, read, err := v1.SHA256(io.TeeReader(r.files, to))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if read != size || sum != digest {
		return fmt.Errorf("%s has %d bytes with checksum %s, want %d", name, read, sum, size)
	}
	return nil
}
