package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
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

// Load takes what Save has written; afterwards, Ensure has nothing to make.
// Each part is checked against its checksum, and only when all of them are good
// does anything get its name. The error wraps a [*ForeignError] when the
// archive is another fedlab's.
//
// The checksums stand in the archive itself: they tell damage, not forgery.
func (l *Library) Load(ctx context.Context, archive io.Reader) error {
	r, err := l.recipes()
	if err == nil {
		err = l.load(ctx, r, archive)
	}
	if err != nil {
		return fmt.Errorf("load images: %w", err)
	}
	return nil
}

func (l *Library) load(ctx context.Context, r recipes, archive io.Reader) error {
	packed := &source{Reader: until(ctx, archive)}
	plain, err := zstd.NewReader(packed, zstd.WithDecoderMaxWindow(archiveWindow))
	if err != nil {
		return packed.described(err)
	}
	defer plain.Close()
	files := tar.NewReader(plain)
	m, err := readManifest(files)
	if err != nil {
		return packed.described(err)
	}
	f, carried, err := r.check(m)
	if err != nil {
		return err
	}
	return l.Store.Scratch(ctx, func(dir string) error {
		if err := unpackParts(files, m.Parts, dir); err != nil {
			return packed.described(err)
		}
		for _, a := range carried {
			if err := l.publish(ctx, a, dir); err != nil {
				return err
			}
		}
		return l.publishNode(ctx, r, f, m, dir)
	})
}

// errForeign says that somebody took another file for an archive of images.
var errForeign = errors.New("it is not an archive of fedlab's images")

// errIncomplete says that an archive is whole, and not what Save writes.
var errIncomplete = errors.New("its manifest is wrong")

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
	case s.err != nil:
		return s.err
	case errors.Is(err, zstd.ErrMagicMismatch):
		return fmt.Errorf("%w: it is not compressed with zstd", errForeign)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: it is compressed in another way, and takes more memory", errForeign)
	case errors.Is(err, errForeign), errors.Is(err, errIncomplete), errors.As(err, &file):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the archive is cut off: %w", err)
	}
	return fmt.Errorf("the archive is damaged: %w", err)
}

// check compares what an archive says that it has with what is needed, and that
// with its parts. It returns the artifacts to take.
func (r recipes) check(m manifest) (flavour, []artifact, error) {
	foreign := &ForeignError{Version: m.Version}
	var carried []artifact
	// want takes the first that the archive has.
	want := func(title string, any ...artifact) {
		i := slices.IndexFunc(any, func(a artifact) bool { return m.Artifacts[a.name] == a.key })
		if i < 0 {
			foreign.Differs = append(foreign.Differs, title)
			return
		}
		carried = append(carried, any[i])
	}
	for _, a := range r.artifacts {
		if a.only == "" {
			want(a.title, a)
		}
	}
	for _, d := range r.demos {
		if d.on != nil {
			want(d.on.title, slices.DeleteFunc(slices.Clone(r.artifacts), func(a artifact) bool {
				return a.name != d.on.artifact(Build) && a.name != d.on.artifact(Pull)
			})...)
		}
	}
	f := r.flavour(m.Source)
	if m.Node != f.key || f.key == "" {
		foreign.Differs = append(foreign.Differs, "node image")
	}
	if len(foreign.Differs) > 0 {
		return flavour{}, nil, foreign
	}
	var needed []string
	for _, a := range carried {
		needed = append(needed, artifactName(a.slug()))
	}

	// The names of images come from what is needed: a forged archive must not
	// replace another one.
	whole := false
	for _, img := range m.Images {
		if img.Reference != r.nodeReference(f) {
			return flavour{}, nil, fmt.Errorf("%w: image %s is not the node image of this fedlab", errIncomplete, img.Reference)
		}
		whole = true
		needed = append(append(needed, img.Config), img.Layers...)
	}
	if !whole {
		return flavour{}, nil, fmt.Errorf("%w: it has no image %s", errIncomplete, r.nodeReference(f))
	}
	return f, carried, m.checkParts(needed)
}

// checkParts compares the parts that a manifest lists with those that are needed.
// It says how large they are, so what is written is known before.
func (m manifest) checkParts(needed []string) error {
	for _, name := range needed {
		if !slices.ContainsFunc(m.Parts, func(p part) bool { return p.Name == name }) {
			return fmt.Errorf("%w: it has no %s", errIncomplete, name)
		}
	}
	var sum int64
	for _, p := range m.Parts {
		if !slices.Contains(needed, p.Name) {
			return fmt.Errorf("%w: nothing needs its %s", errIncomplete, p.Name)
		}
		if p.Size < 0 || p.Size > partsLimit-sum {
			return fmt.Errorf("%w: with %d bytes of %s, its parts have more than %d", errIncomplete, p.Size, p.Name, int64(partsLimit))
		}
		sum += p.Size
	}
	return nil
}

// unpackParts writes the parts of an archive to a folder and compares them with
// what the manifest says.
func unpackParts(archive *tar.Reader, parts []part, dir string) error {
	for _, p := range parts {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) || err == nil && h.Name != p.Name {
			return fmt.Errorf("%w: %s is not in its place", errIncomplete, p.Name)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", p.Name, err)
		}
		if h.Size != p.Size {
			return fmt.Errorf("%s has %d bytes, want %d", p.Name, h.Size, p.Size)
		}
		f, err := os.Create(partFile(dir, p.Name))
		if err != nil {
			return err
		}
		size, sum, err := digest(io.TeeReader(archive, f))
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("read %s: %w", p.Name, err)
		}
		if size != p.Size || sum != p.SHA256 {
			return fmt.Errorf("%s has %d bytes with checksum %s, want %d with %s", p.Name, size, sum, p.Size, p.SHA256)
		}
	}
	switch h, err := archive.Next(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w: %s is not in it", errIncomplete, h.Name)
	}
}

// publish puts an artifact into the store.
func (l *Library) publish(ctx context.Context, a artifact, dir string) error {
	made := false
	_, err := l.Store.Make(ctx, a.name, a.key, func(_ context.Context, folder string, _ *os.File) (err error) {
		made = true
		f, err := os.Open(partFile(dir, artifactName(a.slug())))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return unpackFolder(f, folder, info.Size())
	})
	if err != nil || !made {
		return err
	}
	return l.Store.MarkLoaded(a.slug(), true)
}

// publishNode gives the node image to the engine.
func (l *Library) publishNode(ctx context.Context, r recipes, f flavour, m manifest, dir string) (err error) {
	unlock, err := l.Store.Lock(ctx, imageSlug(f.key))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	_, there, err := l.Engine.Image(ctx, r.nodeReference(f))
	if err != nil || there {
		return err
	}
	archive, w := io.Pipe()
	go func() { w.CloseWithError(writeDockerTar(w, dir, m.Images)) }()
	if err := errors.Join(l.Engine.LoadImages(ctx, archive), archive.Close()); err != nil {
		return err
	}
	if _, there, err = l.Engine.Image(ctx, r.nodeReference(f)); err == nil && !there {
		err = fmt.Errorf("docker has loaded the archive, and has no image %s", r.nodeReference(f))
	}
	return errors.Join(err, l.Store.MarkLoaded(imageSlug(f.key), true))
}
