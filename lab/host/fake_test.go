package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// fakeMachine behaves as a Debian machine does, as far as this package looks:
// packages bring programs, a daemon answers some time after it was started and
// reads its settings when it starts and when it is told to.
type fakeMachine struct {
	files    map[string]string
	programs map[string]string
	uid      int
	space    Space
	endpoint string

	up, hangs   bool
	runtime     string   // the default runtime that the daemon has read
	asksLeft    int      // questions until a daemon that was started answers
	exits       error    // how dockerd ends when it is started; nil: it stays
	aptFailures int      // installations that fail before one succeeds
	deaf        bool     // a daemon that ignores SIGHUP
	validates   bool     // dockerd knows --validate
	refuses     string   // and refuses a file that holds this
	security    []string // what the daemon says of its security
	unproven    bool     // a privileged container does not start
	// containers are the runtimes of those that are there, by their names.
	containers map[string]string

	calls   int
	failAt  int  // the call that fails, counted from 1; 0: none
	late    bool // it fails after it had its effect
	changes []string
	ran     []Command
}

var errInjected = errors.New("injected")

// bareMachine is like the one this was written on, with nothing installed but
// Go, and no init system.
func bareMachine() *fakeMachine {
	return &fakeMachine{
		files: map[string]string{
			"/etc/os-release": "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n",
			"/proc/1/comm":    "process_api\n",
			"/proc/meminfo":   "MemTotal:       16777216 kB\nMemFree:        1 kB\nMemAvailable:   8388608 kB\n",
			"/proc/sys/fs/inotify/max_user_instances": "128\n",
			"/proc/sys/fs/inotify/max_user_watches":   "192536\n",
			"/proc/sys/net/ipv4/ip_forward":           "0\n",
			"/proc/filesystems":                       "nodev\tproc\n\text4\nnodev\toverlay\n",
			"/proc/sys/kernel/cap_last_cap":           "40\n",
			"/proc/self/status":                       "Name:\tx\nCapBnd:\t000001fffeffffff\nCapAmb:\t0\n",
		},
		programs: map[string]string{"go": "/usr/local/go/bin/go"},
		space:    Space{Device: 1, Free: 50 << 30},
		endpoint: "unix:///var/run/docker.sock",
	}
}

// readyMachine lacks nothing.
func readyMachine() *fakeMachine {
	m := bareMachine()
	for _, name := range []string{"docker", "dockerd", "iptables", "gcc", "libc6-dev", "debootstrap", "gpgv"} {
		m.programs[name] = "/usr/bin/" + name
	}
	maps.Copy(m.files, map[string]string{
		"/proc/sys/fs/inotify/max_user_instances": "512\n",
		"/proc/sys/fs/inotify/max_user_watches":   "524288\n",
		"/proc/self/status":                       "CapBnd:\t000001ffffffffff\n",
		debianKeyring:                             "keys",
	})
	m.startDaemon()
	return m
}

func (m *fakeMachine) system() System {
	return System{Files: m, Programs: m, UID: m.uid, Space: func(string) (Space, error) {
		return m.space, m.call(func() {})
	}}
}

// call counts a call, and lets it have its effect unless it is the one that
// fails.
func (m *fakeMachine) call(effect func()) error {
	m.calls++
	if m.calls == m.failAt {
		if m.late {
			effect()
		}
		return errInjected
	}
	effect()
	return nil
}

func (m *fakeMachine) ReadFile(name string) ([]byte, error) {
	if err := m.call(func() {}); err != nil {
		return nil, err
	}
	content, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(content), nil
}

func (m *fakeMachine) change(format string, args ...any) {
	m.changes = append(m.changes, fmt.Sprintf(format, args...))
}

func (m *fakeMachine) WriteFile(name string, data []byte, _ fs.FileMode) error {
	return m.call(func() {
		m.change("write %s", name)
		m.files[name] = string(data)
	})
}

func (m *fakeMachine) Rename(from, to string) error {
	return m.call(func() {
		m.change("rename %s %s", from, to)
		m.files[to] = m.files[from]
		delete(m.files, from)
	})
}

func (m *fakeMachine) Remove(name string) error {
	if _, ok := m.files[name]; !ok {
		return fs.ErrNotExist
	}
	return m.call(func() {
		m.change("remove %s", name)
		delete(m.files, name)
	})
}

func (m *fakeMachine) Look(name string) (string, error) {
	if _, ok := m.files[name]; ok {
		return name, nil
	}
	if path, ok := m.programs[name]; ok {
		return path, nil
	}
	return "", errors.New("not found")
}

func (m *fakeMachine) Start(command Command, log string) (<-chan error, error) {
	ended := make(chan error, 1)
	return ended, m.call(func() {
		m.change("start %s, log in %s", command.Program, log)
		if _, ok := m.files[daemonPID]; ok || m.exits != nil {
			m.files[log] = "first line\nlast line\n"
			ended <- m.exits
			return
		}
		m.startDaemon()
	})
}

func (m *fakeMachine) startDaemon() {
	m.up = true
	m.files[daemonPID] = "4711"
	m.files["/proc/4711/stat"] = "4711 (dockerd) S 1 4711"
	m.files["/proc/4711/status"] = m.files["/proc/self/status"]
	m.files[sysctlFile(ipForward)] = "1\n"
	m.readDaemonConfig()
}

