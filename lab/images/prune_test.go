package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/docker"
)

// leave makes a container and an image as a killed build of that key leaves
// them, and returns their names.
func (s *stand) leave(t *testing.T, from, key string) (container, image string) {
	t.Helper()
	n := s.nodeMaker(*s.standIn, key)
	id, err := s.Engine.RunDetached(t.Context(), docker.ContainerSpec{
		Image: from, Entrypoint: []string{"sleep", "infinity"}, Network: "none", Name: s.standIn.realm + key, Labels: n.labels(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.label(t, n.scratch(), roleBuild, key)
	return id, n.scratch()
}

// label makes an image with next to nothing in it.
func (s *stand) label(t *testing.T, ref, role, key string) {
	t.Helper()
	var small bytes.Buffer
	tr := newTree(&small)
	tr.file(role, 0o644, []byte(key))
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	label := "LABEL " + labelRole + "=" + s.standIn.realm + role + " " + labelKey + "=" + key
	if err := s.Engine.Import(t.Context(), &small, ref, []string{label}); err != nil {
		t.Fatal(err)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	engine := realEngine(t)
	s := newStand(t, newStore(t), engine, newRealm(t, engine), "")
	s.Source = Build
	old := s.ensure(t)
	oldKey := s.standIn.flavour(Build).key
	s.change(t, "quotes")
	s.change(t, "spire")
	set := s.ensure(t)
	cluster := s.start(t, old.NodeImage)
	// What earlier versions of fedlab called the image that it is made of.
	renamed := strings.Replace(set.NodeImage, "node:", "node-base:", 1)
	s.label(t, renamed, roleNode, s.standIn.flavour(Build).key)
	_, killed := s.leave(t, set.NodeImage, "killed")
	working, workingImage := s.leave(t, set.NodeImage, "working")
	unlock, err := s.Store.lock(t.Context(), imageSlug("working"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}()

	done, err := s.Prune(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"quotes-demo1", "spire-spire1", "container " + s.standIn.realm + "killed", killed, renamed}; !slices.Equal(done.Names, want) || done.Bytes <= 0 {
		t.Errorf("removed %q of %d bytes, want %q", done.Names, done.Bytes, want)
	}
	for _, ref := range []string{old.NodeImage, set.NodeImage, workingImage} {
		if _, there, err := engine.Image(t.Context(), ref); !there || err != nil {
			t.Errorf("%s is gone, error %v, though it is needed", ref, err)
		}
	}
	left, err := engine.Containers(t.Context(), map[string]string{labelRole: s.standIn.realm + roleBuild})
	if err != nil || len(left) != 1 || left[0].ID != working {
		t.Errorf("left %v, error %v, want the container of the build that runs", left, err)
	}

	// Without its cluster the old image goes, and not the layers that it
	// shares with the new one.
	if err := engine.RemoveContainer(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	img, _, err := engine.Image(t.Context(), old.NodeImage)
	if err != nil {
		t.Fatal(err)
	}
	done, err = s.Prune(t.Context())
	if err != nil || !slices.Equal(done.Names, []string{old.NodeImage}) {
		t.Errorf("removed %q, error %v, want %s", done.Names, err, old.NodeImage)
	}
	if done.Bytes <= 0 || done.Bytes >= img.Size/2 {
		t.Errorf("gave back %d bytes, want little of the %d, which it shares", done.Bytes, img.Size)
	}
	if loaded, err := s.Store.wasLoaded(imageSlug(oldKey)); loaded || err != nil {
		t.Errorf("a removed image is said to be loaded, error %v", err)
	}
	s.events = nil
	if s.ensure(t); len(s.events) > 0 {
		t.Errorf("after Prune, Ensure does %q, want nothing", s.events)
	}
}

// TestPruneDemos: of what was run beside the clusters, only the program as it is
// now stays, and what a container uses.
func TestPruneDemos(t *testing.T) {
	t.Parallel()
	engine := realEngine(t)
	s := newStand(t, newStore(t), engine, newRealm(t, engine), "")
	for i := range s.standIn.artifacts {
		if a := &s.standIn.artifacts[i]; a.name == "quotes" {
			a.fill = func(_ context.Context, dir string, _ *os.File) error {
				program, err := fakeNode()
				return errors.Join(err, os.Mkdir(filepath.Join(dir, "bin"), 0o755), os.WriteFile(filepath.Join(dir, "bin", "quotes"), program, 0o755))
			}
		}
	}
	load := func() string {
		t.Helper()
		ref, err := s.DemoInEngine(t.Context(), "quotes")
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	old := load()
	s.change(t, "quotes")
	used := load()
	// It ends at once: what uses an image need not run.
	id, err := engine.RunDetached(t.Context(), docker.ContainerSpec{Image: used, Network: "none"})
	if err != nil {
		t.Fatal(err)
	}
	s.change(t, "quotes")
	current := load()

	for _, want := range [][]string{{old}, nil, {used}} {
		done, err := s.Prune(t.Context())
		done.Names = slices.DeleteFunc(done.Names, func(name string) bool { return strings.HasPrefix(name, "quotes-") }) // artifacts
		if err != nil || !slices.Equal(done.Names, want) || done.Bytes <= 0 && want != nil {
			t.Errorf("removed %q of %d bytes, error %v, want %q", done.Names, done.Bytes, err, want)
		}
		if want == nil {
			if err := engine.RemoveContainer(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, there, err := engine.Image(t.Context(), current); !there || err != nil {
		t.Errorf("the current image is gone, error %v", err)
	}
}
