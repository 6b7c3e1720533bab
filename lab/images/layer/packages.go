package layer

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

// Packages copies the files of installed Debian packages out of the archive of
// a root file system, with the links by which they are reached: those of the
// system's folders (/bin is /usr/bin), and those by which an alternative stands
// for a program (/usr/sbin/iptables is /etc/alternatives/iptables is
// /usr/sbin/iptables-nft).
func (w *Writer) Packages(rootfs string, names []string) {
	if w.err != nil {
		return
	}
	wanted, err := packageFiles(rootfs, names)
	if err == nil {
		err = eachEntry(rootfs, func(h *tar.Header, content io.Reader) error {
			entry := *h
			if entry.Name = InRoot(h.Name); !wanted[entry.Name] {
				return nil
			}
			if h.Typeflag == tar.TypeDir {
				entry.Name += "/"
			}
			return w.Entry(&entry, content)
		})
	}
	w.Fail(err)
}

// InRoot writes a path without the slash or dot that it may begin with.
func InRoot(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

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
		name := InRoot(h.Name)
		if h.Typeflag == tar.TypeSymlink {
			links[name] = h.Linkname
		}
		if lists[name] == "" {
			return nil
		}
		found[lists[name]] = true
		lines := bufio.NewScanner(content)
		for lines.Scan() {
			if file := InRoot(lines.Text()); file != "" {
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
			wanted[top], wanted[path.Join(InRoot(target), rest)] = true, true
		}
	}
	for link, target := range links {
		alternative := InRoot(target)
		if strings.HasPrefix(alternative, "etc/alternatives/") && wanted[InRoot(links[alternative])] {
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
