package own

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

func TestMain(m *testing.M) { imagestest.Main(m, nil) }

const payments = "example.test/payments:dev"

// other is an architecture that nodes here do not have.
func other() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// saved writes an archive as 'docker save' does.
func saved(t *testing.T, images map[string]v1.Image) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "saved.tar")
	tags := map[name.Tag]v1.Image{}
	for ref, img := range images {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		tags[tag] = img
	}
	if err := tarball.MultiWriteToFile(file, tags); err != nil {
		t.Fatal(err)
	}
	return file
}

// packed writes a folder to a tar archive, except the files whose names start so.
func packed(t *testing.T, dir string, without ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layout.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := layer.NewWriter(f)
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !slices.ContainsFunc(without, func(start string) bool { return strings.HasPrefix(name, start) }) {
			w.Copy("./"+name, filepath.Join(dir, name), 0o644)
		}
		return err
	})
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

// laid writes an archive that is an OCI layout.
func laid(t *testing.T, fill func(layout.Path) error) string {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = fill(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return packed(t, dir)
}

// called gives an image in a layout a name.
func called(ref string) layout.Option {
	return layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref})
}

// kept is the image of an archive as it lies in the store.
func kept(t *testing.T, file string) (v1.Image, string, error) {
	t.Helper()
	var img v1.Image
	var key string
	err := Read(t.Context(), file, payments, func(i Image) (err error) {
		dir := t.TempDir()
		if err := i.Fill(t.Context(), dir, nil); err != nil {
			return err
		}
		if key, err = i.Key(); err != nil {
			return err
		}
		img, err = Open(dir)
		return err
	})
	return img, key, err
}

func TestReadKeepsTheImage(t *testing.T) {
	img, another, foreign := imagestest.RandomImage(t, runtime.GOARCH), imagestest.RandomImage(t, runtime.GOARCH), imagestest.RandomImage(t, other())
	platforms := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: foreign}, mutate.IndexAddendum{Add: img})
	want, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"saved under another name": saved(t, map[string]v1.Image{"example.test/other:1": img}),
		"one of several saved":     saved(t, map[string]v1.Image{payments: img, "example.test/other:1": another}),
		"a layout without a name":  laid(t, func(p layout.Path) error { return p.AppendImage(img) }),
		"one of several laid out": laid(t, func(p layout.Path) error {
			return errors.Join(p.AppendImage(another, called("example.test/other:1")), p.AppendImage(img, called(payments)))
		}),
		"one of several platforms": laid(t, func(p layout.Path) error { return p.AppendIndex(platforms) }),
		"platforms side by side":   laid(t, func(p layout.Path) error { return errors.Join(p.AppendImage(foreign), p.AppendImage(img)) }),
	} {
		t.Run(name, func(t *testing.T) {
			got, key, err := kept(t, file)
			if err != nil {
				t.Fatal(err)
			}
			if id, err := got.ConfigName(); id != want || err != nil || key != want.Hex[:16] {
				t.Errorf("image %s with key %s, error %v, want %s", id, key, err, want)
			}
			if err := validate.Image(got, validate.Fast); err != nil {
				t.Error(err)
			}
			if got, want := contents(t, got), contents(t, img); !slices.Equal(got, want) {
				t.Errorf("layers %v, want %v", got, want)
			}
		})
	}
}

// contents are the checksums of the layers of an image.
func contents(t *testing.T, img v1.Image) (sums []v1.Hash) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		sum, _, err := v1.SHA256(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	return sums
}

// Layers may be plain or compressed; what is kept is the same.
func TestReadUnpacks(t *testing.T) {
	var text bytes.Buffer
	w := layer.NewWriter(&text)
	w.File("payments", 0o755, bytes.Repeat([]byte("payments "), 1000))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, how := range []compression.Compression{compression.None, compression.GZip, compression.ZStd} {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil }, tarball.WithCompression(how))
		if err != nil {
			t.Fatal(err)
		}
		img, err := mutate.AppendLayers(empty.Image, l)
		if err != nil {
			t.Fatal(err)
		}
		got, key, err := kept(t, saved(t, map[string]v1.Image{payments: imagestest.For(t, img, runtime.GOARCH)}))
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		layers, err := got.Layers()
		if err != nil {
			t.Fatal(err)
		}
		if size, err := layers[0].Size(); size != int64(text.Len()) || err != nil {
			t.Errorf("%s: layer of %d bytes, error %v, want %d", how, size, err, text.Len())
		}
		keys[key] = true
	}
	if len(keys) != 1 {
		t.Errorf("keys %v, want one", keys)
	}
}

