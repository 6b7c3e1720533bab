package docker

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

var nameless = strings.Repeat("0a", 32)

// disposable is an engine with a container that has an anonymous volume, and one
// that somebody named.
func disposable(t *testing.T) *engine {
	t.Helper()
	e := newEngine(t)
	e.containers = []container.Summary{{ID: "1"}}
	e.volumes = []string{nameless, "named"}
	e.mounts = []container.MountPoint{
		{Type: mount.TypeVolume, Name: nameless}, {Type: mount.TypeVolume, Name: "named"}, {Type: mount.TypeBind},
	}
	return e
}

func TestDispose(t *testing.T) {
	e := disposable(t)
	if err := connect(t, e).Dispose(t.Context(), "1", ours); err != nil {
		t.Fatal(err)
	}
	if len(e.containers) > 0 || !slices.Equal(e.volumes, []string{"named"}) {
		t.Errorf("left: %v and %v", e.containers, e.volumes)
	}
}

// TestDisposeThatIsCutOff fails each call in turn, as a kill would end it there. The
// volume is removed by whoever comes next, or the container is there to say of it.
func TestDisposeThatIsCutOff(t *testing.T) {
	calls := 0
	{
		e := disposable(t)
		if err := connect(t, e).Dispose(t.Context(), "1", ours); err != nil {
			t.Fatal(err)
		}
		calls = len(e.calls)
	}
	for failAt := 1; failAt <= calls; failAt++ {
		e := disposable(t)
		e.failAt = failAt
		c := connect(t, e)
		if err := c.Dispose(t.Context(), "1", ours); err == nil {
			t.Errorf("call %d fails, and it ended well", failAt)
		}
		if err := c.FinishDisposals(t.Context(), ours); err != nil {
			t.Error(err)
		}
		switch {
		case len(e.containers) == 0 && !slices.Equal(e.volumes, []string{"named"}):
			t.Errorf("after call %d, %s: the container is gone, and there are %v", failAt, e.calls[failAt-1], e.volumes)
		case len(e.containers) > 0 && failAt > 3:
			t.Errorf("after call %d the container is left", failAt)
		}
	}
}

// TestDisposeOfWhatIsBeingMade: it cannot be removed yet, and stays listed.
func TestDisposeOfWhatIsBeingMade(t *testing.T) {
	e := disposable(t)
	e.making = []string{"1"}
	if err := connect(t, e).Dispose(t.Context(), "1", ours); err != nil || len(e.containers) != 1 || len(e.volumes) != 2 {
		t.Errorf("error %v, left %v and %v", err, e.containers, e.volumes)
	}
}

func TestUnsettled(t *testing.T) {
	e := newEngine(t)
	on := func(id string, state container.ContainerState) container.Summary {
		s := container.Summary{ID: id, Names: []string{"/node-" + id}, State: state}
		s.HostConfig.NetworkMode = "lab"
		return s
	}
	e.containers = []container.Summary{on("1", container.StateRunning), on("2", container.StateCreated), on("3", container.StateRemoving), on("4", container.StateCreated)}
	e.making = []string{"4"}
	got, err := connect(t, e).Unsettled(t.Context(), "lab")
	want := []string{"docker removes container node-3", "docker makes container node-4"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}
}

// TestRejoin: a container knows its network by an ID, which another network of the
// same name does not have.
func TestRejoin(t *testing.T) {
	for name, tt := range map[string]struct{ was, is string }{
		"the network was made again": {"old", "new"},
		"the network is the same":    {"new", "new"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.containers = []container.Summary{{ID: "1"}}
			e.networks = []network.Summary{existing("new", "lab", "10.192.0.0/18", ours)}
			e.joined = map[string]*network.EndpointSettings{"lab": {NetworkID: tt.was}}
			if err := connect(t, e).Rejoin(t.Context(), "1", "lab"); err != nil {
				t.Fatal(err)
			}
			if got := e.joined["lab"]; got == nil || got.NetworkID != tt.is {
				t.Errorf("it is on %+v", e.joined)
			}
			if rejoined := slices.Contains(e.calls, "POST /networks/{id}/connect"); rejoined != (tt.was != tt.is) {
				t.Errorf("calls %v", e.calls)
			}
		})
	}
}

// TestRemoveVolumes: those that somebody has named, and no notes, which say what else
// has to go.
func TestRemoveVolumes(t *testing.T) {
	e := newEngine(t)
	e.volumes = []string{"quotes-partner-server", nameless, "fedlab-left-1", "quotes-partner-agent"}
	e.volumeLabels = map[string]map[string]string{"fedlab-left-1": {labelLeft: nameless}}
	c := connect(t, e)
	if all, err := c.Volumes(t.Context(), ours); err != nil || len(all) != 2 || all[0].Name != "quotes-partner-agent" || all[1].Name != "quotes-partner-server" {
		t.Errorf("volumes %v, error %v", all, err)
	}
	if err := c.RemoveVolumes(t.Context(), ours); err != nil || !slices.Equal(e.volumes, []string{nameless, "fedlab-left-1"}) {
		t.Errorf("left: %v, error %v", e.volumes, err)
	}
	e.volumes = []string{"one", "two"}
	for failAt := range 3 {
		e.failAt = len(e.calls) + failAt + 1
		if err := c.RemoveVolumes(t.Context(), ours); err == nil {
			t.Errorf("call %d fails, and it ended well", failAt)
		}
		e.volumes = []string{"one", "two"}
	}
}
