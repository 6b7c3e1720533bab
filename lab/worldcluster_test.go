package lab_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// latency is how long it takes until what was just made or started runs.
const latency = 300 * time.Millisecond

// node is a cluster of one node and what runs in it.
type node struct {
	*world
	name    nodeName
	spec    lab.NodeSpec
	running bool
	state   nodeState
	// ready is when the node runs.
	ready    time.Time
	objects  map[lab.ObjectKey]string
	releases map[string]*release
	images   map[string]bool
	spire    *spireServer
}

// nodeState is how far a node came that was being made when its maker was killed.
type nodeState int

const (
	whole nodeState = iota
	// noKubeconfig: kubeadm did not come so far.
	noKubeconfig
	// deaf: its API never answers.
	deaf
)

type release struct {
	values string
	ready  time.Time
	// broken says why what it made does not run.
	broken string
}

func newNode(w *world, name nodeName, spec lab.NodeSpec) *node {
	n := &node{
		world: w, name: name, spec: spec,
		objects: map[lab.ObjectKey]string{}, releases: map[string]*release{}, images: map[string]bool{},
	}
	for _, app := range topology.Apps() {
		n.images[w.demoImage(app.Name)] = true // as the node image has them
	}
	n.start()
	return n
}

func (n *node) start() {
	n.running, n.ready = true, time.Now().Add(latency)
	for _, r := range n.releases {
		r.ready = n.ready.Add(latency)
	}
}

func (n *node) dump(add func(string, ...any)) {
	add("node of %s, running %t, ports %v", n.spec.Image, n.running, n.spec.Ports)
	for key, object := range n.objects {
		switch key.Kind {
		case "ClusterFederatedTrustDomain":
			object, _, _ = strings.Cut(object, `"trustDomainBundle"`)
		case "Secret":
			object = "" // made at random
		}
		add("%s %s %s", key.Kind, key.Name, object)
	}
	for name, r := range n.releases {
		add("release %s %s", name, r.values)
	}
	if n.spire == nil {
		return
	}
	for _, td := range n.spire.trusted() {
		r := n.spire.relationships[td]
		state := federation.State("without source")
		if peer := n.at(r.url); peer != nil {
			state = federation.Compare(n.spire.held[td], peer.bundle()).State
		}
		add("trusts %s at %s: %s, polls %t", td, r.url, state, !r.stalled)
	}
	for td := range n.spire.held {
		add("holds the bundle of %s", td)
	}
	for _, e := range n.spire.entries {
		add("entry %s", e)
	}
}

// connect gives access to the node that a kubeconfig names.
func (w *world) connect(kubeconfig []byte) (lab.Access, error) {
	var n *node
	err := w.do(context.Background(), "Connect "+string(kubeconfig), func(func()) error {
		name, cluster, _ := strings.Cut(string(kubeconfig), "/")
		n = w.nodes[nodeName{name, cluster}]
		return nil
	})
	return lab.Access{Objects: objects{n}, Pods: pods{n}, Releases: releases{n}}, err
}

// answers returns nil when the node's API does.
func (n *node) answers() error {
	if n.nodes[n.name] != n || !n.running || n.state == deaf {
		return errors.New("connection refused")
	}
	return nil
}

// api is a call of the node's API.
func (n *node) api(ctx context.Context, call string, effect func(changed func()) error) error {
	return n.do(ctx, call+" in "+n.name.cluster, func(changed func()) error {
		if err := n.answers(); err != nil {
			return err
		}
		return effect(changed)
	})
}

type objects struct{ *node }

func (n objects) Apply(ctx context.Context, all ...any) (applied bool, err error) {
	var kinds []string
	for _, o := range all {
		kinds = append(kinds, keyOf(o).Kind)
	}
	err = n.api(ctx, "Objects.Apply "+strings.Join(kinds, ","), func(changed func()) error {
		for _, o := range all {
			key := keyOf(o)
			if err := n.refuses(key); err != nil {
				return err
			}
			text := string(encode(o))
			if n.objects[key] == text {
				continue
			}
			n.objects[key], applied = text, true
			changed()
			n.reconcile(key, text)
		}
		return nil
	})
	return applied, err
}

// refuses says why the API does not take an object.
func (n *node) refuses(key lab.ObjectKey) error {
	switch key.APIVersion {
	case spire.ResourceAPIVersion:
		if _, known := n.objects[keyOf(crd(key.Kind))]; !known {
			return fmt.Errorf("no matches for kind %q", key.Kind)
		}
		if n.spire == nil || time.Now().Before(n.releases["spire"].ready.Add(latency)) {
			return errors.New("failed calling webhook: connection refused")
		}
	case "metallb.io/v1beta1":
		if r := n.releases["metallb"]; r == nil || time.Now().Before(r.ready) {
			return fmt.Errorf("no matches for kind %q", key.Kind)
		}
	}
	return nil
}

