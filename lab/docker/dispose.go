package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
)

// labelLeft is the label of a note: the names of the volumes that a container
// leaves. A note is itself a volume, the smallest thing that an engine keeps.
const labelLeft = "dev.fedlab.left"

// Unsettled lists, in words, the containers on a network that the engine is still
// making or removing. It goes on with both when the caller is gone.
func (c *Client) Unsettled(ctx context.Context, network string) ([]string, error) {
	all, err := c.ContainersOn(ctx, network)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, one := range all {
		if one.State == string(container.StateRemoving) {
			list = append(list, fmt.Sprintf("docker removes container %s", one.Name))
			continue
		}
		// What is being made is listed before it can be inspected, or removed.
		_, found, err := c.inspect(ctx, one.ID, one.Name)
		if err != nil {
			return nil, err
		}
		if !found {
			list = append(list, fmt.Sprintf("docker makes container %s", one.Name))
		}
	}
	return list, nil
}

// Dispose removes a container and its anonymous volumes. An engine removes the
// volumes when it no longer lists the container; who is killed meanwhile would
// leave volumes that nobody knows. So a note with these labels is written first,
// by which FinishDisposals finds them.
//
// A container that is being made cannot be removed yet, which is not an error: it
// stays listed.
func (c *Client) Dispose(ctx context.Context, id string, labels map[string]string) error {
	detail, found, err := c.inspect(ctx, id, short(id))
	if err != nil || !found {
		return err
	}
	var volumes []string
	for _, m := range detail.Mounts {
		if m.Type == mount.TypeVolume && anonymous(m.Name) {
			volumes = append(volumes, m.Name)
		}
	}
	if volumes == nil {
		return c.RemoveContainer(ctx, id)
	}
	note := maps.Clone(labels)
	note[labelLeft] = strings.Join(volumes, ",")
	name := fmt.Sprintf("fedlab-left-%.12s", id)
	if _, err := c.api.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: note}); err != nil {
		return c.failed(err, "note the volumes of container %.12s", id)
	}
	if err := c.RemoveContainer(ctx, id); err != nil {
		return err
	}
	return c.finish(ctx, name, volumes)
}

// anonymous reports whether the engine made up the name of a volume.
func anonymous(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// FinishDisposals removes the volumes that are named in notes with these labels,
// and the notes.
func (c *Client) FinishDisposals(ctx context.Context, labels map[string]string) error {
	list, err := c.api.VolumeList(ctx, client.VolumeListOptions{Filters: filters(labels)})
	if err != nil {
		return c.failed(err, "list volumes")
	}
	var errs []error
	for _, v := range list.Items {
		if left, noted := v.Labels[labelLeft]; noted {
			errs = append(errs, c.finish(ctx, v.Name, strings.Split(left, ",")))
		}
	}
	return errors.Join(errs...)
}

func (c *Client) finish(ctx context.Context, note string, volumes []string) error {
	for _, name := range append(volumes, note) {
		if err := c.RemoveVolume(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Volume is a volume that somebody has named.
type Volume struct {
	Name   string
	Labels map[string]string
}

// Volumes lists the volumes that somebody has named and that carry all of the labels, by
// their names.
func (c *Client) Volumes(ctx context.Context, labels map[string]string) ([]Volume, error) {
	list, err := c.api.VolumeList(ctx, client.VolumeListOptions{Filters: filters(labels)})
	if err != nil {
		return nil, c.failed(err, "list volumes")
	}
	var all []Volume
	for _, v := range list.Items {
		if _, noted := v.Labels[labelLeft]; !noted && !anonymous(v.Name) {
			all = append(all, Volume{v.Name, v.Labels})
		}
	}
	slices.SortFunc(all, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// RemoveVolumes removes them. No container may have them any more.
func (c *Client) RemoveVolumes(ctx context.Context, labels map[string]string) error {
	all, err := c.Volumes(ctx, labels)
	for _, v := range all {
		err = errors.Join(err, c.RemoveVolume(ctx, v.Name))
	}
	return err
}

// Rejoin gives a stopped container the network that has a name now, where it was
// made for another one of that name, which is gone.
func (c *Client) Rejoin(ctx context.Context, id, name string) error {
	detail, err := c.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return c.failed(err, "inspect container %.12s", id)
	}
	now, found, err := c.Network(ctx, name)
	if err != nil {
		return err
	}
	settings := detail.Container.NetworkSettings
	if !found || settings == nil || settings.Networks[name] == nil {
		return nil
	}
	if was := settings.Networks[name].NetworkID; was == "" || was == now.ID {
		return nil
	}
	if _, err := c.api.NetworkDisconnect(ctx, name, client.NetworkDisconnectOptions{Container: id, Force: true}); err != nil {
		return c.failed(err, "take container %.12s from network %s, which is gone", id, name)
	}
	_, err = c.api.NetworkConnect(ctx, now.ID, client.NetworkConnectOptions{Container: id})
	return c.failed(err, "put container %.12s on network %s", id, name)
}

// HasFile reports whether there is a file in a container, which need not run.
func (c *Client) HasFile(ctx context.Context, id, path string) (bool, error) {
	_, err := c.api.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: path})
	return err == nil, c.failed(unlessGone(err), "look for %s in container %.12s", path, id)
}
