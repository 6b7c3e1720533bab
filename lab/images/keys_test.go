package images

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// A key that stays when an input changes means that a person who changed a pin
// goes on with what was built before, and does not know.
func TestModuleKeyChangesWithEachInput(t *testing.T) {
	pins := func(mod, sum, main string) fstest.MapFS {
		return fstest.MapFS{
			"etcd.mod": {Data: []byte(mod)}, "etcd.sum": {Data: []byte(sum)}, "main.go.txt": {Data: []byte(main)},
		}
	}
	base := module{name: "etcd", path: "go.etcd.io/etcd", main: "main.go.txt", pins: pins("module m", "sum", "package main")}
	changes := map[string]func(*module){
		"where it is from":  func(m *module) { m.path = "example.test/etcd" },
		"cgo":               func(m *module) { m.cgo = true },
		"tags":              func(m *module) { m.tags = "netgo" },
		"linker flags":      func(m *module) { m.ldflags = []string{"-X", "a=b"} },
		"packages":          func(m *module) { m.packages = []string{"./server"} },
		"program's name":    func(m *module) { m.rename = map[string]string{"server": "etcd"} },
		"pins":              func(m *module) { m.pins = pins("module m // changed", "sum", "package main") },
		"checksums":         func(m *module) { m.pins = pins("module m", "changed", "package main") },
		"main of our own":   func(m *module) { m.pins = pins("module m", "sum", "package main // changed") },
		"text between both": func(m *module) { m.pins = pins("module msum", "", "package main") },
	}
	seen := map[string]string{mustKey(t, base.key): "no change"}
	for name, change := range changes {
		m := base
		change(&m)
		key := mustKey(t, m.key)
		if other, ok := seen[key]; ok {
			t.Errorf("key %s with another %s is that of: %s", key, name, other)
		}
		seen[key] = name
	}
	base.version, base.typical = "v9", 9 // the pins say which version it is
	if key := mustKey(t, base.key); seen[key] != "no change" {
		t.Error("the key depends on what is only shown")
	}
}

func mustKey(t *testing.T, key func() (string, error)) string {
	t.Helper()
	k, err := key()
	if err != nil {
		t.Fatal(err)
	}
	if len(k) != 16 {
		t.Fatalf("key %q, want 16 characters", k)
	}
	return k
}

func TestExtractKeyFollowsItsModule(t *testing.T) {
	a := extract{name: "pause", from: kubernetesModule()}
	b, c := a, a
	b.name, c.from = "other", etcdModule()
	keys := []string{mustKey(t, a.key), mustKey(t, b.key), mustKey(t, c.key)}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 3 {
		t.Errorf("keys %q, want another one with another name and another module", keys)
	}
}

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
			demos: []demo{{name: "quotes"}, {name: "ledger", on: &foundation{Image: Image{Name: "database", Artifact: "files"}}}},
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
		ref, err := r.demoReference(demo{name: "ledger", on: &foundation{Image: Image{Name: "database", Artifact: "files"}}})
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
	keys := []string{pulledKey(img), pulledKey(tag), pulledKey(digest)}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 3 {
		t.Errorf("keys %q, want three", keys)
	}
}

func TestToolchain(t *testing.T) {
	tests := map[string]string{
		"go1.26.8": "go1.26.8", "go1.27rc1": "go1.27rc1",
		"devel go1.27-abc": "local", "go1.26.8 X:jsonv2": "local",
	}
	for version, want := range tests {
		if got := toolchain(version); got != want {
			t.Errorf("toolchain(%q) = %s, want %s", version, got, want)
		}
	}
}

// What a person has told the go command to build, by its environment or by
// 'go env -w', is not what an image is built of; where modules come from is.
func TestBuildsIgnoreWhatAPersonBuildsWith(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	text := "GOOS=plan9\nGOARCH=mips\nGOEXPERIMENT=nosuch\nGOFLAGS=-tags=nosuch\nCGO_ENABLED=1\nGOPROXY=https://modules.example\nGOPRIVATE=example.test\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"GOENV": file, "GOAMD64": "v4", "GOFLAGS": "-mod=vendor", "GOEXPERIMENT": "nosuch", "CC": "/nowhere/cc", "CGO_CFLAGS": "-DNOSUCH", "CPATH": "/nowhere",
		"GOPROXY": "", "GOPRIVATE": "other.test",
	} {
		t.Setenv(name, value)
	}
	tmp := t.TempDir()
	env, err := goEnviron("", false, tmp)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	for _, setting := range env {
		name, value, _ := strings.Cut(setting, "=")
		last[name] = value
	}
	for name, want := range map[string]string{
		"GOENV": "off", "GOOS": "linux", "GOARCH": runtime.GOARCH, "GOAMD64": "v1", "GOFLAGS": "-mod=readonly", "GOEXPERIMENT": "", "CC": "", "CGO_CFLAGS": "", "CPATH": "",
		"CGO_ENABLED": "0", "GOPROXY": "https://modules.example", "GOPRIVATE": "other.test", "GOTMPDIR": tmp, "TMPDIR": tmp,
	} {
		if last[name] != want {
			t.Errorf("%s=%s, want %s", name, last[name], want)
		}
	}

	s, m := newStore(t), greeter(publishGreeter(t))
	dir, err := s.Make(t.Context(), m.name, "k1", m.fill)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), programPath(dir, "greeter")).CombinedOutput()
	if err != nil || string(out) != "hello from v1.2.3\n" {
		t.Errorf("the program says %q, error %v, want its version", out, err)
	}
}
