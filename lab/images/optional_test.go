package images

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

// optionals gives a stand two optional programs: tunnel, of which upstream publishes an
// image, and authority, which is always built.
func (s *stand) optionals(t *testing.T, host string) {
	t.Helper()
	tunnel := recipe.Optional{Image: Image{Name: "tunnel", Reference: "docker.io/tunnel/tunnel:9", Path: "/tunnel"}}
	authority := recipe.Optional{Image: Image{Name: "authority", Path: "/authority"}}
	pulled := recipe.FromRegistry(pull.New(host, pull.Usual()), tunnel.Image)
	pulled.Kind, pulled.Optional = recipe.OptionalProgram, true
	s.book.Optionals = []recipe.Optional{tunnel, authority}
	s.book.Artifacts = append(s.book.Artifacts,
		recipe.Artifact{Name: "tunnel", Title: "tunnel", Key: "tunnel1", Kind: recipe.OptionalProgram, Only: Build, Optional: true, Fill: files("bin/tunnel")},
		recipe.Artifact{Name: "authority", Title: "authority", Key: "authority1", Kind: recipe.OptionalProgram, Optional: true, Fill: files("bin/authority")},
		pulled)
	s.key(t)
}

// TestOptionalProgramsAreMadeWhenAskedFor: a set has none, and one that is asked for comes
// without a node image and without the other.
func TestOptionalProgramsAreMadeWhenAskedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		source  Source
		program string
		did     []string
	}{
		"built":                       {Build, "tunnel", []string{"build/tunnel changed"}},
		"pulled":                      {Pull, "tunnel", []string{"pull/pulled-tunnel changed"}},
		"pulled, where auto may":      {Auto, "tunnel", []string{"pull/pulled-tunnel changed"}},
		"built with any source":       {Pull, "authority", []string{"build/authority changed"}},
		"built, where auto may build": {Auto, "authority", []string{"build/authority changed"}},
	} {
		t.Run(name, func(t *testing.T) {
			var e fakeEngine
			client, host := e.connect(t), imagestest.Registry(t, nil)
			imagestest.Push(t, host+"/tunnel/tunnel:9", imagestest.RandomImage(t, runtime.GOARCH))
			s := newStand(t, newStore(t), client, "", host)
			s.optionals(t, host)
			s.Source = tt.source
			set, err := s.stock.ensure(t.Context(), Parts)
			if err != nil {
				t.Fatal(err)
			}
			if did, want := s.did(), []string{"build/metallb-chart changed", "build/quotes changed", "build/spire-crds changed"}; !slices.Equal(did, want) {
				t.Errorf("a set: did %q, want %q", did, want)
			}
			if _, err := s.stock.ensure(t.Context(), Parts, tt.program); err != nil {
				t.Fatal(err)
			}
			if did := s.did(); !slices.Equal(did, tt.did) {
				t.Errorf("did %q, want %q", did, tt.did)
			}
			ref, err := s.demoInEngine(t.Context(), tt.program)
			if err != nil || ref != set.Demos[tt.program] || e.images[ref] == nil {
				t.Errorf("the engine has image %q (there: %t), error %v, want %q", ref, e.images[ref] != nil, err, set.Demos[tt.program])
			}
			if did := s.did(); len(did) > 0 {
				t.Errorf("for the engine: did %q, want nothing", did)
			}
		})
	}
}

// The image of an optional program is made for the engine also where nobody has asked for
// the program before.
func TestOptionalProgramInEngine(t *testing.T) {
	var e fakeEngine
	s := newStand(t, newStore(t), e.connect(t), "", "")
	s.optionals(t, "")
	s.Source = Build
	ref, err := s.demoInEngine(t.Context(), "tunnel")
	if did := s.did(); err != nil || e.images[ref] == nil || !slices.Contains(did, "build/tunnel changed") || slices.Contains(did, "build/authority changed") {
		t.Errorf("image %q, error %v, did %q", ref, err, did)
	}
	s.change(t, "tunnel")
	if other, err := s.demoInEngine(t.Context(), "tunnel"); err != nil || other == ref {
		t.Errorf("of a changed program: image %q, error %v, want another than %q", other, err, ref)
	}
}

func TestOptionalProgramsThatAreRefused(t *testing.T) {
	var e fakeEngine
	s := newStand(t, newStore(t), e.connect(t), "", "")
	s.optionals(t, "")
	s.Source = Present
	if _, err := s.stock.ensure(t.Context(), Parts, "bank"); imagestest.ErrorText(err) != `there is no optional program "bank"` {
		t.Errorf("error %v, want that there is none", err)
	}
	s.has(t, "quotes", "metallb-chart", "spire-crds")
	var missing *MissingError
	if _, err := s.stock.ensure(t.Context(), Parts, "tunnel"); !errors.As(err, &missing) || !slices.Equal(missing.What, []string{"tunnel"}) {
		t.Errorf("error %v, want that tunnel is missing", err)
	}
}

