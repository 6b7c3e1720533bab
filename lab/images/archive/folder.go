package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// pack writes the files below a folder to a tar archive, without what
// differs from one machine to the next.
func pack(w io.Writer, folder string) error {
	t := layer.NewWriter(w)
	root := os.DirFS(folder)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			t.Dir(name)
		case info.Mode().IsRegular():
			t.Copy(name, filepath.Join(folder, filepath.FromSlash(name)), int64(info.Mode().Perm()))
		default:
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.Close()
}

// Extract writes the files of an image that [Writer.AddFolder] has made below a folder,
// and nothing anywhere else.
func Extract(img v1.Image, folder string) (err error) {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) != 1 {
		return fmt.Errorf("%w: an image of files has %d layers, want 1", ErrWrong, len(layers))
	}
	size, err := layers[0].Size()
	if err != nil {
		return err
	}
	files, err := layers[0].Compressed() // as they are in the archive
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	return unpackTo(files, folder, size)
}

// unpackTo writes what pack has packed below a folder. Files that hold more than limit bytes are refused: in a tar
// archive, a file may be larger than the archive.
func unpackTo(r io.Reader, folder string, limit int64) (err error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if limit -= h.Size; limit < 0 {
			return fmt.Errorf("%s has %d bytes, more than the archive that holds it", h.Name, h.Size)
		}
		name := filepath.FromSlash(strings.TrimSuffix(h.Name, "/"))
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.Mkdir(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(root, name, fs.FileMode(h.Mode).Perm(), archive)
		default:
			err = fmt.Errorf("%s is neither a file nor a folder", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
