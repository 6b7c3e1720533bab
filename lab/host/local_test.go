package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestLocalWriteFile(t *testing.T) {
	folder := t.TempDir()
	kept, link := filepath.Join(folder, "kept"), filepath.Join(folder, "link")
	if err := os.WriteFile(kept, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kept, link); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(folder, "a", "b", "fresh")
	files := Local().Files
	for _, name := range []string{link, fresh} {
		if err := files.WriteFile(name, []byte("new"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{kept: 0o600, fresh: 0o644} {
		data, err := files.ReadFile(name)
		info, statErr := os.Stat(name)
		if err := errors.Join(err, statErr); err != nil {
			t.Fatal(err)
		}
		if string(data) != "new" || info.Mode().Perm() != mode {
			t.Errorf("%s holds %q with mode %o, want %o", name, data, info.Mode().Perm(), mode)
		}
	}
	if target, err := os.Readlink(link); target != kept {
		t.Errorf("the link became something else: %s, %v", target, err)
	}
	if left, err := filepath.Glob(filepath.Join(folder, ".*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestLocalWriteFileLeavesNothingWhenItFails(t *testing.T) {
	folder := t.TempDir()
	target := filepath.Join(folder, "taken")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Local().Files.WriteFile(target, []byte("new"), 0o644); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if left, err := filepath.Glob(filepath.Join(folder, ".*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestLocalRun(t *testing.T) {
	programs := Local().Programs
	out, err := programs.Run(t.Context(), Command{Program: "sh", Args: []string{"-c", "echo $WORD"}, Env: []string{"WORD=hello"}})
	if err != nil || string(out) != "hello\n" {
		t.Errorf("got %q, %v", out, err)
	}
	_, err = programs.Run(t.Context(), Command{Program: "sh", Args: []string{"-c", "seq 12 >&2; exit 3"}})
	if want := "sh: exit status 3: 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12"; text(err) != want {
		t.Errorf("error is %q, want %q", text(err), want)
	}
	if _, err := programs.Run(t.Context(), Command{Program: "no-such-program"}); err == nil {
		t.Error("a program that does not exist ran")
	}
}

func TestLocalRunIsCutShort(t *testing.T) {
	slow := errors.New("too slow")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, slow)
	defer cancel()
	begin := time.Now()
	_, err := Local().Programs.Run(ctx, Command{Program: "sleep", Args: []string{"60"}})
	if !errors.Is(err, slow) || time.Since(begin) > 30*time.Second {
		t.Errorf("error is %v after %s", err, time.Since(begin))
	}
	// One error, not two side by side: that it was ended is no news of its own.
	if want := "sleep: too slow: signal: terminated: "; text(err) != want {
		t.Errorf("error is %q, want %q", text(err), want)
	}
}

func TestLocalStart(t *testing.T) {
	t.Setenv("SECRET", "x")
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A session leader's process is its session; the fields of stat after the
	// name are state, parent, group, session.
	ended, err := Local().Programs.Start(Command{Program: "sh", Args: []string{"-c",
		`read pid name state parent group session rest </proc/$$/stat; [ $session = $$ ] && echo leader; pwd; env | grep SECRET; exit 4`}}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; text(err) != "exit status 4" {
		t.Errorf("it ended with %v", err)
	}
	out, err := os.ReadFile(log)
	if want := "before\nleader\n/\n"; err != nil || string(out) != want {
		t.Errorf("log is %q, %v; want %q", out, err, want)
	}
	if _, err := Local().Programs.Start(Command{Program: "sh"}, filepath.Join(log, "x")); err == nil {
		t.Error("started without a log")
	}
}

func TestLocalSignal(t *testing.T) {
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.SIGHUP)
	defer signal.Stop(received)
	if err := Local().Programs.Signal(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-received:
	case <-time.After(10 * time.Second):
		t.Error("no signal arrived")
	}
}

func TestDaemonEnvironment(t *testing.T) {
	got := daemonEnv([]string{"PATH=/mine", "TOKEN=x", "https_proxy=http://p", "NO_PROXY=a,b", "DOCKER_HOST=tcp://x"})
	want := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "https_proxy=http://p", "NO_PROXY=a,b"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLocalSpaceOfAFolderToCome(t *testing.T) {
	folder := t.TempDir()
	there, err := Local().Space(folder)
	if err != nil {
		t.Fatal(err)
	}
	later, err := Local().Space(filepath.Join(folder, "a", "b"))
	if err != nil || later.Device != there.Device || later.Free == 0 {
		t.Errorf("got %+v, %v; want device %d", later, err, there.Device)
	}
}

func TestLocalLookFindsAdministratorsPrograms(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/chroot"); err != nil {
		t.Skip("this machine keeps chroot elsewhere")
	}
	t.Setenv("PATH", t.TempDir())
	path, err := Local().Programs.Look("chroot")
	if err != nil || path != "/usr/sbin/chroot" {
		t.Errorf("got %s, %v", path, err)
	}
	if _, err := Local().Programs.Look("/usr/sbin/no-such-program"); err == nil {
		t.Error("found what is not there")
	}
}

// The real machine can be looked at, whatever it is.
func TestSurveyOfThisMachine(t *testing.T) {
	m, err := Survey(t.Context(), Local(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Findings(building)) == 0 || m.CacheSpace == nil {
		t.Errorf("nothing was seen: %+v", m)
	}
}

// The embedded source compiles the way Setup compiles it, into a program that
// takes away what it was stamped with and becomes runc.
func TestRuntimeIsBuiltFromWhatIsEmbedded(t *testing.T) {
	folder := t.TempDir()
	source, program := filepath.Join(folder, "r.go"), filepath.Join(folder, "r")
	files := map[string]string{
		source:                               string(runtimeSource),
		filepath.Join(folder, "config.json"): `{"process": {"capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"]}}}`,
		filepath.Join(folder, "bin", "runc"): "#!/bin/sh\necho \"$@\"\n",
	}
	for name, content := range files {
		if err := (localFiles{}).WriteFile(name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	programs := Local().Programs
	// What somebody has told the go command to build is another matter.
	env := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(env, []byte("GOOS=plan9\nGOEXPERIMENT=nosuch\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOENV", env)
	if _, err := programs.Run(t.Context(), theRuntime().compile(source, program)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(folder, "bin")+":"+os.Getenv("PATH"))
	out, err := programs.Run(t.Context(), Command{Program: program, Args: []string{"--root", "/r", "create", "--bundle", folder, "id"}})
	if want := "--root /r create --bundle " + folder + " id\n"; err != nil || string(out) != want {
		t.Errorf("runc was called with %q, %v; want %q", out, err, want)
	}
	config, err := os.ReadFile(filepath.Join(folder, "config.json"))
	if want := `{"process":{"capabilities":{"bounding":["CAP_CHOWN"]}}}`; err != nil || string(config) != want {
		t.Errorf("config is %s, %v; want %s", config, err, want)
	}
	if err := os.Remove(filepath.Join(folder, "config.json")); err != nil {
		t.Fatal(err)
	}
	_, err = programs.Run(t.Context(), Command{Program: program, Args: []string{"create", "--bundle=" + folder, "id"}})
	if want := program + ": exit status 1: fedlab OCI runtime: open " + folder + "/config.json: no such file or directory"; text(err) != want {
		t.Errorf("error is %q, want %q", text(err), want)
	}
}
