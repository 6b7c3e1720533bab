package images

import (
	"context"
	"errors"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/docker"
)

// Pruned is what Prune has removed.
type Pruned struct {
	// Names are those of artifacts, containers and Docker images.
	Names []string
	// Bytes is what that gave back at least: what a node image was made on top
	// of may serve others, and does not count.
	Bytes int64
}

// Prune removes the artifacts and Docker images that this fedlab has no use
// for, pulled and built ones alike, and what killed builds of this store left.
// What a container uses stays, and what is being made just now.
func (l *Library) Prune(ctx context.Context) (Pruned, error) {
	r, err := l.recipes()
	if err != nil {
		return Pruned{}, err
	}
	keep := map[string]bool{}
	for _, a := range r.artifacts {
		keep[a.slug()] = true
	}
	var done Pruned
	if done.Names, done.Bytes, err = l.Store.Prune(keep); err != nil {
		return done, err
	}
	if err := l.pruneContainers(ctx, r, &done); err != nil {
		return done, err
	}
	return done, l.pruneImages(ctx, r, &done)
}

// pruneContainers removes those in which a build worked that was killed.
func (l *Library) pruneContainers(ctx context.Context, r recipes, done *Pruned) error {
	left, err := l.Engine.Containers(ctx, buildLabels(l.Store, r.realm))
	if err != nil {
		return err
	}
	for _, c := range left {
		err := l.unlessMade(c.Labels[labelKey], func() error {
			done.Names = append(done.Names, "container "+c.Name)
			return l.Engine.RemoveContainer(ctx, c.ID)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pruneImages removes old images of nodes and demo programs, and those from which
// a build that was killed made one.
func (l *Library) pruneImages(ctx context.Context, r recipes, done *Pruned) error {
	current, err := r.current()
	if err != nil {
		return err
	}
	left, err := l.Engine.Images(ctx, buildLabels(l.Store, r.realm))
	if err != nil {
		return err
	}
	for _, role := range []string{roleNode, roleDemo} {
		images, err := l.Engine.Images(ctx, map[string]string{labelRole: r.realm + role})
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
			below, _, err := l.Engine.Image(ctx, img.Parent)
			if err != nil {
				return err
			}
			sizes[img.ID] -= below.Size
		}
	}
	for _, img := range left {
		err := l.unlessMade(img.Labels[labelKey], func() error {
			used, err := l.used(ctx, img)
			if err != nil || used {
				return err
			}
			done.Names = append(done.Names, imageNames(img)...)
			return errors.Join(removeImage(ctx, l.Engine, img), l.Store.MarkLoaded(imageSlug(img.Labels[labelKey]), false))
		})
		if err != nil {
			return err
		}
	}
	// An image that lost its names is gone only when the last one that was
	// made on top of it is.
	for _, img := range left {
		_, there, err := l.Engine.Image(ctx, img.ID)
		if err != nil {
			return err
		}
		if !there {
			done.Bytes += sizes[img.ID]
		}
	}
	return nil
}

// current has the names of the images that Docker may have of this fedlab.
func (r recipes) current() (map[string]bool, error) {
	current := map[string]bool{}
	for _, f := range r.flavours {
		current[r.nodeReference(f)] = true
	}
	for _, d := range r.demos {
		ref, err := r.engineReference(d)
		if err != nil {
			return nil, err
		}
		current[ref] = true
	}
	return current, nil
}

// used reports whether a container, running or not, was made of an image.
func (l *Library) used(ctx context.Context, img docker.Image) (bool, error) {
	containers, err := l.Engine.Containers(ctx, nil)
	return slices.ContainsFunc(containers, func(c docker.Container) bool { return c.ImageID == img.ID }), err
}

// unlessMade does something with what belongs to an image unless somebody is
// making that just now.
func (l *Library) unlessMade(key string, do func() error) (err error) {
	unlock, free, err := l.Store.TryLock(imageSlug(key))
	if err != nil || !free {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return do()
}
