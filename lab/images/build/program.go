package build

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

	"golang.org/x/mod/modfile"

	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Program is one of fedlab's own programs, built from the folder below apps of that
// name.
type Program struct {
	Name string
	// Code is fedlab's source.
	Code fs.FS
}

// Key hashes the source that the program is built from: its folder, those of
// fedlab's packages that it imports, and the pins. Tests do not count.
func (p Program) Key() (string, error) {
	key, err := p.hash()
	if err != nil {
		return "", fmt.Errorf("read source of %s: %w", p.Name, err)
	}
	return key, nil
}

func (p Program) hash() (string, error) {
	files, err := p.files()
	if err != nil {
		return "", err
	}
	texts := []string{"demo 2", runtime.Version(), runtime.GOARCH, p.Name}
	for _, name := range files {
		data, err := fs.ReadFile(p.Code, name)
		if err != nil {
			return "", err
		}
		texts = append(texts, name, string(data))
	}
	return store.Key(texts...), nil
}

// files lists what the program is built from, sorted.
func (p Program) files() ([]string, error) {
	mod, err := fs.ReadFile(p.Code, "go.mod")
	if err != nil {
		return nil, err
	}
	files := []string{"go.mod", "go.sum"}
	folders := []string{path.Join("apps", p.Name)}
	for i := 0; i < len(folders); i++ { // grows with what is imported
		found, err := sourceFiles(p.Code, folders[i])
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			imports, err := ownImports(p.Code, name, modfile.ModulePath(mod))
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

// Fill compiles the program into dir/bin.
func (p Program) Fill(ctx context.Context, dir string, log *os.File) (err error) {
	src, bin := filepath.Join(dir, sourceFolder), filepath.Join(dir, "bin")
	if err := os.CopyFS(src, p.Code); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	b := Job{src: src, dir: dir, log: log}
	return b.build(ctx, "-s -w", filepath.Join(bin, p.Name), "./apps/"+p.Name)
}

// ProgramPath is where the folder of an artifact has a program.
func ProgramPath(artifact, program string) string { return filepath.Join(artifact, "bin", program) }
