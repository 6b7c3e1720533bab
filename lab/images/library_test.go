package images

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// builds are the steps that make everything of a built node image.
var builds = []string{
	"build/kind-files changed", "build/kubernetes changed", "build/metallb-chart changed", "build/quotes changed", "build/rootfs changed",
	"build/spire changed", "build/spire-crds changed", "image/node changed",
}

func TestEnsureBuilds(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.Source = Build
	set := s.ensure(t)
	if got := s.did(); !slices.Equal(got, builds) {
		t.Errorf("did %q, want %q", got, builds)
	}
	if set.DefaultCNI || len(set.CRDs) != 2 || string(set.CRDs[0]) != "crds/a.yaml" || set.Demos["quotes"] != fakeDemoReference {
		t.Errorf("set %+v", set)
	}
	if _, err := os.Stat(filepath.Join(set.MetalLBChart, "Chart.yaml")); err != nil {
		t.Error(err)
	}
	// The demo programs are given to running nodes.
	want := []string{fakeSPIREReference + " packed=false", fakeAPIReference + " packed=false"}
	if got := s.imported(t, set.NodeImage); !slices.Equal(got, want) {
		t.Errorf("node image has %q, want %q", got, want)
	}

	s.Source = Auto
	if again := s.ensure(t); again.NodeImage != set.NodeImage || len(s.did()) > 0 {
		t.Errorf("second Ensure gives %s and does %q, want the same and nothing", again.NodeImage, s.did())
	}

	// Another demo program costs a demo program.
	s.change(t, "quotes")
	changed := s.ensure(t)
	if got, want := s.did(), []string{"build/quotes changed"}; !slices.Equal(got, want) {
		t.Errorf("another demo program: did %q, want %q", got, want)
	}
	if changed.NodeImage != set.NodeImage || changed.Demos["quotes"] == set.Demos["quotes"] {
		t.Errorf("another demo program: %+v, want the same node image and another reference", changed)
	}
	s.change(t, "spire")
	s.Source = Build
	if changed = s.ensure(t); changed.NodeImage == set.NodeImage {
		t.Errorf("another SPIRE: %s, want another node image", changed.NodeImage)
	}
	if got, want := s.did(), []string{"build/spire changed", "image/node changed"}; !slices.Equal(got, want) {
		t.Errorf("another SPIRE: did %q, want %q", got, want)
	}
	if left, err := client.Images(t.Context(), map[string]string{engine.LabelRole: s.realm + engine.RoleBuild}); err != nil || len(left) > 0 {
		t.Errorf("left on the way: %v, error %v", left, err)
	}
}

