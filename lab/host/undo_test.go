package host

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// undo runs Undo with a clock of its own.
func undo(t *testing.T, m *fakeMachine, r *recorder) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { err = Undo(t.Context(), m.system(), r) })
	return err
}

// lacking is a machine with a daemon that runs and lacks a capability, and with
// this daemon.json; none where it is empty.
func lacking(config string) *fakeMachine {
	m := readyMachine()
	m.files["/proc/4711/status"] = bareMachine().files["/proc/self/status"]
	m.files[sysctlFile(inotifyInstances)] = "128\n"
	if config != "" {
		m.files[daemonConfig] = config
	}
	return m
}

func TestUndoPutsBackExactlyWhatSetupChanged(t *testing.T) {
	for name, config := range map[string]string{
		"no daemon.json":       "",
		"an empty one":         "\n",
		"one of somebody":      "{ \"mtu\":   1400 }",
		"with another runtime": `{"runtimes": {"runsc": {"path": "/x"}}}`,
		"with runc said":       `{"default-runtime": "runc"}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := lacking(config)
			before := maps.Clone(m.files)
			if err := setUp(t, m, building, &recorder{}); err != nil {
				t.Fatal(err)
			}
			if m.runtime != runtimeName {
				t.Fatalf("runtime is %s after setup", m.runtime)
			}
			if err := undo(t, m, &recorder{}); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(m.files, before) {
				for _, name := range slices.Sorted(maps.Keys(m.files)) {
					if m.files[name] != before[name] {
						t.Errorf("%s is %q, was %q", name, m.files[name], before[name])
					}
				}
				t.Errorf("%d files, were %d", len(m.files), len(before))
			}
			if m.runtime != "runc" {
				t.Errorf("the daemon's default runtime is %s", m.runtime)
			}
			r := &recorder{}
			if err := undo(t, m, r); err != nil || len(r.announced) > 0 {
				t.Errorf("a second undo announces %q, error %v", r.announced, err)
			}
		})
	}
}

func TestUndoKeepsWhatOthersChanged(t *testing.T) {
	m := lacking(`{"mtu": 1400}`)
	if err := setUp(t, m, building, &recorder{}); err != nil {
		t.Fatal(err)
	}
	m.files[daemonConfig] = strings.Replace(m.files[daemonConfig], "1400", "1300", 1)
	m.files[sysctlFile(inotifyInstances)] = "4096\n"
	if err := undo(t, m, &recorder{}); err != nil {
		t.Fatal(err)
	}
	if got := compact([]byte(m.files[daemonConfig])); got != `{"mtu":1300}` {
		t.Errorf("daemon.json is %s", got)
	}
	if got := m.files[sysctlFile(inotifyInstances)]; got != "4096\n" {
		t.Errorf("inotify instances are %s", got)
	}
}

// What an earlier version set up has no record.
func TestUndoWithoutARecord(t *testing.T) {
	m := lacking("")
	if err := setUp(t, m, building, &recorder{}); err != nil {
		t.Fatal(err)
	}
	delete(m.files, recordFile)
	if err := undo(t, m, &recorder{}); err != nil {
		t.Fatal(err)
	}
	if _, there := m.files[daemonConfig]; there || m.runtime != "runc" {
		t.Errorf("daemon.json is %q, runtime %s", m.files[daemonConfig], m.runtime)
	}
	if _, there := m.files[theRuntime().path()]; there {
		t.Error("the runtime is still there")
	}
}

func TestUndoRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*fakeMachine)
		want  string
	}{
		"not root": {func(m *fakeMachine) { m.uid = 1000 }, "this machine lacks user (not root; needs root, to put back what setup changed)"},
		"containers need it": {func(m *fakeMachine) {
			m.containers = map[string]string{"one": "runc", "quotes-market": "fedlab", "two": "fedlab"}
		},
			"this machine lacks containers (quotes-market and two need the OCI runtime; needs no container that was made with it)"},
		"daemon.json is broken": {func(m *fakeMachine) { m.files[daemonConfig] = "{" }, "read /etc/docker/daemon.json: unexpected end of JSON input"},
		"the record is broken":  {func(m *fakeMachine) { m.files[recordFile] = "{" }, "read /usr/local/lib/fedlab/setup.json: unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			m := lacking("")
			if err := setUp(t, m, building, &recorder{}); err != nil {
				t.Fatal(err)
			}
			tt.spoil(m)
			m.changes = nil
			if err := undo(t, m, &recorder{}); err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if len(m.changes) > 0 {
				t.Errorf("changed %q", m.changes)
			}
		})
	}
}

// Whatever call of an undo fails, the next one ends it.
func TestUndoConvergesAfterAnyCallFailed(t *testing.T) {
	whole := lacking("")
	if err := setUp(t, whole, building, &recorder{}); err != nil {
		t.Fatal(err)
	}
	begun := whole.calls
	if err := undo(t, whole, &recorder{}); err != nil {
		t.Fatal(err)
	}
	for n := begun + 1; n <= whole.calls; n++ {
		for _, late := range []bool{false, true} {
			m := lacking("")
			if err := setUp(t, m, building, &recorder{}); err != nil {
				t.Fatal(err)
			}
			m.failAt, m.late = n, late
			if err := undo(t, m, &recorder{}); err != nil && !errors.Is(err, errInjected) {
				t.Errorf("call %d, late %t: error is %v", n, late, err)
			}
			m.failAt = 0
			if err := undo(t, m, &recorder{}); err != nil {
				t.Fatalf("call %d, late %t: again: %v", n, late, err)
			}
			if _, there := m.files[daemonConfig]; there || m.runtime != "runc" || m.files[sysctlFile(inotifyInstances)] != "128\n" {
				t.Errorf("call %d, late %t: daemon.json %q, runtime %s, instances %s", n, late, m.files[daemonConfig], m.runtime, m.files[sysctlFile(inotifyInstances)])
			}
		}
	}
}

// Where a change fails, daemon.json is what it was, and so is the daemon.
func TestSetupPutsDaemonConfigBack(t *testing.T) {
	const config = `{"mtu": 1400}`
	for name, tt := range map[string]struct {
		spoil func(*fakeMachine)
		want  string
	}{
		"dockerd refuses it": {func(m *fakeMachine) { m.validates, m.refuses = true, runtimeName },
			"dockerd refuses what would become /etc/docker/daemon.json: exit status 1: unable to configure"},
		"no container starts with it": {func(m *fakeMachine) { m.unproven = true },
			"a privileged container does not start: exit status 126"},
		"the daemon does not start with it": {func(m *fakeMachine) {
			m.up, m.exits = false, errors.New("exit status 1")
			delete(m.files, daemonPID)
			m.files["/proc/self/status"] = bareMachine().files["/proc/self/status"]
		}, "wait for the Docker daemon: it ended: exit status 1; tries: N, last: no daemon; " + daemonLog + " ends with: first line | last line"},
	} {
		t.Run(name, func(t *testing.T) {
			m := lacking(config)
			tt.spoil(m)
			err := setUp(t, m, building, &recorder{})
			if err == nil || !strings.HasSuffix(text(err), ": "+tt.want) {
				t.Errorf("error %v, want …%s", err, tt.want)
			}
			if m.files[daemonConfig] != config {
				t.Errorf("daemon.json is %s", m.files[daemonConfig])
			}
			if m.up && m.runtime != "runc" {
				t.Errorf("the daemon's default runtime is %s", m.runtime)
			}
			if left := m.files[daemonConfig+".fedlab"]; left != "" {
				t.Errorf("left %s", left)
			}
			m.refuses, m.unproven, m.exits = "", false, nil
			if err := setUp(t, m, building, &recorder{}); err != nil || m.runtime != runtimeName {
				t.Errorf("afterwards: runtime %s, error %v", m.runtime, err)
			}
		})
	}
}

// A compiler that leaves an empty file leaves no runtime.
func TestRuntimeRefusesAnEmptyProgram(t *testing.T) {
	m := lacking("")
	sys := m.system()
	sys.Files = emptied{m}
	var err error
	synctest.Test(t, func(t *testing.T) { err = theRuntime().Apply(t.Context(), sys) })
	if want := "the compiler left " + theRuntime().path() + ".partial empty"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, there := m.files[daemonConfig]; there {
		t.Error("it was registered")
	}
}

type emptied struct{ *fakeMachine }

func (e emptied) ReadFile(name string) ([]byte, error) {
	if strings.HasSuffix(name, ".partial") {
		return nil, nil
	}
	return e.fakeMachine.ReadFile(name)
}
