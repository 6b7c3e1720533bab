package build

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

func TestMain(m *testing.M) {
	imagestest.Main(m, map[string]func(context.Context, []string) error{"module": helpModule})
}

// newStore returns an empty store.
func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// greeter is a module with one program, which "upstream" publishes in a folder.
func greeter(upstream string) Module {
	return Module{
		Name: "greeter", Path: "example.test/greeter", LDFlags: []string{"-X", "main.version=v1.2.3"},
		Rename: map[string]string{"cmd": "greeter"},
		Pins: fstest.MapFS{
			"greeter.mod": {Data: fmt.Appendf(nil, "module example.test/build\n\ngo 1.26\n\nrequire example.test/greeter v1.2.3\n\nreplace example.test/greeter => %s\n\ntool example.test/greeter/cmd\n", upstream)},
			"greeter.sum": {},
		},
	}
}

func publishGreeter(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files := fstest.MapFS{
		"go.mod":      {Data: []byte("module example.test/greeter\n\ngo 1.26\n")},
		"cmd/main.go": {Data: []byte("package main\n\nvar version string\n\nfunc main() { println(\"hello from\", version) }\n")},
	}
	if err := os.CopyFS(dir, files); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestModuleBuildsItsPrograms(t *testing.T) {
	s, m := newStore(t), greeter(publishGreeter(t))
	dir, err := s.Make(t.Context(), m.Name, "k1", m.Fill)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ProgramPath(dir, "greeter")).CombinedOutput()
	if err != nil || string(out) != "hello from v1.2.3\n" {
		t.Errorf("the program says %q, error %v, want its version", out, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("artifact has %v, error %v, want bin alone", left, err)
	}
}

func TestModuleWithMainOfOurOwn(t *testing.T) {
	s := newStore(t)
	m := Module{Name: "clock", Main: "clock.go.txt", Pins: fstest.MapFS{
		"clock.mod": {Data: []byte("module example.test/build\n\ngo 1.26\n")}, "clock.sum": {},
		"clock.go.txt": {Data: []byte("package main\n\nfunc main() { println(\"noon\") }\n")},
	}}
	dir, err := s.Make(t.Context(), m.Name, "k1", m.Fill)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ProgramPath(dir, "clock")).CombinedOutput()
	if err != nil || string(out) != "noon\n" {
		t.Errorf("the program says %q, error %v", out, err)
	}
}

func TestModuleThatDoesNotCompile(t *testing.T) {
	s := newStore(t)
	m := Module{Name: "clock", Main: "clock.go.txt", Pins: fstest.MapFS{
		"clock.mod": {Data: []byte("module example.test/build\n\ngo 1.26\n")}, "clock.sum": {},
		"clock.go.txt": {Data: []byte("package main\n\nfunc main() { tick() }\n")},
	}}
	_, err := s.Make(t.Context(), m.Name, "k1", m.Fill)
	log := filepath.Join(s.Root(), "logs", "clock-k1.log")
	if want := "make clock (log: " + log + "): run go build: exit status 1"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	data, err := os.ReadFile(log)
	if err != nil || !strings.HasPrefix(string(data), "+ go build -trimpath ") || !strings.Contains(string(data), "main.go:3:15: undefined: tick") {
		t.Errorf("log %q, error %v, want the command and what the compiler says", data, err)
	}
}

// A "replace" line leads to a module of our own, which lies in the generated one.
func TestModuleWithAnExtraOne(t *testing.T) {
	s := newStore(t)
	m := Module{Name: "clock", Main: "clock.go.txt", Extra: map[string]string{"hour/go.mod": "hour.mod", "hour/hour.go": "hour.go.txt"}, Pins: fstest.MapFS{
		"clock.mod":    {Data: []byte("module example.test/build\n\ngo 1.26\n\nrequire example.test/hour v1.0.0\n\nreplace example.test/hour => ./hour\n")},
		"clock.sum":    {},
		"clock.go.txt": {Data: []byte("package main\n\nimport \"example.test/hour\"\n\nfunc main() { println(hour.Now) }\n")},
		"hour.mod":     {Data: []byte("module example.test/hour\n\ngo 1.26\n")},
		"hour.go.txt":  {Data: []byte("package hour\n\nconst Now = \"noon\"\n")},
	}}
	dir, err := s.Make(t.Context(), m.Name, "k1", m.Fill)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ProgramPath(dir, "clock")).CombinedOutput()
	if err != nil || string(out) != "noon\n" {
		t.Errorf("the program says %q, error %v", out, err)
	}
}

