package images

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
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

// goEnviron keeps a person's Go settings from changing what is built.
func goEnviron(system string, cgo bool) []string {
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	return []string{
		"CGO_ENABLED=" + enabled, "GOFLAGS=-mod=readonly", "GOWORK=off", "GOTOOLCHAIN=" + toolchain(runtime.Version()),
		"GOOS=" + cmp.Or(system, "linux"), "GOARCH=" + runtime.GOARCH, "GOAMD64=v1", "GOARM64=v8.0",
	}
}

// toolchain is the compiler to use: the release that fedlab itself was compiled
// with, since that is what stands in the keys. Where that was no release, it is
// the one that is installed.
func toolchain(version string) string {
	if regexp.MustCompile(`^go1(\.\d+)+((rc|beta)\d+)?$`).MatchString(version) {
		return version
	}
	return "local"
}
