package pull

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

func digestOf(t *testing.T, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestMain(m *testing.M) { imagestest.Main(m, nil) }

// image is what the tests pull, by its reference and its digest.
type image struct{ reference, digest string }

var server = image{reference: "ghcr.io/spiffe/spire-server:1.15.3"}

// pulls lets r fetch an image, and returns the file with it.
func pulls(t *testing.T, r Registries, img image) (string, error) {
	t.Helper()
	ref, err := r.Reference(img.reference, img.digest)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), File)
	return file, r.Fetch(t.Context(), ref, file)
}

func TestPull(t *testing.T) {
	host := imagestest.Registry(t, nil)
	img, other := imagestest.RandomImage(t, runtime.GOARCH), imagestest.RandomImage(t, "s390x")
	for ref, index := range map[string]remote.Taggable{
		host + "/spiffe/spire-server:1.15.3":       img,
		host + "/up/stream/spiffe/agent:1.15.3":    img,
		host + "/library/postgres:17":              img,
		host + "/spiffe/several-platforms:1.15.3":  several(t, img, other),
		host + "/spiffe/by-digest:another-tag":     img,
		host + "/spiffe/index-by-digest:other-tag": several(t, img, other),
	} {
		imagestest.Push(t, ref, index)
	}
	tests := map[string]struct {
		mirror string
		image  image
	}{
		"by tag":              {host, server},
		"mirror with folder":  {host + "/up/stream/", image{reference: "ghcr.io/spiffe/agent:1.15.3"}},
		"Docker's own":        {host, image{reference: "postgres:17"}},
		"no mirror":           {"", image{reference: host + "/spiffe/spire-server:1.15.3"}},
		"of several":          {host, image{reference: "ghcr.io/spiffe/several-platforms:1.15.3"}},
		"by digest":           {host, image{reference: "ghcr.io/spiffe/by-digest:1.15.3", digest: digestOf(t, img)}},
		"of several, by that": {host, image{reference: "ghcr.io/spiffe/index-by-digest:1", digest: digestOf(t, several(t, img, other))}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			file, err := pulls(t, New(tt.mirror, Usual()), tt.image)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tarball.ImageFromPath(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			want, err := img.ConfigName()
			if err != nil {
				t.Fatal(err)
			}
			if config, err := got.ConfigName(); err != nil || config != want {
				t.Errorf("pulled image %s, error %v, want %s", config, err, want)
			}
		})
	}
}

// several makes an index of images for their architectures.
func several(t *testing.T, images ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := v1.ImageIndex(empty.Index)
	for _, img := range images {
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: config.Architecture},
		}})
	}
	return index
}

// half answers with the first bytes of a body of that size; then the connection
// does what after does.
func half(size int64, after func(*http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = w.Write([]byte("half"))
		w.(http.Flusher).Flush()
		after(r)
	}
}

func TestPullRefused(t *testing.T) {
	img := imagestest.RandomImage(t, runtime.GOARCH)
	pinned := server
	pinned.digest = "sha256:" + strings.Repeat("ab", 32)
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer := digestOf(t, layers[0])
	size, err := layers[0].Size()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		image   image
		push    v1.Image
		between func(http.Handler) http.Handler
		// contact and stall are bounds; half a minute where they do not count.
		contact, stall time.Duration
		want           []string
	}{
		"absent":          {image: server, want: []string{"NAME_UNKNOWN: Unknown name"}},
		"another version": {image: image{reference: "ghcr.io/spiffe/spire-server:1.16.0"}, push: img, want: []string{"MANIFEST_UNKNOWN: Unknown manifest"}},
		"another image under the digest": {image: pinned, push: img,
			between: imagestest.Instead("/manifests/"+pinned.digest, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
				_, _ = w.Write(manifest)
			}),
			want: []string{"manifest digest", "does not match requested digest", pinned.digest}},
		"another layer under the digest": {image: server, push: img,
			between: imagestest.Instead("/blobs/"+layer, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }),
			want:    []string{"error verifying", layer}},
		"connection that breaks half-way": {image: server, push: img,
			between: imagestest.Instead("/blobs/"+layer, half(size, func(*http.Request) { panic(http.ErrAbortHandler) })),
			want:    []string{"unexpected EOF"}},
		"download that stands still": {image: server, push: img,
			between: imagestest.Instead("/blobs/"+layer, half(size, func(r *http.Request) { <-r.Context().Done() })),
			stall:   200 * time.Millisecond, want: []string{"nothing has come for 200ms"}},
		"registry that never answers": {image: server,
			between: imagestest.Instead("/v2/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
			contact: 2 * time.Second, want: []string{"no answer within 2s"}},
		"another architecture": {image: server, push: imagestest.RandomImage(t, "s390x"), want: []string{"the image is for s390x, want " + runtime.GOARCH}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			host := imagestest.Registry(t, tt.between)
			if tt.push != nil {
				imagestest.Push(t, host+"/spiffe/spire-server:1.15.3", tt.push)
			}
			r := New(host, Bounds{Contact: cmp.Or(tt.contact, 30*time.Second), Stall: cmp.Or(tt.stall, 30*time.Second)})
			_, err := pulls(t, r, tt.image)
			for _, want := range tt.want {
				if !strings.Contains(imagestest.ErrorText(err), want) {
					t.Errorf("error %v, want it to say %q", err, want)
				}
			}
		})
	}
}

