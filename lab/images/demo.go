package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// demo is a demo program, built from fedlab's own source.
type demo struct {
	name   string
	source fs.FS
}

// reference is what the image is called in a cluster. The tag changes with the
// source, so that a changed program is a changed Deployment.
func (d demo) reference(key string) string { return "fedlab.local/" + d.name + ":" + key }

// key hashes the source that the program is built from: its own folder, what
// the programs share, and the pins. Tests do not count.
func (d demo) key() (string, error) {
	texts := []string{"demo 1", runtime.Version(), runtime.GOARCH, d.name}
	add := func(name string) error {
		data, err := fs.ReadFile(d.source, name)
		texts = append(texts, name, string(data))
		return err
	}
	err := errors.Join(add("go.mod"), add("go.sum"))
	for _, root := range []string{path.Join("apps", d.name), "apps/internal"} {
		err = errors.Join(err, fs.WalkDir(d.source, root, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(name, "_test.go") {
				return err
			}
			return add(name)
		}))
	}
	if err != nil {
		return "", fmt.Errorf("read source of %s: %w", d.name, err)
	}
	return hash(texts...), nil
}

func (d demo) fill(ctx context.Context, dir string, log *os.File) (err error) {
	src, err := os.MkdirTemp("", "fedlab-"+d.name+"-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	if err := os.CopyFS(src, d.source); err != nil {
		return err
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	b := build{src: src, dir: dir, log: log}
	return b.build(ctx, "-s -w", filepath.Join(bin, d.name), "./apps/"+d.name)
}

// image makes the program's image from its artifact.
func (d demo) image(artifact string) (v1.Image, error) {
	return assemble(programPath(artifact, d.name), "/"+d.name, nil)
}
