package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/fedlab-dev/fedlab/lab/images/store"
)

const (
	// contactBound is how long a registry may take until it has said what an
	// image consists of. A machine without a registry must not wait longer
	// before it builds.
	contactBound = 5 * time.Second
	// stallBound is how long a download may stand still.
	stallBound = 60 * time.Second
)

// pulledFile is an image as it came, in its artifact's folder.
const pulledFile = "image.tar"

func pulledName(img Image) string { return "pulled-" + img.Name }

func pulledKey(img Image) string {
	return store.Key("pulled 1", runtime.GOARCH, img.Reference, img.Digest)
}

// puller fetches upstream images from registries. Who is asked, and with which
// credentials, is what the user's Docker configuration says.
type puller struct {
	// mirror is asked in place of the registry that a reference names.
	mirror string
	// contact and stall replace contactBound and stallBound in tests.
	contact, stall time.Duration
}

// artifact is an upstream image in the store.
func (p puller) artifact(img Image) artifact {
	return artifact{
		name: pulledName(img), title: "upstream image " + img.Reference, version: img.Reference,
		kind: Ingredient, typical: 20 * time.Second, only: Pull,
		fill: func(ctx context.Context, dir string, log *os.File) error { return p.fill(ctx, img, dir, log) },
		ask:  func(ctx context.Context) error { return p.ask(ctx, img) },
	}
}

func (p puller) fill(ctx context.Context, img Image, dir string, log io.Writer) error {
	ref, err := p.reference(img)
	if err != nil {
		return fmt.Errorf("pull %s: %w", img.Reference, err)
	}
	if _, err := fmt.Fprintf(log, "pull %s\n", ref); err != nil {
		return err
	}
	if err := p.pull(ctx, ref, filepath.Join(dir, pulledFile)); err != nil {
		return &SourceError{Source: Pull, Err: fmt.Errorf("pull %s: %w", ref, err)}
	}
	return nil
}

// ask returns nil when the registry has an image, of which no layer is fetched.
func (p puller) ask(ctx context.Context, img Image) error {
	ref, err := p.reference(img)
	if err != nil {
		return fmt.Errorf("pull %s: %w", img.Reference, err)
	}
	if err := p.open(ctx, ref, func(v1.Image) error { return nil }); err != nil {
		return &SourceError{Source: Pull, Err: fmt.Errorf("pull %s: %w", ref, err)}
	}
	return nil
}

// reference is where an image is fetched from: by its digest where that is
// known, so that nothing else can come.
func (p puller) reference(img Image) (name.Reference, error) {
	upstream, err := name.ParseReference(img.Reference)
	if err != nil {
		return nil, err
	}
	repository := upstream.Context()
	if strings.Contains(p.mirror, "://") {
		return nil, fmt.Errorf("registry mirror %q begins with a scheme, want host[:port][/folder]", p.mirror)
	}
	if p.mirror != "" {
		host, folder, _ := strings.Cut(strings.TrimSuffix(p.mirror, "/"), "/")
		if host == "" { // it would stand for Docker's own registry
			return nil, fmt.Errorf("registry mirror %q names no host", p.mirror)
		}
		registry, err := name.NewRegistry(host)
		if err != nil {
			return nil, fmt.Errorf("read registry mirror: %w", err)
		}
		repository = registry.Repo(path.Join(folder, repository.RepositoryStr()))
	}
	if img.Digest != "" {
		return repository.Digest(img.Digest), nil
	}
	return repository.Tag(upstream.Identifier()), nil
}

// pull writes an image to a file. Each of its parts is checked against the
// digest that the one before it gives, up to that of the reference.
func (p puller) pull(ctx context.Context, ref name.Reference, file string) error {
	return p.open(ctx, ref, func(img v1.Image) error {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		return errors.Join(tarball.Write(ref, img, f), f.Close())
	})
}

// open calls do with an image for this platform as its registry describes it;
// what do reads of the image is fetched then. The registry has contactBound to
// answer, and may stand still for stallBound afterwards.
func (p puller) open(ctx context.Context, ref name.Reference, do func(v1.Image) error) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What was cancelled says only that; why is what counts.
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	contact, stall := cmp.Or(p.contact, contactBound), cmp.Or(p.stall, stallBound)
	var met atomic.Bool
	guard := time.AfterFunc(contact, func() {
		if met.Load() {
			cancel(fmt.Errorf("nothing has come for %s", stall))
			return
		}
		cancel(fmt.Errorf("no answer within %s", contact))
	})
	defer guard.Stop()
	alive := func() {
		if met.Load() {
			guard.Reset(stall)
		}
	}

	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	img, err := remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(platform), remote.WithUserAgent("fedlab"),
		remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(transport{alive: alive}))
	if err != nil {
		return err
	}
	met.Store(true)
	alive()
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	if config.Architecture != platform.Architecture {
		return fmt.Errorf("the image is for %s, want %s", config.Architecture, platform.Architecture)
	}
	return do(img)
}

// transport tells of each byte that comes.
type transport struct{ alive func() }

func (t transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := remote.DefaultTransport.RoundTrip(request)
	if err == nil {
		response.Body = body{ReadCloser: response.Body, alive: t.alive}
	}
	return response, err
}

type body struct {
	io.ReadCloser
	alive func()
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.alive()
	}
	return n, err
}
