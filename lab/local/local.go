// Package local puts a driver together out of what this machine has: Docker,
// kind, Kubernetes' API and Helm. Commands and the end-to-end suite start here.
//
// It only translates between the driver's words and the adapters'; it decides
// nothing.
package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab"
	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/helmrelease"
	"github.com/fedlab-dev/fedlab/lab/host"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/kindcluster"
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
				Locks:       locks{engine},
				Images:      imageParts{library},
				Networks:    networks{engine, kind},
				Nodes:       nodes{engine: engine, kind: kind},
				Peers:       peers{run: engine.Run, handshake: handshakeBound, answer: answerBound},
				Marks:       marks{engine},
				Sidecars:    sidecars{engine, library},
				Hosts:       hosts{engine, library, new(sync.Mutex)},
				Hands:       hands{engine},
				Kubeconfigs: kubeconfigs{kind},
				Programs:    demo.Catalogue{},
				Rendered:    helmrelease.Objects,
				OnHost:      func(lab, host string) access.Host { return onHost{engine, lab, host} },
				Labs:        labs{engine}.list,
				Connect:     connect,
				NetworkAPI:  networkAPI,
				Watchers:    func(clusters int) error { return host.Watchers(host.Local(), clusters) },
				PortFree:    portFree,
				NameFree:    nodes{engine: engine, kind: kind}.nameFree,
				Page:        page,
			},
			Observe: o.Observe,
		},
		Library: library,
		engine:  engine,
		kind:    kind,
	}, nil
}

// programs returns the names of fedlab's own programs that labs run: what a lab
// file may name as an app, what the lab itself runs next to it, what looks at a
// lab or stands next to its clusters while somebody tries it, and the first process of a
// host outside Kubernetes.
func programs() []string {
	var names []string
	for _, app := range demo.Apps() {
		names = append(names, app.Name)
	}
	return append(names, "serving-cert", "postgres", "probe", "synthetic", "holder")
}

// Ping returns nil when Docker answers; else the error is a
// *docker.UnreachableError, or a *docker.OutOfReachError where it is on another
// machine.
func (d *Driver) Ping(ctx context.Context) error { return d.engine.Ping(ctx) }

// Reach returns nil when the ports that Docker publishes are on this machine; else the
// error is a *docker.OutOfReachError.
func (d *Driver) Reach(ctx context.Context) error { return d.engine.Reach(ctx) }

// NodeName returns the name of the container that is a cluster's node.
func NodeName(lab, cluster string) string { return kindcluster.NodeName(kindName(lab, cluster)) }

// networkAPI names the node and not its address, which may be another one after each
// start. Docker's DNS knows the name, that of a cluster asks it, and kubeadm has put the
// name into the certificate of the API. The dot at the end keeps a pod from asking about
// all names of its search list first, which may have domains that nobody answers for;
// crypto/x509 leaves it aside.
func networkAPI(lab, cluster string) string {
	return fmt.Sprintf("https://%s.:%d", NodeName(lab, cluster), kindcluster.APIPort)
}

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
