package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/metallb"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Bounds of the waits of a bring-up. They are not about SPIRE's arithmetic, for
// which see package federation, but about machines: ten times what a machine
// with two cores needs when it does nothing else.
const (
	apiBound     = 3 * time.Minute
	rolloutBound = 4 * time.Minute
	callBound    = 3 * time.Minute
	// answerBound is how long an API that runs may take to answer before its
	// cluster counts as half-made. A wrong guess costs the cluster.
	answerBound = time.Minute
)

// Plan returns the steps that bring t to life, in an order that respects what
// depends on what. They may be printed; Up runs them.
func (d *Driver) Plan(t topology.Topology) (*plan.Plan, error) {
	p, _, err := d.plan(t)
	return p, err
}

// Up brings t to life. Running Up again on a lab that is already up is a no-op:
// every step looks before it acts. The error is a *HeldError when another
// process is changing the lab, and a *MismatchError when clusters run that
// cannot become what t asks for.
func (d *Driver) Up(ctx context.Context, t topology.Topology) (err error) {
	held, err := d.Hold(ctx, t.Name, "up")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Release()) }()
	return held.Up(ctx, t)
}

// up is a bring-up under way. Steps write what later ones need; the plan's
// order keeps them apart, the mutex guards the maps.
type up struct {
	*Driver
	// topology is what the file asks for; the survey puts it in its place.
	topology  topology.Topology
	nodes     []Node // as they were before anything was changed
	addresses topology.Addresses
	images    ImageSet

	mu       sync.Mutex
	clusters map[string]Access
	servers  map[spiffeid.TrustDomain]*spire.Server
	// webRoots are the roots, in PEM, of https_web endpoints.
	webRoots map[spiffeid.TrustDomain]string

	// renewed are the clusters whose agents were started again.
	renewed sync.Map
}

