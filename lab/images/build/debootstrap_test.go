package build

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// unsignedArchive serves, as the proxy of Debian's archive, an archive in which
// nothing is signed: it has the packages of those names, all of them the same
// empty one. The answer lists the packages that were fetched.
func unsignedArchive(t *testing.T, names ...string) (fetched func() []string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "empty", "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	control := "Package: empty\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: nothing\n"
	if err := os.WriteFile(filepath.Join(dir, "empty", "DEBIAN", "control"), []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(dir, "empty.deb")
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--build", filepath.Join(dir, "empty"), deb).CombinedOutput(); err != nil {
		t.Fatalf("make a package: %v: %s", err, out)
	}
	content, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	architecture, err := exec.CommandContext(t.Context(), "dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	index := "main/binary-" + strings.TrimSpace(string(architecture)) + "/Packages"
	var packages strings.Builder
	for _, name := range names {
		fmt.Fprintf(&packages, "Package: %s\nVersion: 1\nArchitecture: all\nPriority: required\nFilename: pool/%s.deb\nSize: %d\nSHA256: %x\n\n", name, name, len(content), sha256.Sum256(content))
	}
	release := fmt.Sprintf("Suite: stable\nCodename: %s\nComponents: main\nArchitectures: all %sSHA256:\n %x %d %s\n",
		Suite, architecture, sha256.Sum256([]byte(packages.String())), packages.Len(), index)

	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := ""
		switch dists := "/debian/dists/" + Suite + "/"; {
		case r.URL.Path == dists+"Release":
			text = release
		case r.URL.Path == dists+index:
			text = packages.String()
		case path.Dir(r.URL.Path) == "/debian/pool":
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, path.Base(r.URL.Path))
			text = string(content)
		default:
			http.NotFound(w, r)
			return
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	for _, name := range []string{"http_proxy", "https_proxy"} {
		t.Setenv(name, server.URL)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
}

// withoutKeyring lets the real debootstrap look for Debian's keys where there
// are none, as on a machine that has not installed them.
func withoutKeyring(t *testing.T) {
	t.Helper()
	const installed = "/usr/share/debootstrap"
	dir := filepath.Join(t.TempDir(), "debootstrap")
	if err := os.CopyFS(dir, os.DirFS(installed)); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(installed, "scripts", Suite))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^keyring .*$`)
	if !line.Match(script) {
		t.Fatalf("the script of %s names no keyring", Suite)
	}
	file := filepath.Join(dir, "scripts", Suite)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	none := "DEF_HTTPS_MIRROR=$$DEF_MIRROR\nkeyring " + filepath.Join(dir, "none.gpg")
	if err := os.WriteFile(file, line.ReplaceAll(script, []byte(none)), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DEBOOTSTRAP_DIR", dir)
}

// realDebootstrap skips a test where debootstrap cannot work, except in CI.
func realDebootstrap(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("debootstrap")
	if err == nil && os.Geteuid() != 0 {
		err = fmt.Errorf("debootstrap needs root")
	}
	switch {
	case err != nil && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// Whoever stands between this machine and Debian's archive must not be able to
// put a program into the node image: no package is taken that nobody has signed,
// even where the machine cannot check any signature.
func TestUnsignedPackagesAreRefused(t *testing.T) {
	realDebootstrap(t)
	fetched := unsignedArchive(t, append(RootfsPackages(), "apt", "usr-is-merged", "store")...)
	for name, fill := range map[string]func(ctx context.Context, dir string, log *os.File) error{
		"root file system": Rootfs,
		"packages":         Packages{Names: []string{"store"}}.Fill,
	} {
		for _, keyring := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, keyring %t", name, keyring), func(t *testing.T) {
				if !keyring {
					withoutKeyring(t)
				}
				s := newStore(t)
				_, err := s.Make(t.Context(), "debian", "k", fill)
				want := "make debian (log: " + filepath.Join(s.Root(), "logs", "debian-k.log") + "): run debootstrap: exit status 1"
				if err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
				if got := fetched(); len(got) > 0 {
					t.Errorf("fetched %q, want no package", got)
				}
			})
		}
	}
}
