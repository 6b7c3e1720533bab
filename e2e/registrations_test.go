package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/kube"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// registrationsLab has two trust domains in one cluster, and the first one in another, too,
// with a replica of its workload. The manager of that trust domain has a prefix.
const registrationsLab = `
apiVersion: fedlab.dev/v1alpha1
kind: Lab
metadata: {name: e2e-registrations}
spec:
  clusters:
    - {name: market, trustDomains: [cluster1.com, cluster2.com]}
    - {name: branch, trustDomain: cluster1.com}
  trustDomains:
    - {name: cluster1.com, entryPrefix: lab, svid: {x509TTL: 20m}}
  federation:
    - {between: [cluster1.com, cluster2.com]}
  workloads:
    - {app: stock-quotes, cluster: market, trustDomain: cluster1.com}
    - {name: branch-quotes, app: stock-quotes, cluster: branch, replicaOf: stock-quotes}
    - {app: broker-webapp, cluster: market, trustDomain: cluster2.com, calls: [stock-quotes]}
  registrations:
%s`

// articleRegistrations are the article's four ClusterSPIFFEIDs, as the guide of the
// enterprise lab says to write them, each with a life and a hint that nothing else has.
const articleRegistrations = `
    - name: aws-frontend-service
      trustDomain: cluster1.com
      clusterSPIFFEID:
        spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/service/{{ .PodMeta.Labels.service }}"
        podSelector: {matchLabels: {component: frontend}}
        namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: production}}
        workloadSelectorTemplates: ["k8s:ns:{{ .PodMeta.Namespace }}", "k8s:sa:{{ .PodSpec.ServiceAccountName }}", "k8s:pod-label:service:{{ .PodMeta.Labels.service }}"]
        federatesWith: [cluster2.com]
        dnsNameTemplates: ["{{ .PodMeta.Labels.service }}.{{ .PodMeta.Namespace }}.svc.cluster.local", frontend.aws.company.com]
        ttl: 1h
        hint: frontend
    - name: gcp-data-service
      trustDomain: cluster1.com
      clusterSPIFFEID:
        spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/service/{{ .PodMeta.Labels.service }}/version/{{ .PodMeta.Labels.version }}"
        podSelector: {matchLabels: {component: data-processing}}
        workloadSelectorTemplates: ["k8s:ns:{{ .PodMeta.Namespace }}", "k8s:pod-label:version:{{ .PodMeta.Labels.version }}"]
        federatesWith: [cluster2.com]
        dnsNameTemplates: ["{{ .PodMeta.Labels.service }}.{{ .PodMeta.Namespace }}.svc.cluster.local", data.gcp.company.com]
        ttl: 61m
        hint: data
    - name: onprem-legacy-bridge
      trustDomain: cluster1.com
      clusterSPIFFEID:
        spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/datacenter/{{ .PodMeta.Labels.datacenter }}/system/{{ .PodMeta.Labels.system }}"
        podSelector: {matchLabels: {component: legacy-bridge}}
        workloadSelectorTemplates: ["k8s:ns:{{ .PodMeta.Namespace }}", "k8s:pod-label:system:{{ .PodMeta.Labels.system }}"]
        federatesWith: [cluster2.com]
        dnsNameTemplates: ["{{ .PodMeta.Labels.system }}.{{ .PodMeta.Namespace }}.svc.cluster.local", legacy.onprem.company.com]
        ttl: 2h
        hint: legacy
    - name: cross-domain-gateway
      trustDomain: cluster1.com
      clusterSPIFFEID:
        spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/gateway/{{ index .PodMeta.Labels \"gateway-type\" }}/{{ .PodMeta.Labels.region }}"
        podSelector: {matchLabels: {component: api-gateway}}
        workloadSelectorTemplates: ["k8s:ns:{{ .PodMeta.Namespace }}", "k8s:pod-label:region:{{ .PodMeta.Labels.region }}"]
        federatesWith: [cluster2.com]
        dnsNameTemplates: ["api-gateway.{{ .PodMeta.Namespace }}.svc.cluster.local", "api.{{ .TrustDomain }}"]
        ttl: 62m
        hint: gateway
`

