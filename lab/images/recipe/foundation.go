package recipe

import (
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
)

// Foundation is what the image of one of fedlab's own programs holds below the
// program: upstream's image where it is pulled, the files of Debian packages
// where it is built. A change of the program puts another layer on top of it.
type Foundation struct {
	// Image has upstream's reference and digest; Artifact is that of the files.
	Image
	Title string
	Files build.Packages
}

// artifacts are what it is made of, each for one source.
func (f Foundation) artifacts(p pull.Registries) []Artifact {
	pulled := FromRegistry(p, f.Image)
	pulled.Foundation = true
	return []Artifact{{
		Name: f.Artifact, Title: f.Title, Version: build.Suite, Kind: Ingredient, Key: f.Files.Key(),
		Typical: 15 * time.Second, Fill: f.Files.Fill, Only: Build, Foundation: true,
	}, pulled}
}

// From is the name of its artifact for a source.
func (f Foundation) From(source Source) string {
	if source == Pull {
		return PulledName(f.Image)
	}
	return f.Artifact
}

// Open opens it as an image.
func (f Foundation) Open(source Source, artifact string) (v1.Image, error) {
	if source == Pull {
		return tarball.ImageFromPath(filepath.Join(artifact, pull.File), nil)
	}
	files, err := os.ReadFile(filepath.Join(artifact, build.PackagesFile))
	if err != nil {
		return nil, err
	}
	return layer.Append(empty.Image, files)
}
