package e2e

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// The quotes go from a trust domain with RSA keys to one with EC keys.
var _ = Describe("Trust domains with keys of different types", Ordered, Label("keys", "night"), func() {
	const (
		rsaDomain, ecDomain = "cluster1.com", "cluster2.com"
		rsaKey, ecKey       = "*rsa.PublicKey", "*ecdsa.PublicKey"
	)
	var (
		lab        *subject
		file, page string
	)
	// write writes the lab file, with the type of keys of the second trust domain.
	write := func(keyType topology.KeyType) {
		GinkgoHelper()
		data, err := config.Marshal(config.Lab{
			APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: "e2e-keys"},
			Spec: config.Spec{
				Clusters: []config.Cluster{{Name: "market", TrustDomain: rsaDomain}, {Name: "broker", TrustDomain: ecDomain}},
				TrustDomains: []config.TrustDomain{
					{Name: rsaDomain, CA: config.CA{KeyType: string(topology.RSA2048)}},
					{Name: ecDomain, CA: config.CA{KeyType: string(keyType)}},
				},
				Federation: []config.Federation{{Between: []string{rsaDomain, ecDomain}}},
				Workloads: []config.Workload{
					{App: "stock-quotes", Cluster: "market"},
					{App: "broker-webapp", Cluster: "broker", Expose: page},
				},
			},
		})
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file, data, 0o644)).To(Succeed())
	}
	// servers returns the API of the server of a trust domain, and that of its peer.
	servers := func(ctx context.Context, name string) (of *topology.Domain, own, peer *spire.Server) {
		GinkgoHelper()
		l := lab.open(ctx)
		of, err := l.Graph.FindDomain(name)
		Expect(err).NotTo(HaveOccurred())
		own, err = serverIn(ctx, l, of)
		Expect(err).NotTo(HaveOccurred())
		peer, err = serverIn(ctx, l, of.TrustedBy[0].Truster)
		Expect(err).NotTo(HaveOccurred())
		return of, own, peer
	}
	BeforeAll(func(ctx SpecContext) {
		var err error
		page, err = freePort(ctx)
		Expect(err).NotTo(HaveOccurred())
		file = filepath.Join(scratch(), "keys.yaml")
		write(topology.ECP256)
		lab = raised(ctx, file, "keys of two types")
	}, NodeTimeout(10*time.Minute))

	It("have them in their bundles, and in what the peer holds", func(ctx SpecContext) {
		Expect(lab.well(ctx)).To(Succeed())
		Expect(lab.fedlab(ctx, "drift")).To(endWell())
		for name, want := range map[string]string{rsaDomain: rsaKey, ecDomain: ecKey} {
			of, own, peer := servers(ctx, name)
			bundle, err := own.Bundle(ctx)
			Expect(err).NotTo(HaveOccurred())
			held, err := peer.HeldBundle(ctx, of.Name)
			Expect(err).NotTo(HaveOccurred())
			for whose, b := range map[string]*spiffebundle.Bundle{"its own": bundle, "the peer's": held} {
				Expect(keysIn(b)).To(And(HaveLen(2), HaveEach(want)), "%s, %s", name, whose)
			}
		}
	}, NodeTimeout(2*time.Minute))

	It("verify each other's workloads", func(ctx SpecContext) {
		p := lab.pair()
		Eventually(flowing(p.broker)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		v, err := ask(ctx, p.broker)
		Expect(err).NotTo(HaveOccurred())
		Expect(v.Peer.ID).To(Equal(p.server.ID.String()))
		Expect(v.Peer.VerifiedBy.TrustDomain).To(Equal(rsaDomain))
		_, own, _ := servers(ctx, rsaDomain)
		bundle, err := own.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(keysIn(bundle)).To(HaveKeyWithValue(v.Peer.VerifiedBy.SubjectKeyID, rsaKey))
		Expect(lab.logged(ctx, p.server, "client authenticated")).To(ContainElement(And(
			HaveKeyWithValue("spiffe_id", p.broker.ID.String()), HaveKeyWithValue("bundle", ecDomain))))
	}, SpecTimeout(2*time.Minute))

	It("sign JWT-SVIDs by the algorithm of their keys", func(ctx SpecContext) {
		l := lab.open(ctx)
		for name, want := range map[string]string{"stock-quotes": "RS256", "broker-webapp": "ES256"} {
			w, err := l.Graph.FindWorkload(name)
			Expect(err).NotTo(HaveOccurred())
			svids, err := l.SVIDs(ctx, w, "e2e")
			Expect(err).NotTo(HaveOccurred())
			Expect(svids.JWT).To(HaveLen(1), name)
			Expect(algorithmOf(svids.JWT[0].Token)).To(Equal(want), name)
			Expect(svids.X509).To(HaveLen(1), name)
			// By its own server's bundle, and by what the peer holds.
			Expect(svids.JWT[0].Verified).To(And(HaveLen(2), HaveEach(HaveField("Problem", BeEmpty()))), name)
			Expect(svids.X509[0].Verified).To(And(HaveLen(2), HaveEach(HaveField("Problem", BeEmpty()))), name)
		}
	}, SpecTimeout(2*time.Minute))

	It("keep their authorities when the file names another type, and prepare the next one with it", func(ctx SpecContext) {
		_, own, _ := servers(ctx, ecDomain)
		before, err := own.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		write(topology.RSA2048)
		Expect(lab.fedlab(ctx, "up")).To(endWell())
		Expect(lab.well(ctx)).To(Succeed())
		Eventually(flowing(lab.pair().broker)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())

		of, own, peer := servers(ctx, ecDomain)
		now, err := own.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(federation.Compare(now, before).State).To(Equal(federation.InSync))
		lab.unchanged(ctx)

		next, err := own.PrepareX509Authority(ctx)
		Expect(err).NotTo(HaveOccurred())
		bound := federation.PropagationBound(federation.PollInterval(of.BundleEndpoint.RefreshHint, of.CATTL))
		Eventually(func() (map[string]string, error) {
			held, err := peer.HeldBundle(ctx, of.Name)
			if held == nil {
				return nil, err
			}
			return keysIn(held), err
		}).WithContext(ctx).WithTimeout(bound + machine).WithPolling(poll).Should(And(HaveLen(3), HaveKeyWithValue(next.ID, rsaKey), ContainElement(ecKey)))
	}, SpecTimeout(5*time.Minute))
})

// keysIn returns the Go types of the keys in a bundle, by the ID of the authority.
func keysIn(bundle *spiffebundle.Bundle) map[string]string {
	keys := map[string]string{}
	for _, root := range bundle.X509Authorities() {
		keys[hex.EncodeToString(root.SubjectKeyId)] = fmt.Sprintf("%T", root.PublicKey)
	}
	for id, key := range bundle.JWTAuthorities() {
		keys[id] = fmt.Sprintf("%T", key)
	}
	return keys
}

// algorithmOf returns the one that a JWT-SVID is signed by; an error has nothing of the
// token, which is a credential.
func algorithmOf(token string) (string, error) {
	encoded, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return "", err
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	err = json.Unmarshal(text, &header)
	return header.Algorithm, err
}
