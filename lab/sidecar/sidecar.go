// Package sidecar runs one of our own programs as a plain container on a network
// of the Docker engine, next to whatever else is there. It is the only importer of
// testcontainers-go, and knows how to start a container, how to publish the port that
// it is controlled by, how to wait for it and how to take back a start that failed.
//
// It refuses to know what a lab is and what a program does: names, labels and
// networks come from the caller, who also removes what runs. testcontainers-go
// would do that by a further container, whose image has to be pulled; here it is
// off, and nothing is pulled.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

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
	// Control is the TCP port by which this machine controls the program, in HTTP. A
	// free port of this machine's loopback leads to it. The others that the program
	// listens on are for the network.
	Control uint16
}

// Container is a container that runs.
type Container struct {
	ID, Name string
	// Address is the one on the network of the spec.
	Address netip.Addr
	// Control is where this machine reaches the port of that name.
	Control netip.AddrPort
}

const (
	// engineBound is how long the engine may take to make and start a container,
	// or to remove one: a minute where an idle machine needs a second.
	engineBound = time.Minute
	// answerBound is how long a program may take to answer. Ours do in tenths of a
	// second; a machine that is busy with clusters takes tens of times as long.
	answerBound = 20 * time.Second
)

// loopback is the address of this machine that the port for control is published on:
// nobody else gets there, and no firewall is in between.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Run starts a container and returns it when it answers, whatever the answer is. One
// of that name that runs with the same labels, image, variables, network and port is
// taken as it is; one that was stopped, or differs, is replaced. One that carries
// other labels is somebody else's, and an error.
//
// This process need not reach the network: the answer comes by the published port.
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
	made, err := answering(ctx, c, spec)
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
	if seen.running && seen.image == want.id && slices.Equal(seen.env, want.with(spec.Env)) && seen.on(spec.Network).IsValid() && seen.publishes(spec.Control) {
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
		// Without an address it would be published on all of this machine's.
		ExposedPorts:       []string{portName(spec.Control)},
		HostConfigModifier: publish(spec.Control),
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

// answering waits until a program answers by its published port. That the port takes a
// connection says nothing: Docker's proxy does, before anybody listens behind it.
func answering(ctx context.Context, c testcontainers.Container, spec Spec) (Container, error) {
	answers := wait.ForHTTP("/").WithPort(portName(spec.Control)).WithStatusCodeMatcher(func(int) bool { return true }).
		WithStartupTimeout(answerBound).WithPollInterval(50 * time.Millisecond)
	waited := answers.WaitUntilReady(ctx, here{c})
	if ctx.Err() != nil {
		return Container{}, fmt.Errorf("wait for its answer on port %d: %w", spec.Control, context.Cause(ctx))
	}
	seen, err := inspect(ctx, c)
	switch {
	case err != nil:
		return Container{}, err
	case !seen.running:
		return Container{}, ended(ctx, c, seen, spec.Env)
	case waited != nil:
		return Container{}, fmt.Errorf("it has not answered on port %d within %s: %w", spec.Control, answerBound, waited)
	case !seen.on(spec.Network).Is4():
		return Container{}, fmt.Errorf("it has no IPv4 address on network %s", spec.Network)
	}
	return Container{ID: seen.id, Name: spec.Name, Address: seen.on(spec.Network), Control: seen.published[portName(spec.Control)]}, nil
}

// here is a container whose published ports are on loopback. testcontainers-go would
// look for another address of the engine where it takes this process for one in a
// container, or a variable asks for it.
type here struct{ testcontainers.Container }

func (here) Host(context.Context) (string, error) { return loopback.String(), nil }
