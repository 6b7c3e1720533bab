package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// superuser is PostgreSQL's own role. It has no password, and pg_hba.conf lets
// nobody in without one, so that it exists for maintenance only.
const superuser = "postgres"

// stopBound is how long the server may take to write down what it holds in
// memory. It is below the 30 s after which Kubernetes kills.
const stopBound = 20 * time.Second

// noSync lets PostgreSQL leave to the kernel when data reach the disk: nothing
// is lost when a process or a pod ends, all may be when the machine does. The
// clusters that this is for keep their own state in the same way.
const noSync = "fsync=off"

// server is one PostgreSQL server, while it is made and while it runs.
type server struct {
	settings
	log    *slog.Logger
	output io.Writer // of PostgreSQL's programs
	locked *os.File
}

func (s server) cluster() string { return filepath.Join(s.data, "cluster") }

func (s server) run(ctx context.Context) (err error) {
	if s.locked, err = lock(filepath.Join(s.data, "lock")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.locked.Close()) }()
	for _, step := range []func(context.Context) error{s.prepare, s.serve} {
		if err := step(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	s.log.InfoContext(ctx, "stopped")
	return nil
}

// lock keeps other servers off a volume until the file is closed here and in
// the programs that inherit it: as long as anything of this server runs.
func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: another server uses this volume: %w", path, err), file.Close())
	}
	return file, nil
}

// prepare makes the databases unless they are there, and gives the role the
// password that the file has now, so that a volume that outlives the Secret
// serves its successor.
func (s server) prepare(ctx context.Context) error {
	verifier, err := s.verifier()
	if err != nil {
		return err
	}
	switch _, err := os.Stat(s.cluster()); {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.make(ctx, verifier); err != nil {
			return fmt.Errorf("make databases in %s: %w", s.data, err)
		}
		return nil
	case err != nil:
		return err
	}
	if err := s.access(s.cluster()); err != nil {
		return err
	}
	if err := s.single(ctx, s.cluster(), "ALTER ROLE "+s.user+" PASSWORD '"+verifier+"'"); err != nil {
		return fmt.Errorf("set the password of %s: %w", s.user, err)
	}
	return nil
}

// make makes the databases. They come into being under another name and get
// theirs when they are whole: what a kill leaves half made is thrown away.
func (s server) make(ctx context.Context, verifier string) error {
	next := s.cluster() + ".new"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	s.log.InfoContext(ctx, "making databases", "folder", s.cluster())
	err := s.program(ctx, "initdb", "--pgdata="+next, "--username="+superuser, "--encoding=UTF8", "--locale=C",
		"--auth-local=reject", "--auth-host=scram-sha-256", "--no-sync").Run()
	if err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	if err := s.access(next); err != nil {
		return err
	}
	if err := s.single(ctx, next, "CREATE ROLE "+s.user+" LOGIN PASSWORD '"+verifier+"'", "CREATE DATABASE "+s.database+" OWNER "+s.user); err != nil {
		return fmt.Errorf("make database %s of role %s: %w", s.database, s.user, err)
	}
	return os.Rename(next, s.cluster())
}

// access says who is let in. As initdb writes this file, it is nobody from other machines.
func (s server) access(cluster string) error {
	kind := "host"
	if s.tls != "" {
		kind = "hostssl"
	}
	text := "host all " + superuser + " all reject\n" + kind + " all all all scram-sha-256\n"
	return os.WriteFile(filepath.Join(cluster, "pg_hba.conf"), []byte(text), 0o600)
}

// verifier is what is stored of the password in the file.
func (s server) verifier() (string, error) {
	password, err := os.ReadFile(s.passwordFile)
	if err != nil {
		return "", err
	}
	password = bytes.TrimSpace(password)
	if len(password) == 0 {
		return "", fmt.Errorf("%s is empty", s.passwordFile)
	}
	return scramVerifier(string(password))
}

// single runs statements, none of which may contain a line break, without a
// server that anybody could connect to.
func (s server) single(ctx context.Context, cluster string, statements ...string) error {
	if err := clearPID(cluster); err != nil {
		return err
	}
	var said bytes.Buffer
	program := s.program(ctx, "postgres", "--single", "-D", cluster, "-c", noSync, "-c", "exit_on_error=on", "-c", "log_min_messages=error", superuser)
	program.Stdin = strings.NewReader(strings.Join(statements, "\n") + "\n")
	program.Stdout = io.Discard // it prompts for each statement
	program.Stderr = &said
	if err := program.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

func (s server) serve(ctx context.Context) error {
	if err := clearPID(s.cluster()); err != nil {
		return err
	}
	args := []string{"-D", s.cluster(),
		"-c", "listen_addresses=" + s.listen, "-c", "port=" + strconv.Itoa(s.port), "-c", "unix_socket_directories=",
		"-c", "max_connections=50", "-c", "shared_buffers=32MB", "-c", "max_wal_size=128MB", "-c", "min_wal_size=32MB",
		"-c", noSync, "-c", "timezone=GMT", "-c", "log_timezone=GMT", "-c", "jit=off"}
	if s.tls != "" {
		if err := s.awaitCertificate(ctx); err != nil {
			return err
		}
		args = append(args, "-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(s.tls, certificateFile), "-c", "ssl_key_file="+filepath.Join(s.tls, keyFile))
	}
	program := s.program(ctx, "postgres", args...)
	s.log.InfoContext(ctx, "starting the server", "listen", s.listen, "port", s.port, "database", s.database, "user", s.user, "tls", s.tls != "")
	if err := program.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	// Who keeps the certificate learns whom to tell. When that fails nobody would be told,
	// so the server ends.
	told := s.tellPID(program.Process.Pid)
	if told != nil {
		told = errors.Join(told, program.Process.Signal(os.Interrupt))
	}
	return errors.Join(told, fmt.Errorf("run postgres until told to stop: %w", program.Wait()))
}

// program is one of PostgreSQL's. When ctx ends it is interrupted: a server
// then ends its sessions and writes down what it holds (fast shutdown), where
// at SIGTERM it would wait for its clients to leave.
func (s server) program(ctx context.Context, name string, args ...string) *exec.Cmd {
	program := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	program.Cancel = func() error { return program.Process.Signal(os.Interrupt) }
	program.WaitDelay = stopBound
	program.Stdout, program.Stderr = s.output, s.output
	program.ExtraFiles = []*os.File{s.locked}
	return program
}

// clearPID removes what a killed server left to keep others off. Nobody else
// is here while the lock is held, and in a new container its number may belong
// to any process.
func clearPID(cluster string) error {
	err := os.Remove(filepath.Join(cluster, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
