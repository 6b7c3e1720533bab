package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

func TestContainers(t *testing.T) {
	e := newEngine(t)
	e.exitCode = 137
	e.containers = []container.Summary{
		{ID: "1", Names: []string{"/quotes-market-control-plane"}, Image: "node", Labels: ours, State: container.StateRunning},
		{ID: "2", Names: []string{"/quotes-broker-control-plane"}, State: container.StateExited},
	}
	c := connect(t, e)
	got, err := c.Containers(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	want := []Container{
		{ID: "1", Name: "quotes-market-control-plane", Image: "node", Labels: ours, State: "running", Running: true},
		{ID: "2", Name: "quotes-broker-control-plane", State: "exited", ExitCode: 137},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if e.created != `{"label":{"dev.fedlab.lab=quotes":true}}` {
		t.Errorf("filters %v", e.created)
	}
}

func TestContainersOn(t *testing.T) {
	e := newEngine(t)
	on := func(id, made string, joined ...string) container.Summary {
		s := container.Summary{ID: id, State: container.StateCreated}
		s.HostConfig.NetworkMode = made
		if joined != nil {
			s.NetworkSettings = &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{}}
		}
		for _, name := range joined {
			s.NetworkSettings.Networks[name] = &network.EndpointSettings{}
		}
		return s
	}
	e.containers = []container.Summary{
		on("1", "lab", "lab"), on("2", "lab"), on("3", "bridge", "bridge", "lab"), on("4", "bridge", "bridge"), on("5", "lab-too", "lab-too"),
	}
	got, err := connect(t, e).ContainersOn(t.Context(), "lab")
	var ids []string
	for _, one := range got {
		ids = append(ids, one.ID)
	}
	if want := []string{"1", "2", "3"}; err != nil || !reflect.DeepEqual(ids, want) {
		t.Errorf("got %v, error %v, want %v", ids, err, want)
	}
}

func TestPortBindings(t *testing.T) {
	e := newEngine(t)
	e.containers = []container.Summary{{ID: "1", State: container.StateExited}}
	at := func(address, port string) []network.PortBinding {
		return []network.PortBinding{{HostIP: netip.MustParseAddr(address), HostPort: port}}
	}
	e.ports = network.PortMap{
		network.MustParsePort("30081/tcp"): at("127.0.0.1", "8080"),
		network.MustParsePort("6443/tcp"):  at("127.0.0.1", "41234"),
		network.MustParsePort("53/udp"):    at("127.0.0.1", "5353"),
	}
	c := connect(t, e)
	got, found, err := c.PortBindings(t.Context(), "1")
	want := map[netip.AddrPort]uint16{
		netip.MustParseAddrPort("127.0.0.1:8080"):  30081,
		netip.MustParseAddrPort("127.0.0.1:41234"): 6443,
	}
	if !found || err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, found %t, error %v, want %v", got, found, err, want)
	}
	if got, found, err := c.PortBindings(t.Context(), "2"); found || err != nil {
		t.Errorf("a container that is gone: %v, found %t, error %v", got, found, err)
	}
	e.ports = network.PortMap{network.MustParsePort("80/tcp"): at("127.0.0.1", "many")}
	_, _, err = c.PortBindings(t.Context(), "1")
	if want := `read port bindings of container 1: strconv.ParseUint: parsing "many": invalid syntax`; message(err) != want {
		t.Errorf("error %q, want %q", message(err), want)
	}
}

func TestAddress(t *testing.T) {
	at := netip.MustParseAddr("10.192.0.2")
	for name, tt := range map[string]struct {
		joined map[string]*network.EndpointSettings
		want   netip.Addr
	}{
		"runs":                  {map[string]*network.EndpointSettings{"lab": {IPAddress: at}, "bridge": {IPAddress: netip.MustParseAddr("172.17.0.2")}}, at},
		"is stopped":            {map[string]*network.EndpointSettings{"lab": {}}, netip.Addr{}},
		"is on another network": {map[string]*network.EndpointSettings{"bridge": {IPAddress: at}}, netip.Addr{}},
		"has nothing to report": {nil, netip.Addr{}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.containers = []container.Summary{{ID: "1"}}
			e.joined = tt.joined
			got, found, err := connect(t, e).Address(t.Context(), "1", "lab")
			if got != tt.want || found != tt.want.IsValid() || err != nil {
				t.Errorf("address %s, found %t, error %v, want %s", got, found, err, tt.want)
			}
		})
	}
	if got, found, err := connect(t, newEngine(t)).Address(t.Context(), "1", "lab"); found || err != nil {
		t.Errorf("a container that is gone: %s, found %t, error %v", got, found, err)
	}
}

