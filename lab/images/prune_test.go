package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// leave makes a container and an image as a killed build of that key leaves
// them, and returns their names.
func (s *stand) leave(t *testing.T, from, key string) (container, image string) {
	t.Helper()
	scratch := "fedlab.local/" + s.realm + "node-scratch:" + key + "-" + s.Store.Owner()
	id, err := s.Engine.RunDetached(t.Context(), docker.ContainerSpec{
		Image: from, Entrypoint: []string{"sleep", "infinity"}, Network: "none", Name: s.realm + key, Labels: s.labels(engine.RoleBuild, key),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.label(t, scratch, engine.RoleBuild, key)
	return id, scratch
}

// labels are those of what a build of that key has made for the stand's store.
func (s *stand) labels(role, key string) map[string]string {
	return map[string]string{engine.LabelRole: s.realm + role, engine.LabelStore: s.Store.Owner(), engine.LabelKey: key}
}

// labelLine is the line of a Dockerfile that gives an image labels.
func labelLine(labels map[string]string) string {
	line := "LABEL"
	for name, value := range labels {
		line += fmt.Sprintf(" %s=%q", name, value)
	}
	return line
}

// label makes an image with next to nothing in it.
func (s *stand) label(t *testing.T, ref, role, key string) {
	t.Helper()
	var small bytes.Buffer
	tr := layer.NewWriter(&small)
	tr.File(role, 0o644, []byte(key))
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Engine.Import(t.Context(), &small, ref, []string{labelLine(s.labels(role, key))}); err != nil {
		t.Fatal(err)
	}
}

// Two users share an engine, and their locks know nothing of each other: neither
// a build nor Prune of one removes what the other one's build works in.
func TestBuildsOfOtherUsersStay(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	mine := newStand(t, newStore(t), client, newRealm(t, client), "")
	mine.Source = Build
	other := newStand(t, newStore(t), client, mine.realm, "")
	key := mine.book.Flavour(Build).Key
	var rootfs bytes.Buffer
	tr := layer.NewWriter(&rootfs)
	program, err := fakeNode()
	if err != nil {
		t.Fatal(err)
	}
	tr.File("usr/bin/sleep", 0o755, program)
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	from := "fedlab.local/" + mine.realm + "other:1"
	if err := client.Import(t.Context(), &rootfs, from, []string{labelLine(map[string]string{engine.LabelRole: mine.realm + engine.RoleDemo})}); err != nil {
		t.Fatal(err)
	}
	working, image := other.leave(t, from, key)
	stays := func(after string) {
		t.Helper()
		left, err := client.Containers(t.Context(), map[string]string{engine.LabelRole: mine.realm + engine.RoleBuild, engine.LabelStore: other.Store.Owner()})
		if err != nil || len(left) != 1 || left[0].ID != working {
			t.Errorf("after %s: left %v, error %v, want the container of the other one's build", after, left, err)
		}
		if _, there, err := client.Image(t.Context(), image); !there || err != nil {
			t.Errorf("after %s: image %s is gone, error %v", after, image, err)
		}
	}
	mine.ensure(t)
	stays("a build of the same image")
	if _, err := mine.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	stays("prune")
	// The next build of the other one finds what a killed one left.
	if err := other.engine.Sweep(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if left, err := client.Containers(t.Context(), map[string]string{engine.LabelRole: mine.realm + engine.RoleBuild}); err != nil || len(left) > 0 {
		t.Errorf("left %v, error %v, want nothing", left, err)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.Source = Build
	old := s.ensure(t)
	oldKey := s.book.Flavour(Build).Key
	s.change(t, "quotes")
	s.change(t, "spire")
	set := s.ensure(t)
	cluster := s.start(t, old.NodeImage)
	// What earlier versions of fedlab called the image that it is made of.
	renamed := strings.Replace(set.NodeImage, "node:", "node-base:", 1)
	s.label(t, renamed, engine.RoleNode, s.book.Flavour(Build).Key)
	_, killed := s.leave(t, set.NodeImage, "killed")
	working, workingImage := s.leave(t, set.NodeImage, "working")
	unlock, err := s.Store.Lock(t.Context(), engine.Slug("working"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}()

	done, err := s.prune(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"quotes-demo1", "spire-spire1", "container " + s.realm + "killed", killed, renamed}; !slices.Equal(done.Names, want) || done.Bytes <= 0 {
		t.Errorf("removed %q of %d bytes, want %q", done.Names, done.Bytes, want)
	}
	for _, ref := range []string{old.NodeImage, set.NodeImage, workingImage} {
		if _, there, err := client.Image(t.Context(), ref); !there || err != nil {
			t.Errorf("%s is gone, error %v, though it is needed", ref, err)
		}
	}
	left, err := client.Containers(t.Context(), map[string]string{engine.LabelRole: s.realm + engine.RoleBuild})
	if err != nil || len(left) != 1 || left[0].ID != working {
		t.Errorf("left %v, error %v, want the container of the build that runs", left, err)
	}

	// Without its cluster the old image goes, and not the layers that it
	// shares with the new one.
	if err := client.RemoveContainer(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	img, _, err := client.Image(t.Context(), old.NodeImage)
	if err != nil {
		t.Fatal(err)
	}
	done, err = s.prune(t.Context())
	if err != nil || !slices.Equal(done.Names, []string{old.NodeImage}) {
		t.Errorf("removed %q, error %v, want %s", done.Names, err, old.NodeImage)
	}
	if done.Bytes <= 0 || done.Bytes >= img.Size/2 {
		t.Errorf("gave back %d bytes, want little of the %d, which it shares", done.Bytes, img.Size)
	}
	if loaded, err := s.Store.WasLoaded(engine.Slug(oldKey)); loaded || err != nil {
		t.Errorf("a removed image is said to be loaded, error %v", err)
	}
	s.events = nil
	if s.ensure(t); len(s.events) > 0 {
		t.Errorf("after Prune, Ensure does %q, want nothing", s.events)
	}
}

// TestPruneDemos: of what was run next to the clusters, only the program as it is
// now stays, and what a container uses.
func TestPruneDemos(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	for i := range s.book.Artifacts {
		if a := &s.book.Artifacts[i]; a.Name == "quotes" {
			a.Fill = func(_ context.Context, dir string, _ *os.File) error {
				program, err := fakeNode()
				return errors.Join(err, os.Mkdir(filepath.Join(dir, "bin"), 0o755), os.WriteFile(filepath.Join(dir, "bin", "quotes"), program, 0o755))
			}
		}
	}
	load := func() string {
		t.Helper()
		ref, err := s.demoInEngine(t.Context(), "quotes")
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	old := load()
	s.change(t, "quotes")
	used := load()
	// It ends at once: what uses an image need not run.
	id, err := client.RunDetached(t.Context(), docker.ContainerSpec{Image: used, Network: "none"})
	if err != nil {
		t.Fatal(err)
	}
	s.change(t, "quotes")
	current := load()

	for _, want := range [][]string{{old}, nil, {used}} {
		done, err := s.prune(t.Context())
		done.Names = slices.DeleteFunc(done.Names, func(name string) bool { return strings.HasPrefix(name, "quotes-") }) // artifacts
		if err != nil || !slices.Equal(done.Names, want) || done.Bytes <= 0 && want != nil {
			t.Errorf("removed %q of %d bytes, error %v, want %q", done.Names, done.Bytes, err, want)
		}
		if want == nil {
			if err := client.RemoveContainer(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, there, err := client.Image(t.Context(), current); !there || err != nil {
		t.Errorf("the current image is gone, error %v", err)
	}
}