// reconcile is what the controller manager does about a resource.
func (n *node) reconcile(key lab.ObjectKey, text string) {
	switch key.Kind {
	case "ClusterFederatedTrustDomain":
		n.spire.federate(decode[struct {
			Spec spire.FederatedTrustDomainSpec
		}](text).Spec)
	case "ClusterSPIFFEID":
		n.spire.register(decode[struct{ Spec spire.WorkloadIdentitySpec }](text).Spec)
	}
}

// unreconcile is what the controller manager does about a resource that is gone.
func (n *node) unreconcile(key lab.ObjectKey, text string) {
	switch key.Kind {
	case "ClusterFederatedTrustDomain":
		spec := decode[struct {
			Spec spire.FederatedTrustDomainSpec
		}](text).Spec
		delete(n.spire.relationships, spiffeid.RequireTrustDomainFromString(spec.TrustDomain))
	case "ClusterSPIFFEID":
		n.spire.unregister(decode[struct{ Spec spire.WorkloadIdentitySpec }](text).Spec)
	}
}

func (n objects) Object(ctx context.Context, key lab.ObjectKey, into any) (found bool, err error) {
	err = n.api(ctx, "Objects.Object "+key.Kind, func(func()) error {
		text, there := n.objects[key]
		if found = there; found {
			return json.Unmarshal([]byte(text), into)
		}
		return nil
	})
	return found, err
}

