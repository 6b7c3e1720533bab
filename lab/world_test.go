package lab_test

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// world is a machine in memory: what Docker, kind, Kubernetes, Helm and SPIRE
// would hold. Every call of a part goes through do, where it can be made to fail
// or to be the last one before a kill.
type world struct {
	// watchers is for how many clusters the kernel has watchers; 0 is any number.
	watchers int
	mu       sync.Mutex
	networks map[string]netip.Prefix
	nodes    map[nodeName]*node
	// sidecars are the programs next to the clusters, by lab and program.
	sidecars map[nodeName]bool
	// hosts are the machines outside Kubernetes.
	hosts map[nodeName]*machine
	// contexts are those in the person's kubeconfig file.
	contexts map[string]bool
	// late are networks and nodes that Docker is making for a command that was killed, with the
	// time when they are there. The node of a network has no cluster.
	late map[nodeName]time.Time
	// names are those that the DNS of each cluster knows besides its Services.
	names map[string]netip.Addr
	// taken are the addresses that some other program listens on.
	taken map[netip.AddrPort]bool
	// dies has why programs of hosts end at once.
	dies map[string]string
	// bindsLate says that a cluster makes a volume only for a pod that has a node.
	bindsLate bool
	// pulled says that the node image is of upstream's images.
	pulled bool
	// notes are the labs of which a killed command left volumes.
	notes map[string]bool
	// noFiles is why the person's kubeconfig files cannot be read.
	noFiles error
	// noLocks is why no lock can be had.
	noLocks error
	// held are the commands that change a lab, by its name.
	held map[string]string
	// built tells which images are there.
	built struct{ parts, node bool }
	// edits counts how often the source of a program was edited.
	edits map[string]int
	// counted tells tokens from those that came before them, and uids nodes.
	counted int
	uids    map[nodeName]int

	// calls are the calls so far, mutations those that changed something.
	calls, mutations []string
	// fault decides about a call before it is done; nil lets all pass.
	fault func(call string) verdict
	// killed is set when the process is dead: nothing it does has an effect.
	killed bool
	// kill ends the context of the command under test.
	kill context.CancelCauseFunc
	// stop ends what serves connections, over calls that hang.
	stop []func()
	over chan struct{}
	// careless has servers answer who has made the SVID himself.
	careless bool
}

type nodeName struct{ lab, cluster string }

// verdict is what becomes of a call.
type verdict int

const (
	pass verdict = iota
	fail
	// failLate is fail after a while, so that who tries for minutes tries a few
	// times only.
	failLate
	// hang is a call that ends with its context only.
	hang
	killBefore
	killAfter
)

// late is how long a call takes that fails late.
const late = 10 * time.Second

var (
	errInjected = errors.New("injected fault")
	errKilled   = errors.New("the process was killed")
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		networks: map[string]netip.Prefix{}, nodes: map[nodeName]*node{}, sidecars: map[nodeName]bool{}, hosts: map[nodeName]*machine{},
		contexts: map[string]bool{}, held: map[string]string{}, notes: map[string]bool{}, late: map[nodeName]time.Time{}, taken: map[netip.AddrPort]bool{}, edits: map[string]int{}, over: make(chan struct{}),
	}
	t.Cleanup(func() {
		close(w.over)
		for _, stop := range w.stop {
			stop()
		}
	})
	return w
}

// do is one call of a part. The effect runs while nothing else does, and tells
// with changed that it changed the world.
func (w *world) do(ctx context.Context, call string, effect func(changed func()) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.killed {
		return errKilled
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.arrive()
	w.calls = append(w.calls, call)
	decided := pass
	if w.fault != nil {
		decided = w.fault(call)
	}
	switch decided {
	case failLate:
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-w.over:
		case <-time.After(late):
		}
		w.mu.Lock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w", call, errInjected)
	case hang:
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-w.over:
		}
		w.mu.Lock()
		return cmp.Or(context.Cause(ctx), errInjected)
	case fail:
		return fmt.Errorf("%s: %w", call, errInjected)
	case killBefore:
		return w.die()
	}
	err := effect(func() { w.mutations = append(w.mutations, call) })
	if decided == killAfter {
		return w.die()
	}
	return err
}

// arrive has what is late be there when its time has come.
func (w *world) arrive() {
	for name, at := range w.late {
		switch {
		case time.Now().Before(at):
			continue
		case name.cluster == "":
			w.networks[name.lab] = topology.NetworkCandidates()[len(w.networks)]
		default:
			w.nodes[name] = newNode(w, name, lab.NodeSpec{})
			w.nodes[name].state = noKubeconfig
		}
		delete(w.late, name)
	}
}

