// Command dist builds fedlab for every platform that it is offered for, and writes
// the sums of what it has built. It is what make dist runs, from the root of the
// checkout.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

// platform is what the go command calls GOOS and GOARCH.
type platform struct{ system, processor string }

// platforms are those that fedlab is offered for. docs/reference/platforms.md says
// which of them were tried.
var platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}}

// program is the name of a platform's program.
func (p platform) program() string { return "fedlab-" + p.system + "-" + p.processor }

func main() {
	folder := flag.String("o", "dist", "the folder to write to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := dist(ctx, *folder, platforms); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// dist builds the programs of platforms into a folder, and SHA256SUMS next to them.
func dist(ctx context.Context, folder string, platforms []platform) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	var sums strings.Builder
	for _, p := range platforms {
		path := filepath.Join(folder, p.program())
		if err := build(ctx, p, path); err != nil {
			return err
		}
		program, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// As sha256sum --check reads it.
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(program), p.program())
	}
	return os.WriteFile(filepath.Join(folder, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// build builds the command for a platform. Whatever a person has told the go command
// to build does not count, so that the same source gives the same bytes.
func build(ctx context.Context, p platform, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/fedlab-dev/fedlab/cmd/fedlab")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.system, "GOARCH="+p.processor, "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("build %s: %w", p.program(), err), errors.New(strings.TrimSpace(string(out))))
	}
	return nil
}
