package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Plan returns the steps that bring t to life, in an order that respects what
// depends on what. They may be printed; Up runs them.
func (d *Driver) Plan(t topology.Topology) (*plan.Plan, error) {
	s, err := d.newSurvey(t)
	if err != nil {
		return nil, err
	}
	all, err := s.contents()
	if err != nil {
		return nil, err
	}
	rest, err := newUp(d, s.asked, false).contents()
	if err != nil {
		return nil, err
	}
	return all, all.Then(rest)
}

// contents are the steps that come after the survey.
func (u *up) contents() (*plan.Plan, error) {
	c := &contents{}
	c.step(imagesStep(u.Name), "images and charts", u.ensureImages)
	u.lookAtOwn(c)
	u.makePlaces(c)
	u.installACMEServer(c)
	for _, s := range u.Servers() {
		u.makeAuthorities(c, s)
	}
	for _, m := range u.remote() {
		u.admitServer(c, m)
	}
	for _, s := range u.Servers() {
		u.installSPIRE(c, s)
	}
	for _, p := range u.Proxies() {
		u.installProxy(c, p)
	}
	for _, r := range u.Relationships() {
		u.makeTrust(c, r)
	}
	for _, w := range lendersFirst(u.Workloads) {
		u.registerAndDeploy(c, w)
	}
	u.declareOthers(c)
	for _, s := range u.Servers() {
		u.tidyUp(c, s)
	}
	for _, w := range u.Workloads {
		u.lookAt(c, w)
	}
	for _, w := range u.owned() {
		u.lookAtCheck(c, w)
	}
	u.lookAtCalls(c)
	u.exportContexts(c)
	return c.done()
}

// contents is a plan that is being written.
type contents struct {
	plan plan.Plan
	errs []error
}

func (c *contents) step(name plan.ID, title string, do func(context.Context) error, after ...plan.ID) {
	c.errs = append(c.errs, c.plan.Add(plan.Step{Name: name, Title: title, After: after, Do: do}))
}

func (c *contents) done() (*plan.Plan, error) { return &c.plan, errors.Join(c.errs...) }

// Names of steps.
func surveyStep(lab string) plan.ID                { return plan.ID("survey/" + lab) }
func networkStep(lab string) plan.ID               { return plan.ID("network/" + lab) }
func surplusStep(lab string) plan.ID               { return plan.ID("surplus/" + lab) }
func imagesStep(lab string) plan.ID                { return plan.ID("images/" + lab) }
func programsStep(lab string) plan.ID              { return plan.ID("programs/" + lab) }
func certificatesStep(lab string) plan.ID          { return plan.ID("certificates/" + lab) }
func clusterStep(name string) plan.ID              { return plan.ID("cluster/" + name) }
func hostStep(name string) plan.ID                 { return plan.ID("host/" + name) }
func sidecarStep(program string) plan.ID           { return plan.ID("sidecar/" + program) }
func metallbStep(c *topology.Cluster) plan.ID      { return plan.ID("metallb/" + c.Name) }
func serverStep(s *topology.Server) plan.ID        { return plan.ID("server/" + s.String()) }
func authoritiesStep(s *topology.Server) plan.ID   { return plan.ID("authorities/" + s.String()) }
func acmeStep(a *topology.ACMEServer) plan.ID      { return plan.ID("acme/" + a.Cluster.Name) }
func proxyStep(p *topology.Proxy) plan.ID          { return plan.ID("proxy/" + p.Domain.String()) }
func datastoreStep(s *topology.Server) plan.ID     { return plan.ID("datastore/" + s.String()) }
func discoveryStep(d *topology.Discovery) plan.ID  { return plan.ID("oidc/" + d.Domain.String()) }
func issuerStep(d *topology.Discovery) plan.ID     { return plan.ID("issuer/" + d.Domain.String()) }
func tidyStep(s *topology.Server) plan.ID          { return plan.ID("tidy/" + s.String()) }
func kubeconfigsStep(s *topology.Server) plan.ID   { return plan.ID("kubeconfigs/" + s.String()) }
func agentsStep(m *topology.Member) plan.ID        { return plan.ID("agents/" + memberName(m)) }
func memberStep(m *topology.Member) plan.ID        { return plan.ID("member/" + memberName(m)) }
func nestedStep(s *topology.Server) plan.ID        { return plan.ID("nested/" + s.String()) }
func federateStep(r topology.Relationship) plan.ID { return plan.ID("federate/" + r.ID()) }
func registerStep(w *topology.Workload) plan.ID    { return plan.ID("register/" + w.Name) }
func declareStep(r *topology.Registration) plan.ID { return plan.ID("registration/" + r.Name) }
func deployStep(w *topology.Workload) plan.ID      { return plan.ID("deploy/" + w.Name) }
func databaseStep(w *topology.Workload) plan.ID    { return plan.ID("database/" + w.Name) }
func lendStep(w *topology.Workload) plan.ID        { return plan.ID("lend/" + w.Name) }
func registerDatabaseStep(w *topology.Workload) plan.ID {
	return plan.ID("register-database/" + w.Name)
}
func verifyStep(from, to *topology.Workload) plan.ID {
	return plan.ID("verify/" + from.Name + "->" + to.Name)
}
func pageStep(w *topology.Workload) plan.ID     { return plan.ID("page/" + w.Name) }
func runsStep(w *topology.Workload) plan.ID     { return plan.ID("runs/" + w.Name) }
func checkStep(w *topology.Workload) plan.ID    { return plan.ID("check/" + w.Name) }
func presentsStep(w *topology.Workload) plan.ID { return plan.ID("presents/" + w.Name) }
func kubeconfigStep(lab string) plan.ID         { return plan.ID("kubeconfig/" + lab) }

