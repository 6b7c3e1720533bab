// Package local puts a driver together out of what this machine has: Docker,
// kind, Kubernetes' API and Helm. Commands and the end-to-end suite start here.
//
// It only translates between the driver's words and the adapters'; it decides
// nothing.
package local

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/fedlab-dev/fedlab"
	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/helmrelease"
	"github.com/fedlab-dev/fedlab/lab/host"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/kindcluster"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Options are how a driver is put together; the zero value is fine.
type Options struct {
	// Observe is told about each step.
	Observe func(plan.Event)
	// Builds is told about the steps of image builds, which run inside of a step
	// of a lab or on their own.
	Builds func(plan.Event)
	// Source, Archive, Mirror, KindNode, Version and Say are as in images.Library.
	Source                             images.Source
	Archive, Mirror, KindNode, Version string
	Say                                func(string)
}

// Driver is a driver of this machine. It is closed after use.
type Driver struct {
	lab.Driver
	Library *images.Library
	engine  *docker.Client
	kind    *kindcluster.Provider
}

// Cache returns the folder that holds what may be deleted at any time, whether
// or not it exists.
func Cache() (string, error) {
	if root := os.Getenv("FEDLAB_CACHE"); root != "" {
		return root, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w", err)
	}
	return filepath.Join(cache, "fedlab"), nil
}

// New puts a driver together. It connects to nothing yet; see Ping. The
// variables of this process name the Docker engine afterwards, so that all parts
// use the same one.
func New(o Options) (*Driver, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	store, err := images.OpenStore(cache)
	if err != nil {
		return nil, err
	}
	engine, err := docker.New()
	if err != nil {
		return nil, err
	}
	// kind runs the docker command, and testcontainers-go reads variables.
	if err := engine.Engine().Export(); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	library := &images.Library{
		Store: store, Engine: engine, Code: fedlab.Source, Demos: programs(),
		Source: o.Source, Archive: o.Archive, Mirror: o.Mirror, KindNode: o.KindNode, Version: o.Version, Observe: o.Builds, Say: o.Say,
	}
	kind := kindcluster.New()
	return &Driver{
		Driver: lab.Driver{
			Parts: lab.Parts{
				Locks:        locks{engine},
				Images:       imageParts{library},
				Networks:     networks{engine, kind},
				Nodes:        nodes{engine: engine, kind: kind},
				Marks:        marks{engine},
				Sidecars:     sidecars{engine, library},
				Hands:        hands{engine},
				Kubeconfigs:  kubeconfigs{kind},
				Programs:     demo.Catalogue{},
				Rendered:     helmrelease.Objects,
				Labs:         labs{engine}.list,
				Connect:      connect,
				Watchers:     func(clusters int) error { return host.Watchers(host.Local(), clusters) },
				PortFree:     portFree,
				NameFree:     nodes{engine: engine, kind: kind}.nameFree,
				Connected:    nodes{engine: engine, kind: kind}.connected,
				Certificates: certificates,
				Served:       endpoint{within: servedBound}.served,
				Page:         page,
			},
			Observe: o.Observe,
		},
		Library: library,
		engine:  engine,
		kind:    kind,
	}, nil
}

// programs returns the names of fedlab's own programs that labs run: what a lab
// file may name as an app, what the lab itself runs next to it, and what looks at a
// lab or stands next to its clusters while somebody tries it.
func programs() []string {
	var names []string
	for _, app := range demo.Apps() {
		names = append(names, app.Name)
	}
	return append(names, "serving-cert", "postgres", "probe", "synthetic")
}

// Ping returns nil when Docker answers; else the error is a
// *docker.UnreachableError, or a *docker.OutOfReachError where it is on another
// machine.
func (d *Driver) Ping(ctx context.Context) error { return d.engine.Ping(ctx) }

// Reach returns nil when this machine can connect to what runs in Docker; else
// the error is a *docker.OutOfReachError.
func (d *Driver) Reach(ctx context.Context) error { return d.engine.Reach(ctx) }

// NodeName returns the name of the container that is a cluster's node.
func NodeName(lab, cluster string) string { return kindcluster.NodeName(kindName(lab, cluster)) }

