package images

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// upstream holds, for each module, the go.mod that requires it, names the
// programs to build ("tool" lines) and pins every dependency, the go.sum with
// the checksums, and, where upstream's main does not fit, a main of our own.
//
//go:embed upstream
var upstream embed.FS

// module builds programs from one upstream Go module.
type module struct {
	name, path, version string
	cgo                 bool
	tags                string
	ldflags             []string
	// packages are what to build: all "tool" lines of go.mod where it is empty.
	packages []string
	// main is a file below upstream/ with a main package of our own, which is
	// built instead.
	main string
	// rename says what a program is called where Go would name it after the
	// last part of its import path.
	rename map[string]string
	// typical is how long a build took on two cores with nothing cached.
	typical time.Duration
}

// build is one run of a module's build.
type build struct {
	module
	// src is the folder of the generated module, dir that of the artifact.
	src, dir string
	log      io.Writer
}

func (m module) files() (mod, sum, main []byte, err error) {
	mod, err = upstream.ReadFile("upstream/" + m.name + ".mod")
	if err != nil {
		return nil, nil, nil, err
	}
	sum, err = upstream.ReadFile("upstream/" + m.name + ".sum")
	if err == nil && m.main != "" {
		main, err = upstream.ReadFile("upstream/" + m.main)
	}
	return mod, sum, main, err
}

// key hashes all that decides what comes out.
func (m module) key() (string, error) {
	mod, sum, main, err := m.files()
	if err != nil {
		return "", fmt.Errorf("read pins of %s: %w", m.name, err)
	}
	return hash("module 1", runtime.Version(), runtime.GOARCH, m.tags, strings.Join(m.ldflags, "\n"), string(mod), string(sum), string(main)), nil
}

// hash returns a short hash of texts.
func hash(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d\n%s", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// inModule writes the generated module to a folder, does something with it, and
// removes it.
func (m module) inModule(dir string, log io.Writer, do func(build) error) (err error) {
	src, err := os.MkdirTemp("", "fedlab-"+m.name+"-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	mod, sum, main, err := m.files()
	if err != nil {
		return err
	}
	files := map[string][]byte{"go.mod": mod, "go.sum": sum}
	if main != nil {
		files["main.go"] = main
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(src, name), data, 0o644); err != nil {
			return err
		}
	}
	return do(build{module: m, src: src, dir: dir, log: log})
}

// fill builds the programs into dir/bin. What the Go build cache holds already,
// also from a build that was killed, is not compiled again.
func (m module) fill(ctx context.Context, dir string, log *os.File) error {
	return m.inModule(dir, log, func(b build) error {
		bin := filepath.Join(dir, "bin")
		if err := os.Mkdir(bin, 0o755); err != nil {
			return err
		}
		output, packages := bin+"/", m.packages
		switch {
		case m.main != "":
			output, packages = filepath.Join(bin, m.name), []string{"."}
		case packages == nil:
			packages = []string{"tool"}
		}
		// -s -w: without symbol tables a program is a third smaller, and every
		// byte is copied into each node.
		ldflags := strings.Join(append([]string{"-s", "-w"}, m.ldflags...), " ")
		if err := b.build(ctx, ldflags, output, packages...); err != nil {
			return err
		}
		for from, to := range m.rename {
			if err := os.Rename(filepath.Join(bin, from), filepath.Join(bin, to)); err != nil {
				return err
			}
		}
		return nil
	})
}

// build compiles packages reproducibly: neither the folder nor the time nor a
// version control system leaves a trace in the programs.
func (b build) build(ctx context.Context, ldflags, output string, packages ...string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", b.tags, "-ldflags", ldflags, "-o", output}
	return b.run(ctx, "go", append(args, packages...)...)
}

// run runs a program in the generated module, its output in the log.
func (b build) run(ctx context.Context, name string, args ...string) error {
	cmd := command(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.src, b.log, b.log
	cmd.Env = append(cmd.Env, goEnviron(b.cgo)...)
	fmt.Fprintf(b.log, "+ %s %s\n", name, strings.Join(args, " "))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w", name, args[0], err)
	}
	return nil
}

// command returns a command that is asked to stop, with all that it started,
// when ctx ends, and killed when it does not follow.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = os.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// goEnviron keeps a person's Go settings from changing what is built.
func goEnviron(cgo bool) []string {
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	return []string{"CGO_ENABLED=" + enabled, "GOFLAGS=-mod=readonly", "GOWORK=off", "GOTOOLCHAIN=local", "GOOS=linux"}
}

// moduleDir returns where the Go module cache keeps a module; it is fetched,
// and checked against go.sum, where it is not there.
func (b build) moduleDir(ctx context.Context, path string) (string, error) {
	cmd := command(ctx, "go", "mod", "download", "-json", path)
	cmd.Dir, cmd.Stderr = b.src, b.log
	cmd.Env = append(cmd.Env, goEnviron(false)...)
	out, err := cmd.Output()
	var found struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &found); err != nil || jsonErr != nil || found.Dir == "" {
		return "", fmt.Errorf("fetch module %s: %w", path, errors.Join(err, jsonErr, errors.New(found.Error)))
	}
	return found.Dir, nil
}
