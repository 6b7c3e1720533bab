package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Machine is what was seen of a machine at one moment. Sizes are in bytes.
type Machine struct {
	// Linux is false where there is no /proc: Docker runs elsewhere, and what
	// only a Linux machine has is left at its zero value.
	Linux bool
	// Root says whether this program may change the machine.
	Root bool
	// Distribution is the name that os-release gives.
	Distribution string
	// Debian says that packages come by apt-get: Debian, Ubuntu and their kin.
	Debian bool
	// Systemd says that systemd is the init system.
	Systemd bool
	// MemoryTotal is that of the machine that Docker runs on, where known.
	MemoryTotal uint64
	// MemoryAvailable is what may be had without swapping, where known.
	MemoryAvailable uint64
	// CgroupVersion is "1" or "2", or empty where it is not known.
	CgroupVersion string
	// MissingCapabilities are those of the kernel that Docker's bounding set
	// lacks, as the OCI configuration spells them.
	MissingCapabilities []string
	// RuntimeBuilt says that the OCI runtime that does without them is there.
	RuntimeBuilt bool
	// Kernel holds the settings that a lab depends on, by their sysctl names.
	Kernel map[string]int
	// Overlay says that the kernel offers overlayfs at this moment.
	Overlay bool
	// Programs holds the paths of the programs looked for and found.
	Programs map[string]string
	// StaticLibc says that the C compiler finds a libc to link statically.
	StaticLibc bool
	// DebianKeyring says that debootstrap can verify Debian's signatures.
	DebianKeyring bool
	Docker        Docker
	// DockerSpace and CacheSpace measure where Docker keeps its images and
	// where fedlab keeps its builds; nil where that is not known.
	DockerSpace, CacheSpace *Space
}

// Docker is what was seen of Docker.
type Docker struct {
	// Endpoint is what the command line client talks to, after DOCKER_HOST
	// and the chosen context.
	Endpoint string
	// Local says that the endpoint is the one of a daemon on this machine that
	// serves the whole machine; only such a daemon is ever changed.
	Local bool
	// Answers says that the daemon does; Problem says why it does not.
	Answers bool
	Problem string
	// OutOfReach says why the ports that it publishes are not on this machine; empty
	// where they are, and where that is not known.
	OutOfReach string
	// PID is the process of the daemon on this machine, 0 when none runs.
	PID int
	// Flags are those that the daemon was started with.
	Flags []string
	// Config is the content of daemon.json, nil when there is none.
	Config []byte
	// UserNamespaces says that containers have users of their own.
	UserNamespaces bool
	// What the daemon says of itself when it answers.
	Version, RootDir, StorageDriver, DefaultRuntime string
	memory                                          uint64
	cgroupVersion                                   string
}

// What a kernel setting is called under /proc/sys.
const (
	inotifyInstances = "fs.inotify.max_user_instances"
	inotifyWatches   = "fs.inotify.max_user_watches"
	ipForward        = "net.ipv4.ip_forward"
)

