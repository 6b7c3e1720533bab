package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Local returns the machine this program runs on.
func Local() System {
	return System{Files: localFiles{}, Programs: localPrograms{}, Space: localSpace, UID: os.Getuid()}
}

type localFiles struct{}

func (localFiles) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }
func (localFiles) Remove(name string) error             { return os.Remove(name) }

// Rename lets the content reach the disk before the name does.
func (localFiles) Rename(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (localFiles) WriteFile(name string, data []byte, mode fs.FileMode) error {
	if strings.HasPrefix(name, "/proc/") {
		return os.WriteFile(name, data, mode)
	}
	// A link is followed, so that a file kept elsewhere stays where it is kept.
	switch target, err := filepath.EvalSymlinks(name); {
	case err == nil:
		name = target
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return replace(name, data, mode)
}

// replace writes data next to name and renames it into place, so that a reader
// and a power cut find the old content or the new one.
func replace(name string, data []byte, mode fs.FileMode) (err error) {
	next, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(next.Name()))
		}
	}()
	_, err = next.Write(data)
	if err = errors.Join(err, next.Chmod(mode), next.Sync(), next.Close()); err != nil {
		return err
	}
	if err := os.Rename(next.Name(), name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

type localPrograms struct{}

func (localPrograms) Look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || filepath.IsAbs(name) {
		return path, err
	}
	for _, folder := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

func (p localPrograms) Run(ctx context.Context, command Command) ([]byte, error) {
	path, err := p.Look(command.Program)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, command.Args...)
	cmd.Env = append(os.Environ(), command.Env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A package manager that is asked to end leaves less to be repaired than
	// one that is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", command.Program, err, tail(stderr.Bytes(), 10))
	}
	return stdout.Bytes(), nil
}

func (p localPrograms) Start(command Command, log string) (<-chan error, error) {
	path, err := p.Look(command.Program)
	if err != nil {
		return nil, err
	}
	output, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, command.Args...) //nolint:noctx // it outlives every context of this program
	cmd.Dir = "/"
	cmd.Env = append(daemonEnv(os.Environ()), command.Env...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), output.Close()); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, nil
}

// daemonEnv keeps of a person's environment what a daemon needs to find its
// programs and a proxy; tokens stay out.
func daemonEnv(environ []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		switch strings.ToUpper(name) {
		case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY":
			env = append(env, variable)
		}
	}
	return env
}

func (localPrograms) Signal(pid int, signal os.Signal) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return process.Signal(signal)
}

func localSpace(path string) (Space, error) {
	for {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
			path = filepath.Dir(path)
			continue
		}
		if err != nil {
			return Space{}, err
		}
		var stat syscall.Statfs_t
		if err := syscall.Statfs(path, &stat); err != nil {
			return Space{}, fmt.Errorf("measure %s: %w", path, err)
		}
		space := Space{Free: uint64(stat.Bavail) * uint64(stat.Bsize)}
		mounted(&space, &stat)
		if file, ok := info.Sys().(*syscall.Stat_t); ok {
			space.Device = uint64(file.Dev)
		}
		return space, nil
	}
}

// tail returns the last lines of text that are not empty, joined into one.
func tail(text []byte, lines int) string {
	all := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	return strings.Join(all[max(0, len(all)-lines):], " | ")
}
