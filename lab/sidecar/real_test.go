package sidecar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/docker"
)

// helped names the container that this process is to run instead of tests; see
// helper.
const helped = "FEDLAB_SIDECAR_TEST"

// settles asks this process what settings testcontainers-go has.
const settles = "FEDLAB_SIDECAR_SETTLES"

// TestSettlesForOneEngine: a file of the user's may name another engine than the
// one that all of fedlab uses.
func TestSettlesForOneEngine(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".testcontainers.properties"), []byte("tc.host=tcp://127.0.0.1:1\ndocker.host=tcp://127.0.0.1:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), self)
	command.Env = append(os.Environ(), settles+"=true", "HOME="+home)
	out, err := command.CombinedOutput()
	if want := `<nil> "" "" true HOME=` + home; err != nil || string(out) != want {
		t.Errorf("settings %s, error %v, want %s", out, err, want)
	}
}

func TestMain(m *testing.M) {
	// What somebody may have asked testcontainers-go for.
	if err := os.Setenv(reaperOff, "false"); err != nil {
		panic(err)
	}
	if os.Getenv(settles) != "" {
		err := settle()
		read := testcontainers.ReadConfig().Config
		_, _ = fmt.Fprintf(os.Stdout, "%v %q %q %t HOME=%s", err, read.TestcontainersHost, read.Host, read.RyukDisabled, os.Getenv("HOME"))
		os.Exit(0)
	}
	if name := os.Getenv(helped); name != "" {
		if _, err := Run(context.Background(), specOf(name)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fixture is the engine of this machine, and what a test has there: an image of
// testdata/server and two networks, all under one name.
type fixture struct {
	*docker.Client
	name string
	spec Spec
	// other is a network that the spec does not name.
	other string
}

// newFixture skips the test where no engine answers, except in CI, where there
// has to be one.
func newFixture(t *testing.T) fixture {
	t.Helper()
	c, err := docker.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	err = c.Ping(t.Context())
	var unreachable *docker.UnreachableError
	switch {
	case errors.As(err, &unreachable) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	name := fmt.Sprintf("sidecar-test-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
	f := fixture{Client: c, name: name, spec: specOf(name), other: name + "-other"}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		left, err := c.Containers(ctx, f.spec.Labels)
		for _, one := range left {
			err = errors.Join(err, c.RemoveContainer(ctx, one.ID))
		}
		err = errors.Join(err, c.RemoveNetwork(ctx, f.spec.Network), c.RemoveNetwork(ctx, f.other))
		images, listErr := c.Images(ctx, f.spec.Labels)
		for _, img := range images {
			// The last name of an image goes with it; one of the same name may
			// have taken it.
			for _, ref := range append(img.References, img.ID) {
				err = errors.Join(err, c.RemoveImage(ctx, ref))
			}
		}
		if err := errors.Join(err, listErr); err != nil {
			t.Error(err)
		}
	})
	for _, network := range []string{f.spec.Network, f.other} {
		if _, err := c.EnsureNetwork(t.Context(), network, f.spec.Labels, candidates(), func(subnet netip.Prefix) netip.Prefix { return subnet }); err != nil {
			t.Fatal(err)
		}
	}
	f.load(t)
	return f
}

// load makes the image, again where it is there.
func (f fixture) load(t *testing.T) {
	t.Helper()
	changes := []string{`ENTRYPOINT ["/server"]`, "ENV KIND=image", "LABEL dev.fedlab.test=" + f.name}
	if err := f.Import(t.Context(), server(t), f.spec.Image, changes); err != nil {
		t.Fatal(err)
	}
}

// specOf is the container that a test runs.
func specOf(name string) Spec {
	return Spec{
		Name: name, Image: "fedlab.local/" + name + ":1", Network: name, Labels: map[string]string{"dev.fedlab.test": name},
		Env: map[string]string{"DO": "listen", "SECRET": "s3cret"}, Control: 8080,
	}
}

// candidates are out of the way of the subnets that labs and other tests use.
func candidates() []netip.Prefix {
	subnets := make([]netip.Prefix, 32)
	for i := range subnets {
		subnets[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 190, byte(i), 0}), 24)
	}
	return subnets
}

// server builds testdata/server and packs it.
func server(t *testing.T) *bytes.Buffer {
	t.Helper()
	program := filepath.Join(t.TempDir(), "server")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "./testdata/server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	err = w.WriteHeader(&tar.Header{Name: "server", Mode: 0o755, Size: int64(len(content))})
	_, writeErr := w.Write(content)
	if err := errors.Join(err, writeErr, w.Close()); err != nil {
		t.Fatal(err)
	}
	return &packed
}

// run runs a container that must come up.
func (f fixture) run(t *testing.T, spec Spec) Container {
	t.Helper()
	c, err := Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ids lists the containers of the test.
func (f fixture) ids(t *testing.T) []string {
	t.Helper()
	list, err := f.Containers(t.Context(), f.spec.Labels)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

// with is a spec with another value of a variable.
func with(spec Spec, name, value string) Spec {
	spec.Env = maps.Clone(spec.Env)
	spec.Env[name] = value
	return spec
}

func TestRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	network, _, err := f.Network(t.Context(), f.spec.Network)
	if err != nil {
		t.Fatal(err)
	}
	c := f.run(t, f.spec)
	if c.Name != f.name || !network.Subnet.Contains(c.Address) {
		t.Errorf("container %+v, want %s in %s", c, f.name, network.Subnet)
	}
	// Docker was asked for one port on loopback, and finds a free one.
	asked := map[netip.AddrPort]uint16{netip.MustParseAddrPort("127.0.0.1:0"): 8080}
	if published, _, err := f.PortBindings(t.Context(), c.ID); !maps.Equal(published, asked) || !c.Control.Addr().IsLoopback() || c.Control.Port() == 0 || err != nil {
		t.Errorf("published %v, error %v, control at %s, want %v", published, err, c.Control, asked)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.Control.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(request); err != nil || response.StatusCode != http.StatusNotFound {
		t.Errorf("answer %v, error %v", response, err)
	} else if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	list, err := f.ContainersOn(t.Context(), f.spec.Network)
	if err != nil || len(list) != 1 || list[0].ID != c.ID || list[0].Image != f.spec.Image {
		t.Errorf("on its network: %+v, error %v", list, err)
	}
	if bridged, err := f.ContainersOn(t.Context(), "bridge"); err != nil || slices.ContainsFunc(bridged, func(b docker.Container) bool { return b.ID == c.ID }) {
		t.Errorf("on the default network: %+v, error %v", bridged, err)
	}
	if reapers, err := f.Containers(t.Context(), map[string]string{"org.testcontainers.ryuk": "true"}); err != nil || len(reapers) > 0 {
		t.Errorf("reapers %+v, error %v", reapers, err)
	}
	if value := os.Getenv(reaperOff); value != "false" {
		t.Errorf("%s is %q now", reaperOff, value)
	}
	if again := f.run(t, f.spec); !reflect.DeepEqual(again, c) {
		t.Errorf("a second run: %+v, want %+v", again, c)
	}
}

// TestRunReplaces: what is there and is not what is asked for gives way.
func TestRunReplaces(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	elsewhere := f.spec
	elsewhere.Network = f.other
	another := elsewhere
	another.Env, another.Control = maps.Clone(another.Env), 8081
	another.Env["PORT"] = "8081"
	fewer := f.spec
	fewer.Env = map[string]string{"DO": "listen"}
	before := f.run(t, f.spec)
	for _, tt := range []struct {
		what string
		spec Spec
		do   func()
	}{
		{"one that was stopped", f.spec, func() {
			if err := f.StopContainer(t.Context(), before.ID, 0); err != nil {
				t.Fatal(err)
			}
		}},
		{"another value", with(f.spec, "SECRET", "other"), nil},
		{"one variable less", fewer, nil},
		{"the value of the image replaced", with(f.spec, "KIND", "ours"), nil},
		{"another network", elsewhere, nil},
		{"another port", another, nil},
		{"another image of the same name", another, func() { f.load(t) }},
	} {
		if tt.do != nil {
			tt.do()
		}
		now := f.run(t, tt.spec)
		if ids := f.ids(t); now.ID == before.ID || !slices.Equal(ids, []string{now.ID}) {
			t.Errorf("%s: %.12s, there are %.12s, before %.12s", tt.what, now.ID, ids, before.ID)
		}
		before = now
	}
}

// TestRunFails: each failure tells why, without a secret, and leaves nothing.
func TestRunFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	noImage, noNetwork := f.spec, f.spec
	noImage.Image = "fedlab.local/" + f.name + ":none"
	noNetwork.Network = f.name + "-none"
	for want, spec := range map[string]Spec{
		"there is no image " + noImage.Image:                                  noImage,
		"there is no network " + noNetwork.Network:                            noNetwork,
		"it has ended with exit code 3: server: cannot use …, that is, \"…\"": with(with(f.spec, "DO", "end"), "SECRET", "s3\"cret"),
	} {
		want = "run container " + f.name + ": " + want
		if _, err := Run(t.Context(), spec); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if ids := f.ids(t); len(ids) > 0 {
			t.Errorf("%s: it left %.12s", want, ids)
		}
	}
}

// TestRunEnds: ended in the course of the wait, nothing is left either, and the
// error says what was seen.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	_, err := Run(ctx, with(f.spec, "DO", "idle"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for its answer on port 8080: ") {
		t.Errorf("error %v", err)
	}
	if ids := f.ids(t); len(ids) > 0 {
		t.Errorf("it left %.12s", ids)
	}
	cancel()
	if _, err := Run(ctx, f.spec); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v of one that was never wanted", err)
	}
	if ids := f.ids(t); len(ids) > 0 {
		t.Errorf("it left %.12s", ids)
	}
}