const (
	staticLibc    = "libc.a"
	debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// browsers are the names that Chromium and its kin go by, the one of Debian's
// package first.
var browsers = []string{"chromium", "chromium-browser", "google-chrome"}

// What only fedlab's own tests need.
const (
	// postgres is the program by which Debian's PostgreSQL is known: the server itself is
	// not in PATH.
	postgres = "pg_ctlcluster"
	haproxy  = "haproxy"
)

// Survey looks at the machine and changes nothing. cache is the folder that
// builds are kept in; it need not exist. What a machine does not have is a
// fact, not an error; what cannot be read is an error.
func Survey(ctx context.Context, sys System, cache string) (Machine, error) {
	m := Machine{Root: sys.UID == 0, Kernel: map[string]int{}, Programs: map[string]string{}}
	for _, name := range slices.Concat([]string{"docker", "dockerd", "iptables", "go", "gcc", "debootstrap", "gpgv", postgres, haproxy}, browsers) {
		if path, err := sys.Programs.Look(name); err == nil {
			m.Programs[name] = path
		}
	}
	err := errors.Join(m.readSystem(sys), m.readKernel(sys))
	if err != nil {
		return Machine{}, fmt.Errorf("survey this machine: %w", err)
	}
	if m.Docker, err = surveyDocker(ctx, sys, m); err != nil {
		return Machine{}, fmt.Errorf("survey docker: %w", err)
	}
	if !m.Docker.Local {
		m.MemoryTotal, m.MemoryAvailable, m.CgroupVersion = m.Docker.memory, 0, m.Docker.cgroupVersion
	}
	err = errors.Join(m.readCapabilities(sys), m.readBuildTools(ctx, sys), m.measure(sys, cache))
	if err != nil {
		return Machine{}, fmt.Errorf("survey this machine: %w", err)
	}
	return m, nil
}

// read returns a file's content; one that does not exist is empty and false.
func read(files Files, name string) (string, bool, error) {
	data, err := files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return strings.TrimSpace(string(data)), err == nil, err
}

func (m *Machine) readSystem(sys System) error {
	release, _, err := read(sys.Files, "/etc/os-release")
	if err != nil {
		return err
	}
	fields := assignments(release)
	m.Distribution = fields["PRETTY_NAME"]
	for id := range strings.FieldsSeq(fields["ID"] + " " + fields["ID_LIKE"]) {
		m.Debian = m.Debian || id == "debian" || id == "ubuntu"
	}
	first, _, err := read(sys.Files, "/proc/1/comm")
	m.Systemd = first == "systemd"
	return err
}

func (m *Machine) readKernel(sys System) error {
	memory, linux, err := read(sys.Files, "/proc/meminfo")
	if err != nil || !linux {
		return err
	}
	m.Linux = true
	for name, field := range map[string]*uint64{"MemTotal": &m.MemoryTotal, "MemAvailable": &m.MemoryAvailable} {
		if *field, err = kibibytes(memory, name); err != nil {
			return fmt.Errorf("read /proc/meminfo: %w", err)
		}
	}
	for _, name := range []string{inotifyInstances, inotifyWatches, ipForward} {
		value, there, err := readSetting(sys.Files, name)
		if err != nil {
			return err
		}
		if there {
			m.Kernel[name] = value
		}
	}
	systems, _, err := read(sys.Files, "/proc/filesystems")
	if err != nil {
		return err
	}
	for line := range strings.Lines(systems) {
		m.Overlay = m.Overlay || strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == "overlay"
	}
	_, unified, err := read(sys.Files, "/sys/fs/cgroup/cgroup.controllers")
	m.CgroupVersion = "1"
	if unified {
		m.CgroupVersion = "2"
	}
	return err
}

// readCapabilities compares with the bounding set of the daemon where it runs,
// for a daemon may have been given less, or more, than this program.
func (m *Machine) readCapabilities(sys System) error {
	if !m.Linux || !m.Docker.Local || (m.Docker.Answers && m.Docker.PID == 0) {
		return nil
	}
	status := "/proc/self/status"
	if m.Docker.PID != 0 {
		status = fmt.Sprintf("/proc/%d/status", m.Docker.PID)
	}
	process, _, err := read(sys.Files, status)
	if err != nil {
		return err
	}
	last, _, err := read(sys.Files, "/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return err
	}
	if m.MissingCapabilities, err = missingCapabilities(process, last); err != nil {
		return err
	}
	if len(m.MissingCapabilities) > 0 {
		m.RuntimeBuilt, err = runtimeWithout(m.MissingCapabilities).built(sys.Files)
	}
	return err
}

func (m *Machine) readBuildTools(ctx context.Context, sys System) error {
	var err error
	if _, m.DebianKeyring, err = read(sys.Files, debianKeyring); err != nil || m.Programs["gcc"] == "" {
		return err
	}
	// The compiler prints the bare name when it does not find the file.
	path, err := sys.Programs.Run(ctx, Command{Program: "gcc", Args: []string{"-print-file-name=" + staticLibc}})
	m.StaticLibc = err == nil && strings.TrimSpace(string(path)) != staticLibc
	return err
}

func (m *Machine) measure(sys System, cache string) error {
	if cache != "" {
		space, err := sys.Space(cache)
		if err != nil {
			return err
		}
		m.CacheSpace = &space
	}
	if !m.Linux || !m.Docker.Local {
		return nil
	}
	root := m.Docker.RootDir
	if root == "" {
		root = "/var/lib/docker"
	}
	space, err := sys.Space(root)
	if err != nil {
		return err
	}
	m.DockerSpace = &space
	return nil
}

// assignments reads os-release: lines of NAME=value, the value maybe quoted.
func assignments(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			fields[name] = strings.Trim(value, `"'`)
		}
	}
	return fields
}

func kibibytes(meminfo, name string) (uint64, error) {
	value, err := valueOf(meminfo, name)
	if err != nil {
		return 0, err
	}
	number, err := strconv.ParseUint(strings.TrimSuffix(value, " kB"), 10, 64)
	return number << 10, err
}

// valueOf returns what follows a name and a colon in a file of /proc.
func valueOf(text, name string) (string, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("no line %s", name)
}

func sysctlFile(name string) string {
	return "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
}
