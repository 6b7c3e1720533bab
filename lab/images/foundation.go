package images

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

// foundation is what the image of one of fedlab's own programs holds below the
// program: upstream's image where it is pulled, the files of Debian packages
// where it is built. A change of the program puts another layer on top of it.
type foundation struct {
	// Image has upstream's reference and digest, and the packages. Artifact is
	// that of the packages' files.
	Image
	title string
	// user and unread are as in build.Packages.
	user   string
	unread []string
}

// files are the packages' files.
func (f foundation) files() build.Packages {
	return build.Packages{Names: f.Packages, User: f.user, Unread: f.unread}
}

// artifacts are what it is made of, each for one source.
func (f foundation) artifacts(p pull.Registries) []artifact {
	pulled := pulled(p, f.Image)
	pulled.foundation = true
	return []artifact{{
		name: f.Artifact, title: f.title, version: build.Suite, kind: Ingredient, key: f.files().Key(),
		typical: 15 * time.Second, fill: f.files().Fill, only: Build, foundation: true,
	}, pulled}
}

// artifact is the name of that for a source.
func (f foundation) artifact(source Source) string {
	if source == Pull {
		return pulledName(f.Image)
	}
	return f.Artifact
}

// open opens it as an image.
func (f foundation) open(source Source, artifact string) (v1.Image, error) {
	if source == Pull {
		return tarball.ImageFromPath(filepath.Join(artifact, pull.File), nil)
	}
	files, err := os.ReadFile(filepath.Join(artifact, build.PackagesFile))
	if err != nil {
		return nil, err
	}
	return layer.Append(empty.Image, files)
}
