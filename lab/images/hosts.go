package images

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
	"github.com/fedlab-dev/fedlab/lab/images/recipe"
)

// hostInEngine gives the engine an image that also runs on hosts. The one in a node
// cannot be taken from there: its layers are unpacked and dropped.
func (s stock) hostInEngine(ctx context.Context, reference string) (string, error) {
	i := slices.IndexFunc(s.book.Images, func(img Image) bool { return img.Hosts && img.Reference == reference })
	if i < 0 {
		return "", fmt.Errorf("image %s runs on no host", reference)
	}
	img := s.book.Images[i]
	c, err := s.host(img)
	if err != nil {
		return "", err
	}
	a, dir, there, err := s.first(c)
	if err == nil && !there {
		if _, err = s.ensure(ctx, Hosts); err == nil {
			a, dir, _, err = s.first(c)
		}
	}
	if err != nil {
		return "", err
	}
	ref := s.engine.Name(hostReference(img, a))
	return ref, s.engine.Demo(ctx, ref, func() (v1.Image, error) { return hostImage(img, a, dir) })
}

// hostReference is what the engine calls an image that is made of an artifact.
func hostReference(img Image, a recipe.Artifact) string {
	return "fedlab.local/" + img.Name + ":" + a.Key
}

func hostImage(img Image, a recipe.Artifact, dir string) (v1.Image, error) {
	if a.Only == Pull {
		return tarball.ImageFromPath(filepath.Join(dir, pull.File), nil)
	}
	return layer.Onto(empty.Image, build.ProgramPath(dir, img.Program), img.Path, nil)
}

// host is what an image that also runs on hosts is made of, of whichever source.
func (s stock) host(img Image) (choice, error) {
	c := choice{title: img.Name}
	for _, f := range s.book.Flavours {
		a, err := s.book.Artifact(hostArtifact(img, f.Source))
		if err != nil {
			return choice{}, err
		}
		c.of = append(c.of, a)
	}
	return c, nil
}

func hostArtifact(img Image, from Source) string {
	if from == Pull {
		return recipe.PulledName(img)
	}
	return img.Artifact
}

// forHosts reports whether an image that also runs on hosts is made of an artifact.
func (s stock) forHosts(a recipe.Artifact) bool {
	return slices.ContainsFunc(s.book.Images, func(img Image) bool { return img.Hosts && hostArtifact(img, a.Only) == a.Name })
}
