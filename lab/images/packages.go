package images

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// packages copies the files of installed Debian packages out of the archive of
// a root file system, and the links that make the system's folders and the
// alternatives among programs what they are.
func (t *tree) packages(rootfs string, names []string) {
	if t.err != nil {
		return
	}
	wanted, err := packageFiles(rootfs, names)
	if err != nil {
		t.err = err
		return
	}
	t.err = eachEntry(rootfs, func(h *tar.Header, content io.Reader) error {
		name := strings.Trim(path.Clean(h.Name), "/")
		topLink := h.Typeflag == tar.TypeSymlink && !strings.Contains(name, "/")
		alternative := h.Typeflag == tar.TypeSymlink && (wanted[strings.TrimPrefix(h.Linkname, "/")] || strings.HasPrefix(h.Linkname, "/etc/alternatives/") || strings.HasPrefix(name, "etc/alternatives/"))
		if !wanted[name] && !topLink && !alternative {
			return nil
		}
		entry := *h
		entry.Name = name
		if h.Typeflag == tar.TypeDir {
			entry.Name += "/"
		}
		if t.header(&entry) {
			_, t.err = io.Copy(t.w, content)
		}
		return t.err
	})
}

// packageFiles returns the paths of the packages' files, as the archive has
// them: without a leading slash, and below usr where the package still says
// /bin, /lib or /sbin.
func packageFiles(rootfs string, names []string) (map[string]bool, error) {
	lists := map[string]string{}
	for _, name := range names {
		// A package that can be there for several architectures says which.
		lists["var/lib/dpkg/info/"+name+".list"] = name
		lists["var/lib/dpkg/info/"+name+":amd64.list"] = name
		lists["var/lib/dpkg/info/"+name+":arm64.list"] = name
	}
	files, found := map[string]bool{}, map[string]bool{}
	err := eachEntry(rootfs, func(h *tar.Header, content io.Reader) error {
		name, ok := lists[strings.Trim(path.Clean(h.Name), "/")]
		if !ok {
			return nil
		}
		found[name] = true
		lines := bufio.NewScanner(content)
		for lines.Scan() {
			file := strings.Trim(lines.Text(), "/.")
			for _, top := range []string{"bin/", "lib/", "lib64/", "sbin/"} {
				if strings.HasPrefix(file, top) {
					file = "usr/" + file
				}
			}
			files[file] = true
		}
		return lines.Err()
	})
	for _, name := range names {
		if !found[name] {
			err = errors.Join(err, fmt.Errorf("package %s is not in the root file system", name))
		}
	}
	return files, err
}

// eachEntry reads a tar archive from its start.
func eachEntry(archive string, do func(*tar.Header, io.Reader) error) (err error) {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", archive, err)
		}
		if err := do(h, r); err != nil {
			return err
		}
	}
}
