package guide

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Copy copies the checkout at root into the folder to, without what git and
// earlier builds keep there, so that a guide can edit files and be killed.
func Copy(to, root string) error {
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		at := filepath.Join(to, filepath.FromSlash(name))
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "bin" || name == "evidence" || name == "records"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(at, 0o755)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		return os.WriteFile(at, data, info.Mode().Perm())
	})
	if err != nil {
		return fmt.Errorf("copy checkout: %w", err)
	}
	return nil
}
