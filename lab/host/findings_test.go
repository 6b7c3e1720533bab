package host

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// find surveys m and returns what is said about one subject; nothing said is
// the zero Finding.
func find(t *testing.T, m *fakeMachine, needs Needs, subject string) Finding {
	t.Helper()
	seen, err := Survey(t.Context(), m.system(), "/cache")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range seen.Findings(needs) {
		if f.Subject == subject {
			return f
		}
	}
	return Finding{}
}

func TestFindings(t *testing.T) {
	lacking := func(m *fakeMachine) { m.files["/proc/4711/status"] = bareMachine().files["/proc/self/status"] }
	registered := func(m *fakeMachine) {
		lacking(m)
		m.files[theRuntime().path()] = "program"
		m.files[theRuntime().path()+sumSuffix] = sumOf([]byte("program")) + "\n"
		m.files[daemonConfig] = `{"default-runtime": "fedlab", "runtimes": {"fedlab": {"path": "` + theRuntime().path() + `"}}}`
	}
	down := func(m *fakeMachine) {
		m.up = false
		delete(m.files, daemonPID)
	}
	tests := map[string]struct {
		subject string
		machine func(*fakeMachine)
		want    Finding
	}{
		"system of root on Debian": {"system", func(*fakeMachine) {},
			Finding{Seen: "Debian GNU/Linux 12 (bookworm)"}},
		"system of root on Ubuntu's kin": {"system", func(m *fakeMachine) {
			m.files["/etc/os-release"] = "PRETTY_NAME=Mint\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"
		},
			Finding{Seen: "Mint"}},
		"system of somebody else": {"system", func(m *fakeMachine) { m.uid = 7 },
			Finding{Seen: "Debian GNU/Linux 12 (bookworm), not root: nothing is changed"}},
		"system of another distribution": {"system", func(m *fakeMachine) { m.files["/etc/os-release"] = "PRETTY_NAME=Alpine\nID=alpine\n" },
			Finding{Seen: "Alpine: nothing is changed"}},
		"docker answers": {"docker daemon", func(*fakeMachine) {},
			Finding{Seen: "20.10.24 at unix:///var/run/docker.sock"}},
		"docker is installed and down": {"docker daemon", down,
			Finding{Level: Missing, Seen: "no daemon", Need: "a Docker daemon that answers", Cure: "as root: dockerd", Remedies: []Remedy{start{}}}},
		"docker is down under systemd": {"docker daemon", func(m *fakeMachine) { down(m); m.files["/proc/1/comm"] = "systemd\n" },
			Finding{Level: Missing, Seen: "no daemon", Need: "a Docker daemon that answers", Cure: "as root: systemctl start docker", Remedies: []Remedy{start{true}}}},
		"docker is down and its settings are broken": {"docker daemon", func(m *fakeMachine) { down(m); m.files[daemonConfig] = "{" },
			Finding{Level: Missing, Seen: "read /etc/docker/daemon.json: unexpected end of JSON input", Need: "a Docker daemon that answers", Cure: "repair /etc/docker/daemon.json"}},
		"docker runs and does not let this user in": {"docker daemon", func(m *fakeMachine) { m.up, m.uid = false, 1000 },
			Finding{Level: Missing, Seen: "no daemon", Need: "a Docker daemon that answers", Cure: "let your user reach it, and log in again; as root: usermod -aG docker USER"}},
		"docker is elsewhere and down": {"docker daemon", func(m *fakeMachine) { m.up, m.endpoint = false, "tcp://10.0.0.1:2375" },
			Finding{Level: Missing, Seen: "no daemon", Need: "a Docker daemon that answers",
				Cure: "start the daemon there, or unset DOCKER_HOST and choose another one with: docker context use"}},
		"only the daemon is not installed": {"docker daemon", func(m *fakeMachine) { down(m); delete(m.programs, "dockerd") },
			Finding{Level: Missing, Seen: "not installed", Need: "a Docker daemon that answers",
				Cure:     "as root: apt-get install --no-install-recommends docker.io iptables",
				Remedies: []Remedy{packages{"docker.io"}, start{}}}},
		"only iptables is not installed": {"docker daemon", func(m *fakeMachine) { down(m); delete(m.programs, "iptables") },
			Finding{Level: Missing, Seen: "not installed", Need: "a Docker daemon that answers",
				Cure:     "as root: apt-get install --no-install-recommends docker.io iptables",
				Remedies: []Remedy{packages{"iptables"}, start{}}}},
		"capabilities are complete": {"capabilities", func(*fakeMachine) {}, Finding{Seen: "complete"}},
		"capabilities of a daemon seen by nobody": {"capabilities", func(m *fakeMachine) { delete(m.files, daemonPID) },
			Finding{Level: Note, Seen: "not known: the daemon is not among the processes seen here"}},
		"capabilities of a daemon that does not run": {"capabilities", func(m *fakeMachine) { down(m); m.files["/proc/self/status"] = "CapBnd: 1fffeffffff" },
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE", Need: "an OCI runtime that does without, as Docker's default",
				Cure: "as root, on Debian or Ubuntu: fedlab setup", Remedies: []Remedy{theRuntime(), prove{}}}},
		"capabilities lack, daemon runs": {"capabilities", lacking,
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE", Need: "an OCI runtime that does without, as Docker's default",
				Cure: "as root, on Debian or Ubuntu: fedlab setup", Remedies: []Remedy{theRuntime(), reload{4711}, prove{}}}},
		"capabilities lack, no Go": {"capabilities", func(m *fakeMachine) { lacking(m); delete(m.programs, "go") },
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE; no go in PATH", Need: "an OCI runtime that does without, as Docker's default",
				Cure: installGo}},
		"capabilities lack, another runtime was chosen": {"capabilities", func(m *fakeMachine) { lacking(m); m.files[daemonConfig] = `{"default-runtime": "nvidia"}` },
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE; /etc/docker/daemon.json makes nvidia the default runtime",
				Need: "an OCI runtime that does without, as Docker's default", Cure: "repair /etc/docker/daemon.json"}},
		"capabilities lack, runtime written and not read": {"capabilities", registered,
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE; Docker has not read /etc/docker/daemon.json",
				Need: "an OCI runtime that does without, as Docker's default", Cure: "as root: systemctl reload docker, or send dockerd the signal HUP",
				Remedies: []Remedy{reload{4711}}}},
		"capabilities lack, runtime in use": {"capabilities", func(m *fakeMachine) { registered(m); m.runtime = runtimeName },
			Finding{Seen: "the bounding set lacks CAP_SYS_RESOURCE; Docker's default runtime does without"}},
		"capabilities lack, runtime in use is gone": {"capabilities", func(m *fakeMachine) { registered(m); m.runtime = runtimeName; delete(m.files, theRuntime().path()) },
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE", Need: "an OCI runtime that does without, as Docker's default",
				Cure: "as root, on Debian or Ubuntu: fedlab setup", Remedies: []Remedy{theRuntime(), reload{4711}, prove{}}}},
		"capabilities lack, runtime in use was cut short": {"capabilities", func(m *fakeMachine) { registered(m); m.runtime = runtimeName; m.files[theRuntime().path()] = "" },
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE", Need: "an OCI runtime that does without, as Docker's default",
				Cure: "as root, on Debian or Ubuntu: fedlab setup", Remedies: []Remedy{theRuntime(), reload{4711}, prove{}}}},
		"capabilities lack, a flag of dockerd chooses": {"capabilities", func(m *fakeMachine) {
			lacking(m)
			m.files["/proc/4711/cmdline"] = "/usr/bin/dockerd\x00--default-runtime=crun\x00"
		},
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE; dockerd was started with --default-runtime=crun",
				Need: "an OCI runtime that does without, as Docker's default", Cure: "start dockerd without that flag, and say the same in /etc/docker/daemon.json"}},
		"capabilities lack, dockerd reads another file": {"capabilities", func(m *fakeMachine) {
			lacking(m)
			m.files["/proc/4711/cmdline"] = "dockerd\x00--config-file=/etc/other.json\x00"
		},
			Finding{Level: Missing, Seen: "the bounding set lacks CAP_SYS_RESOURCE; dockerd was started with --config-file=/etc/other.json",
				Need: "an OCI runtime that does without, as Docker's default", Cure: "start dockerd without that flag, and say the same in /etc/docker/daemon.json"}},
		"forwarding was switched off": {"ip forwarding", func(m *fakeMachine) { m.files[sysctlFile(ipForward)] = "0\n" },
			Finding{Level: Missing, Seen: "net.ipv4.ip_forward = 0", Need: "at least 1", Cure: "as root: sysctl -w net.ipv4.ip_forward=1", Remedies: []Remedy{setting{ipForward, 1}}}},
		"forwarding is the daemon's to switch on": {"ip forwarding", down, Finding{}},
		"storage of a daemon":                     {"storage", func(*fakeMachine) {}, Finding{Seen: "overlay2"}},
		"storage to be":                           {"storage", down, Finding{Seen: "the kernel offers overlay"}},
		"storage without overlay": {"storage", func(m *fakeMachine) { down(m); m.files["/proc/filesystems"] = "nodev\toverlayx\n" },
			Finding{Level: Note, Seen: "the kernel does not offer overlay yet", Cure: "modprobe overlay"}},
		"cgroup 1": {"cgroup", func(*fakeMachine) {},
			Finding{Level: Note, Seen: "version 1: the kubelet refuses it from 1.35 on, unless failCgroupV1 is false"}},
		"cgroup 2": {"cgroup", func(m *fakeMachine) { m.files["/sys/fs/cgroup/cgroup.controllers"] = "cpu memory\n" },
			Finding{Seen: "version 2"}},
		"cgroup of nowhere": {"cgroup", func(m *fakeMachine) { m.endpoint, m.up = "tcp://10.0.0.1:2375", false },
			Finding{Level: Note, Seen: "version not known before Docker answers"}},
		"memory suffices": {"memory", func(*fakeMachine) {}, Finding{Seen: "8.0 GiB of 16.0 GiB available"}},
		"memory is in use": {"memory", func(m *fakeMachine) { m.files["/proc/meminfo"] = "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n" },
			Finding{Level: Note, Seen: "1.0 GiB of 4.0 GiB available", Need: "3.0 GiB for 2 clusters that do not run yet"}},
		"memory of a daemon elsewhere": {"memory", func(m *fakeMachine) { m.endpoint = "tcp://10.0.0.1:2375" },
			Finding{Seen: "4.0 GiB"}},
		"memory of nowhere": {"memory", func(m *fakeMachine) { m.endpoint, m.up = "tcp://10.0.0.1:2375", false },
			Finding{Level: Note, Seen: "not known before Docker answers"}},
		"disk for Docker and builds in one": {"disk of Docker", func(m *fakeMachine) { m.space.Free = 11 << 30 },
			Finding{Level: Missing, Seen: "11.0 GiB free", Need: "12.0 GiB", Cure: "make room, for instance with: docker image prune"}},
		"disk for builds only, Docker elsewhere": {"disk of the build cache", func(m *fakeMachine) { m.endpoint, m.space.Free = "tcp://10.0.0.1:2375", 7<<30 },
			Finding{Level: Missing, Seen: "7.0 GiB free", Need: "8.0 GiB", Cure: "make room, for instance with: go clean -cache"}},
		"no Go": {"Go", func(m *fakeMachine) { delete(m.programs, "go") },
			Finding{Level: Missing, Seen: "no go in PATH", Need: "Go, to compile what runs in the clusters", Cure: installGo}},
		"no static libc": {"static C library", func(m *fakeMachine) { delete(m.programs, "libc6-dev") },
			Finding{Level: Missing, Seen: "not found", Need: "libc.a", Cure: "as root: apt-get install --no-install-recommends libc6-dev", Remedies: []Remedy{packages{"libc6-dev"}}}},
		"no keys": {"Debian's keys", func(m *fakeMachine) { delete(m.files, debianKeyring) },
			Finding{Level: Missing, Seen: "not found", Need: debianKeyring, Cure: "as root: apt-get install --no-install-recommends debian-archive-keyring", Remedies: []Remedy{packages{"debian-archive-keyring"}}}},
		"no debootstrap on another distribution": {"debootstrap", func(m *fakeMachine) { delete(m.programs, "debootstrap"); m.files["/etc/os-release"] = "ID=arch" },
			Finding{Level: Missing, Seen: "not found", Need: "debootstrap", Cure: "install what Debian calls debootstrap; " + instead}},
		"builds without root": {"user", func(m *fakeMachine) { m.uid = 1000 },
			Finding{Level: Missing, Seen: "not root", Need: "root: debootstrap makes a root file system", Cure: "run fedlab as root; " + instead}},
		"inotify for few":      {"inotify instances", func(*fakeMachine) {}, Finding{Seen: "fs.inotify.max_user_instances = 512"}},
		"a cache that is fine": {"cache", func(*fakeMachine) {}, Finding{Seen: "on a file system that a node image can be built on"}},
		"a cache where nothing starts": {"cache", func(m *fakeMachine) { m.space.NoPrograms = true },
			Finding{Level: Missing, Seen: "on a file system with noexec", Need: "one of this machine, without noexec and nodev: debootstrap makes devices and starts programs there",
				Cure: "name another folder in FEDLAB_CACHE; " + instead}},
		"a cache on NFS": {"cache", func(m *fakeMachine) { m.space.NoDevices, m.space.Remote = true, "NFS" },
			Finding{Level: Missing, Seen: "on a file system with nodev and NFS", Need: "one of this machine, without noexec and nodev: debootstrap makes devices and starts programs there",
				Cure: "name another folder in FEDLAB_CACHE; " + instead}},
		"users of this machine": {"user namespaces", func(*fakeMachine) {}, Finding{Seen: "those of this machine"}},
		"users of their own": {"user namespaces", func(m *fakeMachine) { m.security = []string{"name=seccomp,profile=default", "name=userns"} },
			Finding{Level: Note, Seen: "dockerd has userns-remap: nodes and builds are given this machine's users, as kind does"}},
		"inotify of another machine": {"inotify watches", func(m *fakeMachine) { m.endpoint = "tcp://10.0.0.1:2375" }, Finding{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := readyMachine()
			test.machine(m)
			if !reflect.ValueOf(test.want).IsZero() {
				test.want.Subject = test.subject
			}
			if got := find(t, m, building, test.subject); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if len(m.changes) > 0 {
				t.Errorf("looking changed %q", m.changes)
			}
		})
	}
}

