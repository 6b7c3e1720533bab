package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/klauspost/compress/zstd"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

func TestMain(m *testing.M) { imagestest.Main(m, nil) }

const nodeReference = "fedlab.local/node:n1"

// node is an image as Docker saves it, and the file with it.
func node(t *testing.T) (v1.Image, string) {
	t.Helper()
	img := imagestest.RandomImage(t, runtime.GOARCH)
	tag, err := name.NewTag(nodeReference)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	return img, file
}

// folder has a program and a file below another folder.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin", "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"bin/quotes": 0o755, "bin/data/prices": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sample is an archive of an artifact and of a node image, which file has.
func sample(t *testing.T, file string) []byte {
	t.Helper()
	w := NewWriter("v0.1.0", "build")
	var buf bytes.Buffer
	if err := errors.Join(
		w.AddFolder(t.Context(), "quotes", "demo1", folder(t)),
		w.AddSaved(t.Context(), "node", "n1", nodeReference, file),
		w.Write(t.Context(), &buf),
	); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// read opens an archive and unpacks it, and returns the folder with it.
func read(t *testing.T, archive []byte) (r *Reader, images map[string]v1.Image, dir string, err error) {
	t.Helper()
	dir = t.TempDir()
	if r, err = Open(t.Context(), bytes.NewReader(archive)); err != nil {
		return nil, nil, dir, err
	}
	defer r.Close()
	images, err = r.Unpack(dir, []string{"node", "quotes"})
	return r, images, dir, err
}

func TestArchiveGivesBackWhatIsInIt(t *testing.T) {
	img, file := node(t)
	archive := sample(t, file)
	if !bytes.Equal(archive, sample(t, file)) {
		t.Error("the same set makes two archives")
	}
	r, images, dir, err := read(t, archive)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"quotes": "demo1", "node": "n1"}; r.Version != "v0.1.0" || r.Source != "build" || !maps.Equal(r.Keys, want) {
		t.Errorf("index says version %s, source %s, keys %v, want %v", r.Version, r.Source, r.Keys, want)
	}
	// Docker knows an image by its configuration.
	want, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := images["node"].ConfigName(); err != nil || got != want {
		t.Errorf("node image %s, error %v, want %s", got, err, want)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := images["node"].Layers()
	if err != nil || len(layers) != len(config.RootFS.DiffIDs) {
		t.Fatalf("node image has %d layers, error %v, want %d", len(layers), err, len(config.RootFS.DiffIDs))
	}
	for i, l := range layers {
		content, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		digest, _, err := v1.SHA256(content)
		if err := errors.Join(err, content.Close()); err != nil || digest != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d is %s, error %v, want %s, which is not compressed", i, digest, err, config.RootFS.DiffIDs[i])
		}
	}
	out := t.TempDir()
	if err := Extract(images["quotes"], out); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"bin/quotes": 0o755, "bin/data/prices": 0o644} {
		info, err := os.Stat(filepath.Join(out, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, error %v, want %v", name, info, err, mode)
		}
		if text, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(text) != name {
			t.Errorf("%s has %q, error %v", name, text, err)
		}
	}
	if err := Extract(images["node"], t.TempDir()); !errors.Is(err, ErrWrong) {
		t.Errorf("a node image is taken for files, error %v", err)
	}

	// Other tools read it, too.
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Errorf("it is no layout: %v", err)
	}
	if got := imagestest.Entries(t, bytes.NewReader(decompress(t, archive))); got[0] != "0644 0 oci-layout" || got[1] != "0644 0 index.json" {
		t.Errorf("it begins with %q", got[:2])
	}
}

