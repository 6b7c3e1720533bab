package images

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

const payments = "example.test/payments:dev"

// shop writes a Go module with one program, which says something, and returns the
// program's folder.
func shop(t *testing.T, says string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "payments")
	err := errors.Join(os.Mkdir(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.test/payments\n\ngo 1.26\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nfunc main() { println(\""+says+"\") }\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// savedImage writes an image as 'docker save' does.
func savedImage(t *testing.T, img v1.Image) string {
	t.Helper()
	tag, err := name.NewTag(payments)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "payments.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	return file
}

// makes makes an image of a program of one's own.
func (s *stand) makes(t *testing.T, o Own) string {
	t.Helper()
	ref, err := s.own(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !ownReference.MatchString(ref) {
		t.Errorf("reference %q", ref)
	}
	return ref
}

// built lists what the store has, except where programs are linked.
func (s *stand) built(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Store.Root(), "builds"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ownBench) {
			names = append(names, e.Name())
		}
	}
	return names
}

// inStore is what the store calls the image of a reference.
func inStore(ref string) string {
	return strings.NewReplacer(ownHome, ownArtifact, ":", "-").Replace(ref)
}

func TestOwnGo(t *testing.T) {
	s, other := newStand(t, newStore(t), nil, "", ""), newStand(t, newStore(t), nil, "", "")
	first := s.makes(t, Own{Name: payments, Go: shop(t, "one")})
	if !strings.HasPrefix(first, "fedlab.local/own/example-test-payments-dev:") {
		t.Errorf("reference %s", first)
	}
	if same := other.makes(t, Own{Name: payments, Go: shop(t, "one")}); same != first {
		t.Errorf("the same source elsewhere is %s, want %s", same, first)
	}
	changed := s.makes(t, Own{Name: payments, Go: shop(t, "two")})
	if changed == first {
		t.Errorf("another program is %s as well", first)
	}
	want := []string{inStore(first), inStore(changed)}
	slices.Sort(want)
	if got := s.built(t); !slices.Equal(got, want) {
		t.Errorf("the store has %q, want %q", got, want)
	}

	// Prune knows nobody who needs them; the next Own makes them again.
	if done, _, err := s.Store.Prune(nil); err != nil || len(done) != 4 || !slices.Equal(done[:2], want) {
		t.Errorf("removed %q, error %v, want %q and where they were linked", done, err, want)
	}
	if again := s.makes(t, Own{Name: payments, Go: shop(t, "one")}); again != first {
		t.Errorf("after Prune it is %s, want %s", again, first)
	}
}

// What a killed build left is removed by the next one, and by Prune.
func TestOwnTakesUpAKilledBuild(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	dir := shop(t, "one")
	ref := s.makes(t, Own{Name: payments, Go: dir})
	if err := os.RemoveAll(filepath.Join(s.Store.Root(), "builds", inStore(ref))); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{ownBench + store.Key(dir) + "/program.tmp", inStore(ref) + ".partial"} {
		if err := os.MkdirAll(filepath.Join(s.Store.Root(), "builds", filepath.FromSlash(left), "b001"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if again := s.makes(t, Own{Name: payments, Go: dir}); again != ref {
		t.Errorf("reference %s, want %s", again, ref)
	}
	if got, want := s.built(t), []string{inStore(ref)}; !slices.Equal(got, want) {
		t.Errorf("the store has %q, want %q", got, want)
	}
}

// Several processes with one store, and one program.
func TestOwnSideBySide(t *testing.T) {
	shared, dir := newStore(t), shop(t, "one")
	refs := make([]string, 3)
	var all sync.WaitGroup
	for i := range refs {
		all.Go(func() {
			var err error
			if refs[i], err = newStand(t, shared, nil, "", "").own(t.Context(), Own{Name: payments, Go: dir}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if slices.Sort(refs); refs[0] != refs[2] {
		t.Errorf("references %q, want one", refs)
	}
}

func TestOwnArchive(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	img := imagestest.RandomImage(t, runtime.GOARCH)
	file := savedImage(t, img)
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if ref, want := s.makes(t, Own{Name: payments, Archive: file}), "fedlab.local/own/example-test-payments-dev:"+id.Hex[:16]; ref != want {
			t.Errorf("reference %s, want %s", ref, want)
		}
	}
	other := s.makes(t, Own{Name: payments, Archive: savedImage(t, imagestest.RandomImage(t, runtime.GOARCH))})
	if strings.HasSuffix(other, id.Hex[:16]) {
		t.Errorf("another image is %s as well", other)
	}
}

func TestOwnDocker(t *testing.T) {
	var engine fakeEngine
	s := newStand(t, newStore(t), engine.connect(t), "", "")
	engine.holds(t, "payments:latest", imagestest.RandomImage(t, runtime.GOARCH))
	refs := map[string]bool{}
	for range 2 {
		for range 2 {
			refs[s.makes(t, Own{Name: payments, Docker: "payments:latest"})] = true
		}
		engine.holds(t, "payments:latest", imagestest.RandomImage(t, runtime.GOARCH))
	}
	if len(refs) != 2 || engine.saves != 2 {
		t.Errorf("references %v from %d saves, want 2 from 2", refs, engine.saves)
	}
}

func TestOwnRefuses(t *testing.T) {
	var engine fakeEngine
	s := newStand(t, newStore(t), engine.connect(t), "", "")
	engine.holds(t, "foreign:latest", imagestest.RandomImage(t, "s390x"))
	nowhere := filepath.Join(t.TempDir(), "payments")
	for name, tt := range map[string]struct {
		own  Own
		want string
	}{
		"nothing":             {Own{}, "want exactly one of a Go package, an archive and an image of Docker"},
		"too much":            {Own{Go: nowhere, Docker: "payments"}, "want exactly one of a Go package, an archive and an image of Docker"},
		"no folder":           {Own{Go: nowhere}, "folder " + nowhere + " is not there"},
		"no archive":          {Own{Archive: nowhere}, "read archive " + nowhere + ": it is not there"},
		"no image":            {Own{Docker: "payments:latest"}, "the Docker engine has no image payments:latest"},
		"another platform":    {Own{Docker: "foreign:latest"}, `take image foreign:latest of the Docker engine: its image is for ["linux/s390x"], and nodes are linux/` + runtime.GOARCH},
		"archive of a folder": {Own{Archive: t.TempDir()}, "it is a folder, want a file"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.own.Name = payments
			if ref, err := s.own(t.Context(), tt.own); ref != "" || !strings.HasSuffix(imagestest.ErrorText(err), tt.want) {
				t.Errorf("reference %q, error %v, want %s", ref, err, tt.want)
			}
		})
	}
	if got := s.built(t); len(got) > 0 {
		t.Errorf("the store has %q, want nothing", got)
	}
	if _, err := s.Own(t.Context(), Own{Name: payments}); imagestest.ErrorText(err) != "image "+payments+": want exactly one of a Go package, an archive and an image of Docker" {
		t.Errorf("error %v, want it to name the image", err)
	}
	for _, ref := range []string{"", payments, "fedlab.local/own/../x:0123456789abcdef", "fedlab.local/own/x:0123"} {
		if loaded, err := s.loadOwn(t.Context(), "node", ref); loaded || err == nil {
			t.Errorf("%q is loaded: %t, error %v", ref, loaded, err)
		}
	}
}

func TestOwnSlug(t *testing.T) {
	for name, want := range map[string]string{
		payments: "example-test-payments-dev", "Payments": "payments", "../..": "image", "": "image", "a__b--c": "a-b-c", "zürich/a": "z-rich-a",
		strings.Repeat("a", 100): strings.Repeat("a", 60), strings.Repeat("a", 59) + "/b": strings.Repeat("a", 59),
	} {
		if got := ownSlug(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestLoadOwn(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.Source = Build
	node := s.start(t, s.ensure(t).NodeImage)
	for _, o := range []Own{
		{Name: payments, Go: shop(t, "one")}, {Name: payments, Go: shop(t, "two")},
		{Name: payments, Archive: savedImage(t, imagestest.RandomImage(t, runtime.GOARCH))},
	} {
		ref := s.makes(t, o)
		for _, want := range []bool{true, false} {
			if loaded, err := s.loadOwn(t.Context(), node, ref); loaded != want || err != nil {
				t.Errorf("%s was loaded: %t, error %v, want %t", ref, loaded, err, want)
			}
		}
	}
	gone := s.makes(t, Own{Name: payments, Go: shop(t, "three")})
	if _, err := s.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := s.loadOwn(t.Context(), node, gone)
	if want := "image " + gone + " is not in the store any more: run 'fedlab up' again, which makes it"; imagestest.ErrorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
