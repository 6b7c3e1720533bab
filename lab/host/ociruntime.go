package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// runtimeName is what Docker calls the runtime that does without some
// capabilities.
const runtimeName = "fedlab"

// The runtime is a small program of its own and not fedlab under another name:
// Docker starts it several times per container, where this one costs some
// milliseconds, and what a person's Docker runs should not change with each
// fedlab. It is embedded as source, because an installed fedlab has no source
// tree, and built on the machine, because no binary is kept in the repository.
//
//go:embed ociruntime/main.go
var runtimeSource []byte

// ociRuntime builds the runtime and registers it as Docker's default.
type ociRuntime struct {
	// drop are the capabilities it takes out, separated by commas.
	drop string
}

func runtimeWithout(capabilities []string) ociRuntime {
	return ociRuntime{drop: strings.Join(capabilities, ",")}
}

func (r ociRuntime) String() string {
	return fmt.Sprintf("make %s, built here where it is not there yet, Docker's default OCI runtime in %s; it does without %s",
		r.path(), daemonConfig, r.drop)
}

// path names the program after all that it is made from: one that is there is
// the right one, and a newer one does not replace what containers still use.
func (r ociRuntime) path() string {
	digest := sha256.Sum256(append([]byte(r.drop+"\n"), runtimeSource...))
	return fmt.Sprintf("%s/oci-runtime-%x", libDir, digest[:6])
}

func (r ociRuntime) Apply(ctx context.Context, sys System) error {
	built, err := r.built(sys.Files)
	if err != nil {
		return err
	}
	if !built {
		if err := r.build(ctx, sys); err != nil {
			return err
		}
	}
	config, err := readContent(sys.Files, daemonConfig)
	if err != nil {
		return err
	}
	next, err := r.register([]byte(config.text))
	if err != nil {
		return err
	}
	if err := validate(ctx, sys, next); err != nil {
		return err
	}
	if err := noteConfig(sys.Files, config, string(next)); err != nil {
		return err
	}
	return sys.Files.WriteFile(daemonConfig, next, 0o644)
}

// sumSuffix ends the name of the file with a program's SHA-256 sum.
const sumSuffix = ".sha256"

// built reports whether the program is there, whole: a power cut may leave any
// part of a file.
func (r ociRuntime) built(files Files) (bool, error) {
	sum, there, err := read(files, r.path()+sumSuffix)
	if err != nil || !there {
		return false, err
	}
	program, err := files.ReadFile(r.path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && sum == sumOf(program), err
}

func sumOf(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// build leaves the source next to the program, for whoever wonders what their
// Docker runs.
func (r ociRuntime) build(ctx context.Context, sys System) error {
	path := r.path()
	if err := noteRuntime(sys.Files, path); err != nil {
		return err
	}
	if err := sys.Files.WriteFile(path+".go", runtimeSource, 0o644); err != nil {
		return err
	}
	if _, err := sys.Programs.Run(ctx, r.compile(path+".go", path+".partial")); err != nil {
		return err
	}
	program, err := sys.Files.ReadFile(path + ".partial")
	if err != nil {
		return err
	}
	if len(program) == 0 {
		return fmt.Errorf("the compiler left %s empty", path+".partial")
	}
	if err := sys.Files.WriteFile(path+sumSuffix, []byte(sumOf(program)+"\n"), 0o644); err != nil {
		return err
	}
	return sys.Files.Rename(path+".partial", path)
}

func (r ociRuntime) compile(source, program string) Command {
	return goBuild("-X main.missing="+r.drop, source, program)
}

// goBuild needs the standard library only, whatever module or workspace this
// program is called in.
func goBuild(link, source, program string) Command {
	return Command{
		Program: "go",
		Args:    []string{"build", "-trimpath", strings.TrimSpace("-ldflags=-s -w " + link), "-o", program, source},
		Env:     []string{"CGO_ENABLED=0", "GO111MODULE=off", "GOFLAGS=", "GOTOOLCHAIN=local", "GOENV=off", "GOOS=", "GOARCH=", "GOEXPERIMENT="},
	}
}

// validate lets dockerd read a file before the daemon has to, where it can do
// so (from version 23 on).
func validate(ctx context.Context, sys System, config []byte) (err error) {
	if _, err := sys.Programs.Look("dockerd"); err != nil {
		return nil // it is installed later, and reads the file when it starts
	}
	help, err := sys.Programs.Run(ctx, Command{Program: "dockerd", Args: []string{"--help"}})
	if err != nil || !strings.Contains(string(help), "--validate") {
		return err
	}
	const candidate = daemonConfig + ".fedlab"
	defer func() { err = errors.Join(err, discard(sys.Files, candidate)) }()
	if err := sys.Files.WriteFile(candidate, config, 0o644); err != nil {
		return err
	}
	if _, err := sys.Programs.Run(ctx, Command{Program: "dockerd", Args: []string{"--validate", "--config-file", candidate}}); err != nil {
		return fmt.Errorf("dockerd refuses what would become %s: %w", daemonConfig, err)
	}
	return nil
}

// register returns daemon.json with the runtime in it and all else as it was.
// The same bytes come back when nothing has to change. A default runtime that
// somebody chose is not taken away.
func (r ociRuntime) register(config []byte) ([]byte, error) {
	settings, err := readSettings(config)
	if err != nil {
		return nil, err
	}
	switch settings.chosen {
	case runtimeName:
		if settings.path == r.path() {
			return config, nil
		}
	case "", "runc", "io.containerd.runc.v2":
	default:
		return nil, fmt.Errorf("%s makes %s the default runtime", daemonConfig, settings.chosen)
	}
	if settings.runtimes[runtimeName], err = encoded(map[string]string{"path": r.path()}); err != nil {
		return nil, err
	}
	if settings.entries["runtimes"], err = encoded(settings.runtimes); err != nil {
		return nil, err
	}
	if settings.entries["default-runtime"], err = encoded(runtimeName); err != nil {
		return nil, err
	}
	return encoded(settings.entries)
}

// encoded is JSON as a person would lay it out.
func encoded(value any) (json.RawMessage, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(value)
	return out.Bytes(), err
}
