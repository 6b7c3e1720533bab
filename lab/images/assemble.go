package images

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
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of everything in an assembled image, so that the same
// program makes the same digest.
var epoch = time.Unix(0, 0).UTC()

// assemble makes an image that holds one program at path and starts it, beside
// the files that beneath adds; it may be nil. Its single layer is not
// compressed: it never travels, and is unpacked into each node image once.
func assemble(program, at string, beneath func(*tree)) (v1.Image, error) {
	return onto(empty.Image, program, at, beneath)
}

// onto is assemble for a program that needs what another image holds: it gets a
// layer on top. Of what the other one says of how it is started nothing is left.
func onto(below v1.Image, program, at string, beneath func(*tree)) (_ v1.Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("assemble image of %s: %w", at, err)
		}
	}()
	layer, err := programLayer(program, at, beneath)
	if err != nil {
		return nil, err
	}
	img, err := appendLayer(below, layer)
	if err != nil {
		return nil, err
	}
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

// appendLayer puts a layer, which is a tar archive, on top of an image.
func appendLayer(below v1.Image, layer []byte) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(below, types.DockerManifestSchema2), types.DockerConfigJSON)
	return mutate.Append(img, mutate.Addendum{
		Layer:   static.NewLayer(layer, types.DockerUncompressedLayer),
		History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "fedlab"},
	})
}

// programLayer returns a tar with the program, the folders above it, and a
// /tmp that everybody may write to.
func programLayer(program, at string, beneath func(*tree)) ([]byte, error) {
	var buf bytes.Buffer
	t := newTree(&buf)
	if beneath != nil {
		beneath(t)
	}
	var folder string
	for part := range strings.SplitSeq(strings.Trim(path.Dir(at), "/"), "/") {
		if part != "" {
			folder = path.Join(folder, part)
			t.dir(folder)
		}
	}
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777})
	t.program(strings.TrimPrefix(at, "/"), program)
	if err := t.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// writeImage writes an image as an archive that containerd imports under ref.
func writeImage(w io.Writer, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	if err := tarball.Write(tag, img, w); err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}
