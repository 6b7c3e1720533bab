// Package build makes what images consist of: programs of Go modules, of fedlab's own
// source and of a person's folders, files of upstream modules, and files of Debian packages. Each is a
// recipe with a key, which is the hash of all that decides what comes out.
//
// It refuses to know which of them a lab needs, and where they are kept.
package build

import (
	"cmp"
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
	// PinsOf is the NAME of those files where it is not Name: programs of one module
	// that are built apart have the same pins.
	PinsOf string
	// Extra are further files of the generated module: their paths, and what they are
	// called in Pins. A "replace" line of NAME.mod may lead to them.
	Extra map[string]string
	// Inserts are changes of the upstream module. It is built from a copy that has them.
	Inserts []Insert
}

// Insert puts text of our own into a file of an upstream module. The build fails where the
// file has the place not exactly once: upstream has moved it, and somebody has to look.
type Insert struct {
	File string
	// Before is the place: the text comes before the line that has this in it.
	Before string
	Text   string
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

// Pinned is the name of the files that pin the module.
func (m Module) Pinned() string { return cmp.Or(m.PinsOf, m.Name) }

// Files returns what Pins has of the module; main is nil where Main names none.
func (m Module) Files() (mod, sum, main []byte, err error) {
	mod, err = fs.ReadFile(m.Pins, m.Pinned()+".mod")
	if err != nil {
		return nil, nil, nil, err
	}
	sum, err = fs.ReadFile(m.Pins, m.Pinned()+".sum")
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
	for _, name := range slices.Sorted(maps.Keys(m.Extra)) {
		data, err := fs.ReadFile(m.Pins, m.Extra[name])
		if err != nil {
			return "", fmt.Errorf("read what %s is built with: %w", m.Name, err)
		}
		texts = append(texts, "extra", name, string(data))
	}
	for _, i := range m.Inserts {
		texts = append(texts, "insert", i.File, i.Before, i.Text)
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
	for name, from := range m.Extra {
		if files[name], err = fs.ReadFile(m.Pins, from); err != nil {
			return err
		}
	}
	for name, data := range files {
		file := filepath.Join(src, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			return err
		}
	}
	return do(Job{Module: m, src: src, dir: dir, log: log})
}

// changedFolder is where the changed copy of the upstream module lies in the generated one.
// The go command looks into no folder whose name starts like this for packages of that.
const changedFolder = "_changed"

// change has the programs built from a copy of the upstream module that has the inserts.
// The original is checked against the checksums as it is fetched.
func (b Job) change(ctx context.Context) error {
	upstream, err := b.moduleDir(ctx, b.Path+"@"+b.Version)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.src, changedFolder)
	if err := os.CopyFS(dir, os.DirFS(upstream)); err != nil {
		return err
	}
	for _, i := range b.Inserts {
		if err := i.apply(dir); err != nil {
			return fmt.Errorf("change %s %s: %w", b.Path, b.Version, err)
		}
	}
	return b.run(ctx, "go", "mod", "edit", "-replace="+b.Path+"=./"+changedFolder)
}

func (i Insert) apply(dir string) error {
	file := filepath.Join(dir, filepath.FromSlash(i.File))
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(data), i.Before); n != 1 {
		return fmt.Errorf("%s has %q %d times, want once: upstream has changed what this build changes", i.File, i.Before, n)
	}
	at := strings.LastIndex(string(data[:strings.Index(string(data), i.Before)]), "\n") + 1
	return os.WriteFile(file, slices.Insert(data, at, []byte(i.Text+"\n")...), 0o644)
}

// Fill builds the programs into dir/bin. What the Go build cache holds already,
// also from a build that was killed, is not compiled again.
func (m Module) Fill(ctx context.Context, dir string, log *os.File) error {
	return m.inModule(dir, log, func(b Job) error {
		bin := filepath.Join(dir, "bin")
		if err := os.Mkdir(bin, 0o755); err != nil {
			return err
		}
		if len(b.Inserts) > 0 {
			if err := b.change(ctx); err != nil {
				return err
			}
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