func (w *world) die() error {
	w.killed = true
	w.kill(errKilled)
	return errKilled
}

// up runs an up to its end, or until the world's fault kills it.
func (w *world) up(t *testing.T, d *lab.Driver, top topology.Topology) error {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	w.kill = cancel
	err := d.Up(ctx, top)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.killed, w.fault = false, nil
	return err
}

// driver returns a driver of the world.
func (w *world) driver(t *testing.T) *lab.Driver {
	t.Helper()
	return &lab.Driver{Parts: lab.Parts{
		Locks:       locks{w},
		Images:      images{w},
		Networks:    networks{w},
		Nodes:       nodes{w},
		Peers:       peers{w},
		Marks:       marks{w},
		Sidecars:    sidecars{w},
		Hosts:       hosts{w},
		OnHost:      func(lab, host string) access.Host { return onHost{w, nodeName{lab, host}} },
		Kubeconfigs: kubeconfigs{w},
		Programs:    demo.Catalogue{},
		Labs:        w.labs,
		Connect:     w.connect,
		NetworkAPI:  networkAPI,
		Watchers: func(clusters int) error {
			return w.do(context.Background(), "Watchers", func(func()) error {
				if w.watchers > 0 && clusters > w.watchers {
					return fmt.Errorf("no watchers for %d clusters", clusters)
				}
				return nil
			})
		},
		PortFree: func(addr netip.AddrPort) error {
			return w.do(context.Background(), "PortFree", func(func()) error {
				if w.taken[addr] {
					return fmt.Errorf("port %d of this machine is taken", addr.Port())
				}
				return nil
			})
		},
		NameFree: func(ctx context.Context, name, cluster string) error {
			return w.do(ctx, "NameFree "+cluster, func(func()) error {
				for n := range w.nodes {
					if n.lab != name && n.lab+"-"+n.cluster == name+"-"+cluster {
						return fmt.Errorf("container of %s is another lab's: %s", cluster, n)
					}
				}
				return nil
			})
		},
		Page: w.page,
	}}
}

func networkAPI(lab, cluster string) string {
	return "https://" + lab + "-" + cluster + "-control-plane.:6443"
}

// quotes is the preset that comes up when nobody names another.
func quotes(t *testing.T) topology.Topology {
	t.Helper()
	return presetOf(t, config.DefaultPreset)
}