// An archive is refused whatever is wrong with it, and however late that shows.
func TestArchiveIsRefused(t *testing.T) {
	_, file := node(t)
	archive := sample(t, file)
	damaged := bytes.Clone(archive)
	damaged[len(damaged)*2/3] ^= 0xff
	edited := func(change func(*edit)) []byte { return repack(t, archive, change) }
	index := func(change func(*v1.IndexManifest)) []byte {
		return edited(func(e *edit) { e.setIndex(t, change) })
	}
	manifest := func(change func(*v1.Manifest)) []byte {
		return edited(func(e *edit) { e.setManifest(t, change) })
	}
	// large is told apart from what is only too much for what is left.
	const large = "and 1048576 are left for parts like it"
	tests := map[string]struct {
		archive []byte
		want    string
		// late says that parts may have been written, which nobody takes.
		late bool
	}{
		"empty":                 {nil, "it is not an archive of fedlab's images", false},
		"not compressed":        {[]byte("PK\x03\x04 a zip file of a person"), "it is not an archive of fedlab's images: it is not compressed with zstd", false},
		"another archive":       {edited(func(e *edit) { e.names = e.names[2:] }), "it is not an archive of fedlab's images", false},
		"no archive":            {compress(t, bytes.Repeat([]byte("text "), 300)), "it is not an archive of fedlab's images", false},
		"another layout":        {index(func(i *v1.IndexManifest) { i.Annotations = nil }), "it is not an archive of fedlab's images", false},
		"another version of it": {edited(func(e *edit) { e.files[layoutName] = []byte(`{"imageLayoutVersion":"9"}`) }), `its index is wrong: its layout has version "9", this fedlab knows 1.0.0`, false},
		"no index":              {edited(func(e *edit) { e.names = slices.Delete(e.names, 1, 2) }), "its index is wrong: index.json is not in its place", false},
		"index of something":    {edited(func(e *edit) { e.files[indexName] = []byte("[]") }), "it is not an archive of fedlab's images", false},
		"index that never ends": {edited(func(e *edit) {
			e.files[indexName] = append(e.files[indexName], bytes.Repeat([]byte(" "), indexLimit)...)
		}), "it is not an archive of fedlab's images", false},
		"layout that never ends": {edited(func(e *edit) {
			e.files[layoutName] = append(e.files[layoutName], bytes.Repeat([]byte(" "), indexLimit)...)
		}), "it is not an archive of fedlab's images", false},
		"earlier format": {edited(func(e *edit) {
			e.names[0], e.files["manifest.json"] = "manifest.json", []byte(`{"apiVersion":"fedlab.dev/v1alpha1","kind":"ImageArchive"}`)
		}), "it has the format of an earlier fedlab, which this one does not read: 'fedlab images save FILE' makes a new archive", false},
		"saved by Docker": {edited(func(e *edit) {
			e.names[0], e.files["manifest.json"] = "manifest.json", []byte(`[{"Config":"x"}]`)
		}), "it is not an archive of fedlab's images", false},
		"cut off early":     {archive[:len(archive)/4], "the archive is cut off: ", true},
		"cut off late":      {archive[:len(archive)-20], "the archive is cut off: ", true},
		"a byte is another": {damaged, "the archive is damaged: ", true},
		"much memory":       {compress(t, decompress(t, archive), zstd.WithWindowSize(2*window)), "it is not an archive of fedlab's images: it is compressed in another way, and takes more memory", false},

		"an image twice":          {index(func(i *v1.IndexManifest) { i.Manifests = append(i.Manifests, i.Manifests[0]) }), `its index is wrong: it has an image "quotes" twice, or without a name`, false},
		"an image without a name": {index(func(i *v1.IndexManifest) { delete(i.Manifests[0].Annotations, nameKey) }), `its index is wrong: it has an image "" twice, or without a name`, false},
		"an image for nothing":    {index(func(i *v1.IndexManifest) { i.Manifests[0].Annotations[nameKey] = "more" }), "its index is wrong: it has no image quotes", false},
		"one more image": {index(func(i *v1.IndexManifest) {
			more := i.Manifests[0]
			more.Annotations = map[string]string{nameKey: "more"}
			i.Manifests = append(i.Manifests, more)
		}), "its index is wrong: nothing needs its image more", false},
		"no such manifest":         {index(func(i *v1.IndexManifest) { i.Manifests[0].Digest.Hex = strings.Repeat("0", 64) }), "its index is wrong: blobs/sha256/0000", false},
		"a manifest too large":     {index(func(i *v1.IndexManifest) { i.Manifests[0].Size = indexLimit + 1 }), "its index is wrong: sha256:", false},
		"a manifest of another":    {index(func(i *v1.IndexManifest) { i.Manifests[0].Size++ }), "the archive is damaged: blobs/sha256/", false},
		"manifest of another type": {index(func(i *v1.IndexManifest) { i.Manifests[0].MediaType = types.OCIImageIndex }), "its index is wrong: sha256:", false},
		"checksum of another kind": {index(func(i *v1.IndexManifest) {
			i.Manifests[0].Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("0", 128)}
		}), "its index is wrong: sha512:", false},
		"a manifest of nonsense":    {edited(func(e *edit) { e.setBlob(t, 0, []byte("[]")) }), "its index is wrong: json: ", false},
		"a changed manifest":        {edited(func(e *edit) { e.files[e.names[2]][20]++ }), "the archive is damaged: blobs/sha256/", false},
		"a layer too large":         {manifest(func(m *v1.Manifest) { m.Layers[0].Size = blobsLimit + 1 }), "its index is wrong: sha256:", false},
		"a layer of less than none": {manifest(func(m *v1.Manifest) { m.Layers[0].Size = -1 }), "its index is wrong: sha256:", false},
		"layers too large together": {manifest(func(m *v1.Manifest) {
			m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: blobsLimit, Digest: m.Layers[0].Digest})
		}), "its index is wrong: sha256:", false},
		"a configuration too large": {manifest(func(m *v1.Manifest) { m.Config.Size = indexLimit + 1 }), large, false},
		"a layer that is elsewhere": {manifest(func(m *v1.Manifest) { m.Layers[0].MediaType = types.DockerForeignLayer }), "its index is wrong: sha256:", false},
		"a layer that is missing": {manifest(func(m *v1.Manifest) {
			m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("f", 64)}})
		}), "its index is wrong: blobs/sha256/ffff", true},
		"a layer of another size":  {manifest(func(m *v1.Manifest) { m.Layers[0].Size++ }), "the archive is damaged: blobs/sha256/", true},
		"a blob is another":        {edited(func(e *edit) { e.files[e.names[4]][0]++ }), "the archive is damaged: blobs/sha256/", true},
		"a part is missing":        {edited(func(e *edit) { e.names = slices.Delete(e.names, 4, 5) }), "its index is wrong: blobs/sha256/", true},
		"the last part is missing": {edited(func(e *edit) { e.names = e.names[:len(e.names)-1] }), "its index is wrong: blobs/sha256/", true},
		"more than it says":        {edited(func(e *edit) { e.names = append(e.names, "extra") }), "its index is wrong: extra is not in it", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, images, dir, err := read(t, tt.archive)
			text := imagestest.ErrorText(err)
			if !strings.HasPrefix(text, tt.want) && (tt.want != large || !strings.HasSuffix(text, large)) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if left, err := os.ReadDir(dir); err != nil || images != nil || !tt.late && len(left) > 0 {
				t.Errorf("images %v, folder has %v, error %v, want none", images, left, err)
			}
		})
	}
}

