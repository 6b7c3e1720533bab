package lab_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
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
	// whole is the mark in its container.
	whole bool
	// address is where its API is on this machine.
	address netip.AddrPort
	state   nodeState
	// ready is when the node runs.
	ready   time.Time
	objects map[access.ObjectKey]string
	// made tells in which order objects were made, and counted how many were.
	made     map[access.ObjectKey]int
	counted  int
	releases map[releaseName]*release
	images   map[string]bool
	// installed counts releases.
	installed int
	// spire is nil until the server has started once.
	spire *spireServer
	// uid is that of the node in Kubernetes.
	uid string
	// bound is when volumes can be used.
	bound map[access.ObjectKey]time.Time
	// managers are the field managers that have applied objects, where it was not fedlab.
	managers map[access.ObjectKey]string
	// host is set for what stands for the server and the workloads of a host.
	host *machine
	// attendants are the agents whose server is in another cluster, by their namespace.
	attendants map[string]*attendant
	// providers are what OIDC discovery providers do otherwise, by their namespaces.
	providers map[string]*provider
}

// nodeState is how far a node came that was being made when its maker was killed;
// zero is to the end.
type nodeState int

const (
	// noKubeconfig: kubeadm did not come so far.
	noKubeconfig nodeState = iota + 1
	// deaf: its API never answers.
	deaf
)

type releaseName struct{ namespace, name string }

// release is a Helm release and the pods that come of it.
type release struct {
	access.Release
	// number tells which of two was there first.
	number int
	// text is what Apply was given, demo what a demo program reads of it.
	text string
	demo demoValues
	// objects are its objects, as far as anybody asks for them.
	objects map[access.ObjectKey]string
	needs   needs
	// ready is when its pods run, if all is there that they need.
	ready time.Time
	// broken says why they do not, and unready why those that run are not ready; stuck
	// are such pods of an older version, which Kubernetes does not replace.
	broken, unready string
	stuck           bool
	// registrations are what the controller manager last made of them, and
	// identified is set once they have had an identity.
	registrations []registration
	identified    bool
	// foreign: it was not Apply that made it.
	foreign bool
}

func newNode(w *world, name nodeName, spec lab.NodeSpec) *node {
	n := &node{
		world: w, name: name, spec: spec, uid: w.nodeUID(name), attendants: map[string]*attendant{}, managers: map[access.ObjectKey]string{},
		bound: map[access.ObjectKey]time.Time{}, objects: map[access.ObjectKey]string{}, made: map[access.ObjectKey]int{}, releases: map[releaseName]*release{}, images: map[string]bool{},
	}
	for _, key := range kubeadmLeaves() {
		n.objects[key] = "{}"
	}
	n.objects[access.ObjectKey{APIVersion: "storage.k8s.io/v1", Kind: "StorageClass", Name: "standard"}] = string(encode(map[string]any{
		"metadata":          map[string]any{"annotations": map[string]any{"storageclass.kubernetes.io/is-default-class": "true"}},
		"volumeBindingMode": map[bool]string{false: "Immediate", true: "WaitForFirstConsumer"}[w.bindsLate],
	}))
	n.objects[dnsKey] = newDNS()
	for _, program := range programs() {
		n.images[w.demoImage(program)] = true // as the node image has them
	}
	n.start()
	return n
}

