package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
)

// Image is an image that the engine holds.
type Image struct {
	ID string
	// References are its names with tags; an image may have none.
	References []string
	// Parent is the id of the image that it was committed on top of, where that
	// was on this engine; only Images tells.
	Parent string
	Labels map[string]string
	// Size is what it takes on disk, shared layers included, in bytes.
	Size    int64
	Created time.Time
}

// Image finds an image by reference or id.
func (c *Client) Image(ctx context.Context, ref string) (Image, bool, error) {
	detail, err := c.api.ImageInspect(ctx, ref)
	if gone(err) {
		return Image{}, false, nil
	}
	if err != nil {
		return Image{}, false, c.failed(err, "inspect image %s", ref)
	}
	found := Image{ID: detail.ID, References: detail.RepoTags, Size: detail.Size}
	if detail.Config != nil {
		found.Labels = detail.Config.Labels
	}
	if detail.Created != "" {
		if found.Created, err = time.Parse(time.RFC3339Nano, detail.Created); err != nil {
			return Image{}, false, fmt.Errorf("inspect image %s: %w", ref, err)
		}
	}
	return found, true, nil
}

// Images lists the images that carry all of the labels.
func (c *Client) Images(ctx context.Context, labels map[string]string) ([]Image, error) {
	list, err := c.api.ImageList(ctx, client.ImageListOptions{Filters: filters(labels)})
	if err != nil {
		return nil, c.failed(err, "list images")
	}
	var found []Image
	for _, s := range list.Items {
		one := Image{ID: s.ID, Parent: s.ParentID, Labels: s.Labels, Size: s.Size, Created: time.Unix(s.Created, 0).UTC()}
		for _, ref := range s.RepoTags {
			// What older engines say of an image without a name.
			if ref != "<none>:<none>" {
				one.References = append(one.References, ref)
			}
		}
		found = append(found, one)
	}
	return found, nil
}

// LoadImages reads an archive of images, as "docker save" writes it, under the
// names that stand in it.
func (c *Client) LoadImages(ctx context.Context, tar io.Reader) error {
	progress, err := c.api.ImageLoad(ctx, tar, client.ImageLoadWithQuiet(true))
	if err != nil {
		return c.failed(err, "load images")
	}
	if err := drain(progress); err != nil {
		return c.failed(err, "load images")
	}
	return nil
}

// SaveImages returns an archive of images for [Client.LoadImages]. The caller
// closes it.
func (c *Client) SaveImages(ctx context.Context, refs []string) (io.ReadCloser, error) {
	tar, err := c.api.ImageSave(ctx, refs)
	if err != nil {
		return nil, c.failed(err, "save images")
	}
	return tar, nil
}

// Import makes an image of one layer from a tar archive of a file system and
// names it ref. Changes are lines of a Dockerfile; not each instruction is
// allowed (STOPSIGNAL is not in Docker 20.10).
func (c *Client) Import(ctx context.Context, tar io.Reader, ref string, changes []string) error {
	source := client.ImageImportSource{Source: tar, SourceName: "-"}
	progress, err := c.api.ImageImport(ctx, source, ref, client.ImageImportOptions{Changes: changes})
	if err != nil {
		return c.failed(err, "import image %s", ref)
	}
	if err := drain(progress); err != nil {
		return c.failed(err, "import image %s", ref)
	}
	return nil
}

// TagImage gives an image a further name.
func (c *Client) TagImage(ctx context.Context, image, ref string) error {
	if _, err := c.api.ImageTag(ctx, client.ImageTagOptions{Source: image, Target: ref}); err != nil {
		return c.failed(err, "tag image %s as %s", image, ref)
	}
	return nil
}

// RemoveImage takes a name from an image, and removes the image with its last
// name. No image of that name is not an error; one that a container uses is.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	_, err := c.api.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true})
	if err != nil && !gone(err) {
		return c.failed(err, "remove image %s", ref)
	}
	return nil
}

// drain reads the engine's progress messages to their end: a call that is
// answered with 200 may still report its failure there.
func drain(progress io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, progress.Close()) }()
	messages := json.NewDecoder(progress)
	for {
		var m jsonstream.Message
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read progress: %w", err)
		case m.Error != nil:
			return m.Error
		}
	}
}
