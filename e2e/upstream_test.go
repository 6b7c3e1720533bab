package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fedlab-dev/fedlab/lab/images"
)

// upstreamRegistry is a registry on loopback that stands for those that upstream's
// images are pulled from: it has each image, made of what this machine has built,
// under upstream's name.
//
// What it cannot show: its images are of this machine's programs, not of upstream's
// files, and its node image of kind has no image of kindnet, so that the manifest of
// kind's network is replaced by one that makes nothing, and pods are connected by the
// node's own containerd.
type upstreamRegistry struct {
	// Host is its address, as FEDLAB_MIRROR takes it.
	Host string
	// KindNode is the reference of its node image, as FEDLAB_KIND_NODE takes it:
	// no other image can have the digest that kind names.
	KindNode string
	server   *http.Server
}

// Close ends it.
func (r *upstreamRegistry) Close() error { return r.server.Close() }

// serveUpstream fills a registry, whose blobs are kept in dir, with images made of what a
// library has, and serves it until Close.
func serveUpstream(ctx context.Context, library *images.Library, dir string) (_ *upstreamRegistry, err error) {
	blobs := filepath.Join(dir, "blobs")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)))
	r := &upstreamRegistry{Host: listener.Addr().String(), server: &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}}
	go func() { _ = r.server.Serve(listener) }()
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	entries, err := library.List(ctx)
	if err != nil {
		return nil, err
	}
	node := slices.IndexFunc(entries, func(e images.Entry) bool { return e.Kind == images.NodeImage && e.Present })
	if node < 0 {
		return nil, errors.New("there is no node image to make kind's of")
	}
	for i, upstream := range images.Pulled() {
		at := upstream.Reference
		var img v1.Image
		switch {
		case i == 0:
			tagged, _, _ := strings.Cut(at, ":")
			at = tagged + ":of-this-machine"
			r.KindNode = at
			img, err = kindNodeOf(ctx, entries[node].Reference, dir)
		case upstream.Program == "":
			img, err = upstreamFoundation(library.Store, entries, upstream.Artifact)
		default:
			img, err = upstreamProgram(ctx, library, upstream)
		}
		if err == nil {
			err = r.push(ctx, at, img)
		}
		if err != nil {
			return nil, fmt.Errorf("make image %s: %w", at, err)
		}
	}
	return r, nil
}

func (r *upstreamRegistry) push(ctx context.Context, reference string, img v1.Image) error {
	upstream, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	here, err := name.NewTag(r.Host + "/" + upstream.RepositoryStr() + ":" + upstream.TagStr())
	if err != nil {
		return err
	}
	return remote.Write(here, img, remote.WithContext(ctx))
}

// upstreamProgram makes the image of one of upstream's programs.
func upstreamProgram(ctx context.Context, library *images.Library, upstream images.Image) (v1.Image, error) {
	file, err := library.Program(ctx, upstream.Program)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	at := strings.TrimPrefix(upstream.Path, "/")
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}))
	}
	err = errors.Join(err,
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}),
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: 0o755, Size: int64(len(content))}))
	if err != nil {
		return nil, err
	}
	_, err = w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return upstreamImage(v1.Config{Entrypoint: []string{upstream.Path}}, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
}

// upstreamFoundation makes the image of what a demo program stands on of the files of
// Debian's packages, as the store has them.
func upstreamFoundation(store *images.Store, entries []images.Entry, artifact string) (v1.Image, error) {
	i := slices.IndexFunc(entries, func(e images.Entry) bool { return e.Kind == images.Ingredient && e.Name == artifact && e.Present })
	if i < 0 {
		return nil, fmt.Errorf("the store has no %s", artifact)
	}
	dir, _, err := store.Path(artifact, entries[i].Key)
	if err != nil {
		return nil, err
	}
	return upstreamImage(v1.Config{}, func() (io.ReadCloser, error) { return os.Open(filepath.Join(dir, "files.tar")) })
}

// upstreamImage makes an image of layers. They are in the format of gzip, as upstream's are,
// and not made smaller: to compress gigabytes for loopback takes minutes.
func upstreamImage(config v1.Config, contents ...tarball.Opener) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.DockerManifestSchema2), types.DockerConfigJSON)
	for _, content := range contents {
		layer, err := tarball.LayerFromOpener(content, tarball.WithCompressionLevel(gzip.NoCompression))
		if err == nil {
			img, err = mutate.AppendLayers(img, layer)
		}
		if err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	return mutate.ConfigFile(img, file)
}

// asKindHasIt makes of a node image that was built one as kind's own is: with the
// images of Kubernetes alone, and with the manifests that kind installs, of which
// that of the network makes nothing but a mark.
const asKindHasIt = `set -e
start-stop-daemon --start --background --exec /usr/local/bin/containerd
timeout 120 sh -c 'until ctr version >/dev/null 2>&1; do :; done'
for image in $(ctr --namespace k8s.io images ls --quiet); do
	case $image in
	registry.k8s.io/*) ;;
	*) ctr --namespace k8s.io images rm "$image" ;;
	esac
done
start-stop-daemon --stop --exec /usr/local/bin/containerd --retry 120
mkdir -p /kind/manifests
cat >/kind/manifests/default-cni.yaml <<'END'
apiVersion: v1
kind: ConfigMap
metadata: {name: in-place-of-kindnet, namespace: kube-system}
data: {podSubnet: "{{ .PodSubnet }}"}
END
cat >/kind/manifests/default-storage.yaml <<'END'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/host-path
END
`

// kindNodeOf makes kind's node image of one that was built.
func kindNodeOf(ctx context.Context, built, dir string) (_ v1.Image, err error) {
	const reference = "fedlab-e2e/kind-node:of-this-machine"
	started, err := dockerWith(ctx, nil, "run", "--detach", "--privileged", "--network", "none", "--entrypoint", "sleep", built, "infinity")
	if err != nil {
		return nil, err
	}
	id := strings.TrimSpace(started)
	defer func() {
		after := context.WithoutCancel(ctx)
		_, removed := dockerWith(after, nil, "rm", "--force", "--volumes", id)
		_, forgotten := dockerWith(after, nil, "image", "rm", "--force", reference)
		err = errors.Join(err, removed, forgotten)
	}()
	if _, err := dockerWith(ctx, strings.NewReader(asKindHasIt), "exec", "--interactive", id, "sh", "-s"); err != nil {
		return nil, err
	}
	if _, err := dockerWith(ctx, nil, "commit", "--change", `ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`, "--change", "CMD []",
		"--change", "LABEL dev.fedlab.role= dev.fedlab.key=", id, reference); err != nil {
		return nil, err
	}
	archive := filepath.Join(dir, "kind-node.tar")
	if _, err := dockerWith(ctx, nil, "save", "--output", archive, reference); err != nil {
		return nil, err
	}
	saved, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return nil, err
	}
	config, err := saved.ConfigFile()
	if err != nil {
		return nil, err
	}
	layers, err := saved.Layers()
	if err != nil {
		return nil, err
	}
	var contents []tarball.Opener
	for _, layer := range layers {
		contents = append(contents, layer.Uncompressed)
	}
	return upstreamImage(config.Config, contents...)
}

// dockerWith runs Docker's command with something to read.
func dockerWith(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
