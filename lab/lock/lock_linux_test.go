package lock_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/lock"
)

// holdVariable makes the test's own binary a process that holds a lock until it
// is killed.
const holdVariable = "FEDLAB_TEST_HOLD"

func TestMain(m *testing.M) {
	name := os.Getenv(holdVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if _, err := lock.Take(name, "fedlab up"); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = fmt.Fprintln(os.Stdout, "held")
	select {}
}

// name is one that no other run of this test has.
func name(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
}

// another starts a process that holds a lock: of another user, where this one may
// start such a process.
func another(t *testing.T, name string) (*exec.Cmd, string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	// A folder of its own for all that is a user's.
	cmd.Env = []string{holdVariable + "=" + name, "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}
	owner := me.Username
	if os.Getuid() == 0 {
		// The program is opened here: the other user may not enter its folder.
		file, err := os.Open(program)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		cmd.ExtraFiles, cmd.Path = []*os.File{file}, "/proc/self/fd/3"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir, owner = "/", "nobody"
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, error %v", line, err)
	}
	return cmd, owner
}

// TestOneHolder: the second one is told who the first is, whoever runs it.
func TestOneHolder(t *testing.T) {
	other, owner := another(t, name(t))
	before := time.Now()
	_, err := lock.Take(name(t), "fedlab down")
	var held *lock.HeldError
	if !errors.As(err, &held) {
		t.Fatalf("error %v, want a *HeldError", err)
	}
	if h := held.Holder; h.PID != other.Process.Pid || h.User != owner || h.Command != "fedlab up" || h.Since.After(before) || before.Sub(h.Since) > time.Minute {
		t.Errorf("held by %+v, want process %d of %s", h, other.Process.Pid, owner)
	}
	want := fmt.Sprintf("%s is locked by 'fedlab up', process %d, user %s, since %s",
		name(t), other.Process.Pid, owner, held.Holder.Since.Local().Format(time.TimeOnly))
	if err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	release, err := lock.Take(name(t)+"-other", "fedlab down")
	if err != nil {
		t.Fatalf("another name: %v", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// TestALockGoesWithItsHolder, who cleans up nothing.
func TestALockGoesWithItsHolder(t *testing.T) {
	other, _ := another(t, name(t))
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	release, err := lock.Take(name(t), "fedlab up")
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	if _, err := lock.Take(name(t), "fedlab up"); err == nil {
		t.Error("the same process took it twice")
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if release, err = lock.Take(name(t), "fedlab up"); err != nil {
		t.Fatalf("after it was released: %v", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// TestAHolderThatIsStopped does not say who it is; the kernel does.
func TestAHolderThatIsStopped(t *testing.T) {
	other, owner := another(t, name(t))
	if err := other.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(other.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
	_, err := lock.Take(name(t), "fedlab up")
	want := fmt.Sprintf("%s is locked by process %d, user %s", name(t), other.Process.Pid, owner)
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("a", 97)} {
		want := fmt.Sprintf("take lock %q: its name has %d characters, want 1 to 96", name, len(name))
		if _, err := lock.Take(name, "fedlab up"); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
