package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	daemonConfig  = "/etc/docker/daemon.json"
	daemonPID     = "/var/run/docker.pid"
	containerdPID = "/var/run/docker/containerd/containerd.pid"
	// askBound is how long one question to the daemon may take. A daemon
	// under load answers in a second; one that hangs never does.
	askBound = 10 * time.Second
)

// surveyDocker asks the command line client, since kind does: what it reaches
// is what a lab will run on.
func surveyDocker(ctx context.Context, sys System, m Machine) (Docker, error) {
	d := Docker{Endpoint: "unix:///var/run/docker.sock", Local: m.Linux}
	if m.Programs["docker"] != "" {
		err := d.askClient(ctx, sys, m)
		if ctx.Err() != nil {
			return Docker{}, context.Cause(ctx)
		}
		if err != nil {
			d.Problem = err.Error()
		}
	}
	// Of a daemon on another machine that says more than that it does not answer.
	if (d.Answers || d.Endpoint != "" && !d.Local) && sys.Reach != nil {
		if err := sys.Reach(ctx); err != nil {
			d.OutOfReach = err.Error()
		}
	}
	if !d.Local {
		return d, nil
	}
	config, err := sys.Files.ReadFile(daemonConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Docker{}, err
	}
	d.Config = config
	if d.PID, err = running(sys.Files, daemonPID, "dockerd"); err != nil || d.PID == 0 {
		return d, err
	}
	line, _, err := read(sys.Files, fmt.Sprintf("/proc/%d/cmdline", d.PID))
	d.Flags = strings.Split(line, "\x00")
	return d, err
}

// askClient fills in where the daemon is, and what it says of itself. Of a daemon
// that nobody knows where it is, there is nothing else to say.
func (d *Docker) askClient(ctx context.Context, sys System, m Machine) error {
	endpoint, err := ask(ctx, sys, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
	if err != nil {
		*d = Docker{}
		return err
	}
	d.Endpoint = strings.TrimSpace(string(endpoint))
	d.Local = m.Linux && (d.Endpoint == "unix:///var/run/docker.sock" || d.Endpoint == "unix:///run/docker.sock")
	return d.askDaemon(ctx, sys)
}

func (d *Docker) askDaemon(ctx context.Context, sys System) error {
	out, err := ask(ctx, sys, "info", "--format", "{{json .}}")
	if err != nil {
		return err
	}
	var info struct {
		ServerVersion, DockerRootDir, Driver, DefaultRuntime string
		ServerErrors, SecurityOptions                        []string
		MemTotal                                             uint64
		CgroupVersion                                        string
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return fmt.Errorf("read docker info: %w", err)
	}
	// Some clients report a daemon that does not answer and yet succeed.
	if info.ServerVersion == "" {
		return fmt.Errorf("docker info: %s", strings.Join(info.ServerErrors, "; "))
	}
	d.Answers, d.Version = true, info.ServerVersion
	d.RootDir, d.StorageDriver, d.DefaultRuntime = info.DockerRootDir, info.Driver, info.DefaultRuntime
	d.UserNamespaces = slices.ContainsFunc(info.SecurityOptions, func(option string) bool {
		name, _, _ := strings.Cut(option, ",")
		return name == "name=userns"
	})
	d.memory, d.cgroupVersion = info.MemTotal, info.CgroupVersion
	return nil
}

func ask(ctx context.Context, sys System, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askBound, fmt.Errorf("no answer within %s", askBound))
	defer cancel()
	return sys.Programs.Run(ctx, Command{Program: "docker", Args: args})
}

// running returns the process that a pid file names when it runs the program,
// and 0 when the file is missing or stale: where /run survives a reboot, the
// number in it is soon that of somebody else, and where the first process is
// slow to reap, a daemon that was killed lingers as a zombie.
func running(files Files, pidFile, program string) (int, error) {
	text, ok, err := read(files, pidFile)
	if err != nil || !ok {
		return 0, err
	}
	pid, err := strconv.Atoi(text)
	if err != nil {
		return 0, nil //nolint:nilerr // a file that was cut short names no process
	}
	// "PID (name) state ...", where the name may hold anything.
	stat, ok, err := read(files, fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || !ok {
		return 0, err
	}
	_, stat, _ = strings.Cut(stat, "(")
	end := strings.LastIndex(stat, ") ")
	if end < 0 || stat[:end] != program || strings.HasPrefix(stat[end:], ") Z") {
		return 0, nil
	}
	return pid, nil
}

// daemonSettings is daemon.json with what nobody here looks at kept byte for
// byte.
type daemonSettings struct {
	entries, runtimes map[string]json.RawMessage
	// chosen is the default runtime; Docker's own is "".
	chosen string
	// path is where our runtime is said to be; empty where it is not registered.
	path string
}

func readSettings(config []byte) (daemonSettings, error) {
	var s daemonSettings
	if len(bytes.TrimSpace(config)) == 0 {
		config = []byte("{}")
	}
	if err := json.Unmarshal(config, &s.entries); err != nil {
		return s, fmt.Errorf("read %s: %w", daemonConfig, err)
	}
	if s.entries == nil {
		return s, fmt.Errorf("read %s: it holds null, not an object", daemonConfig)
	}
	var ours struct{ Path string }
	err := readEntry(s.entries, "runtimes", "runtimes", &s.runtimes)
	if err == nil {
		err = readEntry(s.entries, "default-runtime", "default-runtime", &s.chosen)
	}
	if err == nil {
		err = readEntry(s.runtimes, runtimeName, "runtime "+runtimeName, &ours)
	}
	if s.runtimes == nil {
		s.runtimes = map[string]json.RawMessage{}
	}
	s.path = ours.Path
	return s, err
}

// readEntry reads an entry that need not be there; title is what an error calls it.
func readEntry(entries map[string]json.RawMessage, name, title string, into any) error {
	raw, there := entries[name]
	if !there {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("read %s of %s: %w", title, daemonConfig, err)
	}
	return nil
}
