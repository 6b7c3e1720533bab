package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// deploy runs a program with the image made of the present source.
func (u *up) deploy(ctx context.Context, w *topology.Workload) error {
	if w.Own != nil {
		return u.deployOwn(ctx, w)
	}
	if w.Host() != nil {
		return u.deployOnHost(ctx, w)
	}
	loaded, err := u.load(ctx, w.Cluster(), append([]string{w.App.Name}, w.App.Optional...)...)
	if err != nil {
		return err
	}
	release := releaseOf(w)
	if release.Values, err = u.Parts.Programs.Values(w, u.images.Demos); err != nil {
		return err
	}
	changed, err := u.in(w.Cluster()).Releases.Apply(ctx, release)
	if err != nil {
		return err
	}
	if loaded || changed {
		plan.Did(ctx)
	}
	return nil
}

// releaseOf returns the release of a program, without its values. It has
// the name of the app, as the objects in it have, and not the workload's, which
// may change: Helm gives no release the objects of another one.
func releaseOf(w *topology.Workload) access.Release {
	if own := w.Own; own != nil {
		r := access.Release{Name: w.Name, Namespace: w.Namespace, Chart: own.Chart, Manifests: own.Manifests}
		if own.Values != nil {
			r.Values = own.Values
		}
		return r
	}
	return access.Release{Name: w.App.Name, Namespace: w.Namespace, Chart: w.App.Name}
}

// page looks at a workload's page as a browser on this machine does.
func (u *up) page(ctx context.Context, w *topology.Workload) error {
	return wait(ctx, callBound, check.Check{Name: "the page of " + w.Name + " answers", Probe: func(ctx context.Context) error {
		return u.Parts.Page(ctx, w.URL())
	}})
}

// verify looks at what a teller says of the calls of one workload to another:
// whom it met.
func (u *up) verify(ctx context.Context, from, to *topology.Workload, by *teller) error {
	return wait(ctx, callBound, check.Check{Name: from.Name + " gets an answer from " + to.Name, Probe: func(ctx context.Context) error {
		told, err := by.look(ctx, u.Driver, u.in(by.Cluster()).Pods)
		if err != nil {
			return err
		}
		return u.Parts.Programs.Answered(by.Workload, told, from, to)
	}})
}

// teller is a workload whose page reports calls. Several steps may wait for what
// it says: those that look at the same time share one look, which goes through
// the API server and the kubelet.
type teller struct {
	*topology.Workload

	mu     sync.Mutex
	looked time.Time
	told   []byte
	err    error
}

// look returns what the workload tells, no older than the pace of looking.
func (t *teller) look(ctx context.Context, d *Driver, pods access.Pods) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.looked) >= pace {
		t.told, t.err = d.ask(ctx, pods, t.Workload, t.App.Tells)
		t.looked = time.Now()
	}
	return t.told, t.err
}

// oneCall bounds a look at what a program tells: its own calls end before.
const oneCall = 15 * time.Second

// ask gets what a program tells in plain HTTP, through the Kubernetes API, or by a port
// that is published, so that it works for programs that are not exposed, too.
func (d *Driver) ask(ctx context.Context, pods access.Pods, w *topology.Workload, path string) (text []byte, err error) {
	dial := func(ctx context.Context) (net.Conn, error) { return d.on(w.Host()).Dial(ctx, HostRun(w), w.App.Port) }
	if w.Host() == nil {
		names, err := pods.Named(ctx, w.Namespace, map[string]string{"app.kubernetes.io/name": w.App.Name})
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%s has no ready pod", w.Name)
		}
		dial = func(ctx context.Context) (net.Conn, error) { return pods.Dial(ctx, w.Namespace, names[0], w.App.Port) }
	}
	status, text, err := get(ctx, dial, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the answer is %d %s", status, http.StatusText(status))
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", w.Name, path, err)
	}
	return text, nil
}

// get gets a path by plain HTTP from what dial connects to. It takes any status for an
// answer.
func get(ctx context.Context, dial func(context.Context) (net.Conn, error), path string) (status int, text []byte, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	// The host is not looked up, and a page answers to this name, whatever it is called.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err = io.ReadAll(io.LimitReader(response.Body, longestAnswer+1))
	if err == nil && len(text) > longestAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", longestAnswer)
	}
	return response.StatusCode, text, err
}

// longestAnswer is more than a program says about some hundred calls.
const longestAnswer = 1 << 20
