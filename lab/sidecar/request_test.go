package sidecar

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// agent is a container that asks for all that there is to ask for.
func agent() Spec {
	return Spec{
		Name: "quotes-partner-agent", Image: "fedlab.local/agent:1", Network: "lab", Labels: map[string]string{"dev.fedlab.lab": "quotes"},
		Published: []uint16{8080}, Command: []string{"/agent", "run"}, User: "0", Capabilities: []string{"SYS_PTRACE"},
		Address: netip.MustParseAddr("10.192.3.9"), Joins: "quotes-partner",
		Names:   map[string]netip.Addr{"b.test": netip.MustParseAddr("10.192.1.1"), "a.test": netip.MustParseAddr("10.192.2.1")},
		Volumes: []Volume{{Name: "quotes-partner-agent", Folder: "/run/spire/data"}, {Name: "quotes-partner-sockets", Folder: "/run/spire/agent-sockets", ReadOnly: true}},
		Files:   map[string][]byte{"/config/b": []byte("b"), "/config/a": []byte("a")},
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	r := agent().request("123", map[string][]byte{"/start/token": []byte("t0ken")})
	var c container.Config
	var h container.HostConfig
	on := map[string]*network.EndpointSettings{"lab": {}}
	r.ConfigModifier(&c)
	r.HostConfigModifier(&h)
	r.EndpointSettingsModifier(on)
	labels := map[string]string{"dev.fedlab.lab": "quotes"}
	wantHost := container.HostConfig{
		ExtraHosts: []string{"a.test:10.192.2.1", "b.test:10.192.1.1"},
		PidMode:    "container:123", CapDrop: []string{"ALL"}, CapAdd: []string{"SYS_PTRACE"},
		PortBindings: network.PortMap{network.MustParsePort("8080/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1")}}},
		Mounts: []mount.Mount{
			{Type: mount.TypeVolume, Source: "quotes-partner-agent", Target: "/run/spire/data", VolumeOptions: &mount.VolumeOptions{Labels: labels}},
			{Type: mount.TypeVolume, Source: "quotes-partner-sockets", Target: "/run/spire/agent-sockets", ReadOnly: true, VolumeOptions: &mount.VolumeOptions{Labels: labels}},
		},
	}
	if !reflect.DeepEqual(h, wantHost) || c.User != "0" || !reflect.DeepEqual(r.Entrypoint, []string{"/agent", "run"}) || !reflect.DeepEqual(r.ExposedPorts, []string{"8080/tcp"}) {
		t.Errorf("asked for %+v, user %s, command %v, ports %v", h, c.User, r.Entrypoint, r.ExposedPorts)
	}
	if at := on["lab"].IPAMConfig; at == nil || at.IPv4Address != agent().Address {
		t.Errorf("asked for the address %+v", at)
	}
	var copied []string
	for _, f := range r.Files {
		content, err := io.ReadAll(f.Reader)
		if err != nil || f.FileMode != 0o644 {
			t.Errorf("%s: mode %o, error %v", f.ContainerFilePath, f.FileMode, err)
		}
		copied = append(copied, f.ContainerFilePath+"="+string(content))
	}
	if got := strings.Join(copied, " "); got != "/config/a=a /config/b=b /start/token=t0ken" {
		t.Errorf("copied %s", got)
	}
	if made := r.Labels[labelMade]; made == "" || made != agent().made("123") || agent().Labels[labelMade] != "" {
		t.Errorf("labels %v", r.Labels)
	}
}

// TestRequestOfOnePlain: what asks for nothing of this is made as before.
func TestRequestOfOnePlain(t *testing.T) {
	t.Parallel()
	r := asked.request("", nil)
	var h container.HostConfig
	r.HostConfigModifier(&h)
	on := map[string]*network.EndpointSettings{"lab": {}}
	r.EndpointSettingsModifier(on)
	r.EndpointSettingsModifier(nil) // the network is not there
	bindings := network.PortMap{network.MustParsePort("8080/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1")}}}
	if !reflect.DeepEqual(h, container.HostConfig{PortBindings: bindings}) || r.ConfigModifier != nil || r.Entrypoint != nil || r.Files != nil || on["lab"].IPAMConfig != nil || r.Labels[labelMade] != "" {
		t.Errorf("asked for %+v and %+v", r, h)
	}
}

// TestMade: whatever a container is made of tells it from another one, except what is
// for its first start.
func TestMade(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Spec){
		"user":         func(s *Spec) { s.User = "1000" },
		"command":      func(s *Spec) { s.Command = []string{"/agent", "run", "-expandEnv"} },
		"capabilities": func(s *Spec) { s.Capabilities = []string{} },
		"address":      func(s *Spec) { s.Address = netip.MustParseAddr("10.192.3.10") },
		"name":         func(s *Spec) { s.Names = nil },
		"volume":       func(s *Spec) { s.Volumes[0].Name = "another" },
		"read only":    func(s *Spec) { s.Volumes[1].ReadOnly = false },
		"content":      func(s *Spec) { s.Files["/config/a"] = []byte("c") },
		"file":         func(s *Spec) { s.Files["/config/c"] = nil },
	} {
		other := agent()
		change(&other)
		if other.made("123") == agent().made("123") {
			t.Errorf("another %s makes no difference", name)
		}
	}
	seeded := agent()
	seeded.Seed = func(context.Context) (map[string][]byte, error) { return nil, errors.New("unexpected") }
	if seeded.made("123") != agent().made("123") || agent().made("124") == agent().made("123") {
		t.Error("a seed makes a difference, or another container whose processes are joined makes none")
	}
	if got := (Spec{Name: "plain", Control: 8080, Env: map[string]string{"A": "b"}}).made(""); got != "" {
		t.Errorf("a plain one has %s", got)
	}
}

// TestContainer: callers see the ports that are published, by their numbers.
func TestContainer(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddrPort("127.0.0.1:41234")
	s := state{id: "1", name: "agent", networks: map[string]netip.Addr{"lab": netip.MustParseAddr("10.192.3.9")}, published: map[string]netip.AddrPort{"8080/tcp": at, "53/udp": at}}
	want := Container{ID: "1", Name: "agent", Address: netip.MustParseAddr("10.192.3.9"), Published: map[uint16]netip.AddrPort{8080: at}}
	if got := s.container(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s.publishes(8080) || !(state{published: map[string]netip.AddrPort{"8080/tcp": at, "8081/tcp": at}}).publishes(8081, 8080) {
		t.Error("ports are not compared as a set")
	}
}
