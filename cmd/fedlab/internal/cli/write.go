package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// replaceable returns nil where a file may be written to a path that a person
// names: where there is none, or one to replace. What is put in the place of a
// device or a symbolic link would take it away from all who use it.
func replaceable(path string) error { return regular(path, os.Lstat) }

// editable is replaceable for a file that is changed in its place, where a symbolic
// link leads to the file.
func editable(path string) error { return regular(path, os.Stat) }

func regular(path string, look func(string) (fs.FileInfo, error)) error {
	info, err := look(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	what := ""
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "a folder"
	case mode&fs.ModeSymlink != 0:
		what = "a symbolic link"
	case mode&fs.ModeDevice != 0:
		what = "a device"
	default:
		what = "no regular file"
	}
	return fmt.Errorf("write %s: it is %s, want the name of a new file or of one to replace", path, what)
}

// writeWhole writes a file that has its name only when all of it is written, and
// on the disk.
func writeWhole(path string, write func(io.Writer) error) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Chmod(0o644)); err != nil {
		return 0, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	return info.Size(), os.Rename(f.Name(), path)
}