// kubeadmLeaves are the objects of a cluster by which further nodes join it.
func kubeadmLeaves() []access.ObjectKey {
	return []access.ObjectKey{
		{APIVersion: "v1", Kind: "Secret", Namespace: "kube-system", Name: "bootstrap-token-abcdef"},
		{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-public", Name: "cluster-info"},
	}
}

func (n *node) start() {
	n.running, n.ready = true, time.Now().Add(latency)
	for _, r := range n.releases {
		r.ready, r.identified = n.ready.Add(latency), false
	}
	for _, a := range n.attendants {
		a.start()
	}
}

// madeAtRandom tells one password, or token, from another.
var madeAtRandom = regexp.MustCompile(`"(login|kubeconfig)":"[0-9a-f]+"`)

func (n *node) dump(add func(string, ...any)) {
	add("node of %s, running %t, whole %t, ports %v", n.spec.Image, n.running, n.whole, n.spec.Ports)
	for key, object := range n.objects {
		switch key.Kind {
		case "ClusterFederatedTrustDomain":
			object, _, _ = strings.Cut(object, `"trustDomainBundle"`)
		case "Secret":
			object = "" // made at random
		case "Namespace":
			continue // made when something is put there, and never removed
		}
		add("%s %s %s", key.Kind, key.Name, n.readable(object))
	}
	for _, r := range n.releases {
		add("release %s %s", r.Name, n.readable(madeAtRandom.ReplaceAllString(r.text, "")))
	}
	for namespace, a := range n.attendants {
		add("agents of %s in %s: hung %t, stale %t", a.values.TrustDomain, namespace, a.hung(), a.stale)
	}
	if n.spire != nil {
		n.spire.dump(add)
	}
}

func (s *spireServer) dump(add func(string, ...any)) {
	state := func(td spiffeid.TrustDomain) federation.State {
		if peer := s.node.authority(s.node.name.lab, td); peer != nil {
			return federation.Compare(s.held[td], peer.bundle()).State
		}
		return "without source"
	}
	if s.stale {
		add("its agents hand out SVIDs of an authority that was revoked")
	}
	if s.staleWebhook {
		add("its webhook presents one")
	}
	for td, r := range s.relationships {
		add("trusts %s at %s: %s, polls %t", td, r.url, state(td), !r.stalled)
	}
	for td, r := range s.static {
		add("trusts %s at %s, by its configuration: %s, polls %t", td, r.url, state(td), !r.stalled)
	}
	for td := range s.held {
		add("holds the bundle of %s: %s", td, state(td))
	}
	for id := range s.attested {
		add("agent in %s", spire.AttestedIn(id)+spire.JoinedOn(id))
	}
	for id, federatesWith := range s.entries {
		by := ""
		if prefix := s.origins[id].prefix; prefix != "" {
			by = ", made for " + prefix
		}
		if s.downstream[id] {
			by += ", downstream"
		}
		add("entry %s, federates with %q%s", id, federatesWith, by)
	}
	for id, e := range s.plain {
		add("entry %s of %s below %s, by its ID", id, e.SpiffeId.Path, e.ParentId.Path)
	}
}

// connect gives access to the node that a kubeconfig names.
func (w *world) connect(kubeconfig []byte) (access.Cluster, error) {
	var n *node
	err := w.do(context.Background(), "Connect "+string(kubeconfig), func(func()) error {
		name, cluster, _ := strings.Cut(string(kubeconfig), "/")
		n = w.nodes[nodeName{name, cluster}]
		return nil
	})
	return access.Cluster{Objects: objects{n}, Pods: pods{n}, Releases: releases{n}}, err
}

// answers returns nil when the node's API does.
func (n *node) answers() error {
	if n.host != nil {
		if n.hosts[n.name] != n.host {
			return errors.New("no such container")
		}
		return nil
	}
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

func (n objects) Apply(ctx context.Context, all ...any) (did bool, err error) {
	var kinds []string
	for _, o := range all {
		kinds = append(kinds, keyOf(o).Kind)
	}
	err = n.api(ctx, "Objects.Apply "+strings.Join(kinds, ","), func(changed func()) error {
		for _, o := range all {
			key := keyOf(o)
			if err := n.refuses(key, decode[struct{ Spec struct{ ClassName string } }](stored(o)).Spec.ClassName); err != nil {
				return err
			}
			text := applied(n.objects[key], stored(o))
			if n.objects[key] == text {
				continue // who has written it before owns it still
			}
			delete(n.managers, key)
			if as, is := o.(access.As); is {
				n.managers[key] = as.Manager
			}
			if _, there := n.objects[key]; !there {
				n.counted++
				n.made[key] = n.counted
			}
			n.objects[key], did = text, true
			changed()
			n.reconcile(key, text)
		}
		return nil
	})
	return did, err
}

// stored is the text of an object as the API has it.
func stored(object any) string {
	text := string(encode(object))
	if !strings.Contains(text, `"stringData"`) {
		return text
	}
	fields := decode[map[string]any](text)
	data := map[string][]byte{}
	for key, value := range fields["stringData"].(map[string]any) {
		data[key] = []byte(value.(string))
	}
	delete(fields, "stringData")
	fields["data"] = data
	return string(encode(fields))
}

// applied is what a resource of the controller manager becomes: its status stays, and
// so does a class that somebody else has given it, unless it is given another.
func applied(was, text string) string {
	if was == "" {
		return text
	}
	type fields = map[string]any
	old := decode[fields](was)
	spec, _ := old["spec"].(fields)
	class, classed := spec["className"]
	if asked, _ := decode[fields](text)["spec"].(fields); classed {
		_, given := asked["className"]
		classed = !given // a field that is given is taken over
	}
	if status, there := old["status"]; there || classed {
		made := decode[fields](text)
		if made["status"] = status; !there {
			delete(made, "status")
		}
		if classed {
			made["spec"].(fields)["className"] = class
		}
		text = string(encode(made))
	}
	return text
}

// refuses says why the API does not take an object of a class. Where no server is, nor
// one that serves the class, no webhook is asked.
func (n *node) refuses(key access.ObjectKey, class string) error {
	switch key.APIVersion {
	case spire.ResourceAPIVersion:
		if _, known := n.objects[keyOf(crd(key.Kind))]; !known {
			return fmt.Errorf("no matches for kind %q", key.Kind)
		}
		if n.server() == nil || class != "" {
			return nil
		}
		if n.serves() != nil || time.Now().Before(n.spire.since.Add(latency)) {
			return errors.New("failed calling webhook: connection refused")
		}
		if n.spire.staleWebhook {
			return errors.New("failed calling webhook: x509: certificate signed by unknown authority")
		}
	case "metallb.io/v1beta1":
		if n.runs(n.release("metallb")) != nil {
			return fmt.Errorf("no matches for kind %q", key.Kind)
		}
	}
	return nil
}

// reconcile is what controllers do about an object that is new or another one.
func (n *node) reconcile(key access.ObjectKey, _ string) {
	switch key.Kind {
	case "ClusterFederatedTrustDomain":
		n.spire.manage()
	case "ClusterSPIFFEID", "ClusterStaticEntry":
		n.reregister()
	case "Deployment", "StatefulSet":
		if r := n.owner(key); r != nil {
			r.ready, r.identified = time.Now().Add(latency), false
		}
	case "PersistentVolumeClaim":
		if n.bound[key].IsZero() && !n.bindsLate {
			n.bound[key] = time.Now().Add(latency)
		}
	}
}

// unreconcile is what the controller manager does about a resource that is gone.
func (n *node) unreconcile(key access.ObjectKey) {
	switch key.Kind {
	case "ClusterFederatedTrustDomain":
		n.spire.manage()
	case "ClusterSPIFFEID", "ClusterStaticEntry":
		n.reregister()
	}
}

func specOf[T any](object string) T {
	return decode[struct{ Spec T }](object).Spec
}

func (n objects) Object(ctx context.Context, key access.ObjectKey, into any) (found bool, err error) {
	err = n.api(ctx, "Objects.Object "+key.Kind, func(func()) error {
		text, there := n.read(key)
		if found = there; !found {
			return nil
		}
		return json.Unmarshal([]byte(text), into)
	})
	return found, err
}

// read returns an object as the API has it.
func (n objects) read(key access.ObjectKey) (text string, there bool) {
	text, there = n.objects[key]
	if key.Kind == "ConfigMap" && key.Name == spire.BundleConfigMap && strings.Contains(text, spire.SecretBundle) {
		return n.managed(key, text), true
	}
	if pod := n.demoPods(key.Namespace, nil)[key.Name]; key.Kind == "Pod" && pod != nil {
		return string(encode(pod)), true
	}
	if key.Kind == "Node" {
		return string(encode(map[string]any{"metadata": map[string]any{"name": key.Name, "uid": n.uid}})), true
	}
	if r := n.server(); r != nil && key.Namespace == r.Namespace && (key.Name == spire.ServerStatefulSet && there || key.Kind == "Pod" && key.Name == spire.ServerPod) {
		return n.revised(r, text), true
	}
	if there && key.Kind == "PersistentVolumeClaim" {
		object := decode[map[string]any](text)
		since := n.bound[key]
		bound := !since.IsZero() && !time.Now().Before(since)
		object["status"] = map[string]any{"phase": map[bool]string{true: "Bound", false: "Pending"}[bound]}
		text = string(encode(object))
	}
	if there && key.Kind == spire.FederatedTrustDomainKind {
		object := decode[map[string]any](text)
		metadata, ok := object["metadata"].(map[string]any)
		if !ok {
			panic(key.Name + " has no metadata")
		}
		metadata["creationTimestamp"] = time.Unix(int64(n.made[key]), 0).UTC()
		text = string(encode(object))
	}
	return text, there
}

const agentPod = "spire-agent-x7k2p"

func (n objects) Named(ctx context.Context, kind access.ObjectKey, labels map[string]string) (names []string, err error) {
	err = n.api(ctx, "Objects.Named "+kind.Kind, func(func()) error {
		for _, key := range n.keys(kind, labels) {
			names = append(names, key.Name)
		}
		return nil
	})
	return names, err
}

func (n objects) List(ctx context.Context, kind access.ObjectKey, labels map[string]string, into any) error {
	return n.api(ctx, "Objects.List "+kind.Kind, func(func()) error {
		all := []json.RawMessage{}
		for _, key := range n.keys(kind, labels) {
			if text, there := n.read(key); there {
				all = append(all, json.RawMessage(text))
			}
		}
		return json.Unmarshal(encode(all), into)
	})
}

// keys returns those of the objects of a kind with these labels.
func (n objects) keys(kind access.ObjectKey, labels map[string]string) (keys []access.ObjectKey) {
	if kind.Kind == "Node" {
		kind.Name = n.name.lab + "-" + n.name.cluster + "-control-plane"
		return []access.ObjectKey{kind}
	}
	if kind.Kind == "Pod" && kind.Namespace == "" {
		var namespaces []string
		for _, r := range n.releases {
			namespaces = append(namespaces, r.Namespace)
		}
		slices.Sort(namespaces)
		for _, kind.Namespace = range slices.Compact(namespaces) {
			keys = append(keys, n.keys(kind, labels)...)
		}
		return keys
	}
	if kind.Kind == "Pod" {
		names := slices.Sorted(maps.Keys(n.demoPods(kind.Namespace, labels)))
		if labels[spire.ProgramLabel] == spire.AgentDaemonSet {
			names = []string{agentPod}
		}
		for _, kind.Name = range names {
			keys = append(keys, kind)
		}
		return keys
	}
	for key, text := range n.objects {
		has := decode[struct {
			Metadata struct{ Labels map[string]string }
		}](text).Metadata.Labels
		if key.APIVersion == kind.APIVersion && key.Kind == kind.Kind && (kind.Namespace == "" || key.Namespace == kind.Namespace) && hasAll(has, labels) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b access.ObjectKey) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return keys
}

// revised returns the StatefulSet of a server, or its pod, with what tells whether the pod is
// ready and of the newest version.
func (n *node) revised(r *release, text string) string {
	object := decode[map[string]any](cmp.Or(text, "{}"))
	revision, ready := "newest", 0
	if r.stuck {
		revision = "older"
	}
	if r.unready == "" && n.runs(r) == nil {
		ready = 1
	}
	metadata, is := object["metadata"].(map[string]any)
	if !is {
		metadata = map[string]any{}
	}
	metadata["labels"] = map[string]any{"controller-revision-hash": revision}
	object["metadata"], object["status"] = metadata, map[string]any{"updateRevision": "newest", "replicas": 1, "readyReplicas": ready}
	return string(encode(object))
}

// hasAll holds when labels has all those of a selector.
func hasAll(labels, selector map[string]string) bool {
	for label, value := range selector {
		if labels[label] != value {
			return false
		}
	}
	return true
}

func (n objects) Delete(ctx context.Context, key access.ObjectKey) error {
	return n.api(ctx, "Objects.Delete "+key.Kind, func(changed func()) error {
		switch {
		case key.Kind == "Pod" && key.Name == agentPod && n.attendants[key.Namespace] != nil:
			n.attendants[key.Namespace].start()
			changed()
		case key.Kind == "Pod" && key.Name == agentPod:
			n.spire.stale, n.spire.hung = false, !strings.Contains(n.objects[bundleKey(topology.ServerNamespace)], "BEGIN CERTIFICATE")
			changed()
		case key.Kind == "Pod" && n.spire != nil && key.Name == n.spire.staleReplica:
			n.spire.staleReplica = ""
			changed()
		case key.Kind == "Pod" && key.Name == spire.ServerPod:
			if n.spire != nil {
				n.spire.staleWebhook, n.spire.since = false, time.Now()
			}
			if r := n.server(); r != nil {
				r.unready, r.stuck = "", false
			}
			changed()
		}
		if _, there := n.objects[key]; there {
			delete(n.objects, key)
			changed()
			n.unreconcile(key)
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

func (n releases) Apply(ctx context.Context, r access.Release) (applied bool, err error) {
	err = n.api(ctx, "Releases.Apply "+r.Name, func(changed func()) error {
		had := n.releases[releaseName{r.Namespace, r.Name}]
		if had != nil && had.text == string(encode(r)) {
			if applied = n.putBack(had); n.admits(had) || applied {
				applied = true
				changed()
			}
			return nil
		}
		made := newRelease(r)
		for key := range made.objects {
			if by := n.owner(key); by != nil && by != had {
				return fmt.Errorf("%s %s exists and cannot be imported into the current release: release-name must equal %q: current value is %q",
					key.Kind, key.Name, r.Name, by.Name)
			}
		}
		for _, by := range n.releases {
			if port := made.demo.Service.NodePort; port != 0 && by != had && by.demo.Service.NodePort == port {
				return fmt.Errorf("spec.ports[0].nodePort: Invalid value: %d: provided port is already allocated", port)
			}
		}
		if had != nil {
			made.unready, made.stuck = had.unready, had.stuck || had.unready != "" && restarts(had.Values, r.Values)
		}
		if had != nil && !restarts(had.Values, r.Values) {
			made.ready = had.ready
		}
		n.install(made)
		n.admits(made)
		applied = true
		changed()
		return nil
	})
	return applied, err
}

// putBack makes of a release's objects what its manifest says, and reports whether
// they were something else.
func (n *node) putBack(r *release) (drifted bool) {
	for key, text := range r.objects {
		if n.objects[key] != text {
			n.objects[key], drifted = text, true
			n.reconcile(key, text)
		}
	}
	return drifted
}

func newRelease(r access.Release) *release {
	made := &release{Release: r, text: string(encode(r)), ready: time.Now().Add(latency), objects: map[access.ObjectKey]string{}}
	if isDemo(r.Chart) {
		made.demo = decode[struct{ Values demoValues }](made.text).Values
	}
	for _, o := range manifest(r) {
		made.objects[keyOf(o)] = string(encode(o))
	}
	made.needs = needsOf(made)
	return made
}

func (n *node) install(r *release) {
	n.installed++
	r.number = n.installed
	name := releaseName{r.Namespace, r.Name}
	if had := n.releases[name]; had != nil {
		r.number = had.number
		n.uninstall(had)
	} else {
		n.claim(r)
	}
	n.releases[name] = r
	maps.Copy(n.objects, r.objects)
	n.attend(r)
	n.podsChanged()
}

// kubeletBackOff is when the kubelet tries a pod again that it could not start.
const kubeletBackOff = 10 * time.Second

// claim makes the volumes of a new release's StatefulSets. A pod whose volume is not bound
// when the kubelet looks has to wait.
func (n *node) claim(r *release) {
	for set := range r.objects {
		if set.Kind != "StatefulSet" || n.bindsLate {
			continue
		}
		claim := claimOf(set)
		if n.objects[claim] == "" {
			n.objects[claim], n.bound[claim] = "{}", time.Now().Add(latency)
		}
		if time.Now().Before(n.bound[claim]) {
			r.ready = time.Now().Add(kubeletBackOff)
		}
	}
}

// claimOf returns what the first pod of a StatefulSet keeps its data on.
func claimOf(set access.ObjectKey) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: set.Namespace, Name: "data-" + set.Name + "-0"}
}

func (n *node) uninstall(r *release) {
	for key := range r.objects {
		delete(n.objects, key)
	}
	delete(n.releases, releaseName{r.Namespace, r.Name})
	if r.Chart == "spire" {
		delete(n.attendants, r.Namespace)
	}
	n.podsChanged()
}

// release returns the first release of that name; nil for none.
func (n *node) release(name string) (first *release) {
	for _, r := range n.releases {
		if r.Name == name && (first == nil || r.number < first.number) {
			first = r
		}
	}
	return first
}

// server returns the release of the SPIRE server; nil for none.
func (n *node) server() *release {
	for _, r := range n.releases {
		if _, is := r.Values.(spire.Values); is && r.Namespace == topology.ServerNamespace {
			return r
		}
	}
	return nil
}

// restarts reports whether other values of a release restart its pods: the port
// of a bundle endpoint is that of a Service, agents have pods of their own, and all
// else is in the pods' template, if only as a digest.
func restarts(old, values any) bool {
	before, spireBefore := old.(spire.Values)
	after, spireAfter := values.(spire.Values)
	if !spireBefore || !spireAfter {
		return true
	}
	before.BundleEndpoint.Port, before.WithoutAgents = after.BundleEndpoint.Port, after.WithoutAgents
	if after.BundleEndpoint.Profile != topology.HTTPSWeb {
		before.Images.ServingCert = after.Images.ServingCert
	}
	return string(encode(before)) != string(encode(after))
}

// manifest returns the objects of a release, as far as anybody asks for them.
func manifest(r access.Release) []any {
	controller := func(kind, name string, containers ...any) any {
		return map[string]any{
			"apiVersion": "apps/v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": r.Namespace},
			"spec": map[string]any{"replicas": 1, "template": map[string]any{"spec": map[string]any{"containers": containers}}},
		}
	}
	if agents, is := r.Values.(spire.AgentValues); is {
		if agents.WithoutAgents {
			return nil
		}
		return []any{controller("DaemonSet", spire.AgentDaemonSet)}
	}
	switch values, _ := r.Values.(spire.Values); {
	case r.Chart == "spire":
		container := func(name, image string) any { return map[string]any{"name": name, "image": image} }
		all := []any{controller("StatefulSet", spire.ServerStatefulSet, container(spire.ServerContainer, values.Images.Server))}
		if !values.WithoutAgents {
			all = append(all, controller("DaemonSet", spire.AgentDaemonSet, container(spire.AgentContainer, values.Images.Agent)))
		}
		if len(values.WebRoots) > 0 {
			all = append(all, map[string]any{
				"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": spire.WebRootsConfigMap, "namespace": r.Namespace},
				"data": map[string]any{"roots.pem": strings.Join(values.WebRoots, "")},
			})
		}
		return all
	case r.Chart == "postgres":
		return []any{controller("StatefulSet", r.Name)}
	case isDemo(r.Chart):
		return []any{controller("Deployment", appOf(r.Chart).Deployment)}
	case r.Chart == spire.DiscoveryChart:
		return []any{controller("Deployment", spire.DiscoveryName)}
	case r.Chart == spire.ProxyChart:
		return []any{controller("Deployment", spire.ProxyName)}
	case r.Chart == spire.ACMERelease:
		return []any{controller("Deployment", spire.ACMERelease)}
	}
	return nil
}

// owner returns the release that a controller is of.
func (n *node) owner(key access.ObjectKey) *release {
	for _, r := range n.releases {
		if _, has := r.objects[key]; has {
			return r
		}
	}
	return nil
}

func (n releases) List(ctx context.Context) (list []access.Release, err error) {
	err = n.api(ctx, "Releases.List", func(func()) error {
		for _, r := range n.releases {
			if !r.foreign {
				list = append(list, access.Release{Namespace: r.Namespace, Name: r.Name})
			}
		}
		slices.SortFunc(list, func(a, b access.Release) int {
			return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
		})
		return nil
	})
	return list, err
}

func (n releases) Remove(ctx context.Context, namespace, name string) error {
	return n.api(ctx, "Releases.Remove "+namespace+"/"+name, func(changed func()) error {
		if r := n.releases[releaseName{namespace, name}]; r != nil {
			n.uninstall(r)
			for set := range r.objects {
				delete(n.objects, claimOf(set)) // as their StatefulSet says
				delete(n.bound, claimOf(set))
			}
			if isAgents(r.Values) {
				delete(n.objects, tokenKey(namespace))
				delete(n.objects, bundleKey(namespace))
			}
			changed()
		}
		return nil
	})
}

// podsChanged is when the controller manager looks at pods again.
func (n *node) podsChanged() {
	_ = n.serves() // what has to start first
	n.reregister()
}

// reregister is what the controller managers do about pods or resources of a cluster.
func (n *node) reregister() {
	for _, other := range n.nodes {
		if other.name.lab == n.name.lab && other.spire != nil && other.spire.manages(n) && other.answers() == nil && other.serves() == nil {
			other.spire.register()
		}
	}
}

// serves returns nil when the SPIRE server runs.
func (n *node) serves() error {
	if n.host != nil {
		return n.host.serveOnHost()
	}
	return n.runs(n.server())
}

// runs returns nil when the pods of a release run, and else says what keeps them.
func (n *node) runs(r *release) error {
	if r == nil {
		return errors.New("it is not installed")
	}
	since, err := n.since(r)
	if n.host != nil {
		_, _, err = onHost{n.world, n.name}.program("run-" + r.Name)
		r.identified = r.identified && n.host.attest() == nil
	}
	switch {
	case err != nil:
		return err
	case time.Now().Before(since):
		return errors.New("0 of 1 pods are ready")
	case isAgents(r.Values):
		return n.attendants[r.Namespace].attest()
	case r.Chart == "spire":
		return n.serve(r, since)
	case r.Chart == spire.DiscoveryChart:
		return n.discovers()
	case isDemo(r.Chart) && !r.identified:
		if !n.identifies(r) {
			return errors.New("0 of 1 pods are ready: no identity yet")
		}
		r.identified = true
	}
	return nil
}

// serve starts the server of a release of SPIRE whose pod runs, unless it has
// been started since.
func (n *node) serve(r *release, since time.Time) (err error) {
	values, _ := r.Values.(spire.Values)
	if n.spire == nil {
		if n.spire, err = newSPIREServer(n, values); err != nil {
			return err
		}
		// An agent that is there before the bundle waits for it in ever longer
		// intervals; next to a server that takes long it waits for good here.
		n.spire.hung = (values.Datastore.Postgres != nil || values.Upstream != nil) && !values.WithoutAgents
	}
	if n.spire.since != since {
		return n.spire.start(values, since)
	}
	return nil
}

// since returns when the pods of a release run, if all is there that they need.
func (n *node) since(r *release) (time.Time, error) {
	if r.broken != "" {
		return time.Time{}, errors.New(r.broken)
	}
	if r.stuck {
		return time.Time{}, fmt.Errorf("0 of 1 of the newest version: %s", r.unready)
	}
	for key := range r.objects {
		switch object, there := n.objects[key]; {
		case !there && key.APIVersion == "apps/v1":
			return time.Time{}, fmt.Errorf("there is no %s %s", key.Kind, key.Name)
		case strings.Contains(object, `"replicas":0`):
			return time.Time{}, errors.New("scaled to no pod")
		}
	}
	for _, image := range r.needs.images {
		if !n.images[image] {
			return time.Time{}, fmt.Errorf("0 of 1 pods are ready: ImagePullBackOff: %s", image)
		}
	}
	for _, secret := range r.needs.secrets {
		if n.objects[access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: r.Namespace, Name: secret}] == "" {
			return time.Time{}, fmt.Errorf("0 of 1 pods are ready: secret %q not found", secret)
		}
	}
	since := r.ready
	if r.needs.database == "" {
		return since, nil
	}
	database := n.release(r.needs.database)
	if database == nil || database.Chart != "postgres" {
		return time.Time{}, fmt.Errorf("0 of 1 pods are ready: no such host: %s", r.needs.database)
	}
	at, err := n.since(database)
	if at = at.Add(latency); at.After(since) {
		since = at
	}
	return since, err
}

// needs is what pods need before they run.
type needs struct {
	images, secrets []string
	// database is a release of the chart postgres.
	database string
}

func needsOf(r *release) (all needs) {
	switch values, _ := r.Values.(spire.Values); {
	case r.Chart == "spire":
		if own := values.BundleEndpoint.OwnCertificate; own != nil {
			all.secrets = append(all.secrets, own.Secret)
		} else if values.BundleEndpoint.Profile == topology.HTTPSWeb && values.BundleEndpoint.ACME == nil {
			all.images, all.secrets = append(all.images, values.Images.ServingCert), append(all.secrets, spire.WebCASecret)
		}
		if values.UpstreamAuthority == topology.Disk {
			all.secrets = append(all.secrets, spire.UpstreamAuthoritySecret)
		}
		if values.Datastore.Postgres != nil {
			all.images, all.database = append(all.images, values.Datastore.Postgres.Image), values.Datastore.Postgres.Release
		}
	case r.Chart == "postgres":
		all.secrets = append(all.secrets, r.Name+"-login")
		all.images = append(all.images, decode[struct{ Values struct{ Image string } }](r.text).Values.Image)
	case r.Chart == spire.DiscoveryChart:
		images := decode[struct{ Values spire.DiscoveryValues }](r.text).Values.Images
		all.images, all.secrets = append(all.images, images.Provider, images.ServingCert), append(all.secrets, spire.WebCASecret)
	case r.Chart == spire.ProxyChart:
		values := decode[struct{ Values spire.ProxyValues }](r.text).Values
		all.images = append(all.images, values.Images.HAProxy)
		switch {
		case values.Route != topology.Reencrypt:
		case values.Certificate.Secret != "":
			all.secrets = append(all.secrets, values.Certificate.Secret, spire.EndpointCASecret)
		default:
			all.images, all.secrets = append(all.images, values.Images.ServingCert), append(all.secrets, spire.WebCASecret)
		}
	case r.Chart == spire.ACMERelease:
		images := decode[struct{ Values spire.ACMEServerValues }](r.text).Values.Images
		all.images, all.secrets = append(all.images, images.Pebble, images.ServingCert), append(all.secrets, spire.ACMERootSecret)
	case isDemo(r.Chart):
		all.images = append(all.images, r.demo.Image)
		if r.Chart == plainService {
			all.images = append(all.images, r.demo.Ghostunnel)
		}
		all.database, _, _ = strings.Cut(r.demo.Database.Address, ":")
	}
	return all
}

type pods struct{ *node }

func (n pods) Exec(ctx context.Context, namespace, pod, container string, argv ...string) (out []byte, err error) {
	err = n.api(ctx, "Pods.Exec", func(func()) error {
		if r := n.demo(namespace, strings.TrimSuffix(pod, "-0")); r != nil && len(argv) > 1 && argv[0] == "/"+r.Chart && argv[1] == "svid" {
			if err := n.runs(r); err != nil {
				return err
			}
			out, err = party{n.node, r}.svids(argv[2:])
			return err
		}
		if err := n.serves(); err != nil {
			return err
		}
		at := []string{namespace, container, argv[0]}
		if !n.replica(pod) || !slices.Equal(at, []string{topology.ServerNamespace, spire.ServerContainer, spire.ServerProgram}) {
			at = append(at, pod)
			return fmt.Errorf("nothing runs at %v", at)
		}
		out, err = n.spire.mint(argv[1:])
		return err
	})
	return out, err
}

func (n pods) Dial(ctx context.Context, namespace, pod string, port int) (conn net.Conn, err error) {
	err = n.api(ctx, fmt.Sprintf("Pods.Dial %d", port), func(func()) error {
		if namespace == "kube-system" && pod == dnsPod && port == 53 {
			near, far := net.Pipe()
			go n.resolve(far)
			conn = near
			return nil
		}
		if namespace == topology.ServerNamespace && n.replica(pod) && port == spire.APIPort && n.serves() == nil {
			conn, err = n.spire.listener.DialContext(ctx)
			return err
		}
		if namespace == topology.ServerNamespace && n.replica(pod) && port == spire.WebhookPort && n.serves() == nil {
			conn, err = n.spire.webhook(ctx, pod)
			return err
		}
		if namespace == topology.ServerNamespace && n.replica(pod) && port == spire.MetricsPort && n.serves() == nil {
			conn = n.spire.metrics()
			return nil
		}
		r := n.demo(namespace, strings.TrimSuffix(pod, "-0"))
		if r == nil || r.demo.Service.Port != port || appOf(r.Chart).Page == "" || n.runs(r) != nil {
			return fmt.Errorf("nothing listens at %s/%s:%d", namespace, pod, port)
		}
		near, far := net.Pipe()
		go n.answer(far, r)
		conn = near
		return nil
	})
	if err != nil && conn != nil {
		err = errors.Join(err, conn.Close())
	}
	return conn, err
}

// replica reports whether a replica of the server runs in a pod. In this world all of them
// are one server.
func (n *node) replica(pod string) bool {
	if n.spire == nil || n.spire.away == pod {
		return false
	}
	for i := range max(1, n.spire.values.Replicas) {
		if pod == spire.ServerStatefulSet+"-"+strconv.Itoa(i) {
			return true
		}
	}
	return false
}

// containersOf returns those of the pods of a release that somebody waits for.
func containersOf(r *release) []string {
	if r.Chart == "postgres" {
		return []string{"postgres"}
	}
	values, _ := r.Values.(spire.Values)
	all := []string{spire.ServerContainer}
	for _, m := range values.Members {
		all = append(all, "manager-"+m.Cluster)
	}
	return all
}

func (n pods) Started(ctx context.Context, set access.ObjectKey, container string) error {
	return n.api(ctx, "Pods.Started "+set.Name, func(func()) error {
		r := n.owner(set)
		if r == nil {
			return fmt.Errorf("there is no %s %s", set.Kind, set.Name)
		}
		if !slices.Contains(containersOf(r), container) {
			return fmt.Errorf("there is no container %s in %s", container, set.Name)
		}
		if strings.Contains(r.unready, container+":") {
			return errors.New(r.unready)
		}
		return n.runs(r)
	})
}

func (n pods) Ready(ctx context.Context, key access.ObjectKey) error {
	return n.api(ctx, "Pods.Ready "+key.Name, func(func()) error {
		r := n.owner(key)
		if r == nil {
			return fmt.Errorf("there is no %s %s", key.Kind, key.Name)
		}
		if key.Name == spire.AgentDaemonSet && !isAgents(r.Values) && n.spire != nil && n.spire.hung {
			return errors.New("0 of 1 pods are ready: ContainerCreating")
		}
		if key.Name == spire.AgentDaemonSet && !isAgents(r.Values) && n.spire != nil && n.spire.banned {
			return errors.New("0 of 1 pods are ready: CrashLoopBackOff")
		}
		if key.Name == spire.ServerStatefulSet && r.unready != "" {
			return errors.New(r.unready)
		}
		return n.runs(r)
	})
}

func (n pods) Named(ctx context.Context, namespace string, labels map[string]string) (names []string, err error) {
	err = n.api(ctx, "Pods.Named", func(func()) error {
		if namespace == "kube-system" && labels["k8s-app"] == "kube-dns" {
			names = append(names, dnsPod)
		}
		for _, r := range n.releases {
			if isDemo(r.Chart) && r.Namespace == namespace && hasAll(podLabels(r), labels) && n.runs(r) == nil {
				names = append(names, r.Chart+"-0")
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
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
				if fmt.Sprint(addr.Port()) != at.Port() || n.answers() != nil {
					continue
				}
				for _, r := range n.releases {
					if r.demo.Service.NodePort == port && appOf(r.Chart).Page == at.Path && n.runs(r) == nil {
						return nil
					}
				}
			}
		}
		return fmt.Errorf("get %s: connection refused", address)
	})
}

func keyOf(object any) access.ObjectKey {
	if o, is := object.(map[string]any); is { // most are, and are asked for often
		metadata, _ := o["metadata"].(map[string]any)
		text := func(m map[string]any, field string) string { s, _ := m[field].(string); return s }
		return access.ObjectKey{
			APIVersion: text(o, "apiVersion"), Kind: text(o, "kind"),
			Namespace: text(metadata, "namespace"), Name: text(metadata, "name"),
		}
	}
	o := decode[struct {
		APIVersion, Kind string
		Metadata         struct{ Namespace, Name string }
	}](string(encode(object)))
	return access.ObjectKey{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: o.Metadata.Namespace, Name: o.Metadata.Name}
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
