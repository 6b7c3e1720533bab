// Package build makes what images consist of: programs of Go modules, of fedlab's own
// source and of a person's folders, files of upstream modules, and files of Debian packages. Each is a
// recipe with a key, which is the hash of all that decides what comes out.
//
// It refuses to know which of them a lab needs, and where they are kept.
package build

import (
	"context"
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

// Module builds programs from one upstream Go module.
type Module struct {
	Name, Path, Version string
	Cgo                 bool
	Tags                string
	LDFlags             []string
	// Packages are what to build: all "tool" lines of go.mod where it is empty.
	Packages []string
	// Main is a file of Pins with a main package of our own, which is built
	// instead.
	Main string
	// Rename says what a program is called where Go would name it after the
	// last part of its import path.
	Rename map[string]string
	// Typical is how long a build took on two cores with nothing cached.
	Typical time.Duration
	// Pins has NAME.mod, which requires the module, names the programs to build
	// ("tool" lines) and pins every dependency, and NAME.sum with the checksums.
	Pins fs.FS
}

// Job is one run of a build.
type Job struct {
	Module
	// src is the folder of the generated module, dir that of the artifact.
	src, dir string
	// os is the system that programs are built for; Linux where it is empty.
	os  string
	log io.Writer
}

// Files returns what Pins has of the module; main is nil where Main names none.
func (m Module) Files() (mod, sum, main []byte, err error) {
	mod, err = fs.ReadFile(m.Pins, m.Name+".mod")
	if err != nil {
		return nil, nil, nil, err
	}
	sum, err = fs.ReadFile(m.Pins, m.Name+".sum")
	if err == nil && m.Main != "" {
		main, err = fs.ReadFile(m.Pins, m.Main)
	}
	return mod, sum, main, err
}

// Key hashes all that decides what comes out. The number in its first text is
// raised when this code changes what it makes of them.
func (m Module) Key() (string, error) {
	mod, sum, main, err := m.Files()
	if err != nil {
		return "", fmt.Errorf("read pins of %s: %w", m.Name, err)
	}
	texts := []string{
		"module 2", runtime.Version(), runtime.GOARCH, m.Name, m.Path,
		fmt.Sprint(m.Cgo), m.Tags, strings.Join(m.LDFlags, "\n"), strings.Join(m.Packages, "\n"),
		string(mod), string(sum), string(main),
	}
	for _, from := range slices.Sorted(maps.Keys(m.Rename)) {
		texts = append(texts, from, m.Rename[from])
	}
	return store.Key(texts...), nil
}

// sourceFolder is where the source of what is being made lies in an artifact's folder,
// so that a build that is killed leaves nothing elsewhere.
const sourceFolder = "source"

// inModule writes the generated module to a folder of the artifact, does
// something with it, and removes it.
func (m Module) inModule(dir string, log io.Writer, do func(Job) error) (err error) {
	mod, sum, main, err := m.Files()
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
	return do(Job{Module: m, src: src, dir: dir, log: log})
}

// Fill builds the programs into dir/bin. What the Go build cache holds already,
// also from a build that was killed, is not compiled again.
func (m Module) Fill(ctx context.Context, dir string, log *os.File) error {
	return m.inModule(dir, log, func(b Job) error {
		bin := filepath.Join(dir, "bin")
		if err := os.Mkdir(bin, 0o755); err != nil {
			return err
		}
		output, packages := bin+"/", m.Packages
		switch {
		case m.Main != "":
			output, packages = filepath.Join(bin, m.Name), []string{"."}
		case packages == nil:
			packages = []string{"tool"}
		}
		// -s -w: without symbol tables a program is a third smaller, and every
		// byte is copied into each node.
		ldflags := strings.Join(append([]string{"-s", "-w"}, m.LDFlags...), " ")
		if err := b.build(ctx, ldflags, output, packages...); err != nil {
			return err
		}
		for from, to := range m.Rename {
			if err := os.Rename(filepath.Join(bin, from), filepath.Join(bin, to)); err != nil {
				return err
			}
		}
		return nil
	})
}

// build compiles packages reproducibly: neither the folder nor the time nor a
// version control system leaves a trace in the programs.
func (b Job) build(ctx context.Context, ldflags, output string, packages ...string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", b.Tags, "-ldflags", ldflags, "-o", output}
	return b.run(ctx, "go", append(args, packages...)...)
}

// command returns a program that runs in the generated module. What a build that
// is killed leaves of temporary files goes with that module.
func (b Job) command(ctx context.Context, cgo bool, name string, args ...string) (*exec.Cmd, error) {
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
func (b Job) run(ctx context.Context, name string, args ...string) error {
	cmd, err := b.command(ctx, b.Cgo, name, args...)
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
func (b Job) moduleDir(ctx context.Context, path string) (string, error) {
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