// Usage reads what a node's container uses.
func (d *Driver) Usage(ctx context.Context, node string) (docker.Usage, error) {
	return d.engine.Usage(ctx, node)
}

// Close gives up connections. Labs run on.
func (d *Driver) Close() error { return d.engine.Close() }

func portFree(addr netip.AddrPort) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return fmt.Errorf("port %d of this machine is taken: stop what listens on %s, or expose the workload on another port: %w", addr.Port(), addr, err)
	}
	return l.Close()
}

// pageBound is how long a page of this machine may take to answer.
const pageBound = 10 * time.Second

func page(ctx context.Context, url string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, pageBound)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	// No proxy knows this machine's own addresses, and a connection that is kept
	// could outlive what it leads to.
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, response.Status)
	}
	return nil
}

// certificates makes a handshake and believes nothing that it is shown.
func certificates(ctx context.Context, server netip.AddrPort) (_ []*x509.Certificate, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageBound)
	defer cancel()
	conn, err := connectAgain(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return pki.Presented(ctx, conn)
}

// firstTry is how long the first try for a connection may take.
const firstTry = 250 * time.Millisecond

// connectAgain begins again while nobody answers, each time for twice as long. The
// kernel sends the first packet of a connection again only after one second, and then
// after two; a Service whose node has just learned of it answers the next packet.
func connectAgain(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	for within := firstTry; ; within *= 2 {
		dialer := net.Dialer{Timeout: within}
		conn, err := dialer.DialContext(ctx, "tcp", to.String())
		if silent := net.Error(nil); err == nil || ctx.Err() != nil || !errors.As(err, &silent) || !silent.Timeout() {
			return conn, err
		}
	}
}

const (
	// servedBound is how long a bundle endpoint may take to come to the answer,
	// and again for the answer itself. An endpoint that works takes milliseconds;
	// both together are less than what a look at a lab gives each of its parts.
	servedBound = 5 * time.Second
	// servedLimit is more than any bundle needs: an authority is a kilobyte.
	servedLimit = 1 << 20
)

// endpoint is how bundle endpoints are asked: within is servedBound, except in tests.
type endpoint struct{ within time.Duration }

// served gets what a bundle endpoint serves. It makes the connection by itself,
// so that an endpoint that is not reached is told from one that does not answer.
func (e endpoint) served(ctx context.Context, url string, verify func([]*x509.Certificate) error) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	conn, err := e.handshake(ctx, request.URL.Host, verify)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	defer func() { _ = conn.Close() }() // the transport may have closed it
	answered, cancel := context.WithTimeout(ctx, e.within)
	defer cancel()
	document, err := read(conn, request.WithContext(answered))
	switch {
	case err == nil:
		return document, nil
	case answered.Err() != nil && ctx.Err() == nil:
		return nil, &lab.HangingError{URL: url, Within: e.within}
	}
	return nil, fmt.Errorf("get %s: %w", url, err)
}

func (e endpoint) handshake(ctx context.Context, address string, verify func([]*x509.Certificate) error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.within)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // verify does it, by the rules of SPIFFE or of the web
		VerifyConnection:   func(s tls.ConnectionState) error { return verify(s.PeerCertificates) },
	}}
	return dialer.DialContext(ctx, "tcp", address)
}

// read reads the answer to a request over a connection. It follows no
// redirect: what is served elsewhere is not what this endpoint serves.
func read(conn net.Conn, request *http.Request) (_ []byte, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, servedLimit+1))
	if err == nil && len(data) > servedLimit {
		err = fmt.Errorf("the answer has more than %d bytes", servedLimit)
	}
	return data, err
}

// Reach is Reach of a driver that is made for this question.
func Reach(ctx context.Context) (err error) {
	d, err := New(Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Ping(ctx); err != nil {
		return err
	}
	return d.Reach(ctx)
}

// Work says what a lab with these options has still to make on this machine.
func Work(ctx context.Context, o Options) (_ images.Work, err error) {
	d, err := New(o)
	if err != nil {
		return images.Work{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Library.Work(ctx, images.Node)
}