func (n objects) Named(ctx context.Context, kind lab.ObjectKey, labels map[string]string) (names []string, err error) {
	err = n.api(ctx, "Objects.Named "+kind.Kind, func(func()) error {
		for key, text := range n.objects {
			has := decode[struct {
				Metadata struct{ Labels map[string]string }
			}](text).Metadata.Labels
			all := true
			for label, value := range labels {
				all = all && has[label] == value
			}
			if all && key.APIVersion == kind.APIVersion && key.Kind == kind.Kind && key.Namespace == kind.Namespace {
				names = append(names, key.Name)
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}

func (n objects) Delete(ctx context.Context, key lab.ObjectKey) error {
	return n.api(ctx, "Objects.Delete "+key.Kind, func(changed func()) error {
		if text, there := n.objects[key]; there {
			delete(n.objects, key)
			changed()
			n.unreconcile(key, text)
		}
		return nil
	})
}

func (n objects) NodeReady(ctx context.Context) error {
	return n.api(ctx, "Objects.NodeReady", func(func()) error {
		if time.Now().Before(n.ready) {
			return errors.New("node is NotReady")
		}
		return nil
	})
}

type releases struct{ *node }

func (n releases) Apply(ctx context.Context, r lab.Release) (applied bool, err error) {
	err = n.api(ctx, "Releases.Apply "+r.Name, func(changed func()) error {
		values := string(encode(r))
		if had := n.releases[r.Name]; had != nil && had.values == values {
			return nil
		}
		n.releases[r.Name], applied = &release{values: values, ready: time.Now().Add(latency)}, true
		changed()
		if r.Name == "spire" && n.spire == nil {
			n.spire, err = newSPIREServer(n.node, r.Values.(spire.Values))
		}
		return err
	})
	return applied, err
}

func (n releases) List(ctx context.Context) (list []lab.Release, err error) {
	err = n.api(ctx, "Releases.List", func(func()) error {
		for _, r := range n.releases {
			full := decode[lab.Release](r.values)
			list = append(list, lab.Release{Namespace: full.Namespace, Name: full.Name})
		}
		return nil
	})
	return list, err
}

func (n releases) Remove(ctx context.Context, namespace, name string) error {
	return n.api(ctx, "Releases.Remove "+namespace+"/"+name, func(changed func()) error {
		delete(n.releases, name)
		changed()
		return nil
	})
}

type pods struct{ *node }

func (n pods) Exec(ctx context.Context, namespace, pod, container string, argv ...string) (out []byte, err error) {
	err = n.api(ctx, "Pods.Exec", func(func()) error {
		if err := n.releaseReady("spire"); err != nil {
			return err
		}
		at := []string{namespace, pod, container, argv[0]}
		if !slices.Equal(at, []string{spire.Namespace, spire.ServerPod, spire.ServerContainer, spire.ServerProgram}) {
			return fmt.Errorf("nothing runs at %v", at)
		}
		out, err = n.spire.mint(argv[1:])
		return err
	})
	return out, err
}

func (n pods) Dial(ctx context.Context, namespace, pod string, port int) (conn net.Conn, err error) {
	err = n.api(ctx, fmt.Sprintf("Pods.Dial %d", port), func(func()) error {
		switch at := fmt.Sprintf("%s/%s:%d", namespace, pod, port); at {
		case spire.Namespace + "/" + spire.ServerPod + ":8081":
			conn, err = n.spire.dial(ctx)
			return err
		case "demo/broker-webapp-0:8080":
			near, far := net.Pipe()
			go n.serveBroker(far)
			conn = near
			return nil
		default:
			return fmt.Errorf("nothing listens at %s", at)
		}
	})
	if err != nil && conn != nil {
		err = errors.Join(err, conn.Close())
	}
	return conn, err
}

func (n pods) Started(ctx context.Context, set lab.ObjectKey, container string) error {
	return n.api(ctx, "Pods.Started "+set.Name, func(func()) error {
		switch set.Namespace + "/" + set.Name + "/" + container {
		case spire.Namespace + "/" + spire.ServerStatefulSet + "/" + spire.ServerContainer:
			return n.releaseReady("spire")
		case spire.Namespace + "/" + spire.DatabaseRelease + "/postgres":
			return n.releaseReady(spire.DatabaseRelease)
		}
		return fmt.Errorf("there is no container %s in %s/%s", container, set.Namespace, set.Name)
	})
}

func (n pods) Ready(ctx context.Context, key lab.ObjectKey) error {
	return n.api(ctx, "Pods.Ready "+key.Name, func(func()) error {
		switch {
		case key.Namespace == spire.Namespace:
			return n.releaseReady("spire")
		case key.Namespace == "demo":
			app := slices.IndexFunc(topology.Apps(), func(a topology.App) bool { return a.Deployment == key.Name })
			return n.releaseReady(topology.Apps()[app].Name)
		}
		return fmt.Errorf("there is no %s %s", key.Kind, key.Name)
	})
}

func (n *node) releaseReady(name string) error {
	r := n.releases[name]
	switch {
	case r == nil:
		return fmt.Errorf("there is no release %s", name)
	case r.broken != "":
		return errors.New(r.broken)
	case time.Now().Before(r.ready):
		return errors.New("0 of 1 pods are ready")
	}
	return nil
}

func (n pods) Named(ctx context.Context, namespace string, labels map[string]string) (names []string, err error) {
	err = n.api(ctx, "Pods.Named", func(func()) error {
		if app := labels["app.kubernetes.io/name"]; namespace == "demo" && n.releaseReady(app) == nil {
			names = []string{app + "-0"}
		}
		return nil
	})
	return names, err
}

// What the demo programs read of their charts' values.
type (
	brokerValues struct {
		Values struct {
			Quotes  struct{ Address, ID string }
			Service struct{ NodePort int }
		}
	}
	quotesValues struct {
		Values struct{ Service struct{ Address string } }
	}
)

// serveBroker answers one request for /api/quotes.
func (n *node) serveBroker(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil || request.URL.Path != "/api/quotes" {
		return
	}
	n.mu.Lock()
	body := encode(n.askQuotes())
	n.mu.Unlock()
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

// askQuotes is the broker's call: it works when both ends have an identity and
// the other's bundle.
func (n *node) askQuotes() map[string]any {
	values := decode[brokerValues](n.releases["broker-webapp"].values).Values
	failed := func(what, detail string) map[string]any {
		return map[string]any{"error": map[string]string{"what": what, "detail": detail}}
	}
	if !n.spire.identified("/client") {
		return failed("no identity", "the broker has no SVID")
	}
	for _, other := range n.nodes {
		if other.name.lab != n.name.lab || other.releases["stock-quotes"] == nil || !other.running {
			continue
		}
		if listens := decode[quotesValues](other.releases["stock-quotes"].values).Values.Service; values.Quotes.Address != listens.Address+":8090" {
			continue
		}
		switch {
		case !other.spire.identified("/server"):
			return failed("no answer", "the server has no SVID")
		case !n.spire.verifies(other.spire) || !other.spire.verifies(n.spire):
			return failed("not trusted", "x509: certificate signed by unknown authority")
		}
		return map[string]any{"peer": map[string]string{"id": other.spire.td.ID().String() + "/server"}}
	}
	return failed("unreachable", "no route to "+values.Quotes.Address)
}

// page is what a browser of this machine gets.
func (w *world) page(ctx context.Context, address string) error {
	return w.do(ctx, "Page", func(func()) error {
		at, err := url.Parse(address)
		if err != nil {
			return err
		}
		for _, n := range w.nodes {
			for addr, port := range n.spec.Ports {
				r := n.releases["broker-webapp"]
				if fmt.Sprint(addr.Port()) != at.Port() || n.answers() != nil || r == nil {
					continue
				}
				if decode[brokerValues](r.values).Values.Service.NodePort == port && n.releaseReady("broker-webapp") == nil {
					return nil
				}
			}
		}
		return fmt.Errorf("get %s: connection refused", address)
	})
}

func keyOf(object any) lab.ObjectKey {
	o := decode[struct {
		APIVersion, Kind string
		Metadata         struct{ Namespace, Name string }
	}](string(encode(object)))
	return lab.ObjectKey{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: o.Metadata.Namespace, Name: o.Metadata.Name}
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func decode[T any](text string) (v T) {
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		panic(err)
	}
	return v
}
