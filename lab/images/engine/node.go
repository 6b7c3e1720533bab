package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// What is started in a node and how it is stopped, as in kind's own node image:
// systemd ends on SIGRTMIN+3. The stop signal goes by the container, since
// older engines do not take it as a change.
func nodeChanges() []string {
	return []string{`ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`, "ENV container=docker"}
}

const stopSignal = "SIGRTMIN+3"

// Image is an image together with the reference that it gets in the node. It
// is opened when its turn comes: all of them together fill the memory.
type Image struct {
	Reference string
	Open      func() (v1.Image, error)
}

// Node is a node image that is being made in containers of the engine.
type Node struct {
	Engine
	// key is the node image's; it labels what is made on the way, so that what
	// a killed build left is found.
	key string
}

// MakeNode lets do make the node image of a key unless it is there. What a killed build
// of the same image left is removed before, and what this one leaves afterwards.
func (e Engine) MakeNode(ctx context.Context, key string, do func(Node) error) error {
	return e.once(ctx, key, e.NodeReference(key), func() (err error) {
		plan.Did(ctx)
		if err := e.Sweep(ctx, key); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, e.Sweep(context.WithoutCancel(ctx), key)) }()
		if err := do(Node{Engine: e, key: key}); err != nil {
			return err
		}
		return e.store.MarkLoaded(Slug(key), false)
	})
}

// labels are those of what is made on the way.
func (n Node) labels() map[string]string {
	labels := n.building()
	labels[LabelKey] = n.key
	return labels
}

// scratch is what an image is called from which the node image is made.
func (n Node) scratch() string {
	return "fedlab.local/" + n.realm + "node-scratch:" + n.key + "-" + n.store.Owner()
}

// in runs a container of an image while do works in it and removes it afterwards.
func (n Node) in(ctx context.Context, image string, volumes []string, do func(id string) error) (err error) {
	id, err := n.client.RunDetached(ctx, docker.ContainerSpec{
		Image: image, Volumes: volumes, Labels: n.labels(),
		Entrypoint: []string{"sleep", "infinity"}, Privileged: true, Network: "none", StopSignal: stopSignal,
	})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, n.client.RemoveContainer(context.WithoutCancel(ctx), id))
	}()
	return do(id)
}

// commit makes the node image of what the container holds now.
func (n Node) commit(ctx context.Context, id string) error {
	// The image must not stand for a build any more.
	labels := n.Engine.labels(RoleNode, n.key)
	labels[LabelStore] = ""
	changes := append([]string{labelLine(labels)}, nodeChanges()...)
	_, err := n.client.Commit(ctx, id, n.NodeReference(n.key), changes)
	return err
}

const (
	containerdRoot = "/var/lib/containerd"
	// scratchRoot is where images are unpacked: a volume, since containerd
	// cannot mount overlays on the overlay that is a container's own file
	// system.
	scratchRoot = "/unpack"
)

// Build makes it of a root file system and of the files that make a kind node of that,
// with images in it that are unpacked and ready to run. What they were unpacked from
// is not kept: a node never sends an image anywhere, and each byte is copied into each
// cluster. Files are written as a tar archive; they are told containerd's default
// specification of a container.
func (n Node) Build(ctx context.Context, rootfs string, files func(w io.Writer, spec []byte) error, images []Image) (err error) {
	f, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The engine's client would close a file that it is given.
	if err := n.client.Import(ctx, io.NopCloser(f), n.scratch(), []string{labelLine(n.labels())}); err != nil {
		return err
	}
	return n.in(ctx, n.scratch(), []string{scratchRoot}, func(id string) error {
		if err := n.install(ctx, id, files); err != nil {
			return err
		}
		if err := n.importAll(ctx, id, scratchRoot, images); err != nil {
			return err
		}
		for _, argv := range [][]string{
			{"mkdir", "-p", containerdRoot},
			{"cp", "--archive", scratchRoot + "/.", containerdRoot},
		} {
			if _, err := n.client.Exec(ctx, id, argv, nil); err != nil {
				return err
			}
		}
		return n.commit(ctx, id)
	})
}

// install makes a kind node without any image in it of a container.
func (n Node) install(ctx context.Context, id string, files func(w io.Writer, spec []byte) error) error {
	spec, err := n.client.Exec(ctx, id, []string{"ctr", "oci", "spec"}, nil)
	if err != nil {
		return err
	}
	archive := written(func(w io.Writer) error { return files(w, spec) })
	return errors.Join(n.client.CopyTo(ctx, id, "/", archive), archive.Close())
}

// Add makes it of another node image with a few small images more, which each node
// unpacks when it starts them: that takes seconds to make.
func (n Node) Add(ctx context.Context, from v1.Image, images []Image) error {
	if err := n.load(ctx, n.scratch(), from, n.labels()); err != nil {
		return err
	}
	return n.in(ctx, n.scratch(), nil, func(id string) error {
		if err := n.importAll(ctx, id, containerdRoot, images, "--no-unpack"); err != nil {
			return err
		}
		return n.commit(ctx, id)
	})
}

// containerdBound is how long containerd may take to answer, or to end; it
// needs a second or two on an idle machine.
const containerdBound = 60 * time.Second

// importAll imports images into the containerd of a container, which runs only
// meanwhile: what it leaves is at rest, and can be copied and committed.
func (n Node) importAll(ctx context.Context, id, root string, images []Image, flags ...string) error {
	daemon := func(action ...string) error {
		argv := append([]string{"start-stop-daemon", "--exec", "/usr/local/bin/containerd"}, action...)
		_, err := n.client.Exec(ctx, id, argv, nil)
		return err
	}
	if err := daemon("--start", "--background", "--", "--root", root); err != nil {
		return err
	}
	err := check.Until(ctx, check.Bound{Within: containerdBound, Every: 200 * time.Millisecond}, check.Check{
		Name: "containerd answers",
		Probe: func(ctx context.Context) error {
			_, err := n.client.Exec(ctx, id, []string{"ctr", "version"}, nil)
			return err
		},
	})
	if err != nil {
		return err
	}
	for i, item := range images {
		plan.Note(ctx, fmt.Sprintf("image %d of %d: %s", i+1, len(images), item.Reference))
		img, err := item.Open()
		if err != nil {
			return err
		}
		if err := n.Import(ctx, id, item.Reference, img, flags...); err != nil {
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
	for _, argv := range [][]string{ctr("leases", "create", "--id", "fedlab"), ctr("leases", "delete", "--sync", "fedlab")} {
		if _, err := n.client.Exec(ctx, id, argv, nil); err != nil {
			return err
		}
	}
	return daemon("--stop", "--retry", strconv.Itoa(int(containerdBound.Seconds())))
}

// dropLayers removes what an image was unpacked from.
func (n Node) dropLayers(ctx context.Context, id string, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return err
		}
		if _, err := n.client.Exec(ctx, id, ctr("content", "rm", digest.String()), nil); err != nil {
			return err
		}
	}
	return nil
}