// A part that is larger than it should be is not written, however large it is.
func TestUnpackWritesNothingOfAPartOfAnotherSize(t *testing.T) {
	_, file := node(t)
	var layer v1.Hash
	archive := repack(t, sample(t, file), func(e *edit) {
		e.setManifest(t, func(m *v1.Manifest) { m.Layers[0].Size, layer = 7, m.Layers[0].Digest })
	})
	_, _, dir, err := read(t, archive)
	if !strings.HasSuffix(imagestest.ErrorText(err), " bytes, want 7") {
		t.Errorf("error %v, want that the size is another", err)
	}
	if info, err := os.Stat(filepath.Join(dir, blobName(layer))); err != nil || info.Size() > 0 {
		t.Errorf("of the part %v was written, error %v, want nothing", info, err)
	}
}

func TestOpenIsInterrupted(t *testing.T) {
	errInterrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if _, err := Open(ctx, bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd})); !errors.Is(err, errInterrupted) {
		t.Errorf("error %v, want why it ended", err)
	}
}

// edit is an archive taken apart.
type edit struct {
	// names are those of the files in their order.
	names []string
	files map[string][]byte
}

// setIndex changes the index.
func (e *edit) setIndex(t *testing.T, change func(*v1.IndexManifest)) {
	t.Helper()
	var index v1.IndexManifest
	if err := json.Unmarshal(e.files[indexName], &index); err != nil {
		t.Fatal(err)
	}
	change(&index)
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	e.files[indexName] = data
}

