package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const controllerManagerModule = "github.com/spiffe/spire-controller-manager"

// moduleNamed returns the module of that name.
func moduleNamed(name string) (module, error) {
	for _, m := range modules() {
		if m.name == name {
			return m, nil
		}
	}
	return module{}, fmt.Errorf("the catalogue has no module %q", name)
}

// extract is an artifact that is made of files of an upstream module, not of
// its programs.
type extract struct {
	name, title string
	// from names the module that has the files.
	from string
	// forNode is set where only the node image needs it.
	forNode bool
	make    func(ctx context.Context, b build) error
}

func extracts() []extract {
	return []extract{
		{name: "pause", title: "pause " + pauseVersion, from: "kubernetes", forNode: true, make: compilePause},
		{name: "metallb-chart", title: "chart of MetalLB " + metallbVersion, from: "metallb", make: copyMetalLBChart},
		{name: "spire-crds", title: "CRDs of SPIRE Controller Manager " + controllerManagerVersion, from: "spire-controller-manager", make: generateCRDs},
		{name: "kind-files", title: "kind's node files", from: "kind", forNode: true, make: copyKindFiles},
	}
}

func (e extract) module() (module, error) {
	if e.from == "kind" { // nothing is built from it
		return module{name: "kind", path: "sigs.k8s.io/kind"}, nil
	}
	return moduleNamed(e.from)
}

func (e extract) key() (string, error) {
	m, err := e.module()
	if err != nil {
		return "", err
	}
	key, err := m.key()
	return hash("extract 1", e.name, key), err
}

func (e extract) fill(ctx context.Context, dir string, log *os.File) error {
	m, err := e.module()
	if err != nil {
		return err
	}
	return m.inModule(dir, log, func(b build) error { return e.make(ctx, b) })
}

// compilePause compiles the program that holds a pod's namespaces, the only one
// that Kubernetes writes in C.
func compilePause(ctx context.Context, b build) error {
	source, err := b.moduleDir(ctx, b.path)
	if err != nil {
		return err
	}
	bin := filepath.Join(b.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	return b.run(ctx, "gcc", "-Os", "-Wall", "-Werror", "-static", "-s", "-DVERSION=v"+pauseVersion,
		"-o", filepath.Join(bin, "pause"), filepath.Join(source, "build", "pause", "linux", "pause.c"))
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