// otherRegistrations are a ClusterStaticEntry, and what 3-register.sh of another article
// makes: a node alias, and an entry below it.
const otherRegistrations = `
    - name: static
      trustDomain: cluster1.com
      clusterStaticEntry:
        spiffeID: spiffe://cluster1.com/static
        parentID: spiffe://cluster1.com/spire-agent
        selectors: ["k8s:ns:production", "k8s:pod-label:component:static"]
        federatesWith: [cluster2.com]
        dnsNames: [static.production.svc, "*.static.production.svc"]
        x509SVIDTTL: 63m
        hint: static
    - name: nodes
      trustDomain: cluster1.com
      entry: {spiffeID: "spiffe://cluster1.com/spire-agent", parentID: "spiffe://cluster1.com/spire/server", selectors: ["k8s_psat:cluster:market"]}
    - name: plain
      trustDomain: cluster1.com
      entry:
        spiffeID: spiffe://cluster1.com/plain
        parentID: spiffe://cluster1.com/spire-agent
        selectors: ["k8s:ns:production", "k8s:pod-label:component:plain"]
        federatesWith: [cluster2.com]
        dnsNames: [plain.production.svc]
        x509SVIDTTL: 64m
        hint: plain
`

// wrongRegistrations give two pods one identity, and nobody any.
const wrongRegistrations = `
    - name: broad
      trustDomain: cluster1.com
      entry: {spiffeID: "spiffe://cluster1.com/broad", parentID: "spiffe://cluster1.com/spire-agent", selectors: ["k8s:ns:staging"], hint: broad}
    - name: narrow
      trustDomain: cluster1.com
      entry: {spiffeID: "spiffe://cluster1.com/narrow", parentID: "spiffe://cluster1.com/spire-agent", selectors: ["k8s:ns:staging", "k8s:sa:nobody"], hint: narrow}
    - name: orphan
      trustDomain: cluster1.com
      entry: {spiffeID: "spiffe://cluster1.com/orphan", parentID: "spiffe://cluster1.com/spire/agent/k8s_psat/market/nobody", selectors: ["k8s:ns:staging"], hint: orphan}
`

// held is what a pod has from the Workload API, by hint.
type held map[string]heldSVID

// heldSVID is an X509-SVID as far as its registration decides on it.
type heldSVID struct {
	ID       string
	DNSNames []string
	TTL      time.Duration
	Bundles  []string
}

