package layer

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

// debian writes the archive of a root file system with two packages: iptables,
// whose list still says /sbin, and a library.
func debian(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rootfs.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	add := func(h tar.Header, text string) {
		h.Size = int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, target string) {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "./" + name, Linkname: target, Mode: 0o777}, "")
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, "")
	link("bin", "usr/bin")
	link("lib", "usr/lib")
	link("sbin", "usr/sbin")
	for _, dir := range []string{"etc", "etc/alternatives", "usr", "usr/bin", "usr/lib", "usr/sbin"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: "./" + dir + "/", Mode: 0o755}, "")
	}
	link("etc/alternatives/iptables", "/usr/sbin/iptables-nft")
	link("etc/alternatives/pager", "/usr/bin/more")
	link("usr/bin/pager", "/etc/alternatives/pager")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/more", Mode: 0o755}, "more")
	link("usr/sbin/iptables", "/etc/alternatives/iptables")
	link("usr/sbin/iptables-nft", "xtables-nft-multi")
	link("usr/sbin/stray", "/usr/sbin/xtables-nft-multi")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./usr/sbin/xtables-nft-multi", Mode: 0o755}, "multi")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./usr/lib/libxtables.so.12", Mode: 0o644}, "lib")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./var/lib/dpkg/info/iptables.list", Mode: 0o644},
		"/.\n/sbin\n/sbin/xtables-nft-multi\n/sbin/iptables-nft\n/usr\n/usr/share/doc/iptables/copyright\n")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./var/lib/dpkg/info/libxtables12:" + runtime.GOARCH + ".list", Mode: 0o644},
		"/.\n/usr\n/usr/lib\n/usr/lib/libxtables.so.12\n")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./var/lib/dpkg/info/less.list", Mode: 0o644}, "/usr/bin/more\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPackages(t *testing.T) {
	var buf bytes.Buffer
	tr := NewWriter(&buf)
	tr.Packages(debian(t), []string{"iptables", "libxtables12"})
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"0777 2 sbin -> usr/sbin",
		"0755 5 usr/",
		"0755 5 usr/lib/",
		"0777 2 etc/alternatives/iptables -> /usr/sbin/iptables-nft",
		"0777 2 usr/sbin/iptables -> /etc/alternatives/iptables",
		"0777 2 usr/sbin/iptables-nft -> xtables-nft-multi",
		"0755 0 usr/sbin/xtables-nft-multi",
		"0644 0 usr/lib/libxtables.so.12",
	}
	if got := imagestest.Entries(t, &buf); !slices.Equal(got, want) {
		t.Errorf("copied %q, want %q", got, want)
	}
}

func TestPackagesNotInstalled(t *testing.T) {
	tr := NewWriter(&bytes.Buffer{})
	tr.Packages(debian(t), []string{"iptables", "ebtables", "nftables"})
	want := "package ebtables is not in the root file system\npackage nftables is not in the root file system"
	if err := tr.Close(); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
