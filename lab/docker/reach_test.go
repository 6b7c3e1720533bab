package docker

import (
	"errors"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestReach(t *testing.T) {
	bridge := func(gateway string) []network.Summary {
		n := existing("1", "bridge", "172.17.0.0/16", nil)
		n.IPAM.Config[0].Gateway = netip.MustParseAddr(gateway)
		return []network.Summary{n}
	}
	for name, tt := range map[string]struct {
		version   string
		contained bool
		networks  []network.Summary
		want      string
	}{
		"Docker on this machine":                          {`{}`, false, bridge("172.17.0.1"), ""},
		"Docker without a bridge":                         {`{}`, true, nil, ""},
		"containers that cannot be connected to":          {`{}`, false, bridge("172.17.0.2"), ""},
		"in a container that has the machine's network":   {`{}`, true, bridge("172.17.0.1"), ""},
		"in a container, with the socket of what runs it": {`{}`, true, bridge("172.17.0.2"), "fedlab runs in a container and the engine outside of it, and the ports that it publishes on loopback (the Kubernetes APIs and pages) are there and not here"},
		"Podman": {`{"Components": [{"Name": "Podman Engine", "Version": "5.0"}]}`, false, bridge("172.17.0.1"),
			"it is Podman, which answers in Docker's place, and a lab needs Docker itself"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.version, e.networks = tt.version, tt.networks
			c := connect(t, e)
			c.addresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("172.17.0.1")}, nil }
			c.contained = func() bool { return tt.contained }
			err := c.Reach(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var out *OutOfReachError
			if want := "no lab can run on the docker engine at " + c.Engine().Host + ": " + tt.want; !errors.As(err, &out) || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// TestReachOfAnEngineElsewhere: its ports are on that machine, whatever it answers.
func TestReachOfAnEngineElsewhere(t *testing.T) {
	c := connect(t, newEngine(t))
	c.addresses = func() ([]netip.Addr, error) { return nil, nil }
	c.engine.Host = "ssh://root@192.0.2.7"
	const want = "no lab can run on the docker engine at ssh://root@192.0.2.7: the engine runs on another machine, 192.0.2.7, and the ports that it publishes on loopback (the Kubernetes APIs and pages) are there and not here"
	if err := c.Reach(t.Context()); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestElsewhere(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for host, want := range map[string]string{
		"unix:///var/run/docker.sock": "",
		"tcp://127.0.0.1:2375":        "",
		"tcp://192.0.2.1:2376":        "",
		"ssh://root@127.0.0.1":        "",
		"tcp://192.0.2.7:2376":        "the engine runs on another machine, 192.0.2.7",
		"ssh://root@192.0.2.7":        "the engine runs on another machine, 192.0.2.7",
	} {
		if got := (Engine{Host: host}).elsewhere(t.Context(), own); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

// TestPingOfAnEngineElsewhere: nothing answers there, and if it did, no lab could run
// on it.
func TestPingOfAnEngineElsewhere(t *testing.T) {
	server := httptest.NewServer(nil)
	address := server.Listener.Addr().String()
	server.Close()
	c := dial(t, address)
	c.addresses = func() ([]netip.Addr, error) { return nil, nil }
	c.engine.Host = "tcp://192.0.2.7:2376"
	err := c.Ping(t.Context())
	var out *OutOfReachError
	if want := "no lab can run on the docker engine at tcp://192.0.2.7:2376: the engine runs on another machine, 192.0.2.7, and does not answer ("; !errors.As(err, &out) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}
