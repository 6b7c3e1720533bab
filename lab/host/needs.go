package host

import (
	"fmt"
	"strings"
)

// Needs is what a lab asks of a machine.
type Needs struct {
	// Clusters is how many run at the same time.
	Clusters int
	// Compile says that programs and charts are made here, with Go.
	Compile bool
	// BuildImages says that the node image is built here, neither pulled nor
	// loaded.
	BuildImages bool
	// Tests says that fedlab's own tests run here.
	Tests bool
}

const (
	gib = 1 << 30
	// A one-node cluster with MetalLB and SPIRE takes 0.9 GiB; one more is for
	// the host and what runs next to the clusters.
	clusterMemory = gib
	// The node image is 2 GiB, once in an archive and once in Docker; each
	// cluster writes some on top.
	dockerSpace = 4 * gib
	// Compiling Kubernetes, SPIRE and MetalLB fills Go's cache; the results
	// are kept.
	buildSpace = 8 * gib
	// kind's known limits for a few clusters on one machine, and what each
	// cluster may take of them: the kernel counts all that root has opened, and
	// the programs of every node are root's.
	leastInstances   = 512
	leastWatches     = 524288
	clusterInstances = 128
	clusterWatches   = 65536
)

const installGo = `install Go, https://go.dev/doc/install, and put it in PATH; sudo drops it from there: sudo env "PATH=$PATH" fedlab`

// Findings judges the machine by what a lab needs, in an order that reads well
// and never changes. It looks at nothing but m.
func (m Machine) Findings(needs Needs) []Finding {
	findings := []Finding{m.system(), m.dockerClient(), m.dockerDaemon()}
	if m.Docker.Answers || m.Docker.OutOfReach != "" {
		findings = append(findings, m.dockerReach())
	}
	if m.Linux && m.Docker.Local {
		findings = append(findings, m.capabilities(), m.storage(), m.userNamespaces())
		findings = append(findings, m.inotify(needs)...)
		if m.Docker.Answers {
			// The daemon switches it on when it starts.
			findings = append(findings, m.setting("ip forwarding", ipForward, 1))
		}
	}
	findings = append(findings, m.cgroup(), m.memory(needs))
	findings = append(findings, m.space(needs)...)
	if needs.Compile || needs.BuildImages {
		findings = append(findings, m.compiler())
	}
	if needs.BuildImages {
		findings = append(findings, m.build()...)
	}
	if needs.Tests {
		findings = append(findings,
			m.tool("browser", m.browser(), "Chromium, to test pages with", "chromium"),
			m.tool("PostgreSQL", m.Programs[postgres], "PostgreSQL, to test what uses it", "postgresql"),
			m.tool("HAProxy", m.Programs[haproxy], "HAProxy, to test its configuration", haproxy))
	}
	return findings
}

// repairs says whether Setup may change this machine.
func (m Machine) repairs() bool { return m.Linux && m.Root && m.Debian }

// repair gives a finding its remedies where Setup may apply them.
func (m Machine) repair(f Finding, remedies ...Remedy) Finding {
	if m.repairs() {
		f.Remedies = remedies
	}
	return f
}

func (m Machine) system() Finding {
	f := Finding{Subject: "system", Seen: m.Distribution}
	if f.Seen == "" {
		f.Seen = "not a Linux distribution that names itself"
	}
	switch {
	case m.repairs():
	case m.Debian:
		f.Seen += ", not root: nothing is changed"
	default:
		f.Seen += ": nothing is changed"
	}
	return f
}

func (m Machine) cgroup() Finding {
	f := Finding{Subject: "cgroup", Seen: "version " + m.CgroupVersion}
	switch m.CgroupVersion {
	case "":
		f.Level, f.Seen = Note, "version not known before Docker answers"
	case "1":
		f.Level = Note
		f.Seen += ": the kubelet refuses it from 1.35 on, unless failCgroupV1 is false"
	}
	return f
}

