package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Packages are the files of Debian packages, as a layer of an image: not installed,
// and without what no program of the image reads.
type Packages struct {
	Names []string
	// User is the line of /etc/passwd that the program runs as; Debian makes it
	// when it configures the package, which nobody does here.
	User string
	// Unread are the folders to leave out, as patterns of path.Match.
	Unread []string
}

// PackagesFile has the layer in the artifact's folder.
const PackagesFile = "files.tar"

// Key hashes all that decides what comes out, except what Debian has at the time.
func (p Packages) Key() string {
	return store.Key("packages 2", runtime.GOARCH, Suite, strings.Join(p.Names, " "), strings.Join(p.Unread, " "), p.User)
}

// Fill fetches the packages. debootstrap checks their signatures with the
// archive's keyring; it needs root, and here it installs nothing.
func (p Packages) Fill(ctx context.Context, dir string, log *os.File) (err error) {
	root := filepath.Join(dir, "root")
	fetch := command(ctx, "debootstrap", debootstrap(p.Names, root, "--no-resolve-deps", "--download-only")...)
	fetch.Stdout, fetch.Stderr = log, log
	if err := fetch.Run(); err != nil {
		return fmt.Errorf("run debootstrap: %w", err)
	}
	out, err := os.Create(filepath.Join(dir, PackagesFile))
	if err != nil {
		return err
	}
	t := layer.NewWriter(out)
	// Packages say /lib still where the system has /usr/lib.
	t.Dir("usr")
	for _, folder := range merged() {
		t.Dir("usr/" + folder)
		t.Link(folder, "usr/"+folder)
	}
	t.Dir("etc")
	t.File("etc/passwd", 0o644, []byte(p.User+"\n"))
	for _, name := range p.Names {
		found, err := filepath.Glob(filepath.Join(root, "var", "cache", "apt", "archives", name+"_*.deb"))
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("debootstrap fetched %d files of package %s, want 1", len(found), name)
		}
		if err == nil {
			err = p.unpack(ctx, t, found[0], log)
		}
		if err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return errors.Join(t.Close(), out.Close(), os.RemoveAll(root))
}

func (p Packages) unpack(ctx context.Context, t *layer.Writer, deb string, log io.Writer) error {
	unpack := command(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	unpack.Stderr = log
	files, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	err = p.add(t, tar.NewReader(files))
	// What is left is padding, which dpkg-deb wants to get rid of.
	_, drained := io.Copy(io.Discard, files)
	if err := errors.Join(err, drained, unpack.Wait()); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	return nil
}

// merged are the folders that lie below /usr, and have links at the root.
func merged() []string { return []string{"bin", "lib", "lib64", "sbin"} }

// unread says whether a file is in one of the folders to leave out, or is one.
func (p Packages) unread(name string) bool {
	parts := strings.Split(name, "/")
	return slices.ContainsFunc(p.Unread, func(pattern string) bool {
		depth := strings.Count(pattern, "/") + 1
		if len(parts) < depth {
			return false
		}
		in, err := path.Match(pattern, strings.Join(parts[:depth], "/"))
		return err == nil && in
	})
}

// add copies the files of a package to where they are in a system whose
// folders are merged.
func (p Packages) add(w *layer.Writer, files *tar.Reader) error {
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := afterMerge(h.Name)
		if name == "" || p.unread(name) {
			continue
		}
		entry := tar.Header{Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size}
		switch h.Typeflag {
		case tar.TypeDir:
			entry.Name += "/"
		case tar.TypeLink:
			entry.Linkname = afterMerge(h.Linkname)
		}
		if err := w.Entry(&entry, files); err != nil {
			return err
		}
	}
}

// afterMerge is where a file of a package is, without a leading slash.
func afterMerge(name string) string {
	name = layer.InRoot(name)
	top, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged(), top) {
		return "usr/" + name
	}
	return name
}
