package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// Container is a container as it stands.
type Container struct {
	ID, Name, Image string
	// ImageID is the image that it was made from, whatever that is called now.
	ImageID string
	Labels  map[string]string
	// Networks are the names of those that it is on.
	Networks []string
	// State is Docker's word: created, running, paused, exited and so on.
	State   string
	Running bool
	// ExitCode is how it ended; 0 while it runs or before it ran.
	ExitCode int
}

// StateCreated is the state of a container that was made and not started yet.
const StateCreated = string(container.StateCreated)

// Containers lists the containers, running or not, that carry all of the labels.
func (c *Client) Containers(ctx context.Context, labels map[string]string) ([]Container, error) {
	return c.containers(ctx, filters(labels), func(container.Summary) bool { return true })
}

// ContainersOn lists the containers, running or not, that belong to a network by
// its name, also those whose network is gone or that Docker is just making.
func (c *Client) ContainersOn(ctx context.Context, network string) ([]Container, error) {
	// Docker's own filter overlooks what is being made: the volumes of a
	// container are filled before it is given its networks.
	return c.containers(ctx, client.Filters{}, func(s container.Summary) bool {
		if s.NetworkSettings != nil && s.NetworkSettings.Networks[network] != nil {
			return true
		}
		return s.HostConfig.NetworkMode == network
	})
}

func (c *Client) containers(ctx context.Context, f client.Filters, wanted func(container.Summary) bool) ([]Container, error) {
	list, err := c.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: f})
	if err != nil {
		return nil, c.failed(err, "list containers")
	}
	var found []Container
	for _, s := range list.Items {
		if !wanted(s) {
			continue
		}
		one := Container{ID: s.ID, Image: s.Image, ImageID: s.ImageID, Labels: s.Labels, State: string(s.State), Running: s.State == container.StateRunning}
		if s.NetworkSettings != nil {
			one.Networks = slices.Sorted(maps.Keys(s.NetworkSettings.Networks))
		}
		if len(s.Names) > 0 {
			one.Name = strings.TrimPrefix(s.Names[0], "/")
		}
		if s.State == container.StateExited {
			detail, found, err := c.inspect(ctx, s.ID, one.Name)
			if err != nil {
				return nil, err
			}
			if !found {
				continue
			}
			if detail.State != nil {
				one.ExitCode = detail.State.ExitCode
			}
		}
		found = append(found, one)
	}
	return found, nil
}

// inspect reads a container, which is called name where something goes wrong; the
// second result is false for one that is gone.
func (c *Client) inspect(ctx context.Context, id, name string) (container.InspectResponse, bool, error) {
	detail, err := c.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	return detail.Container, err == nil, c.failed(unlessGone(err), "inspect container %s", name)
}

// short is an ID as messages have it.
func short(id string) string { return fmt.Sprintf("%.12s", id) }

// PortBindings returns which addresses of this machine lead to which TCP ports
// of a container, as it was made; it need not run. The second result is false
// for a container that is gone.
func (c *Client) PortBindings(ctx context.Context, id string) (map[netip.AddrPort]uint16, bool, error) {
	detail, found, err := c.inspect(ctx, id, short(id))
	if err != nil || !found {
		return nil, false, err
	}
	bindings := map[netip.AddrPort]uint16{}
	if detail.HostConfig == nil {
		return bindings, true, nil
	}
	for port, hosts := range detail.HostConfig.PortBindings {
		for _, host := range hosts {
			number, err := strconv.ParseUint(host.HostPort, 10, 16)
			if err != nil {
				return nil, false, c.failed(err, "read port bindings of container %.12s", id)
			}
			if port.Proto() == network.TCP {
				bindings[netip.AddrPortFrom(host.HostIP, uint16(number))] = port.Num()
			}
		}
	}
	return bindings, true, nil
}

// Address returns the IPv4 address that a container has on a network by its name.
// Docker gives it when the container starts, and may give another each time. The
// second result is false while there is none, and for a container that is gone.
func (c *Client) Address(ctx context.Context, id, network string) (netip.Addr, bool, error) {
	detail, found, err := c.inspect(ctx, id, short(id))
	if settings := detail.NetworkSettings; err == nil && found && settings != nil && settings.Networks[network] != nil {
		address := settings.Networks[network].IPAddress
		return address, address.IsValid(), nil
	}
	return netip.Addr{}, false, err
}

