// Package sidecar runs one of our own programs as a plain container on a network
// of the Docker engine, next to whatever else is there. It is the only importer of
// testcontainers-go, and knows how to start a container, how to wait for it and
// how to take back a start that failed.
//
// It refuses to know what a lab is and what a program does: names, labels and
// networks come from the caller, who also removes what runs. testcontainers-go
// would do that by a further container, whose image has to be pulled; here it is
// off, nothing is pulled, and no port of this machine leads to what runs.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/testcontainers/testcontainers-go"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// Spec is what a container is made from.
type Spec struct {
	Name string
	// Image must be present, under a name that says its registry.
	Image string
	// Network is the name of the one network to join; it must be there.
	Network string
	// Labels say whose the container is.
	Labels map[string]string
	// Env may hold secrets: its values are in no error. Who may inspect
	// containers can read them.
	Env map[string]string
	// Ports are the TCP ports that the program listens on.
	Ports []int
}

// Container is a container that runs.
type Container struct {
	ID, Name string
	// Address is the one on the network of the spec.
	Address netip.Addr
}

const (
	// engineBound is how long the engine may take to make and start a container,
	// or to remove one: a minute where an idle machine needs a second.
	engineBound = time.Minute
	// listenBound is how long a program may take to listen on its ports. Ours do
	// in tenths of a second; a machine that is busy with clusters takes tens of
	// times as long.
	listenBound = 20 * time.Second
	// dialBound is how long one try may take where packets get lost.
	dialBound = 2 * time.Second
)

// Run starts a container and returns it when it listens on all of its ports. One
// of that name that runs with the same labels, image, variables and network is
// taken as it is; one that was stopped, or differs, is replaced. One that carries
// other labels is somebody else's, and an error.
//
// Run connects to the ports from this process, which need not be on the network:
// a Linux machine has an address on each bridge of its engine. It has none where
// the engine runs in a virtual machine, and there Run fails with what it has seen
// last.
//
// When Run fails or ctx ends, no container of that name is left but somebody
// else's.
func Run(ctx context.Context, spec Spec) (Container, error) {
	made, err := run(ctx, spec)
	if err != nil {
		return Container{}, fmt.Errorf("run container %s: %w", spec.Name, err)
	}
	return made, nil
}

func run(ctx context.Context, spec Spec) (_ Container, err error) {
	if err := valid(spec.Env); err != nil {
		return Container{}, err
	}
	e, err := connect()
	if err != nil {
		return Container{}, err
	}
	defer func() { err = errors.Join(err, e.provider.Close()) }()
	want, err := e.image(ctx, spec.Image)
	if err != nil {
		return Container{}, err
	}
	c, err := e.take(ctx, spec, want)
	if err != nil {
		return Container{}, err
	}
	made, err := listening(ctx, c, spec)
	if err != nil {
		return Container{}, errors.Join(err, remove(ctx, c))
	}
	return made, nil
}

// valid refuses variables that the engine would refuse, whose words have the
// values in them.
func valid(env map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(env[name], "\x00") {
			return fmt.Errorf("variable %q cannot be set: its name is empty or has a =, or there is a zero byte", name)
		}
	}
	return nil
}

// take returns the container of that name, made where there is none that is what
// is asked for. What a killed process has asked the engine for has its name before
// it can be found, and so has what somebody is removing: both are over soon.
func (e engine) take(ctx context.Context, spec Spec, want image) (c testcontainers.Container, err error) {
	waited := check.Until(ctx, check.Bound{Within: engineBound, Every: 100 * time.Millisecond}, check.Check{
		Name: "its name is free",
		Probe: func(ctx context.Context) error {
			if c, err = e.reuse(ctx, spec, want); c == nil && err == nil {
				c, err = e.start(ctx, spec)
			}
			if errdefs.IsConflict(err) {
				return err
			}
			return nil
		},
	})
	if waited != nil {
		return nil, waited
	}
	return c, err
}

// reuse returns the container of that name if it is what is asked for, and
// removes it if it is not.
func (e engine) reuse(ctx context.Context, spec Spec, want image) (testcontainers.Container, error) {
	c, seen, err := e.find(ctx, spec.Name)
	if c == nil || err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Labels)) {
		if seen.labels[key] != spec.Labels[key] {
			return nil, fmt.Errorf("a container of that name is somebody else's: it lacks the label %s=%s", key, spec.Labels[key])
		}
	}
	if seen.running && seen.image == want.id && slices.Equal(seen.env, want.with(spec.Env)) && seen.on(spec.Network).IsValid() {
		return c, nil
	}
	return nil, remove(ctx, c)
}

// start makes a container and starts it, or leaves none. The engine does what it
// was asked even if nobody listens any more: to know what it has done, this waits
// for its answer when ctx has ended, too.
func (e engine) start(ctx context.Context, spec Spec) (_ testcontainers.Container, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineBound)
	defer cancel()
	c, err := e.provider.CreateContainer(bounded, testcontainers.ContainerRequest{
		Name:  spec.Name,
		Image: spec.Image,
		Env:   spec.Env,
		// testcontainers-go adds some of its own.
		Labels:   maps.Clone(spec.Labels),
		Networks: []string{spec.Network},
	})
	if err != nil {
		if c != nil {
			err = errors.Join(err, remove(ctx, c))
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(ctx, c))
		}
	}()
	// A network that is not there was passed over in silence.
	seen, err := inspect(bounded, c)
	if err != nil {
		return nil, err
	}
	if _, joined := seen.networks[spec.Network]; !joined {
		return nil, fmt.Errorf("there is no network %s", spec.Network)
	}
	if err := c.Start(bounded); err != nil {
		return nil, err
	}
	return c, nil
}

func listening(ctx context.Context, c testcontainers.Container, spec Spec) (made Container, err error) {
	made = Container{ID: c.GetContainerID(), Name: spec.Name}
	err = check.Until(ctx, check.Bound{Within: listenBound, Every: 50 * time.Millisecond}, check.Check{
		Name: "it listens on " + ports(spec.Ports),
		Probe: func(ctx context.Context) error {
			seen, err := inspect(ctx, c)
			if err != nil {
				return err
			}
			if !seen.running {
				return check.Never(ended(ctx, c, seen, spec.Env))
			}
			if made.Address = seen.on(spec.Network); !made.Address.Is4() {
				return fmt.Errorf("it has no IPv4 address on network %s", spec.Network)
			}
			for _, port := range spec.Ports {
				if err := dial(ctx, net.JoinHostPort(made.Address.String(), strconv.Itoa(port))); err != nil {
					return err
				}
			}
			return nil
		},
	})
	return made, err
}

func ports(list []int) string {
	if len(list) == 0 {
		return "no port, and runs"
	}
	var words []string
	for _, port := range list {
		words = append(words, "port "+strconv.Itoa(port))
	}
	return strings.Join(words, " and ")
}

func dial(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: dialBound}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