// memberName is a server's name, or that of its trust domain with the cluster or host
// where the agents are elsewhere.
func memberName(m *topology.Member) string {
	switch {
	case m.Downstream != nil:
		return m.Downstream.String() + ".upstream"
	case m == m.Server.Home():
		return m.Server.String()
	}
	return m.Domain.String() + "@" + m.Place.Name()
}

// placeStep makes a cluster, or a host without its programs.
func placeStep(p topology.Place) plan.ID {
	if p.Host != nil {
		return hostStep(p.Host.Name)
	}
	return clusterStep(p.Cluster.Name)
}

// reachedStep comes before what is in a place has its addresses; none on a host, whose
// containers have theirs.
func reachedStep(p topology.Place) []plan.ID {
	if p.Host != nil {
		return nil
	}
	return []plan.ID{metallbStep(p.Cluster)}
}

// inPlace reads "in market", or "on host partner".
func inPlace(p topology.Place) string {
	if p.Host != nil {
		return "on host " + p.Host.Name
	}
	return "in " + p.Cluster.Name
}

// lookAtOwn looks at what the person brings along.
func (u *up) lookAtOwn(c *contents) {
	if len(u.certified()) > 0 {
		c.step(certificatesStep(u.Name), "serving certificates of your own", u.ownCertificates)
	}
	if len(u.owned()) > 0 {
		c.step(programsStep(u.Name), "programs of your own", u.ownPrograms)
	}
}

// makePlaces makes clusters and hosts, and gives clusters their addresses.
func (u *up) makePlaces(c *contents) {
	for _, x := range u.Clusters {
		u.makeCluster(c, x)
	}
	u.makeHosts(c)
	for _, x := range u.Clusters {
		u.installMetalLB(c, x)
	}
}

func (u *up) makeCluster(c *contents, x *topology.Cluster) {
	after := []plan.ID{imagesStep(u.Name)}
	if len(u.certified()) > 0 {
		after = append(after, certificatesStep(u.Name))
	}
	if len(u.owned()) > 0 {
		after = append(after, programsStep(u.Name))
	}
	c.step(clusterStep(x.Name), "cluster "+x.Name, func(ctx context.Context) error { return u.cluster(ctx, x) }, after...)
}

func (u *up) makeHosts(c *contents) {
	for _, h := range u.Hosts {
		c.step(hostStep(h.Name), "host "+h.Name, func(ctx context.Context) error { return u.host(ctx, h) }, imagesStep(u.Name))
	}
}