// StartContainer starts a container, and lets one that is frozen go on; one that runs is left
// as it is.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	_, err := c.api.ContainerStart(ctx, id, client.ContainerStartOptions{})
	if errdefs.IsConflict(err) {
		if _, thawed := c.api.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{}); thawed == nil {
			return nil
		}
	}
	return c.failed(err, "start container %.12s", id)
}

// FreezeContainer has all that runs in a container stand still; StartContainer lets it go on.
// One that is frozen, or does not run, is refused.
func (c *Client) FreezeContainer(ctx context.Context, id string) error {
	_, err := c.api.ContainerPause(ctx, id, client.ContainerPauseOptions{})
	return c.failed(err, "freeze container %.12s", id)
}

// StopContainer asks a container to end and kills it after grace, which counts
// in whole seconds. One that has ended is left as it is.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	seconds := int(math.Ceil(grace.Seconds()))
	_, err := c.api.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds})
	return c.failed(err, "stop container %.12s", id)
}

// RemoveContainer kills a container and removes it with its anonymous volumes.
// It returns when the container is gone; one that is gone already is not an
// error, and neither is one that somebody else is removing.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	_, err := c.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsConflict(err) {
		wait := c.api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
		select {
		case err = <-wait.Error:
		case <-wait.Result:
			err = nil
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return c.failed(unlessGone(err), "remove container %.12s", id)
}

// RemoveVolume removes a volume, which no container may have any more; none is not an
// error.
func (c *Client) RemoveVolume(ctx context.Context, name string) error {
	_, err := c.api.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	return c.failed(unlessGone(err), "remove volume %s", name)
}

// ContainerSpec is what a new container is made from.
type ContainerSpec struct {
	// Name is optional; Docker invents one when it is empty.
	Name string
	// Image must be present: nothing is pulled.
	Image string
	// Entrypoint and Command replace the image's own when they are not nil.
	Entrypoint, Command []string
	Labels              map[string]string
	Privileged          bool
	// StopSignal is what asks the container to end; an image that is committed
	// of it has it, too. Empty is the image's own.
	StopSignal string
	// Volumes lists folders that get an anonymous volume each; RemoveContainer
	// removes it, and an image that is committed of the container knows nothing
	// of it.
	Volumes []string
	// Network is the name of the network to join; empty is Docker's default.
	Network string
}

// RunDetached makes a container, starts it and returns its id. A container that
// cannot be started is removed again.
func (c *Client) RunDetached(ctx context.Context, spec ContainerSpec) (string, error) {
	var volumes []mount.Mount
	for _, v := range spec.Volumes {
		volumes = append(volumes, mount.Mount{Type: mount.TypeVolume, Target: v})
	}
	// As kind does for its nodes: where the daemon remaps users, a privileged
	// container has to be told to keep those of the machine.
	users := container.UsernsMode("")
	if spec.Privileged {
		users = "host"
	}
	made, err := c.api.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: spec.Name,
		Config: &container.Config{
			Image:      spec.Image,
			Entrypoint: spec.Entrypoint,
			Cmd:        spec.Command,
			Labels:     spec.Labels,
			StopSignal: spec.StopSignal,
		},
		HostConfig: &container.HostConfig{
			Privileged:  spec.Privileged,
			UsernsMode:  users,
			NetworkMode: container.NetworkMode(spec.Network),
			Mounts:      volumes,
		},
	})
	if err != nil {
		return "", c.failed(err, "create container of image %s", spec.Image)
	}
	if err := c.StartContainer(ctx, made.ID); err != nil {
		return "", errors.Join(err, c.RemoveContainer(context.WithoutCancel(ctx), made.ID))
	}
	return made.ID, nil
}

// CopyTo unpacks a tar archive into a folder of a container, which must exist.
func (c *Client) CopyTo(ctx context.Context, id, dir string, tar io.Reader) error {
	_, err := c.api.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: dir, Content: tar})
	return c.failed(err, "copy files to %s of container %.12s", dir, id)
}

// Commit makes an image of a container's files and names it ref. Changes are
// lines of a Dockerfile, such as "ENV container=docker". The container pauses
// meanwhile.
func (c *Client) Commit(ctx context.Context, id, ref string, changes []string) (string, error) {
	made, err := c.api.ContainerCommit(ctx, id, client.ContainerCommitOptions{Reference: ref, Changes: changes})
	return made.ID, c.failed(err, "commit container %.12s as %s", id, ref)
}

// ExitError says that a command in a container ended with another code than 0.
type ExitError struct {
	Command []string
	Code    int
	// Stderr is the end of what the command wrote there.
	Stderr string
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("%s: exit code %d", strings.Join(e.Command, " "), e.Code)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}
