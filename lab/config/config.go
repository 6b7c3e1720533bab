// Package config reads lab files: it refuses what is wrong with a message that
// shows the right form, writes out every default, and makes a topology of the
// rest.
//
// What a field takes is in one table (fields.go), what fields have to agree
// on in another (rules.go). Decoding, the JSON schema and the reference page
// docs/reference/lab-file.md are all made from these two.
//
// The package refuses to know the machine it runs on: whether a port is free is
// asked of a function that the caller brings.
package config

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// DefaultPreset is the lab that comes up when nobody names another.
const DefaultPreset = "quotes"

//go:embed presets/*.yaml
var presets embed.FS

// Presets returns the names of the lab files that fedlab brings along, sorted.
func Presets() []string {
	entries, err := presets.ReadDir("presets")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	return names
}

// Init returns the commented lab file to start from: the preset of that name.
// Its comments show each optional setting with its default.
func Init(preset string) ([]byte, error) {
	data, err := presets.ReadFile(path.Join("presets", preset+".yaml"))
	if err != nil {
		return nil, fmt.Errorf("there is no preset %q: %s", preset, choose(preset, Presets()))
	}
	return data, nil
}

// File is a lab file that was read without a problem.
type File struct {
	// Source is what messages call the file.
	Source string
	// Lab is what the file says, every default written out.
	Lab      Lab
	Topology topology.Topology
}

// Format is how lab files are written, for the apps that a workload may name.
type Format struct {
	apps apps
	// fields takes longer to make than a file to read: it compiles patterns.
	fields func() *object
}

// For returns the format of lab files whose workloads run these apps.
func For(all []topology.App) *Format {
	f := &Format{apps: all}
	f.fields = sync.OnceValue(func() *object { return labObject(f.apps) })
	return f
}

// Open reads the preset of that name or else the file at that path; a file that
// has the name of a preset is reached as "./name". The error wraps
// fs.ErrNotExist when there is neither and ErrFolder when it is a folder, and is
// of type Problems when the file is wrong.
func (f *Format) Open(nameOrPath string) (File, error) {
	if data, err := Init(nameOrPath); err == nil {
		return f.Read(data, nameOrPath)
	}
	data, err := readFile(nameOrPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return File{}, fmt.Errorf("open lab file: %w; it is no preset either: %s", err, choose(nameOrPath, Presets()))
	case err != nil:
		return File{}, fmt.Errorf("open lab file: %w", err)
	}
	return f.read(data, nameOrPath, filepath.Dir(nameOrPath), f.apps.rules())
}

// ErrFolder says that what should be a lab file is a folder.
var ErrFolder = errors.New("it is a folder, want a file")

// readFile reads one byte more than a lab file may have, so that Read sees that
// it is too large, and nothing can make it read forever.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		_ = f.Close() // there is nothing to lose
		return nil, fmt.Errorf("read %s: %w", name, ErrFolder)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		_ = f.Close() // read only: the read's error says more
		return nil, err
	}
	return data, f.Close()
}

// Read decodes, completes and validates a lab file (YAML or JSON). Its error is
// of type Problems and holds all that is wrong, in the order of the file. Source
// is what messages call the file. Paths in it are relative to the working folder; for
// Open, to the file's own.
func (f *Format) Read(data []byte, source string) (File, error) {
	return f.read(data, source, ".", f.apps.rules())
}

// read takes paths in the file as relative to a folder.
func (f *Format) read(data []byte, source, folder string, rules []rule) (File, error) {
	root, problems := parse(data)
	if problems != nil {
		return File{}, problems.from(source)
	}
	r := newReader()
	r.walk(root, nested(f.fields()), "")
	var lab Lab
	err := root.Decode(&lab)
	if err != nil {
		// The walk took out all that does not fit the types.
		return File{}, fmt.Errorf("decode %s: %w", source, err)
	}
	if lab, err = lab.within(folder); err != nil {
		return File{}, fmt.Errorf("read %s: %w", source, err)
	}
	lab = f.apps.complete(lab)
	check := checker{reader: r, apps: f.apps, lab: lab, relationships: lab.Spec.relationships()}
	check.trust = trustOf(check.relationships)
	for _, rule := range rules {
		rule.check(&check)
	}
	if len(r.problems) > 0 {
		return File{}, r.problems.from(source)
	}
	t, err := f.Topology(lab)
	if err != nil {
		return File{}, fmt.Errorf("convert %s: %w", source, err)
	}
	return File{Source: source, Lab: lab, Topology: t}, nil
}

// Load reads a lab file and returns what it asks for. See Read.
func (f *Format) Load(data []byte, source string) (topology.Topology, error) {
	file, err := f.Read(data, source)
	return file.Topology, err
}

// Marshal writes a lab as YAML. For JSON use encoding/json; Read takes both.
func Marshal(l Lab) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("write lab file: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("write lab file: %w", err)
	}
	return b.Bytes(), nil
}