func TestPullIsInterrupted(t *testing.T) {
	errInterrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	host := imagestest.Registry(t, imagestest.Instead("/v2/", func(_ http.ResponseWriter, r *http.Request) {
		cancel(errInterrupted)
		<-r.Context().Done()
	}))
	r := New(host, Usual())
	ref, err := r.Reference(server.reference, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Fetch(ctx, ref, filepath.Join(t.TempDir(), "image")); !errors.Is(err, errInterrupted) {
		t.Errorf("error %v, want why it was interrupted", err)
	}
}

func TestPullReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	tests := map[string]struct {
		mirror, reference, digest string
		want, err                 string
	}{
		"as it is":         {reference: "ghcr.io/spiffe/spire-agent:1.15.3", want: "ghcr.io/spiffe/spire-agent:1.15.3"},
		"Docker's own":     {reference: "docker.io/kindest/node:v1", want: "index.docker.io/kindest/node:v1"},
		"digest":           {reference: "docker.io/kindest/node:v1", digest: digest, want: "index.docker.io/kindest/node@" + digest},
		"mirror":           {mirror: "10.0.0.1:5000", reference: "quay.io/metallb/speaker:v1", want: "10.0.0.1:5000/metallb/speaker:v1"},
		"folder":           {mirror: "mirror.example/a/b", reference: "quay.io/metallb/speaker:v1", want: "mirror.example/a/b/metallb/speaker:v1"},
		"mirror, digest":   {mirror: "mirror.example", reference: "docker.io/kindest/node:v1", digest: digest, want: "mirror.example/kindest/node@" + digest},
		"host of one word": {mirror: "mirror", reference: "quay.io/metallb/speaker:v1", want: "mirror/metallb/speaker:v1"},
		"no host":          {mirror: "/folder", reference: "quay.io/metallb/speaker:v1", err: `registry mirror "/folder" names no host`},
		"with scheme":      {mirror: "https://mirror.example", reference: "quay.io/metallb/speaker:v1", err: `registry mirror "https://mirror.example" begins with a scheme, want host[:port][/folder]`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ref, err := New(tt.mirror, Usual()).Reference(tt.reference, tt.digest)
			if text := imagestest.ErrorText(err); text != tt.err {
				t.Fatalf("error %q, want %q", text, tt.err)
			}
			if err == nil && ref.Name() != tt.want {
				t.Errorf("reference %s, want %s", ref.Name(), tt.want)
			}
		})
	}
}

// What these tests run on must not reach out: TestMain sees to it.
func TestNoTestReachesOut(t *testing.T) {
	_, err := pulls(t, New("", Usual()), server)
	if err == nil || !strings.Contains(err.Error(), "proxyconnect tcp: dial tcp 127.0.0.1:1") {
		t.Errorf("error %v, want that the way out is closed", err)
	}
	if proxy := os.Getenv("GOPROXY"); proxy != "off" {
		t.Errorf("GOPROXY=%s, want off", proxy)
	}
}
