package images

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
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// foundation is what the image of one of fedlab's own programs holds below the
// program: upstream's image where it is pulled, the files of Debian packages
// where it is built. A change of the program puts another layer on top of it.
type foundation struct {
	// Image has upstream's reference and digest, and the packages. Artifact is
	// that of the packages' files.
	Image
	title string
	// user is the line of /etc/passwd that the program runs as; Debian makes it
	// when it configures the package, which nobody does here.
	user string
}

// artifacts are what it is made of, each for one source.
func (f foundation) artifacts(p puller) []artifact {
	pulled := p.artifact(f.Image)
	pulled.key, pulled.foundation = pulledKey(f.Image), true
	return []artifact{{
		name: f.Artifact, title: f.title, version: suite, kind: Ingredient, key: f.key(),
		typical: 15 * time.Second, fill: f.fill, only: Build, foundation: true,
	}, pulled}
}

// artifact is the name of that for a source.
func (f foundation) artifact(source Source) string {
	if source == Pull {
		return pulledName(f.Image)
	}
	return f.Artifact
}

func (f foundation) key() string {
	return store.Key("packages 2", runtime.GOARCH, suite, strings.Join(f.Packages, " "), strings.Join(unread(), " "), f.user)
}

// foundationFile has the files of packages in the artifact's folder.
const foundationFile = "files.tar"

// open opens it as an image.
func (f foundation) open(source Source, artifact string) (v1.Image, error) {
	if source == Pull {
		return tarball.ImageFromPath(filepath.Join(artifact, pulledFile), nil)
	}
	files, err := os.ReadFile(filepath.Join(artifact, foundationFile))
	if err != nil {
		return nil, err
	}
	return layer.Append(empty.Image, files)
}

// fill fetches the packages. debootstrap checks their signatures with the
// archive's keyring; it needs root, and here it installs nothing.
func (f foundation) fill(ctx context.Context, dir string, log *os.File) (err error) {
	root := filepath.Join(dir, "root")
	fetch := command(ctx, "debootstrap", debootstrap(f.Packages, root, "--no-resolve-deps", "--download-only")...)
	fetch.Stdout, fetch.Stderr = log, log
	if err := fetch.Run(); err != nil {
		return fmt.Errorf("run debootstrap: %w", err)
	}
	out, err := os.Create(filepath.Join(dir, foundationFile))
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
	t.File("etc/passwd", 0o644, []byte(f.user+"\n"))
	for _, name := range f.Packages {
		found, err := filepath.Glob(filepath.Join(root, "var", "cache", "apt", "archives", name+"_*.deb"))
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("debootstrap fetched %d files of package %s, want 1", len(found), name)
		}
		if err == nil {
			err = unpackPackage(ctx, t, found[0], log)
		}
		if err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return errors.Join(t.Close(), out.Close(), os.RemoveAll(root))
}

// unpackPackage adds the files of a Debian package.
func unpackPackage(ctx context.Context, t *layer.Writer, deb string, log io.Writer) error {
	unpack := command(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	unpack.Stderr = log
	files, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	err = addPackage(t, tar.NewReader(files))
	// What is left is padding, which dpkg-deb wants to get rid of.
	_, drained := io.Copy(io.Discard, files)
	if err := errors.Join(err, drained, unpack.Wait()); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	return nil
}

// merged are the folders that lie below /usr, and have links at the root.
func merged() []string { return []string{"bin", "lib", "lib64", "sbin"} }

// unread are the folders of packages that no program of a lab reads, as patterns
// of path.Match.
func unread() []string {
	return []string{
		"usr/share/doc", "usr/share/gcc", "usr/share/gdb", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/menu",
		"usr/share/postgresql/" + postgresVersion + "/man",
		// Time zones with leap seconds, which nobody asks for.
		"usr/share/zoneinfo/right",
		// For the just-in-time compiler, which is a package of its own.
		"usr/lib/postgresql/" + postgresVersion + "/lib/bitcode",
		// Character sets of the C library; PostgreSQL has its own.
		"usr/lib/*/gconv",
	}
}

// isUnread says whether a file is in one of those folders, or is one.
func isUnread(name string) bool {
	parts := strings.Split(name, "/")
	return slices.ContainsFunc(unread(), func(pattern string) bool {
		depth := strings.Count(pattern, "/") + 1
		if len(parts) < depth {
			return false
		}
		in, err := path.Match(pattern, strings.Join(parts[:depth], "/"))
		return err == nil && in
	})
}

// addPackage copies the files of a package to where they are in a system whose
// folders are merged.
func addPackage(w *layer.Writer, files *tar.Reader) error {
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := afterMerge(h.Name)
		if name == "" || isUnread(name) {
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
