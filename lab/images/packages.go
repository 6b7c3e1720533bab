package images

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
)

// packages copies the files of installed Debian packages out of the archive of
// a root file system, with the links by which they are reached: those of the
// system's folders (/bin is /usr/bin), and those by which an alternative stands
// for a program (/usr/sbin/iptables is /etc/alternatives/iptables is
// /usr/sbin/iptables-nft).
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
		name := inRoot(h.Name)
		if !wanted[name] {
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

// inRoot writes a path without the slash or dot that it may begin with.
func inRoot(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// packageFiles returns the paths of the packages' files and of the links to
// them, as the archive has them: without a leading slash.
func packageFiles(rootfs string, names []string) (map[string]bool, error) {
	lists := map[string]string{}
	for _, name := range names {
		// A package that can be there for several architectures says which.
		lists["var/lib/dpkg/info/"+name+".list"] = name
		lists["var/lib/dpkg/info/"+name+":"+runtime.GOARCH+".list"] = name
	}
	wanted, found, links := map[string]bool{}, map[string]bool{}, map[string]string{}
	err := eachEntry(rootfs, func(h *tar.Header, content io.Reader) error {
		name := inRoot(h.Name)
		if h.Typeflag == tar.TypeSymlink {
			links[name] = h.Linkname
		}
		if lists[name] == "" {
			return nil
		}
		found[lists[name]] = true
		lines := bufio.NewScanner(content)
		for lines.Scan() {
			if file := inRoot(lines.Text()); file != "" {
				wanted[file] = true
			}
		}
		return lines.Err()
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !found[name] {
			err = errors.Join(err, fmt.Errorf("package %s is not in the root file system", name))
		}
	}
	for file := range wanted {
		top, rest, below := strings.Cut(file, "/")
		if target, ok := links[top]; ok && below { // the package says /bin still
			wanted[top], wanted[path.Join(inRoot(target), rest)] = true, true
		}
	}
	for link, target := range links {
		alternative := inRoot(target)
		if strings.HasPrefix(alternative, "etc/alternatives/") && wanted[inRoot(links[alternative])] {
			wanted[link], wanted[alternative] = true, true
		}
	}
	return wanted, err
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
