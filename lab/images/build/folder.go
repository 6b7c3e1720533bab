package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/fedlab-dev/fedlab/lab/plain"
)

// Folder compiles the Go main package of a folder into a file, as 'go build' does it
// there: the person's module, go.work, replace directives, settings and caches count.
// Its linker flags are ours: nobody debugs a program in a lab by its symbols, and without
// them it is linked in half the time. The program runs on nodes; one that is there and up
// to date is not linked again. Temporary files of the compilers lie in a folder next to
// it, in which a build that is killed leaves them to the next one.
func Folder(ctx context.Context, folder, program string) (err error) {
	files, err := os.ReadDir(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("folder %s is not there", folder)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s is a file, want the folder of a Go main package", folder)
	case err != nil:
		return err
	case !slices.ContainsFunc(files, func(f fs.DirEntry) bool {
		return filepath.Ext(f.Name()) == ".go" && !strings.HasSuffix(f.Name(), "_test.go")
	}):
		return fmt.Errorf("folder %s has no Go files", folder)
	}
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("build the program in %s: no Go compiler is in PATH: %w", folder, err)
	}
	tmp := program + ".tmp"
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	said := &beginning{}
	cmd := command(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, said, said
	cmd.Env = append(cmd.Env, "PWD="+folder, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOTMPDIR="+tmp)
	switch err := cmd.Run(); {
	case ctx.Err() != nil:
		return fmt.Errorf("build the program in %s: %w", folder, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("build the program in %s: go build: %w\n%s", folder, err, said)
	}
	is, err := executable(program)
	if err == nil && !is {
		err = fmt.Errorf("the Go package in %s is not main, and makes no program", folder)
	}
	return err
}

// executable tells a program from the object file that 'go build -o' makes of a package
// that is not main.
func executable(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return string(magic[:]) == "\x7fELF", errors.Join(err, f.Close())
}

// beginning keeps the beginning of what a compiler says.
type beginning struct{ text []byte }

// What of that is kept, and what a person is shown, in bytes and lines.
const (
	keptBytes  = 64 << 10
	shownBytes = 4 << 10
	shownLines = 20
)

func (b *beginning) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(len(p), keptBytes-len(b.text))]...)
	return len(p), nil
}

// String returns the first lines, without those on modules that were fetched.
func (b *beginning) String() string {
	var shown []byte
	lines := 0
	for line := range bytes.Lines(plain.Bytes(b.text)) {
		if bytes.HasPrefix(line, []byte("go: downloading ")) {
			continue
		}
		if lines++; lines > shownLines {
			return string(shown) + "…"
		}
		if room := shownBytes - len(shown); len(line) > room {
			return string(bytes.ToValidUTF8(append(shown, line[:room]...), nil)) + "…"
		}
		shown = append(shown, line...)
	}
	return strings.TrimRight(string(shown), "\n")
}
