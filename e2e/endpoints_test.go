package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	labs "github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// endpointsLab has an endpoint of each kind: a name alone, a certificate of one's own, one by
// ACME behind a proxy that passes TLS on, and one where a proxy ends it. Reader trusts all.
const endpointsLab = `apiVersion: fedlab.dev/v1alpha1
kind: Lab
metadata: {name: e2e-endpoints}
spec:
  clusters:
    - {name: here, trustDomains: [reader.example.com, named.example.com, own.example.com]}
    - {name: there, trustDomains: [ordered.example.com, passed.example.com, ended.example.com]}
  trustDomains:
    - {name: named.example.com, bundleEndpoint: {host: spire-bundle.named.example.com}}
    - name: own.example.com
      bundleEndpoint: {profile: https_web, host: federation.own.example.com, httpsWeb: {servingCert: {externalSecretRef: own-tls, cert: ./tls.crt, key: ./tls.key, ca: ./ca.crt, fileSyncInterval: 10s, shortIntervals: true}}}
    - name: ordered.example.com
      bundleEndpoint: {profile: https_web, route: passthrough, httpsWeb: {acme: {domainName: federation.ordered.example.com, email: admin@example.com, tosAccepted: true, ttl: 720h2m}}}
    - {name: passed.example.com, bundleEndpoint: {host: federation.passed.example.com, route: passthrough}}
    - {name: ended.example.com, bundleEndpoint: {profile: https_web, host: federation.ended.example.com, route: reencrypt, path: "/federation?format=spiffe", httpsWeb: {servingCert: {}}}}
  federation:
    - {from: reader.example.com, to: named.example.com}
    - {from: reader.example.com, to: own.example.com}
    - {from: reader.example.com, to: ordered.example.com}
    - {from: reader.example.com, to: passed.example.com}
    - {from: reader.example.com, to: ended.example.com}
`

// kubeletSync bounds how long a folder with a Secret stays as it was (the kubelet's
// syncFrequency of a minute, and the life of its cache on top), with the server's interval.
const kubeletSync = 2*time.Minute + 10*time.Second

