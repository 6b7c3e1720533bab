package images

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/mod/modfile"

	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// demo is a demo program, built from fedlab's own source.
type demo struct {
	name string
	code fs.FS
	// on is what its image holds below the program; nil is nothing.
	on *foundation
}

// reference is what the image is called in a cluster. The tag changes with the
// source, so that a changed program is a changed Deployment.
func (d demo) reference(key string) string { return "fedlab.local/" + d.name + ":" + key }

// key hashes the source that the program is built from: its folder, those of
// fedlab's packages that it imports, and the pins. Tests do not count.
func (d demo) key() (string, error) {
	key, err := d.hash()
	if err != nil {
		return "", fmt.Errorf("read source of %s: %w", d.name, err)
	}
	return key, nil
}

func (d demo) hash() (string, error) {
	files, err := d.files()
	if err != nil {
		return "", err
	}
	texts := []string{"demo 2", runtime.Version(), runtime.GOARCH, d.name}
	for _, name := range files {
		data, err := fs.ReadFile(d.code, name)
		if err != nil {
			return "", err
		}
		texts = append(texts, name, string(data))
	}
	return store.Key(texts...), nil
}

// files lists what the program is built from, sorted.
func (d demo) files() ([]string, error) {
	mod, err := fs.ReadFile(d.code, "go.mod")
	if err != nil {
		return nil, err
	}
	files := []string{"go.mod", "go.sum"}
	folders := []string{path.Join("apps", d.name)}
	for i := 0; i < len(folders); i++ { // grows with what is imported
		found, err := sourceFiles(d.code, folders[i])
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			imports, err := ownImports(d.code, name, modfile.ModulePath(mod))
			if err != nil {
				return nil, err
			}
			for _, folder := range imports {
				if !slices.Contains(folders, folder) {
					folders = append(folders, folder)
				}
			}
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// sourceFiles lists the files of a folder, those in its folders too, since a
// program may embed them.
func sourceFiles(code fs.FS, folder string) (files []string, err error) {
	err = fs.WalkDir(code, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(name, "_test.go") {
			return err
		}
		files = append(files, name)
		return nil
	})
	return files, err
}

// ownImports lists the folders of the packages of the same module that a file
// imports.
func ownImports(code fs.FS, name, module string) (folders []string, err error) {
	if path.Ext(name) != ".go" {
		return nil, nil
	}
	data, err := fs.ReadFile(code, name)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, data, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	for _, i := range file.Imports {
		imported, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		if folder, ok := strings.CutPrefix(imported, module+"/"); ok {
			folders = append(folders, folder)
		}
	}
	return folders, nil
}

func (d demo) fill(ctx context.Context, dir string, log *os.File) (err error) {
	src, bin := filepath.Join(dir, sourceFolder), filepath.Join(dir, "bin")
	if err := os.CopyFS(src, d.code); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	b := build{src: src, dir: dir, log: log}
	return b.build(ctx, "-s -w", filepath.Join(bin, d.name), "./apps/"+d.name)
}

// image makes the program's image from its artifact, on top of another one.
func (d demo) image(artifact string, below v1.Image) (v1.Image, error) {
	return layer.Onto(below, programPath(artifact, d.name), "/"+d.name, nil)
}