// A container that kind makes of a node image inherits its labels; were they
// those of a build, the next one would remove somebody's cluster.
func TestNodeImageIsNoLeftover(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.Source = Build
	set := s.ensure(t)
	img, there, err := client.Image(t.Context(), set.NodeImage)
	if err != nil || !there {
		t.Fatalf("node image is there: %t, error %v", there, err)
	}
	f := s.book.Flavour(Build)
	if img.Labels[engine.LabelRole] != s.realm+engine.RoleNode || img.Labels[engine.LabelKey] != f.Key {
		t.Errorf("labels %v, want those of a node image with key %s", img.Labels, f.Key)
	}
	cluster := s.start(t, set.NodeImage)
	if err := s.engine.Sweep(t.Context(), f.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Exec(t.Context(), cluster, []string{"ctr", "--namespace", "k8s.io", "images", "ls", "--quiet"}, nil); err != nil {
		t.Errorf("the cluster is gone: %v", err)
	}
}

func TestEnsurePulls(t *testing.T) {
	t.Parallel()
	client, host := realEngine(t), imagestest.Registry(t, nil)
	imagestest.Push(t, host+"/up/kindest/node:v9", fakeKindNode(t))
	imagestest.Push(t, host+"/up/spiffe/spire-server:9", imagestest.RandomImage(t, runtime.GOARCH))
	s := newStand(t, newStore(t), client, newRealm(t, client), host+"/up")
	set := s.ensure(t)
	want := []string{
		"build/metallb-chart changed", "build/quotes changed", "build/spire-crds changed", "image/node changed",
		"pull/pulled-kind-node changed", "pull/pulled-spire-server changed",
	}
	if got := s.did(); !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
	if !set.DefaultCNI || len(s.said) > 0 {
		t.Errorf("default CNI %t, said %q, want kind's own CNI and silence", set.DefaultCNI, s.said)
	}
	if got, want := s.imported(t, set.NodeImage), []string{fakeSPIREReference + " packed=true"}; !slices.Equal(got, want) {
		t.Errorf("node image has %q, want %q", got, want)
	}
	for _, source := range []Source{Auto, Present, Pull} {
		s.Source = source
		if again := s.ensure(t); again.NodeImage != set.NodeImage || len(s.did()) > 0 {
			t.Errorf("with source %s: %s, did %q, want %s to be taken", source, again.NodeImage, s.did(), set.NodeImage)
		}
	}
	s.Source = Build
	if built := s.ensure(t); built.NodeImage == set.NodeImage || built.DefaultCNI {
		t.Errorf("with source build: %+v, want another image", built)
	}
}

func TestEnsureFallsBackToBuilding(t *testing.T) {
	t.Parallel()
	client, host := realEngine(t), imagestest.Registry(t, nil)
	imagestest.Push(t, host+"/kindest/node:v9", fakeKindNode(t))
	s := newStand(t, newStore(t), client, newRealm(t, client), host)
	set := s.ensure(t)
	if set.DefaultCNI || !slices.Contains(s.did(), "build/rootfs changed") {
		t.Errorf("set %+v, want the node image built", set)
	}
	want := "pull " + host + "/spiffe/spire-server:9: GET http://" + host + "/v2/spiffe/spire-server/manifests/9: NAME_UNKNOWN: Unknown name; goes on with source build"
	if len(s.said) != 1 || s.said[0] != want {
		t.Errorf("said %q, want %q", s.said, want)
	}
}

func TestEnsureDoesNotFallBackWhenPullIsForced(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), imagestest.Registry(t, nil))
	s.Source = Pull
	_, err := s.stock.ensure(t.Context(), Node)
	var refused *SourceError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "NAME_UNKNOWN") {
		t.Errorf("error %v, want the registry's", err)
	}
	if left, err := client.Images(t.Context(), map[string]string{engine.LabelRole: s.realm + engine.RoleNode}); err != nil || len(left) > 0 || len(s.said) > 0 {
		t.Errorf("made %v, said %q, error %v, want nothing", left, s.said, err)
	}
}