var _ = Describe("Bundle endpoints", Ordered, Label("endpoints"), func() {
	var (
		l  *subject
		ca pki.Authority
		// running is the lab with its addresses.
		running *topology.Graph
	)
	const reader = "reader.example.com"
	// issue writes another certificate of the person's own into the files of the lab.
	issue := func() {
		GinkgoHelper()
		certificate, key, err := ca.ServingCert([]string{"federation.own.example.com"}, nil, 24*time.Hour)
		Expect(err).NotTo(HaveOccurred())
		for name, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key, "ca.crt": ca.CertificatePEM()} {
			Expect(os.WriteFile(filepath.Join(scratch(), name), content, 0o600)).To(Succeed())
		}
	}
	domain := func(name string) *topology.Domain {
		GinkgoHelper()
		of, err := running.FindDomain(name)
		Expect(err).NotTo(HaveOccurred())
		return of
	}
	// got is what the node of the reader's cluster is answered for a URL at the address of a
	// trust domain's endpoint, or of the proxy in front of it.
	got := func(ctx context.Context, td, url string) (labs.Answer, error) {
		return l.driver.Parts.Peers.Get(ctx, l.graph.Name, "here", url, domain(td).Server().PublicAddress())
	}
	shown := func(ctx context.Context, td string) *x509.Certificate {
		GinkgoHelper()
		answer, err := got(ctx, td, spire.BundleEndpointURL(domain(td).Server()))
		Expect(err).NotTo(HaveOccurred())
		Expect(answer.Status).To(Equal(http.StatusOK))
		Expect(answer.Chain).NotTo(BeEmpty())
		return answer.Chain[0]
	}
	// url is where the server of the reader fetches a bundle.
	url := func(ctx context.Context, td string) string {
		GinkgoHelper()
		all, err := l.site(ctx, spiffeid.RequireTrustDomainFromString(reader)).API.Relationships(ctx)
		Expect(err).NotTo(HaveOccurred())
		for _, r := range all {
			if r.Trusted.Name() == td {
				return r.URL
			}
		}
		return ""
	}
	BeforeAll(func(ctx SpecContext) {
		var err error
		ca, err = pki.NewRoot("internal CA", 48*time.Hour)
		Expect(err).NotTo(HaveOccurred())
		issue()
		file := filepath.Join(scratch(), "endpoints.yaml")
		Expect(os.WriteFile(file, []byte(endpointsLab), 0o644)).To(Succeed())
		l = raised(ctx, file, "a lab with an endpoint of each kind")
		running = l.open(ctx).Graph
	}, NodeTimeout(10*time.Minute))

	It("are found by their names, and every bundle is in sync", func(ctx SpecContext) {
		for td, want := range map[string]string{
			"named.example.com":   "https://spire-bundle.named.example.com:8443",
			"own.example.com":     "https://federation.own.example.com:8443",
			"ordered.example.com": "https://federation.ordered.example.com",
			"passed.example.com":  "https://federation.passed.example.com",
			"ended.example.com":   "https://federation.ended.example.com/federation?format=spiffe",
		} {
			Expect(url(ctx, td)).To(Equal(want), td)
		}
		Expect(l.well(ctx)).To(Succeed())
		Expect(l.fedlab(ctx, "drift")).To(endWell())
	}, NodeTimeout(2*time.Minute))

	It("show a certificate of one's own, and the next one after it was replaced in the files", func(ctx SpecContext) {
		first := shown(ctx, "own.example.com")
		Expect(first.CheckSignatureFrom(ca.Certificate)).To(Succeed())
		issue()
		Expect(l.fedlab(ctx, "up")).To(endWell())
		Eventually(func() string { return shown(ctx, "own.example.com").SerialNumber.String() }).WithContext(ctx).
			WithTimeout(kubeletSync).WithPolling(time.Second).ShouldNot(Equal(first.SerialNumber.String()))
		Expect(shown(ctx, "own.example.com").CheckSignatureFrom(ca.Certificate)).To(Succeed())
		Expect(l.well(ctx)).To(Succeed())
	}, SpecTimeout(5*time.Minute))

	It("show a certificate by ACME of the lab's root, and the next one while the lab runs", func(ctx SpecContext) {
		objects := l.site(ctx, spiffeid.RequireTrustDomainFromString("ordered.example.com")).Objects
		var secret struct {
			Data map[string][]byte `json:"data"`
		}
		_, err := objects.Object(ctx, access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: spire.ACMENamespace, Name: spire.ACMERootSecret}, &secret)
		Expect(err).NotTo(HaveOccurred())
		roots := x509.NewCertPool()
		Expect(roots.AppendCertsFromPEM(secret.Data[spire.SecretCertificate])).To(BeTrue())
		serial := func() string {
			GinkgoHelper()
			answer, err := got(ctx, "ordered.example.com", spire.BundleEndpointURL(domain("ordered.example.com").Server()))
			Expect(err).NotTo(HaveOccurred())
			above := x509.NewCertPool()
			for _, c := range answer.Chain[1:] {
				above.AddCert(c)
			}
			_, err = answer.Chain[0].Verify(x509.VerifyOptions{DNSName: "federation.ordered.example.com", Roots: roots, Intermediates: above})
			Expect(err).NotTo(HaveOccurred())
			return answer.Chain[0].SerialNumber.String()
		}
		first := serial()
		// SPIRE renews 30 days before the end, which is two minutes after the start, or up to an
		// hour earlier by chance.
		Eventually(serial).WithContext(ctx).WithTimeout(2*time.Minute + machine).WithPolling(time.Second).ShouldNot(Equal(first))
		Expect(l.well(ctx)).To(Succeed())
	}, SpecTimeout(5*time.Minute))

	It("show through passthrough the SVID of the server, and nothing to who asks for another name", func(ctx SpecContext) {
		passed := spiffeid.RequireTrustDomainFromString("passed.example.com")
		Expect(shown(ctx, passed.Name()).URIs).To(HaveExactElements(HaveField("String()", spire.ServerID(passed).String())))
		_, err := got(ctx, passed.Name(), "https://federation.elsewhere.example.com")
		Expect(err).To(HaveOccurred())
	}, SpecTimeout(time.Minute))

	It("show through reencrypt the certificate of the proxy, at the path with its query alone", func(ctx SpecContext) {
		ended := domain("ended.example.com").Server()
		behind, err := l.driver.Parts.Peers.Presented(ctx, l.graph.Name, "there", ended.Endpoint())
		Expect(err).NotTo(HaveOccurred())
		front := shown(ctx, "ended.example.com")
		Expect(front.SerialNumber).NotTo(Equal(behind[0].SerialNumber))
		Expect(front.DNSNames).To(Equal([]string{"federation.ended.example.com"}))
		for _, path := range []string{"/", "/federation", "/federation?format=other"} {
			answer, err := got(ctx, "ended.example.com", "https://federation.ended.example.com"+path)
			Expect(err).NotTo(HaveOccurred())
			Expect(answer.Status).To(Equal(http.StatusNotFound), path)
		}
	}, SpecTimeout(time.Minute))

	It("are refused by https_spiffe behind reencrypt, and status names the route", func(ctx SpecContext) {
		site := l.site(ctx, spiffeid.RequireTrustDomainFromString(reader))
		name := ""
		for _, r := range site.Relationships() {
			if r.Trusted.String() == "ended.example.com" {
				name = spire.ResourceName(r)
			}
		}
		key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind, Name: name}
		var resource struct {
			Metadata map[string]any                 `json:"metadata"`
			Spec     spire.FederatedTrustDomainSpec `json:"spec"`
		}
		there, err := site.Objects.Object(ctx, key, &resource)
		Expect(err).NotTo(HaveOccurred())
		Expect(there).To(BeTrue())
		resource.Spec.BundleEndpointProfile = spire.EndpointProfile{Type: topology.HTTPSSPIFFE, EndpointSPIFFEID: "spiffe://ended.example.com/spire/server"}
		_, err = site.Objects.Apply(ctx, map[string]any{"apiVersion": key.APIVersion, "kind": key.Kind, "metadata": map[string]any{"name": name, "labels": spire.Owned()}, "spec": resource.Spec})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() error {
			found, _, err := l.status(ctx)
			if err != nil {
				return err
			}
			r := relationshipOf(found, reader, "ended.example.com")
			if r.Cause != labs.WrongProfile || !strings.Contains(r.Problem, "the route of ended.example.com is reencrypt, so that a proxy ends TLS there") {
				return fmt.Errorf("%s: %s", r.Cause, r.Problem)
			}
			return nil
		}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		Expect(l.fedlab(ctx, "up")).To(endWell())
		Expect(l.well(ctx)).To(Succeed())
		Expect(url(ctx, "ended.example.com")).To(HaveSuffix("/federation?format=spiffe"))
	}, SpecTimeout(4*time.Minute))

	It("give way to another root, which reaches the reader through each proxy", func(ctx SpecContext) {
		truster := l.site(ctx, spiffeid.RequireTrustDomainFromString(reader)).API
		for _, td := range []string{"passed.example.com", "ended.example.com"} {
			api := l.site(ctx, spiffeid.RequireTrustDomainFromString(td)).API
			_, err := api.PrepareX509Authority(ctx)
			Expect(err).NotTo(HaveOccurred())
			source, err := api.Bundle(ctx)
			Expect(err).NotTo(HaveOccurred())
			Eventually(func() error {
				held, err := truster.HeldBundle(ctx, source.TrustDomain())
				if err != nil {
					return err
				}
				if c := federation.Compare(held, source); c.State != federation.InSync {
					return fmt.Errorf("the reader holds of %s what is %s", td, c)
				}
				return nil
			}).WithContext(ctx).WithTimeout(federation.NextPoll(source, nil) + machine).WithPolling(poll).Should(Succeed())
		}
	}, SpecTimeout(4*time.Minute))

	It("are unchanged by a second up", func(ctx SpecContext) { l.unchanged(ctx) }, SpecTimeout(2*time.Minute))
})
