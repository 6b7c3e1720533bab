package images

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

const fakeAgentReference = "ghcr.io/spiffe/spire-agent:9"

// agent adds a second image that runs on hosts, of the artifact that the first one is of.
func (s *stand) agent(t *testing.T) {
	t.Helper()
	img := Image{Name: "spire-agent", Reference: fakeAgentReference, Artifact: "spire", Program: "spire-agent", Path: "/spire-agent", Hosts: true}
	s.book.Images = append(s.book.Images, img)
	for i := range s.book.Artifacts {
		if a := &s.book.Artifacts[i]; a.Name == img.Artifact {
			a.Fill = files("bin/spire-server", "bin/spire-agent")
		}
	}
	s.book.Artifacts = append(s.book.Artifacts, recipe.FromRegistry(pull.New("", pull.Usual()), img))
	s.key(t)
}

// TestHostInEngine: SPIRE's programs get into the engine from where the machine has them,
// and nothing else is made for it than what a set has anyway.
func TestHostInEngine(t *testing.T) {
	for name, tt := range map[string]struct {
		source    Source
		did, want string
	}{
		"built":  {Build, "build/spire changed", "fedlab.local/spire-server:spire1"},
		"pulled": {Pull, "pull/pulled-spire-server changed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var e fakeEngine
			client, host := e.connect(t), imagestest.Registry(t, nil)
			imagestest.Push(t, host+"/spiffe/spire-server:9", imagestest.RandomImage(t, runtime.GOARCH))
			s := newStand(t, newStore(t), client, "", host)
			s.Source = tt.source
			ref, err := s.hostInEngine(t.Context(), fakeSPIREReference)
			if err != nil || e.images[ref] == nil || tt.want != "" && ref != tt.want {
				t.Fatalf("image %s, there: %t, error %v", ref, e.images[ref] != nil, err)
			}
			if did := s.did(); !slices.Contains(did, tt.did) || slices.Contains(did, "image/node changed") || slices.Contains(did, "build/kubernetes changed") {
				t.Errorf("did %q, want %q and no node image", did, tt.did)
			}
			if again, err := s.hostInEngine(t.Context(), fakeSPIREReference); again != ref || err != nil || len(s.did()) > 0 {
				t.Errorf("again: image %s, error %v", again, err)
			}
		})
	}
}

func TestHostInEngineRefuses(t *testing.T) {
	var e fakeEngine
	s := newStand(t, newStore(t), e.connect(t), "", "")
	s.Source = Present
	var missing *MissingError
	if _, err := s.hostInEngine(t.Context(), fakeSPIREReference); !errors.As(err, &missing) || !slices.Contains(missing.What, "spire-server") {
		t.Errorf("without the program: error %v", err)
	}
	if _, err := s.hostInEngine(t.Context(), fakeAPIReference); err == nil || err.Error() != "image registry.k8s.io/kube-apiserver:v9 runs on no host" {
		t.Errorf("of another program: error %v", err)
	}
}