func TestEnsureWhatIsPresent(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.Source = Present
	_, err := s.stock.ensure(t.Context(), Node)
	var missing *MissingError
	if want := "take images that are present: missing: demo program quotes, chart, CRDs, node image"; !errors.As(err, &missing) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Parts asks nothing of the engine, and gives no node image.
func TestEnsureParts(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	set, err := s.stock.ensure(t.Context(), Parts)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.did(), []string{"build/metallb-chart changed", "build/quotes changed", "build/spire-crds changed"}; !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
	if set.NodeImage != "" || set.Demos["quotes"] != fakeDemoReference {
		t.Errorf("set %+v, want the demo program and no node image", set)
	}
}

// Of two commands that want the node image at once one makes it.
func TestEnsureTwiceAtOnce(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	store, realm := newStore(t), newRealm(t, client)
	both := [2]*stand{newStand(t, store, client, realm, ""), newStand(t, store, client, realm, "")}
	var all sync.WaitGroup
	for _, s := range both {
		s.Source = Build
		all.Go(func() {
			if _, err := s.stock.ensure(t.Context(), Node); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	made := 0
	for _, e := range slices.Concat(both[0].events, both[1].events) {
		if e == "image/node changed" {
			made++
		}
	}
	if made != 1 {
		t.Errorf("the node image was made %d times, want once: %q and %q", made, both[0].events, both[1].events)
	}
}

// helpNode builds a node image until it comes to a program that never ends.
func helpNode(ctx context.Context, args []string) error {
	store, err := store.Open(args[0])
	if err != nil {
		return err
	}
	client, err := docker.New()
	if err != nil {
		return err
	}
	book, err := small("", pull.Usual())
	if err != nil {
		return err
	}
	s := stock{Library: &Library{Store: store, Engine: client, Source: Build}, book: book, engine: engine.New(client, store, args[1])}
	_, err = s.ensure(ctx, Node)
	return err
}

// TestEnsureTakesUpAKilledNodeImage kills a process while it fills a node.
func TestEnsureTakesUpAKilledNodeImage(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.Source = Build
	// The last program that goes into the node is one that nobody writes.
	a, err := s.book.Artifact("spire")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := s.Store.Make(t.Context(), a.Name, a.Key, func(_ context.Context, dir string, _ *os.File) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "bin"), 0o755), syscall.Mkfifo(filepath.Join(dir, "bin", "spire-server"), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "bin", "spire-server")
	half := imagestest.Helper(t, "node", s.Store.Root(), s.realm)
	if err := half.Start(); err != nil {
		t.Fatal(err)
	}
	imagestest.Wait(t, "the program is read", func(context.Context) error {
		f, err := os.OpenFile(program, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			t.Cleanup(func() { _ = f.Close() })
		}
		return err
	})
	imagestest.Kill(t, half)

	builds := map[string]string{engine.LabelRole: s.realm + engine.RoleBuild}
	if left, err := client.Containers(t.Context(), builds); err != nil || len(left) != 1 {
		t.Fatalf("the kill left %v, error %v, want the container", left, err)
	}
	if left, err := client.Images(t.Context(), map[string]string{engine.LabelRole: s.realm + engine.RoleNode}); err != nil || len(left) > 0 {
		t.Errorf("the kill left node image %v, error %v, want none", left, err)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("server"), 0o755); err != nil {
		t.Fatal(err)
	}
	set := s.ensure(t)
	if got, want := s.did(), []string{"image/node changed"}; !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
	want := []string{fakeSPIREReference + " packed=false", fakeAPIReference + " packed=false"}
	if got := s.imported(t, set.NodeImage); !slices.Equal(got, want) {
		t.Errorf("node image has %q, want %q", got, want)
	}
	containers, err := client.Containers(t.Context(), builds)
	if err != nil {
		t.Fatal(err)
	}
	images, err := client.Images(t.Context(), builds)
	if err != nil || len(containers)+len(images) > 0 {
		t.Errorf("left %v and %v, error %v, want nothing", containers, images, err)
	}
}

func TestLoadDemo(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.Source = Build
	set := s.ensure(t)
	node := s.start(t, set.NodeImage)
	for range 2 {
		for _, want := range []bool{true, false} {
			if loaded, err := s.loadDemo(t.Context(), node, "quotes"); loaded != want || err != nil {
				t.Errorf("the image was loaded: %t, error %v, want %t", loaded, err, want)
			}
		}
		s.change(t, "quotes")
		if _, err := s.stock.ensure(t.Context(), Parts); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.loadDemo(t.Context(), node, "bank"); imagestest.ErrorText(err) != `there is no demo program "bank"` {
		t.Errorf("error %v, want that there is none", err)
	}
}

func TestDemoInEngine(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	var names, ids []string
	for range 2 {
		for range 2 {
			ref, err := s.demoInEngine(t.Context(), "quotes")
			if err != nil {
				t.Fatal(err)
			}
			img, there, err := client.Image(t.Context(), ref)
			if err != nil || !there {
				t.Fatalf("%s is there: %t, error %v", ref, there, err)
			}
			names, ids = append(names, ref), append(ids, img.ID)
			if img.Labels[engine.LabelRole] != s.realm+engine.RoleDemo || !strings.HasSuffix(ref, ":"+img.Labels[engine.LabelKey]) {
				t.Errorf("%s has labels %v", ref, img.Labels)
			}
		}
		s.change(t, "quotes")
	}
	first, second := "fedlab.local/"+s.realm+"quotes:demo1", "fedlab.local/"+s.realm+"quotes:demo1-changed"
	if want := []string{first, first, second, second}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	if ids[0] != ids[1] || ids[1] == ids[2] || ids[2] != ids[3] {
		t.Errorf("images %q, want another one for another program only", ids)
	}
	if got, want := s.did(), []string{"build/metallb-chart changed", "build/quotes changed", "build/quotes changed", "build/spire-crds changed"}; !slices.Equal(got, want) {
		t.Errorf("did %q, want %q", got, want)
	}
	if _, err := s.demoInEngine(t.Context(), "bank"); imagestest.ErrorText(err) != `there is no demo program "bank"` {
		t.Errorf("error %v, want that there is none", err)
	}
}

func TestProgram(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	_, err := s.program(t.Context(), "spire-server")
	if want := "missing: program spire-server"; imagestest.ErrorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
	a, err := s.book.Artifact("spire")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := s.Store.Make(t.Context(), a.Name, a.Key, a.Fill)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.program(t.Context(), "spire-server"); got != filepath.Join(dir, "bin", "spire-server") || err != nil {
		t.Errorf("program %s, error %v, want it in %s", got, err, dir)
	}
}