func (u *up) close() error {
	var errs []error
	for _, s := range u.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func (u *up) access(cluster string) Access {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.clusters[cluster]
}

func (u *up) server(td spiffeid.TrustDomain) *spire.Server {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.servers[td]
}

// Names of steps.
func surveyStep(t topology.Topology) plan.ID     { return plan.ID("survey/" + t.Name) }
func networkStep(lab string) plan.ID             { return plan.ID("network/" + lab) }
func surplusStep(t topology.Topology) plan.ID    { return plan.ID("surplus/" + t.Name) }
func imagesStep(t topology.Topology) plan.ID     { return plan.ID("images/" + t.Name) }
func clusterStep(c string) plan.ID               { return plan.ID("cluster/" + c) }
func sidecarStep(program string) plan.ID         { return plan.ID("sidecar/" + program) }
func metallbStep(c string) plan.ID               { return plan.ID("metallb/" + c) }
func serverStep(td topology.TrustDomain) plan.ID { return plan.ID("server/" + td.Name.Name()) }
func authoritiesStep(td topology.TrustDomain) plan.ID {
	return plan.ID("authorities/" + td.Name.Name())
}
func datastoreStep(td topology.TrustDomain) plan.ID { return plan.ID("datastore/" + td.Name.Name()) }
func tidyStep(td topology.TrustDomain) plan.ID      { return plan.ID("tidy/" + td.Name.Name()) }
func agentsStep(td topology.TrustDomain) plan.ID    { return plan.ID("agents/" + td.Name.Name()) }
func federateStep(r topology.Relationship) plan.ID  { return plan.ID("federate/" + r.ID()) }
func registerStep(w topology.Workload) plan.ID      { return plan.ID("register/" + w.Name) }
func deployStep(w topology.Workload) plan.ID        { return plan.ID("deploy/" + w.Name) }
func databaseStep(w topology.Workload) plan.ID      { return plan.ID("database/" + w.Name) }
func verifyStep(from, to topology.Workload) plan.ID {
	return plan.ID("verify/" + from.Name + "->" + to.Name)
}
func pageStep(w topology.Workload) plan.ID     { return plan.ID("page/" + w.Name) }
func runsStep(w topology.Workload) plan.ID     { return plan.ID("runs/" + w.Name) }
func presentsStep(w topology.Workload) plan.ID { return plan.ID("presents/" + w.Name) }
func kubeconfigStep(lab string) plan.ID        { return plan.ID("kubeconfig/" + lab) }

func (d *Driver) plan(t topology.Topology) (*plan.Plan, *up, error) {
	u := &up{
		Driver: d, topology: t, clusters: map[string]Access{},
		servers: map[spiffeid.TrustDomain]*spire.Server{}, webRoots: map[spiffeid.TrustDomain]string{},
	}
	p := &plan.Plan{}
	var errs []error
	step := func(name plan.ID, title string, do func(context.Context) error, after ...plan.ID) {
		errs = append(errs, p.Add(plan.Step{Name: name, Title: title, After: after, Do: do}))
	}

	step(surveyStep(t), "what is there already fits the lab file", u.survey)
	step(surplusStep(t), "clusters that the lab file no longer has", u.surplus, surveyStep(t))
	step(networkStep(t.Name), "container network of the lab", u.network, surplusStep(t))
	step(imagesStep(t), "images and charts", u.ensureImages, surveyStep(t))
	var clusters []plan.ID
	for _, c := range t.Clusters {
		step(clusterStep(c.Name), "cluster "+c.Name, func(ctx context.Context) error { return u.cluster(ctx, c.Name) },
			networkStep(t.Name), imagesStep(t))
		clusters = append(clusters, clusterStep(c.Name))
	}
	for _, c := range t.Clusters {
		step(metallbStep(c.Name), "MetalLB in "+c.Name, func(ctx context.Context) error { return u.metallb(ctx, c) }, clusterStep(c.Name))
	}
	for _, td := range t.TrustDomains {
		if needsAuthorities(td) {
			step(authoritiesStep(td), "private authorities of "+td.Name.Name(),
				func(ctx context.Context) error { return u.authorities(ctx, td) }, clusterStep(td.Cluster))
		}
	}
	for _, td := range t.TrustDomains {
		after := []plan.ID{clusterStep(td.Cluster)}
		if needsAuthorities(td) {
			after = append(after, authoritiesStep(td))
		}
		if td.Datastore == topology.Postgres {
			step(datastoreStep(td), "PostgreSQL of the SPIRE server of "+td.Name.Name(),
				func(ctx context.Context) error { return u.datastore(ctx, td) }, clusterStep(td.Cluster))
			after = append(after, datastoreStep(td))
		}
		for _, r := range t.RelationshipsOf(td.Name) {
			trusted, err := t.TrustDomain(r.Trusted)
			errs = append(errs, err)
			if r.Profile == topology.HTTPSWeb && r.Mode != topology.Manual {
				after = append(after, authoritiesStep(trusted))
			}
		}
		step(serverStep(td), fmt.Sprintf("SPIRE server of %s in %s", td.Name.Name(), td.Cluster),
			func(ctx context.Context) error { return u.spireServer(ctx, td) }, after...)
		step(agentsStep(td), fmt.Sprintf("SPIRE agent of %s in %s", td.Name.Name(), td.Cluster),
			func(ctx context.Context) error { return u.spireAgents(ctx, td) }, serverStep(td))
	}
	for _, r := range t.Relationships {
		truster, err := t.TrustDomain(r.Truster)
		errs = append(errs, err)
		trusted, err := t.TrustDomain(r.Trusted)
		errs = append(errs, err)
		step(federateStep(r), fmt.Sprintf("%s trusts %s (%s)", r.Truster.Name(), r.Trusted.Name(), r.Manner()),
			func(ctx context.Context) error { return u.federate(ctx, r) },
			serverStep(truster), serverStep(trusted), metallbStep(trusted.Cluster))
	}
	for _, w := range t.Workloads {
		td, err := t.TrustDomainOf(w.Cluster)
		errs = append(errs, err)
		// An entry that names a trust domain whose bundle is not there yet is
		// refused, and tried again only seconds later (facts: spire#7146).
		after := []plan.ID{serverStep(td)}
		for _, r := range t.Relationships {
			if r.Truster == td.Name {
				after = append(after, federateStep(r))
			}
		}
		step(registerStep(w), "identity of "+w.Name, func(ctx context.Context) error { return u.register(ctx, w) }, after...)
		// A program has no identity before there is a server. Its image, loaded
		// earlier, would hold up what all others wait for. That of its database is
		// in the node, and a database takes as long to come up as a server.
		after = []plan.ID{serverStep(td)}
		if w.App.Database != "" {
			step(databaseStep(w), "PostgreSQL of "+w.Name, func(ctx context.Context) error {
				return u.database(ctx, w.Cluster, w.App.Namespace, w.App.Database, databaseName, databaseName)
			}, clusterStep(w.Cluster))
			after = append(after, databaseStep(w))
		}
		step(deployStep(w), fmt.Sprintf("%s in %s", w.Name, w.Cluster), func(ctx context.Context) error { return u.deploy(ctx, w.Name) },
			after...)
	}
	for _, td := range t.TrustDomains {
		after := []plan.ID{serverStep(td)}
		for _, w := range t.Workloads {
			if w.Cluster == td.Cluster {
				after = append(after, registerStep(w))
			}
		}
		step(tidyStep(td), "what the lab file no longer has in "+td.Cluster, func(ctx context.Context) error { return u.tidy(ctx, td) }, after...)
	}
	for _, w := range t.Workloads {
		// A program that has no identity yet is not ready: why not, the steps tell
		// that come before its registration.
		step(runsStep(w), w.Name+" runs", func(ctx context.Context) error { return u.runs(ctx, w) }, deployStep(w), registerStep(w))
		step(presentsStep(w), w.Name+" presents its X509-SVID", func(ctx context.Context) error { return u.presents(ctx, w) },
			runsStep(w), metallbStep(w.Cluster))
		if w.URL() != "" {
			step(pageStep(w), "page at "+w.URL(), func(ctx context.Context) error { return u.page(ctx, w) }, runsStep(w))
		}
	}
	tellers := map[string]*teller{}
	for _, from := range t.Workloads {
		by, told := witness(t, from)
		if !told {
			continue
		}
		if tellers[by.Name] == nil {
			tellers[by.Name] = &teller{Workload: by}
		}
		for _, name := range from.Calls {
			to, err := t.Workload(name)
			errs = append(errs, err)
			step(verifyStep(from, to), fmt.Sprintf("%s calls %s", from.Name, to.Name),
				func(ctx context.Context) error { return u.verify(ctx, from, to, tellers[by.Name]) },
				runsStep(from), runsStep(to), runsStep(by), metallbStep(to.Cluster))
		}
	}
	step(kubeconfigStep(t.Name), "contexts in the kubeconfig file", u.exportKubeconfig, clusters...)
	return p, u, errors.Join(errs...)
}

func (u *up) network(ctx context.Context) error {
	subnet, made, err := u.Parts.Networks.Ensure(ctx, u.topology.Name)
	if err != nil {
		return err
	}
	if made {
		plan.Did(ctx)
	}
	u.addresses, err = u.topology.Addresses(subnet)
	return err
}

// ensureImages asks for the node image only where a cluster has to be made: a
// lab that runs takes a changed demo program without it.
func (u *up) ensureImages(ctx context.Context) (err error) {
	missing := slices.ContainsFunc(u.topology.Clusters, func(c topology.Cluster) bool {
		_, there := node(u.nodes, c.Name)
		return !there
	})
	u.images, err = u.Parts.Images.Ensure(ctx, missing)
	return err
}

func (u *up) metallb(ctx context.Context, c topology.Cluster) error {
	first, last, err := u.addresses.Pool(c.Name)
	if err != nil {
		return err
	}
	access := u.access(c.Name)
	if err := memberSecret(ctx, access.Objects); err != nil {
		return err
	}
	changed, err := access.Releases.Apply(ctx, Release{
		Name: metallbRelease, Namespace: metallb.Namespace, Chart: u.images.MetalLBChart,
		Values: metallb.Values(u.images.MetalLBController, u.images.MetalLBSpeaker),
	})
	if err != nil {
		return err
	}
	if changed {
		plan.Did(ctx)
	}
	return wait(ctx, apiBound, check.Check{Name: "MetalLB takes its address pool", Probe: func(ctx context.Context) error {
		applied, err := access.Objects.Apply(ctx, metallb.Objects(first, last)...)
		if applied {
			plan.Did(ctx)
		}
		return err
	}})
}

// memberSecret makes the secret of MetalLB's speakers where there is none, or an empty
// one.
func memberSecret(ctx context.Context, objects Objects) error {
	var is struct {
		Data map[string][]byte `json:"data"`
	}
	key := ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: metallb.Namespace, Name: metallb.SecretName}
	if _, err := objects.Object(ctx, key, &is); err != nil || len(is.Data[metallb.SecretKey]) > 0 {
		return err
	}
	plan.Did(ctx)
	_, err := objects.Apply(ctx, namespace(metallb.Namespace), metallb.MemberSecret())
	return err
}

