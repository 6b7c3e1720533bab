package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/images/layer"
	"github.com/fedlab-dev/fedlab/lab/images/node"
	"github.com/fedlab-dev/fedlab/lab/images/store"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Labels of the Docker images and containers that this package makes.
const (
	labelRole = "dev.fedlab.role"
	labelKey  = "dev.fedlab.key"
	// labelStore says whose build a container or image belongs to: a lock in one
	// store says nothing of a build of another.
	labelStore = "dev.fedlab.store"

	// roleNode marks a node image. What kind makes of it has the label, too,
	// so no container is ever removed by it.
	roleNode = "node"
	// roleBuild marks containers and images that are there only while a node
	// image is made.
	roleBuild = "image-build"
	// roleDemo marks the image of a demo program. Its containers have the label,
	// too.
	roleDemo = "demo"
)

// What is started in a node and how it is stopped, as in kind's own node image:
// systemd ends on SIGRTMIN+3. The stop signal goes by the container, since
// older engines do not take it as a change.
func nodeChanges() []string {
	return []string{`ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`, "ENV container=docker"}
}

const stopSignal = "SIGRTMIN+3"

// loaded is an image together with the reference that it gets in the node. It
// is opened when its turn comes: all of them together fill the memory.
type loaded struct {
	reference string
	open      func() (v1.Image, error)
}

// nodeMaker puts a node image together in containers of a Docker engine.
type nodeMaker struct {
	store  *store.Store
	engine *docker.Client
	realm  string
	// key is the node image's; it labels what is made on the way, so that what
	// a killed build left is found.
	key string
}

func (l *Library) nodeMaker(r recipes, key string) nodeMaker {
	return nodeMaker{store: l.Store, engine: l.Engine, realm: r.realm, key: key}
}

// imageSlug is what the node image of a key is called in the store, which has
// its lock and where it is from.
func imageSlug(key string) string { return store.Slug("image", key) }

// labels are those of what is made on the way.
func (n nodeMaker) labels() map[string]string {
	labels := buildLabels(n.store, n.realm)
	labels[labelKey] = n.key
	return labels
}

// buildLabels are those of all that is made on the way for a store.
func buildLabels(s *store.Store, realm string) map[string]string {
	return map[string]string{labelRole: realm + roleBuild, labelStore: s.Owner()}
}

// make lets do make image ref unless it is there. Of several processes that
// want it one makes it and the others wait. What a killed build of the same
// image left is removed before, and what this one leaves afterwards.
func (n nodeMaker) make(ctx context.Context, ref string, do func(n nodeMaker, ref string) error) (err error) {
	unlock, err := n.store.Lock(ctx, imageSlug(n.key))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, there, err := n.engine.Image(ctx, ref); err != nil || there {
		return err
	}
	plan.Did(ctx)
	if err := n.sweep(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.sweep(context.WithoutCancel(ctx))) }()
	if err := do(n, ref); err != nil {
		return err
	}
	return n.store.MarkLoaded(imageSlug(n.key), false)
}

// sweep removes the containers and images that are there only on the way, those
// of this store: another user may be making the same node image just now. The
// layers of those images live on below the node image; only the names go.
func (n nodeMaker) sweep(ctx context.Context) error {
	containers, err := n.engine.Containers(ctx, n.labels())
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range containers {
		errs = append(errs, n.engine.RemoveContainer(ctx, c.ID))
	}
	images, err := n.engine.Images(ctx, n.labels())
	errs = append(errs, err)
	for _, img := range images {
		errs = append(errs, removeImage(ctx, n.engine, img))
	}
	return errors.Join(errs...)
}

// removeImage removes an image with all its names.
func removeImage(ctx context.Context, engine *docker.Client, img docker.Image) error {
	var errs []error
	for _, name := range imageNames(img) {
		errs = append(errs, engine.RemoveImage(ctx, name))
	}
	return errors.Join(errs...)
}

func imageNames(img docker.Image) []string {
	if len(img.References) == 0 {
		return []string{img.ID}
	}
	return img.References
}

// in runs a container while do works in it and removes it afterwards.
func (n nodeMaker) in(ctx context.Context, spec docker.ContainerSpec, do func(id string) error) (err error) {
	spec.Labels = n.labels()
	spec.Entrypoint = []string{"sleep", "infinity"}
	spec.Privileged = true
	spec.Network = "none"
	spec.StopSignal = stopSignal
	id, err := n.engine.RunDetached(ctx, spec)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, n.engine.RemoveContainer(context.WithoutCancel(ctx), id))
	}()
	return do(id)
}

// labelLine is the line of a Dockerfile that gives an image labels.
func labelLine(labels map[string]string) string {
	var line strings.Builder
	line.WriteString("LABEL")
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&line, " %s=%q", name, labels[name])
	}
	return line.String()
}

// commit names what the container holds now.
func (n nodeMaker) commit(ctx context.Context, id, ref string) error {
	// The image must not stand for a build any more.
	labels := map[string]string{labelRole: n.realm + roleNode, labelKey: n.key, labelStore: ""}
	changes := append([]string{labelLine(labels)}, nodeChanges()...)
	_, err := n.engine.Commit(ctx, id, ref, changes)
	return err
}

// scratch is what an image is called from which the node image is made.
func (n nodeMaker) scratch() string {
	return "fedlab.local/" + n.realm + "node-scratch:" + n.key + "-" + n.store.Owner()
}

// load gives the engine an image to start from, and returns its name.
func (n nodeMaker) load(ctx context.Context, img v1.Image) (string, error) {
	return n.scratch(), loadImage(ctx, n.engine, n.scratch(), img, n.labels())
}

