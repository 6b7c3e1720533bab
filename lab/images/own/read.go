package own

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// entriesLimit is far more files than an archive of images has.
	entriesLimit = 1 << 16
	// textLimit is far more than indexes, manifests and configurations have together, in
	// bytes; they are read into memory.
	textLimit = 16 << 20
	// window is how far back a compressed layer may point, in bytes; an archive decides
	// how much memory it takes to unpack it.
	window = 64 << 20
)

// errNone says that a person took another file for an archive of images.
var errNone = errors.New("it is not an archive of images, as 'docker save' writes it, or an OCI layout in a tar, neither of them compressed")

// Read lets do have an image for nodes from a file that is an archive of images: the
// only one in it, or the one that is called so. The image can be kept as long as do runs.
func Read(ctx context.Context, file, called string, do func(Image) error) (err error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("it is not there")
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("it is a folder, want a file")
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a := &archive{file: f, files: map[string]span{}, links: map[string]string{}, left: textLimit}
	if err := a.index(ctx, info.Size()); err != nil {
		return err
	}
	all, err := a.images()
	if err != nil {
		return err
	}
	img, err := a.choose(all, called)
	if err != nil {
		return err
	}
	return do(img)
}

// archive is a tar archive whose files are read where they lie, and never written
// anywhere under their names.
type archive struct {
	file  *os.File
	files map[string]span
	links map[string]string
	left  int64
}

// span is where a file lies in the archive.
type span struct{ at, size int64 }

// index finds the files of an archive of that size.
func (a *archive) index(ctx context.Context, size int64) error {
	headers := tar.NewReader(a.file) // reads no further than the header
	for range entriesLimit {
		h, err := headers.Next()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case len(a.files) == 0 && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)):
			return errNone
		case errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("it is cut off")
		case err != nil:
			return err
		}
		at, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		switch name := clean(h.Name); h.Typeflag {
		case tar.TypeReg:
			if h.Size > size-at {
				return errors.New("it is cut off")
			}
			a.files[name] = span{at, h.Size}
		case tar.TypeSymlink: // an older Docker saves a layer once
			a.links[name] = clean(path.Join(path.Dir(name), h.Linkname))
		case tar.TypeLink:
			a.links[name] = clean(h.Linkname)
		}
	}
	return fmt.Errorf("it has more than %d files", entriesLimit)
}

func clean(name string) string { return path.Clean("/" + name) }

// find returns a file of the archive; nil where it is not there.
func (a *archive) find(name string) *io.SectionReader {
	name = clean(name)
	if to, is := a.links[name]; is {
		name = to
	}
	s, there := a.files[name]
	if !there {
		return nil
	}
	return io.NewSectionReader(a.file, s.at, s.size)
}

// text reads a file that describes others; its checksum may be unknown.
func (a *archive) text(name string, want v1.Hash) ([]byte, error) {
	f := a.find(name)
	if f == nil {
		return nil, fmt.Errorf("it lacks its file %q", name)
	}
	if a.left -= f.Size(); a.left < 0 {
		return nil, fmt.Errorf("it describes its images with more than %d MiB", textLimit>>20)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	if sum, _, err := v1.SHA256(bytes.NewReader(data)); err != nil || want.Hex != "" && sum != want {
		return nil, errors.Join(err, fmt.Errorf("its file %q is damaged", name))
	}
	return data, nil
}

// described is an image as an archive describes it.
type described struct {
	names  []string
	config []byte
	layers []string // files of the archive
}

// images lists the images of the archive. One for several platforms is several images
// with the same names.
func (a *archive) images() ([]described, error) {
	if a.find("manifest.json") == nil {
		if a.find("oci-layout") == nil || a.find("index.json") == nil {
			return nil, errNone
		}
		index, err := a.text("index.json", v1.Hash{})
		if err != nil {
			return nil, err
		}
		return a.indexed(index, nil)
	}
	text, err := a.text("manifest.json", v1.Hash{})
	if err != nil {
		return nil, err
	}
	var saved []struct {
		Config           string
		RepoTags, Layers []string
	}
	if json.Unmarshal(text, &saved) != nil {
		return nil, errNone
	}
	var all []described
	for _, s := range saved {
		config, err := a.text(s.Config, v1.Hash{})
		if err != nil {
			return nil, err
		}
		all = append(all, described{s.RepoTags, config, s.Layers})
	}
	return all, nil
}

// indexed lists the images of an OCI index; those of an index in it have its names.
func (a *archive) indexed(text []byte, names []string) ([]described, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read an index of it: %w", err)
	}
	var all []described
	for _, d := range index.Manifests {
		of := names
		for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
			if called := d.Annotations[key]; called != "" {
				of = append(slices.Clone(of), called)
			}
		}
		if a.find(blob(d.Digest)) == nil {
			continue // an index may name platforms that were not saved
		}
		text, err := a.text(blob(d.Digest), d.Digest)
		if err != nil {
			return nil, err
		}
		switch {
		case d.MediaType.IsIndex():
			more, err := a.indexed(text, of)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		case d.MediaType.IsImage():
			m, err := v1.ParseManifest(bytes.NewReader(text))
			if err != nil {
				return nil, fmt.Errorf("read a manifest of it: %w", err)
			}
			config, err := a.text(blob(m.Config.Digest), m.Config.Digest)
			if err != nil {
				return nil, err
			}
			one := described{names: of, config: config}
			for _, l := range m.Layers {
				one.layers = append(one.layers, blob(l.Digest))
			}
			all = append(all, one)
		}
	}
	return all, nil
}

