package recipe

import (
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
)

// The node image has to be another one as soon as anything in it is.
func TestFlavourKeysChangeWithWhatIsInThem(t *testing.T) {
	base := func() Book {
		return Book{
			Images: []Image{{Name: "etcd", Reference: "registry.example/etcd:1", Artifact: "etcd", Program: "etcd", Path: "/etcd"}},
			Artifacts: []Artifact{
				{Name: "quotes", Key: "d", Kind: Demo}, {Name: "chart", Key: "c", Kind: Chart},
				{Name: "etcd", Key: "b", Only: Build}, {Name: "pulled-etcd", Key: "p", Only: Pull},
				{Name: "files", Key: "f", Only: Build, Foundation: true}, {Name: "pulled-database", Key: "q", Only: Pull, Foundation: true},
				{Name: "ledger", Key: "l", Kind: Demo},
				{Name: "tunnel", Key: "t", Only: Build, Optional: true}, {Name: "pulled-tunnel", Key: "u", Only: Pull, Optional: true},
			},
			Programs: []Program{{Program: build.Program{Name: "quotes"}}, {build.Program{Name: "ledger"}, &Foundation{Image: Image{Name: "database", Artifact: "files"}}}},
		}
	}
	const pulled, built = "pulled", "built"
	keys := func(r Book) map[string]string {
		r, err := r.Keyed()
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{pulled: r.Flavour(Pull).Key, built: r.Flavour(Build).Key}
	}
	was := keys(base())
	tests := map[string]struct {
		change func(*Book)
		want   []string
	}{
		"demo program":        {func(r *Book) { r.Artifacts[0].Key = "x" }, nil},
		"chart":               {func(r *Book) { r.Artifacts[1].Key = "x" }, nil},
		"program":             {func(r *Book) { r.Artifacts[2].Key = "x" }, []string{built}},
		"pulled image":        {func(r *Book) { r.Artifacts[3].Key = "x" }, []string{pulled}},
		"built foundation":    {func(r *Book) { r.Artifacts[4].Key = "x" }, []string{built}},
		"pulled foundation":   {func(r *Book) { r.Artifacts[5].Key = "x" }, []string{pulled}},
		"program on it":       {func(r *Book) { r.Artifacts[6].Key = "x" }, nil},
		"optional program":    {func(r *Book) { r.Artifacts[7].Key = "x" }, nil},
		"pulled one":          {func(r *Book) { r.Artifacts[8].Key = "x" }, nil},
		"reference":           {func(r *Book) { r.Images[0].Reference = "x" }, []string{built}},
		"path in the image":   {func(r *Book) { r.Images[0].Path = "/x" }, []string{built}},
		"packages next to it": {func(r *Book) { r.Images[0].Packages = []string{"iptables"} }, []string{built}},
		"program in an image": {func(r *Book) { r.Images[0].Program = "x" }, []string{built}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := base()
			tt.change(&r)
			var changed []string
			for which, key := range keys(r) {
				if key != was[which] {
					changed = append(changed, which)
				}
			}
			slices.Sort(changed)
			if !slices.Equal(changed, tt.want) {
				t.Errorf("changed %q, want %q", changed, tt.want)
			}
		})
	}
}

// A pod has to be replaced when what its program stands on is another one, and
// its image has one name whichever way that was had.
func TestDemoReferenceFollowsItsFoundation(t *testing.T) {
	reference := func(program, built, pulled string) string {
		r := Book{Artifacts: []Artifact{{Name: "ledger", Key: program}, {Name: "files", Key: built}, {Name: "pulled-database", Key: pulled}}}
		ref, err := r.Reference(Program{build.Program{Name: "ledger"}, &Foundation{Image: Image{Name: "database", Artifact: "files"}}})
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	references := []string{reference("a", "b", "c"), reference("x", "b", "c"), reference("a", "x", "c"), reference("a", "b", "x")}
	slices.Sort(references)
	if len(slices.Compact(references)) != 4 {
		t.Errorf("references %q, want four", references)
	}
}

// An image of an optional program has one name whichever way it was had, and another one
// when it is another image.
func TestOptionalReferenceFollowsWhatItIsMadeOf(t *testing.T) {
	o := Optional{Image: Image{Name: "tunnel", Reference: "registry.example/tunnel:1"}}
	reference := func(built, pulled string) string {
		r := Book{Artifacts: []Artifact{{Name: "tunnel", Key: built}, {Name: "pulled-tunnel", Key: pulled}}}
		ref, err := r.OptionalReference(o)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	references := []string{reference("a", "b"), reference("x", "b"), reference("a", "x")}
	slices.Sort(references)
	if len(slices.Compact(references)) != 3 {
		t.Errorf("references %q, want three", references)
	}
}

func TestPulledKeyChangesWithReferenceAndDigest(t *testing.T) {
	img := Image{Name: "etcd", Reference: "registry.example/etcd:1"}
	tag, digest := img, img
	tag.Reference, digest.Digest = "registry.example/etcd:2", "sha256:"+strings.Repeat("a", 64)
	key := func(img Image) string { return FromRegistry(pull.Registries{}, img).Key }
	keys := []string{key(img), key(tag), key(digest)}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 3 {
		t.Errorf("keys %q, want three", keys)
	}
}
