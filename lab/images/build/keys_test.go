package build

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
	base := Module{Name: "etcd", Path: "go.etcd.io/etcd", Main: "main.go.txt", Pins: pins("module m", "sum", "package main")}
	changes := map[string]func(*Module){
		"where it is from":  func(m *Module) { m.Path = "example.test/etcd" },
		"cgo":               func(m *Module) { m.Cgo = true },
		"tags":              func(m *Module) { m.Tags = "netgo" },
		"linker flags":      func(m *Module) { m.LDFlags = []string{"-X", "a=b"} },
		"packages":          func(m *Module) { m.Packages = []string{"./server"} },
		"program's name":    func(m *Module) { m.Rename = map[string]string{"server": "etcd"} },
		"pins":              func(m *Module) { m.Pins = pins("module m // changed", "sum", "package main") },
		"checksums":         func(m *Module) { m.Pins = pins("module m", "changed", "package main") },
		"main of our own":   func(m *Module) { m.Pins = pins("module m", "sum", "package main // changed") },
		"an extra file":     func(m *Module) { m.Extra = map[string]string{"scheme/go.mod": "etcd.mod"} },
		"another extra one": func(m *Module) { m.Extra = map[string]string{"scheme/go.mod": "etcd.sum"} },
		"an insert":         func(m *Module) { m.Inserts = []Insert{{"main.go", "here", "text"}} },
		"another insert":    func(m *Module) { m.Inserts = []Insert{{"main.go", "here", "other text"}} },
		"text between both": func(m *Module) { m.Pins = pins("module msum", "", "package main") },
	}
	seen := map[string]string{mustKey(t, base.Key): "no change"}
	for name, change := range changes {
		m := base
		change(&m)
		key := mustKey(t, m.Key)
		if other, ok := seen[key]; ok {
			t.Errorf("key %s with another %s is that of: %s", key, name, other)
		}
		seen[key] = name
	}
	// The pins say which version it is, whatever they are called.
	base.Version, base.Typical = "v9", 9
	base.PinsOf, base.Pins = "store", fstest.MapFS{
		"store.mod": {Data: []byte("module m")}, "store.sum": {Data: []byte("sum")}, "main.go.txt": {Data: []byte("package main")},
	}
	if key := mustKey(t, base.Key); seen[key] != "no change" {
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
	module := func(name string) Module {
		return Module{Name: name, Pins: fstest.MapFS{name + ".mod": {}, name + ".sum": {}}}
	}
	a := Extract{Name: "pause", From: module("kubernetes")}
	b, c := a, a
	b.Name, c.From = "other", module("etcd")
	keys := []string{mustKey(t, a.Key), mustKey(t, b.Key), mustKey(t, c.Key)}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 3 {
		t.Errorf("keys %q, want another one with another name and another module", keys)
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
	dir, err := s.Make(t.Context(), m.Name, "k1", m.Fill)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ProgramPath(dir, "greeter")).CombinedOutput()
	if err != nil || string(out) != "hello from v1.2.3\n" {
		t.Errorf("the program says %q, error %v, want its version", out, err)
	}
}
