package images

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// An archive is a tar archive compressed with zstd. Its first file is the
// manifest; the parts that it lists follow in the same order: one tar archive
// for each artifact that every set has, and the configurations and layers of
// the node image. The same set makes the same bytes.
const (
	manifestName = "manifest.json"
	archiveKind  = "ImageArchive"
	archiveAPI   = "fedlab.dev/v1alpha1"
	// manifestLimit is far more than a manifest has, in bytes.
	manifestLimit = 1 << 20
	// partsLimit is four times what the parts of an archive have, in bytes.
	partsLimit = 8 << 30
	// archiveWindow is how far back a compressed archive may point, in bytes; an
	// archive decides how much memory it takes to unpack it.
	archiveWindow = 8 << 20
)

type manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Version is that of the fedlab that wrote it.
	Version string `json:"version"`
	// Source and Node are how the node image was made, and its key.
	Source Source `json:"source"`
	Node   string `json:"node"`
	// Artifacts gives the key of each, by its name.
	Artifacts map[string]string `json:"artifacts"`
	Images    []savedImage      `json:"images"`
	Parts     []part            `json:"parts"`
}

// savedImage is an image whose configuration and layers are parts.
type savedImage struct {
	Reference string   `json:"reference"`
	Config    string   `json:"config"`
	Layers    []string `json:"layers"`
}

// part is a file of an archive.
type part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// blobName is the part that holds a configuration or layer of an image.
func blobName(sum string) string { return "blobs/" + sum }

// artifactName is the part that holds an artifact.
func artifactName(slug string) string { return "artifacts/" + slug + ".tar" }

// digest reads something to its end and returns its size and hash.
func digest(r io.Reader) (size int64, sum string, err error) {
	h := sha256.New()
	size, err = io.Copy(h, r)
	return size, hex.EncodeToString(h.Sum(nil)), err
}

// readFunc is a function that reads.
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

// packFolder writes the files below a folder to a tar archive, without what
// differs from one machine to the next.
func packFolder(w io.Writer, folder string) error {
	t := layer.NewWriter(w)
	root := os.DirFS(folder)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			t.Dir(name)
		case info.Mode().IsRegular():
			t.Copy(name, filepath.Join(folder, filepath.FromSlash(name)), int64(info.Mode().Perm()))
		default:
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.Close()
}

// unpackFolder writes what packFolder has packed below a folder, and nothing
// anywhere else. Files that hold more than limit bytes are refused: in a tar
// archive, a file may be larger than the archive.
func unpackFolder(r io.Reader, folder string, limit int64) (err error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if limit -= h.Size; limit < 0 {
			return fmt.Errorf("%s has %d bytes, more than the archive that holds it", h.Name, h.Size)
		}
		name := filepath.FromSlash(strings.TrimSuffix(h.Name, "/"))
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.Mkdir(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(root, name, fs.FileMode(h.Mode).Perm(), archive)
		default:
			err = fmt.Errorf("%s is neither a file nor a folder", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// readManifest reads the first file of an archive.
func readManifest(archive *tar.Reader) (manifest, error) {
	h, err := archive.Next()
	if errors.Is(err, io.EOF) || errors.Is(err, tar.ErrHeader) || err == nil && (h.Name != manifestName || h.Size > manifestLimit) {
		return manifest{}, errForeign
	}
	if err != nil {
		return manifest{}, err
	}
	data, err := io.ReadAll(archive)
	if err != nil {
		return manifest{}, err
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil || m.Kind != archiveKind {
		return manifest{}, errForeign
	}
	if m.APIVersion != archiveAPI {
		return manifest{}, fmt.Errorf("%w: its format is %s, this fedlab knows %s", errIncomplete, m.APIVersion, archiveAPI)
	}
	return m, nil
}
