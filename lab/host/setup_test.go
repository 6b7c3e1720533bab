package host

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

var building = Needs{Clusters: 2, BuildImages: true}

const runtimePath = "/usr/local/lib/fedlab/oci-runtime-"

// theRuntime is the one that the bare machine needs.
func theRuntime() ociRuntime { return runtimeWithout([]string{"CAP_SYS_RESOURCE"}) }

// setUp runs Setup with a clock of its own, so that waits take no time.
func setUp(t *testing.T, m *fakeMachine, needs Needs, r *recorder) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		err = Setup(t.Context(), m.system(), needs, "/cache", r)
	})
	return err
}

func TestSetupChangesNothingWhenNothingIsMissing(t *testing.T) {
	m, r := readyMachine(), &recorder{}
	before := maps.Clone(m.files)
	if err := setUp(t, m, building, r); err != nil {
		t.Fatal(err)
	}
	if len(m.changes) > 0 || !maps.Equal(before, m.files) {
		t.Errorf("changed: %q", m.changes)
	}
	if len(r.announced) > 0 || len(r.surveys) != 1 {
		t.Errorf("announced %q after %d surveys", r.announced, len(r.surveys))
	}
}

func TestSetupRepairsABareMachine(t *testing.T) {
	m, r := bareMachine(), &recorder{}
	m.asksLeft = 3
	if err := setUp(t, m, building, r); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"set fs.inotify.max_user_instances to 512 until the next boot",
		"set fs.inotify.max_user_watches to 524288 until the next boot",
		"make " + theRuntime().path() + ", built here where it is not there yet, Docker's default OCI runtime in " +
			"/etc/docker/daemon.json; it does without CAP_SYS_RESOURCE",
		"install docker.io, iptables, gcc, libc6-dev, debootstrap, gpgv and debian-archive-keyring with apt-get",
		"start the Docker daemon in the background, its log in /var/log/fedlab-dockerd.log",
		"start a privileged container to see that the OCI runtime works, and remove it with its image",
	}
	if !slices.Equal(r.announced, want) {
		t.Errorf("announced\n%s\nwant\n%s", strings.Join(r.announced, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(r.applied, want) {
		t.Errorf("applied %q, announced %q", r.applied, want)
	}
	program := theRuntime().path()
	const apt = "apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends --no-remove "
	wantChanges := []string{
		"write " + recordFile,
		"write /proc/sys/fs/inotify/max_user_instances",
		"write " + recordFile,
		"write /proc/sys/fs/inotify/max_user_watches",
		"write " + recordFile,
		"write " + program + ".go",
		"build " + program + ".partial",
		"write " + program + ".sha256",
		"rename " + program + ".partial " + program,
		"write " + recordFile,
		"write /etc/docker/daemon.json",
		apt + "docker.io iptables gcc libc6-dev debootstrap gpgv debian-archive-keyring",
		"start dockerd, log in /var/log/fedlab-dockerd.log",
		"write " + proofProgram + ".go",
		"build " + proofProgram,
		"write " + proofArchive,
		"docker import " + proofArchive + " " + proofImage,
		"docker run --rm --privileged --network none " + proofImage + " /proof",
		"docker image rm --force " + proofImage,
		"remove " + proofProgram,
		"remove " + proofProgram + ".go",
		"remove " + proofArchive,
	}
	if !slices.Equal(m.changes, wantChanges) {
		t.Errorf("changed\n%s\nwant\n%s", strings.Join(m.changes, "\n"), strings.Join(wantChanges, "\n"))
	}
	if m.runtime != runtimeName {
		t.Errorf("the daemon's default runtime is %s", m.runtime)
	}
	for _, command := range m.ran {
		if command.Program == "apt-get" && !slices.Contains(command.Env, "DEBIAN_FRONTEND=noninteractive") {
			t.Errorf("apt-get may ask questions: %q", command)
		}
	}
	m.changes = nil
	if err := setUp(t, m, building, r); err != nil || len(m.changes) > 0 {
		t.Errorf("a second set-up changed %q, error %v", m.changes, err)
	}
}

func TestSetupInstallsWhatTestsNeed(t *testing.T) {
	m, r := readyMachine(), &recorder{}
	if err := setUp(t, m, Needs{Clusters: 2, Tests: true}, r); err != nil {
		t.Fatal(err)
	}
	if want := []string{"install chromium, postgresql and haproxy with apt-get"}; !slices.Equal(r.applied, want) {
		t.Errorf("applied %q, want %q", r.applied, want)
	}
}

// Whatever call fails, before or after it had its effect, Setup says so, and
// the next one ends what was begun: so does one that was killed.
func TestSetupConvergesAfterAnyCallFailed(t *testing.T) {
	machines := map[string]func() *fakeMachine{
		"bare": bareMachine,
		"with systemd": func() *fakeMachine {
			m := bareMachine()
			m.files["/proc/1/comm"] = "systemd\n"
			return m
		},
		"with a daemon that runs": func() *fakeMachine {
			m := readyMachine()
			m.files["/proc/4711/status"] = bareMachine().files["/proc/self/status"]
			return m
		},
		"with stale pid files": func() *fakeMachine {
			m := bareMachine()
			m.files[daemonPID], m.files[containerdPID] = "1", "1"
			m.files["/proc/1/stat"] = "1 (process_api) S 0"
			return m
		},
	}
	for name, machine := range machines {
		whole := machine()
		if err := setUp(t, whole, building, &recorder{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for n := range whole.calls {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/call %d/late %t", name, n+1, late), func(t *testing.T) {
					m := machine()
					m.failAt, m.late = n+1, late
					err := setUp(t, m, building, &recorder{})
					var lacks *MissingError
					if err != nil && !errors.Is(err, errInjected) && !errors.As(err, &lacks) {
						t.Errorf("error is %v", err)
					}
					m.failAt = 0
					if err := setUp(t, m, building, &recorder{}); err != nil {
						t.Fatalf("after %v: %v", err, err)
					}
					if !m.up || (strings.Contains(m.files[daemonConfig], runtimeName) && m.runtime != runtimeName) {
						t.Errorf("daemon up %t with runtime %s", m.up, m.runtime)
					}
					m.changes = nil
					if err := setUp(t, m, building, &recorder{}); err != nil || len(m.changes) > 0 {
						t.Errorf("a third set-up changed %q, error %v", m.changes, err)
					}
				})
			}
		}
	}
}

func TestSetupStopsWhenTheAnnouncementIsRefused(t *testing.T) {
	m, r := bareMachine(), &recorder{refuse: errors.New("not now")}
	if err := setUp(t, m, building, r); !errors.Is(err, r.refuse) {
		t.Errorf("error is %v", err)
	}
	if len(m.changes) > 0 || len(r.applied) > 0 {
		t.Errorf("changed %q", m.changes)
	}
}

func TestSetupTellsWhatOnlyAPersonCanRepair(t *testing.T) {
	tests := map[string]struct {
		machine func(*fakeMachine)
		want    string
	}{
		"not root": {
			func(m *fakeMachine) { m.uid = 1000 },
			"as root: apt-get install --no-install-recommends docker.io iptables",
		},
		"another distribution": {
			func(m *fakeMachine) { m.files["/etc/os-release"] = "PRETTY_NAME='Fedora Linux 42'\nID=fedora\n" },
			"install Docker: https://docs.docker.com/engine/install/",
		},
		"not Linux": {
			func(m *fakeMachine) { clear(m.files) },
			"install Docker: https://docs.docker.com/engine/install/",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m, r := bareMachine(), &recorder{}
			test.machine(m)
			err := setUp(t, m, building, r)
			var lacks *MissingError
			if !errors.As(err, &lacks) {
				t.Fatalf("error is %v", err)
			}
			var cures []string
			for _, f := range lacks.Findings {
				if f.Level != Missing || f.Need == "" || f.Cure == "" {
					t.Errorf("%+v says neither what is needed nor what to do", f)
				}
				cures = append(cures, f.Cure)
			}
			if !slices.Contains(cures, test.want) {
				t.Errorf("cures\n%s\nlack\n%s", strings.Join(cures, "\n"), test.want)
			}
			if len(m.changes) > 0 || len(r.announced) > 0 {
				t.Errorf("changed %q, announced %q", m.changes, r.announced)
			}
		})
	}
}

func TestSetupReportsWhatRemains(t *testing.T) {
	m := readyMachine()
	m.files[sysctlFile(inotifyInstances)] = "128\n"
	m.files["/proc/meminfo"] = "MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n"
	err := setUp(t, m, building, &recorder{})
	const want = "this machine lacks memory (1.0 GiB of 2.0 GiB available; needs 3.0 GiB for 2 clusters)"
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if !slices.Equal(m.changes, []string{"write " + recordFile, "write /proc/sys/fs/inotify/max_user_instances"}) {
		t.Errorf("changed %q", m.changes)
	}
}
