package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/kube"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Bounds of what depends on the machine only: several times what two cores need
// that do nothing else. Bounds from SPIRE's arithmetic come from package
// federation, and get machine on top.
const (
	machine = time.Minute
	rollout = 3 * time.Minute
	poll    = 250 * time.Millisecond
)

// subject is the lab that the specs look at.
type subject struct {
	command
	// file is what --lab names.
	file string
	// graph is what the file asks for, in no network.
	graph  *topology.Graph
	driver *local.Driver
	// own is true for a lab that the suite has made and takes down, resting while its nodes
	// are frozen.
	own, resting bool
	// kills are the bring-ups that were killed, and up the one that was not.
	kills []killed
	up    []event
	// restarted counts restarts that are explained.
	restarted map[string]int
	// volumes are those that the lab's containers were seen with.
	volumes []string
}

// existing opens a lab by what --lab names.
func existing(c command, name string) (*subject, error) {
	f, err := config.For(demo.Apps()).Open(name)
	if err != nil {
		return nil, err
	}
	g, err := topology.Resolve(f.Topology, netip.Prefix{})
	if err != nil {
		return nil, err
	}
	driver, err := local.New(local.Options{})
	if err != nil {
		return nil, err
	}
	return &subject{command: c, file: name, graph: g, driver: driver}, nil
}

// raisedNow are the labs of containers that have not ended: each gathers evidence when a
// spec fails.
var raisedNow []*subject

// raised brings up the lab of a file, and takes it down when the container ends.
func raised(ctx context.Context, file, what string) *subject {
	GinkgoHelper()
	under.rests(ctx)
	s, err := existing(under.command, file)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(s.close)
	Expect(s.fedlab(ctx, "down")).To(endWell(), "what an earlier run of the suite left")
	raisedNow = append(raisedNow, s)
	DeferCleanup(func(ctx SpecContext) {
		raisedNow = slices.DeleteFunc(raisedNow, func(other *subject) bool { return other == s })
		Expect(s.fedlab(ctx, "down")).To(endWell())
	}, NodeTimeout(3*time.Minute))
	began := time.Now()
	Expect(s.fedlab(ctx, "up")).To(endWell())
	measured(what+" up in", began)
	return s
}

// rests freezes the nodes of the suite's own lab until the container ends: two cores are few
// for another lab besides. Whoever has brought a lab along keeps it as it is.
func (s *subject) rests(ctx context.Context) {
	GinkgoHelper()
	if !s.own || s.resting {
		return
	}
	nodes, err := docker(ctx, "ps", "--quiet", "--filter", "network=fedlab-"+s.graph.Name)
	Expect(err).NotTo(HaveOccurred())
	Expect(nodes).NotTo(BeEmpty())
	_, err = docker(ctx, append([]string{"pause"}, nodes...)...)
	Expect(err).NotTo(HaveOccurred())
	s.resting = true
	DeferCleanup(func(ctx SpecContext) {
		_, err := docker(ctx, append([]string{"unpause"}, nodes...)...)
		Expect(err).NotTo(HaveOccurred())
		s.resting = false
		Eventually(s.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed(), "after its rest")
		// Who leads, and could not say so meanwhile, starts again.
		for _, c := range s.graph.Clusters {
			Expect(s.explain(ctx, c.Name)).To(Succeed())
		}
	}, NodeTimeout(5*time.Minute))
}

func (s *subject) close() error { return s.driver.Close() }

// fedlab runs a command on the lab.
func (s *subject) fedlab(ctx context.Context, args ...string) ended {
	GinkgoHelper()
	e, err := s.run(ctx, append(args, "--lab", s.file)...)
	Expect(err).NotTo(HaveOccurred())
	return e
}

// raisedAlone is raised for a lab that goes again: it returns what of labs was there before,
// for cleared.
func raisedAlone(ctx context.Context, file, what string) (lab *subject, before traces) {
	GinkgoHelper()
	at, err := existing(under.command, file)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(at.close)
	before, err = tracesNow(ctx, at)
	Expect(err).NotTo(HaveOccurred())
	return raised(ctx, file, what), before
}

// unchanged has another up find nothing to change.
func (s *subject) unchanged(ctx context.Context) (again ended) {
	GinkgoHelper()
	again = s.fedlab(ctx, "up", "-o", "json")
	Expect(again).To(endWell())
	_, changed, err := again.events()
	Expect(err).NotTo(HaveOccurred())
	Expect(changed).To(BeFalse(), "a second up changes nothing")
	return again
}

// status is what 'fedlab status' says and how it ends.
func (s *subject) status(ctx context.Context) (found lab.Status, code int, err error) {
	e, err := s.run(ctx, "status", "--lab", s.file, "-o", "json")
	if err != nil {
		return found, e.Code, err
	}
	if err := json.Unmarshal([]byte(e.Stdout), &found); err != nil {
		return found, e.Code, fmt.Errorf("read status: %w; stderr: %s", err, e.Stderr)
	}
	return found, e.Code, nil
}

