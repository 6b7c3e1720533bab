package images

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
)

// tree writes files for a node's root file system into a tar archive. Its
// methods do nothing after the first error, which Close returns.
type tree struct {
	w *tar.Writer
	// folders are those that are written; Docker takes none twice.
	folders map[string]bool
	err     error
}

func newTree(w io.Writer) *tree { return &tree{w: tar.NewWriter(w), folders: map[string]bool{}} }

// header reports whether the content of h may follow.
func (t *tree) header(h *tar.Header) bool {
	if h.Typeflag == tar.TypeDir {
		if t.folders[h.Name] {
			return false
		}
		t.folders[h.Name] = true
	}
	if t.err == nil {
		h.ModTime = epoch
		t.err = t.w.WriteHeader(h)
	}
	return t.err == nil
}

func (t *tree) file(at string, mode int64, data []byte) {
	if t.header(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: mode, Size: int64(len(data))}) {
		_, t.err = t.w.Write(data)
	}
}

func (t *tree) dir(at string) {
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: at + "/", Mode: 0o755})
}

func (t *tree) link(at, target string) {
	t.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: at, Linkname: target, Mode: 0o777})
}

// program copies a program from this machine.
func (t *tree) program(at, from string) { t.copy(at, from, 0o755) }

// copy copies a file from this machine.
func (t *tree) copy(at, from string, mode int64) {
	if t.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		t.err = err
		return
	}
	info, err := f.Stat()
	if err == nil {
		t.stream(at, mode, info.Size(), f)
	}
	t.err = errors.Join(t.err, err, f.Close())
}

// stream copies what is read.
func (t *tree) stream(at string, mode, size int64, content io.Reader) {
	if t.header(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: mode, Size: size}) {
		_, t.err = io.Copy(t.w, content)
	}
}

// folder copies what lies below a folder; mode says which mode a file gets, and
// 0 leaves it out.
func (t *tree) folder(at string, from fs.FS, mode func(name string) int64) {
	if t.err != nil {
		return
	}
	t.err = fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		m := mode(name)
		if m == 0 {
			return nil
		}
		data, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		t.file(path.Join(at, name), m, data)
		return t.err
	})
}

// Close ends the archive and returns the first error.
func (t *tree) Close() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Close()
}
