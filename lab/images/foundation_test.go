package images

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/fedlab-dev/fedlab"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

// database gives a stand a second demo program, ledger, which stands on an image.
func (s *stand) database(t *testing.T, host string) {
	t.Helper()
	on := &recipe.Foundation{Title: "database", Image: Image{Name: "database", Reference: "docker.io/library/database:9", Artifact: "database-files"}}
	pulled := recipe.FromRegistry(pull.New(host, pull.Usual()), on.Image)
	pulled.Foundation = true
	s.book.Programs = append(s.book.Programs, recipe.Program{Program: build.Program{Name: "ledger"}, On: on})
	s.book.Artifacts = append(s.book.Artifacts,
		recipe.Artifact{Name: "ledger", Title: "demo program ledger", Key: "ledger1", Kind: recipe.Demo, Fill: files("bin/ledger")},
		recipe.Artifact{Name: "database-files", Title: "database", Key: "database1", Kind: Ingredient, Only: Build, Foundation: true, Fill: files(build.PackagesFile)},
		pulled)
	s.key(t)
}

// What stands on a foundation is large: the node image brings it, and who asks
// for no node image does without.
func TestFoundationsAreInTheNodeImage(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.database(t, "")
	s.Source = Build
	if _, err := s.stock.ensure(t.Context(), Parts); err != nil {
		t.Fatal(err)
	}
	if did := s.did(); slices.Contains(did, "build/database-files changed") || !slices.Contains(did, "build/ledger changed") {
		t.Errorf("for no node: did %q, want the program and not what it stands on", did)
	}
	set := s.ensure(t)
	if did := s.did(); !slices.Contains(did, "build/database-files changed") {
		t.Errorf("for a node: did %q, want what the program stands on", did)
	}
	if loaded, err := s.loadDemo(t.Context(), s.start(t, set.NodeImage), "ledger"); loaded || err != nil {
		t.Errorf("the image was loaded: %t, error %v, want it to be there", loaded, err)
	}
	s.change(t, "ledger")
	if other := s.ensure(t); other.NodeImage != set.NodeImage || other.Demos["ledger"] == set.Demos["ledger"] {
		t.Errorf("another program: %+v, want the same node image and another reference", other)
	}
	s.change(t, "database-files")
	if other := s.ensure(t); other.NodeImage == set.NodeImage || other.Demos["ledger"] == set.Demos["ledger"] {
		t.Errorf("another foundation: %+v, want another node image and another reference", other)
	}
}

// A lab that runs takes a changed program without another node image. What it
// stands on is made only where it is not in the store any more, and from where
// the node image was.
func TestLoadDemoMakesItsFoundation(t *testing.T) {
	t.Parallel()
	client, host := realEngine(t), imagestest.Registry(t, nil)
	imagestest.Push(t, host+"/library/database:9", imagestest.RandomImage(t, runtime.GOARCH))
	home := newStand(t, newStore(t), client, newRealm(t, client), host)
	home.database(t, host)
	home.Source = Build
	node := home.start(t, home.ensure(t).NodeImage)
	_ = home.did()
	empty := newStand(t, newStore(t), client, home.realm, host)
	empty.database(t, host)
	empty.change(t, "ledger") // the node has the first change when its turn comes
	for _, tt := range []struct {
		name string
		s    *stand
		want []string
	}{
		{"with what it stands on", home, []string{"build/ledger changed"}},
		{"without", empty, []string{"build/database-files changed", "build/ledger changed", "build/metallb-chart changed", "build/quotes changed", "build/spire-crds changed"}},
	} {
		tt.s.change(t, "ledger")
		for _, want := range []bool{true, false} {
			if loaded, err := tt.s.loadDemo(t.Context(), node, "ledger"); loaded != want || err != nil {
				t.Errorf("%s: the image was loaded: %t, error %v, want %t", tt.name, loaded, err, want)
			}
		}
		if got := tt.s.did(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: did %q, want %q", tt.name, got, tt.want)
		}
	}
}

// The program is one small layer, so that a change of it is one, too; what the
// image below says of its own program does not count.
func TestImageOnFoundation(t *testing.T) {
	below, err := mutate.Config(imagestest.RandomImage(t, runtime.GOARCH), v1.Config{
		Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"postgres"}, User: "70", Env: []string{"PGDATA=/data"}, Volumes: map[string]struct{}{"/data": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := files("bin/ledger")(t.Context(), dir, nil); err != nil {
		t.Fatal(err)
	}
	img, err := recipe.Program{Program: build.Program{Name: "ledger"}}.Image(dir, below)
	if err != nil {
		t.Fatal(err)
	}
	under, err := below.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != len(under)+1 {
		t.Fatalf("%d layers, error %v, want one more than %d", len(layers), err, len(under))
	}
	content, err := layers[len(under)].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := imagestest.Entries(t, content), []string{"1777 5 tmp/", "0755 0 ledger"}; !slices.Equal(got, want) {
		t.Errorf("the layer on top has %q, want %q", got, want)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Config{Entrypoint: []string{"/ledger"}, Env: file.Config.Env}
	if !reflect.DeepEqual(file.Config, want) || len(file.Config.Env) != 1 || !strings.HasPrefix(file.Config.Env[0], "PATH=") {
		t.Errorf("configuration %+v, want the program and a PATH", file.Config)
	}
}

// TestPostgresRuns starts PostgreSQL's programs in their own image: what they
// need besides them is only seen when they run. The image is made of the packages
// that are in the user's store.
func TestPostgresRuns(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	store := usersStore(t)
	book, err := recipe.New(recipe.Choices{Code: fedlab.Source, Demos: []string{"postgres"}})
	if err != nil {
		t.Fatal(err)
	}
	on := book.Programs[0].On
	files, err := book.Artifact(on.From(Build))
	if err != nil {
		t.Fatal(err)
	}
	artifact, there, err := store.Path(files.Name, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		t.Skipf("no packages of PostgreSQL in %s: fedlab images build fetches them", store.Root())
	}
	below, err := on.Open(Build, artifact)
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSuffix(strings.TrimPrefix(on.Reference, "docker.io/library/postgres:"), "-"+build.Suite)
	id := hold(t, client, below, "/postgres", nil)
	for _, program := range []string{"initdb", "postgres", "psql"} {
		argv := []string{"sh", "-c", "exec /usr/lib/postgresql/" + version + "/bin/" + program + " --version"}
		out, err := client.Exec(t.Context(), id, argv, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(out), "(PostgreSQL) "+version+".") {
			t.Errorf("%s says %q, want its version", program, out)
		}
	}
}

// hold runs a container of an image with a program on top, and next to the program
// what a container needs to be held open and the image has not; it returns its ID.
func hold(t *testing.T, client *docker.Client, below v1.Image, at string, beneath func(*layer.Writer)) string {
	t.Helper()
	program, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	realm := newRealm(t, client)
	e := engine.New(client, newStore(t), realm)
	ref := e.Name("fedlab.local/held:1")
	if err := e.Demo(t.Context(), ref, func() (v1.Image, error) {
		return layer.Onto(below, file, at, func(w *layer.Writer) {
			if beneath != nil {
				beneath(w)
			}
			w.File("usr/local/bin/sleep", 0o755, program)
		})
	}); err != nil {
		t.Fatal(err)
	}
	id, err := client.RunDetached(t.Context(), docker.ContainerSpec{
		Image: ref, Entrypoint: []string{"sleep", "infinity"}, Privileged: true, Network: "none",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.RemoveContainer(context.WithoutCancel(t.Context()), id); err != nil {
			t.Error(err)
		}
	})
	return id
}