// resolved returns the graph of a lab that has no network.
func resolved(t *testing.T, top topology.Topology) *topology.Graph {
	t.Helper()
	g, err := topology.Resolve(top, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// enterprise is the preset that has of everything.
func enterprise(t *testing.T) topology.Topology {
	t.Helper()
	return presetOf(t, "enterprise")
}

func presetOf(t *testing.T, name string) topology.Topology {
	t.Helper()
	data, err := config.Init(name)
	if err != nil {
		t.Fatal(err)
	}
	return topologyOf(t, string(data))
}

// parsed holds the lab files that were read: tests read the same few a thousand
// times.
var parsed sync.Map

// topologyOf is what a lab file asks for.
func topologyOf(t *testing.T, file string) topology.Topology {
	t.Helper()
	known, ok := parsed.Load(file)
	if !ok {
		top, err := config.For(demo.Apps()).Load([]byte(file), "lab.yaml")
		if err != nil {
			t.Fatal(err)
		}
		known, _ = parsed.LoadOrStore(file, top)
	}
	top, _ := known.(topology.Topology)
	top.Clusters, top.TrustDomains = slices.Clone(top.Clusters), slices.Clone(top.TrustDomains)
	top.Relationships, top.Workloads = slices.Clone(top.Relationships), slices.Clone(top.Workloads)
	return top
}

// edited is the quotes preset with a text of its file replaced.
func edited(t *testing.T, old, replacement string) topology.Topology {
	t.Helper()
	data, err := config.Init("quotes")
	if err != nil {
		t.Fatal(err)
	}
	return topologyOf(t, replaced(t, string(data), old, replacement))
}

// replaced is a lab file with texts replaced: each by the one that comes after it.
func replaced(t *testing.T, file string, texts ...string) string {
	t.Helper()
	for i := 0; i < len(texts); i += 2 {
		if !strings.Contains(file, texts[i]) {
			t.Fatalf("the lab file does not have %q", texts[i])
		}
		file = strings.ReplaceAll(file, texts[i], texts[i+1])
	}
	return file
}

// dump is the world in words, without what differs from one bring-up to the next
// (keys), and with how each held bundle stands to its source.
func (w *world) dump() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for name, subnet := range w.networks {
		add("network %s %s", name, subnet)
	}
	for name := range w.notes {
		add("volumes of %s", name)
	}
	for name := range w.sidecars {
		add("sidecar %s", name)
	}
	for name, m := range w.hosts {
		m.dump(func(format string, args ...any) { add("host %s %s", name, fmt.Sprintf(format, args...)) })
	}
	for name := range maps.Keys(w.contexts) {
		add("context %s", name)
	}
	for name, n := range w.nodes {
		n.dump(func(format string, args ...any) { add("%s %s", name, fmt.Sprintf(format, args...)) })
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// readable is the text of an object or a release with names in the place of
// certificates, whose keys are made at random.
func (w *world) readable(text string) string {
	text = someToken.ReplaceAllString(text, "join_token/$1")
	text = somePEM.ReplaceAllStringFunc(text, func(quoted string) string {
		certificates, err := pki.Parse([]byte(decode[string](quoted)))
		if err != nil {
			panic(err)
		}
		var names []string
		for _, c := range certificates {
			names = append(names, w.nameOf(c))
		}
		slices.Sort(names)
		return fmt.Sprintf("%q", strings.Join(names, ", "))
	})
	return webRoots.ReplaceAllStringFunc(text, func(list string) string {
		names := decode[map[string][]string]("{" + list + "}")
		slices.Sort(names["webRoots"])
		return fmt.Sprintf("%q", names)
	})
}

var (
	// someToken is in the SPIFFE ID of an agent on a host.
	someToken = regexp.MustCompile(`join_token/([a-z-]+)\.[A-Z2-7]+`)
	somePEM   = regexp.MustCompile(`"-----BEGIN CERTIFICATE-----[^"]*"`)
	webRoots  = regexp.MustCompile(`"webRoots":\[[^\]]*\]`)
)

func (w *world) nameOf(c *x509.Certificate) string {
	for name, n := range w.nodes {
		if string(pki.Marshal(c)) == string(n.secret(spire.WebCASecret)[spire.SecretCertificate]) {
			return "the web CA in " + name.String()
		}
		if n.spire != nil && n.spire.values.Upstream == nil && n.spire.root.Equal(c) {
			return "the root in " + name.String()
		}
	}
	return "a web CA that nobody has"
}

// shape is the dump with names in the place of addresses: two labs of one file
// have the same shape, whatever places their clusters and workloads have.
func (w *world) shape() string {
	w.mu.Lock()
	named, pools := map[string]string{}, map[string]string{}
	for name, n := range w.nodes {
		for _, r := range n.releases {
			if address := r.demo.Service.Address; address != "" {
				named[address] = fmt.Sprintf("<address of %s>", r.Name)
			}
		}
		if first, _, _ := strings.Cut(decode[struct{ Spec struct{ Addresses []string } }](cmp.Or(n.objects[poolKey], `{"Spec":{"Addresses":["none"]}}`)).Spec.Addresses[0], "-"); first != "none" {
			pools[strings.TrimSuffix(first, ".1")] = name.cluster
		}
		if r := n.server(); r != nil {
			values, _ := r.Values.(spire.Values)
			named[values.BundleEndpoint.Address] = fmt.Sprintf("<server in %s>", name.cluster)
		}
	}
	w.mu.Unlock()
	text := someAddress.ReplaceAllStringFunc(w.dump(), func(address string) string {
		if name, ok := named[address]; ok {
			return name
		}
		last := strings.LastIndex(address, ".")
		if cluster, ok := pools[address[:last]]; ok {
			return fmt.Sprintf("<pool of %s>%s", cluster, address[last:])
		}
		return address
	})
	return placed.ReplaceAllString(text, "")
}

var (
	someAddress = regexp.MustCompile(`\b10\.\d+\.\d+\.\d+\b`)
	// placed are the fields of a topology that say where something is.
	placed = regexp.MustCompile(`\\"(Index|PodSubnet|ServiceSubnet|Slot)\\":[^,}]*[,}]`)
)

func (n nodeName) String() string { return n.lab + "/" + n.cluster }

func (n nodeName) compare(other nodeName) int { return strings.Compare(n.String(), other.String()) }

type locks struct{ *world }

// Hold is what the kernel does: its only failure is that somebody else has it,
// and takes a lock back from who was killed.
func (w locks) Hold(_ context.Context, name, command string) (func() error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noLocks != nil {
		return nil, w.noLocks
	}
	if by, taken := w.held[name]; taken {
		return nil, &lab.HeldError{Lab: name, Holder: by}
	}
	w.held[name] = "'fedlab " + command + "', process 4711"
	return func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.held, name)
		return nil
	}, nil
}

type networks struct{ *world }

func (w networks) Ensure(ctx context.Context, name string) (subnet netip.Prefix, made bool, err error) {
	err = w.do(ctx, "Networks.Ensure", func(changed func()) error {
		if subnet = w.networks[name]; !subnet.IsValid() {
			subnet, made = topology.NetworkCandidates()[len(w.networks)], true
			w.networks[name] = subnet
			changed()
		}
		return nil
	})
	return subnet, made, err
}

func (w networks) Find(ctx context.Context, name string) (subnet netip.Prefix, found bool, err error) {
	err = w.do(ctx, "Networks.Find", func(func()) error {
		subnet, found = w.networks[name]
		return nil
	})
	return subnet, found, err
}

// Unsettled knows only of containers.
func (w networks) Unsettled(ctx context.Context, name string) (underWay []string, err error) {
	err = w.do(ctx, "Networks.Unsettled", func(func()) error {
		for n := range w.late {
			if n.lab == name && n.cluster != "" {
				underWay = append(underWay, "docker makes container "+n.String())
			}
		}
		return nil
	})
	return underWay, err
}

func (w networks) Remove(ctx context.Context, name string) error {
	return w.do(ctx, "Networks.Remove", func(changed func()) error {
		for n := range w.nodes {
			if n.lab == name {
				return fmt.Errorf("network of %s has active endpoints", name)
			}
		}
		for n := range w.sidecars {
			if n.lab == name {
				return fmt.Errorf("network of %s has active endpoints", name)
			}
		}
		for n := range w.hosts {
			if n.lab == name {
				return fmt.Errorf("network of %s has active endpoints", name)
			}
		}
		if w.networks[name].IsValid() || w.notes[name] {
			changed()
		}
		delete(w.networks, name)
		delete(w.notes, name)
		return nil
	})
}

type nodes struct{ *world }

func (w nodes) List(ctx context.Context, name string) (list []lab.Node, err error) {
	err = w.do(ctx, "Nodes.List", func(func()) error {
		for n, made := range w.nodes {
			if n.lab == name {
				list = append(list, lab.Node{Cluster: n.cluster, Running: made.running, Ports: made.spec.Ports, API: made.address})
			}
		}
		slices.SortFunc(list, func(a, b lab.Node) int { return strings.Compare(a.Cluster, b.Cluster) })
		return nil
	})
	return list, err
}

func (w nodes) Create(ctx context.Context, s lab.NodeSpec) error {
	return w.do(ctx, "Nodes.Create "+s.Cluster, func(changed func()) error {
		name := nodeName{s.Lab, s.Cluster}
		switch {
		case w.nodes[name] != nil, !w.late[name].IsZero():
			return fmt.Errorf("create cluster %s: it exists already", name)
		case !w.networks[s.Lab].IsValid():
			return fmt.Errorf("create cluster %s: there is no network", name)
		case s.Image != "node:1" || !w.built.node:
			return fmt.Errorf("create cluster %s: there is no image %q", name, s.Image)
		}
		if err := w.bind(s.Ports, netip.AddrPort{}); err != nil {
			return fmt.Errorf("create cluster %s: %w", name, err)
		}
		w.nodes[name] = newNode(w.world, name, s)
		changed()
		return nil
	})
}

func (w nodes) Start(ctx context.Context, name, cluster string) error {
	return w.do(ctx, "Nodes.Start "+cluster, func(changed func()) error {
		n := w.nodes[nodeName{name, cluster}]
		if n == nil {
			return errors.New("no such container")
		}
		if !w.networks[name].IsValid() {
			return fmt.Errorf("network of %s not found", name)
		}
		if err := w.bind(n.spec.Ports, n.address); err != nil {
			return err
		}
		n.start()
		changed()
		return nil
	})
}

// bind fails as Docker does where a port of this machine is taken.
func (w *world) bind(ports map[netip.AddrPort]int, api netip.AddrPort) error {
	for addr := range w.taken {
		if _, wanted := ports[addr]; wanted || addr == api {
			return fmt.Errorf("driver failed programming external connectivity: %s is in use", addr)
		}
	}
	return nil
}

type peers struct{ *world }

// ask is a question from the node of a cluster.
func (w peers) ask(ctx context.Context, call, name, cluster string, effect func() error) error {
	return w.do(ctx, call, func(func()) error {
		if n := w.nodes[nodeName{name, cluster}]; n == nil || !n.running {
			return errors.New("no such container")
		}
		return effect()
	})
}

func (w peers) Get(ctx context.Context, name, cluster, address string, at netip.Addr) (answer lab.Answer, err error) {
	err = w.ask(ctx, fmt.Sprintf("Peers.Get from %s of %s", cluster, at), name, cluster, func() error {
		u, err := url.Parse(address)
		if err != nil {
			return err
		}
		s, proxy := w.behind(u, at)
		if s == nil {
			there := false
			if answer, there, err = w.discovery(u, at); !there {
				err = errors.New("connection refused")
			}
			return err
		}
		if answer.Chain, err = proxy.shows(s); err != nil {
			return err
		}
		if s.hangs {
			return &lab.HangingError{URL: address, Within: time.Second}
		}
		if answer.Status = http.StatusOK; !proxy.answers(u) {
			answer.Status = http.StatusNotFound
			return nil
		}
		answer.Took = latency
		answer.Body, err = s.serves().Marshal()
		return err
	})
	return answer, err
}

// Presented is what a bundle endpoint or a workload shows.
func (w peers) Presented(ctx context.Context, name, cluster string, server netip.AddrPort) (chain []*x509.Certificate, err error) {
	err = w.ask(ctx, fmt.Sprintf("Peers.Presented from %s by %s", cluster, server), name, cluster, func() error {
		if s := w.at("https://" + server.String()); s != nil {
			chain, err = s.shows()
			return err
		}
		for _, n := range w.nodes {
			if n.name.lab != name {
				continue
			}
			if to, there := n.listener(server.String()); there {
				chain, err = to.presents()
				return err
			}
		}
		return errors.New("connection refused")
	})
	return chain, err
}

// root reports whether a URL has the one path at which SPIRE serves a bundle.
func root(u *url.URL) bool { return u.Path == "" || u.Path == "/" }

func (w nodes) Delete(ctx context.Context, name, cluster string) error {
	return w.do(ctx, "Nodes.Delete "+cluster, func(changed func()) error {
		if n := w.nodes[nodeName{name, cluster}]; n != nil {
			n.running = false
		}
		delete(w.nodes, nodeName{name, cluster})
		changed()
		return nil
	})
}

type marks struct{ *world }

func (w marks) Whole(ctx context.Context, name, cluster string) (whole bool, err error) {
	err = w.do(ctx, "Marks.Whole "+cluster, func(func()) error {
		n := w.nodes[nodeName{name, cluster}]
		if n == nil {
			return errors.New("no such container")
		}
		whole = n.whole
		return nil
	})
	return whole, err
}

func (w marks) SetWhole(ctx context.Context, name, cluster string) error {
	return w.do(ctx, "Marks.SetWhole "+cluster, func(changed func()) error {
		n := w.nodes[nodeName{name, cluster}]
		if n == nil {
			return errors.New("no such container")
		}
		n.whole = true
		changed()
		return nil
	})
}

type sidecars struct{ *world }

func (w sidecars) Run(ctx context.Context, name, program string, _ map[string]string, control int) (made lab.Sidecar, err error) {
	err = w.do(ctx, "Sidecars.Run "+program, func(changed func()) error {
		subnet, there := w.networks[name]
		if !there {
			return fmt.Errorf("there is no network of %s", name)
		}
		made = lab.Sidecar{Address: subnet.Addr().Next(), Control: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(control))}
		w.sidecars[nodeName{name, program}] = true
		changed()
		return nil
	})
	return made, err
}

