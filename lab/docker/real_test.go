package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// realEngine connects to the engine of this machine. Without one the test is
// skipped, except in CI, where there has to be one.
func realEngine(t *testing.T) *Client {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	err = c.Ping(t.Context())
	var unreachable *UnreachableError
	switch {
	case errors.As(err, &unreachable) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return c
}

// realCandidates are out of the way of the subnets that labs use, one /24 each.
func realCandidates() []netip.Prefix {
	subnets := make([]netip.Prefix, 16)
	for i := range subnets {
		subnets[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 191, byte(i), 0}), 24)
	}
	return subnets
}

func quarter(subnet netip.Prefix) netip.Prefix { return netip.PrefixFrom(subnet.Addr(), 26) }

func TestRealNetworks(t *testing.T) {
	c := realEngine(t)
	labels := map[string]string{"dev.fedlab.test": t.Name()}
	names := []string{fmt.Sprintf("fedlab-test-%d-a", os.Getpid()), fmt.Sprintf("fedlab-test-%d-b", os.Getpid())}
	t.Cleanup(func() {
		for _, name := range names {
			if err := c.RemoveNetwork(context.WithoutCancel(t.Context()), name); err != nil {
				t.Error(err)
			}
		}
	})

	first, err := c.EnsureNetwork(t.Context(), names[0], labels, realCandidates(), quarter)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.EnsureNetwork(t.Context(), names[0], labels, realCandidates(), quarter)
	if err != nil || again.ID != first.ID {
		t.Errorf("second call: network %.12s, error %v, want %.12s", again.ID, err, first.ID)
	}
	if first.Containers != quarter(first.Subnet) {
		t.Errorf("containers in %s, want %s", first.Containers, quarter(first.Subnet))
	}

	second, err := c.EnsureNetwork(t.Context(), names[1], labels, realCandidates(), quarter)
	if err != nil || second.Subnet.Overlaps(first.Subnet) {
		t.Errorf("second network on %s next to %s, error %v", second.Subnet, first.Subnet, err)
	}
	// How the engine refuses what the list of networks did not show.
	_, err = c.api.NetworkCreate(t.Context(), names[1], client.NetworkCreateOptions{
		IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: first.Subnet}}},
	})
	if !errdefs.IsPermissionDenied(err) && !errdefs.IsConflict(err) {
		t.Errorf("network on a subnet that is taken: %v", err)
	}
	if _, err = c.EnsureNetwork(t.Context(), "fedlab-test-none", labels, []netip.Prefix{first.Subnet}, quarter); err == nil ||
		!strings.Contains(err.Error(), "overlaps docker network "+names[0]) {
		t.Errorf("third network on the first one's subnet: %v", err)
	}

	bridges, err := occupied()
	if err != nil || !slices.Contains(bridges, first.Subnet) {
		t.Errorf("this machine's addresses and routes %v lack %s, error %v", bridges, first.Subnet, err)
	}
}

// TestRealNetworkRace lets several callers make the same network at once.
func TestRealNetworkRace(t *testing.T) {
	c := realEngine(t)
	name := fmt.Sprintf("fedlab-test-%d-race", os.Getpid())
	t.Cleanup(func() {
		if err := c.RemoveNetwork(context.WithoutCancel(t.Context()), name); err != nil {
			t.Error(err)
		}
	})
	const callers = 4
	got, errs := make([]Network, callers), make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			got[i], errs[i] = c.EnsureNetwork(t.Context(), name, ours, realCandidates(), quarter)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, n := range got[1:] {
		if n.ID != got[0].ID {
			t.Errorf("callers got %.12s and %.12s", got[0].ID, n.ID)
		}
	}
	all, err := c.networks(t.Context())
	if same := named(all, name); err != nil || len(same) != 1 {
		t.Errorf("%d networks are named %s, error %v", len(same), name, err)
	}
}

