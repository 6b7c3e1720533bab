// Package engine has what fedlab keeps in a Docker engine: node images, and the images
// of demo programs. It makes node images in containers, gives images to the engine and
// to nodes, and removes what nobody needs.
//
// It refuses to know what the images consist of, and which of them a lab needs.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/store"
)

// Labels of the Docker images and containers that this package makes.
const (
	LabelRole = "dev.fedlab.role"
	LabelKey  = "dev.fedlab.key"
	// LabelStore says whose build a container or image belongs to: a lock in one
	// store says nothing of a build of another.
	LabelStore = "dev.fedlab.store"

	// RoleNode marks a node image. What kind makes of it has the label, too,
	// so no container is ever removed by it.
	RoleNode = "node"
	// RoleBuild marks containers and images that are there only while a node
	// image is made.
	RoleBuild = "image-build"
	// RoleDemo marks the image of a demo program. Its containers have the label,
	// too.
	RoleDemo = "demo"
)

// Engine is a Docker engine with the store whose locks guard what is made in it.
type Engine struct {
	client *docker.Client
	store  *store.Store
	realm  string
}

// New returns what an engine has of a realm, which starts the names and labels of all
// that is made there. Realms know nothing of each other; the one of labs is empty.
func New(client *docker.Client, s *store.Store, realm string) Engine {
	return Engine{client: client, store: s, realm: realm}
}

// NodeReference is what the node image of a key is called.
func (e Engine) NodeReference(key string) string { return "fedlab.local/" + e.realm + "node:" + key }

// Name is what the image is called here that clusters call ref: the same.
func (e Engine) Name(ref string) string { return strings.Replace(ref, "/", "/"+e.realm, 1) }

// Slug is what the image of a key is called in the store, which has its lock and
// where it is from.
func Slug(key string) string { return store.Slug("image", key) }

// labels are those of what has a role and a key.
func (e Engine) labels(role, key string) map[string]string {
	return map[string]string{LabelRole: e.realm + role, LabelKey: key}
}

// building are the labels of all that is made on the way for this store.
func (e Engine) building() map[string]string {
	return map[string]string{LabelRole: e.realm + RoleBuild, LabelStore: e.store.Owner()}
}

// Demo gives the engine the image of a demo program, for a container next to the
// clusters, unless it has the image already; open makes the image. The tag of ref is
// the program's key.
func (e Engine) Demo(ctx context.Context, ref string, open func() (v1.Image, error)) error {
	_, key, _ := strings.Cut(ref, ":")
	return e.once(ctx, key, ref, func() error {
		img, err := open()
		if err != nil {
			return err
		}
		return e.load(ctx, ref, img, e.labels(RoleDemo, key))
	})
}

// once lets do make image ref, of a key, unless it is there. Of several processes that
// want it one makes it and the others wait.
func (e Engine) once(ctx context.Context, key, ref string, do func() error) (err error) {
	unlock, err := e.store.Lock(ctx, Slug(key))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, there, err := e.client.Image(ctx, ref); err != nil || there {
		return err
	}
	return do()
}

// Save writes an image of the engine, by reference or id, to a file, as Docker saves
// images.
func (e Engine) Save(ctx context.Context, image, file string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	saved, err := e.client.SaveImages(ctx, []string{image})
	if err != nil {
		return err
	}
	_, err = io.Copy(f, saved)
	return errors.Join(err, saved.Close())
}

// LoadNode gives the engine a node image that was saved, unless it has the image.
func (e Engine) LoadNode(ctx context.Context, key string, img v1.Image) error {
	ref := e.NodeReference(key)
	return e.once(ctx, key, ref, func() error {
		if err := e.give(ctx, ref, img); err != nil {
			return err
		}
		_, there, err := e.client.Image(ctx, ref)
		if err == nil && !there {
			err = fmt.Errorf("docker has loaded the archive, and has no image %s", ref)
		}
		return errors.Join(err, e.store.MarkLoaded(Slug(key), true))
	})
}

// load gives the engine an image, with labels more than it has.
func (e Engine) load(ctx context.Context, ref string, img v1.Image, labels map[string]string) error {
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config := file.Config.DeepCopy()
	if config.Labels == nil {
		config.Labels = map[string]string{}
	}
	maps.Copy(config.Labels, labels)
	if img, err = mutate.Config(img, *config); err != nil {
		return err
	}
	return e.give(ctx, ref, img)
}

// give gives the engine an image as it is.
func (e Engine) give(ctx context.Context, ref string, img v1.Image) error {
	archive := written(func(w io.Writer) error { return layer.Write(w, ref, img) })
	return errors.Join(e.client.LoadImages(ctx, archive), archive.Close())
}

// written returns what write writes, while it is read; the caller closes it.
func written(write func(io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	return r
}

// Has reports whether the containerd in a container has an image.
func (e Engine) Has(ctx context.Context, container, ref string) (bool, error) {
	out, err := e.client.Exec(ctx, container, ctr("images", "ls", "--quiet", "name=="+ref), nil)
	if err != nil {
		return false, fmt.Errorf("look for image %s: %w", ref, err)
	}
	return len(out) > 0, nil
}

// Import gives an image to the containerd in a container, such as a node; flags are
// those of 'ctr images import'.
func (e Engine) Import(ctx context.Context, container, ref string, img v1.Image, flags ...string) error {
	archive := written(func(w io.Writer) error { return layer.Write(w, ref, img) })
	_, err := e.client.Exec(ctx, container, append(append(ctr("images", "import"), flags...), "-"), archive)
	if err != nil {
		err = fmt.Errorf("import %s: %w", ref, err)
	}
	return errors.Join(err, archive.Close())
}

func ctr(args ...string) []string { return append([]string{"ctr", "--namespace", "k8s.io"}, args...) }

// Sweep removes the containers and images that were there only while the node image
// of a key was made, those of this store: another user may be making the same node
// image just now. The layers of those images live on below the node image; only the
// names go.
func (e Engine) Sweep(ctx context.Context, key string) error {
	labels := e.building()
	labels[LabelKey] = key
	containers, err := e.client.Containers(ctx, labels)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range containers {
		errs = append(errs, e.client.RemoveContainer(ctx, c.ID))
	}
	images, err := e.client.Images(ctx, labels)
	errs = append(errs, err)
	for _, img := range images {
		errs = append(errs, e.remove(ctx, img))
	}
	return errors.Join(errs...)
}

func (e Engine) remove(ctx context.Context, img docker.Image) error {
	var errs []error
	for _, name := range names(img) {
		errs = append(errs, e.client.RemoveImage(ctx, name))
	}
	return errors.Join(errs...)
}

func names(img docker.Image) []string {
	if len(img.References) == 0 {
		return []string{img.ID}
	}
	return img.References
}

func labelLine(labels map[string]string) string {
	var line strings.Builder
	line.WriteString("LABEL")
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&line, " %s=%q", name, labels[name])
	}
	return line.String()
}
