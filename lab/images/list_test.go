package images

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

func lines(t *testing.T, s *stand) []string {
	t.Helper()
	entries, err := s.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		reference := e.Reference
		if e.Kind == NodeImage {
			reference = ""
		}
		if e.Present != (e.Size > 0) || e.Present != (e.From != "") || e.Key == "" {
			t.Errorf("%+v contradicts itself", e)
		}
		list = append(list, fmt.Sprintf("%s %s %s %s", e.Kind, e.Name, reference, e.From))
	}
	return list
}

func TestList(t *testing.T) {
	t.Parallel()
	client, host := realEngine(t), imagestest.Registry(t, nil)
	s := newStand(t, newStore(t), client, newRealm(t, client), host)
	nothing := []string{
		"node image node  ",
		"image kube-apiserver registry.k8s.io/kube-apiserver:v9 ", "image spire-server ghcr.io/spiffe/spire-server:9 ",
		"demo quotes fedlab.local/quotes:demo1 ", "chart metallb-chart v1 ", "crds spire-crds  ",
		"ingredient rootfs  ", "ingredient kind-files  ", "ingredient kubernetes  ", "ingredient spire  ",
	}
	if got := lines(t, s); !slices.Equal(got, nothing) {
		t.Errorf("with nothing there: %q, want %q", got, nothing)
	}

	imagestest.Push(t, host+"/kindest/node:v9", fakeKindNode(t))
	imagestest.Push(t, host+"/spiffe/spire-server:9", imagestest.RandomImage(t, runtime.GOARCH))
	s.ensure(t)
	pulled := []string{
		"node image node  pull",
		"image kind-node docker.io/kindest/node:v9 pull", "image spire-server ghcr.io/spiffe/spire-server:9 pull",
		"demo quotes fedlab.local/quotes:demo1 build", "chart metallb-chart v1 build", "crds spire-crds  build",
		"ingredient pulled-kind-node docker.io/kindest/node:v9 pull", "ingredient pulled-spire-server ghcr.io/spiffe/spire-server:9 pull",
	}
	if got := lines(t, s); !slices.Equal(got, pulled) {
		t.Errorf("after a pull: %q, want %q", got, pulled)
	}
	s.Source = Build
	s.ensure(t)
	if got := lines(t, s); got[0] != "node image node  build" || got[1] != "image kube-apiserver registry.k8s.io/kube-apiserver:v9 build" {
		t.Errorf("after a build: %q", got)
	}
}
