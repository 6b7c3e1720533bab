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
	// listens on are for the network. Zero is none: then Run waits for no answer.
	Control uint16
	// Published are further TCP ports that a free port of loopback leads to each.
	Published []uint16

	// Command is the program with its arguments, in place of those of the image; nil is
	// the image's own.
	Command []string
	// User is the number of the user who runs the program; empty is the image's own.
	User string
	// Capabilities are those that the program has, as Docker names them, and no others;
	// nil leaves it to Docker.
	Capabilities []string
	// Address is that on the network; the zero value leaves it to the engine, which
	// gives another one at each start.
	Address netip.Addr
	// Names are DNS names that the program finds these addresses by.
	Names map[string]netip.Addr
	// Joins names a container whose PID namespace the program joins: the programs of
	// both see each other's processes. That container must run. When it ends, so does
	// this one.
	Joins   string
	Volumes []Volume
	// Files, by their paths, are in the container when it starts. Who may inspect
	// containers can read them.
	Files map[string][]byte
	// Seed returns further files for a container that is made. One that is taken as it
	// is keeps its own, and is not compared by them. Nil is none.
	Seed func(context.Context) (map[string][]byte, error)
}

// Container is a container that runs.
type Container struct {
	ID, Name string
	// Address is the one on its network.
	Address netip.Addr
	// Control is where this machine reaches the port of that name in the spec.
	Control netip.AddrPort
	// Published is where this machine reaches each published port.
	Published map[uint16]netip.AddrPort
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

// Run starts a container and returns it when it answers, whatever the answer is. One of
// that name that runs and was made of the same spec and image is taken as it is; one that
// was stopped, or differs, is replaced, and its volumes stay. One that carries other
// labels is somebody else's, and an error.
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

// Find returns a container that runs, by its name; false where there is none that does.
// Ports have other places after each start.
func Find(ctx context.Context, name string) (_ Container, there bool, err error) {
	e, err := connect()
	if err != nil {
		return Container{}, false, err
	}
	defer func() { err = errors.Join(err, e.provider.Close()) }()
	c, seen, err := e.find(ctx, name)
	if err != nil {
		return Container{}, false, fmt.Errorf("find container %s: %w", name, err)
	}
	if c == nil || !seen.running {
		return Container{}, false, nil
	}
	return seen.container(), true, nil
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
	joined, err := e.joined(ctx, spec)
	if err != nil {
		return Container{}, err
	}
	c, err := e.take(ctx, spec, want, joined)
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

// joined returns the container whose PID namespace a program joins; empty for none.
func (e engine) joined(ctx context.Context, spec Spec) (string, error) {
	if spec.Joins == "" {
		return "", nil
	}
	c, seen, err := e.find(ctx, spec.Joins)
	if err == nil && (c == nil || !seen.running) {
		err = errors.New("it does not run")
	}
	if err != nil {
		return "", fmt.Errorf("join the processes of container %s: %w", spec.Joins, err)
	}
	return seen.id, nil
}

// take returns the container of that name, made where there is none that is what
// is asked for. What a killed process has asked the engine for has its name before
// it can be found, and so has what somebody is removing: both are over soon.
func (e engine) take(ctx context.Context, spec Spec, want image, joined string) (c testcontainers.Container, err error) {
	waited := check.Until(ctx, check.Bound{Within: engineBound, Every: 100 * time.Millisecond}, check.Check{
		Name: "its name is free",
		Probe: func(ctx context.Context) error {
			if c, err = e.reuse(ctx, spec, want, joined); c == nil && err == nil {
				c, err = e.start(ctx, spec, joined)
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
func (e engine) reuse(ctx context.Context, spec Spec, want image, joined string) (testcontainers.Container, error) {
	c, seen, err := e.find(ctx, spec.Name)
	if c == nil || err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Labels)) {
		if seen.labels[key] != spec.Labels[key] {
			return nil, fmt.Errorf("a container of that name is somebody else's: it lacks the label %s=%s", key, spec.Labels[key])
		}
	}
	if seen.running && seen.image == want.id && slices.Equal(seen.env, want.with(spec.Env)) && seen.on(spec.Network).IsValid() &&
		seen.publishes(spec.ports()...) && seen.labels[labelMade] == spec.made(joined) {
		return c, nil
	}
	return nil, remove(ctx, c)
}

// start makes a container and starts it, or leaves none. The engine does what it
// was asked even if nobody listens any more: to know what it has done, this waits
// for its answer when ctx has ended, too.
func (e engine) start(ctx context.Context, spec Spec, joined string) (_ testcontainers.Container, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var seed map[string][]byte
	if spec.Seed != nil {
		if seed, err = spec.Seed(ctx); err != nil {
			return nil, err
		}
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineBound)
	defer cancel()
	c, err := e.provider.CreateContainer(bounded, spec.request(joined, seed))
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
	var waited error
	if spec.Control != 0 {
		answers := wait.ForHTTP("/").WithPort(portName(spec.Control)).WithStatusCodeMatcher(func(int) bool { return true }).
			WithStartupTimeout(answerBound).WithPollInterval(50 * time.Millisecond)
		waited = answers.WaitUntilReady(ctx, here{c})
		if ctx.Err() != nil {
			return Container{}, fmt.Errorf("wait for its answer on port %d: %w", spec.Control, context.Cause(ctx))
		}
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
	case !seen.publishes(spec.ports()...):
		// testcontainers-go publishes what the image exposes where nothing is asked for.
		return Container{}, fmt.Errorf("it publishes %v, want the ports %v on loopback", seen.published, spec.ports())
	}
	made := seen.container()
	made.Control = made.Published[spec.Control]
	return made, nil
}

// here is a container whose published ports are on loopback. testcontainers-go would
// look for another address of the engine where it takes this process for one in a
// container, or a variable asks for it.
type here struct{ testcontainers.Container }

func (here) Host(context.Context) (string, error) { return loopback.String(), nil }
