package images

import (
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/build"
	"github.com/fedlab-dev/fedlab/lab/images/pull"
)

// The node image has to be another one as soon as anything in it is.
func TestFlavourKeysChangeWithWhatIsInThem(t *testing.T) {
	base := func() recipes {
		return recipes{
			images: []Image{{Name: "etcd", Reference: "registry.example/etcd:1", Artifact: "etcd", Program: "etcd", Path: "/etcd"}},
			artifacts: []artifact{
				{name: "quotes", key: "d", kind: Demo}, {name: "chart", key: "c", kind: Chart},
				{name: "etcd", key: "b", only: Build}, {name: "pulled-etcd", key: "p", only: Pull},
				{name: "files", key: "f", only: Build, foundation: true}, {name: "pulled-database", key: "q", only: Pull, foundation: true},
				{name: "ledger", key: "l", kind: Demo},
			},
			demos: []demo{{Program: build.Program{Name: "quotes"}}, {build.Program{Name: "ledger"}, &foundation{Image: Image{Name: "database", Artifact: "files"}}}},
		}
	}
	const pulled, built = "pulled", "built"
	keys := func(r recipes) map[string]string {
		if err := r.computeFlavours(); err != nil {
			t.Fatal(err)
		}
		return map[string]string{pulled: r.flavour(Pull).key, built: r.flavour(Build).key}
	}
	was := keys(base())
	tests := map[string]struct {
		change func(*recipes)
		want   []string
	}{
		"demo program":        {func(r *recipes) { r.artifacts[0].key = "x" }, nil},
		"chart":               {func(r *recipes) { r.artifacts[1].key = "x" }, nil},
		"program":             {func(r *recipes) { r.artifacts[2].key = "x" }, []string{built}},
		"pulled image":        {func(r *recipes) { r.artifacts[3].key = "x" }, []string{pulled}},
		"built foundation":    {func(r *recipes) { r.artifacts[4].key = "x" }, []string{built}},
		"pulled foundation":   {func(r *recipes) { r.artifacts[5].key = "x" }, []string{pulled}},
		"program on it":       {func(r *recipes) { r.artifacts[6].key = "x" }, nil},
		"reference":           {func(r *recipes) { r.images[0].Reference = "x" }, []string{built}},
		"path in the image":   {func(r *recipes) { r.images[0].Path = "/x" }, []string{built}},
		"packages beside it":  {func(r *recipes) { r.images[0].Packages = []string{"iptables"} }, []string{built}},
		"program in an image": {func(r *recipes) { r.images[0].Program = "x" }, []string{built}},
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
		r := recipes{artifacts: []artifact{{name: "ledger", key: program}, {name: "files", key: built}, {name: "pulled-database", key: pulled}}}
		ref, err := r.demoReference(demo{build.Program{Name: "ledger"}, &foundation{Image: Image{Name: "database", Artifact: "files"}}})
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

func TestPulledKeyChangesWithReferenceAndDigest(t *testing.T) {
	img := Image{Name: "etcd", Reference: "registry.example/etcd:1"}
	tag, digest := img, img
	tag.Reference, digest.Digest = "registry.example/etcd:2", "sha256:"+strings.Repeat("a", 64)
	key := func(img Image) string { return pulled(pull.Registries{}, img).key }
	keys := []string{key(img), key(tag), key(digest)}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 3 {
		t.Errorf("keys %q, want three", keys)
	}
}
