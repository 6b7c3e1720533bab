package images

import (
	"context"
	"os"
	"path/filepath"
	"runtime"

	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// extract is an artifact that is made of files of an upstream module, not of
// its programs.
type extract struct {
	name, title string
	kind        Kind
	// from is the module that has the files.
	from module
	make func(ctx context.Context, b build) error
}

// key is that of the module, since its pins decide what the files are.
func (e extract) key() (string, error) {
	key, err := e.from.key()
	return store.Key("extract 2", e.name, key), err
}

func (e extract) fill(ctx context.Context, dir string, log *os.File) error {
	return e.from.inModule(dir, log, func(b build) error { return e.make(ctx, b) })
}

// compilePause compiles the program that holds a pod's namespaces, the only one
// that Kubernetes writes in C.
func compilePause(ctx context.Context, b build) error {
	kubernetes, err := b.moduleDir(ctx, b.path)
	if err != nil {
		return err
	}
	bin := filepath.Join(b.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	return b.run(ctx, "gcc", "-Os", "-Wall", "-Werror", "-static", "-s", "-DVERSION=v"+pauseVersion,
		"-o", filepath.Join(bin, "pause"), filepath.Join(kubernetes, "build", "pause", "linux", "pause.c"))
}

// copyMetalLBChart takes MetalLB's own chart out of its module.
func copyMetalLBChart(ctx context.Context, b build) error {
	dir, err := b.moduleDir(ctx, b.path)
	if err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(b.dir, "chart"), os.DirFS(filepath.Join(dir, "charts", "metallb")))
}

// generateCRDs makes the controller manager's CustomResourceDefinitions from
// its API package, with the generator that its module file names.
func generateCRDs(ctx context.Context, b build) error {
	generator := filepath.Join(b.src, "controller-gen")
	b.os = runtime.GOOS // it runs here
	if err := b.build(ctx, "", generator, "sigs.k8s.io/controller-tools/cmd/controller-gen"); err != nil {
		return err
	}
	return b.run(ctx, generator, "crd", "paths="+b.path+"/api/v1alpha1", "output:crd:dir="+filepath.Join(b.dir, "crds"))
}

// copyKindFiles takes the files that kind puts into its nodes out of its module.
func copyKindFiles(ctx context.Context, b build) error {
	dir, err := b.moduleDir(ctx, b.path)
	if err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(b.dir, "files"), os.DirFS(filepath.Join(dir, "images", "base", "files")))
}
