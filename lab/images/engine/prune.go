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
	p := pruning{Engine: e}
	if err := p.containers(ctx); err != nil {
		return p.removed, p.size, err
	}
	err = p.images(ctx, current)
	return p.removed, p.size, err
}

// pruning is what a prune has done.
type pruning struct {
	Engine
	removed []string
	size    int64
}

// containers removes those in which a build worked that was killed.
func (p *pruning) containers(ctx context.Context) error {
	left, err := p.client.Containers(ctx, p.building())
	if err != nil {
		return err
	}
	for _, c := range left {
		err := p.unlessMade(c.Labels[LabelKey], func() error {
			p.removed = append(p.removed, "container "+c.Name)
			return p.client.RemoveContainer(ctx, c.ID)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// images removes old images of nodes and demo programs, and those from which
// a build that was killed made one.
func (p *pruning) images(ctx context.Context, current map[string]bool) error {
	left, err := p.client.Images(ctx, p.building())
	if err != nil {
		return err
	}
	for _, role := range []string{RoleNode, RoleDemo} {
		images, err := p.client.Images(ctx, map[string]string{LabelRole: p.realm + role})
		if err != nil {
			return err
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
			below, _, err := p.client.Image(ctx, img.Parent)
			if err != nil {
				return err
			}
			sizes[img.ID] -= below.Size
		}
	}
	for _, img := range left {
		err := p.unlessMade(img.Labels[LabelKey], func() error {
			used, err := p.used(ctx, img)
			if err != nil || used {
				return err
			}
			p.removed = append(p.removed, names(img)...)
			return errors.Join(p.remove(ctx, img), p.store.MarkLoaded(Slug(img.Labels[LabelKey]), false))
		})
		if err != nil {
			return err
		}
	}
	// An image that lost its names is gone only when the last one that was
	// made on top of it is.
	for _, img := range left {
		_, there, err := p.client.Image(ctx, img.ID)
		if err != nil {
			return err
		}
		if !there {
			p.size += sizes[img.ID]
		}
	}
	return nil
}

// used reports whether a container, running or not, was made of an image.
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