func blob(digest v1.Hash) string { return path.Join("blobs", digest.Algorithm, digest.Hex) }

// choose takes the only image, or the one that is called so, for the platform of nodes.
func (a *archive) choose(all []described, called string) (Image, error) {
	if len(all) == 0 {
		return Image{}, errors.New("it has no image")
	}
	fit := slices.DeleteFunc(slices.Clone(all), func(d described) bool {
		return !slices.ContainsFunc(d.names, func(n string) bool { return whole(n) == whole(called) })
	})
	if len(fit) == 0 {
		fit = all
		if slices.ContainsFunc(all, func(d described) bool { return !slices.Equal(d.names, all[0].names) }) {
			return Image{}, several(all, called)
		}
	}
	var found []Image
	var platforms []string
	for _, d := range fit {
		config, err := v1.ParseConfigFile(bytes.NewReader(d.config))
		if err != nil {
			return Image{}, fmt.Errorf("read the configuration of an image: %w", err)
		}
		platform := config.OS + "/" + config.Architecture
		if platform != nodes() {
			platforms = append(platforms, platform)
			continue
		}
		img, err := a.image(d, config.RootFS.DiffIDs)
		if err != nil {
			return Image{}, err
		}
		if !slices.ContainsFunc(found, func(i Image) bool { return bytes.Equal(i.config, d.config) }) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return Image{}, fmt.Errorf("its image is for %q, and nodes are %s", platforms[:min(len(platforms), 10)], nodes())
	case 1:
		return found[0], nil
	}
	return Image{}, several(fit, called)
}

// nodes is the platform of nodes.
func nodes() string { return "linux/" + runtime.GOARCH }

// whole is a reference with all its parts; what is none stays.
func whole(reference string) string {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return reference
	}
	return ref.Name()
}

func several(all []described, called string) error {
	var names []string
	for _, d := range all {
		names = append(names, d.names...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return fmt.Errorf("it has %d images, and not exactly one is called %s: their names are %q", len(all), called, names[:min(len(names), 10)])
}

func (a *archive) image(d described, ids []v1.Hash) (Image, error) {
	if len(ids) != len(d.layers) {
		return Image{}, fmt.Errorf("its image has %d layers, and its configuration names %d", len(d.layers), len(ids))
	}
	img := Image{config: d.config, ids: ids}
	for _, name := range d.layers {
		packed := a.find(name)
		if packed == nil {
			return Image{}, fmt.Errorf("it lacks the layer %q", name)
		}
		img.layers = append(img.layers, func() (io.ReadCloser, error) { return unpacked(packed) })
	}
	return img, nil
}

// unpacked reads a layer that may be compressed.
func unpacked(packed *io.SectionReader) (io.ReadCloser, error) {
	r := bufio.NewReader(io.NewSectionReader(packed, 0, packed.Size()))
	magic, err := r.Peek(4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}