func (u *up) installMetalLB(c *contents, x *topology.Cluster) {
	c.step(metallbStep(x), "MetalLB in "+x.Name, func(ctx context.Context) error { return u.metallb(ctx, x) }, clusterStep(x.Name))
}

func (u *up) makeAuthorities(c *contents, s *topology.Server) {
	if needsAuthorities(s) {
		c.step(authoritiesStep(s), "private authorities of "+s.Domain.String(),
			func(ctx context.Context) error { return u.authorities(ctx, s) }, append(u.acmeSteps(s), clusterStep(s.Place.Cluster.Name))...)
	}
}

// acmeSteps are those before a server that orders its certificate by ACME.
func (u *up) acmeSteps(s *topology.Server) []plan.ID {
	if !orders(s) {
		return nil
	}
	return []plan.ID{acmeStep(u.ACMEServer)}
}

func (u *up) admitServer(c *contents, m *topology.Member) {
	c.step(memberStep(m), fmt.Sprintf("access of the SPIRE server of %s to %s", m.Domain, m.Cluster().Name),
		func(ctx context.Context) error { return u.admit(ctx, m) }, clusterStep(m.Cluster().Name))
}

func (u *up) installSPIRE(c *contents, s *topology.Server) {
	place := placeStep(s.Place)
	after := []plan.ID{place}
	if needsAuthorities(s) {
		after = append(after, authoritiesStep(s))
	}
	title := "SPIRE server"
	if s.Nested() {
		title = "nested SPIRE server"
		c.step(nestedStep(s), fmt.Sprintf("identity of the nested SPIRE server of %s in %s", s.Domain, s.Place.Cluster.Name),
			func(ctx context.Context) error { return u.registerNested(ctx, s) }, serverStep(s.Upstream), memberStep(s.Link))
		after = append(after, agentsStep(s.Link), nestedStep(s))
	}
	if s.Domain.Datastore == topology.Postgres {
		c.step(datastoreStep(s), "PostgreSQL of the SPIRE server of "+s.Domain.String(),
			func(ctx context.Context) error { return u.database(ctx, databaseOf(s)) }, place)
		after = append(after, datastoreStep(s))
	}
	for _, r := range s.Domain.Trusts {
		if r.Profile == topology.HTTPSWeb && r.Mode != topology.Manual {
			after = append(after, authoritiesStep(r.Trusted.Server()))
		}
	}
	if remote := s.Remote(); len(remote) > 0 {
		ways := []plan.ID{place}
		for _, m := range remote {
			ways = append(ways, memberStep(m))
		}
		c.step(kubeconfigsStep(s), fmt.Sprintf("kubeconfigs of the SPIRE server of %s", s.Domain),
			func(ctx context.Context) error { return u.bringKubeconfigs(ctx, s) }, ways...)
		after = append(after, kubeconfigsStep(s))
	}
	c.step(serverStep(s), fmt.Sprintf("%s of %s %s", title, s.Domain, inPlace(s.Place)),
		func(ctx context.Context) error { return u.spireServer(ctx, s) }, after...)
	for _, m := range s.Members {
		after := []plan.ID{serverStep(s)}
		if m.Host() != nil {
			after = append(after, placeStep(m.Place))
		}
		title := "SPIRE agent"
		if m.Downstream != nil {
			title = "upstream SPIRE agent"
		}
		if m != s.Home() {
			after = append(after, reachedStep(s.Place)...)
		}
		c.step(agentsStep(m), fmt.Sprintf("%s of %s %s", title, s.Domain, inPlace(m.Place)),
			func(ctx context.Context) error { return u.spireAgents(ctx, m) }, after...)
	}
	if d := s.Domain.Discovery; d != nil && !s.Nested() {
		u.serveIssuer(c, d)
	}
}

func (u *up) serveIssuer(c *contents, d *topology.Discovery) {
	s := d.Domain.Server()
	c.step(discoveryStep(d), fmt.Sprintf("OIDC discovery provider of %s %s", d.Domain, inPlace(d.Place())),
		func(ctx context.Context) error { return u.discovery(ctx, d) }, serverStep(s), authoritiesStep(s))
	c.step(issuerStep(d), "documents of "+d.Issuer, func(ctx context.Context) error { return u.issuer(ctx, d) },
		append([]plan.ID{discoveryStep(d), agentsStep(d.Member)}, reachedStep(d.Place())...)...)
}

