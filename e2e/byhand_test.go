package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/kube"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Up and status say the same of what a person did by hand to a relationship.
var _ = Describe("A relationship that was changed by hand", Label("up", "slow"), func() {
	// atOnce is far below the bounds of the waits of up.
	const atOnce = time.Minute
	// unchanged expects an up that ends soon and changes nothing.
	unchanged := func(ctx context.Context) {
		GinkgoHelper()
		Expect(under.unchanged(ctx).Took).To(BeNumerically("<", atOnce))
	}

	It("stays where its URL has a name that the DNS of the cluster knows", func(ctx SpecContext) {
		p := under.pair()
		Expect(under.well(ctx)).To(Succeed())
		own, cluster, err := ownRelationship(ctx, p)
		Expect(err).NotTo(HaveOccurred())
		trusted := p.server.Domain()
		address := under.running(ctx, trusted.Name).Server().Address

		// It is held by name soon, and by address soon after.
		under.restored(rollout, func(ctx context.Context) error {
			errs := []error{cluster.Apply(ctx, own)}
			for _, object := range endpointByName(address, trusted.BundleEndpoint.Port) {
				errs = append(errs, cluster.Delete(ctx, object))
			}
			return errors.Join(append(errs, under.repaired(ctx))...)
		})
		for _, object := range endpointByName(address, trusted.BundleEndpoint.Port) {
			Expect(cluster.Apply(ctx, object)).To(Succeed())
		}
		url := fmt.Sprintf("https://bundle-endpoint.default.svc:%d", trusted.BundleEndpoint.Port)
		Expect(rewritten(ctx, p, func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointURL = url })).To(Succeed())
		Eventually(under.well).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).Should(Succeed(), "status goes by the name")
		Expect(under.fedlab(ctx, "drift")).To(endWell())
		unchanged(ctx)
		now, _, err := ownRelationship(ctx, p)
		Expect(err).NotTo(HaveOccurred())
		Expect(now.Spec).To(HaveField("BundleEndpointURL", url))
	}, SpecTimeout(5*time.Minute))

	It("is named by status and by up where a resource that fedlab has not made leads elsewhere", func(ctx SpecContext) {
		p := under.pair()
		Expect(under.well(ctx)).To(Succeed())
		under.restored(rollout, func(ctx context.Context) error {
			return errors.Join(remove(ctx, p.broker.Cluster().Name, spire.ResourceAPIVersion, spire.FederatedTrustDomainKind, "partner"), under.repaired(ctx))
		})
		Expect(replacedBy(ctx, p, "partner", nil, otherPort)).To(Succeed())
		const says = "its server follows ClusterFederatedTrustDomain partner, which is not the lab's own"
		Eventually(func(ctx context.Context) (string, error) {
			found, _, err := under.status(ctx)
			return relationshipOf(found, p.broker.Domain().String(), p.server.Domain().String()).Problem, err
		}).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).Should(HaveSuffix(says))

		up := under.fedlab(ctx, "up")
		Expect(up.Code).To(Equal(1), "it is no time limit that ends it")
		Expect(up.Took).To(BeNumerically("<", atOnce))
		Expect(up.Stderr).To(ContainSubstring("follows ClusterFederatedTrustDomain partner, which is not the lab's own: correct it, or delete it with 'kubectl --context "))
	}, SpecTimeout(5*time.Minute))

	It("is nobody's business where it is with a partner", func(ctx SpecContext) {
		p := under.pair()
		Expect(under.well(ctx)).To(Succeed())
		cluster, err := under.cluster(p.broker.Cluster().Name)
		Expect(err).NotTo(HaveOccurred())
		// up forgets the bundle.
		under.restored(rollout, func(ctx context.Context) error {
			var errs []error
			for _, name := range []string{"partner", "partner-of-others"} {
				errs = append(errs, remove(ctx, p.broker.Cluster().Name, spire.ResourceAPIVersion, spire.FederatedTrustDomainKind, name))
			}
			return errors.Join(append(errs, under.upAgain(ctx))...)
		})
		own, _, err := ownRelationship(ctx, p)
		Expect(err).NotTo(HaveOccurred())
		spec, ok := own.Spec.(spire.FederatedTrustDomainSpec)
		Expect(ok).To(BeTrue())
		// Who connects there is refused at once: a fetch that hangs would hold the server
		// up when the relationship goes.
		spec.TrustDomain, spec.BundleEndpointURL, spec.BundleEndpointProfile = "spiffe://partner.test", "https://127.0.0.1:9", spire.EndpointProfile{Type: topology.HTTPSWeb}
		for name, class := range map[string]string{"partner": "", "partner-of-others": "theirs"} {
			spec.ClassName = class
			Expect(cluster.Apply(ctx, spire.Resource{
				APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind, Metadata: spire.Metadata{Name: name}, Spec: spec,
			})).To(Succeed())
		}
		unchanged(ctx)
		found, code, err := under.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(0))
		Expect(found.Resources).To(ConsistOf(lab.ResourceStatus{
			Cluster: p.broker.Cluster().Name, Kind: spire.FederatedTrustDomainKind, Name: "partner-of-others",
			Problem: `it has the class "theirs", and no controller manager of the cluster serves that: nothing comes of it`,
		}))
	}, SpecTimeout(5*time.Minute))
})