func (m Machine) storage() Finding {
	f := Finding{Subject: "storage"}
	switch {
	case m.Docker.StorageDriver == "vfs":
		f.Level, f.Seen = Note, "vfs: every container copies its whole image"
		f.Cure = "let Docker use overlay2"
	case m.Docker.Answers:
		f.Seen = m.Docker.StorageDriver
	case m.Overlay:
		f.Seen = "the kernel offers overlay"
	default:
		f.Level, f.Seen = Note, "the kernel does not offer overlay yet"
		f.Cure = "modprobe overlay"
	}
	return f
}

func (m Machine) setting(subject, name string, least int) Finding {
	f := Finding{Subject: subject, Seen: fmt.Sprintf("%s = %d", name, m.Kernel[name])}
	if m.Kernel[name] >= least {
		return f
	}
	f.Level, f.Need = Missing, fmt.Sprintf("at least %d", least)
	f.Cure = fmt.Sprintf("as root: sysctl -w %s=%d", name, least)
	return m.repair(f, setting{name, least})
}

// inotify judges what the kernel lets root watch.
func (m Machine) inotify(needs Needs) []Finding {
	return []Finding{
		m.setting("inotify instances", inotifyInstances, max(leastInstances, needs.Clusters*clusterInstances)),
		m.setting("inotify watches", inotifyWatches, max(leastWatches, needs.Clusters*clusterWatches)),
	}
}

// Watchers returns nil when the kernel of this machine lets that many clusters
// watch their files, else a *MissingError. It reads two files and needs no
// rights; where the kernel has no such limits, it says nothing.
func Watchers(sys System, clusters int) error {
	m := Machine{Kernel: map[string]int{}}
	for _, name := range []string{inotifyInstances, inotifyWatches} {
		value, there, err := readSetting(sys.Files, name)
		if err != nil || !there {
			return err
		}
		m.Kernel[name] = value
	}
	return Lacks(m.inotify(Needs{Clusters: clusters}))
}

// userNamespaces describes a daemon that gives containers users of their own.
func (m Machine) userNamespaces() Finding {
	f := Finding{Subject: "user namespaces", Seen: "those of this machine"}
	if m.Docker.UserNamespaces {
		f.Level, f.Seen = Note, "dockerd has userns-remap: nodes and builds are given this machine's users, as kind does"
	}
	return f
}

func (m Machine) memory(needs Needs) Finding {
	need := uint64(needs.Clusters+1) * clusterMemory
	f := Finding{Subject: "memory", Seen: inGiB(m.MemoryTotal)}
	if m.MemoryAvailable != 0 {
		f.Seen = fmt.Sprintf("%s of %s available", inGiB(m.MemoryAvailable), inGiB(m.MemoryTotal))
	}
	switch {
	case m.MemoryTotal == 0:
		f.Level, f.Seen = Note, "not known before Docker answers"
	case m.MemoryTotal < need:
		f.Level, f.Need = Missing, fmt.Sprintf("%s for %d clusters", inGiB(need), needs.Clusters)
		f.Cure = "run fewer clusters, or give the machine more memory"
	case m.MemoryAvailable != 0 && m.MemoryAvailable < need:
		// A lab that is already up is one of those who hold it.
		f.Level, f.Need = Note, fmt.Sprintf("%s for %d clusters that do not run yet", inGiB(need), needs.Clusters)
	}
	return f
}

// space judges the room for Docker and for builds, which is one room when both
// are on the same file system.
func (m Machine) space(needs Needs) []Finding {
	var findings []Finding
	forDocker := uint64(dockerSpace)
	build := needs.BuildImages && m.CacheSpace != nil
	if build && m.DockerSpace != nil && m.DockerSpace.Device == m.CacheSpace.Device {
		build, forDocker = false, dockerSpace+buildSpace
	}
	if m.DockerSpace != nil {
		findings = append(findings, room("disk of Docker", *m.DockerSpace, forDocker, "docker image prune"))
	}
	if build {
		findings = append(findings, room("disk of the build cache", *m.CacheSpace, buildSpace, "go clean -cache"))
	}
	return findings
}

