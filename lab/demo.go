package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// deploy runs a demo program with the image made of the present source.
func (u *up) deploy(ctx context.Context, w *topology.Workload) error {
	loaded, err := u.Parts.Images.LoadDemo(ctx, w.Cluster().Lab, w.Cluster().Name, w.App.Name)
	if err != nil {
		return err
	}
	release := demoRelease(w)
	if release.Values, err = demoValues(w, u.images.Demos[w.App.Name]); err != nil {
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

// demoRelease returns the release of a demo program, without its values. It has
// the name of the app, as the objects in it have, and not the workload's, which
// may change: Helm gives no release the objects of another one.
func demoRelease(w *topology.Workload) access.Release {
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
		pods := u.in(by.Cluster()).Pods
		if by.App.Name == broker {
			return quoted(ctx, pods, by.Workload, to.ID)
		}
		return by.reported(ctx, pods, from.ID, to.ID)
	}})
}

// broker is the app that tells of quotes, and not of calls.
const broker = "broker-webapp"

// tellingPath returns where a program with a page tells of itself.
func tellingPath(app topology.App) string {
	if app.Name == broker {
		return "/api/quotes"
	}
	return "/api/calls"
}

// quoted returns nil when a broker has quotes from a server.
func quoted(ctx context.Context, pods access.Pods, by *topology.Workload, server spiffeid.ID) error {
	var answer struct {
		Peer *struct {
			ID string `json:"id"`
		} `json:"peer"`
		Error *problem `json:"error"`
	}
	err := ask(ctx, pods, by, tellingPath(by.App), &answer)
	switch {
	case err != nil:
		return err
	case answer.Error != nil:
		return answer.Error
	case answer.Peer == nil:
		return errors.New("nobody answered yet")
	case answer.Peer.ID != server.String():
		return fmt.Errorf("%s answered, want %s", answer.Peer.ID, server)
	}
	return nil
}

// teller is a workload whose page tells of calls. Several steps may wait for what
// it says: those that look at the same time share one look, which goes through
// the API server and the kubelet.
type teller struct {
	*topology.Workload

	mu     sync.Mutex
	looked time.Time
	calls  []toldCall
	err    error
}

// toldCall is a call of which a workload tells.
type toldCall struct {
	Name    string   `json:"name"`
	Caller  string   `json:"caller"`
	Server  string   `json:"server"`
	State   string   `json:"state"`
	Problem *problem `json:"problem"`
}

// look returns what the workload tells, no older than the pace of looking.
func (t *teller) look(ctx context.Context, pods access.Pods) ([]toldCall, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.looked) >= pace {
		var report struct {
			Calls []toldCall `json:"calls"`
		}
		t.err = ask(ctx, pods, t.Workload, tellingPath(t.App), &report)
		t.calls, t.looked = report.Calls, time.Now()
	}
	return t.calls, t.err
}

// reported returns nil when all calls of caller to called, of which the workload
// knows, end as they should, and one of them with an answer.
func (t *teller) reported(ctx context.Context, pods access.Pods, caller, called spiffeid.ID) error {
	calls, err := t.look(ctx, pods)
	if err != nil {
		return err
	}
	answered := false
	for _, c := range calls {
		switch {
		case c.Caller != caller.String() || c.Server != called.String():
		case c.State == "answered":
			answered = true
		case c.State == "failed" && c.Problem != nil:
			return fmt.Errorf("%q: %w", c.Name, c.Problem)
		case c.State != "refused":
			return fmt.Errorf("%q is %s", c.Name, c.State)
		}
	}
	if !answered {
		return fmt.Errorf("%s tells of no answer yet", t.Name)
	}
	return nil
}

// problem is why a call failed, in the words of a demo program.
type problem struct {
	What   string `json:"what"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string { return p.What + ": " + p.Detail }

// oneCall bounds a look at what a demo program tells: its own calls end before.
const oneCall = 15 * time.Second

// ask gets JSON of a demo program in plain HTTP, through the Kubernetes API, so
// that it works for programs that are not exposed, too.
func ask(ctx context.Context, pods access.Pods, w *topology.Workload, path string, answer any) (err error) {
	names, err := pods.Named(ctx, w.Namespace, map[string]string{"app.kubernetes.io/name": w.App.Name})
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%s has no ready pod", w.Name)
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return pods.Dial(ctx, w.Namespace, names[0], w.App.Port)
		},
	}
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	// The host is not looked up, and a page answers to this name, whatever it is called.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", w.Name, path, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s for %s: %s", w.Name, path, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer of %s to %s: %w", w.Name, path, err)
	}
	if len(text) > longestAnswer {
		return fmt.Errorf("the answer of %s to %s is longer than %d bytes", w.Name, path, longestAnswer)
	}
	return json.Unmarshal(text, answer)
}

// longestAnswer is more than a page of a demo program says of some hundred calls.
const longestAnswer = 1 << 20