// ownRelationship returns the resource by which the broker's trust domain trusts
// that of the server, with that trust domain's bundle of now, and the cluster that the
// resource is in.
func ownRelationship(ctx context.Context, p pair) (_ spire.Resource, _ *kube.Cluster, err error) {
	own := spire.Resource{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind}
	cluster, err := under.cluster(p.broker.Cluster().Name)
	if err != nil {
		return own, nil, err
	}
	own.Metadata = spire.Metadata{Name: spire.ResourceName(p.broker.Domain().TrustIn(p.server.Domain()).Relationships()[0]), Labels: spire.Owned()}
	object, found, err := cluster.Object(ctx, own.APIVersion, own.Kind, "", own.Metadata.Name)
	if err == nil && !found {
		err = fmt.Errorf("there is no %s %s", own.Kind, own.Metadata.Name)
	}
	if err != nil {
		return own, nil, err
	}
	var is struct {
		Spec spire.FederatedTrustDomainSpec `json:"spec"`
	}
	if err = convert(object, &is); err != nil {
		return own, nil, err
	}
	// The controller manager hands the server the bundle of the resource when a person
	// changes another field: that of now, whatever was rotated since up wrote it.
	opened, err := under.driver.Open(ctx, under.graph.Intent())
	if err != nil {
		return own, nil, err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	server, err := serverIn(ctx, opened, p.server.Domain())
	if err != nil {
		return own, nil, err
	}
	bundle, err := server.Bundle(ctx)
	if err != nil {
		return own, nil, err
	}
	now, err := spire.FederatedTrustDomain(p.broker.Domain().TrustIn(p.server.Domain()).Relationships()[0], bundle)
	if err != nil {
		return own, nil, err
	}
	if fresh, ok := now.Spec.(spire.FederatedTrustDomainSpec); ok {
		is.Spec.TrustDomainBundle = fresh.TrustDomainBundle
	}
	own.Spec = is.Spec
	return own, cluster, nil
}

// rewritten changes the spec of the lab's own resource.
func rewritten(ctx context.Context, p pair, change func(*spire.FederatedTrustDomainSpec)) error {
	own, cluster, err := ownRelationship(ctx, p)
	if err != nil {
		return err
	}
	spec, _ := own.Spec.(spire.FederatedTrustDomainSpec)
	change(&spec)
	own.Spec = spec
	return cluster.Apply(ctx, own)
}

// replacedBy puts a changed resource of another name in the place of the lab's own.
func replacedBy(ctx context.Context, p pair, name string, labels map[string]string, change func(*spire.FederatedTrustDomainSpec)) error {
	own, cluster, err := ownRelationship(ctx, p)
	if err != nil {
		return err
	}
	if err := remove(ctx, p.broker.Cluster().Name, own.APIVersion, own.Kind, own.Metadata.Name); err != nil {
		return err
	}
	spec, _ := own.Spec.(spire.FederatedTrustDomainSpec)
	change(&spec)
	own.Spec, own.Metadata = spec, spire.Metadata{Name: name, Labels: labels}
	return cluster.Apply(ctx, own)
}

// otherPort leads to where nobody listens.
func otherPort(s *spire.FederatedTrustDomainSpec) {
	s.BundleEndpointURL = s.BundleEndpointURL[:strings.LastIndex(s.BundleEndpointURL, ":")] + ":9999"
}

// endpointByName are the objects by which the DNS of a cluster knows a name of an address.
func endpointByName(address netip.Addr, port int) []any {
	meta := func(labels map[string]any) map[string]any {
		return map[string]any{"name": "bundle-endpoint", "namespace": "default", "labels": labels}
	}
	return []any{
		map[string]any{
			"apiVersion": "v1", "kind": "Service", "metadata": meta(nil),
			"spec": map[string]any{"clusterIP": "None", "ports": []any{map[string]any{"name": "bundle", "port": port}}},
		},
		map[string]any{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta(map[string]any{"kubernetes.io/service-name": "bundle-endpoint"}),
			"addressType": "IPv4", "ports": []any{map[string]any{"name": "bundle", "port": port}},
			"endpoints": []any{map[string]any{"addresses": []any{address.String()}, "conditions": map[string]any{"ready": true}}},
		},
	}
}

// upAgain runs up, also in a lab that is well.
func (s *subject) upAgain(ctx context.Context) error {
	e, err := s.run(ctx, "up", "--lab", s.file)
	if err == nil && e.Code != 0 {
		err = fmt.Errorf("up: exit code %d: %s", e.Code, e.Stderr)
	}
	return err
}