func (m *fakeMachine) readDaemonConfig() {
	var config struct {
		Default string `json:"default-runtime"`
	}
	if text := m.files[daemonConfig]; text != "" {
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			panic(err)
		}
	}
	// As Docker does: a file that does not say it leaves a daemon that runs alone.
	if config.Default != "" {
		m.runtime = config.Default
	} else if m.runtime == "" {
		m.runtime = "runc"
	}
}

func (m *fakeMachine) Signal(pid int, signal os.Signal) error {
	return m.call(func() {
		m.change("signal %d %s", pid, signal)
		if !m.deaf {
			m.readDaemonConfig()
		}
	})
}

func (m *fakeMachine) Run(ctx context.Context, command Command) (out []byte, err error) {
	m.ran = append(m.ran, command)
	if m.hangs && command.Program == "docker" && command.Args[0] == "info" {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	failed := m.call(func() { out, err = m.run(command) })
	return out, errors.Join(failed, err)
}

func (m *fakeMachine) run(command Command) ([]byte, error) {
	line := command.Program + " " + strings.Join(command.Args, " ")
	switch {
	case strings.HasPrefix(line, "docker context"):
		return []byte(m.endpoint + "\n"), nil
	case strings.HasPrefix(line, "docker info"):
		if !m.up {
			return nil, errors.New("no daemon")
		}
		if m.asksLeft > 0 {
			m.asksLeft--
			return nil, errors.New("still starting")
		}
		return json.Marshal(map[string]any{"ServerVersion": "20.10.24", "DockerRootDir": "/var/lib/docker",
			"Driver": "overlay2", "DefaultRuntime": m.runtime, "MemTotal": 4 << 30, "CgroupVersion": "1", "SecurityOptions": m.security})
	case line == "docker ps --all --quiet --no-trunc":
		return []byte(strings.Join(slices.Sorted(maps.Keys(m.containers)), "\n")), nil
	case strings.HasPrefix(line, "docker inspect"):
		name := command.Args[len(command.Args)-1]
		return []byte(m.containers[name] + " /" + name + "\n"), nil
	case strings.HasPrefix(line, "docker run") && m.unproven:
		m.change("%s", line)
		return nil, errors.New("exit status 126")
	case line == "dockerd --help":
		if m.validates {
			return []byte("      --validate   Validate daemon configuration and exit\n"), nil
		}
		return nil, nil
	case strings.HasPrefix(line, "dockerd --validate"):
		if m.refuses != "" && strings.Contains(m.files[command.Args[2]], m.refuses) {
			return nil, errors.New("exit status 1: unable to configure")
		}
		return nil, nil
	case strings.HasPrefix(line, "gcc"):
		if m.programs["libc6-dev"] == "" {
			return []byte("libc.a\n"), nil
		}
		return []byte("/usr/lib/x86_64-linux-gnu/libc.a\n"), nil
	case strings.HasPrefix(line, "go build"):
		output := command.Args[slices.Index(command.Args, "-o")+1]
		m.change("build %s", output)
		m.files[output] = "program"
		return nil, nil
	case command.Program == "systemctl":
		m.change("%s", line)
		m.startDaemon()
		return nil, nil
	case command.Program == "apt-get" && slices.Contains(command.Args, "install"):
		m.change("%s", line)
		if m.aptFailures > 0 {
			m.aptFailures--
			return nil, errors.New("exit status 100")
		}
		m.install(command.Args)
		return nil, nil
	}
	m.change("%s", line)
	return nil, nil
}

func (m *fakeMachine) install(packages []string) {
	brings := map[string][]string{"docker.io": {"docker", "dockerd"}, "iptables": {"iptables"}, "docker-cli": {"docker"},
		"gcc": {"gcc"}, "libc6-dev": {"libc6-dev"}, "debootstrap": {"debootstrap"}, "gpgv": {"gpgv"}, "chromium": {"chromium"},
		"postgresql": {postgres}, haproxy: {haproxy}}
	for _, name := range packages {
		for _, program := range brings[name] {
			m.programs[program] = "/usr/bin/" + program
		}
		if name == "debian-archive-keyring" {
			m.files[debianKeyring] = "keys"
		}
	}
}

// recorder is an Observer.
type recorder struct {
	surveys   [][]Finding
	announced []string
	applied   []string
	refuse    error
}

func (r *recorder) Surveyed(findings []Finding) { r.surveys = append(r.surveys, findings) }

func (r *recorder) Announced(remedies []Remedy) error {
	for _, remedy := range remedies {
		r.announced = append(r.announced, remedy.String())
	}
	return r.refuse
}

func (r *recorder) Applying(remedy Remedy) { r.applied = append(r.applied, remedy.String()) }

// answering gives other answers than a healthy client does.
type answering struct {
	*fakeMachine
	info    string
	context error
}

func (a *answering) Run(ctx context.Context, command Command) ([]byte, error) {
	switch {
	case command.Program == "docker" && command.Args[0] == "context" && a.context != nil:
		return nil, a.context
	case command.Program == "docker" && command.Args[0] == "info":
		return []byte(a.info), nil
	}
	return a.fakeMachine.Run(ctx, command)
}