// Docker before 25 saves a layer that two images have once, and links to it.
func TestReadFollowsLinks(t *testing.T) {
	img := imagestest.RandomImage(t, runtime.GOARCH)
	file := edited(t, saved(t, map[string]v1.Image{payments: img}), func(w *tar.Writer, h *tar.Header, r io.Reader) error {
		if !strings.HasSuffix(h.Name, ".tar.gz") {
			return copyEntry(w, h, r)
		}
		link := tar.Header{Typeflag: tar.TypeSymlink, Name: h.Name, Linkname: "below/" + h.Name}
		h.Name = link.Linkname
		return errors.Join(w.WriteHeader(&link), copyEntry(w, h, r))
	})
	if _, _, err := kept(t, file); err != nil {
		t.Error(err)
	}
}

// edited changes an archive entry by entry.
func edited(t *testing.T, file string, change func(*tar.Writer, *tar.Header, io.Reader) error) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = change(w, h, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return written(t, out.Bytes())
}

func copyEntry(w *tar.Writer, h *tar.Header, r io.Reader) error {
	err := w.WriteHeader(h)
	if err == nil {
		_, err = io.Copy(w, r)
	}
	return err
}

func written(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// tarOf is an archive of files.
func tarOf(t *testing.T, files map[string]string) string {
	t.Helper()
	var out bytes.Buffer
	w := layer.NewWriter(&out)
	for name, text := range files {
		w.File(name, 0o644, []byte(text))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return written(t, out.Bytes())
}

// manifest is an archive with one image, described by its configuration and layers.
func manifest(t *testing.T, config, layers string) string {
	t.Helper()
	return tarOf(t, map[string]string{
		"manifest.json": `[{"Config":"config.json","RepoTags":["a:1"],"Layers":[` + layers + `]}]`, "config.json": config, "layer.tar": "",
	})
}

func TestReadRefuses(t *testing.T) {
	img, another, foreign := imagestest.RandomImage(t, runtime.GOARCH), imagestest.RandomImage(t, runtime.GOARCH), imagestest.RandomImage(t, other())
	whole := saved(t, map[string]v1.Image{payments: img})
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	first, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	ours := `"os":"linux","architecture":"` + runtime.GOARCH + `"`
	none := errNone.Error()
	for name, tt := range map[string]struct{ file, want string }{
		"nothing there":    {filepath.Join(dir, "payments.tar"), "it is not there"},
		"a folder":         {dir, "it is a folder, want a file"},
		"a device":         {os.DevNull, "it is not a regular file"},
		"an empty file":    {written(t, nil), none},
		"a text":           {written(t, []byte("payments")), none},
		"something else":   {written(t, bytes.Repeat([]byte("payments"), 1000)), none},
		"other files":      {tarOf(t, map[string]string{"payments": "x"}), none},
		"a chart's values": {tarOf(t, map[string]string{"manifest.json": `{"kind":"x"}`}), none},
		"no image":         {tarOf(t, map[string]string{"manifest.json": `[]`}), "it has no image"},
		"cut in a file":    {written(t, data[:3000]), "it is cut off"},
		"cut in a header":  {written(t, data[:bytes.Index(data, []byte("manifest.json"))+100]), "it is cut off"},
		"several saved":    {saved(t, map[string]v1.Image{"b:1": img, "a:1": another}), `it has 2 images, and not exactly one is called ` + payments + `: their names are ["a:1" "b:1"]`},
		"two with no name": {laid(t, func(p layout.Path) error { return errors.Join(p.AppendImage(img), p.AppendImage(another)) }), `it has 2 images, and not exactly one is called ` + payments + `: their names are []`},
		"names that obey": {laid(t, func(p layout.Path) error {
			return errors.Join(p.AppendImage(img, called("\x1b[2J")), p.AppendImage(another))
		}), `it has 2 images, and not exactly one is called ` + payments + `: their names are ["\x1b[2J"]`},
		"other platform":    {saved(t, map[string]v1.Image{payments: foreign}), `its image is for ["linux/` + other() + `"], and nodes are linux/` + runtime.GOARCH},
		"other system":      {manifest(t, `{"os":"windows","architecture":"`+runtime.GOARCH+`"}`, ""), `its image is for ["windows/` + runtime.GOARCH + `"], and nodes are linux/` + runtime.GOARCH},
		"no configuration":  {tarOf(t, map[string]string{"manifest.json": `[{"Config":"../../etc/passwd"}]`}), `it lacks its file "../../etc/passwd"`},
		"layers lacking":    {manifest(t, `{`+ours+`,"rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`, `"../other.tar"`), `it lacks the layer "../other.tar"`},
		"layers too many":   {manifest(t, `{`+ours+`}`, `"layer.tar"`), "its image has 1 layers, and its configuration names 0"},
		"layer damaged":     {manifest(t, `{`+ours+`,"rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`, `"layer.tar"`), "layer 1 of 1: it is damaged: it has checksum sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, want sha256:" + strings.Repeat("0", 64)},
		"checksum as path":  {manifest(t, `{`+ours+`,"rootfs":{"diff_ids":["sha256:../../../x"]}}`, `"layer.tar"`), "read the configuration of an image: found non-hex character in hash: ."},
		"much to describe":  {manifest(t, strings.Repeat(" ", textLimit), ""), "it describes its images with more than 16 MiB"},
		"layout incomplete": {packed(t, dir, "blobs/sha256/"+config.Hex), `it lacks its file "blobs/sha256/` + config.Hex + `"`},
		"layer not in it":   {packed(t, dir, "blobs/sha256/"+first.Hex), `it lacks the layer "blobs/sha256/` + first.Hex + `"`},
		"no manifest in it": {packed(t, dir, "blobs"), "it has no image"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := kept(t, tt.file); imagestest.ErrorText(err) != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestReadRefusesADamagedManifest(t *testing.T) {
	img := imagestest.RandomImage(t, runtime.GOARCH)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	file := edited(t, laid(t, func(p layout.Path) error { return p.AppendImage(img) }), func(w *tar.Writer, h *tar.Header, r io.Reader) error {
		if strings.HasSuffix(h.Name, digest.Hex) {
			h.Size++
			r = io.MultiReader(r, strings.NewReader(" "))
		}
		return copyEntry(w, h, r)
	})
	if _, _, err := kept(t, file); imagestest.ErrorText(err) != `its file "blobs/sha256/`+digest.Hex+`" is damaged` {
		t.Errorf("error %v, want that the manifest is damaged", err)
	}
}

// A few bytes may be unpacked to more than any disk has.
func TestWriteIsLimited(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, _, err := v1.SHA256(strings.NewReader("payments"))
	if err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int64]string{8: "", 7: "the image has more than 8 GiB"} {
		if _, err := write(t.Context(), dir, sum, data([]byte("payments")), limit); imagestest.ErrorText(err) != want {
			t.Errorf("limit %d: error %v, want %q", limit, err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := write(ctx, dir, sum, data([]byte("payments")), 8); imagestest.ErrorText(err) != "enough" {
		t.Errorf("error %v, want the cause", err)
	}
}

func TestProgram(t *testing.T) {
	file := written(t, []byte("program"))
	img, err := Program(file, "payments")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := img.Fill(t.Context(), dir, nil); err != nil {
		t.Fatal(err)
	}
	got, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	config, err := got.ConfigFile()
	if err != nil || !slices.Equal(config.Config.Entrypoint, []string{"/payments"}) || config.Architecture != runtime.GOARCH {
		t.Errorf("configuration %+v, error %v", config, err)
	}
	var files bytes.Buffer
	layers, err := got.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, error %v, want 1", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err == nil {
		_, err = io.Copy(&files, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := imagestest.Entries(t, bytes.NewReader(files.Bytes())), []string{"1777 5 tmp/", "0755 0 payments"}; !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
	if !bytes.Contains(files.Bytes(), []byte("program")) {
		t.Error("the program is another one")
	}
	if _, err := Program(file, "tmp"); imagestest.ErrorText(err) != "a program is called after its folder, and in an image /tmp is something else: the folder needs another name" {
		t.Errorf("error %v, want that /tmp is taken", err)
	}
}
