// Package layer makes layers and images: a layer is a tar archive that has the same
// bytes on each machine, and an image is a program on top of another image.
//
// It refuses to know where programs and files come from, and who runs the images.
package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of everything in an assembled image, so that the same
// program makes the same digest.
var epoch = time.Unix(0, 0).UTC()

// Onto puts a program on top of an image, and starts it: it gets a layer at path at,
// next to the files that beneath adds, which may be nil. Of what the image below says
// of how it is started nothing is left. The layer is not compressed: it never
// travels, and is unpacked into each node image once.
func Onto(below v1.Image, program, at string, beneath func(*Writer)) (_ v1.Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("assemble image of %s: %w", at, err)
		}
	}()
	layer, err := programLayer(program, at, beneath)
	if err != nil {
		return nil, err
	}
	img, err := Append(below, layer)
	if err != nil {
		return nil, err
	}
	return Start(img, at)
}

// Start has an image start the program that it has at path at. Of what the image says of
// how it is started nothing is left.
func Start(img v1.Image, at string) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", runtime.GOARCH, v1.Time{Time: epoch}
	file.Config = v1.Config{
		Entrypoint: []string{at},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + path.Dir(at)},
	}
	return mutate.ConfigFile(img, file)
}

// Append puts a layer, which is a tar archive, on top of an image.
func Append(below v1.Image, layer []byte) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(below, types.DockerManifestSchema2), types.DockerConfigJSON)
	return mutate.Append(img, mutate.Addendum{
		Layer:   static.NewLayer(layer, types.DockerUncompressedLayer),
		History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "fedlab"},
	})
}

// programLayer returns a tar with the program, the folders above it, and a
// /tmp that everybody may write to.
func programLayer(program, at string, beneath func(*Writer)) ([]byte, error) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	if beneath != nil {
		beneath(w)
	}
	var folder string
	for part := range strings.SplitSeq(strings.Trim(path.Dir(at), "/"), "/") {
		if part != "" {
			folder = path.Join(folder, part)
			w.Dir(folder)
		}
	}
	_ = w.Entry(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	w.Program(strings.TrimPrefix(at, "/"), program)
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Write writes an image as an archive that Docker and containerd load under ref.
func Write(w io.Writer, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	if err := tarball.Write(tag, img, w); err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}
