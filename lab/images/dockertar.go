package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// dockerTar is an archive on disk as Docker saves images. Docker writes one
// otherwise each time: in which order, and what is a link to what.
type dockerTar struct {
	path string
	// files says where in the archive each file lies.
	files map[string]*io.SectionReader
	links map[string]string
}

// dockerManifest is an image as Docker's archives list it.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// saveImages lets the engine write images to a file.
func (s stock) saveImages(ctx context.Context, refs []string, file io.Writer) (err error) {
	saved, err := s.Engine.SaveImages(ctx, refs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, saved.Close()) }()
	_, err = io.Copy(file, until(ctx, saved))
	return err
}

// readDockerTar finds the files of an archive, which can be read until f is
// closed.
func readDockerTar(f *os.File) (dockerTar, error) {
	t := dockerTar{path: f.Name(), files: map[string]*io.SectionReader{}, links: map[string]string{}}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return t, err
	}
	archive := tar.NewReader(f)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return t, fmt.Errorf("read %s: %w", t.path, err)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader stands where the file begins: it reads no further
			// than it must.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return t, err
			}
			t.files[h.Name] = io.NewSectionReader(f, at, h.Size)
		case tar.TypeSymlink:
			t.links[h.Name] = path.Join(path.Dir(h.Name), h.Linkname)
		}
	}
}

// resolve follows the link that a name may be.
func (t dockerTar) resolve(name string) (string, error) {
	if target, ok := t.links[name]; ok {
		name = target
	}
	if t.files[name] == nil {
		return "", fmt.Errorf("read %s: it has no %s", t.path, name)
	}
	return name, nil
}

// images lists the images, in the order of refs.
func (t dockerTar) images(refs []string) ([]dockerManifest, error) {
	name, err := t.resolve("manifest.json")
	if err != nil {
		return nil, err
	}
	var all []dockerManifest
	if err := json.NewDecoder(t.files[name]).Decode(&all); err != nil {
		return nil, fmt.Errorf("read %s: %w", t.path, err)
	}
	named := map[string]dockerManifest{}
	for _, m := range all {
		for _, ref := range m.RepoTags {
			named[ref] = m
		}
	}
	var images []dockerManifest
	for _, ref := range refs {
		m, ok := named[ref]
		if !ok {
			return nil, fmt.Errorf("read %s: it has no image %s", t.path, ref)
		}
		images = append(images, m)
	}
	return images, nil
}

// writeDockerTar writes an archive for Docker of images whose configurations
// and layers are files of a folder.
func writeDockerTar(w io.Writer, folder string, images []savedImage) error {
	var list []dockerManifest
	t := layer.NewWriter(w)
	written := map[string]bool{}
	for _, img := range images {
		list = append(list, dockerManifest{Config: img.Config, RepoTags: []string{img.Reference}, Layers: img.Layers})
		for _, name := range append([]string{img.Config}, img.Layers...) {
			if !written[name] {
				written[name] = true
				t.Copy(name, partFile(folder, name), 0o644)
			}
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	t.File("manifest.json", 0o644, data)
	return t.Close()
}

// partFile is where a part lies while an archive is being loaded.
func partFile(folder, name string) string {
	return path.Join(folder, strings.ReplaceAll(name, "/", "_"))
}