func (u *up) installProxy(c *contents, p *topology.Proxy) {
	// It looks for nobody when it starts, and so waits for no server.
	after := []plan.ID{clusterStep(p.Place().Cluster.Name)}
	if s := p.Domain.Server(); needsAuthorities(s) {
		after = append(after, authoritiesStep(s))
	}
	c.step(proxyStep(p), fmt.Sprintf("proxy of %s %s (%s)", p.Domain, inPlace(p.Place()), p.Domain.BundleEndpoint.Route),
		func(ctx context.Context) error { return u.proxy(ctx, p) }, after...)
}

func (u *up) makeTrust(c *contents, r topology.Relationship) {
	trusted := r.Trusted.Server()
	after := []plan.ID{serverStep(r.By)}
	for _, s := range r.Trusted.Servers {
		// Each has its keys in the bundle by then.
		after = append(after, serverStep(s))
	}
	after = append(after, reachedStep(trusted.Place)...)
	if orders(trusted) {
		// The first handshake orders the certificate.
		after = append(after, acmeStep(u.ACMEServer), metallbStep(u.ACMEServer.Cluster))
	}
	if proxy := r.Trusted.Proxy; proxy != nil {
		after = append(after, proxyStep(proxy))
	}
	if r.By.Place.Host != nil {
		after = append(after, u.askerStep(r.By.Place))
	}
	c.step(federateStep(r), fmt.Sprintf("%s trusts %s (%s)", r.By, r.Trusted, r.Manner()),
		func(ctx context.Context) error { return u.federate(ctx, r) }, after...)
}

// lendersFirst puts those behind whose steps follow the database of another.
func lendersFirst(workloads []*topology.Workload) []*topology.Workload {
	borrows := func(w *topology.Workload) bool { return w.Lender() != nil }
	return append(slices.DeleteFunc(slices.Clone(workloads), borrows),
		slices.DeleteFunc(slices.Clone(workloads), func(w *topology.Workload) bool { return !borrows(w) })...)
}

func (u *up) registerAndDeploy(c *contents, w *topology.Workload) {
	server := serverStep(w.Member.Server)
	after := withBundles(w.Member.Server)
	if w.Host() != nil {
		// Its entry is below the agent.
		after = append(after, agentsStep(w.Member))
	}
	c.step(registerStep(w), "identity of "+w.Name, func(ctx context.Context) error { return u.register(ctx, w) }, after...)
	// A program has no identity before there is a server. Its image, loaded
	// earlier, would hold up what all others wait for. That of its database is
	// in the node, and a database takes as long to come up as a server.
	after = []plan.ID{server}
	if w.Host() != nil {
		after = append(after, hostStep(w.Host().Name))
	}
	if w.App.Database != "" {
		c.step(databaseStep(w), "PostgreSQL of "+w.Name,
			func(ctx context.Context) error { return u.database(ctx, databaseFor(w)) }, clusterStep(w.Cluster().Name))
		after = append(after, databaseStep(w))
	}
	if id := w.Database().ID; !id.IsZero() {
		c.step(registerDatabaseStep(w), "identity of the PostgreSQL of "+w.Name,
			func(ctx context.Context) error { return u.registerDatabase(ctx, w) }, server)
	}
	if from := w.Lender(); from != nil {
		c.step(lendStep(w), "password of the database of "+from.Name+" for "+w.Name,
			func(ctx context.Context) error { return u.lend(ctx, w) }, databaseStep(from), clusterStep(w.Cluster().Name))
		after = append(after, lendStep(w))
	}
	c.step(deployStep(w), fmt.Sprintf("%s %s", w.Name, inPlace(w.Member.Place)), func(ctx context.Context) error { return u.deploy(ctx, w) }, after...)
}

