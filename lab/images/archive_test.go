package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fedlab-dev/fedlab/lab/images/engine"
	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
)

// savedStand makes a set of stand-ins, saves it, and removes the node images.
func savedStand(t *testing.T) (*stand, []byte) {
	t.Helper()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	s.database(t, "")
	s.Source = Build
	if _, err := s.stock.ensure(t.Context(), All); err != nil {
		t.Fatal(err)
	}
	var archives [2]bytes.Buffer
	for i := range archives {
		if err := s.save(t.Context(), &archives[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Error("the same set makes two archives")
	}
	if err := clear(t.Context(), client, s.realm); err != nil {
		t.Fatal(err)
	}
	return s, archives[0].Bytes()
}

// elsewhere is the same fedlab on a machine that has nothing yet.
func (s *stand) elsewhere(t *testing.T) *stand {
	t.Helper()
	other := newStand(t, newStore(t), s.Engine, s.realm, "")
	other.database(t, "")
	return other
}

// TestArchive saves a set once and looks at what becomes of it.
func TestArchive(t *testing.T) {
	t.Parallel()
	s, archive := savedStand(t)
	for name, test := range map[string]func(*testing.T, *stand, []byte){
		"load": loads, "ensure": takesTheArchive, "refusal": refuses, "another version": refusesAnotherVersion, "manifest": hasAManifest,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, s, archive)
			if err := clear(context.WithoutCancel(t.Context()), s.Engine, s.realm); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func loads(t *testing.T, s *stand, archive []byte) {
	t.Helper()
	other := s.elsewhere(t)
	if err := other.load(t.Context(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	set, err := other.stock.ensure(t.Context(), All)
	if err != nil {
		t.Fatal(err)
	}
	if did := other.did(); len(did) > 0 {
		t.Errorf("after Load, Ensure does %q, want nothing", did)
	}
	if len(set.CRDs) != 2 || set.Demos["quotes"] != fakeDemoReference || set.DefaultCNI {
		t.Errorf("set %+v", set)
	}
	if data, err := os.ReadFile(filepath.Join(set.MetalLBChart, "templates", "pool.yaml")); err != nil || string(data) != "chart/templates/pool.yaml" {
		t.Errorf("chart has %q, error %v", data, err)
	}
	want := []string{set.Demos["ledger"] + " packed=false", fakeSPIREReference + " packed=false", fakeAPIReference + " packed=false"}
	if got := other.imported(t, set.NodeImage); !slices.Equal(got, want) {
		t.Errorf("node image has %q, want %q", got, want)
	}
	entries, err := other.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if (e.Kind != Ingredient || e.Name == "database-files") && (!e.Present || e.From != Archive) {
			t.Errorf("%s %s is there: %t, from %q, want it from the archive", e.Kind, e.Name, e.Present, e.From)
		}
	}
	// A changed program costs no more than at home, also one that stands on
	// something.
	other.change(t, "quotes")
	other.change(t, "ledger")
	if _, err := other.stock.ensure(t.Context(), All); err != nil {
		t.Fatal(err)
	}
	if got, want := other.did(), []string{"build/ledger changed", "build/quotes changed"}; !slices.Equal(got, want) {
		t.Errorf("other demo programs: did %q, want %q", got, want)
	}
}

func takesTheArchive(t *testing.T, s *stand, archive []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lab.tar.zst")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	other := s.elsewhere(t)
	other.Source, other.Archive = Archive, file
	other.ensure(t)
	if len(other.events)+len(other.said) > 0 {
		t.Errorf("did %q, said %q, want nothing but the load", other.events, other.said)
	}
}

func TestEnsureGoesOnWithoutTheArchive(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	s.Archive = filepath.Join(t.TempDir(), "lab.tar.zst")
	if _, err := s.stock.ensure(t.Context(), Parts); err != nil {
		t.Fatal(err)
	}
	want := "open archive: open " + s.Archive + ": no such file or directory; goes on with source build"
	if !slices.Equal(s.said, []string{want}) || len(s.events) != 3 {
		t.Errorf("said %q, did %q, want %q and three builds", s.said, s.events, want)
	}
}

func TestSaveWhatIsNotThere(t *testing.T) {
	t.Parallel()
	client := realEngine(t)
	s := newStand(t, newStore(t), client, newRealm(t, client), "")
	var buf bytes.Buffer
	err := s.save(t.Context(), &buf)
	var missing *MissingError
	if want := "missing: demo program quotes, chart, CRDs, node image"; !errors.As(err, &missing) || err.Error() != want || buf.Len() > 0 {
		t.Errorf("error %v and %d bytes, want %s and none", err, buf.Len(), want)
	}
}

// refuses feeds archives that are not as they should be. Whatever is wrong, and
// however late it shows, nothing of them is taken.
func refuses(t *testing.T, s *stand, archive []byte) {
	t.Helper()
	damaged := bytes.Clone(archive)
	damaged[len(damaged)*2/3] ^= 0xff
	edited := func(change func(*edit)) []byte { return repack(t, archive, change) }
	tests := map[string]struct {
		archive []byte
		want    string
	}{
		"empty":             {nil, "it is not an archive of fedlab's images"},
		"not compressed":    {[]byte("PK\x03\x04 a zip file of somebody"), "it is not an archive of fedlab's images: it is not compressed with zstd"},
		"another archive":   {edited(func(e *edit) { e.names = e.names[1:] }), "it is not an archive of fedlab's images"},
		"no archive":        {compress(t, bytes.Repeat([]byte("text "), 300)), "it is not an archive of fedlab's images"},
		"another format":    {edited(func(e *edit) { e.manifest.APIVersion = "fedlab.dev/v9" }), "its manifest is wrong: its format is fedlab.dev/v9, this fedlab knows fedlab.dev/v1alpha1"},
		"another kind":      {edited(func(e *edit) { e.manifest.Kind = "Lab" }), "it is not an archive of fedlab's images"},
		"cut off early":     {archive[:len(archive)/4], "the archive is cut off: "},
		"cut off late":      {archive[:len(archive)-20], "the archive is cut off: "},
		"a byte is another": {damaged, "the archive is damaged: "},
		"a program is another": {edited(func(e *edit) {
			e.files["artifacts/quotes-demo1.tar"] = bytes.ReplaceAll(e.files["artifacts/quotes-demo1.tar"], []byte("quotes"), []byte("quotas"))
		}), "the archive is damaged: artifacts/quotes-demo1.tar has "},
		"a part is missing":         {edited(func(e *edit) { e.names = slices.Delete(e.names, 2, 3) }), "its manifest is wrong: artifacts/ledger-ledger1.tar is not in its place"},
		"the last part is missing":  {edited(func(e *edit) { e.names = e.names[:len(e.names)-1] }), "its manifest is wrong: blobs/"},
		"a part that is needed":     {edited(func(e *edit) { e.names, e.manifest.Parts = slices.Delete(e.names, 1, 2), e.manifest.Parts[1:] }), "its manifest is wrong: it has no artifacts/database-files-database1.tar"},
		"no foundation":             {edited(func(e *edit) { delete(e.manifest.Artifacts, "database-files") }), "the archive was written by fedlab v0.1.0, this one needs another version of: database"},
		"a layer that is needed":    {edited(func(e *edit) { e.manifest.Images[0].Layers[0] = "blobs/other" }), "its manifest is wrong: it has no blobs/other"},
		"more than it says":         {edited(func(e *edit) { e.names, e.files["extra"] = append(e.names, "extra"), nil }), "its manifest is wrong: extra is not in it"},
		"somebody else's image":     {edited(func(e *edit) { e.manifest.Images[0].Reference = "debian:12" }), "its manifest is wrong: image debian:12 is not the node image of this fedlab"},
		"no node image":             {edited(func(e *edit) { e.manifest.Images = e.manifest.Images[1:] }), "its manifest is wrong: it has no image fedlab.local/"},
		"node image of another key": {edited(func(e *edit) { e.manifest.Node = "other" }), "the archive was written by fedlab v0.1.0, this one needs another version of: node image"},
		"a part of another size": {edited(func(e *edit) {
			e.files["artifacts/quotes-demo1.tar"] = append(e.files["artifacts/quotes-demo1.tar"], make([]byte, 512)...)
		}), "the archive is damaged: artifacts/quotes-demo1.tar has 3072 bytes, want 2560"},
		"a part too large":         {edited(func(e *edit) { e.manifest.Parts[0].Size = partsLimit }), "its manifest is wrong: with "},
		"a part of less than none": {edited(func(e *edit) { e.manifest.Parts[0].Size = -1 }), "its manifest is wrong: with -1 bytes of artifacts/database-files-database1.tar, its parts have more than 8589934592"},
		"a part for nothing": {edited(func(e *edit) {
			e.manifest.Parts = append(e.manifest.Parts, part{Name: "blobs/more"})
		}), "its manifest is wrong: nothing needs its blobs/more"},
		"a manifest that does not end": {edited(func(e *edit) { e.padding = manifestLimit }), "it is not an archive of fedlab's images"},
		"much memory":                  {compress(t, decompress(t, archive), zstd.WithWindowSize(2*archiveWindow)), "it is not an archive of fedlab's images: it is compressed in another way, and takes more memory"},
		"unknown source":               {edited(func(e *edit) { e.manifest.Source, e.manifest.Node = "web", "" }), "the archive was written by fedlab v0.1.0, this one needs another version of: node image"},
	}
	if err := clear(t.Context(), s.Engine, s.realm); err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			other := s.elsewhere(t)
			err := other.load(t.Context(), bytes.NewReader(tt.archive))
			if !strings.HasPrefix(imagestest.ErrorText(err), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if left, err := os.ReadDir(other.Store.Root() + "/builds"); err != nil || len(left) > 0 {
				t.Errorf("store has %v, error %v, want nothing", left, err)
			}
			if left, err := other.Engine.Images(t.Context(), map[string]string{engine.LabelRole: s.realm + engine.RoleNode}); err != nil || len(left) > 0 {
				t.Errorf("engine has %v, error %v, want nothing", left, err)
			}
		})
	}
}

// edit is an archive taken apart.
type edit struct {
	manifest manifest
	// names are those of the files in their order, the manifest in front.
	names []string
	files map[string][]byte
	// padding is how many spaces follow the manifest.
	padding int
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
	if err := json.Unmarshal(e.files[manifestName], &e.manifest); err != nil {
		t.Fatal(err)
	}
	change(&e)
	data, err := json.Marshal(e.manifest)
	if err != nil {
		t.Fatal(err)
	}
	e.files[manifestName] = append(data, bytes.Repeat([]byte(" "), e.padding)...)
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

func refusesAnotherVersion(t *testing.T, s *stand, archive []byte) {
	t.Helper()
	other := s.elsewhere(t)
	other.book.Artifacts[1].Key = "chart2"
	err := other.load(t.Context(), bytes.NewReader(archive))
	var foreign *ForeignError
	want := "the archive was written by fedlab v0.1.0, this one needs another version of: chart"
	if !errors.As(err, &foreign) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if left, err := os.ReadDir(other.Store.Root() + "/builds"); err != nil || len(left) > 0 {
		t.Errorf("store has %v, error %v, want nothing", left, err)
	}
}

func TestLoadIsInterrupted(t *testing.T) {
	s := newStand(t, newStore(t), nil, "", "")
	errInterrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if err := s.load(ctx, bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd})); !errors.Is(err, errInterrupted) {
		t.Errorf("error %v, want why it ended", err)
	}
}

func hasAManifest(t *testing.T, _ *stand, archive []byte) {
	t.Helper()
	var m manifest
	if err := json.Unmarshal([]byte(imagestest.FileInTar(t, decompress(t, archive), manifestName)), &m); err != nil {
		t.Fatal(err)
	}
	if m.Kind != archiveKind || m.Version != "v0.1.0" || m.Source != Build || m.Artifacts["quotes"] != "demo1" || len(m.Images) != 1 {
		t.Errorf("manifest %+v", m)
	}
	if !slices.IsSortedFunc(m.Parts, func(a, b part) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("parts %v, want them sorted", m.Parts)
	}
}

// A few bytes may stand for as many as there is room on the disk: a sparse file of
// a tar archive is larger than the archive.
func TestUnpackFolderWritesNoMoreThanItReads(t *testing.T) {
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
	err := unpackFolder(bytes.NewReader(archive), dir, int64(len(archive)))
	if want := "large has 1073741824 bytes, more than the archive that holds it"; imagestest.ErrorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("folder has %v, error %v, want nothing", left, err)
	}
}

func TestUnpackFolderStaysInside(t *testing.T) {
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
		if err := unpackFolder(&buf, inner, 1<<10); err == nil {
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
	if err := unpackFolder(&link, t.TempDir(), 1<<10); imagestest.ErrorText(err) != "passwd is neither a file nor a folder" {
		t.Errorf("error %v, want the link refused", err)
	}
}