var _ = Describe("Registrations of the lab file", Ordered, Label("registration", "night"), func() {
	var (
		named   *subject
		cluster *kube.Cluster
	)
	file := func() string { return filepath.Join(scratch(), "registrations.yaml") }
	write := func(registrations ...string) {
		GinkgoHelper()
		text := strings.Join(registrations, "")
		if text == "" {
			text = "    []"
		}
		Expect(os.WriteFile(file(), fmt.Appendf(nil, registrationsLab, text), 0o644)).To(Succeed())
	}
	// pod runs the program of the lab's workload once more, for which the lab has no
	// identity. It is not ready then, and can be asked.
	pod := func(ctx context.Context, name, namespace string, labels map[string]string) {
		GinkgoHelper()
		w := named.graph.Workloads[0]
		object, there, err := cluster.Object(ctx, "apps/v1", "Deployment", w.Namespace, w.App.Deployment)
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeTrue())
		template := object["spec"].(map[string]any)["template"].(map[string]any)
		own := map[string]any{"pod": name}
		for label, value := range labels {
			own[label] = value
		}
		template["metadata"] = map[string]any{"labels": own}
		delete(template["spec"].(map[string]any), "serviceAccountName")
		delete(template["spec"].(map[string]any), "serviceAccount")
		Expect(cluster.Apply(ctx,
			map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}},
			map[string]any{
				"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name, "namespace": namespace},
				"spec": map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"pod": name}}, "template": template},
			},
		)).To(Succeed())
	}
	// has returns what the pod of a name has from the Workload API.
	has := func(ctx context.Context, name, namespace string) (held, error) {
		pods, err := cluster.Pods(ctx, namespace, "pod="+name)
		if err == nil && len(pods) != 1 {
			err = fmt.Errorf("there are %d pods", len(pods))
		}
		if err != nil {
			return nil, err
		}
		out, err := cluster.Exec(ctx, namespace, pods[0].Name, pods[0].Containers[0].Name, "/stock-quotes", "svid")
		if err != nil {
			return nil, err
		}
		return heldIn(out)
	}
	// bound is how long a registration may take to a pod.
	bound := federation.ReconcileBound() + federation.RegistrationBound() + machine
	site := func(ctx context.Context, of string) *lab.Site {
		GinkgoHelper()
		return named.site(ctx, spiffeid.RequireTrustDomainFromString(of))
	}
	heldBy := func(found lab.Status, name string) []string {
		GinkgoHelper()
		i := slices.IndexFunc(found.Registrations, func(r lab.RegistrationStatus) bool { return r.Name == name })
		Expect(i).To(BeNumerically(">=", 0), name)
		return found.Registrations[i].HeldBy
	}

	BeforeAll(func(ctx SpecContext) {
		write(articleRegistrations, otherRegistrations)
		named = raised(ctx, file(), "a lab with registrations")
		var err error
		cluster, err = named.cluster("market")
		Expect(err).NotTo(HaveOccurred())
		pod(ctx, "web", "production", map[string]string{"component": "frontend", "service": "web"})
		pod(ctx, "elsewhere", "staging", map[string]string{"component": "frontend", "service": "web"})
		pod(ctx, "data", "production", map[string]string{"component": "data-processing", "service": "data", "version": "v2"})
		pod(ctx, "bridge", "production", map[string]string{"component": "legacy-bridge", "datacenter": "dc1", "system": "erp"})
		pod(ctx, "gateway", "production", map[string]string{"component": "api-gateway", "gateway-type": "edge", "region": "market"})
		pod(ctx, "static", "production", map[string]string{"component": "static"})
		pod(ctx, "plain", "production", map[string]string{"component": "plain"})
	}, NodeTimeout(10*time.Minute))

	DescribeTable("give a pod its X509-SVID, with DNS names, life and hint, by", func(ctx SpecContext, name, hint, path string, ttl time.Duration, dnsNames ...string) {
		want := held{hint: {ID: "spiffe://cluster1.com" + path, DNSNames: dnsNames, TTL: ttl, Bundles: []string{"cluster1.com", "cluster2.com"}}}
		Eventually(has).WithContext(ctx).WithArguments(name, "production").WithTimeout(bound).WithPolling(poll).Should(Equal(want))
	},
		Entry("the article's ClusterSPIFFEID of the frontend", "web", "frontend", "/ns/production/service/web", time.Hour, "web.production.svc.cluster.local", "frontend.aws.company.com", NodeTimeout(3*time.Minute)),
		Entry("that of the data service", "data", "data", "/ns/production/service/data/version/v2", 61*time.Minute, "data.production.svc.cluster.local", "data.gcp.company.com", SpecTimeout(3*time.Minute)),
		Entry("that of the legacy bridge", "bridge", "legacy", "/datacenter/dc1/system/erp", 2*time.Hour, "erp.production.svc.cluster.local", "legacy.onprem.company.com", SpecTimeout(3*time.Minute)),
		Entry("that of the gateway", "gateway", "gateway", "/gateway/edge/market", 62*time.Minute, "api-gateway.production.svc.cluster.local", "api.cluster1.com", SpecTimeout(3*time.Minute)),
		Entry("a ClusterStaticEntry", "static", "static", "/static", 63*time.Minute, "static.production.svc", "*.static.production.svc", SpecTimeout(3*time.Minute)),
		Entry("an entry below a node alias", "plain", "plain", "/plain", 64*time.Minute, "plain.production.svc", SpecTimeout(3*time.Minute)),
	)

	It("are well, and told with those who hold them", func(ctx SpecContext) {
		Eventually(named.well).WithContext(ctx).WithTimeout(bound).WithPolling(time.Second).Should(Succeed())
		found, _, err := named.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		for name, pod := range map[string]string{
			"aws-frontend-service": "web", "gcp-data-service": "data", "onprem-legacy-bridge": "bridge", "cross-domain-gateway": "gateway", "static": "static", "plain": "plain",
		} {
			Expect(heldBy(found, name)).To(ConsistOf(HavePrefix("pod production/"+pod+"-")), name)
		}
		Expect(heldBy(found, "nodes")).To(Equal([]string{"node in market"}))
		_, err = has(ctx, "elsewhere", "staging")
		Expect(err).To(MatchError(ContainSubstring("PermissionDenied")), "another namespace has the same labels")
		named.unchanged(ctx)

		By("a replica has the SPIFFE ID of the workload in the other cluster")
		for _, name := range []string{"stock-quotes", "branch-quotes"} {
			e := named.fedlab(ctx, "svid", name, "-o", "json")
			Expect(e).To(endWell())
			var svids lab.SVIDs
			Expect(json.Unmarshal([]byte(e.Stdout), &svids)).To(Succeed())
			Expect(svids.X509).To(ConsistOf(HaveField("SPIFFEID", "spiffe://cluster1.com/server")), name)
		}
	}, SpecTimeout(3*time.Minute))

	It("are repaired", func(ctx SpecContext) {
		api := site(ctx, "cluster1.com").API
		Expect(api.DeleteEntry(ctx, "fedlab.plain")).To(Succeed())
		Expect(cluster.Delete(ctx, map[string]any{"apiVersion": spire.ResourceAPIVersion, "kind": "ClusterStaticEntry", "metadata": map[string]any{"name": "static"}})).To(Succeed())
		found, code, err := named.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(ConsistOf(
			"registration plain: the server has no entry fedlab.plain: the next up makes it",
			"registration static: there is no ClusterStaticEntry static: the next up makes it",
		))
		Expect(named.fedlab(ctx, "up")).To(endWell())
		Expect(named.well(ctx)).To(Succeed())
	}, SpecTimeout(3*time.Minute))

	It("let plain entries stay where the manager has a prefix, and only there", func(ctx SpecContext) {
		spireServer := func(of string, args ...string) ended {
			GinkgoHelper()
			e, err := named.run(ctx, append([]string{"spire", "--lab", named.file, of, "--"}, args...)...)
			Expect(err).NotTo(HaveOccurred())
			return e
		}
		ids := func(ctx context.Context, of *lab.Site) ([]string, error) {
			entries, err := of.API.Entries(ctx)
			var all []string
			for _, e := range entries {
				all = append(all, e.ID)
			}
			return all, err
		}
		for _, of := range []string{"cluster1.com", "cluster2.com"} {
			Expect(spireServer(of, "entry", "create", "-entryID", "by-hand", "-spiffeID", "spiffe://"+of+"/by-hand",
				"-parentID", "spiffe://"+of+"/spire-agent", "-selector", "k8s:sa:nobody")).To(endWell(), of)
		}
		began := time.Now()
		Eventually(ids).WithContext(ctx).WithArguments(site(ctx, "cluster2.com")).WithTimeout(federation.ReconcileBound() + machine).WithPolling(poll).ShouldNot(ContainElement("by-hand"))
		measured("without a prefix it goes within", began)

		By("also when the manager starts again")
		home := named.graph.Domains[0].Server().Place.Namespace
		Expect(cluster.Delete(ctx, map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": spire.ServerPod, "namespace": home}})).To(Succeed())
		Eventually(named.well).WithContext(ctx).WithTimeout(rollout).WithPolling(time.Second).Should(Succeed())
		// What it does about this resource, it does after it has looked at all entries.
		sign := clusterSPIFFEID("e2e-sign", "spiffe://{{ .TrustDomain }}/sign")
		sign["spec"].(map[string]any)["podSelector"] = map[string]any{"matchLabels": map[string]any{"component": "static"}}
		DeferCleanup(func(ctx SpecContext) { Expect(cluster.Delete(ctx, sign)).To(Succeed()) }, NodeTimeout(time.Minute))
		Expect(cluster.Apply(ctx, sign)).To(Succeed())
		started := site(ctx, "cluster1.com")
		Eventually(func(ctx context.Context) error {
			entries, err := started.API.Entries(ctx)
			if err == nil && !slices.ContainsFunc(entries, func(e spire.Entry) bool { return e.SPIFFEID.Path() == "/sign" }) {
				err = errors.New("the manager has made no entry of the resource")
			}
			return err
		}).WithContext(ctx).WithTimeout(federation.ReconcileBound() + machine).WithPolling(poll).Should(Succeed())
		Expect(ids(ctx, started)).To(ContainElements("by-hand", "fedlab.nodes", "fedlab.plain"))
		Expect(named.fedlab(ctx, "up")).To(endWell())
		Expect(ids(ctx, started)).To(ContainElement("by-hand"), "up leaves it alone")
		Expect(spireServer("cluster1.com", "entry", "delete", "-entryID", "by-hand")).To(endWell())
	}, SpecTimeout(5*time.Minute))

	It("are told where they are too broad, too narrow or below nobody", func(ctx SpecContext) {
		pod(ctx, "twin", "staging", map[string]string{"component": "twin"})
		write(articleRegistrations, otherRegistrations, wrongRegistrations)
		Expect(named.fedlab(ctx, "up")).To(endWell(), "it makes what the file says")
		for _, name := range []string{"elsewhere", "twin"} {
			Eventually(func(ctx context.Context) ([]string, error) {
				is, err := has(ctx, name, "staging")
				return slices.Sorted(maps.Keys(is)), err
			}).WithContext(ctx).WithTimeout(bound).WithPolling(poll).Should(Equal([]string{"broad"}), name)
		}
		found, code, err := named.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(heldBy(found, "broad")).To(ConsistOf(HavePrefix("pod staging/elsewhere-"), HavePrefix("pod staging/twin-")))
		Expect(heldBy(found, "narrow")).To(BeEmpty())
		Expect(heldBy(found, "orphan")).To(BeEmpty())
		const problem = "its parent spiffe://cluster1.com/spire/agent/k8s_psat/market/nobody is no agent that has attested, and no entry that such an agent is given: nobody gets the identity"
		Expect(found.Problems()).To(Equal([]string{"registration orphan: " + problem}))
		explained, err := named.run(ctx, "explain", problem)
		Expect(err).NotTo(HaveOccurred())
		Expect(explained).To(And(endWell(), HaveField("Stdout", ContainSubstring("agent show"))))
	}, SpecTimeout(5*time.Minute))

	It("go with the lines of the file", func(ctx SpecContext) {
		write()
		Expect(named.fedlab(ctx, "up")).To(endWell())
		Expect(named.well(ctx)).To(Succeed())
		api := site(ctx, "cluster1.com").API
		Eventually(func(ctx context.Context) ([]string, error) {
			entries, err := api.Entries(ctx)
			var all []string
			for _, e := range entries {
				all = append(all, e.SPIFFEID.Path())
			}
			return all, err
		}).WithContext(ctx).WithTimeout(bound).WithPolling(poll).Should(ConsistOf("/server", "/server"), "those of the workload and of its replica")
	}, SpecTimeout(4*time.Minute))
})

// heldIn reads what a demo program prints of what it has from the Workload API.
func heldIn(out []byte) (held, error) {
	var said struct {
		X509 []struct {
			Hint  string   `json:"hint"`
			Chain [][]byte `json:"chain"`
		} `json:"x509"`
		Bundles []string `json:"bundles"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return nil, err
	}
	all := held{}
	for _, svid := range said.X509 {
		leaf, err := x509.ParseCertificate(svid.Chain[0])
		if err != nil {
			return nil, err
		}
		// SPIRE has a certificate begin earlier than now (pkg/server/ca, notBeforeTolerance).
		const early = 10 * time.Second
		all[svid.Hint] = heldSVID{ID: leaf.URIs[0].String(), DNSNames: leaf.DNSNames, TTL: leaf.NotAfter.Sub(leaf.NotBefore) - early, Bundles: slices.Sorted(slices.Values(said.Bundles))}
	}
	return all, nil
}