// well returns nil when 'fedlab status' ends with 0; the error says what is not.
func (s *subject) well(ctx context.Context) error {
	found, code, err := s.status(ctx)
	if err != nil || code == 0 {
		return err
	}
	return fmt.Errorf("exit code %d: %s", code, strings.Join(found.Problems(), "; "))
}

// restored makes the lab well again when the spec ends, by undo and nothing
// else, and proves that it is.
func (s *subject) restored(within time.Duration, undo func(ctx context.Context) error) {
	DeferCleanup(func(ctx SpecContext) {
		Expect(undo(ctx)).To(Succeed())
		Eventually(s.well).WithContext(ctx).WithTimeout(within).WithPolling(time.Second).Should(Succeed())
	}, NodeTimeout(within+machine))
}

// withoutServer stops the called workload of the pair until the spec ends.
func (s *subject) withoutServer(ctx context.Context) (*topology.Workload, *kube.Cluster) {
	GinkgoHelper()
	w := s.pair().server
	cluster, err := s.cluster(w.Cluster().Name)
	Expect(err).NotTo(HaveOccurred())
	scale := func(ctx context.Context, replicas int32) error {
		return cluster.Scale(ctx, "Deployment", w.Namespace, w.App.Deployment, replicas)
	}
	s.restored(rollout, func(ctx context.Context) error { return scale(ctx, 1) })
	Expect(scale(ctx, 0)).To(Succeed())
	return w, cluster
}

// cluster connects to a cluster of the lab.
func (s *subject) cluster(name string) (*kube.Cluster, error) {
	kubeconfig, err := s.driver.Parts.Kubeconfigs.Kubeconfig(s.graph.Name, name)
	if err != nil {
		return nil, err
	}
	return kube.New(kubeconfig)
}

// open returns a handle on the lab that the spec's end closes.
func (s *subject) open(ctx context.Context) *lab.Lab {
	GinkgoHelper()
	l, err := s.driver.Open(ctx, s.graph.Intent())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(l.Close)
	return l
}

// running returns a trust domain as it is in the lab that runs, with its addresses.
func (s *subject) running(ctx context.Context, name spiffeid.TrustDomain) *topology.Domain {
	GinkgoHelper()
	of, err := s.open(ctx).Graph.FindDomain(name.Name())
	Expect(err).NotTo(HaveOccurred())
	return of
}

// site returns a connection to the server of a trust domain that the spec's end
// closes.
func (s *subject) site(ctx context.Context, name spiffeid.TrustDomain) *lab.Site {
	GinkgoHelper()
	l := s.open(ctx)
	of, err := l.Graph.FindDomain(name.Name())
	Expect(err).NotTo(HaveOccurred())
	site, err := l.Site(ctx, of.Server())
	Expect(err).NotTo(HaveOccurred())
	return site
}

// dial returns what connects this process to a port of a workload: to its pod, by the
// Kubernetes API, since the lab's network may not be reached from here.
func (s *subject) dial(w *topology.Workload, port int) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		kubeconfig, err := s.driver.Parts.Kubeconfigs.Kubeconfig(s.graph.Name, w.Cluster().Name)
		if err != nil {
			return nil, err
		}
		in, err := s.driver.Parts.Connect(kubeconfig)
		if err != nil {
			return nil, err
		}
		pods, err := in.Pods.Named(ctx, w.Namespace, w.PodSelector())
		if err != nil {
			return nil, err
		}
		if len(pods) == 0 {
			return nil, fmt.Errorf("%s has no ready pod", w.Name)
		}
		return in.Pods.Dial(ctx, w.Namespace, pods[0], port)
	}
}

// handshake makes the TLS handshake of a client over a connection.
func handshake(ctx context.Context, dial func(context.Context) (net.Conn, error), config *tls.Config) (net.Conn, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // nothing was sent
		return nil, err
	}
	return secured, nil
}

// serverIn returns the API of a trust domain's server in a lab that is open.
func serverIn(ctx context.Context, l *lab.Lab, of *topology.Domain) (*spire.Server, error) {
	there, err := l.Graph.FindDomain(of.String())
	if err != nil {
		return nil, err
	}
	site, err := l.Site(ctx, there.Server())
	if err != nil {
		return nil, err
	}
	return site.API, nil
}

// pair is a workload with a page and the one that it calls.
type pair struct{ broker, server *topology.Workload }

// pair returns the lab's broker and its quotes server; the spec is skipped in a
// lab that has none.
func (s *subject) pair() pair {
	GinkgoHelper()
	for _, w := range s.graph.Workloads {
		if w.App.Name != "broker-webapp" || w.URL() == "" || len(w.Calls) == 0 {
			continue
		}
		return pair{broker: w, server: w.Calls[0]}
	}
	Skip("lab " + s.graph.Name + " has no broker whose page is exposed")
	return pair{}
}