// A container that is frozen is not started: it is let go on.
func TestStartContainerThatIsFrozen(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e)
	if err := errors.Join(c.FreezeContainer(t.Context(), "1"), c.StartContainer(t.Context(), "1")); err != nil || e.startStatus != 0 {
		t.Errorf("error %v, the engine answers a start with %d", err, e.startStatus)
	}
}

func TestRunDetachedRemovesWhatDoesNotStart(t *testing.T) {
	e := newEngine(t)
	e.startStatus = http.StatusBadRequest
	_, err := connect(t, e).RunDetached(t.Context(), ContainerSpec{Image: "node", Command: []string{"sleep", "inf"}, Privileged: true})
	if want := "start container made: Error response from daemon: cannot start"; message(err) != want {
		t.Errorf("error %q, want %q", message(err), want)
	}
	if len(e.containers) != 0 {
		t.Errorf("containers left: %v", e.containers)
	}
}

func TestRunDetached(t *testing.T) {
	e := newEngine(t)
	id, err := connect(t, e).RunDetached(t.Context(), ContainerSpec{
		Image: "node", Entrypoint: []string{"sleep"}, Command: []string{"inf"}, Labels: ours, Privileged: true, Network: "lab",
	})
	if err != nil || id != "made" {
		t.Fatalf("id %q, error %v", id, err)
	}
	req := e.created.(container.CreateRequest)
	if !req.HostConfig.Privileged || req.HostConfig.UsernsMode != "host" || req.HostConfig.NetworkMode != "lab" || req.Image != "node" ||
		!reflect.DeepEqual([]string(req.Entrypoint), []string{"sleep"}) || !reflect.DeepEqual([]string(req.Cmd), []string{"inf"}) ||
		!reflect.DeepEqual(req.Labels, ours) {
		t.Errorf("asked for %+v, %+v", req.Config, req.HostConfig)
	}
}

// Only a privileged container is given the users of the machine.
func TestRunDetachedKeepsUsersApart(t *testing.T) {
	e := newEngine(t)
	if _, err := connect(t, e).RunDetached(t.Context(), ContainerSpec{Image: "node"}); err != nil {
		t.Fatal(err)
	}
	if users := e.created.(container.CreateRequest).HostConfig.UsernsMode; users != "" {
		t.Errorf("user namespace %q, want Docker's own choice", users)
	}
}

func TestRemoveContainer(t *testing.T) {
	for name, status := range map[string]int{
		"removed":                      http.StatusNoContent,
		"gone already":                 http.StatusNotFound,
		"somebody else is removing it": http.StatusConflict,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.removal = status
			e.containers = []container.Summary{{ID: "1"}}
			if err := connect(t, e).RemoveContainer(t.Context(), "1"); err != nil {
				t.Fatal(err)
			}
			if e.created != "force=1&v=1" {
				t.Errorf("asked to remove with %v", e.created)
			}
			if left := len(e.containers); left != 0 && status != http.StatusNotFound {
				t.Errorf("%d containers left", left)
			}
		})
	}
}

func TestStopContainerRoundsUp(t *testing.T) {
	e := newEngine(t)
	if err := connect(t, e).StopContainer(t.Context(), "1", 1500*time.Millisecond); err != nil || e.created != "2" {
		t.Errorf("error %v, asked for %v seconds, want 2", err, e.created)
	}
}

func TestCommitAndCopy(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e)
	id, err := c.Commit(t.Context(), "1", "fedlab/node:1", []string{"ENV container=docker"})
	query, _ := e.created.(url.Values)
	if err != nil || id != "sha256:committed" || query.Get("repo") != "docker.io/fedlab/node" || query.Get("tag") != "1" || query.Get("changes") != "ENV container=docker" {
		t.Errorf("id %q, error %v, query %v", id, err, query)
	}
	if err := c.CopyTo(t.Context(), "1", "/kind", strings.NewReader("tar")); err != nil || e.created != "/kind" || e.archive != "tar" {
		t.Errorf("error %v, folder %v, archive %q", err, e.created, e.archive)
	}
}

