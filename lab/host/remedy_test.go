package host

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// apply applies a remedy with a clock of its own and returns how long it took.
func apply(t *testing.T, m *fakeMachine, remedy Remedy) (took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		err = remedy.Apply(t.Context(), m.system())
		took = time.Since(begin)
	})
	return took, err
}

// installed lacks nothing but a daemon that runs.
func installed() *fakeMachine {
	m := readyMachine()
	m.up = false
	delete(m.files, daemonPID)
	return m
}

func TestRemediesAreOrderedAndMerged(t *testing.T) {
	got := Remedies([]Finding{
		{Remedies: []Remedy{packages{"docker.io", "iptables"}, start{}}},
		{Remedies: []Remedy{packages{"iptables"}, start{}}},
		{Remedies: []Remedy{theRuntime(), prove{}, reload{7}}},
		{Remedies: []Remedy{setting{ipForward, 1}}},
		{},
	})
	want := []string{setting{ipForward, 1}.String(), theRuntime().String(), "install docker.io and iptables with apt-get",
		start{}.String(), "make the Docker daemon (process 7) read its settings; no container is touched", prove{}.String()}
	var words []string
	for _, remedy := range got {
		words = append(words, remedy.String())
	}
	if !slices.Equal(words, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(words, "\n"), strings.Join(want, "\n"))
	}
	if got := (start{systemd: true}).String(); got != "start the Docker daemon with systemctl" {
		t.Errorf("systemd starts it by: %s", got)
	}
}

