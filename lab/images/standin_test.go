package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
	"github.com/fedlab-dev/fedlab/lab/images/store"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// files makes an artifact of small files, which hold their own names.
func files(names ...string) store.Fill {
	return func(_ context.Context, dir string, _ *os.File) error {
		var errs []error
		for _, name := range names {
			file := filepath.Join(dir, filepath.FromSlash(name))
			errs = append(errs, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(name), 0o644))
		}
		return errors.Join(errs...)
	}
}

// fakeRootfs makes the root file system of a node whose tools are fakenode.
func fakeRootfs(_ context.Context, dir string, _ *os.File) error {
	program, err := fakeNode()
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "rootfs.tar"))
	if err != nil {
		return err
	}
	t := layer.NewWriter(f)
	for _, name := range []string{"run", "tmp", "etc", "usr", "usr/bin"} {
		t.Dir(name)
	}
	t.File("usr/bin/fakenode", 0o755, program)
	for _, name := range []string{"sleep", "mkdir", "cp", "start-stop-daemon", "ctr"} {
		t.Link("usr/bin/"+name, "fakenode")
	}
	t.File("etc/hostname", 0o644, nil)
	return errors.Join(t.Close(), f.Close())
}

// fakeKindNode is kind's own node image as the stand-ins have it.
func fakeKindNode(t *testing.T) v1.Image {
	t.Helper()
	dir := t.TempDir()
	if err := fakeRootfs(t.Context(), dir, nil); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromFile(filepath.Join(dir, "rootfs.tar"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	return imagestest.For(t, img, runtime.GOARCH)
}

// What the stand-ins call their upstream images.
const (
	fakeKindReference  = "docker.io/kindest/node:v9"
	fakeSPIREReference = "ghcr.io/spiffe/spire-server:9"
	fakeAPIReference   = "registry.k8s.io/kube-apiserver:v9"
	fakeDemoReference  = "fedlab.local/quotes:demo1"
)

// small is a catalogue whose parts are made in no time.
func small(mirror string, bounds pull.Bounds) (recipe.Book, error) {
	kind := Image{Name: "kind-node", Reference: fakeKindReference}
	server := Image{Name: "spire-server", Reference: fakeSPIREReference, Artifact: "spire", Program: "spire-server", Path: "/spire-server", Hosts: true}
	p := pull.New(mirror, bounds)
	r := recipe.Book{
		KindNode: kind,
		Images: []Image{
			{Name: "kube-apiserver", Reference: fakeAPIReference, Artifact: "kubernetes", Program: "kube-apiserver", Path: "/kube-apiserver", Kubernetes: true},
			server,
		},
		Programs: []recipe.Program{{Program: build.Program{Name: "quotes"}}},
		Artifacts: []recipe.Artifact{
			{Name: "quotes", Title: "demo program quotes", Key: "demo1", Kind: recipe.Demo, Fill: files("bin/quotes")},
			{Name: "metallb-chart", Title: "chart", Key: "chart1", Kind: recipe.Chart, Version: "v1", Fill: files("chart/Chart.yaml", "chart/templates/pool.yaml")},
			{Name: "spire-crds", Title: "CRDs", Key: "crds1", Kind: recipe.CRDs, Fill: files("crds/a.yaml", "crds/b.yaml")},
			{Name: "rootfs", Title: "rootfs", Key: "rootfs1", Kind: Ingredient, Only: Build, Fill: fakeRootfs},
			{Name: "kind-files", Title: "kind files", Key: "kind1", Kind: Ingredient, Only: Build, Fill: files("files/usr/local/bin/entrypoint", "files/kind/bin/hook.sh", "files/etc/crictl.yaml")},
			{Name: "kubernetes", Title: "kubernetes", Key: "k8s1", Kind: Ingredient, Only: Build, Fill: files("bin/kubeadm", "bin/kubelet", "bin/kubectl", "bin/kube-apiserver")},
			{Name: "spire", Title: "spire", Key: "spire1", Kind: Ingredient, Only: Build, Fill: files("bin/spire-server")},
			recipe.FromRegistry(p, kind), recipe.FromRegistry(p, server),
		},
	}
	return r.Keyed()
}

// stand is a library of stand-ins over the real engine.
type stand struct {
	stock
	realm string
	// events are the steps that were done, as "name state"; said is what a
	// person was told.
	events, said []string
}

// newRealm is a realm in which nothing else is; what the test leaves there is
// removed.
func newRealm(t *testing.T, client *docker.Client) string {
	t.Helper()
	realm := "test-" + strings.ToLower(rand.Text()[:10]) + "-"
	t.Cleanup(func() {
		if err := clear(context.WithoutCancel(t.Context()), client, realm); err != nil {
			t.Error(err)
		}
	})
	return realm
}

// clear removes the images and containers of a realm.
func clear(ctx context.Context, client *docker.Client, realm string) error {
	var errs []error
	for _, role := range []string{engine.RoleBuild, engine.RoleNode, engine.RoleDemo} {
		labels := map[string]string{engine.LabelRole: realm + role}
		containers, err := client.Containers(ctx, labels)
		errs = append(errs, err)
		for _, c := range containers {
			errs = append(errs, client.RemoveContainer(ctx, c.ID))
		}
		images, err := client.Images(ctx, labels)
		errs = append(errs, err)
		for _, img := range images {
			for _, name := range img.References {
				errs = append(errs, client.RemoveImage(ctx, name))
			}
		}
	}
	return errors.Join(errs...)
}

func newStand(t *testing.T, store *store.Store, client *docker.Client, realm, mirror string) *stand {
	t.Helper()
	book, err := small(mirror, pull.Usual())
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{stock: stock{Library: &Library{Store: store, Engine: client, Version: "v0.1.0"}, book: book}, realm: realm}
	s.engine = engine.New(client, store, realm)
	s.Observe = func(e plan.Event) {
		if e.State.Ended() {
			s.events = append(s.events, fmt.Sprintf("%s %s", e.Step, e.State))
		}
	}
	s.Say = func(line string) { s.said = append(s.said, line) }
	return s
}

// change gives an artifact another key, as another source or pin does.
func (s *stand) change(t *testing.T, name string) {
	t.Helper()
	for i := range s.book.Artifacts {
		if a := &s.book.Artifacts[i]; a.Name == name {
			a.Key += "-changed"
		}
	}
	s.key(t)
}

// key computes the keys of the node images.
func (s *stand) key(t *testing.T) {
	t.Helper()
	book, err := s.book.Keyed()
	if err != nil {
		t.Fatal(err)
	}
	s.book = book
}

// ensure gets a set with its node image.
func (s *stand) ensure(t *testing.T) Set {
	t.Helper()
	set, err := s.stock.ensure(t.Context(), Node)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// did returns the steps that were done since it was last asked, sorted.
func (s *stand) did() []string {
	done := s.events
	s.events = nil
	slices.Sort(done)
	return done
}

// start runs a container of a node image.
func (s *stand) start(t *testing.T, image string) string {
	t.Helper()
	id, err := s.Engine.RunDetached(t.Context(), docker.ContainerSpec{Image: image, Entrypoint: []string{"sleep", "infinity"}, Network: "none"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Engine.RemoveContainer(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	return id
}

// imported lists the images in a node image, and whether they are still packed.
func (s *stand) imported(t *testing.T, image string) []string {
	t.Helper()
	out, err := s.Engine.Exec(t.Context(), s.start(t, image), []string{"ctr", "--namespace", "k8s.io", "images", "ls", "--quiet"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
