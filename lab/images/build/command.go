package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// command returns a command that is asked to stop, with all that it started,
// when ctx ends, and killed when it does not follow.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = os.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// goEnviron is what a build is given of this process's environment and of a
// person's Go settings: where modules come from and where caches are. What would
// change the programs is left out, or one key would stand for two of them.
// Temporary files of the compilers lie in tmp; a build that is killed leaves them.
func goEnviron(system string, cgo bool, tmp string) ([]string, error) {
	settings, err := goSettings()
	if err != nil {
		return nil, err
	}
	env := slices.DeleteFunc(os.Environ(), func(setting string) bool {
		name, _, _ := strings.Cut(setting, "=")
		return decides(name)
	})
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	if system == "" {
		system = "linux"
	}
	return append(append(env, settings...),
		"GOENV=off", "CGO_ENABLED="+enabled, "GOFLAGS=-mod=readonly", "GOWORK=off", "GOTOOLCHAIN="+toolchain(runtime.Version()),
		"GOOS="+system, "GOARCH="+runtime.GOARCH, "GOAMD64=v1", "GOARM64=v8.0",
		"GOTMPDIR="+tmp, "TMPDIR="+tmp,
	), nil
}

// personal are the settings of the go command that do not change what it builds.
func personal() []string {
	return []string{
		"GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOINSECURE", "GOVCS", "GOAUTH",
		"GOPATH", "GOMODCACHE", "GOCACHE", "GOCACHEPROG", "GOROOT", "GOMAXPROCS", "GOMEMLIMIT", "GOGC",
	}
}

// decides says whether an environment variable may change what is built.
func decides(name string) bool {
	if strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "CGO_") {
		return !slices.Contains(personal(), name)
	}
	return slices.Contains([]string{"CC", "CXX", "AR", "FC", "PKG_CONFIG", "CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"}, name)
}

// goSettings are the personal ones of what 'go env -w' has written, as far as the
// environment does not have them; an empty variable of the environment does not
// count for the go command.
func goSettings() ([]string, error) {
	file := os.Getenv("GOENV")
	if file == "off" {
		return nil, nil
	}
	if file == "" {
		folder, err := os.UserConfigDir()
		if err != nil {
			return nil, nil //nolint:nilerr // so the go command has no such file either
		}
		file = filepath.Join(folder, "go", "env")
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings of the go command: %w", err)
	}
	var settings []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, _, set := strings.Cut(line, "="); set && os.Getenv(name) == "" && slices.Contains(personal(), name) {
			settings = append(settings, line)
		}
	}
	return settings, nil
}

// toolchain is the compiler to use: the release that fedlab itself was compiled
// with, since that is what is in the keys. Where that was no release, it is
// the one that is installed.
func toolchain(version string) string {
	if regexp.MustCompile(`^go1(\.\d+)+((rc|beta)\d+)?$`).MatchString(version) {
		return version
	}
	return "local"
}
