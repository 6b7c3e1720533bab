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

func (s stock) load(ctx context.Context, archive io.Reader) error {
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
	f, carried, err := s.check(m)
	if err != nil {
		return err
	}
	return s.Store.Scratch(ctx, func(dir string) error {
		if err := unpackParts(files, m.Parts, dir); err != nil {
			return packed.described(err)
		}
		for _, a := range carried {
			if err := s.publish(ctx, a, dir); err != nil {
				return err
			}
		}
		return s.engine.LoadNode(ctx, f.Key, func(w io.Writer) error { return writeDockerTar(w, dir, m.Images) })
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
func (s stock) check(m manifest) (recipe.Flavour, []recipe.Artifact, error) {
	foreign := &ForeignError{Version: m.Version}
	var carried []recipe.Artifact
	// want takes the first that the archive has.
	want := func(title string, any ...recipe.Artifact) {
		i := slices.IndexFunc(any, func(a recipe.Artifact) bool { return m.Artifacts[a.Name] == a.Key })
		if i < 0 {
			foreign.Differs = append(foreign.Differs, title)
			return
		}
		carried = append(carried, any[i])
	}
	for _, a := range s.book.Artifacts {
		if a.Only == "" {
			want(a.Title, a)
		}
	}
	for _, d := range s.book.Programs {
		if d.On != nil {
			want(d.On.Title, slices.DeleteFunc(slices.Clone(s.book.Artifacts), func(a recipe.Artifact) bool {
				return a.Name != d.On.From(Build) && a.Name != d.On.From(Pull)
			})...)
		}
	}
	f := s.book.Flavour(m.Source)
	if m.Node != f.Key || f.Key == "" {
		foreign.Differs = append(foreign.Differs, "node image")
	}
	if len(foreign.Differs) > 0 {
		return recipe.Flavour{}, nil, foreign
	}
	var needed []string
	for _, a := range carried {
		needed = append(needed, artifactName(a.Slug()))
	}

	// The names of images come from what is needed: a forged archive must not
	// replace another one.
	whole := false
	for _, img := range m.Images {
		if img.Reference != s.engine.NodeReference(f.Key) {
			return recipe.Flavour{}, nil, fmt.Errorf("%w: image %s is not the node image of this fedlab", errIncomplete, img.Reference)
		}
		whole = true
		needed = append(append(needed, img.Config), img.Layers...)
	}
	if !whole {
		return recipe.Flavour{}, nil, fmt.Errorf("%w: it has no image %s", errIncomplete, s.engine.NodeReference(f.Key))
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
func (s stock) publish(ctx context.Context, a recipe.Artifact, dir string) error {
	made := false
	_, err := s.Store.Make(ctx, a.Name, a.Key, func(_ context.Context, folder string, _ *os.File) (err error) {
		made = true
		f, err := os.Open(partFile(dir, artifactName(a.Slug())))
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
	return s.Store.MarkLoaded(a.Slug(), true)
}
