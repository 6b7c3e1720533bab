package images

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// upstream holds, for each module, the go.mod that requires it, names the
// programs to build ("tool" lines) and pins every dependency, the go.sum with
// the checksums, and, where upstream's main does not fit, a main of our own.
//
//go:embed upstream
var upstream embed.FS

// module builds programs from one upstream Go module.
type module struct {
	name, path, version string
	cgo                 bool
	tags                string
	ldflags             []string
	// packages are what to build: all "tool" lines of go.mod where it is empty.
	packages []string
	// main is a file of pins with a main package of our own, which is built
	// instead.
	main string
	// rename says what a program is called where Go would name it after the
	// last part of its import path.
	rename map[string]string
	// typical is how long a build took on two cores with nothing cached.
	typical time.Duration
	// pins is the folder with the module's files; upstream where it is nil.
	pins fs.FS
}

// build is one run of a module's build.
type build struct {
	module
	// src is the folder of the generated module, dir that of the artifact.
	src, dir string
	// os is the system that programs are built for; Linux where it is empty.
	os  string
	log io.Writer
}

func (m module) files() (mod, sum, main []byte, err error) {
	pins := m.pins
	if pins == nil {
		if pins, err = fs.Sub(upstream, "upstream"); err != nil {
			return nil, nil, nil, err
		}
	}
	mod, err = fs.ReadFile(pins, m.name+".mod")
	if err != nil {
		return nil, nil, nil, err
	}
	sum, err = fs.ReadFile(pins, m.name+".sum")
	if err == nil && m.main != "" {
		main, err = fs.ReadFile(pins, m.main)
	}
	return mod, sum, main, err
}

// key hashes all that decides what comes out. The number in its first text is
// raised when this code changes what it makes of them.
func (m module) key() (string, error) {
	mod, sum, main, err := m.files()
	if err != nil {
		return "", fmt.Errorf("read pins of %s: %w", m.name, err)
	}
	texts := []string{
		"module 2", runtime.Version(), runtime.GOARCH, m.name, m.path,
		fmt.Sprint(m.cgo), m.tags, strings.Join(m.ldflags, "\n"), strings.Join(m.packages, "\n"),
		string(mod), string(sum), string(main),
	}
	for _, from := range slices.Sorted(maps.Keys(m.rename)) {
		texts = append(texts, from, m.rename[from])
	}
	return store.Key(texts...), nil
}

// sourceFolder is where the source of what is being made lies in an artifact's folder,
// so that a build that is killed leaves nothing elsewhere.
const sourceFolder = "source"

// inModule writes the generated module to a folder of the artifact, does
// something with it, and removes it.
func (m module) inModule(dir string, log io.Writer, do func(build) error) (err error) {
	mod, sum, main, err := m.files()
	if err != nil {
		return err
	}
	src := filepath.Join(dir, sourceFolder)
	if err := os.Mkdir(src, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	files := map[string][]byte{"go.mod": mod, "go.sum": sum}
	if main != nil {
		files["main.go"] = main
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(src, name), data, 0o644); err != nil {
			return err
		}
	}
	return do(build{module: m, src: src, dir: dir, log: log})
}

// fill builds the programs into dir/bin. What the Go build cache holds already,
// also from a build that was killed, is not compiled again.
func (m module) fill(ctx context.Context, dir string, log *os.File) error {
	return m.inModule(dir, log, func(b build) error {
		bin := filepath.Join(dir, "bin")
		if err := os.Mkdir(bin, 0o755); err != nil {
			return err
		}
		output, packages := bin+"/", m.packages
		switch {
		case m.main != "":
			output, packages = filepath.Join(bin, m.name), []string{"."}
		case packages == nil:
			packages = []string{"tool"}
		}
		// -s -w: without symbol tables a program is a third smaller, and every
		// byte is copied into each node.
		ldflags := strings.Join(append([]string{"-s", "-w"}, m.ldflags...), " ")
		if err := b.build(ctx, ldflags, output, packages...); err != nil {
			return err
		}
		for from, to := range m.rename {
			if err := os.Rename(filepath.Join(bin, from), filepath.Join(bin, to)); err != nil {
				return err
			}
		}
		return nil
	})
}

// build compiles packages reproducibly: neither the folder nor the time nor a
// version control system leaves a trace in the programs.
func (b build) build(ctx context.Context, ldflags, output string, packages ...string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", b.tags, "-ldflags", ldflags, "-o", output}
	return b.run(ctx, "go", append(args, packages...)...)
}

// command returns a program that runs in the generated module. What a build that
// is killed leaves of temporary files goes with that module.
func (b build) command(ctx context.Context, cgo bool, name string, args ...string) (*exec.Cmd, error) {
	// The go command takes no package from a folder whose name starts like this.
	tmp := filepath.Join(b.src, "_tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, err
	}
	env, err := goEnviron(b.os, cgo, tmp)
	if err != nil {
		return nil, err
	}
	cmd := command(ctx, name, args...)
	cmd.Dir, cmd.Env = b.src, env
	return cmd, nil
}

// run runs a program in the generated module, its output in the log.
func (b build) run(ctx context.Context, name string, args ...string) error {
	cmd, err := b.command(ctx, b.cgo, name, args...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if _, err := fmt.Fprintf(b.log, "+ %s %s\n", name, strings.Join(args, " ")); err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w", name, args[0], err)
	}
	return nil
}

// moduleDir returns where the Go module cache keeps a module; it is fetched,
// and checked against go.sum, where it is not there.
func (b build) moduleDir(ctx context.Context, path string) (string, error) {
	cmd, err := b.command(ctx, false, "go", "mod", "download", "-json", path)
	if err != nil {
		return "", err
	}
	cmd.Stderr = b.log
	out, err := cmd.Output()
	// Where the go command fails it says why in its answer, too.
	var found struct{ Dir, Error string }
	switch jsonErr := json.Unmarshal(out, &found); {
	case found.Error != "":
		return "", fmt.Errorf("fetch module %s: %s", path, found.Error)
	case err != nil || jsonErr != nil:
		return "", fmt.Errorf("fetch module %s: %w", path, errors.Join(err, jsonErr))
	}
	return found.Dir, nil
}