func (w sidecars) List(ctx context.Context, name string) (programs []string, err error) {
	err = w.do(ctx, "Sidecars.List", func(func()) error {
		for n := range w.sidecars {
			if n.lab == name {
				programs = append(programs, n.cluster)
			}
		}
		slices.Sort(programs)
		return nil
	})
	return programs, err
}

func (w sidecars) Remove(ctx context.Context, name, program string) error {
	return w.do(ctx, "Sidecars.Remove "+program, func(changed func()) error {
		delete(w.sidecars, nodeName{name, program})
		changed()
		return nil
	})
}

type kubeconfigs struct{ *world }

func (w kubeconfigs) Kubeconfig(name, cluster string) (config []byte, err error) {
	err = w.do(context.Background(), "Kubeconfigs.Kubeconfig "+cluster, func(func()) error {
		n := w.nodes[nodeName{name, cluster}]
		switch {
		case n == nil || !n.running:
			return errors.New("no such container runs")
		case n.state == noKubeconfig:
			return &lab.NoKubeconfigError{Cluster: cluster}
		}
		config = []byte(nodeName{name, cluster}.String())
		return nil
	})
	return config, err
}

func (w kubeconfigs) Export(ctx context.Context, name string, clusters []string, path string) (wrote bool, err error) {
	err = w.do(ctx, "Kubeconfigs.Export", func(changed func()) error {
		if w.noFiles != nil {
			return &lab.KubeconfigFileError{Err: w.noFiles}
		}
		for _, c := range clusters {
			if key := w.Context(name, c); !w.contexts[key+path] {
				w.contexts[key+path], wrote = true, true
			}
		}
		if wrote {
			changed()
		}
		return nil
	})
	return wrote, err
}

