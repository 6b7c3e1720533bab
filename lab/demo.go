package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Values of the demo charts; their fields are those of each chart's
// values.schema.json.
type (
	quotesValues struct {
		Image          string         `json:"image"`
		AllowedClients []string       `json:"allowedClients"`
		Service        serviceAddress `json:"service"`
	}
	serviceAddress struct {
		Port    int    `json:"port"`
		Address string `json:"address"`
	}
	brokerValues struct {
		Image   string      `json:"image"`
		Quotes  peer        `json:"quotes"`
		Service servicePort `json:"service"`
	}
	peer struct {
		Address string `json:"address"`
		ID      string `json:"id"`
	}
	servicePort struct {
		Port     int `json:"port"`
		NodePort int `json:"nodePort,omitempty"`
	}
)

// deploy runs a demo program with the image made of the present source.
func (u *up) deploy(ctx context.Context, w topology.Workload) error {
	loaded, err := u.Parts.Images.LoadDemo(ctx, u.topology.Name, w.Cluster, w.App.Name)
	if err != nil {
		return err
	}
	values, err := u.demoValues(w)
	if err != nil {
		return err
	}
	access := u.access(w.Cluster)
	changed, err := access.Releases.Apply(ctx, Release{Name: w.Name, Namespace: w.App.Namespace, Chart: w.App.Name, Values: values})
	if err != nil {
		return err
	}
	if loaded || changed {
		plan.Did(ctx)
	}
	return runAgain(ctx, access.Objects, deployment(w))
}

// runAgain gives what somebody has scaled to no pod its pod back: Helm does not
// look at what has become of a release.
func runAgain(ctx context.Context, objects Objects, key ObjectKey) error {
	var controller struct {
		Spec struct {
			Replicas *int `json:"replicas"`
		} `json:"spec"`
	}
	there, err := objects.Object(ctx, key, &controller)
	if err != nil || !there || controller.Spec.Replicas == nil || *controller.Spec.Replicas > 0 {
		return err
	}
	plan.Did(ctx)
	_, err = objects.Apply(ctx, map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind, "metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"spec": map[string]any{"replicas": 1},
	})
	return err
}

func (u *up) demoValues(w topology.Workload) (any, error) {
	image := u.images.Demos[w.App.Name]
	switch w.App.Name {
	case "stock-quotes":
		address, err := u.addresses.Workload(w)
		if err != nil {
			return nil, err
		}
		v := quotesValues{Image: image, AllowedClients: []string{}, Service: serviceAddress{Port: w.App.Port, Address: address.String()}}
		for _, caller := range u.topology.Callers(w.Name) {
			id, err := u.topology.SPIFFEID(caller)
			if err != nil {
				return nil, err
			}
			v.AllowedClients = append(v.AllowedClients, id.String())
		}
		return v, nil
	case "broker-webapp":
		v := brokerValues{Image: image, Service: servicePort{Port: w.App.Port}}
		if w.Expose.IsValid() {
			v.Service.NodePort = ports(u.topology, w.Cluster)[w.Expose]
		}
		for _, name := range w.Calls {
			to, err := u.topology.Workload(name)
			if err != nil {
				return nil, err
			}
			address, err := u.addresses.Workload(to)
			if err != nil {
				return nil, err
			}
			id, err := u.topology.SPIFFEID(to)
			if err != nil {
				return nil, err
			}
			v.Quotes = peer{Address: fmt.Sprintf("%s:%d", address, to.App.Port), ID: id.String()}
		}
		return v, nil
	}
	return nil, fmt.Errorf("no values are known for app %q", w.App.Name)
}

// page looks at a workload's page as a browser on this machine does.
func (u *up) page(ctx context.Context, w topology.Workload) error {
	if err := u.runs(ctx, w); err != nil {
		return err
	}
	return wait(ctx, callBound, check.Check{Name: "the page of " + w.Name + " answers", Probe: func(ctx context.Context) error {
		return u.Parts.Page(ctx, w.URL())
	}})
}

func (u *up) runs(ctx context.Context, w topology.Workload) error {
	return wait(ctx, rolloutBound, check.Check{Name: w.Name + " runs", Probe: func(ctx context.Context) error {
		return u.access(w.Cluster).Pods.Ready(ctx, deployment(w))
	}})
}

// verify makes one workload call another and looks at whom it says it met.
func (u *up) verify(ctx context.Context, from, to topology.Workload) error {
	for _, w := range []topology.Workload{to, from} {
		if err := u.runs(ctx, w); err != nil {
			return err
		}
	}
	want, err := u.topology.SPIFFEID(to)
	if err != nil {
		return err
	}
	return wait(ctx, callBound, check.Check{Name: from.Name + " gets an answer from " + to.Name, Probe: func(ctx context.Context) error {
		answer, err := callThrough(ctx, u.access(from.Cluster).Pods, from)
		switch {
		case err != nil:
			return err
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", answer.Error.What, answer.Error.Detail)
		case answer.Peer == nil:
			return errors.New("nobody answered yet")
		case answer.Peer.ID != want.String():
			return fmt.Errorf("%s answered, want %s", answer.Peer.ID, want)
		}
		return nil
	}})
}

// brokerAnswer is the part of the broker's /api/quotes that says who answered.
type brokerAnswer struct {
	Peer *struct {
		ID string `json:"id"`
	} `json:"peer"`
	Error *struct {
		What   string `json:"what"`
		Detail string `json:"detail"`
	} `json:"error"`
}

// oneCall bounds a look at /api/quotes: the broker's own call ends before.
const oneCall = 15 * time.Second

// callThrough asks a broker for quotes, through the Kubernetes API, so that it
// works for brokers that are not exposed, too.
func callThrough(ctx context.Context, pods Pods, w topology.Workload) (answer brokerAnswer, err error) {
	names, err := pods.Named(ctx, w.App.Namespace, map[string]string{"app.kubernetes.io/name": w.App.Name})
	if err != nil {
		return answer, err
	}
	if len(names) == 0 {
		return answer, fmt.Errorf("%s has no ready pod", w.Name)
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return pods.Dial(ctx, w.App.Namespace, names[0], w.App.Port)
		},
	}
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Name+"/api/quotes", nil)
	if err != nil {
		return answer, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return answer, fmt.Errorf("ask %s for quotes: %w", w.Name, err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("ask %s for quotes: %s", w.Name, response.Status)
	}
	return answer, json.NewDecoder(response.Body).Decode(&answer)
}
