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
		info, version string
		networks      []network.Summary
		want          string
	}{
		"Docker on this machine":        {`{"OperatingSystem": "Debian GNU/Linux 12 (bookworm)"}`, `{}`, bridge("172.17.0.1"), ""},
		"Docker without a bridge":       {`{}`, `{}`, nil, ""},
		"user namespaces are no matter": {`{"SecurityOptions": ["name=userns"]}`, `{}`, bridge("172.17.0.1"), ""},
		"rootless": {`{"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}`, `{}`, bridge("172.17.0.1"),
			"it is a rootless Docker, whose networks are in a namespace of their own"},
		"Docker Desktop": {`{"OperatingSystem": "Docker Desktop"}`, `{}`, bridge("172.17.0.1"),
			"it is Docker Desktop, whose containers run in a virtual machine"},
		"Podman": {`{}`, `{"Components": [{"Name": "Podman Engine", "Version": "5.0"}]}`, bridge("172.17.0.1"),
			"the engine is Podman, which answers in Docker's place; a lab needs Docker itself"},
		"a virtual machine, or a socket in a container": {`{"OperatingSystem": "Ubuntu 24.04"}`, `{}`, bridge("172.17.0.2"),
			"its bridge has the address 172.17.0.2, which is not one of this machine: the engine runs in a virtual machine, or outside of the container that fedlab runs in"},
		"a virtual machine that leads to its containers": {`{"OperatingSystem": "OrbStack"}`, `{}`, bridge("172.17.0.2"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.info, e.version, e.networks = tt.info, tt.version, tt.networks
			c := connect(t, e)
			c.addresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("172.17.0.1")}, nil }
			err := c.Reach(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var out *OutOfReachError
			if want := "containers of the docker engine at " + c.Engine().Host + " cannot be reached from here: " + tt.want; !errors.As(err, &out) || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
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

// TestPingOfAnEngineElsewhere: nothing answers there, and if it did, a lab could not be
// reached.
func TestPingOfAnEngineElsewhere(t *testing.T) {
	server := httptest.NewServer(nil)
	address := server.Listener.Addr().String()
	server.Close()
	c := dial(t, address)
	c.addresses = func() ([]netip.Addr, error) { return nil, nil }
	c.engine.Host = "tcp://192.0.2.7:2376"
	err := c.Ping(t.Context())
	var out *OutOfReachError
	if want := "containers of the docker engine at tcp://192.0.2.7:2376 cannot be reached from here: the engine runs on another machine, 192.0.2.7, and does not answer ("; !errors.As(err, &out) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}