func room(subject string, space Space, need uint64, cure string) Finding {
	f := Finding{Subject: subject, Seen: inGiB(space.Free) + " free"}
	if space.Free < need {
		f.Level, f.Need, f.Cure = Missing, inGiB(need), "make room, for instance with: "+cure
	}
	return f
}

// compiler looks for what makes fedlab's own programs, wherever the node image
// comes from.
func (m Machine) compiler() Finding {
	f := Finding{Subject: "Go", Seen: m.Programs["go"]}
	if f.Seen == "" {
		f.Level, f.Seen, f.Need = Missing, "no go in PATH", "Go, to compile what runs in the clusters"
		f.Cure = installGo
	}
	return f
}

// instead is what a person may do who does not want to build the node image.
const instead = "or build no node image: with --source pull it comes from a registry (--mirror names another one), with --archive from a file"

func (m Machine) build() []Finding {
	findings := []Finding{
		m.tool("C compiler", m.Programs["gcc"], "gcc", "gcc"),
		m.tool("static C library", seen(m.StaticLibc, "found by the C compiler"), staticLibc, "libc6-dev"),
		m.tool("debootstrap", m.Programs["debootstrap"], "debootstrap", "debootstrap"),
		m.tool("gpgv", m.Programs["gpgv"], "gpgv, to verify Debian's packages", "gpgv"),
		m.tool("Debian's keys", seen(m.DebianKeyring, debianKeyring), debianKeyring, "debian-archive-keyring")}
	findings = append(findings, m.cacheMount()...)
	if !m.Root {
		findings = append(findings, Finding{Subject: "user", Level: Missing, Seen: "not root",
			Need: "root: debootstrap makes a root file system", Cure: "run fedlab as root"})
	}
	for i := range findings {
		if f := &findings[i]; f.Level == Missing && len(f.Remedies) == 0 {
			f.Cure += "; " + instead
		}
	}
	return findings
}

// cacheMount judges whether a root file system can be made in the cache:
// debootstrap makes devices there and starts programs, as root.
func (m Machine) cacheMount() []Finding {
	if m.CacheSpace == nil {
		return nil
	}
	f := Finding{Subject: "cache", Seen: "on a file system that a node image can be built on"}
	var seen []string
	if m.CacheSpace.NoPrograms {
		seen = append(seen, "noexec")
	}
	if m.CacheSpace.NoDevices {
		seen = append(seen, "nodev")
	}
	if m.CacheSpace.Remote != "" {
		seen = append(seen, m.CacheSpace.Remote)
	}
	if len(seen) > 0 {
		f.Level, f.Seen = Missing, "on a file system with "+list(seen)
		f.Need = "one of this machine, without noexec and nodev: debootstrap makes devices and starts programs there"
		f.Cure = "name another folder in FEDLAB_CACHE"
	}
	return []Finding{f}
}

func (m Machine) browser() string {
	for _, name := range browsers {
		if path := m.Programs[name]; path != "" {
			return path
		}
	}
	return ""
}

// seen is what a finding says of something that is there.
func seen(there bool, what string) string {
	if !there {
		return ""
	}
	return what
}

// tool is something that a package of Debian brings.
func (m Machine) tool(subject, seen, need, name string) Finding {
	f := Finding{Subject: subject, Seen: seen}
	if seen != "" {
		return f
	}
	f.Level, f.Seen, f.Need = Missing, "not found", need
	f.Cure = m.installation(name)
	return m.repair(f, packages{name})
}

// installation is how a person installs packages here.
func (m Machine) installation(names ...string) string {
	if m.Debian {
		return "as root: apt-get install --no-install-recommends " + strings.Join(names, " ")
	}
	return "install what Debian calls " + strings.Join(names, ", ")
}

func inGiB(bytes uint64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/gib) }
