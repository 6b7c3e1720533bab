package images

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/store"
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

func TestFoundationOfPackages(t *testing.T) {
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
	f := foundation{Image: Image{Packages: []string{"shell", "store-15"}}, user: "store:x:999:999::/:/usr/sbin/nologin"}
	s := newStore(t)
	dir, err := s.Make(t.Context(), "files", "k", f.fill)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != foundationFile {
		t.Errorf("artifact has %v, error %v, want %s alone", left, err, foundationFile)
	}
	log, err := os.ReadFile(filepath.Join(s.Root(), "logs", "files-k.log"))
	if want := "--download-only --include=shell,store-15 " + suite; err != nil || !strings.Contains(string(log), want) {
		t.Errorf("debootstrap was called with %q, error %v, want %q among it", log, err, want)
	}
	archive, err := os.Open(filepath.Join(dir, foundationFile))
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

func TestFoundationOfPackagesFails(t *testing.T) {
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
			_, err := s.Make(t.Context(), "files", "k", foundation{Image: Image{Packages: []string{"store"}}}.fill)
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

// database gives a stand a second demo program, ledger, which stands on an image.
func (s *stand) database(t *testing.T, host string) {
	t.Helper()
	on := &foundation{title: "database", Image: Image{Name: "database", Reference: "docker.io/library/database:9", Artifact: "database-files"}}
	pulled := puller{mirror: host}.artifact(on.Image)
	pulled.key, pulled.foundation = pulledKey(on.Image), true
	s.standIn.demos = append(s.standIn.demos, demo{name: "ledger", on: on})
	s.standIn.artifacts = append(s.standIn.artifacts,
		artifact{name: "ledger", title: "demo program ledger", key: "ledger1", kind: Demo, fill: files("bin/ledger")},
		artifact{name: "database-files", title: "database", key: "database1", kind: Ingredient, only: Build, foundation: true, fill: files(foundationFile)},
		pulled)
	s.standIn.flavours = nil
	if err := s.standIn.computeFlavours(); err != nil {
		t.Fatal(err)
	}
}

// What stands on a foundation is large: the node image brings it, and who asks
// for no node image does without.
func TestFoundationsAreInTheNodeImage(t *testing.T) {
	t.Parallel()
	engine := realEngine(t)
	s := newStand(t, newStore(t), engine, newRealm(t, engine), "")
	s.database(t, "")
	s.Source = Build
	if _, err := s.Ensure(t.Context(), Parts); err != nil {
		t.Fatal(err)
	}
	if did := s.did(); slices.Contains(did, "build/database-files changed") || !slices.Contains(did, "build/ledger changed") {
		t.Errorf("for no node: did %q, want the program and not what it stands on", did)
	}
	set := s.ensure(t)
	if did := s.did(); !slices.Contains(did, "build/database-files changed") {
		t.Errorf("for a node: did %q, want what the program stands on", did)
	}
	if loaded, err := s.LoadDemo(t.Context(), s.start(t, set.NodeImage), "ledger"); loaded || err != nil {
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
	engine, host := realEngine(t), imagestest.Registry(t, nil)
	imagestest.Push(t, host+"/library/database:9", imagestest.RandomImage(t, runtime.GOARCH))
	home := newStand(t, newStore(t), engine, newRealm(t, engine), host)
	home.database(t, host)
	home.Source = Build
	node := home.start(t, home.ensure(t).NodeImage)
	_ = home.did()
	empty := newStand(t, newStore(t), engine, home.standIn.realm, host)
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
			if loaded, err := tt.s.LoadDemo(t.Context(), node, "ledger"); loaded != want || err != nil {
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
	img, err := demo{name: "ledger"}.image(dir, below)
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
// need beside them is only seen when they run. The image is made of the packages
// that are in the user's store.
func TestPostgresRuns(t *testing.T) {
	t.Parallel()
	engine := realEngine(t)
	store, err := store.Open("")
	if err != nil {
		t.Fatal(err)
	}
	on := foundations()["postgres"]
	artifact, there, err := store.Path(on.Artifact, on.key())
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		t.Skipf("no packages of PostgreSQL in %s: fedlab images build fetches them", store.Root())
	}
	below, err := on.open(Build, artifact)
	if err != nil {
		t.Fatal(err)
	}
	program, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	// What a container needs to be held open; the image has no such program.
	img, err := layer.Onto(below, writeProgram(t, "postgres"), "/postgres", func(tr *layer.Writer) { tr.File("usr/local/bin/sleep", 0o755, program) })
	if err != nil {
		t.Fatal(err)
	}
	n := nodeMaker{store: store, engine: engine, realm: newRealm(t, engine), key: "postgres"}
	ref, err := n.load(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	err = n.in(t.Context(), docker.ContainerSpec{Image: ref}, func(id string) error {
		for _, program := range []string{"initdb", "postgres", "psql"} {
			argv := []string{"sh", "-c", "exec /usr/lib/postgresql/" + postgresVersion + "/bin/" + program + " --version"}
			out, err := engine.Exec(t.Context(), id, argv, nil)
			if err != nil {
				return err
			}
			if !strings.Contains(string(out), "(PostgreSQL) "+postgresVersion+".") {
				t.Errorf("%s says %q, want its version", program, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