func TestPackagesAreFetchedAgainOnlyWhenTheyMust(t *testing.T) {
	const option = "apt-get -qq -y -o DPkg::Lock::Timeout=300 "
	const install = option + "install --no-install-recommends --no-remove "
	tests := map[string]struct {
		failures int
		packages packages
		want     []string
		err      string
	}{
		"first time": {0, packages{"gcc"}, []string{install + "gcc"}, ""},
		"lists out of date": {1, packages{"gcc"},
			[]string{install + "gcc", "dpkg --configure -a", option + "update", install + "gcc"}, ""},
		"never": {2, packages{"gcc"},
			[]string{install + "gcc", "dpkg --configure -a", option + "update", install + "gcc"}, "exit status 100\nexit status 100"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := bareMachine()
			m.aptFailures = test.failures
			_, err := apply(t, m, test.packages)
			if text(err) != test.err {
				t.Errorf("error is %q, want %q", text(err), test.err)
			}
			if !slices.Equal(m.changes, test.want) {
				t.Errorf("ran\n%s\nwant\n%s", strings.Join(m.changes, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// On Debian 13 docker.io brings the daemon only.
func TestPackagesBringTheClientWhereItIsApart(t *testing.T) {
	m := bareMachine()
	sys := m.system()
	sys.Programs = clientApart{m}
	if err := (packages{"docker.io"}).Apply(t.Context(), sys); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Look("docker"); err != nil {
		t.Errorf("no client after %q", m.changes)
	}
}

type clientApart struct{ *fakeMachine }

func (c clientApart) Run(ctx context.Context, command Command) ([]byte, error) {
	out, err := c.fakeMachine.Run(ctx, command)
	if slices.Contains(command.Args, "docker.io") {
		delete(c.programs, "docker")
	}
	return out, err
}

func TestStart(t *testing.T) {
	const started = "start dockerd, log in " + daemonLog
	tests := map[string]struct {
		machine func(*fakeMachine)
		start   start
		changes []string
		err     string
		within  time.Duration
	}{
		"answers after a while": {machine: func(m *fakeMachine) { m.asksLeft = 4 },
			changes: []string{started}, within: time.Second},
		"with systemd": {machine: func(*fakeMachine) {}, start: start{systemd: true},
			changes: []string{"systemctl start docker"}},
		"runs and is about to answer": {machine: func(m *fakeMachine) { m.startDaemon(); m.asksLeft = 2 },
			within: time.Second / 2},
		"pid files that name somebody else": {
			machine: func(m *fakeMachine) {
				m.files[daemonPID], m.files[containerdPID], m.files["/proc/9/stat"] = "9", "9", "9 (containerd-shim (x) y) S 1"
			},
			changes: []string{"remove " + daemonPID, "remove " + containerdPID, started}},
		"pid file that was cut short": {machine: func(m *fakeMachine) { m.files[daemonPID] = "" },
			changes: []string{"remove " + daemonPID, started}},
		"daemon that was killed and not reaped": {
			machine: func(m *fakeMachine) {
				m.files[daemonPID], m.files["/proc/9/stat"] = "9", "9 (dockerd) Z 1"
			},
			changes: []string{"remove " + daemonPID, started}},
		"containerd that survived its daemon": {
			machine: func(m *fakeMachine) {
				m.files[containerdPID], m.files["/proc/9/stat"] = "9", "9 (containerd) S 1"
			},
			changes: []string{started}},
		"ends at once": {machine: func(m *fakeMachine) { m.exits = errors.New("exit status 1") },
			changes: []string{started},
			err: "wait for the Docker daemon: it ended: exit status 1; tries: N, last: no daemon; " +
				daemonLog + " ends with: first line | last line"},
		"never answers": {machine: func(m *fakeMachine) { m.asksLeft = 1000 },
			changes: []string{started}, within: time.Minute,
			err: "wait for the Docker daemon: not within 1m0s; tries: N, last: still starting"},
		"accepts the question and hangs": {machine: func(m *fakeMachine) { m.hangs = true },
			changes: []string{started}, within: time.Minute,
			err: "wait for the Docker daemon: not within 1m0s; tries: N, last: no answer within 10s"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := installed()
			test.machine(m)
			took, err := apply(t, m, test.start)
			if text(err) != test.err {
				t.Errorf("error is %q, want %q", text(err), test.err)
			}
			if !slices.Equal(m.changes, test.changes) {
				t.Errorf("changed %q, want %q", m.changes, test.changes)
			}
			if took != test.within {
				t.Errorf("took %s, want %s", took, test.within)
			}
		})
	}
}

// The one that was there goes away while it is waited for.
func TestStartNoticesThatTheOtherDaemonEnded(t *testing.T) {
	m := installed()
	m.startDaemon()
	m.asksLeft = 1000
	sys := m.system()
	sys.Programs = ending{m}
	var err error
	synctest.Test(t, func(t *testing.T) { err = start{}.Apply(t.Context(), sys) })
	if want := "wait for the Docker daemon: it ended; tries: N, last: still starting"; text(err) != want {
		t.Errorf("error is %q, want %q", text(err), want)
	}
}

type ending struct{ *fakeMachine }

func (e ending) Run(ctx context.Context, command Command) ([]byte, error) {
	if e.asksLeft < 996 {
		delete(e.files, daemonPID)
	}
	return e.fakeMachine.Run(ctx, command)
}

// Two set-ups start a daemon at the same moment: the second one refuses to run,
// and the first one answers to both.
func TestStartAcceptsTheDaemonOfAnother(t *testing.T) {
	m := installed()
	m.exits = errors.New("exit status 1")
	sys := m.system()
	sys.Programs = raced{m}
	var err error
	synctest.Test(t, func(t *testing.T) { err = start{}.Apply(t.Context(), sys) })
	if err != nil {
		t.Error(err)
	}
}

type raced struct{ *fakeMachine }

func (r raced) Start(command Command, log string) (<-chan error, error) {
	r.startDaemon()
	r.asksLeft = 2
	return r.fakeMachine.Start(command, log)
}

func TestStartStopsWhenItIsCancelled(t *testing.T) {
	m := installed()
	m.asksLeft = 1000
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	err := start{}.Apply(ctx, m.system())
	if want := "wait for the Docker daemon: enough; tries: N, last: still starting"; text(err) != want {
		t.Errorf("error is %q, want %q", text(err), want)
	}
}

func TestReload(t *testing.T) {
	m := readyMachine()
	m.files[daemonConfig] = `{"default-runtime": "fedlab"}`
	m.deaf = true
	took, err := apply(t, m, reload{4711})
	if want := "wait for the Docker daemon: not within 10s; tries: N, last: its default runtime is runc"; text(err) != want || took != reloadBound {
		t.Errorf("error is %q after %s, want %q", text(err), took, want)
	}
	m.deaf = false
	if _, err := apply(t, m, reload{4711}); err != nil || m.runtime != runtimeName {
		t.Errorf("runtime is %s, error %v", m.runtime, err)
	}
}

func TestRegister(t *testing.T) {
	r := theRuntime()
	tests := map[string]struct{ config, want, err string }{
		"no file":   {"", `{"default-runtime":"fedlab","runtimes":{"fedlab":{"path":"PATH"}}}`, ""},
		"empty":     {" \n", `{"default-runtime":"fedlab","runtimes":{"fedlab":{"path":"PATH"}}}`, ""},
		"null list": {`{"runtimes": null}`, `{"default-runtime":"fedlab","runtimes":{"fedlab":{"path":"PATH"}}}`, ""},
		"others are kept": {
			`{"log-opts": {"max-size": "1<0m"}, "mtu": 12345678901234567890, "runtimes": {"runsc": {"path": "/x", "runtimeArgs": ["-a"]}}}`,
			`{"default-runtime":"fedlab","log-opts":{"max-size":"1<0m"},"mtu":12345678901234567890,"runtimes":{"fedlab":{"path":"PATH"},"runsc":{"path":"/x","runtimeArgs":["-a"]}}}`, ""},
		"Docker's own default": {`{"default-runtime": "runc"}`, `{"default-runtime":"fedlab","runtimes":{"fedlab":{"path":"PATH"}}}`, ""},
		"an older one":         {`{"default-runtime": "fedlab", "runtimes": {"fedlab": {"path": "/old"}}}`, `{"default-runtime":"fedlab","runtimes":{"fedlab":{"path":"PATH"}}}`, ""},
		"somebody's choice":    {`{"default-runtime": "nvidia"}`, "", "/etc/docker/daemon.json makes nvidia the default runtime"},
		"not JSON":             {`{`, "", "read /etc/docker/daemon.json: unexpected end of JSON input"},
		"not an object":        {`null`, "", "read /etc/docker/daemon.json: it holds null, not an object"},
		"odd runtimes":         {`{"runtimes": 1}`, "", "read runtimes of /etc/docker/daemon.json: json: cannot unmarshal number into Go value of type map[string]json.RawMessage"},
		"odd default":          {`{"default-runtime": 1}`, "", "read default-runtime of /etc/docker/daemon.json: json: cannot unmarshal number into Go value of type string"},
		"odd runtime":          {`{"runtimes": {"fedlab": 1}}`, "", "read runtime fedlab of /etc/docker/daemon.json: json: cannot unmarshal number into Go value of type struct { Path string }"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := r.register([]byte(test.config))
			if text(err) != test.err {
				t.Fatalf("error is %q, want %q", text(err), test.err)
			}
			want := strings.ReplaceAll(test.want, "PATH", r.path())
			if compact(got) != want {
				t.Errorf("got  %s\nwant %s", compact(got), want)
			}
			if again, err := r.register(got); test.err == "" && (err != nil || string(again) != string(got)) {
				t.Errorf("again: %s, %v", again, err)
			}
		})
	}
}

func TestRuntimeKeepsWhatItMayNotChange(t *testing.T) {
	for _, config := range []string{`{`, `{"default-runtime": "nvidia"}`} {
		m := readyMachine()
		m.files[daemonConfig] = config
		before := maps.Clone(m.files)
		if _, err := apply(t, m, theRuntime()); err == nil {
			t.Errorf("%s: no error", config)
		}
		if m.files[daemonConfig] != before[daemonConfig] {
			t.Errorf("%s became %s", config, m.files[daemonConfig])
		}
	}
}

func TestRuntimePathFollowsWhatItIsMadeFrom(t *testing.T) {
	one, other := theRuntime().path(), runtimeWithout([]string{"CAP_BPF"}).path()
	if one == other || !strings.HasPrefix(one, runtimePath) {
		t.Errorf("paths are %s and %s", one, other)
	}
}

func TestSettingIsNotWritten(t *testing.T) {
	m := readyMachine()
	sys := m.system()
	sys.Files = readOnly{m}
	if err := (setting{ipForward, 1}).Apply(t.Context(), sys); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error is %v", err)
	}
}

type readOnly struct{ *fakeMachine }

func (readOnly) WriteFile(string, []byte, fs.FileMode) error { return fs.ErrPermission }

// compact takes the layout out of JSON whose strings hold no spaces.
func compact(data []byte) string { return strings.Join(strings.Fields(string(data)), "") }

// text returns the words of an error; how often something was tried depends on
// which of two things that happen at the same moment is seen first.
func text(err error) string {
	if err == nil {
		return ""
	}
	return regexp.MustCompile(`tries: \d+`).ReplaceAllString(err.Error(), "tries: N")
}
