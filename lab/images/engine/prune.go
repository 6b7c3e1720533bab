package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/docker"
)

// Prune removes the images of this realm whose names are not current, and what killed
// builds of this store left. What a container uses stays, and what is being made just
// now. It returns the names of what it removed, and how many bytes that gave back at
// least: what a node image was made on top of may serve others, and does not count.
func (e Engine) Prune(ctx context.Context, current map[string]bool) (removed []string, size int64, err error) {
	left, err := e.client.Containers(ctx, e.building())
	if err != nil {
		return nil, 0, err
	}
	for _, c := range left {
		err := e.unlessMade(c.Labels[LabelKey], func() error {
			removed = append(removed, "container "+c.Name)
			return e.client.RemoveContainer(ctx, c.ID)
		})
		if err != nil {
			return removed, 0, err
		}
	}
	images, size, err := e.pruneImages(ctx, current)
	return append(removed, images...), size, err
}

// pruneImages removes old images of nodes and demo programs, and those from which
// a build that was killed made one.
func (e Engine) pruneImages(ctx context.Context, current map[string]bool) (removed []string, size int64, err error) {
	left, err := e.client.Images(ctx, e.building())
	if err != nil {
		return removed, size, err
	}
	for _, role := range []string{RoleNode, RoleDemo} {
		images, err := e.client.Images(ctx, map[string]string{LabelRole: e.realm + role})
		if err != nil {
			return removed, size, err
		}
		for _, img := range images {
			if !slices.ContainsFunc(img.References, func(ref string) bool { return current[ref] }) {
				left = append(left, img)
			}
		}
	}
	sizes := map[string]int64{} // of what each has on top of its parent
	for _, img := range left {
		sizes[img.ID] = img.Size
		if img.Parent != "" {
			below, _, err := e.client.Image(ctx, img.Parent)
			if err != nil {
				return removed, size, err
			}
			sizes[img.ID] -= below.Size
		}
	}
	for _, img := range left {
		err := e.unlessMade(img.Labels[LabelKey], func() error {
			used, err := e.used(ctx, img)
			if err != nil || used {
				return err
			}
			removed = append(removed, names(img)...)
			return errors.Join(e.remove(ctx, img), e.store.MarkLoaded(Slug(img.Labels[LabelKey]), false))
		})
		if err != nil {
			return removed, size, err
		}
	}
	// An image that lost its names is gone only when the last one that was
	// made on top of it is.
	for _, img := range left {
		_, there, err := e.client.Image(ctx, img.ID)
		if err != nil {
			return removed, size, err
		}
		if !there {
			size += sizes[img.ID]
		}
	}
	return removed, size, nil
}

func (e Engine) used(ctx context.Context, img docker.Image) (bool, error) {
	containers, err := e.client.Containers(ctx, nil)
	return slices.ContainsFunc(containers, func(c docker.Container) bool { return c.ImageID == img.ID }), err
}

// unlessMade does something with what belongs to an image unless somebody is
// making that just now.
func (e Engine) unlessMade(key string, do func() error) (err error) {
	unlock, free, err := e.store.TryLock(Slug(key))
	if err != nil || !free {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return do()
}
