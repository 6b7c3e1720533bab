package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
)

// Writer writes files into a tar archive, such as a layer of an image, without what
// differs from one machine to the next. Its methods do nothing after the first
// error, which Close returns.
type Writer struct {
	tar *tar.Writer
	// folders are those that are written; Docker takes none twice.
	folders map[string]bool
	err     error
}

// NewWriter returns a writer of a tar archive, which Close ends; w stays open.
func NewWriter(w io.Writer) *Writer {
	return &Writer{tar: tar.NewWriter(w), folders: map[string]bool{}}
}

// Entry writes an entry of another archive, with a time that is always the same. It
// returns the writer's first error, so that a loop can end.
func (w *Writer) Entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		if w.folders[h.Name] {
			return w.err
		}
		w.folders[h.Name] = true
	}
	if w.err == nil {
		h.ModTime = epoch
		w.err = w.tar.WriteHeader(h)
	}
	if w.err == nil && content != nil {
		_, w.err = io.Copy(w.tar, content)
	}
	return w.err
}

// File writes a file.
func (w *Writer) File(at string, mode int64, data []byte) {
	w.Stream(at, mode, int64(len(data)), bytes.NewReader(data))
}

// Dir writes a folder, unless it is written.
func (w *Writer) Dir(at string) {
	_ = w.Entry(&tar.Header{Typeflag: tar.TypeDir, Name: at + "/", Mode: 0o755}, nil)
}

// Link writes a symbolic link.
func (w *Writer) Link(at, target string) {
	_ = w.Entry(&tar.Header{Typeflag: tar.TypeSymlink, Name: at, Linkname: target, Mode: 0o777}, nil)
}

// Program copies a program from this machine.
func (w *Writer) Program(at, from string) { w.Copy(at, from, 0o755) }

// Copy copies a file from this machine.
func (w *Writer) Copy(at, from string, mode int64) {
	if w.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		w.err = err
		return
	}
	info, err := f.Stat()
	if err == nil {
		w.Stream(at, mode, info.Size(), f)
	}
	w.Fail(errors.Join(err, f.Close()))
}

// Stream copies what is read, which has size bytes.
func (w *Writer) Stream(at string, mode, size int64, content io.Reader) {
	_ = w.Entry(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: mode, Size: size}, content)
}

// Folder copies the files below a folder; mode says which mode a file gets, and
// 0 leaves it out.
func (w *Writer) Folder(at string, from fs.FS, mode func(name string) int64) {
	if w.err != nil {
		return
	}
	w.Fail(fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		m := mode(name)
		if m == 0 {
			return nil
		}
		data, err := fs.ReadFile(from, name)
		if err == nil {
			w.File(path.Join(at, name), m, data)
		}
		return err
	}))
}

// Fail makes an error of the caller the writer's, unless it is nil or there is one.
func (w *Writer) Fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// Close ends the archive and returns the first error.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	return w.tar.Close()
}
