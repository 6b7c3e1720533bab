package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/docker"
)

// Labels of the Docker images and containers that this package makes.
const (
	labelRole = "dev.fedlab.role"
	labelKey  = "dev.fedlab.key"

	roleNode  = "node"
	roleBuild = "image-build"
)

// What is started in a node and how it is stopped, as in kind's own node image:
// systemd ends on SIGRTMIN+3. The stop signal goes by the container, since
// older engines do not take it as a change.
var nodeChanges = []string{
	`ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`,
	"ENV container=docker",
}

const stopSignal = "SIGRTMIN+3"

// loaded is an image together with the reference that it gets in the node.
type loaded struct {
	reference string
	image     v1.Image
}

// nodeMaker puts node images together in containers of a Docker engine.
type nodeMaker struct {
	engine *docker.Client
	// key labels the containers of this build, so that those of one that was
	// killed are found.
	key string
}

// sweep removes containers that a killed build of the same image left.
func (n nodeMaker) sweep(ctx context.Context) error {
	left, err := n.engine.Containers(ctx, map[string]string{labelRole: roleBuild, labelKey: n.key})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range left {
		errs = append(errs, n.engine.RemoveContainer(ctx, c.ID))
	}
	return errors.Join(errs...)
}

// in runs a container while do works in it and removes it afterwards.
func (n nodeMaker) in(ctx context.Context, spec docker.ContainerSpec, do func(id string) error) (err error) {
	spec.Labels = map[string]string{labelRole: roleBuild, labelKey: n.key}
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

// commit names what the container holds now.
func (n nodeMaker) commit(ctx context.Context, id, ref string) error {
	changes := append([]string{"LABEL " + labelRole + "=" + roleNode + " " + labelKey + "=" + n.key}, nodeChanges...)
	_, err := n.engine.Commit(ctx, id, ref, changes)
	return err
}

// bare makes a kind node without any image in it from a root file system.
func (n nodeMaker) bare(ctx context.Context, rootfs, kindFiles, kubernetesBin, ref string) (err error) {
	f, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	imported := ref + "-rootfs"
	// The engine's client would close a file that it is given.
	if err := n.engine.Import(ctx, io.NopCloser(f), imported, nil); err != nil {
		return err
	}
	err = n.in(ctx, docker.ContainerSpec{Image: imported, Entrypoint: idle}, func(id string) error {
		defaults, err := n.engine.Exec(ctx, id, []string{"ctr", "oci", "spec"}, nil)
		if err != nil {
			return err
		}
		spec, err := containerSpec(defaults)
		if err != nil {
			return err
		}
		files, w := io.Pipe()
		go func() { w.CloseWithError(writeNodeFiles(w, kindFiles, kubernetesBin)) }()
		if err := n.engine.CopyTo(ctx, id, "/", files); err != nil {
			return errors.Join(err, files.Close())
		}
		var own bytes.Buffer
		t := newTree(&own)
		t.file("etc/containerd/cri-base.json", 0o644, spec)
		if err := t.Close(); err != nil {
			return err
		}
		if err := n.engine.CopyTo(ctx, id, "/", &own); err != nil {
			return err
		}
		return n.commit(ctx, id, ref)
	})
	// The layer lives on below the new image; only the name goes.
	return errors.Join(err, n.engine.RemoveImage(context.WithoutCancel(ctx), imported))
}

const (
	containerdRoot = "/var/lib/containerd"
	// scratchRoot is where images are unpacked: a volume, since containerd
	// cannot mount overlays on the overlay that is a container's own file
	// system.
	scratchRoot = "/unpack"
)

// preload makes node image ref from node image from with images in it, unpacked
// and ready to run. What they were unpacked from is not kept: a node never
// sends an image anywhere, and each byte is copied into each cluster.
func (n nodeMaker) preload(ctx context.Context, from, ref string, images []loaded) error {
	spec := docker.ContainerSpec{Image: from, Entrypoint: idle, Volumes: []string{scratchRoot}}
	return n.in(ctx, spec, func(id string) error {
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

// add makes node image ref from node image from with a few small images more,
// which each node unpacks when it starts them: that takes seconds to make.
func (n nodeMaker) add(ctx context.Context, from, ref string, images []loaded) error {
	return n.in(ctx, docker.ContainerSpec{Image: from, Entrypoint: idle}, func(id string) error {
		if err := n.importAll(ctx, id, containerdRoot, images, "--no-unpack"); err != nil {
			return err
		}
		return n.commit(ctx, id, ref)
	})
}

// idle keeps a container open to work in.
var idle = []string{"sleep", "infinity"}

// containerdBound is how long containerd may take to answer, or to end; it
// needs a second or two on an idle machine.
const containerdBound = 60 * time.Second

// importAll imports images into the containerd of a container, which runs only
// meanwhile: what it leaves is at rest, and can be copied and committed.
func (n nodeMaker) importAll(ctx context.Context, id, root string, images []loaded, flags ...string) error {
	daemon := func(action ...string) error {
		argv := append([]string{"start-stop-daemon", "--exec", "/usr/bin/containerd"}, action...)
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
	for _, img := range images {
		if err := importImage(ctx, n.engine, id, img.reference, img.image, flags...); err != nil {
			return err
		}
		if len(flags) > 0 { // not unpacked yet: the layers are still needed
			continue
		}
		if err := n.dropLayers(ctx, id, img.image); err != nil {
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
	go func() { w.CloseWithError(writeImage(w, ref, img)) }()
	argv := append([]string{"ctr", "--namespace", "k8s.io", "images", "import"}, flags...)
	if _, err := engine.Exec(ctx, id, append(argv, "-"), archive); err != nil {
		return errors.Join(fmt.Errorf("import %s: %w", ref, err), archive.Close())
	}
	return archive.Close()
}

// programPath returns where a build keeps a program.
func programPath(artifact, program string) string { return filepath.Join(artifact, "bin", program) }
