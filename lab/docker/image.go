package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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
	Size int64
}

// Image finds an image by reference or id.
func (c *Client) Image(ctx context.Context, ref string) (Image, bool, error) {
	detail, err := c.api.ImageInspect(ctx, ref)
	if err != nil {
		return Image{}, false, c.failed(unlessGone(err), "inspect image %s", ref)
	}
	found := Image{ID: detail.ID, References: detail.RepoTags, Size: detail.Size}
	if detail.Config != nil {
		found.Labels = detail.Config.Labels
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
		one := Image{ID: s.ID, Parent: s.ParentID, Labels: s.Labels, Size: s.Size}
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
// names that are in it.
func (c *Client) LoadImages(ctx context.Context, tar io.Reader) error {
	progress, err := c.api.ImageLoad(ctx, tar, client.ImageLoadWithQuiet(true))
	if err == nil {
		err = drain(progress)
	}
	return c.failed(err, "load images")
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
	if err == nil {
		err = drain(progress)
	}
	return c.failed(err, "import image %s", ref)
}

// RemoveImage takes a name from an image, and removes the image with its last
// name. No image of that name is not an error; one that a container uses is.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	_, err := c.api.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true})
	return c.failed(unlessGone(err), "remove image %s", ref)
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
