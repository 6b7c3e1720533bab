package apptest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Build builds the program of apps/name into dir, and returns its path.
func Build(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/fedlab-dev/fedlab/apps/"+name)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build apps/%s: %v\n%s", name, err, output)
	}
	return path
}

// Start starts a program that writes to log. stop ends it in good order, kill at
// once, as does the end of the test.
func Start(t *testing.T, log *Log, path string, args ...string) (stop, kill func() error) {
	t.Helper()
	command := exec.CommandContext(context.WithoutCancel(t.Context()), path, args...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Stdout, command.Stderr = log, log
	command.Dir = filepath.Dir(path)
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended, gone := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- command.Wait()
		close(gone)
	}()
	kill = sync.OnceValue(func() error {
		select {
		case <-gone:
			return nil
		default:
		}
		// The group: nothing that it has started outlives the test.
		err := syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		<-gone
		return err
	})
	t.Cleanup(func() { _ = kill() }) // most have ended by now
	stop = func() error { return errors.Join(command.Process.Signal(syscall.SIGTERM), Ended(t, ended)) }
	return stop, kill
}