// publishTo serves a version of the greeter as a module proxy does, from a folder.
func publishTo(t *testing.T, main string) (proxy string) {
	t.Helper()
	proxy = t.TempDir()
	at := filepath.Join(proxy, "example.test", "greeter", "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	const mod = "module example.test/greeter\n\ngo 1.26\n"
	f, err := os.Create(filepath.Join(at, "v1.2.3.zip"))
	if err != nil {
		t.Fatal(err)
	}
	packed := zip.NewWriter(f)
	for name, text := range map[string]string{"go.mod": mod, "cmd/main.go": main} {
		w, err := packed.Create("example.test/greeter@v1.2.3/" + name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(packed.Close(), f.Close(), os.WriteFile(filepath.Join(at, "v1.2.3.mod"), []byte(mod), 0o600),
		os.WriteFile(filepath.Join(at, "v1.2.3.info"), []byte(`{"Version":"v1.2.3"}`), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return proxy
}

// TestModuleIsChanged: the program is built from a copy that has the text of our own, the
// module cache keeps the original, and where upstream has moved the place nothing is built.
func TestModuleIsChanged(t *testing.T) {
	const main = "package main\n\nfunc main() {\n\tname := \"nobody\"\n\tprintln(\"hello\", name)\n}\n"
	t.Setenv("GOPROXY", "file://"+publishTo(t, main))
	t.Setenv("GONOSUMDB", "example.test")
	cache := t.TempDir()
	t.Setenv("GOMODCACHE", cache)
	t.Setenv("GOFLAGS", "-modcacherw")
	s := newStore(t)
	m := Module{
		Name: "greeter", Path: "example.test/greeter", Version: "v1.2.3", Rename: map[string]string{"cmd": "greeter"},
		Inserts: []Insert{{File: "cmd/main.go", Before: `println("hello", name)`, Text: "\tname = \"you\""}},
		Pins: fstest.MapFS{
			"greeter.mod": {Data: []byte("module example.test/build\n\ngo 1.26\n\nrequire example.test/greeter v1.2.3\n\ntool example.test/greeter/cmd\n")},
			"greeter.sum": {},
		},
	}
	dir, err := s.Make(t.Context(), m.Name, "k1", m.Fill)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ProgramPath(dir, "greeter")).CombinedOutput()
	if err != nil || string(out) != "hello you\n" {
		t.Errorf("the program says %q, error %v", out, err)
	}
	if is, err := os.ReadFile(filepath.Join(cache, "example.test", "greeter@v1.2.3", "cmd", "main.go")); err != nil || string(is) != main {
		t.Errorf("the module cache has %q, error %v, want what upstream published", is, err)
	}
	for place, times := range map[string]string{"println(who)": "0", "name": "2"} {
		m.Inserts[0].Before = place
		_, err := s.Make(t.Context(), m.Name, "k-"+times, m.Fill)
		if want := fmt.Sprintf("change example.test/greeter v1.2.3: cmd/main.go has %q %s times, want once: upstream has changed what this build changes", place, times); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// helpModule builds the greeter with the go command that is first in PATH.
func helpModule(ctx context.Context, args []string) error {
	s, err := store.Open(args[0])
	if err != nil {
		return err
	}
	m := greeter(args[1])
	_, err = s.Make(ctx, m.Name, "k1", m.Fill)
	return err
}

// TestModuleTakesUpAKilledBuild kills a build while its compiler runs. The
// compiler of this build is a script that never ends.
func TestModuleTakesUpAKilledBuild(t *testing.T) {
	s, source, bin := newStore(t), publishGreeter(t), t.TempDir()
	pidFile := filepath.Join(bin, "pid")
	script := "#!/bin/sh\nmkdir \"${GOTMPDIR:-$TMPDIR}/go-build1\"\necho half > \"$PWD/../bin/cmd\"\necho $$ > " + pidFile + ".new\nmv " + pidFile + ".new " + pidFile + "\nexec sleep 1000\n"
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	half := imagestest.Helper(t, "module", s.Root(), source)
	tmp := t.TempDir()
	half.Env = append(half.Env, "TMPDIR="+tmp, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	if err := half.Start(); err != nil {
		t.Fatal(err)
	}
	var compiler int
	imagestest.Wait(t, "the compiler runs", func(context.Context) error {
		data, err := os.ReadFile(pidFile)
		if err != nil {
			return err
		}
		compiler, err = strconv.Atoi(strings.TrimSpace(string(data)))
		return err
	})
	imagestest.Kill(t, half)
	imagestest.Wait(t, "the compiler is gone with the build", func(context.Context) error { return dead(compiler) })

	m := greeter(source)
	if dir, there, err := s.Path(m.Name, "k1"); there || err != nil {
		t.Errorf("%s is there, error %v, though its build was killed", dir, err)
	}
	dir, err := s.Make(t.Context(), m.Name, "k1", m.Fill)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), ProgramPath(dir, "greeter")).CombinedOutput()
	if err != nil || string(out) != "hello from v1.2.3\n" {
		t.Errorf("the program says %q, error %v, want it whole", out, err)
	}
	entries, err := os.ReadDir(s.Root() + "/builds")
	if err != nil || len(entries) != 1 {
		t.Errorf("store has %v, error %v, want the artifact alone", entries, err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("the compiler has left %v, error %v, in the folder for temporary files", left, err)
	}
}

// dead returns an error while a process runs; one that only waits to be reaped
// by the machine's first process does not run.
func dead(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	if strings.HasPrefix(state, "Z") {
		return nil
	}
	return fmt.Errorf("process %d is in state %.1s", pid, state)
}