// view is what the broker's /api/quotes says.
type view struct {
	Quotes []struct {
		Symbol, Company string
		PriceCents      int64
	}
	Peer *struct {
		ID         string
		VerifiedBy struct{ TrustDomain, SubjectKeyID string }
	}
	Self *struct {
		ID      string
		Bundles []string
	}
	Error *struct{ Class, What, Detail string }
}

func (v view) prices() []int64 {
	var all []int64
	for _, q := range v.Quotes {
		all = append(all, q.PriceCents)
	}
	return all
}

// ask asks a broker for quotes, through its exposed port as a browser would.
func ask(ctx context.Context, broker *topology.Workload) (v view, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second) // the broker's own call ends before
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+broker.Expose.String()+"/api/quotes", nil)
	if err != nil {
		return v, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return v, fmt.Errorf("%s answers %s", request.URL, response.Status)
	}
	return v, json.NewDecoder(response.Body).Decode(&v)
}

// flowing returns nil when a broker gets quotes.
func flowing(broker *topology.Workload) func(context.Context) error {
	return func(ctx context.Context) error {
		v, err := ask(ctx, broker)
		switch {
		case err != nil:
			return err
		case v.Error != nil:
			return fmt.Errorf("%s: %s: %s", v.Error.Class, v.Error.What, v.Error.Detail)
		case v.Peer == nil:
			return errors.New("nobody answered yet")
		}
		return nil
	}
}

// holds returns nil when a broker has received the bundle of a trust domain.
func holds(broker *topology.Workload, trustDomain string) func(context.Context) error {
	return func(ctx context.Context) error {
		v, err := ask(ctx, broker)
		if err == nil && (v.Self == nil || !slices.Contains(v.Self.Bundles, trustDomain)) {
			err = fmt.Errorf("it has no bundle of %s", trustDomain)
		}
		return err
	}
}

// refused returns nil when a broker gets no quotes for a reason of this class.
func refused(broker *topology.Workload, class string) func(context.Context) error {
	return func(ctx context.Context) error {
		v, err := ask(ctx, broker)
		switch {
		case err != nil:
			return err
		case v.Error == nil:
			return errors.New("it gets quotes")
		case v.Error.Class != class:
			return fmt.Errorf("it gets none for another reason: %s: %s: %s", v.Error.Class, v.Error.What, v.Error.Detail)
		}
		return nil
	}
}

// podsOf returns the UIDs of a workload's pods, except those that are on their
// way out.
func (s *subject) podsOf(ctx context.Context, w *topology.Workload) ([]string, error) {
	cluster, err := s.cluster(w.Cluster().Name)
	if err != nil {
		return nil, err
	}
	pods, err := cluster.Objects(ctx, "v1", "Pod", w.Namespace, "")
	if err != nil {
		return nil, err
	}
	var uids []string
	for _, p := range pods {
		meta, err := metadataOf(p)
		if err != nil {
			return nil, err
		}
		if meta.Labels["app.kubernetes.io/name"] == w.App.Name && meta.DeletionTimestamp == "" {
			uids = append(uids, meta.UID)
		}
	}
	slices.Sort(uids)
	return uids, nil
}

// metadata is what specs read of an object's.
type metadata struct {
	Namespace  string            `json:"namespace"`
	Name       string            `json:"name"`
	UID        string            `json:"uid"`
	Generation int64             `json:"generation"`
	Labels     map[string]string `json:"labels"`
	// DeletionTimestamp is that of an object that is on its way out.
	DeletionTimestamp string `json:"deletionTimestamp"`
}

func metadataOf(object map[string]any) (metadata, error) {
	var o struct {
		Metadata metadata `json:"metadata"`
	}
	err := convert(object, &o)
	return o.Metadata, err
}

// convert reads one JSON shape as another.
func convert(from, to any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// gather writes evidence of what is wrong with the lab just now.
func (s *subject) gather(ctx context.Context, about string) {
	dir := s.evidenceOf(about)
	err := os.RemoveAll(dir)
	if err == nil {
		_, err = s.run(ctx, "evidence", "--lab", s.file, dir)
	}
	// The spec has failed already; that there is no evidence is not what it
	// failed of.
	AddReportEntry("evidence", fmt.Sprintf("%s (%v)", dir, err), ReportEntryVisibilityFailureOrVerbose)
}

// evidenceOf returns the folder for evidence of this lab: several labs are up at
// once, and each gathers when a spec fails.
func (s *subject) evidenceOf(about string) string {
	GinkgoHelper()
	return filepath.Join(evidenceFolder(), s.graph.Name, regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(about, "-"))
}

// evidenceFolder returns where evidence and screenshots go.
func evidenceFolder() string {
	GinkgoHelper()
	dir := os.Getenv("FEDLAB_EVIDENCE")
	if dir == "" {
		dir = filepath.Join(root, "evidence")
	}
	dir, err := filepath.Abs(dir)
	Expect(err).NotTo(HaveOccurred())
	return dir
}

// measured puts how long something took into the report.
func measured(what string, since time.Time) {
	AddReportEntry(what, time.Since(since).Round(10*time.Millisecond).String(), ReportEntryVisibilityAlways)
}
