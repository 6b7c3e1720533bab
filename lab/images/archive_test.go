package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

// savedStand makes a set of stand-ins, saves it, and removes the node images.
func savedStand(t *testing.T) (*stand, []byte) {
	t.Helper()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.database(t, "")
	s.Source = Build
	if _, err := s.stock.ensure(t.Context(), All); err != nil {
		t.Fatal(err)
	}
	var archives [2]bytes.Buffer
	for i := range archives {
		if err := s.save(t.Context(), &archives[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Error("the same set makes two archives")
	}
	if err := clear(t.Context(), client, s.realm); err != nil {
		t.Fatal(err)
	}
	return s, archives[0].Bytes()
}

// elsewhere is the same fedlab on a machine that has nothing yet.
func (s *stand) elsewhere(t *testing.T) *stand {
	t.Helper()
	other := newStand(t, newStore(t), s.Engine, s.realm, "")
	other.database(t, "")
	return other
}

// TestArchive saves a set once and looks at what becomes of it.
func TestArchive(t *testing.T) {
	t.Parallel()
	s, archive := savedStand(t)
	for name, test := range map[string]func(*testing.T, *stand, []byte){
		"load": loads, "ensure": takesTheArchive,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, s, archive)
			if err := clear(context.WithoutCancel(t.Context()), s.Engine, s.realm); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func loads(t *testing.T, s *stand, archive []byte) {
	t.Helper()
	other := s.elsewhere(t)
	if err := other.load(t.Context(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	set, err := other.stock.ensure(t.Context(), All)
	if err != nil {
		t.Fatal(err)
	}
	if did := other.did(); len(did) > 0 {
		t.Errorf("after Load, Ensure does %q, want nothing", did)
	}
	if len(set.CRDs) != 2 || set.Demos["quotes"] != fakeDemoReference || set.DefaultCNI {
		t.Errorf("set %+v", set)
	}
	if data, err := os.ReadFile(filepath.Join(set.MetalLBChart, "templates", "pool.yaml")); err != nil || string(data) != "chart/templates/pool.yaml" {
		t.Errorf("chart has %q, error %v", data, err)
	}
	want := []string{set.Demos["ledger"] + " packed=false", fakeSPIREReference + " packed=false", fakeAPIReference + " packed=false"}
	if got := other.imported(t, set.NodeImage); !slices.Equal(got, want) {
		t.Errorf("node image has %q, want %q", got, want)
	}
	entries, err := other.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if (e.Kind != Ingredient || e.Name == "database-files") && (!e.Present || e.From != Archive) {
			t.Errorf("%s %s is there: %t, from %q, want it from the archive", e.Kind, e.Name, e.Present, e.From)
		}
	}
	// A changed program costs no more than at home, also one that stands on
	// something.
	other.change(t, "quotes")
	other.change(t, "ledger")
	if _, err := other.stock.ensure(t.Context(), All); err != nil {
		t.Fatal(err)
	}
	if got, want := other.did(), []string{"build/ledger changed", "build/quotes changed"}; !slices.Equal(got, want) {
		t.Errorf("other demo programs: did %q, want %q", got, want)
	}
}

func takesTheArchive(t *testing.T, s *stand, archive []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lab.tar.zst")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	other := s.elsewhere(t)
	other.Source, other.Archive = Archive, file
	other.ensure(t)
	if len(other.events)+len(other.said) > 0 {
		t.Errorf("did %q, said %q, want nothing but the load", other.events, other.said)
	}
}

func TestEnsureGoesOnWithoutTheArchive(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	s.Archive = filepath.Join(t.TempDir(), "lab.tar.zst")
	if _, err := s.stock.ensure(t.Context(), Parts); err != nil {
		t.Fatal(err)
	}
	want := "open archive: open " + s.Archive + ": no such file or directory; goes on with source build"
	if !slices.Equal(s.said, []string{want}) || len(s.events) != 3 {
		t.Errorf("said %q, did %q, want %q and three builds", s.said, s.events, want)
	}
}

func TestSaveWhatIsNotThere(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	var buf bytes.Buffer
	err := s.save(t.Context(), &buf)
	var missing *MissingError
	if want := "missing: demo program quotes, chart, CRDs, spire-server, node image"; !errors.As(err, &missing) || err.Error() != want || buf.Len() > 0 {
		t.Errorf("error %v and %d bytes, want %s and none", err, buf.Len(), want)
	}
}

// packed is a set that is saved, from a store and an engine that have it.
func packed(t *testing.T) (archive []byte, node v1.Image) {
	t.Helper()
	var engine fakeEngine
	s := newStand(t, newStore(t), engine.connect(t), "", "")
	s.agent(t)
	s.database(t, "")
	s.has(t, "quotes", "metallb-chart", "spire-crds", "ledger", "database-files", "spire")
	node = imagestest.RandomImage(t, runtime.GOARCH)
	engine.holds(t, s.engine.NodeReference(s.book.Flavour(Build).Key), node)
	var buf bytes.Buffer
	if err := s.save(t.Context(), &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), node
}

func TestLoadGivesWhatWasSaved(t *testing.T) {
	archive, node := packed(t)
	var engine fakeEngine
	other := newStand(t, newStore(t), engine.connect(t), "", "")
	other.agent(t)
	other.database(t, "")
	if err := other.load(t.Context(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	other.Source = Present
	set, err := other.stock.ensure(t.Context(), All)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.CRDs) != 2 || string(set.CRDs[1]) != "crds/b.yaml" || set.DefaultCNI {
		t.Errorf("set %+v", set)
	}
	if data, err := os.ReadFile(filepath.Join(set.MetalLBChart, "templates", "pool.yaml")); err != nil || string(data) != "chart/templates/pool.yaml" {
		t.Errorf("chart has %q, error %v", data, err)
	}
	for name, key := range map[string]string{"quotes": "demo1", "ledger": "ledger1", "database-files": "database1", "spire": "spire1"} {
		if from, err := other.from(name+"-"+key, Build); from != Archive || err != nil {
			t.Errorf("%s is from %s, error %v, want it from the archive", name, from, err)
		}
	}
	for _, reference := range []string{fakeSPIREReference, fakeAgentReference} {
		if ref, err := other.hostInEngine(t.Context(), reference); err != nil || engine.images[ref] == nil {
			t.Errorf("for hosts: image %s, error %v", ref, err)
		}
	}
	// Docker knows an image by its configuration.
	saved := engine.images[set.NodeImage]
	got, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(saved)), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := node.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := got.ConfigName(); err != nil || id != want {
		t.Errorf("the engine has node image %s, error %v, want %s", id, err, want)
	}
}

// What another fedlab needs is not taken, and what is there is not touched.
func TestLoadRefusesWhatAnotherFedlabNeeds(t *testing.T) {
	archive, _ := packed(t)
	for name, tt := range map[string]struct {
		change func(*recipe.Book)
		want   string
	}{
		"another chart":      {func(b *recipe.Book) { b.Artifacts[1].Key = "chart2" }, "chart"},
		"another foundation": {func(b *recipe.Book) { b.Artifacts[len(b.Artifacts)-2].Key = "database2" }, "database"},
		"another node image": {func(b *recipe.Book) { b.Flavours[1].Key = "node2" }, "node image"},
		"no such source":     {func(b *recipe.Book) { b.Flavours = b.Flavours[:1] }, "database, spire-server, spire-agent, node image"},
		"another program":    {func(b *recipe.Book) { b.Artifacts[6].Key = "spire2" }, "spire-server, spire-agent"},
	} {
		t.Run(name, func(t *testing.T) {
			var engine fakeEngine
			other := newStand(t, newStore(t), engine.connect(t), "", "")
			other.agent(t)
			other.database(t, "")
			tt.change(&other.book)
			err := other.load(t.Context(), bytes.NewReader(archive))
			var foreign *ForeignError
			if want := "the archive was written by fedlab v0.1.0, this one needs another version of: " + tt.want; !errors.As(err, &foreign) || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			if left, err := os.ReadDir(filepath.Join(other.Store.Root(), "builds")); err != nil || len(left)+len(engine.images) > 0 {
				t.Errorf("store has %v, engine %d images, error %v, want nothing", left, len(engine.images), err)
			}
		})
	}
}

// A damaged archive shows late; nothing of it is taken all the same.
func TestLoadTakesNothingOfADamagedArchive(t *testing.T) {
	archive, _ := packed(t)
	var engine fakeEngine
	other := newStand(t, newStore(t), engine.connect(t), "", "")
	other.agent(t)
	other.database(t, "")
	if err := other.load(t.Context(), bytes.NewReader(archive[:len(archive)-20])); !strings.HasPrefix(imagestest.ErrorText(err), "the archive is cut off: ") {
		t.Errorf("error %v, want that it is cut off", err)
	}
	if left, err := os.ReadDir(filepath.Join(other.Store.Root(), "builds")); err != nil || len(left)+len(engine.images) > 0 {
		t.Errorf("store has %v, engine %d images, error %v, want nothing", left, len(engine.images), err)
	}
}
