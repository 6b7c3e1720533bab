package images

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
)

// absent is an engine that does not answer, as on a machine that nothing is
// installed on.
func absent(t *testing.T) *docker.Client {
	t.Helper()
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	client, err := docker.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// has puts artifacts into the store.
func (s *stand) has(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		a, err := s.book.Artifact(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Store.Make(t.Context(), a.Name, a.Key, a.Fill); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWork(t *testing.T) {
	client := absent(t)
	full, half := imagestest.Registry(t, nil), imagestest.Registry(t, nil)
	for _, host := range []string{full, half} {
		imagestest.Push(t, host+"/kindest/node:v9", fakeKindNode(t))
	}
	imagestest.Push(t, full+"/spiffe/spire-server:9", imagestest.RandomImage(t, runtime.GOARCH))
	foreign := imagestest.Registry(t, nil)
	imagestest.Push(t, foreign+"/kindest/node:v9", fakeKindNode(t))
	imagestest.Push(t, foreign+"/spiffe/spire-server:9", imagestest.RandomImage(t, "s390x"))
	ours := []string{"quotes", "metallb-chart", "spire-crds"}
	refused := func(host string) string {
		return "pull " + host + "/spiffe/spire-server:9: GET http://" + host + "/v2/spiffe/spire-server/manifests/9: NAME_UNKNOWN: Unknown name; goes on with source build"
	}
	tests := map[string]struct {
		source        Source
		archive, host string
		has           []string
		want          Work
		said          string
	}{
		"a registry that answers":        {Auto, "", full, nil, Work{Compile: true}, ""},
		"and nothing to compile":         {Auto, "", full, ours, Work{}, ""},
		"a registry that lacks an image": {Auto, "", half, nil, Work{Compile: true, Build: true}, refused(half)},
		"a registry for other machines": {Auto, "", foreign, nil, Work{Compile: true, Build: true},
			"pull " + foreign + "/spiffe/spire-server:9: the image is for s390x, want " + runtime.GOARCH + "; goes on with source build"},
		"that lacks what is here already": {Auto, "", half, []string{"rootfs", "kind-files", "kubernetes", "spire"}, Work{Compile: true}, refused(half)},
		"build asks no registry":          {Build, "", "nowhere.invalid", nil, Work{Compile: true, Build: true}, ""},
		"pull from one that lacks it":     {Pull, "", half, nil, Work{Compile: true}, ""},
		"an archive":                      {Auto, "images.tar.zst", full, nil, Work{}, ""},
		"what is present":                 {Present, "", full, nil, Work{}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, newStore(t), client, "", test.host)
			s.Source, s.Archive = test.source, test.archive
			s.has(t, test.has...)
			got, err := s.work(t.Context(), Node)
			if err != nil || got != test.want {
				t.Errorf("work %+v, error %v, want %+v", got, err, test.want)
			}
			if said := strings.Join(s.said, "\n"); said != test.said {
				t.Errorf("said %q, want %q", said, test.said)
			}
		})
	}
}

// The images are asked for at the same time: a registry that is silent costs
// the bound once.
func TestWorkOfASilentRegistry(t *testing.T) {
	host := imagestest.Registry(t, imagestest.Instead("/manifests/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	s := newStand(t, newStore(t), absent(t), "", host)
	book, err := small(host, pull.Bounds{Contact: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s.book = book
	got, err := s.work(t.Context(), Node)
	if want := (Work{Compile: true, Build: true}); err != nil || got != want {
		t.Errorf("work %+v, error %v, want %+v", got, err, want)
	}
	if said := strings.Join(s.said, "\n"); !strings.HasSuffix(said, ": no answer within 200ms; goes on with source build") || strings.Count(said, "\n") > 0 {
		t.Errorf("said %q", said)
	}
}

func TestWorkFetchesNothing(t *testing.T) {
	host := imagestest.Registry(t, nil)
	imagestest.Push(t, host+"/kindest/node:v9", fakeKindNode(t))
	imagestest.Push(t, host+"/spiffe/spire-server:9", imagestest.RandomImage(t, runtime.GOARCH))
	s := newStand(t, newStore(t), absent(t), "", host)
	if _, err := s.work(t.Context(), Node); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(s.Store.Root(), func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s was written", name)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