// setManifest changes the manifest of the first image, and the index with it.
func (e *edit) setManifest(t *testing.T, change func(*v1.Manifest)) {
	t.Helper()
	var m v1.Manifest
	if err := json.Unmarshal(e.files[e.names[2]], &m); err != nil {
		t.Fatal(err)
	}
	change(&m)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	e.setBlob(t, 0, data)
}

// setBlob replaces the manifest of an image by other data.
func (e *edit) setBlob(t *testing.T, image int, data []byte) {
	t.Helper()
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	e.names[2+image] = blobName(digest)
	e.files[blobName(digest)] = data
	e.setIndex(t, func(i *v1.IndexManifest) { i.Manifests[image].Digest, i.Manifests[image].Size = digest, size })
}

// repack changes something in an archive.
func repack(t *testing.T, archive []byte, change func(*edit)) []byte {
	t.Helper()
	e := edit{files: map[string][]byte{}}
	for files := tar.NewReader(bytes.NewReader(decompress(t, archive))); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e.names = append(e.names, h.Name)
		if e.files[h.Name], err = io.ReadAll(files); err != nil {
			t.Fatal(err)
		}
	}
	change(&e)
	var buf bytes.Buffer
	w := layer.NewWriter(&buf)
	for _, name := range e.names {
		w.File(name, 0o644, e.files[name])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return compress(t, buf.Bytes())
}

func compress(t *testing.T, data []byte, options ...zstd.EOption) []byte {
	t.Helper()
	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed, options...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func decompress(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	plain, err := r.DecodeAll(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// A few bytes may stand for as many as there is room on the disk: a sparse file of
// a tar archive is larger than the archive.
func TestUnpackWritesNoMoreThanItReads(t *testing.T) {
	// 1 GiB of nothing, in the format of GNU tar.
	header := make([]byte, 512)
	copy(header, "large")
	copy(header[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        S")
	copy(header[257:], "ustar  \x00")
	copy(header[386:], "10000000000\x0000000000000\x00") // nothing at the end
	copy(header[483:], "10000000000\x00")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	archive := append(header, make([]byte, 1024)...)
	dir := t.TempDir()
	err := unpackTo(bytes.NewReader(archive), dir, int64(len(archive)))
	if want := "large has 1073741824 bytes, more than the archive that holds it"; imagestest.ErrorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("folder has %v, error %v, want nothing", left, err)
	}
}

func TestUnpackStaysInside(t *testing.T) {
	for _, name := range []string{"../evil", "/evil", "a/../../evil"} {
		var buf bytes.Buffer
		tr := layer.NewWriter(&buf)
		tr.File(name, 0o644, []byte("x"))
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		outer := t.TempDir()
		inner := filepath.Join(outer, "inner")
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unpackTo(&buf, inner, 1<<10); err == nil {
			t.Errorf("%s was unpacked", name)
		}
		if left, err := os.ReadDir(outer); err != nil || len(left) != 1 {
			t.Errorf("%s: outside is %v, error %v", name, left, err)
		}
	}
	var link bytes.Buffer
	tr := layer.NewWriter(&link)
	tr.Link("passwd", "/etc/passwd")
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unpackTo(&link, t.TempDir(), 1<<10); imagestest.ErrorText(err) != "passwd is neither a file nor a folder" {
		t.Errorf("error %v, want the link refused", err)
	}
}
