package build

import (
	"context"
	"os"
	"path/filepath"
	"runtime"

	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Extract is made of files of an upstream module, not of its programs.
type Extract struct {
	Name string
	// From is the module that has the files.
	From Module
	Make func(context.Context, Job) error
}

// Key is made of that of the module, since its pins decide what the files are.
func (e Extract) Key() (string, error) {
	key, err := e.From.Key()
	return store.Key("extract 2", e.Name, key), err
}

// Fill puts the files into a folder.
func (e Extract) Fill(ctx context.Context, dir string, log *os.File) error {
	return e.From.inModule(dir, log, func(b Job) error { return e.Make(ctx, b) })
}

// Copy takes a folder out of the module, and calls it name.
func Copy(name, folder string) func(context.Context, Job) error {
	return func(ctx context.Context, b Job) error {
		dir, err := b.moduleDir(ctx, b.Path)
		if err != nil {
			return err
		}
		return os.CopyFS(filepath.Join(b.dir, name), os.DirFS(filepath.Join(dir, filepath.FromSlash(folder))))
	}
}

// Pause compiles the program that holds a pod's namespaces, the only one that
// Kubernetes writes in C.
func Pause(version string) func(context.Context, Job) error {
	return func(ctx context.Context, b Job) error {
		kubernetes, err := b.moduleDir(ctx, b.Path)
		if err != nil {
			return err
		}
		bin := filepath.Join(b.dir, "bin")
		if err := os.Mkdir(bin, 0o755); err != nil {
			return err
		}
		return b.run(ctx, "gcc", "-Os", "-Wall", "-Werror", "-static", "-s", "-DVERSION=v"+version,
			"-o", filepath.Join(bin, "pause"), filepath.Join(kubernetes, "build", "pause", "linux", "pause.c"))
	}
}

// Definitions makes the CustomResourceDefinitions of a Go package of the module, with
// the generator that the module file names.
func Definitions(pkg string) func(context.Context, Job) error {
	return func(ctx context.Context, b Job) error {
		generator := filepath.Join(b.src, "controller-gen")
		b.os = runtime.GOOS // it runs here
		if err := b.build(ctx, "", generator, "sigs.k8s.io/controller-tools/cmd/controller-gen"); err != nil {
			return err
		}
		return b.run(ctx, generator, "crd", "paths="+b.Path+"/"+pkg, "output:crd:dir="+filepath.Join(b.dir, "crds"))
	}
}
