// Package archive has the format of 'fedlab images save': an OCI image layout in a tar
// archive, compressed with zstd. Its images are the node image and, for each artifact,
// one whose only layer is the artifact's folder. Annotations give their names and keys.
//
// The files of the layout have a fixed order, so that what is to come is known, and
// limited, before any of it is written. The same set makes the same bytes.
//
// It refuses to know which images a lab needs.
package archive

import (
	"context"
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	layoutName, layoutVersion = "oci-layout", "1.0.0"
	indexName                 = "index.json"

	// Annotations of the index, and of each image in it.
	versionKey = "dev.fedlab.version"
	sourceKey  = "dev.fedlab.source"
	nameKey    = "dev.fedlab.name"
	keyKey     = "dev.fedlab.key"

	// indexLimit is far more than the index has, or a configuration, or all manifests
	// together, in bytes.
	indexLimit = 1 << 20
	// blobsLimit is four times what the blobs of an archive have, in bytes.
	blobsLimit = 8 << 30
	// window is how far back a compressed archive may point, in bytes; an
	// archive decides how much memory it takes to unpack it.
	window = 8 << 20
)

// ErrForeign says that a person took another file for an archive of images.
var ErrForeign = errors.New("it is not an archive of fedlab's images")

// ErrOld says that an earlier fedlab has written the archive.
var ErrOld = errors.New("it has the format of an earlier fedlab, which this one does not read: 'fedlab images save FILE' makes a new archive, on a machine that has the images")

// ErrWrong says that an archive is whole, and not what is written here.
var ErrWrong = errors.New("its index is wrong")

func blobName(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// until reads from r until ctx ends.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}