// archive is a tar archive of one file.
func archive(t *testing.T, name string, mode int64, content []byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// tool builds testdata/tool as a static program.
func tool(t *testing.T) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tool")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "./testdata/tool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestRealImageFromContainer makes an image the way the node image is made:
// import, run, change, commit; and carries it out of the engine and in again.
func TestRealImageFromContainer(t *testing.T) {
	c, ctx := realEngine(t), t.Context()
	repository := fmt.Sprintf("fedlab-test-%d", os.Getpid())
	root, made, tagged := repository+":root", repository+":made", repository+":tagged"
	labels := map[string]string{"dev.fedlab.test": repository}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		left, err := c.Containers(ctx, labels)
		for _, one := range left {
			err = errors.Join(err, c.RemoveContainer(ctx, one.ID))
		}
		for _, ref := range []string{tagged, made, root} {
			err = errors.Join(err, c.RemoveImage(ctx, ref))
		}
		if err != nil {
			t.Error(err)
		}
	})

	must("import", c.Import(ctx, archive(t, "bin/tool", 0o755, tool(t)), root, []string{`ENTRYPOINT ["/bin/tool"]`}))
	id, err := c.RunDetached(ctx, ContainerSpec{Image: root, Command: []string{"wait"}, Labels: labels})
	must("run", err)

	out, err := c.Exec(ctx, id, []string{"/bin/tool", "count"}, io.LimitReader(zeros{}, 5<<20))
	if want := fmt.Sprintln(5 << 20); err != nil || string(out) != want {
		t.Errorf("counted %q, error %v, want %q", out, err, want)
	}
	var exit *ExitError
	if _, err := c.Exec(ctx, id, []string{"/bin/tool", "read", "/note"}, nil); !errors.As(err, &exit) ||
		exit.Code != 3 || exit.Stderr != "open /note: no such file or directory" {
		t.Errorf("read of an absent file: %v", err)
	}
	must("copy", c.CopyTo(ctx, id, "/", archive(t, "note", 0o644, []byte("hello"))))
	if out, err := c.Exec(ctx, id, []string{"/bin/tool", "read", "/note"}, nil); err != nil || string(out) != "hello" {
		t.Errorf("note %q, error %v", out, err)
	}
	_, err = c.Commit(ctx, id, made, []string{"LABEL dev.fedlab.test=" + repository})
	must("commit", err)
	if at, found, err := c.Address(ctx, id, "bridge"); !found || err != nil || !at.Is4() {
		t.Errorf("address %s, found %t, error %v", at, found, err)
	}
	must("freeze", c.FreezeContainer(ctx, id))
	if list, err := c.Containers(ctx, labels); err != nil || len(list) != 1 || list[0].Running {
		t.Errorf("frozen: %+v, error %v", list, err)
	}
	for range 2 {
		must("start", c.StartContainer(ctx, id))
		if list, err := c.Containers(ctx, labels); err != nil || len(list) != 1 || !list[0].Running {
			t.Errorf("after the start: %+v, error %v", list, err)
		}
	}
	must("stop", c.StopContainer(ctx, id, 30*time.Second))
	if at, found, err := c.Address(ctx, id, "bridge"); found || err != nil {
		t.Errorf("after the stop: address %s, found %t, error %v", at, found, err)
	}
	if list, err := c.Containers(ctx, labels); err != nil || len(list) != 1 || list[0].Running || list[0].ExitCode != 7 {
		t.Errorf("after the stop: %+v, error %v", list, err)
	}
	must("start", c.StartContainer(ctx, id))
	must("remove container", c.RemoveContainer(ctx, id))
	must("remove container again", c.RemoveContainer(ctx, id))

	_, err = c.api.ImageTag(ctx, client.ImageTagOptions{Source: made, Target: tagged})
	must("tag", err)
	saved, err := c.SaveImages(ctx, []string{tagged})
	must("save", err)
	images, err := io.ReadAll(saved)
	must("read saved", errors.Join(err, saved.Close()))
	must("remove image", errors.Join(c.RemoveImage(ctx, tagged), c.RemoveImage(ctx, made)))
	if _, found, err := c.Image(ctx, made); found || err != nil {
		t.Errorf("after its removal: image found %t, error %v", found, err)
	}
	must("load", c.LoadImages(ctx, bytes.NewReader(images)))
	list, err := c.Images(ctx, labels)
	if err != nil || len(list) != 1 || !slices.Equal(list[0].References, []string{tagged}) {
		t.Fatalf("after the load: %+v, error %v", list, err)
	}
	one, found, err := c.Image(ctx, tagged)
	if !found || err != nil || one.ID != list[0].ID || one.Labels["dev.fedlab.test"] != repository || one.Size < 1<<20 {
		t.Errorf("image %+v, found %t, error %v", one, found, err)
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