func namespace(name string) any {
	return map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}
}

// KubeconfigFileError says that a kubeconfig file of the person cannot be read or
// written. A lab needs no such file.
type KubeconfigFileError struct{ Err error }

func (e *KubeconfigFileError) Error() string { return e.Err.Error() }
func (e *KubeconfigFileError) Unwrap() error { return e.Err }

// exportKubeconfig writes the contexts of the clusters, and takes out those of
// clusters that are gone, now or in an earlier up that was killed.
func (u *up) exportKubeconfig(ctx context.Context) error {
	names, contexts := make([]string, len(u.topology.Clusters)), make([]string, len(u.topology.Clusters))
	for i, c := range u.topology.Clusters {
		names[i], contexts[i] = c.Name, u.Parts.Kubeconfigs.Context(u.topology.Name, c.Name)
	}
	removed, err := u.Parts.Kubeconfigs.Remove(ctx, u.topology.Name, names, "")
	changed := false
	if err == nil {
		changed, err = u.Parts.Kubeconfigs.Export(ctx, u.topology.Name, names, "")
	}
	if removed || changed {
		plan.Did(ctx)
	}
	return without(ctx, "goes on without the contexts "+strings.Join(contexts, ", "), err)
}

// without goes on where only a kubeconfig file is in the way, and says what is
// missing for it.
func without(ctx context.Context, what string, err error) error {
	if file := (*KubeconfigFileError)(nil); errors.As(err, &file) && ctx.Err() == nil {
		plan.Note(ctx, fmt.Sprintf("%s: %v", what, file))
		return nil
	}
	return err
}