func TestFindingsAskForBuildToolsOnlyToBuild(t *testing.T) {
	m := readyMachine()
	for _, name := range []string{"go", "gcc", "debootstrap"} {
		delete(m.programs, name)
	}
	m.space.Free = 5 << 30
	seen, err := Survey(t.Context(), m.system(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := Lacks(seen.Findings(Needs{Clusters: 2})); err != nil {
		t.Error(err)
	}
}

// Where a registry has the node image, nobody needs root or a C compiler; Go
// makes the demo programs there, too.
func TestFindingsAskForGoAloneToCompile(t *testing.T) {
	m := readyMachine()
	m.uid = 1000
	for _, name := range []string{"go", "gcc", "debootstrap"} {
		delete(m.programs, name)
	}
	seen, err := Survey(t.Context(), m.system(), "")
	if err != nil {
		t.Fatal(err)
	}
	err = Lacks(seen.Findings(Needs{Clusters: 2, Compile: true}))
	if want := "this machine lacks Go (no go in PATH; needs Go, to compile what runs in the clusters)"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestFindingsAskForABrowserOnlyToTestPages(t *testing.T) {
	const subject = "browser"
	m := readyMachine()
	testing := Needs{Clusters: 2, Tests: true}
	if got := find(t, m, Needs{Clusters: 2}, subject); got.Subject != "" {
		t.Errorf("without such tests: %+v", got)
	}
	want := Finding{Subject: subject, Level: Missing, Seen: "not found", Need: "Chromium, to test pages with",
		Cure: "as root: apt-get install --no-install-recommends chromium", Remedies: []Remedy{packages{"chromium"}}}
	if got := find(t, m, testing, subject); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	m.programs["google-chrome"] = "/opt/google-chrome"
	if got := find(t, m, testing, subject); !reflect.DeepEqual(got, Finding{Subject: subject, Seen: "/opt/google-chrome"}) {
		t.Errorf("with another one: %+v", got)
	}
}

func TestFindingsMeasureTwoFileSystemsApart(t *testing.T) {
	m := Machine{DockerSpace: &Space{Device: 1, Free: 5 << 30}, CacheSpace: &Space{Device: 2, Free: 9 << 30}}
	findings := m.space(Needs{BuildImages: true})
	if len(findings) != 2 || Lacks(findings) != nil {
		t.Errorf("findings are %+v", findings)
	}
}

// Docker answers, and the ports that it publishes are not on this machine.
func TestFindingsOfADockerOutOfReach(t *testing.T) {
	m := readyMachine()
	sys := m.system()
	sys.Reach = func(context.Context) error { return errors.New("fedlab runs in a container") }
	seen, err := Survey(t.Context(), sys, "")
	if err != nil {
		t.Fatal(err)
	}
	err = Lacks(seen.Findings(Needs{Clusters: 2}))
	if want := "this machine lacks published ports (fedlab runs in a container; needs a Docker on this machine itself)"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// The daemon is on another machine and does not answer: starting it would not help.
func TestFindingsOfASilentDockerElsewhere(t *testing.T) {
	m := readyMachine()
	m.up, m.endpoint = false, "ssh://10.0.0.1"
	sys := m.system()
	sys.Reach = func(context.Context) error { return errors.New("the engine runs on another machine") }
	seen, err := Survey(t.Context(), sys, "")
	if err != nil {
		t.Fatal(err)
	}
	err = Lacks(seen.Findings(Needs{Clusters: 2}))
	if want := "published ports (the engine runs on another machine; needs a Docker on this machine itself)"; !strings.Contains(text(err), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// What the kernel lets be watched has to grow with the clusters, for setup and
// for up.
func TestWatchersGrowWithTheClusters(t *testing.T) {
	m := readyMachine()
	const lacks = "this machine lacks inotify instances (fs.inotify.max_user_instances = 512; needs at least 1792), inotify watches (fs.inotify.max_user_watches = 524288; needs at least 917504)"
	for clusters, want := range map[int]string{2: "", 4: "", 14: lacks} {
		if err := Watchers(m.system(), clusters); text(err) != want {
			t.Errorf("%d clusters: error %v, want %s", clusters, err, want)
		}
	}
	if got := find(t, m, Needs{Clusters: 14}, "inotify instances"); len(got.Remedies) != 1 || got.Remedies[0] != (setting{inotifyInstances, 1792}) {
		t.Errorf("finding %+v", got)
	}
	m.files[sysctlFile(inotifyInstances)] = "128\n"
	if err := Watchers(m.system(), 2); text(err) != "this machine lacks inotify instances (fs.inotify.max_user_instances = 128; needs at least 512)" {
		t.Errorf("after a reboot: %v", err)
	}
	clear(m.files)
	if err := Watchers(m.system(), 14); err != nil {
		t.Errorf("without such limits: %v", err)
	}
}

func TestFindingInJSON(t *testing.T) {
	got, err := json.Marshal(Finding{Subject: "memory", Level: Missing, Seen: "1", Need: "2", Cure: "3", Remedies: []Remedy{start{}}})
	const want = `{"subject":"memory","level":"missing","seen":"1","need":"2","cure":"3"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestSurveyNamesWhatItCannotRead(t *testing.T) {
	tests := map[string]struct {
		file, content, want string
	}{
		"memory":           {"/proc/meminfo", "MemTotal: 1 kB", "read /proc/meminfo: no line MemAvailable"},
		"setting":          {sysctlFile(inotifyWatches), "many", `read fs.inotify.max_user_watches: strconv.Atoi: parsing "many": invalid syntax`},
		"last capability":  {"/proc/sys/kernel/cap_last_cap", "", `read the kernel's last capability: strconv.Atoi: parsing "": invalid syntax`},
		"no bounding set":  {"/proc/4711/status", "", "read the bounding set: no line CapBnd"},
		"odd bounding set": {"/proc/4711/status", "CapBnd:\tx", `read the bounding set: strconv.ParseUint: parsing "x": invalid syntax`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := readyMachine()
			m.files[test.file] = test.content
			_, err := Survey(t.Context(), m.system(), "")
			if want := "survey this machine: " + test.want; err == nil || err.Error() != want {
				t.Errorf("error is %v, want %s", err, want)
			}
		})
	}
}

// A capability that the kernel of this machine does not know is not missing.
func TestMissingCapabilitiesStopsAtTheKernelsLast(t *testing.T) {
	got, err := missingCapabilities("CapBnd:\t0000003ffeffffff\n", "37")
	if err != nil || !slices.Equal(got, []string{"CAP_SYS_RESOURCE"}) {
		t.Errorf("got %q, %v", got, err)
	}
	got, err = missingCapabilities("CapBnd:\t0000003fffffffff\n", "41")
	if want := []string{"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestSurveyOfADaemonThatReportsItsErrorAndSucceeds(t *testing.T) {
	m := readyMachine()
	sys := m.system()
	sys.Programs = &answering{fakeMachine: m, info: `{"ServerErrors": ["permission denied"]}`}
	seen, err := Survey(t.Context(), sys, "")
	if err != nil || seen.Docker.Answers || seen.Docker.Problem != "docker info: permission denied" {
		t.Errorf("got %+v, %v", seen.Docker, err)
	}
	sys.Programs = &answering{fakeMachine: m, info: `not JSON`}
	if seen, err = Survey(t.Context(), sys, ""); err != nil || !strings.HasPrefix(seen.Docker.Problem, "read docker info: ") {
		t.Errorf("got %+v, %v", seen.Docker, err)
	}
}

func TestSurveyWithABrokenContext(t *testing.T) {
	m := readyMachine()
	sys := m.system()
	sys.Programs = &answering{fakeMachine: m, context: errors.New(`context "x" does not exist`)}
	seen, err := Survey(t.Context(), sys, "")
	if err != nil {
		t.Fatal(err)
	}
	f := seen.dockerDaemon()
	if f.Level != Missing || f.Seen != `context "x" does not exist` || len(f.Remedies) > 0 {
		t.Errorf("got %+v", f)
	}
}

func TestFindingsAskForServersOnlyToTestWhatUsesThem(t *testing.T) {
	m := Machine{Linux: true, Root: true, Debian: true, Programs: map[string]string{}}
	for subject, name := range map[string]string{"PostgreSQL": "postgresql", "HAProxy": "haproxy"} {
		for _, needs := range []Needs{{Clusters: 2}, {Clusters: 2, Tests: true}} {
			var got *Finding
			for _, f := range m.Findings(needs) {
				if f.Subject == subject {
					got = &f
				}
			}
			if asked := got != nil; asked != needs.Tests {
				t.Fatalf("asked for %s: %t, want %t", subject, asked, needs.Tests)
			}
			if got != nil && (got.Level != Missing || got.Cure != "as root: apt-get install --no-install-recommends "+name) {
				t.Errorf("finding %+v", *got)
			}
		}
	}
}
