package sidecar

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
)

// told is a container of which the engine tells this, and no other method works.
type told struct {
	testcontainers.Container
	seen   container.InspectResponse
	output string
}

// Host is where nobody listens, as testcontainers-go finds it in a container.
func (told) Host(context.Context) (string, error) { return "192.0.2.1", nil }

func (c told) Inspect(context.Context) (*container.InspectResponse, error) { return &c.seen, nil }
func (c told) State(context.Context) (*container.State, error)             { return c.seen.State, nil }

func (c told) MappedPort(_ context.Context, port string) (network.Port, error) {
	for p, bindings := range c.seen.NetworkSettings.Ports {
		if p.String() == port {
			return network.ParsePort(bindings[0].HostPort + "/tcp")
		}
	}
	return network.Port{}, errors.New("it is not published")
}

func (c told) Logs(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(c.output)), nil
}

// published is a container that runs on the network of a lab, with its port 8080 at an
// address of this machine.
func published(at netip.AddrPort) told {
	return told{seen: container.InspectResponse{
		ID: "1", Name: "/quotes-synthetic", State: &container.State{Running: true},
		NetworkSettings: &container.NetworkSettings{
			Networks: map[string]*network.EndpointSettings{"lab": {IPAddress: netip.MustParseAddr("10.192.0.5")}},
			Ports:    network.PortMap{network.MustParsePort("8080/tcp"): {{HostIP: at.Addr(), HostPort: strconv.Itoa(int(at.Port()))}}},
		},
	}}
}

func addressOf(l net.Listener) netip.AddrPort { return netip.MustParseAddrPort(l.Addr().String()) }

var asked = Spec{Name: "quotes-synthetic", Network: "lab", Control: 8080, Env: map[string]string{"TOKEN": "s3cret"}}

// TestAnswering: whoever answers at the published port will do, whatever the answer.
func TestAnswering(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not without the token", http.StatusUnauthorized)
	}))
	t.Cleanup(server.Close)
	at := addressOf(server.Listener)
	made, err := answering(t.Context(), published(at), asked)
	if want := (Container{ID: "1", Name: "quotes-synthetic", Address: netip.MustParseAddr("10.192.0.5"), Control: at, Published: map[uint16]netip.AddrPort{8080: at}}); err != nil || !reflect.DeepEqual(made, want) {
		t.Errorf("made %+v, error %v, want %+v", made, err, want)
	}
}

// TestAnsweringIsMoreThanAConnection: Docker's proxy takes connections for a program
// that does not listen yet, and ends them.
func TestAnsweringIsMoreThanAConnection(t *testing.T) {
	t.Parallel()
	var early atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if early.Add(1) > 3 {
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	}))
	t.Cleanup(server.Close)
	if _, err := answering(t.Context(), published(addressOf(server.Listener)), asked); err != nil || early.Load() < 4 {
		t.Errorf("after %d connections: error %v", early.Load(), err)
	}
}

func TestAnsweringFails(t *testing.T) {
	t.Parallel()
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err == nil {
		err = closed.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	at := addressOf(closed)
	ended := published(at)
	ended.seen.State = &container.State{Status: container.StateExited, ExitCode: 3}
	ended.output = "starts\ncannot use s3cret\n"
	if _, err := answering(t.Context(), ended, asked); err == nil || err.Error() != "it has ended with exit code 3: cannot use …" {
		t.Errorf("of one that has ended: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := answering(ctx, published(at), asked); !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "wait for its answer on port 8080: ") {
		t.Errorf("of one for which nobody waits any more: %v", err)
	}
}

// TestPublishes: only the port for control is published, and on loopback alone; one
// that an earlier fedlab has left is not taken over.
func TestPublishes(t *testing.T) {
	t.Parallel()
	var h container.HostConfig
	publish(&h, 8080)
	bindings := h.PortBindings[network.MustParsePort("8080/tcp")]
	if len(h.PortBindings) != 1 || len(bindings) != 1 || bindings[0] != (network.PortBinding{HostIP: netip.MustParseAddr("127.0.0.1")}) {
		t.Errorf("asked for %v", h.PortBindings)
	}
	at := func(address string) netip.AddrPort { return netip.MustParseAddrPort(address) }
	for name, tt := range map[string]struct {
		published map[string]netip.AddrPort
		want      bool
	}{
		"on loopback":                     {map[string]netip.AddrPort{"8080/tcp": at("127.0.0.1:41234")}, true},
		"not at all":                      {nil, false},
		"another port":                    {map[string]netip.AddrPort{"8443/tcp": at("127.0.0.1:41234")}, false},
		"one more":                        {map[string]netip.AddrPort{"8080/tcp": at("127.0.0.1:41234"), "8443/tcp": at("127.0.0.1:41235")}, false},
		"on all addresses":                {map[string]netip.AddrPort{"8080/tcp": at("0.0.0.0:41234")}, false},
		"on all addresses of either kind": {map[string]netip.AddrPort{"8080/tcp": at("[::]:41234")}, false},
	} {
		if got := (state{published: tt.published}).publishes(8080); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}
