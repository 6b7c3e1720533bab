package build

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

// debianTools puts stand-ins for debootstrap and dpkg-deb in front of the real
// ones: a package is the archive of its files, and debootstrap has those that
// are given, whatever it is asked for.
func debianTools(t *testing.T, packages map[string][]tar.Header) {
	t.Helper()
	dir := t.TempDir()
	for name, files := range packages {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range files {
			h.ModTime = time.Unix(1e9, 0)
			text := ""
			if h.Typeflag == tar.TypeReg {
				text = h.Name
			}
			h.Size = int64(len(text))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"_1_all.deb"), buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range map[string]string{
		"debootstrap": "for root; do :; done\nmkdir -p $root/var/cache/apt/archives && cp " + dir + "/*.deb $root/var/cache/apt/archives\necho \"$@\"\n",
		"dpkg-deb":    "[ $1 = --fsys-tarfile ] && cat $2\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestFilesOfPackages(t *testing.T) {
	debianTools(t, map[string][]tar.Header{
		"store-15": {
			{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
			{Typeflag: tar.TypeDir, Name: "./lib/", Mode: 0o755},
			{Typeflag: tar.TypeReg, Name: "./lib/libstore.so.1", Mode: 0o644},
			{Typeflag: tar.TypeSymlink, Name: "./lib/libstore.so", Linkname: "libstore.so.1", Mode: 0o777},
			{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755},
			{Typeflag: tar.TypeDir, Name: "./usr/lib/", Mode: 0o755},
			{Typeflag: tar.TypeReg, Name: "./usr/lib/libother.so.1", Mode: 0o644},
			{Typeflag: tar.TypeReg, Name: "./usr/lib/x86_64-linux-gnu/gconv/BIG5.so", Mode: 0o644},
			{Typeflag: tar.TypeReg, Name: "./usr/lib/gconv", Mode: 0o644},
			{Typeflag: tar.TypeDir, Name: "./usr/share/", Mode: 0o755},
			{Typeflag: tar.TypeDir, Name: "./usr/share/doc/", Mode: 0o755},
			{Typeflag: tar.TypeReg, Name: "./usr/share/doc/store/copyright", Mode: 0o644},
			{Typeflag: tar.TypeReg, Name: "./usr/share/documents", Mode: 0o644},
		},
		"shell": {
			{Typeflag: tar.TypeReg, Name: "./bin/sh", Mode: 0o755},
			{Typeflag: tar.TypeLink, Name: "./bin/ash", Linkname: "./bin/sh", Mode: 0o755},
		},
		"unasked": {{Typeflag: tar.TypeReg, Name: "./bin/unasked", Mode: 0o755}},
	})
	f := Packages{Names: []string{"shell", "store-15"}, User: "store:x:999:999::/:/usr/sbin/nologin", Unread: []string{"usr/share/doc", "usr/lib/*/gconv"}}
	s := newStore(t)
	dir, err := s.Make(t.Context(), "files", "k", f.Fill)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != PackagesFile {
		t.Errorf("artifact has %v, error %v, want %s alone", left, err, PackagesFile)
	}
	log, err := os.ReadFile(filepath.Join(s.Root(), "logs", "files-k.log"))
	if want := "--download-only --include=shell,store-15 " + Suite; err != nil || !strings.Contains(string(log), want) {
		t.Errorf("debootstrap was called with %q, error %v, want %q among it", log, err, want)
	}
	archive, err := os.Open(filepath.Join(dir, PackagesFile))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	want := []string{
		"0755 5 usr/",
		"0755 5 usr/bin/", "0777 2 bin -> usr/bin", "0755 5 usr/lib/", "0777 2 lib -> usr/lib",
		"0755 5 usr/lib64/", "0777 2 lib64 -> usr/lib64", "0755 5 usr/sbin/", "0777 2 sbin -> usr/sbin",
		"0755 5 etc/", "0644 0 etc/passwd",
		"0755 0 usr/bin/sh", "0755 1 usr/bin/ash -> usr/bin/sh",
		"0644 0 usr/lib/libstore.so.1", "0777 2 usr/lib/libstore.so -> libstore.so.1",
		"0644 0 usr/lib/libother.so.1", "0644 0 usr/lib/gconv", "0755 5 usr/share/", "0644 0 usr/share/documents",
	}
	if got := imagestest.Entries(t, archive); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

func TestFilesOfPackagesFails(t *testing.T) {
	for name, tt := range map[string]struct {
		packages map[string][]tar.Header
		want     string
	}{
		"a package that does not come": {map[string][]tar.Header{"shell": nil}, "debootstrap fetched 0 files of package store, want 1"},
		"a package that is cut off":    {map[string][]tar.Header{"store": {{Typeflag: tar.TypeReg, Name: "./store", Mode: 0o644}}}, "unpack store_1_all.deb: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			debianTools(t, tt.packages)
			if strings.Contains(tt.want, "EOF") {
				// Less than the header of its first file.
				t.Setenv("PATH", cutting(t)+":"+os.Getenv("PATH"))
			}
			s := newStore(t)
			_, err := s.Make(t.Context(), "files", "k", Packages{Names: []string{"store"}}.Fill)
			if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("error %v, want …%s", err, tt.want)
			}
		})
	}
}

// cutting returns a folder with a dpkg-deb that ends well, and too early.
func cutting(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dpkg-deb"), []byte("#!/bin/sh\nhead -c 100 $2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