func (w kubeconfigs) Remove(ctx context.Context, name string, keep []string, path string) (removed bool, err error) {
	err = w.do(ctx, "Kubeconfigs.Remove", func(changed func()) error {
		if w.noFiles != nil {
			return &lab.KubeconfigFileError{Err: w.noFiles}
		}
		for key := range w.contexts {
			if cluster, of := strings.CutPrefix(key, w.Context(name, "")); of && !slices.Contains(keep, cluster) {
				delete(w.contexts, key+path)
				removed = true
			}
		}
		if removed {
			changed()
		}
		return nil
	})
	return removed, err
}

func (kubeconfigs) Context(name, cluster string) string { return "kind-" + name + "-" + cluster }

type images struct{ *world }

func (w images) Ensure(ctx context.Context, node bool, optional []string) (set lab.ImageSet, err error) {
	call := "Images.Ensure"
	if node {
		call += " node"
	}
	if len(optional) > 0 {
		call += " " + strings.Join(optional, " ")
	}
	err = w.do(ctx, call, func(changed func()) error {
		if !w.built.parts || node && !w.built.node {
			changed()
		}
		w.built.parts, w.built.node = true, w.built.node || node
		set = lab.ImageSet{
			DefaultCNI:   w.pulled,
			MetalLBChart: metallbChart,
			CRDs:         []any{crd("ClusterFederatedTrustDomain"), crd("ClusterSPIFFEID"), crd("ClusterStaticEntry")},
			Demos:        map[string]string{},
			SPIREServer:  "spire-server:1", SPIREAgent: "spire-agent:1", SPIREControllerManager: "spire-controller-manager:1",
			MetalLBController: "metallb-controller:1", MetalLBSpeaker: "metallb-speaker:1",
		}
		for _, name := range slices.Concat(programs(), optional) {
			set.Demos[name] = w.demoImage(name)
		}
		set.Demos[topology.Pebble] = w.demoImage(topology.Pebble)
		set.Demos[topology.HAProxy] = w.demoImage(topology.HAProxy)
		set.Demos[topology.OIDCProvider] = w.demoImage(topology.OIDCProvider) // and in no node
		if node {
			set.Node = "node:1"
		}
		return nil
	})
	return set, err
}

const metallbChart = "/cache/metallb"

// programs are those of fedlab that run in clusters.
func programs() []string {
	names := []string{"serving-cert", "postgres"}
	for _, app := range demo.Apps() {
		names = append(names, app.Name)
	}
	return names
}

func (w *world) demoImage(program string) string {
	return fmt.Sprintf("%s:%d", program, w.edits[program])
}

func crd(kind string) any {
	return map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": kind},
	}
}

func (w images) Own(context.Context, topology.OwnImage) (string, error) {
	return "", errors.New("no lab of these tests has a program of its own")
}

func (w images) LoadOwn(context.Context, string, string, string) (bool, error) {
	return false, errors.New("no lab of these tests has a program of its own")
}

func (w images) LoadDemo(ctx context.Context, name, cluster, app string) (loaded bool, err error) {
	err = w.do(ctx, "Images.LoadDemo "+app, func(changed func()) error {
		n := w.nodes[nodeName{name, cluster}]
		if n == nil || !n.running {
			return errors.New("no such container")
		}
		image := w.demoImage(app)
		if loaded = !n.images[image]; loaded {
			n.images[image] = true
			changed()
		}
		return nil
	})
	return loaded, err
}

// No lab of these tests has images of its own programs.
