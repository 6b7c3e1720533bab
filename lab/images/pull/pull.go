// Package pull fetches images from registries, or from a mirror of them, within bounds.
//
// It refuses to know which images there are, and what becomes of them.
package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is an image as it came, in its artifact's folder.
const File = "image.tar"

// Bounds say how long a registry may be silent.
type Bounds struct {
	// Contact is how long a registry may take until it has said what an image
	// consists of. A machine without a registry must not wait longer before it
	// builds.
	Contact time.Duration
	// Stall is how long a download may stand still.
	Stall time.Duration
}

// Usual are the bounds that fit registries anywhere.
func Usual() Bounds { return Bounds{Contact: 5 * time.Second, Stall: 60 * time.Second} }

// Registries are where upstream images are fetched from. Who is asked, and with which
// credentials, is what the user's Docker configuration says.
type Registries struct {
	mirror string
	bounds Bounds
}

// New returns the registries that references name, or the mirror in place of all of
// them: host[:port][/folder].
func New(mirror string, bounds Bounds) Registries {
	return Registries{mirror: mirror, bounds: bounds}
}

// Reference is where an image is fetched from: by its digest unless that is empty, so
// that nothing else can come.
func (r Registries) Reference(reference, digest string) (name.Reference, error) {
	upstream, err := name.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	repository := upstream.Context()
	if strings.Contains(r.mirror, "://") {
		return nil, fmt.Errorf("registry mirror %q begins with a scheme, want host[:port][/folder]", r.mirror)
	}
	if r.mirror != "" {
		host, folder, _ := strings.Cut(strings.TrimSuffix(r.mirror, "/"), "/")
		if host == "" { // it would stand for Docker's own registry
			return nil, fmt.Errorf("registry mirror %q names no host", r.mirror)
		}
		registry, err := name.NewRegistry(host)
		if err != nil {
			return nil, fmt.Errorf("read registry mirror: %w", err)
		}
		repository = registry.Repo(path.Join(folder, repository.RepositoryStr()))
	}
	if digest != "" {
		return repository.Digest(digest), nil
	}
	return repository.Tag(upstream.Identifier()), nil
}

// Fetch writes an image to a file. Each of its parts is checked against the
// digest that the one before it gives, up to that of the reference.
func (r Registries) Fetch(ctx context.Context, ref name.Reference, file string) error {
	return r.open(ctx, ref, func(img v1.Image) error {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		return errors.Join(tarball.Write(ref, img, f), f.Close())
	})
}

// Ask returns nil when the registry has an image, of which no layer is fetched.
func (r Registries) Ask(ctx context.Context, ref name.Reference) error {
	return r.open(ctx, ref, func(v1.Image) error { return nil })
}

// open calls do with an image for this platform as its registry describes it;
// what do reads of the image is fetched then. The registry has the bound for contact
// to answer, and may stand still for the other one afterwards.
func (r Registries) open(ctx context.Context, ref name.Reference, do func(v1.Image) error) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What was cancelled says only that; why is what counts.
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	var met atomic.Bool
	guard := time.AfterFunc(r.bounds.Contact, func() {
		if met.Load() {
			cancel(fmt.Errorf("nothing has come for %s", r.bounds.Stall))
			return
		}
		cancel(fmt.Errorf("no answer within %s", r.bounds.Contact))
	})
	defer guard.Stop()
	alive := func() {
		if met.Load() {
			guard.Reset(r.bounds.Stall)
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

// transport reports each byte that comes.
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