// TestRunLeavesOthers: the name alone does not make it ours.
func TestRunLeavesOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	foreign := f.spec
	foreign.Labels = map[string]string{"dev.fedlab.test": "somebody-else"}
	c := f.run(t, foreign)
	t.Cleanup(func() {
		if err := f.RemoveContainer(context.WithoutCancel(t.Context()), c.ID); err != nil {
			t.Error(err)
		}
	})
	want := "run container " + f.name + ": a container of that name is somebody else's: it lacks the label dev.fedlab.test=" + f.name
	if _, err := Run(t.Context(), f.spec); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if again := f.run(t, foreign); !reflect.DeepEqual(again, c) {
		t.Errorf("it is %+v now, was %+v", again, c)
	}
}

// helper is this program as a process that runs the container of a test.
func helper(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helped+"="+name)
	return cmd
}

// TestRunIsSilent: testcontainers-go likes to tell what it does.
func TestRunIsSilent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	out, err := helper(t, f.name).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("said %q, error %v", out, err)
	}
	if ids := f.ids(t); len(ids) != 1 {
		t.Errorf("there are %.12s, want one container: it outlives the process", ids)
	}
}

// TestRunAfterAKill: what a killed process has started carries the labels, and the
// next run takes it or replaces it.
func TestRunAfterAKill(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	killed := helper(t, f.name)
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	err := check.Until(t.Context(), check.Bound{Within: time.Minute, Every: time.Millisecond}, check.Check{
		Name: "the container is there",
		Probe: func(context.Context) error {
			if len(f.ids(t)) == 0 {
				return errors.New("it is not")
			}
			return nil
		},
	})
	if err := errors.Join(err, killed.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // it was killed
	now := f.run(t, f.spec)
	if ids := f.ids(t); !slices.Equal(ids, []string{now.ID}) {
		t.Errorf("there are %.12s, want %.12s", ids, now.ID)
	}
}

// machine is a container that owns a PID namespace, and one that joins it.
func (f fixture) machine() (owner, joined Spec) {
	owner = Spec{Name: f.name, Image: f.spec.Image, Network: f.spec.Network, Labels: f.spec.Labels, Env: map[string]string{"DO": "idle"}}
	joined = owner
	joined.Name, joined.Joins, joined.Env = f.name+"-joined", f.name, f.spec.Env
	joined.User, joined.Capabilities = "1000", []string{}
	joined.Published = []uint16{8080}
	joined.Volumes = []Volume{{Name: f.name, Folder: "/data"}}
	joined.Files = map[string][]byte{"/config/file": []byte("one")}
	return owner, joined
}

// volumes removes those of the test when it has ended, after its containers.
func (f fixture) volumes(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		list, err := f.Containers(ctx, f.spec.Labels)
		for _, c := range list {
			err = errors.Join(err, f.RemoveContainer(ctx, c.ID))
		}
		if err := errors.Join(err, f.RemoveVolumes(ctx, f.spec.Labels)); err != nil {
			t.Error(err)
		}
	})
}

