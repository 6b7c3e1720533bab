package images

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// TestKubeProxyHasIPTables runs iptables in kube-proxy's own image: what it
// needs beside the program is only seen when it runs. The image is made of the
// root file system that is in the user's store.
func TestKubeProxyHasIPTables(t *testing.T) {
	t.Parallel()
	engine := realEngine(t)
	store, err := store.Open("")
	if err != nil {
		t.Fatal(err)
	}
	rootfs, there, err := store.Path("rootfs", build.RootfsKey())
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		t.Skipf("no root file system in %s: fedlab images build makes it", store.Root())
	}
	images := Catalogue()
	proxy := images[slices.IndexFunc(images, func(img Image) bool { return img.Name == "kube-proxy" })]
	var img v1.Image
	if img, err = layer.Onto(empty.Image, writeProgram(t, "kube-proxy"), proxy.Path, func(tr *layer.Writer) {
		tr.Packages(filepath.Join(rootfs, "rootfs.tar"), proxy.Packages)
		// What a container needs to be held open; kube-proxy has no shell.
		program, err := fakeNode()
		if err != nil {
			t.Fatal(err)
		}
		tr.File("usr/local/bin/sleep", 0o755, program)
	}); err != nil {
		t.Fatal(err)
	}
	n := nodeMaker{store: store, engine: engine, realm: newRealm(t, engine), key: "proxy"}
	ref, err := n.load(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	err = n.in(t.Context(), docker.ContainerSpec{Image: ref}, func(id string) error {
		for _, argv := range [][]string{
			{"iptables", "--version"}, {"ip6tables-restore", "--version"}, {"iptables-save", "--version"},
			{"iptables", "-t", "nat", "-N", "KUBE-TEST"}, {"iptables", "-t", "nat", "-A", "KUBE-TEST", "-p", "tcp", "-m", "comment", "--comment", "x", "-j", "MARK", "--set-xmark", "0x4000"},
		} {
			out, err := engine.Exec(t.Context(), id, argv, nil)
			if err != nil {
				return err
			}
			if slices.Contains(argv, "--version") && !strings.Contains(string(out), " v1.") {
				t.Errorf("%s says %q, want its version", argv[0], out)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
