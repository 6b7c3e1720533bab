package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// The quotes of a trust domain go to its other cluster, and to another trust domain.
var _ = Describe("A trust domain over two clusters", Ordered, Label("spread", "night"), func() {
	const one, other = "one.test", "other.test"
	var (
		lab    *subject
		before traces
	)
	file := func() string { return filepath.Join(scratch(), "spread.yaml") }
	write := func(l config.Lab) {
		GinkgoHelper()
		data, err := config.Marshal(l)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file(), data, 0o644)).To(Succeed())
	}
	intent := func(ports ...string) config.Lab {
		return config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-spread"},
			Spec: config.Spec{
				Clusters:   []config.Cluster{{Name: "a", TrustDomains: []string{one, other}}, {Name: "b", TrustDomain: one}},
				Federation: []config.Federation{{Between: []string{one, other}}},
				Workloads: []config.Workload{
					{App: "stock-quotes", Cluster: "a", TrustDomain: one},
					{App: "broker-webapp", Cluster: "b", Expose: ports[0]},
					{Name: "partner", App: "broker-webapp", Cluster: "a", TrustDomain: other, Expose: ports[1]},
				},
			},
		}
	}
	// domain is the spread trust domain as it runs, and b its member without a server.
	domain := func(ctx context.Context) (*topology.Domain, *topology.Member) {
		GinkgoHelper()
		d := lab.running(ctx, lab.graph.Domains[0].Name)
		return d, d.Server().Remote()[0]
	}
	// entriesOf returns the IDs of the entries whose agents are in a cluster.
	entriesOf := func(ctx context.Context, api *spire.Server, cluster string) ([]string, error) {
		entries, err := api.Entries(ctx)
		var ids []string
		for _, e := range entries {
			if spire.AttestedIn(e.ParentID) == cluster {
				ids = append(ids, e.ID)
			}
		}
		slices.Sort(ids)
		return ids, err
	}
	// podOf returns the UID of the server's pod, and how often a container of it was
	// started again.
	podOf := func(ctx context.Context, container string) (uid string, restarts int, err error) {
		in, err := lab.cluster("a")
		if err != nil {
			return "", 0, err
		}
		object, there, err := in.Object(ctx, "v1", "Pod", topology.ServerNamespace, spire.ServerPod)
		if err != nil || !there {
			return "", 0, errors.Join(err, fmt.Errorf("there: %t", there))
		}
		var pod struct {
			Metadata metadata
			Status   struct {
				ContainerStatuses []struct {
					Name         string
					RestartCount int
				}
			}
		}
		err = convert(object, &pod)
		for _, c := range pod.Status.ContainerStatuses {
			if c.Name == container {
				restarts = c.RestartCount
			}
		}
		return pod.Metadata.UID, restarts, err
	}
	// published returns nil when agents in b find the server's authorities.
	published := func(ctx context.Context) error {
		GinkgoHelper()
		d, member := domain(ctx)
		in, err := lab.cluster("b")
		if err != nil {
			return err
		}
		object, there, err := in.Object(ctx, "v1", "ConfigMap", member.Place.Namespace, spire.BundleConfigMap)
		if err != nil || !there {
			return errors.Join(err, fmt.Errorf("there: %t", there))
		}
		var is struct{ Data map[string]string }
		if err := convert(object, &is); err != nil {
			return err
		}
		found, err := pki.Parse([]byte(is.Data[spire.SecretBundle]))
		if err != nil {
			return err
		}
		bundle, err := lab.site(ctx, d.Name).API.Bundle(ctx)
		if err != nil {
			return err
		}
		if len(found) != len(bundle.X509Authorities()) {
			return fmt.Errorf("%d authorities are published, and the server has %d", len(found), len(bundle.X509Authorities()))
		}
		for _, authority := range found {
			if !bundle.HasX509Authority(authority) {
				return fmt.Errorf("authority %s is not the server's", authority.Subject)
			}
		}
		return nil
	}
	// without pauses the node of b and has the server start again; resume ends that.
	without := func(ctx context.Context) (resume func(context.Context) error) {
		GinkgoHelper()
		d, _ := domain(ctx)
		in, err := lab.cluster("a")
		Expect(err).NotTo(HaveOccurred())
		node, paused := local.NodeName(lab.graph.Name, "b"), true
		resume = func(ctx context.Context) error {
			if !paused {
				return nil
			}
			_, err := docker(ctx, "unpause", node)
			paused = err != nil
			return err
		}
		_, err = docker(ctx, "pause", node)
		Expect(err).NotTo(HaveOccurred())
		lab.restored(rollout+machine, resume)
		Expect(in.Delete(ctx, map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": spire.ServerPod, "namespace": d.Server().Place.Namespace},
		})).To(Succeed())
		return resume
	}
	BeforeAll(func(ctx SpecContext) {
		var ports []string
		for range 2 {
			port, err := freePort(ctx)
			Expect(err).NotTo(HaveOccurred())
			ports = append(ports, port)
		}
		write(intent(ports...))
		lab, before = raisedAlone(ctx, file(), "a trust domain over two clusters")
	}, NodeTimeout(10*time.Minute))

	It("has one server, which knows the agents of both clusters", func(ctx SpecContext) {
		Expect(lab.well(ctx)).To(Succeed())
		d, member := domain(ctx)
		agents, err := lab.site(ctx, d.Name).API.Agents(ctx)
		Expect(err).NotTo(HaveOccurred())
		var clusters []string
		for _, a := range agents {
			Expect(a.AttestedBy).To(Equal("k8s_psat"))
			clusters = append(clusters, spire.AttestedIn(a.ID))
		}
		Expect(clusters).To(ConsistOf("a", "b"))

		in, err := lab.cluster("b")
		Expect(err).NotTo(HaveOccurred())
		nodes, err := in.Objects(ctx, "v1", "Node", "", "")
		Expect(err).NotTo(HaveOccurred())
		Expect(nodes).To(HaveLen(1))
		node, err := metadataOf(nodes[0])
		Expect(err).NotTo(HaveOccurred())
		Expect(agents).To(ContainElement(HaveField("ID", spire.AgentID(d.Name, "b", node.UID))))
		_, there, err := in.Object(ctx, "apps/v1", "StatefulSet", member.Place.Namespace, spire.ServerStatefulSet)
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeFalse(), "cluster b has a server of its own")
		Expect(lab.fedlab(ctx, "logs", one, "agent", "--cluster", "b")).To(And(endWell(), HaveField("Stdout", ContainSubstring(one))))
		Expect(lab.fedlab(ctx, "logs", one, "server", "--container", "manager-b")).To(endWell())
	}, NodeTimeout(2*time.Minute))

	It("needs no federation from cluster to cluster, and has one with another trust domain", func(ctx SpecContext) {
		for _, w := range lab.graph.Workloads[1:] {
			Eventually(flowing(w)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed(), w.Name)
		}
		v, err := ask(ctx, lab.graph.Workloads[1])
		Expect(err).NotTo(HaveOccurred())
		Expect(v.Peer.ID).To(Equal("spiffe://" + one + "/server"))
		Expect(v.Self.ID).To(Equal("spiffe://" + one + "/client"))
		Expect(v.Peer.VerifiedBy.TrustDomain).To(Equal(one))
		Expect(v.Self.Bundles).NotTo(ContainElement(other), "it federates with nobody")
		v, err = ask(ctx, lab.graph.Workloads[2])
		Expect(err).NotTo(HaveOccurred())
		Expect(v.Self.ID).To(Equal("spiffe://" + other + "/client"))
		Expect(v.Self.Bundles).To(ContainElement(one))
		Expect(lab.fedlab(ctx, "drift")).To(endWell())
	}, SpecTimeout(2*time.Minute))

	It("is unchanged by a second up", func(ctx SpecContext) { lab.unchanged(ctx) }, SpecTimeout(2*time.Minute))

	It("keeps the entries of one cluster when the controller manager of the other starts again", func(ctx SpecContext) {
		api := lab.site(ctx, lab.graph.Domains[0].Name).API
		ids, err := entriesOf(ctx, api, "b")
		Expect(err).NotTo(HaveOccurred())
		Expect(ids).To(And(Not(BeEmpty()), HaveEach(HavePrefix("b."))))
		restarts := func(ctx context.Context) (int, error) {
			_, restarts, err := podOf(ctx, spire.ControllerManagerContainer)
			return restarts, err
		}
		before, err := restarts(ctx)
		Expect(err).NotTo(HaveOccurred())
		// That of the other trust domain ends, too. The last part of the pattern keeps it
		// from finding itself.
		_, err = lab.driver.Parts.Hands.Exec(ctx, lab.graph.Name, "a", "pkill", "-f", "config/controller-manager[.]yaml")
		Expect(err).NotTo(HaveOccurred())
		Eventually(restarts).WithContext(ctx).WithTimeout(rollout).WithPolling(poll).Should(BeNumerically(">", before))
		Eventually(lab.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed())
		Consistently(entriesOf).WithContext(ctx).WithArguments(api, "b").
			WithTimeout(2 * federation.ReconcileBound()).WithPolling(poll).Should(Equal(ids))
		Expect(entriesOf(ctx, api, "a")).NotTo(BeEmpty())
	}, SpecTimeout(6*time.Minute))

	It("publishes its bundle in both clusters", func(ctx SpecContext) {
		_, member := domain(ctx)
		in, err := lab.cluster("b")
		Expect(err).NotTo(HaveOccurred())
		Expect(published(ctx)).To(Succeed())

		By("and again once it is gone there")
		Expect(in.Delete(ctx, map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": spire.BundleConfigMap, "namespace": member.Place.Namespace},
		})).To(Succeed())
		found, code, err := lab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(ContainElement(HavePrefix("trust domain " + one + ": in cluster b: the ConfigMap spire-bundle")))
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(published(ctx)).To(Succeed())
		Expect(lab.well(ctx)).To(Succeed())
	}, SpecTimeout(4*time.Minute))

	It("has its kubeconfig restored", func(ctx SpecContext) {
		d, _ := domain(ctx)
		in, err := lab.cluster("a")
		Expect(err).NotTo(HaveOccurred())
		Expect(in.Delete(ctx, map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": spire.KubeconfigsSecret, "namespace": d.Server().Place.Namespace},
		})).To(Succeed())
		found, _, err := lab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(found.Problems()).To(ContainElement(HavePrefix("trust domain " + one + ": in cluster b: the Secret spire-kubeconfigs")))
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(lab.well(ctx)).To(Succeed())
		lab.unchanged(ctx)
	}, SpecTimeout(4*time.Minute))

	It("keeps its server where the other cluster does not answer", func(ctx SpecContext) {
		d, _ := domain(ctx)
		ids, err := entriesOf(ctx, lab.site(ctx, d.Name).API, "b")
		Expect(err).NotTo(HaveOccurred())
		was, _, err := podOf(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		resume := without(ctx)
		// The server starts again, knows what it knew, and serves its own cluster and peers.
		// Of a lab with a node that is paused there is no handle, of the server there is.
		Eventually(func(ctx context.Context) ([]string, error) {
			is, _, err := podOf(ctx, "")
			if err == nil && is == was {
				err = errors.New("it is still the pod that was deleted")
			}
			if err != nil {
				return nil, err
			}
			opened, err := lab.driver.Site(ctx, d.Server())
			if err != nil {
				return nil, err
			}
			known, err := entriesOf(ctx, opened.API, "b")
			return known, errors.Join(err, opened.Close())
		}).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Equal(ids))
		Eventually(flowing(lab.graph.Workloads[2])).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		found, code, err := lab.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.TrustDomains[0].Problem).To(ContainSubstring("in cluster b: cluster b does not answer"))
		Expect(found.TrustDomains[1].Well).To(BeTrue(), found.TrustDomains[1].Problem)

		Expect(resume(ctx)).To(Succeed())
		Eventually(lab.well).WithContext(ctx).WithTimeout(rollout+machine).WithPolling(time.Second).Should(Succeed(), "without an up")
		Expect(entriesOf(ctx, lab.site(ctx, d.Name).API, "b")).To(Equal(ids))
	}, SpecTimeout(10*time.Minute))

	It("does not start before the other cluster answers, where its bundle goes there by the notifier", func(ctx SpecContext) {
		ports := []string{lab.graph.Workloads[1].Expose.String(), lab.graph.Workloads[2].Expose.String()}
		l := intent(ports...)
		l.Spec.TrustDomains = []config.TrustDomain{{Name: one, BundlePlugin: string(topology.K8sBundle)}}
		write(l)
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(lab.well(ctx)).To(Succeed())
		Expect(published(ctx)).To(Succeed())
		lab.unchanged(ctx)

		was, _, err := podOf(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		resume := without(ctx)
		Eventually(func(ctx context.Context) (int, error) {
			is, restarts, err := podOf(ctx, spire.ServerContainer)
			if err == nil && is == was {
				err = errors.New("it is still the pod that was deleted")
			}
			return restarts, err
		}).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(BeNumerically(">", 0), "how often the server has ended")
		Expect(resume(ctx)).To(Succeed())
		Eventually(lab.well).WithContext(ctx).WithTimeout(rollout+machine).WithPolling(time.Second).Should(Succeed(), "without an up")

		By("and the publisher takes over what the notifier has written")
		write(intent(ports...))
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		d, _ := domain(ctx)
		_, err = lab.site(ctx, d.Name).API.PrepareX509Authority(ctx)
		Expect(err).NotTo(HaveOccurred())
		Eventually(published).WithContext(ctx).WithTimeout(federation.EndpointBound() + machine).WithPolling(poll).Should(Succeed())
		bound := federation.PropagationBound(federation.PollInterval(d.BundleEndpoint.RefreshHint, d.CATTL))
		Eventually(lab.well).WithContext(ctx).WithTimeout(bound+machine).WithPolling(poll).Should(Succeed(), "once the peer has the next authority, too")
	}, SpecTimeout(12*time.Minute))

	It("loses the other cluster without a trace in the server", func(ctx SpecContext) {
		l := intent(lab.graph.Workloads[1].Expose.String(), lab.graph.Workloads[2].Expose.String())
		l.Spec.Clusters = slices.Delete(l.Spec.Clusters, 1, 2)
		l.Spec.Workloads = slices.Delete(l.Spec.Workloads, 1, 2)
		write(l)
		left, err := existing(under.command, file())
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(left.close)
		Expect(left.fedlab(ctx, "up")).To(endWell())
		Expect(left.well(ctx)).To(Succeed())
		api := left.site(ctx, left.graph.Domains[0].Name).API
		Expect(entriesOf(ctx, api, "b")).To(BeEmpty())
		Expect(entriesOf(ctx, api, "a")).NotTo(BeEmpty())
		agents, err := api.Agents(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(agents).To(And(Not(BeEmpty()), HaveEach(HaveField("ID", WithTransform(spire.AttestedIn, Equal("a"))))))
		in, err := left.cluster("a")
		Expect(err).NotTo(HaveOccurred())
		_, there, err := in.Object(ctx, "v1", "Secret", topology.ServerNamespace, spire.KubeconfigsSecret)
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeFalse(), "the server still has a kubeconfig")
		Eventually(flowing(left.graph.Workloads[1])).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		lab.unchanged(ctx)
	}, SpecTimeout(6*time.Minute))

	It("leaves nothing", func(ctx SpecContext) { lab.cleared(ctx, before) }, SpecTimeout(3*time.Minute))
})