// TestRunJoins: a program that joins the processes of another may be replaced alone, keeps
// its volume, and ends with the owner of the PID namespace.
func TestRunJoins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.volumes(t)
	owner, joined := f.machine()
	if _, err := Run(t.Context(), joined); err == nil || !strings.Contains(err.Error(), "join the processes of container "+f.name+": it does not run") {
		t.Errorf("without the owner: error %v", err)
	}
	first, tokens := f.run(t, owner), 0
	joined.Seed = func(context.Context) (map[string][]byte, error) {
		tokens++
		return map[string][]byte{"/start/token": []byte("t0ken")}, nil
	}
	c := f.run(t, joined)
	if again := f.run(t, joined); !reflect.DeepEqual(again, c) || tokens != 1 {
		t.Errorf("a second run: %+v, want %+v, after %d tokens", again, c, tokens)
	}
	for _, file := range []string{"/config/file", "/start/token"} {
		if there, err := f.HasFile(t.Context(), c.ID, file); err != nil || !there {
			t.Errorf("%s is there: %t, error %v", file, there, err)
		}
	}
	if found, there, err := Find(t.Context(), joined.Name); err != nil || !there || !reflect.DeepEqual(found, c) || !found.Published[8080].Addr().IsLoopback() {
		t.Errorf("found %+v, %t, error %v; want %+v", found, there, err, c)
	}
	joined.Files = map[string][]byte{"/config/file": []byte("two")}
	second := f.run(t, joined)
	if second.ID == c.ID || tokens != 2 {
		t.Errorf("with another file it is still %.12s, after %d tokens", second.ID, tokens)
	}
	if volumes, err := f.Volumes(t.Context(), f.spec.Labels); err != nil || len(volumes) != 1 || volumes[0].Name != f.name {
		t.Errorf("volumes %v, error %v", volumes, err)
	}
	if err := f.StopContainer(t.Context(), first.ID, 0); err != nil {
		t.Fatal(err)
	}
	err := check.Until(t.Context(), check.Bound{Within: 10 * time.Second, Every: 100 * time.Millisecond}, check.Check{
		Name: "it ends with the owner of its PID namespace",
		Probe: func(ctx context.Context) error {
			if _, there, err := Find(ctx, joined.Name); err != nil || there {
				return errors.Join(err, errors.New("it runs"))
			}
			return nil
		},
	})
	if err != nil {
		t.Error(err)
	}
	if third := f.run(t, owner); third.ID == first.ID {
		t.Error("the owner was not replaced")
	}
	f.run(t, joined)
}

// TestRunAtAnAddress: a container has the address that is asked for.
func TestRunAtAnAddress(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	network, _, err := f.Network(t.Context(), f.spec.Network)
	if err != nil {
		t.Fatal(err)
	}
	spec := f.spec
	spec.Address = network.Subnet.Addr()
	for range 200 {
		spec.Address = spec.Address.Next()
	}
	if c := f.run(t, spec); c.Address != spec.Address {
		t.Errorf("it is at %s, want %s", c.Address, spec.Address)
	}
}
