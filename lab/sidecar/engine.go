package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

// silent takes what testcontainers-go would write to standard error.
var silent = log.NewNoopLogger()

// reaperOff is the only way to do without the container that removes the others:
// testcontainers-go has no option for it.
const reaperOff = "TESTCONTAINERS_RYUK_DISABLED"

// settle gives testcontainers-go its settings, which it reads once in a process.
// HOME is gone meanwhile: a file there could name another engine, and goes before
// the variables by which all of fedlab finds its own. Both variables are put
// back, since nobody else should see that.
var settle = sync.OnceValue(func() error {
	log.SetDefault(silent)
	restore, err := setenv(map[string]string{reaperOff: "true", "HOME": ""})
	read := testcontainers.ReadConfig().Config
	err = errors.Join(err, restore())
	if err == nil && (!read.RyukDisabled || read.TestcontainersHost != "" || read.Host != "") {
		err = errors.New("somebody has read its settings before")
	}
	if err != nil {
		return fmt.Errorf("give testcontainers-go its settings: %w", err)
	}
	return nil
})

func setenv(variables map[string]string) (restore func() error, err error) {
	var undo []func() error
	for name, value := range variables {
		before, existed := os.LookupEnv(name)
		undo = append(undo, func() error {
			if existed {
				return os.Setenv(name, before)
			}
			return os.Unsetenv(name)
		})
		err = errors.Join(err, os.Setenv(name, value))
	}
	return func() error {
		var errs []error
		for _, put := range undo {
			errs = append(errs, put())
		}
		return errors.Join(errs...)
	}, err
}

// engine is the Docker engine as testcontainers-go finds it: by the variables of
// this process.
type engine struct {
	provider *testcontainers.DockerProvider
}

func connect() (engine, error) {
	if err := settle(); err != nil {
		return engine{}, err
	}
	provider, err := testcontainers.NewDockerProvider(
		testcontainers.WithLogger(silent),
		// Unless it is told which network is the default, it makes one.
		testcontainers.WithDefaultBridgeNetwork(testcontainers.Bridge),
	)
	if err != nil {
		return engine{}, fmt.Errorf("find docker engine: %w", err)
	}
	return engine{provider}, nil
}

// image is what a container shows of the image that it was made from.
type image struct {
	id  string
	env []string
}

// image finds an image; testcontainers-go would pull one that is not there.
func (e engine) image(ctx context.Context, ref string) (image, error) {
	told, err := e.provider.Client().ImageInspect(ctx, ref)
	switch {
	case errdefs.IsNotFound(err):
		return image{}, fmt.Errorf("there is no image %s", ref)
	case err != nil:
		return image{}, fmt.Errorf("inspect image %s: %w", ref, err)
	}
	img := image{id: told.ID}
	if told.Config != nil {
		img.env = told.Config.Env
	}
	return img, nil
}

// with returns the variables of a container that is made with these, sorted.
func (i image) with(env map[string]string) []string {
	all := map[string]string{}
	for _, entry := range i.env {
		name, value, _ := strings.Cut(entry, "=")
		all[name] = value
	}
	maps.Copy(all, env)
	var entries []string
	for name, value := range all {
		entries = append(entries, name+"="+value)
	}
	slices.Sort(entries)
	return entries
}

type state struct {
	id, name, image string
	running         bool
	exitCode        int
	labels          map[string]string
	// env is sorted.
	env []string
	// networks has the address on each; the zero value where it has none yet.
	networks map[string]netip.Addr
	// published has where each of its ports is published, by its name.
	published map[string]netip.AddrPort
}

func (s state) on(network string) netip.Addr { return s.networks[network] }

// publishes reports whether these ports are published, on loopback and no others.
func (s state) publishes(ports ...uint16) bool {
	return len(s.published) == len(ports) && !slices.ContainsFunc(ports, func(port uint16) bool {
		return s.published[portName(port)].Addr() != loopback
	})
}

// container returns what callers see of a container that runs.
func (s state) container() Container {
	c := Container{ID: s.id, Name: s.name, Published: map[uint16]netip.AddrPort{}}
	for _, address := range s.networks {
		c.Address = address // it has one
	}
	for name, at := range s.published {
		number, protocol, _ := strings.Cut(name, "/")
		if port, err := strconv.ParseUint(number, 10, 16); err == nil && protocol == "tcp" {
			c.Published[uint16(port)] = at
		}
	}
	return c
}

// portName is what Docker calls a TCP port.
func portName(port uint16) string { return strconv.Itoa(int(port)) + "/tcp" }

// publish has ports published on loopback, where the engine finds free ones.
func publish(h *container.HostConfig, ports ...uint16) {
	h.PortBindings = network.PortMap{}
	for _, port := range ports {
		h.PortBindings[network.MustParsePort(portName(port))] = []network.PortBinding{{HostIP: loopback}}
	}
}

func inspect(ctx context.Context, c testcontainers.Container) (state, error) {
	told, err := c.Inspect(ctx)
	if err != nil {
		return state{}, err
	}
	s := state{id: told.ID, name: strings.TrimPrefix(told.Name, "/"), image: told.Image, networks: map[string]netip.Addr{}, published: map[string]netip.AddrPort{}}
	if told.State != nil {
		// Docker says of a paused container that it runs, too.
		s.running, s.exitCode = told.State.Running && !told.State.Paused, told.State.ExitCode
	}
	if told.Config != nil {
		s.labels, s.env = told.Config.Labels, slices.Sorted(slices.Values(told.Config.Env))
	}
	if told.NetworkSettings != nil {
		for name, endpoint := range told.NetworkSettings.Networks {
			s.networks[name] = endpoint.IPAddress
		}
		for port, bindings := range told.NetworkSettings.Ports {
			for _, b := range bindings {
				if on, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil {
					s.published[port.String()] = netip.AddrPortFrom(b.HostIP, uint16(on))
				}
			}
		}
	}
	return s, nil
}

// find returns the container of a name, nil if there is none.
func (e engine) find(ctx context.Context, name string) (testcontainers.Container, state, error) {
	c := &testcontainers.DockerContainer{ID: name}
	c.SetProvider(e.provider)
	c.SetLogger(silent)
	seen, err := inspect(ctx, c)
	// The engine takes a name for the beginning of an identifier, too.
	if errdefs.IsNotFound(err) || err == nil && seen.name != name {
		return nil, state{}, nil
	}
	if err != nil {
		return nil, state{}, err
	}
	c.ID = seen.id
	return c, seen, nil
}

// remove kills a container and removes it, also when ctx has ended. One that is
// gone is not an error.
func remove(ctx context.Context, c testcontainers.Container) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineBound)
	defer cancel()
	err := c.Terminate(bounded, testcontainers.StopTimeout(0))
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container: %w", err)
	}
	return nil
}