func TestExec(t *testing.T) {
	echo := func(stdin io.Reader, stdout, stderr io.Writer) {
		in, _ := io.ReadAll(stdin)
		_, _ = fmt.Fprintf(stdout, "got %s", in)
		_, _ = io.WriteString(stderr, strings.Repeat("x", stderrTail)+"no such file\n")
	}
	broken := errors.New("disk on fire")
	tests := map[string]struct {
		stdin    io.Reader
		exitCode int
		stdout   string
		err      string
	}{
		"input":          {stdin: strings.NewReader("hello"), stdout: "got hello"},
		"exit code":      {stdin: strings.NewReader(""), exitCode: 3, stdout: "got ", err: "container 1: cat -: exit code 3: …" + strings.Repeat("x", stderrTail-12) + "no such file"},
		"input breaks":   {stdin: iotest.ErrReader(broken), stdout: "got ", err: "run cat in container 1: read input: disk on fire"},
		"input and code": {stdin: iotest.ErrReader(broken), exitCode: 3, stdout: "got ", err: "run cat in container 1: read input: disk on fire"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.exec, e.exitCode, e.stillRunning = echo, tt.exitCode, 2
			out, err := connect(t, e).Exec(t.Context(), "1", []string{"cat", "-"}, tt.stdin)
			if string(out) != tt.stdout || message(err) != tt.err {
				t.Errorf("stdout %q, error %q, want %q and %q", out, message(err), tt.stdout, tt.err)
			}
			var exit *ExitError
			if wantExit := tt.err != "" && !strings.Contains(tt.err, "read input"); errors.As(err, &exit) != wantExit {
				t.Errorf("error is an ExitError: %t, want %t", !wantExit, wantExit)
			}
		})
	}
}

func TestLogs(t *testing.T) {
	e := newEngine(t)
	e.exec = func(_ io.Reader, stdout, stderr io.Writer) {
		_, _ = io.WriteString(stdout, "starts\n")
		_, _ = io.WriteString(stderr, "ends\n")
	}
	var out strings.Builder
	c := connect(t, e)
	if err := c.Logs(t.Context(), "1", time.Minute, true, &out); err != nil || out.String() != "starts\nends\n" {
		t.Errorf("error %v, log %q", err, out.String())
	}
	if asked, ok := e.created.(string); !ok || !strings.Contains(asked, "follow=1") || !strings.Contains(asked, "since=") || !strings.Contains(asked, "stderr=1") {
		t.Errorf("asked for %v", e.created)
	}
	e.failAt = len(e.calls) + 1
	if err := c.Logs(t.Context(), "1", 0, false, &out); err == nil || !strings.HasPrefix(err.Error(), "read log of container 1: ") {
		t.Errorf("error %v", err)
	}
}

func TestExecWithoutInput(t *testing.T) {
	e := newEngine(t)
	e.exec = func(_ io.Reader, stdout, _ io.Writer) { _, _ = io.WriteString(stdout, "v1.36.3\n") }
	out, err := connect(t, e).Exec(t.Context(), "1", []string{"cat", "/kind/version"}, nil)
	if err != nil || string(out) != "v1.36.3\n" {
		t.Errorf("stdout %q, error %v", out, err)
	}
	if req := e.created.(container.ExecCreateRequest); req.AttachStdin {
		t.Error("attached an input that there is not")
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	for name, stick := range map[string]func(e *engine, until func()){
		"while the command runs": func(e *engine, until func()) {
			e.exec = func(io.Reader, io.Writer, io.Writer) { until() }
		},
		"while the engine does not answer": func(e *engine, until func()) { e.beforeExec = until },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			over := make(chan struct{})
			stick(e, func() {
				cancel(errors.New("user gave up"))
				<-over
			})
			c := connect(t, e)
			t.Cleanup(func() { close(over) })
			_, err := c.Exec(ctx, "1", []string{"sleep", "inf"}, nil)
			if want := "run sleep in container 1: user gave up"; message(err) != want {
				t.Errorf("error %q, want %q", message(err), want)
			}
		})
	}
}
