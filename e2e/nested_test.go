package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// The quotes of a trust domain go from one nested server's workloads to the other's, and to
// another trust domain.
var _ = Describe("A trust domain with nested SPIRE servers", Ordered, Label("nested", "night"), func() {
	const (
		one, other = "one.test", "other.test"
		svidTTL    = time.Minute
		caTTL      = time.Hour
		// shortCATTL is the shortest that SVIDs of svidTTL allow.
		shortCATTL = 6 * svidTTL
	)
	var (
		nestedLab *subject
		before    traces
	)
	file := func() string { return filepath.Join(scratch(), "nested.yaml") }
	intent := func(caTTL time.Duration, ports ...string) config.Lab {
		return config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-nested"},
			Spec: config.Spec{
				Clusters: []config.Cluster{{Name: "a", TrustDomains: []string{one, other}}, {Name: "b", TrustDomain: one}, {Name: "c", TrustDomain: one}},
				TrustDomains: []config.TrustDomain{{
					Name: one, NestedServers: []string{"b", "c"},
					CA: config.CA{TTL: config.Duration(caTTL)}, SVID: config.SVID{X509TTL: config.Duration(svidTTL), JWTTTL: config.Duration(svidTTL)},
				}},
				Federation: []config.Federation{{Between: []string{one, other}}},
				Workloads: []config.Workload{
					{App: "stock-quotes", Cluster: "b"},
					{App: "broker-webapp", Cluster: "c", Expose: ports[0]},
					{Name: "partner", App: "broker-webapp", Cluster: "a", TrustDomain: other, Expose: ports[1]},
				},
			},
		}
	}
	// write writes the lab file.
	write := func(caTTL time.Duration, ports ...string) {
		GinkgoHelper()
		data, err := config.Marshal(intent(caTTL, ports...))
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file(), data, 0o644)).To(Succeed())
	}
	// sites connects to the servers of the trust domain, the root first, until the spec ends.
	sites := func(ctx context.Context) []*lab.Site {
		GinkgoHelper()
		l := nestedLab.open(ctx)
		d, err := l.Graph.FindDomain(one)
		Expect(err).NotTo(HaveOccurred())
		var all []*lab.Site
		for _, s := range d.Servers {
			site, err := l.Site(ctx, s)
			Expect(err).NotTo(HaveOccurred())
			all = append(all, site)
		}
		return all
	}
	// has returns nil when the bundle of a server has an X.509 authority, or has not.
	has := func(api *spire.Server, id string, want bool) func(context.Context) error {
		return func(ctx context.Context) error {
			bundle, err := api.Bundle(ctx)
			if err != nil {
				return err
			}
			return inBundle(bundle, id, want)
		}
	}
	// held is the same of what the other trust domain holds.
	held := func(api *spire.Server, of *topology.Domain, id string, want bool) func(context.Context) error {
		return func(ctx context.Context) error {
			bundle, err := api.HeldBundle(ctx, of.Name)
			if err != nil {
				return err
			}
			return inBundle(bundle, id, want)
		}
	}
	// interval is how often the other trust domain polls, and fetch how long it takes at
	// most to have what is new.
	interval := federation.PollInterval(time.Minute, 0)
	fetch := federation.FetchBound(interval) + machine
	brokers := func() []*topology.Workload { return nestedLab.graph.Workloads[1:] }
	// allFlowing returns nil when both brokers get quotes.
	allFlowing := func(ctx context.Context) error {
		var errs []error
		for _, w := range brokers() {
			if err := flowing(w)(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", w.Name, err))
			}
		}
		return errors.Join(errs...)
	}
	// chain returns that of the X509-SVID of a workload.
	chain := func(ctx context.Context, name string) (_ []lab.Certificate, err error) {
		l, err := nestedLab.driver.Open(ctx, nestedLab.graph.Intent())
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		w, err := l.Graph.FindWorkload(name)
		if err != nil {
			return nil, err
		}
		svids, err := l.SVIDs(ctx, w, "")
		if err != nil {
			return nil, err
		}
		if len(svids.X509) != 1 {
			return nil, fmt.Errorf("%s has %d X509-SVIDs", name, len(svids.X509))
		}
		return svids.X509[0].Chain, nil
	}
	// signer returns the authority of the root that the X509-SVID of a workload leads to.
	signer := func(ctx context.Context, name string) (string, error) {
		c, err := chain(ctx, name)
		if err != nil {
			return "", err
		}
		return c[len(c)-1].AuthorityKeyID, nil
	}
	// serial tells an X509-SVID from the others of a workload.
	serial := func(ctx context.Context, name string) (string, error) {
		c, err := chain(ctx, name)
		if err != nil {
			return "", err
		}
		return c[0].Serial, nil
	}
	// scaled returns what gives the root this number of pods.
	scaled := func(root *lab.Site, replicas int32) func(context.Context) error {
		return func(ctx context.Context) error {
			in, err := nestedLab.cluster(root.Place.Cluster.Name)
			if err != nil {
				return err
			}
			return in.Scale(ctx, "StatefulSet", root.Place.Namespace, spire.ServerStatefulSet, replicas)
		}
	}
	// gone returns what returns nil while the root has no pod.
	gone := func(root *lab.Site) func(context.Context) error {
		return func(ctx context.Context) error {
			in, err := nestedLab.cluster(root.Place.Cluster.Name)
			if err != nil {
				return err
			}
			_, there, err := in.Object(ctx, "v1", "Pod", root.Place.Namespace, spire.ServerPod)
			if err == nil && there {
				err = errors.New("the root is there")
			}
			return err
		}
	}
	BeforeAll(func(ctx SpecContext) {
		var ports []string
		for range 2 {
			port, err := freePort(ctx)
			Expect(err).NotTo(HaveOccurred())
			ports = append(ports, port)
		}
		write(caTTL, ports...)
		nestedLab, before = raisedAlone(ctx, file(), "nested SPIRE servers")
	}, NodeTimeout(10*time.Minute))

	It("has servers whose authorities the root signs, and one bundle", func(ctx SpecContext) {
		Expect(nestedLab.well(ctx)).To(Succeed())
		all := sites(ctx)
		Expect(all).To(HaveLen(3))
		root, err := all[0].API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(root.X509Authorities()).To(HaveLen(1))
		Expect(root.JWTAuthorities()).To(HaveLen(len(all)), "each server publishes the key of its JWT-SVIDs")
		attested := func(site *lab.Site) (clusters []string) {
			GinkgoHelper()
			agents, err := site.API.Agents(ctx)
			Expect(err).NotTo(HaveOccurred())
			for _, a := range agents {
				clusters = append(clusters, spire.AttestedIn(a.ID))
			}
			return clusters
		}
		Expect(attested(all[0])).To(ConsistOf("a", "b", "c"))
		for _, nested := range all[1:] {
			Eventually(func(ctx context.Context) (federation.State, error) {
				bundle, err := nested.API.Bundle(ctx)
				return federation.Compare(bundle, root).State, err
			}).WithContext(ctx).WithTimeout(federation.NestedBound()+machine).WithPolling(poll).Should(Equal(federation.InSync), nested.String())
			authorities, err := nested.API.X509Authorities(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(inBundle(root, authorities.Active.ID, false)).To(Succeed(), "%s signs with an intermediate", nested)
			Expect(authorities.Active.ExpiresAt).To(BeTemporally("<=", root.X509Authorities()[0].NotAfter))
			Expect(attested(nested)).To(ConsistOf(nested.Place.Cluster.Name))
		}
		authorities, err := all[0].API.X509Authorities(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, w := range nestedLab.graph.Workloads[:2] {
			Expect(signer(ctx, w.Name)).To(Equal(authorities.Active.ID), w.Name)
		}
	}, NodeTimeout(2*time.Minute))

	It("needs no federation between its servers, and has one with another trust domain", func(ctx SpecContext) {
		Eventually(allFlowing).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		v, err := ask(ctx, nestedLab.graph.Workloads[1])
		Expect(err).NotTo(HaveOccurred())
		Expect(v.Peer.ID).To(Equal("spiffe://" + one + "/server"))
		Expect(v.Self.ID).To(Equal("spiffe://" + one + "/client"))
		Expect(v.Self.Bundles).NotTo(ContainElement(other), "it federates with nobody")
		v, err = ask(ctx, nestedLab.graph.Workloads[2])
		Expect(err).NotTo(HaveOccurred())
		Expect(v.Self.Bundles).To(ContainElement(one))
		Expect(nestedLab.fedlab(ctx, "drift")).To(endWell())
	}, SpecTimeout(2*time.Minute))

	It("is unchanged by a second up", func(ctx SpecContext) { nestedLab.unchanged(ctx) }, SpecTimeout(2*time.Minute))

	It("goes on without its root for longer than an X509-SVID lives", func(ctx SpecContext) {
		all := sites(ctx)
		var until time.Time
		for _, nested := range all[1:] {
			authorities, err := nested.API.X509Authorities(ctx)
			Expect(err).NotTo(HaveOccurred())
			if end := authorities.Active.ExpiresAt; until.IsZero() || end.Before(until) {
				until = end
			}
		}
		// A nested server signs until its own authority ends, and needs its root again when
		// half of that life is over.
		const away = svidTTL + svidTTL/2
		Expect(until).To(BeTemporally(">", time.Now().Add(caTTL/2+away+rollout)))

		nestedLab.restored(rollout+federation.HealthBound(), scaled(all[0], 1))
		Expect(scaled(all[0], 0)(ctx)).To(Succeed())
		var since time.Time
		Eventually(func(ctx context.Context) (time.Duration, error) {
			if err := allFlowing(ctx); err != nil {
				return 0, StopTrying("a call fails without the root").Wrap(err)
			}
			if since.IsZero() {
				if err := gone(all[0])(ctx); err != nil {
					return 0, err
				}
				since = time.Now()
			}
			return time.Since(since), nil
		}).WithContext(ctx).WithTimeout(machine + away + machine).WithPolling(poll).Should(BeNumerically(">", away))

		found, code, err := nestedLab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.TrustDomains[0].Well).To(BeFalse(), "the root is there")
		for _, nested := range found.TrustDomains[1:3] {
			Expect(nested.Upstream).To(Equal("a"))
			Expect(nested.Well).To(BeTrue(), "%s: %s", nested.Server(), nested.Problem)
		}
		By("and issues identities to newcomers")
		for _, w := range nestedLab.graph.Workloads[:2] {
			c, err := nestedLab.cluster(w.Cluster().Name)
			Expect(err).NotTo(HaveOccurred())
			selector := "app.kubernetes.io/name=" + w.App.Name
			pods, err := c.Pods(ctx, w.Namespace, selector)
			Expect(err).NotTo(HaveOccurred())
			Expect(pods).To(HaveLen(1))
			was, err := serial(ctx, w.Name)
			Expect(err).NotTo(HaveOccurred())
			Expect(c.Delete(ctx, map[string]any{
				"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": pods[0].Name, "namespace": w.Namespace},
			})).To(Succeed())
			Eventually(c.Pods).WithContext(ctx).WithArguments(w.Namespace, selector).WithTimeout(rollout).WithPolling(time.Second).
				Should(And(HaveLen(1), HaveEach(And(HaveField("Name", Not(Equal(pods[0].Name))), HaveField("Trouble", BeEmpty())))), w.Name)
			// An entry is for one pod, by its UID, so that another pod has another identity.
			Expect(serial(ctx, w.Name)).NotTo(Equal(was), w.Name)
		}
		Eventually(flowing(nestedLab.graph.Workloads[1])).WithContext(ctx).WithTimeout(rollout).WithPolling(poll).Should(Succeed())
		Expect(gone(all[0])(ctx)).To(Succeed())
	}, SpecTimeout(10*time.Minute))

	It("has each server follow when the root's authority is replaced", func(ctx SpecContext) {
		all := sites(ctx)
		root, below := all[0], all[1:]
		peer := nestedLab.site(ctx, nestedLab.graph.Domains[1].Name)
		was, err := root.API.X509Authorities(ctx)
		Expect(err).NotTo(HaveOccurred())
		signing := map[*lab.Site]string{}
		for _, nested := range below {
			authorities, err := nested.API.X509Authorities(ctx)
			Expect(err).NotTo(HaveOccurred())
			signing[nested] = authorities.Active.ID
		}

		next, err := root.API.PrepareX509Authority(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, nested := range below {
			// The root has been away, and they may not have found it again yet.
			Eventually(has(nested.API, next.ID, true)).WithContext(ctx).WithTimeout(federation.UpstreamBound()+federation.NestedBound()+machine).WithPolling(poll).Should(Succeed(), nested.String())
		}
		Eventually(held(peer.API, root.Domain, next.ID, true)).WithContext(ctx).WithTimeout(fetch).WithPolling(poll).Should(Succeed())
		_, err = root.API.ActivateX509Authority(ctx, next.ID)
		Expect(err).NotTo(HaveOccurred())
		Consistently(allFlowing).WithContext(ctx).WithTimeout(federation.RegistrationBound()).WithPolling(poll).Should(Succeed())

		By("and has the old one's intermediates replaced once it is tainted")
		Expect(root.API.TaintX509Authority(ctx, was.Active.ID)).To(Succeed())
		for _, nested := range below {
			Eventually(func(ctx context.Context) (string, error) {
				authorities, err := nested.API.X509Authorities(ctx)
				if err != nil || authorities.Active == nil {
					return signing[nested], err
				}
				return authorities.Active.ID, nil
			}).WithContext(ctx).WithTimeout(federation.NestedBound()+machine).WithPolling(poll).ShouldNot(Equal(signing[nested]), nested.String())
		}
		for _, w := range nestedLab.graph.Workloads[:2] {
			Eventually(signer).WithContext(ctx).WithArguments(w.Name).WithTimeout(federation.NestedBound()+federation.TaintBound()+machine).WithPolling(poll).
				Should(Equal(next.ID), w.Name)
		}
		// The agents by which the nested servers get to their root have theirs replaced, too.
		Consistently(allFlowing).WithContext(ctx).WithTimeout(federation.AgentSVIDBound() + machine).WithPolling(poll).Should(Succeed())

		By("and forget it once it is revoked")
		Expect(root.API.RevokeX509Authority(ctx, was.Active.ID)).To(Succeed())
		for _, nested := range below {
			Eventually(has(nested.API, was.Active.ID, false)).WithContext(ctx).WithTimeout(federation.NestedBound()+machine).WithPolling(poll).Should(Succeed(), nested.String())
		}
		Eventually(held(peer.API, root.Domain, was.Active.ID, false)).WithContext(ctx).WithTimeout(fetch).WithPolling(poll).Should(Succeed())
		Consistently(allFlowing).WithContext(ctx).WithTimeout(federation.PropagationBound(interval)).WithPolling(poll).Should(Succeed())

		By("and be well again with the next up")
		// A revoked authority goes out of the ConfigMap, and out of the webhooks' SVIDs, by
		// no rotation of SPIRE's own: status says so of each.
		Expect(nestedLab.fedlab(ctx, "up")).To(endWell())
		Expect(nestedLab.well(ctx)).To(Succeed())
		Eventually(allFlowing).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
	}, SpecTimeout(10*time.Minute))

	It("is whole again after the cluster of its root was lost", func(ctx SpecContext) {
		_, err := docker(ctx, "rm", "--force", "--volumes", local.NodeName(nestedLab.graph.Name, "a"))
		Expect(err).NotTo(HaveOccurred())
		Expect(nestedLab.fedlab(ctx, "up")).To(endWell())
		Expect(nestedLab.well(ctx)).To(Succeed())
		Eventually(allFlowing).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
	}, SpecTimeout(8*time.Minute))

	It("goes on without its root until the authorities of its nested servers end, and no longer", func(ctx SpecContext) {
		write(shortCATTL, nestedLab.graph.Workloads[1].Expose.String(), nestedLab.graph.Workloads[2].Expose.String())
		Expect(nestedLab.fedlab(ctx, "up")).To(endWell())
		all := sites(ctx)
		root, below := all[0], all[1:]
		peer := nestedLab.site(ctx, nestedLab.graph.Domains[1].Name)
		next, err := root.API.PrepareX509Authority(ctx)
		Expect(err).NotTo(HaveOccurred())
		predicted := time.Now().Add(shortCATTL)
		for _, nested := range below {
			Eventually(has(nested.API, next.ID, true)).WithContext(ctx).WithTimeout(federation.NestedBound()+machine).WithPolling(poll).Should(Succeed(), nested.String())
		}
		Eventually(held(peer.API, root.Domain, next.ID, true)).WithContext(ctx).WithTimeout(fetch).WithPolling(poll).Should(Succeed())
		signing, err := root.API.ActivateX509Authority(ctx, next.ID)
		Expect(err).NotTo(HaveOccurred())
		// The end of what has signed it comes first.
		until := signing.ExpiresAt
		Expect(until).To(BeTemporally("~", predicted, machine))
		for _, nested := range below {
			prepared, err := nested.API.PrepareX509Authority(ctx)
			Expect(err).NotTo(HaveOccurred())
			active, err := nested.API.ActivateX509Authority(ctx, prepared.ID)
			Expect(err).NotTo(HaveOccurred())
			Expect(active.ExpiresAt).To(BeTemporally("==", until), nested.String())
		}

		Expect(scaled(root, 0)(ctx)).To(Succeed())
		Eventually(gone(root)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		Expect(time.Until(until)).To(BeNumerically(">", shortCATTL/2), "a nested server may have prepared its next authority")
		Eventually(flowing(nestedLab.graph.Workloads[1])).WithContext(ctx).WithTimeout(time.Until(until) + machine).WithPolling(poll).ShouldNot(Succeed())
		AddReportEntry("calls after the authorities of nested servers ended", time.Since(until).Round(10*time.Millisecond).String(), ReportEntryVisibilityAlways)
		Expect(time.Now()).To(BeTemporally(">=", until))
		Expect(gone(root)(ctx)).To(Succeed())
	}, SpecTimeout(15*time.Minute))

	It("leaves nothing", func(ctx SpecContext) { nestedLab.cleared(ctx, before) }, SpecTimeout(3*time.Minute))
})

// inBundle returns nil when a bundle has an X.509 authority of this subject key ID, or, as
// wanted, has not.
func inBundle(bundle *spiffebundle.Bundle, id string, want bool) error {
	if bundle == nil {
		return errors.New("there is no bundle")
	}
	var ids []string
	for _, a := range bundle.X509Authorities() {
		ids = append(ids, hex.EncodeToString(a.SubjectKeyId))
	}
	if slices.Contains(ids, id) != want {
		return fmt.Errorf("it has %v", ids)
	}
	return nil
}
