package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/sidecar"
)

// labelHost is the label of the containers and volumes of a host; it has the host's
// name. labelProgram says which of its programs a container is.
const (
	labelHost    = "dev.fedlab.host"
	labelProgram = "dev.fedlab.program"
)

// HostContainer returns the name of the container of a program of a host.
func HostContainer(name, host, program string) string {
	if program == lab.HostOwner {
		return name + "-" + host
	}
	return name + "-" + host + "-" + program
}

func hostVolume(name, host, volume string) string { return name + "-" + host + "-" + volume }

type hosts struct {
	engine  *docker.Client
	library *images.Library
	// alone has one image brought into the engine at a time, since several hosts want the
	// same.
	alone *sync.Mutex
}

func (h hosts) Run(ctx context.Context, name, host string, p lab.HostProgram) (made bool, err error) {
	image, err := h.image(ctx, p.Image)
	if err != nil {
		return false, fmt.Errorf("bring image of %s into docker: %w", p.Image, err)
	}
	spec := sidecar.Spec{
		Name: HostContainer(name, host, p.Name), Image: image, Network: networkName(name),
		Labels: map[string]string{labelLab: name, labelHost: host, labelProgram: p.Name},
		Env:    p.Env, Command: p.Command, User: strconv.Itoa(p.User), Capabilities: append([]string{}, p.Capabilities...),
		Address: p.Address, Names: p.Names, Files: p.Files, Seed: p.Seed,
	}
	for _, port := range p.Ports {
		spec.Published = append(spec.Published, uint16(port))
	}
	for _, v := range p.Volumes {
		spec.Volumes = append(spec.Volumes, sidecar.Volume{Name: hostVolume(name, host, v.Name), Folder: v.Folder, ReadOnly: v.ReadOnly})
	}
	if p.Name != lab.HostOwner && p.Name != lab.HostServer {
		spec.Joins = HostContainer(name, host, lab.HostOwner)
	}
	before, there, err := sidecar.Find(ctx, spec.Name)
	if err != nil {
		return false, err
	}
	is, err := sidecar.Run(ctx, spec)
	return err == nil && (!there || is.ID != before.ID), err
}

func (h hosts) image(ctx context.Context, of string) (string, error) {
	h.alone.Lock()
	defer h.alone.Unlock()
	if of == images.SPIREServer || of == images.SPIREAgent {
		return h.library.HostInEngine(ctx, of)
	}
	return h.library.DemoInEngine(ctx, of)
}

// List asks for labels and not for the network: that may be gone.
func (h hosts) List(ctx context.Context, name string) ([]lab.FoundHost, error) {
	labels := map[string]string{labelLab: name}
	containers, err := h.engine.Containers(ctx, labels)
	if err != nil {
		return nil, err
	}
	volumes, err := h.engine.Volumes(ctx, labels)
	if err != nil {
		return nil, err
	}
	found := map[string]map[string]bool{}
	programs := func(host string) map[string]bool {
		if found[host] == nil {
			found[host] = map[string]bool{}
		}
		return found[host]
	}
	for _, c := range containers {
		if host := c.Labels[labelHost]; host != "" {
			programs(host)[c.Labels[labelProgram]] = c.Running
		}
	}
	for _, v := range volumes {
		if host := v.Labels[labelHost]; host != "" {
			programs(host)
		}
	}
	var list []lab.FoundHost
	for host, programs := range found {
		list = append(list, lab.FoundHost{Name: host, Programs: programs})
	}
	slices.SortFunc(list, func(a, b lab.FoundHost) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (h hosts) Remove(ctx context.Context, name, host, program string, volumes ...string) error {
	err := h.removeContainers(ctx, map[string]string{labelLab: name, labelHost: host, labelProgram: program})
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range volumes {
		errs = append(errs, h.engine.RemoveVolume(ctx, hostVolume(name, host, v)))
	}
	return errors.Join(errs...)
}

// removeContainers removes those with these labels, the owners of PID namespaces last:
// the kernel would kill who is in one, and that would look like an end of its own.
func (h hosts) removeContainers(ctx context.Context, labels map[string]string) error {
	containers, err := h.engine.Containers(ctx, labels)
	if err != nil {
		return err
	}
	owner := func(c docker.Container) bool { return c.Labels[labelProgram] == lab.HostOwner }
	slices.SortStableFunc(containers, func(a, b docker.Container) int {
		switch {
		case owner(a) == owner(b):
			return 0
		case owner(b):
			return -1
		}
		return 1
	})
	for _, c := range containers {
		if err := h.engine.RemoveContainer(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

func (h hosts) Clear(ctx context.Context, name, host string) error {
	labels := map[string]string{labelLab: name, labelHost: host}
	if err := h.removeContainers(ctx, labels); err != nil {
		return err
	}
	return h.engine.RemoveVolumes(ctx, labels)
}

// onHost reaches into the containers of a host, by their names.
type onHost struct {
	engine    *docker.Client
	lab, host string
}

func (h onHost) Exec(ctx context.Context, program string, argv ...string) ([]byte, error) {
	return h.engine.Exec(ctx, HostContainer(h.lab, h.host, program), argv, nil)
}

// Dial looks each time for where a port is published: that changes with each start.
func (h onHost) Dial(ctx context.Context, program string, port int) (net.Conn, error) {
	c, there, err := sidecar.Find(ctx, HostContainer(h.lab, h.host, program))
	switch {
	case err != nil:
		return nil, err
	case !there:
		return nil, fmt.Errorf("%s does not run on host %s", program, h.host)
	}
	at, published := c.Published[uint16(port)]
	if !published {
		return nil, fmt.Errorf("port %d of %s on host %s is not published", port, program, h.host)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
}

func (h onHost) Run(ctx context.Context, program string, s access.Streams, argv ...string) error {
	err := h.engine.Run(ctx, HostContainer(h.lab, h.host, program), argv, docker.Streams(s))
	if ended := (*docker.ExitError)(nil); errors.As(err, &ended) {
		return &access.EndedError{Program: argv[0], Code: ended.Code}
	}
	return err
}

func (h onHost) Logs(ctx context.Context, program string, o access.LogOptions, out io.Writer) error {
	return h.engine.Logs(ctx, HostContainer(h.lab, h.host, program), o.Since, o.Follow, out)
}
