package images

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

// TestKubeProxyHasIPTables runs iptables in kube-proxy's own image: what it
// needs besides the program is only seen when it runs. The image is made of the
// root file system that is in the user's store.
func TestKubeProxyHasIPTables(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	store := usersStore(t)
	rootfs, there, err := store.Path("rootfs", build.RootfsKey())
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		t.Skipf("no root file system in %s: fedlab images build makes it", store.Root())
	}
	images := recipe.Catalogue()
	proxy := images[slices.IndexFunc(images, func(img Image) bool { return img.Name == "kube-proxy" })]
	id := hold(t, client, empty.Image, proxy.Path, func(w *layer.Writer) {
		w.Packages(filepath.Join(rootfs, build.RootfsFile), proxy.Packages)
	})
	for _, argv := range [][]string{
		{"iptables", "--version"}, {"ip6tables-restore", "--version"}, {"iptables-save", "--version"},
		{"iptables", "-t", "nat", "-N", "KUBE-TEST"}, {"iptables", "-t", "nat", "-A", "KUBE-TEST", "-p", "tcp", "-m", "comment", "--comment", "x", "-j", "MARK", "--set-xmark", "0x4000"},
	} {
		out, err := client.Exec(t.Context(), id, argv, nil)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(argv, "--version") && !strings.Contains(string(out), " v1.") {
			t.Errorf("%s says %q, want its version", argv[0], out)
		}
	}
}