// loadImage gives the engine an image, with labels more than it has.
func loadImage(ctx context.Context, engine *docker.Client, ref string, img v1.Image, labels map[string]string) error {
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
	archive, w := io.Pipe()
	go func() { w.CloseWithError(layer.Write(w, ref, img)) }()
	return errors.Join(engine.LoadImages(ctx, archive), archive.Close())
}

const (
	containerdRoot = "/var/lib/containerd"
	// scratchRoot is where images are unpacked: a volume, since containerd
	// cannot mount overlays on the overlay that is a container's own file
	// system.
	scratchRoot = "/unpack"
)

// build makes node image ref of a root file system, with images in it that are
// unpacked and ready to run. What they were unpacked from is not kept: a node
// never sends an image anywhere, and each byte is copied into each cluster.
func (n nodeMaker) build(ctx context.Context, rootfs, kindFiles, kubernetesBin, ref string, images []loaded) (err error) {
	f, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The engine's client would close a file that it is given.
	if err := n.engine.Import(ctx, io.NopCloser(f), n.scratch(), []string{labelLine(n.labels())}); err != nil {
		return err
	}
	return n.in(ctx, docker.ContainerSpec{Image: n.scratch(), Volumes: []string{scratchRoot}}, func(id string) error {
		if err := n.install(ctx, id, kindFiles, kubernetesBin); err != nil {
			return err
		}
		if err := n.importAll(ctx, id, scratchRoot, images); err != nil {
			return err
		}
		for _, argv := range [][]string{
			{"mkdir", "-p", containerdRoot},
			{"cp", "--archive", scratchRoot + "/.", containerdRoot},
		} {
			if _, err := n.engine.Exec(ctx, id, argv, nil); err != nil {
				return err
			}
		}
		return n.commit(ctx, id, ref)
	})
}

// install makes a kind node without any image in it of a container.
func (n nodeMaker) install(ctx context.Context, id, kindFiles, kubernetesBin string) error {
	defaults, err := n.engine.Exec(ctx, id, []string{"ctr", "oci", "spec"}, nil)
	if err != nil {
		return err
	}
	spec, err := node.ContainerSpec(defaults)
	if err != nil {
		return err
	}
	files, w := io.Pipe()
	go func() { w.CloseWithError(nodeFiles().Write(w, kindFiles, kubernetesBin, spec)) }()
	return errors.Join(n.engine.CopyTo(ctx, id, "/", files), files.Close())
}

// add makes node image ref from node image from with a few small images more,
// which each node unpacks when it starts them: that takes seconds to make.
func (n nodeMaker) add(ctx context.Context, from, ref string, images []loaded) error {
	return n.in(ctx, docker.ContainerSpec{Image: from}, func(id string) error {
		if err := n.importAll(ctx, id, containerdRoot, images, "--no-unpack"); err != nil {
			return err
		}
		return n.commit(ctx, id, ref)
	})
}

// containerdBound is how long containerd may take to answer, or to end; it
// needs a second or two on an idle machine.
const containerdBound = 60 * time.Second

// importAll imports images into the containerd of a container, which runs only
// meanwhile: what it leaves is at rest, and can be copied and committed.
func (n nodeMaker) importAll(ctx context.Context, id, root string, images []loaded, flags ...string) error {
	daemon := func(action ...string) error {
		argv := append([]string{"start-stop-daemon", "--exec", "/usr/local/bin/containerd"}, action...)
		_, err := n.engine.Exec(ctx, id, argv, nil)
		return err
	}
	if err := daemon("--start", "--background", "--", "--root", root); err != nil {
		return err
	}
	err := check.Until(ctx, check.Bound{Within: containerdBound, Every: 200 * time.Millisecond}, check.Check{
		Name: "containerd answers",
		Probe: func(ctx context.Context) error {
			_, err := n.engine.Exec(ctx, id, []string{"ctr", "version"}, nil)
			return err
		},
	})
	if err != nil {
		return err
	}
	for i, item := range images {
		plan.Note(ctx, fmt.Sprintf("image %d of %d: %s", i+1, len(images), item.reference))
		img, err := item.open()
		if err != nil {
			return err
		}
		if err := importImage(ctx, n.engine, id, item.reference, img, flags...); err != nil {
			return err
		}
		if unpacked := len(flags) == 0; unpacked {
			if err := n.dropLayers(ctx, id, img); err != nil {
				return err
			}
		}
	}
	// containerd removes what is dropped some time later, unless somebody gives
	// back a lease and waits for it.
	for _, argv := range [][]string{{"create", "--id", "fedlab"}, {"delete", "--sync", "fedlab"}} {
		if _, err := n.engine.Exec(ctx, id, append([]string{"ctr", "--namespace", "k8s.io", "leases"}, argv...), nil); err != nil {
			return err
		}
	}
	return daemon("--stop", "--retry", strconv.Itoa(int(containerdBound.Seconds())))
}

// dropLayers removes what an image was unpacked from.
func (n nodeMaker) dropLayers(ctx context.Context, id string, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		if _, err := n.engine.Exec(ctx, id, []string{"ctr", "--namespace", "k8s.io", "content", "rm", digest.String()}, nil); err != nil {
			return err
		}
	}
	return nil
}

// importImage gives an image to the containerd in a container.
func importImage(ctx context.Context, engine *docker.Client, id, ref string, img v1.Image, flags ...string) error {
	archive, w := io.Pipe()
	go func() { w.CloseWithError(layer.Write(w, ref, img)) }()
	argv := append([]string{"ctr", "--namespace", "k8s.io", "images", "import"}, flags...)
	if _, err := engine.Exec(ctx, id, append(argv, "-"), archive); err != nil {
		return errors.Join(fmt.Errorf("import %s: %w", ref, err), archive.Close())
	}
	return archive.Close()
}