func (u *up) declareOthers(c *contents) {
	for _, r := range u.Registrations {
		c.step(declareStep(r), fmt.Sprintf("%s %s of %s %s", r.Kind, r.Name, r.Domain(), inPlace(r.Member.Place)),
			func(ctx context.Context) error { return u.declared(ctx, r) }, withBundles(r.Server())...)
	}
}

// withBundles come before entries of a server that federate with others: one that names a
// trust domain whose bundle is not there yet is refused, and tried again only seconds later
// (spiffe/spire#7146).
func withBundles(s *topology.Server) []plan.ID {
	after := []plan.ID{serverStep(s)}
	for _, r := range s.Relationships() {
		after = append(after, federateStep(r))
	}
	return after
}

func (u *up) tidyUp(c *contents, s *topology.Server) {
	after := []plan.ID{serverStep(s)}
	for _, m := range s.Members {
		for _, r := range m.Registrations {
			after = append(after, declareStep(r))
		}
		for _, w := range m.Workloads {
			after = append(after, registerStep(w))
			if !w.Database().ID.IsZero() {
				after = append(after, registerDatabaseStep(w))
			}
		}
		if m.Downstream != nil {
			after = append(after, nestedStep(m.Downstream))
		}
		if m.Host() != nil {
			after = append(after, agentsStep(m))
		}
	}
	var places []string
	for _, m := range s.Members {
		if m.Host() == nil || m == s.Home() {
			places = append(places, inPlace(m.Place))
		}
	}
	c.step(tidyStep(s), "what the lab file no longer has "+strings.ReplaceAll(strings.Join(places, " and "), " and in ", " and "), func(ctx context.Context) error { return u.tidy(ctx, s) }, after...)
}

func (u *up) lookAt(c *contents, w *topology.Workload) {
	// A program that has no identity yet is not ready: why not, the steps tell
	// that come before its registration.
	c.step(runsStep(w), w.Name+" runs", func(ctx context.Context) error { return u.runs(ctx, w) }, deployStep(w), registerStep(w))
	if w.Shows() {
		after := append([]plan.ID{runsStep(w)}, reachedStep(w.Member.Place)...)
		if from := u.looksAt(w); from != w.Cluster() {
			after = append(after, clusterStep(from.Name))
		}
		c.step(presentsStep(w), w.Name+" presents its X509-SVID", func(ctx context.Context) error { return u.presents(ctx, w) }, after...)
	}
	if w.URL() != "" {
		c.step(pageStep(w), "page at "+w.URL(), func(ctx context.Context) error { return u.page(ctx, w) }, runsStep(w))
	}
}

// askerStep makes the cluster from which servers are asked as a place would.
func (u *up) askerStep(p topology.Place) plan.ID { return clusterStep(asker(u.Graph, p).Name) }

func (u *up) lookAtCheck(c *contents, w *topology.Workload) {
	if w.Own.Check == nil {
		return
	}
	after := []plan.ID{runsStep(w), metallbStep(w.Cluster())}
	if w.Checker != nil {
		after = append(after, runsStep(w.Checker))
	}
	c.step(checkStep(w), w.Name+" answers its check", func(ctx context.Context) error { return u.check(ctx, w) }, after...)
}

func (u *up) lookAtCalls(c *contents) {
	tellers := map[*topology.Workload]*teller{}
	for _, from := range u.Workloads {
		by := from.Witness()
		if by == nil {
			continue
		}
		if tellers[by] == nil {
			tellers[by] = &teller{Workload: by}
		}
		for _, to := range from.Calls {
			c.step(verifyStep(from, to), fmt.Sprintf("%s calls %s", from.Name, to.Name),
				func(ctx context.Context) error { return u.verify(ctx, from, to, tellers[by]) },
				append([]plan.ID{runsStep(from), runsStep(to), runsStep(by)}, reachedStep(to.Member.Place)...)...)
		}
	}
}

func (u *up) exportContexts(c *contents) {
	var clusters []plan.ID
	for _, x := range u.Clusters {
		clusters = append(clusters, clusterStep(x.Name))
	}
	c.step(kubeconfigStep(u.Name), "contexts in the kubeconfig file", u.exportKubeconfig, clusters...)
}