// savedWith is an archive of a machine that has these optional programs.
func savedWith(t *testing.T, programs ...string) []byte {
	t.Helper()
	var e fakeEngine
	s := newStand(t, newStore(t), e.connect(t), "", "")
	s.optionals(t, "")
	s.has(t, append(programs, "quotes", "metallb-chart", "spire-crds", "spire")...)
	e.holds(t, s.engine.NodeReference(s.book.Flavour(Build).Key), imagestest.RandomImage(t, runtime.GOARCH))
	var buf bytes.Buffer
	if err := s.save(t.Context(), &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// An archive has the optional programs that are there, and does without those that are not.
func TestArchiveHasOptionalPrograms(t *testing.T) {
	archive := savedWith(t, "tunnel")
	var e fakeEngine
	s := newStand(t, newStore(t), e.connect(t), "", "")
	s.optionals(t, "")
	if err := s.load(t.Context(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	s.Source = Present
	if _, err := s.stock.ensure(t.Context(), All, "tunnel"); err != nil {
		t.Error(err)
	}
	var missing *MissingError
	if _, err := s.stock.ensure(t.Context(), All, "authority"); !errors.As(err, &missing) || !slices.Equal(missing.What, []string{"authority"}) {
		t.Errorf("error %v, want that authority is missing", err)
	}
	entries, err := s.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Source{"tunnel": Archive, "authority": ""} {
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == name })
		if e := entries[i]; e.Kind != recipe.OptionalProgram || e.From != want || !strings.HasPrefix(e.Reference, "fedlab.local/"+name+":") {
			t.Errorf("%+v, want it from %q", e, want)
		}
	}
	changed := newStand(t, newStore(t), s.Engine, "", "")
	changed.optionals(t, "")
	changed.change(t, "tunnel")
	var foreign *ForeignError
	if err := changed.load(t.Context(), bytes.NewReader(archive)); !errors.As(err, &foreign) || !slices.Equal(foreign.Differs, []string{"tunnel"}) {
		t.Errorf("where tunnel has changed: error %v, want that it differs", err)
	}
}

// Where an archive lacks what a lab runs, the error says so, and source auto goes on.
func TestArchiveWithoutAnOptionalProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lab.tar.zst")
	if err := os.WriteFile(file, savedWith(t), 0o600); err != nil {
		t.Fatal(err)
	}
	lacks := "load " + file + ": the archive has no authority: build it for the lab before you save it"
	for source, want := range map[Source]string{Archive: lacks, Auto: ""} {
		t.Run(string(source), func(t *testing.T) {
			var e fakeEngine
			s := newStand(t, newStore(t), e.connect(t), "", "")
			s.optionals(t, "")
			s.Source, s.Archive = source, file
			_, err := s.stock.ensure(t.Context(), Node, "authority")
			if imagestest.ErrorText(err) != want {
				t.Errorf("error %v, want %q", err, want)
			}
			if said := strings.Join(s.said, "\n"); source == Auto && !strings.HasPrefix(said, lacks+"; goes on with source ") {
				t.Errorf("said %q", said)
			}
		})
	}
}

// A person may run an optional program, also where labs have upstream's image of it.
func TestOptionalProgramIsBuiltForItsPath(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	s.optionals(t, "")
	s.Source = Present
	var missing *MissingError
	if _, err := s.program(t.Context(), "tunnel"); !errors.As(err, &missing) {
		t.Errorf("with source present: error %v, want that it is missing", err)
	}
	s.Source = Pull
	path, err := s.program(t.Context(), "tunnel")
	if text, read := os.ReadFile(path); err != nil || read != nil || string(text) != "bin/tunnel" {
		t.Errorf("program %q has %q, error %v", path, text, errors.Join(err, read))
	}
	if did := s.did(); len(did) > 0 {
		t.Errorf("did %q besides", did)
	}
}

// A program of Debian is files in an image, and none that a machine could run by itself.
func TestProgramOfDebianHasNoPath(t *testing.T) {
	var e fakeEngine
	s := newStand(t, newStore(t), e.connect(t), "", "")
	s.optionals(t, "")
	s.book.Optionals = append(s.book.Optionals, recipe.Optional{Image: Image{Name: "proxy", Path: "/usr/sbin/proxy"}, Files: &build.Packages{Names: []string{"proxy"}}})
	if _, err := s.program(t.Context(), "proxy"); imagestest.ErrorText(err) != "proxy is of Debian's packages, and runs in its image alone: a machine has it from its own packages" {
		t.Errorf("error %v", err)
	}
	if did := s.did(); len(did) > 0 {
		t.Errorf("did %q, want nothing", did)
	}
}
