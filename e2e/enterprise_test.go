package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/chromedp/chromedp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/jackc/pgx/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var _ = Describe("The enterprise lab", Ordered, ContinueOnFailure, Label("enterprise"), func() {
	var (
		c                            *company
		data, bridge                 door
		frontend, legacy, dataClient spiffeid.ID
	)
	BeforeAll(func(ctx SpecContext) {
		c = newCompany(ctx)
		data, bridge = c.door(ctx, "data-service"), c.door(ctx, "legacy-bridge")
		_, frontend = c.workload("frontend")
		_, legacy = c.workload("legacy-bridge")
		_, dataClient = c.workload("data-service")
	}, NodeTimeout(10*time.Minute))

	BeforeEach(func(ctx SpecContext) {
		By("all is well before")
		Eventually(c.well).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).Should(Succeed())
	}, NodeTimeout(2*time.Minute))

	It("has both profiles and two modes, and every bundle in sync", Label("status"), func(ctx SpecContext) {
		found, code, err := c.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(BeZero())
		var manners []string
		for _, r := range found.Relationships {
			Expect(r.Bundle).To(Equal(federation.InSync))
			manners = append(manners, r.Profile+" "+r.Mode)
		}
		slices.Sort(manners)
		Expect(manners).To(Equal([]string{
			"https_spiffe crd", "https_spiffe crd", "https_spiffe crd", "https_spiffe crd", "https_web crd", "https_web static",
		}))
		c.silent(ctx)
	}, NodeTimeout(2*time.Minute))

	It("shows who calls whom, by which profile, and what is refused", Label("page"), func(ctx SpecContext) {
		Eventually(c.asItShould).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		r, err := c.told(ctx)
		Expect(err).NotTo(HaveOccurred())
		crossed := map[string]string{} // profile by trust domains
		refused := 0
		for _, call := range r.Calls {
			caller, err := spiffeid.FromString(call.Caller)
			Expect(err).NotTo(HaveOccurred())
			server, err := spiffeid.FromString(call.Server)
			Expect(err).NotTo(HaveOccurred())
			if call.State == "refused" {
				refused++
				continue
			}
			Expect(call.Millis).To(BeNumerically(">", 0), call.Name)
			if caller.TrustDomain() != server.TrustDomain() {
				crossed[caller.TrustDomain().Name()+" "+server.TrustDomain().Name()] = call.Profile
			}
		}
		Expect(crossed).To(And(
			HaveKeyWithValue("aws.company.com gcp.company.com", "https_spiffe"),
			HaveKeyWithValue("aws.company.com onprem.company.com", "https_web"),
			HaveKeyWithValue("gcp.company.com onprem.company.com", "https_web"),
			HaveKeyWithValue("onprem.company.com gcp.company.com", "https_spiffe"),
		))
		Expect(refused).To(BeNumerically(">", 0))
	}, NodeTimeout(2*time.Minute))

	It("shows it in a browser", Label("page", "browser", "picture"), func(ctx SpecContext) {
		Eventually(c.asItShould).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		w, _ := c.workload("frontend")
		tab, said := browser(ctx, w.URL())
		Expect(sized(tab, 1400, 1000)).To(Succeed())
		Expect(chromedp.Do(tab, chromedp.Navigate(w.URL()))).To(Succeed())
		type shown struct {
			State  string
			Arrows int
			Facts  []string
		}
		Eventually(func() (shown, error) {
			return chromedp.Run(tab, chromedp.Evaluate[shown](`({
				State: document.body.dataset.state,
				Arrows: document.querySelectorAll("#map .edge:is([data-state=answered], [data-state=refused]) .words").length,
				Facts: [...document.querySelectorAll(".fact")].map((fact) => fact.dataset.state + " " + fact.querySelectorAll(".domain-name").length),
			})`))
		}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(And(
			HaveField("State", "live"),
			HaveField("Arrows", 4),
			// Relationships cannot be seen; bundles of two trust domains came.
			HaveField("Facts", []string{"unknown 2", "holds 2", "holds 2"})))
		Expect(screenshot(tab, "federation")).To(Succeed())
		Expect(picture(tab, "federation")).To(Succeed())
		Expect(said.all()).To(BeEmpty())
	}, NodeTimeout(2*time.Minute))

	It("gives aggregates to aws, raw records to onprem, and nothing to anybody else", Label("auth"), func(ctx SpecContext) {
		answer := func(id spiffeid.ID) (a struct {
			Type, Source, Client string
			Records              int
			Data                 json.RawMessage
		}) {
			code, body, err := data.get(ctx, data.client(c.mint(ctx, id)), "/api/process-data")
			Expect(err).NotTo(HaveOccurred())
			Expect(code).To(Equal(http.StatusOK), "%s", body)
			Expect(json.Unmarshal(body, &a)).To(Succeed())
			Expect(a.Client).To(Equal(id.String()))
			Expect(a.Source).To(Equal(gcp.Name()))
			Expect(a.Records).To(BeNumerically(">", 1000))
			return a
		}
		Expect(answer(frontend).Type).To(Equal("aggregated"))
		Expect(answer(legacy).Type).To(Equal("raw"))

		By("401 without an identity")
		Expect(data.refusedBy(ctx, nil, "/api/process-data", http.StatusUnauthorized).Rule).NotTo(BeEmpty())
		By("403 for another identity of an allowed domain, and for another domain with an allowed path")
		stranger := spiffeid.RequireFromPath(aws, "/stranger")
		r := data.refusedBy(ctx, c.mint(ctx, stranger), "/api/process-data", http.StatusForbidden)
		Expect(r.Rule).To(ContainSubstring("ALLOWED_CLIENT_IDS"))
		Expect(r.Caller).To(Equal(stranger.String()))
		twin := spiffeid.RequireFromPath(gcp, frontend.Path())
		Expect(data.refusedBy(ctx, c.mint(ctx, twin), "/api/process-data", http.StatusForbidden).Caller).To(Equal(twin.String()), "the same path in two domains is two identities")
		By("403 for raw records, which are not for aws")
		Expect(data.refusedBy(ctx, c.mint(ctx, frontend), "/api/process-data?type=raw", http.StatusForbidden).Rule).To(ContainSubstring("RAW_CLIENT_TRUST_DOMAINS"))
		By("health for those who may ask")
		code, body, err := bridge.get(ctx, bridge.client(c.mint(ctx, frontend)), "/api/health")
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(http.StatusOK), "%s", body)
		code, body, err = bridge.get(ctx, bridge.client(c.mint(ctx, frontend)), "/api/legacy-data")
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(http.StatusOK), "%s", body)
	}, NodeTimeout(2*time.Minute))

	It("refuses an SVID that claims a trust domain and that only another one's bundle verifies", Label("auth"), func(ctx SpecContext) {
		cluster, err := c.cluster("onprem")
		Expect(err).NotTo(HaveOccurred())
		object, found, err := cluster.Object(ctx, "v1", "Secret", topology.ServerNamespace, spire.UpstreamAuthoritySecret)
		Expect(err).NotTo(HaveOccurred())
		Expect(found).To(BeTrue())
		var secret struct {
			Data map[string][]byte `json:"data"`
		}
		Expect(convert(object, &secret)).To(Succeed())

		By("what the authority signs for its own domain is accepted")
		own, err := signed(secret.Data, legacy)
		Expect(err).NotTo(HaveOccurred())
		code, body, err := data.get(ctx, data.client(own), "/api/process-data")
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(http.StatusOK), "%s", body)
		By("and what it signs for another's is not")
		claimed, err := signed(secret.Data, frontend)
		Expect(err).NotTo(HaveOccurred())
		Expect(data.get(ctx, data.client(claimed), "/api/process-data")).Error().To(MatchError(ContainSubstring("tls: bad certificate")))
	}, NodeTimeout(time.Minute))

	It("lets the allowed identity, and no other, through to the bridge's database", Label("auth"), func(ctx SpecContext) {
		cluster, err := c.cluster("onprem")
		Expect(err).NotTo(HaveOccurred())
		w, _ := c.workload("legacy-bridge")
		object, found, err := cluster.Object(ctx, "v1", "Secret", w.Namespace, w.App.Database+"-login")
		Expect(err).NotTo(HaveOccurred())
		Expect(found).To(BeTrue())
		var secret struct {
			Data map[string][]byte `json:"data"`
		}
		Expect(convert(object, &secret)).To(Succeed())
		query := func(id spiffeid.ID) (n int, err error) {
			settings, err := pgx.ParseConfig("host=" + w.Name + " port=5432 user=app dbname=app sslmode=disable")
			if err != nil {
				return 0, err
			}
			settings.Password = string(secret.Data["password"])
			svid := c.mint(ctx, id)
			settings.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
			settings.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return handshake(ctx, bridge.dial(5432), bridge.client(svid))
			}
			conn, err := pgx.ConnectConfig(ctx, settings)
			if err != nil {
				return 0, err
			}
			defer func() { _ = conn.Close(ctx) }()
			err = conn.QueryRow(ctx, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'").Scan(&n)
			return n, err
		}
		Expect(query(dataClient)).To(BeNumerically(">", 0))
		_, err = query(frontend)
		Expect(err).To(HaveOccurred())
	}, NodeTimeout(time.Minute))

	It("renews the serving certificate of an https_web endpoint while it runs", Label("profile", "slow", "night"), func(ctx SpecContext) {
		// The sidecar renews when a third of the life remains: too late for a
		// spec. What makes it issue again at once is a life that has changed.
		endpoint := c.running(ctx, onprem).Server()
		shown := func(ctx context.Context) ([]*x509.Certificate, error) {
			return c.driver.Parts.Peers.Presented(ctx, c.graph.Name, endpoint.Place.Cluster.Name, endpoint.Endpoint())
		}
		before, err := shown(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(before[0].URIs).To(BeEmpty())
		DeferCleanup(func(ctx SpecContext) { Expect(c.become(ctx, func(*config.Lab) {})).To(endWell()) }, NodeTimeout(3*time.Minute))
		const ttl = 30 * time.Second
		Expect(c.become(ctx, func(l *config.Lab) {
			cert := l.Spec.TrustDomains[2].BundleEndpoint.HTTPSWeb.ServingCert
			cert.TTL, cert.FileSyncInterval = config.Duration(ttl), config.Duration(2*time.Second)
		})).To(endWell())
		first, err := shown(ctx)
		Expect(err).NotTo(HaveOccurred())
		began := time.Now()
		Eventually(func() (bool, error) {
			now, err := shown(ctx)
			return err == nil && !now[0].Equal(first[0]), err
		}).WithContext(ctx).WithTimeout(ttl + machine).WithPolling(poll).Should(BeTrue())
		measured("renewed after", began)
		Expect(c.well(ctx)).To(Succeed())
	}, NodeTimeout(5*time.Minute))

	Describe("Status", Label("status"), func() {
		// named waits until status names what is wrong with a relationship. What may heal by
		// itself before a look has ended is broken again before each.
		named := func(ctx context.Context, truster, trusted, cause string, again func(context.Context) error) {
			GinkgoHelper()
			Eventually(func(g Gomega, ctx context.Context) {
				g.Expect(again(ctx)).To(Succeed())
				found, code, err := c.status(ctx)
				g.Expect(err).NotTo(HaveOccurred())
				r := relationshipOf(found, truster, trusted)
				g.Expect(string(r.Cause)).To(Equal(cause), r.Problem)
				g.Expect(code).To(Equal(3))
			}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		}
		// broken waits until status names what is wrong with a relationship.
		broken := func(ctx context.Context, truster, trusted, cause string) {
			GinkgoHelper()
			named(ctx, truster, trusted, cause, func(context.Context) error { return nil })
		}
		// edited changes the resource by which aws trusts another, and puts it back.
		edited := func(ctx context.Context, trusted spiffeid.TrustDomain, change func(*spire.FederatedTrustDomainSpec)) {
			GinkgoHelper()
			cluster, err := c.cluster("aws")
			Expect(err).NotTo(HaveOccurred())
			object, found, err := cluster.Object(ctx, spire.ResourceAPIVersion, "ClusterFederatedTrustDomain", "", trusted.Name())
			Expect(err).NotTo(HaveOccurred())
			Expect(found).To(BeTrue())
			var resource struct {
				Spec spire.FederatedTrustDomainSpec `json:"spec"`
			}
			Expect(convert(object, &resource)).To(Succeed())
			apply := func(ctx context.Context, spec spire.FederatedTrustDomainSpec) error {
				return cluster.Apply(ctx, spire.Resource{
					APIVersion: spire.ResourceAPIVersion, Kind: "ClusterFederatedTrustDomain",
					Metadata: spire.Metadata{Name: trusted.Name(), Labels: spire.Owned()}, Spec: spec,
				})
			}
			c.restored(machine, func(ctx context.Context) error { return apply(ctx, resource.Spec) })
			spec := resource.Spec
			change(&spec)
			Expect(apply(ctx, spec)).To(Succeed())
		}

		It("names an endpoint that cannot be reached", func(ctx SpecContext) {
			cluster, err := c.cluster("gcp")
			Expect(err).NotTo(HaveOccurred())
			lead := func(ctx context.Context, to string) error {
				return cluster.Apply(ctx, map[string]any{
					"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "spire-bundle-endpoint", "namespace": topology.ServerNamespace},
					"spec": map[string]any{"selector": map[string]any{"app.kubernetes.io/name": to}},
				})
			}
			c.restored(machine, func(ctx context.Context) error { return lead(ctx, "spire-server") })
			Expect(lead(ctx, "nobody")).To(Succeed())
			broken(ctx, "aws.company.com", "gcp.company.com", "endpoint unreachable")
		}, NodeTimeout(3*time.Minute))

		DescribeTable("names the wrong profile",
			func(ctx SpecContext, trusted spiffeid.TrustDomain, wrong spire.EndpointProfile) {
				edited(ctx, trusted, func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointProfile = wrong })
				broken(ctx, "aws.company.com", trusted.Name(), "wrong profile")
			},
			Entry("where the endpoint's is https_spiffe", gcp, spire.EndpointProfile{Type: topology.HTTPSWeb}, NodeTimeout(3*time.Minute)),
			Entry("where the endpoint's is https_web", onprem,
				spire.EndpointProfile{Type: topology.HTTPSSPIFFE, EndpointSPIFFEID: spire.ServerID(onprem).String()}, NodeTimeout(3*time.Minute)),
		)

		It("names the wrong endpointSPIFFEID", func(ctx SpecContext) {
			edited(ctx, gcp, func(s *spire.FederatedTrustDomainSpec) {
				s.BundleEndpointProfile.EndpointSPIFFEID = "spiffe://gcp.company.com/somebody/else"
			})
			broken(ctx, "aws.company.com", "gcp.company.com", "wrong endpointSPIFFEID")
		}, NodeTimeout(3*time.Minute))

		It("names a relationship that is gone", func(ctx SpecContext) {
			cluster, err := c.cluster("aws")
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(func(ctx SpecContext) { Expect(c.fedlab(ctx, "up")).To(endWell()) }, NodeTimeout(2*time.Minute))
			Expect(cluster.Delete(ctx, map[string]any{
				"apiVersion": spire.ResourceAPIVersion, "kind": "ClusterFederatedTrustDomain", "metadata": map[string]any{"name": gcp.Name()},
			})).To(Succeed())
			broken(ctx, "aws.company.com", "gcp.company.com", "no relationship")
		}, NodeTimeout(3*time.Minute))

		It("names a missing and a differing bundle, and an entry without federatesWith", func(ctx SpecContext) {
			holder := c.site(ctx, aws).API
			held, err := holder.HeldBundle(ctx, gcp)
			Expect(err).NotTo(HaveOccurred())
			c.restored(federation.ReconcileBound()+federation.RegistrationBound()+machine, func(ctx context.Context) error { return holder.SetBundle(ctx, held) })
			Expect(holder.DeleteBundle(ctx, gcp, spire.DeleteDissociate)).To(Succeed())
			broken(ctx, "aws.company.com", "gcp.company.com", "missing bundle")

			By("with the bundle back, the entries still lack it until the controller manager looks again")
			foreign, err := pki.NewRoot("somebody else", time.Hour)
			Expect(err).NotTo(HaveOccurred())
			drifted := held.Clone()
			drifted.AddX509Authority(foreign.Certificate)
			named(ctx, "aws.company.com", "gcp.company.com", "differing bundle", func(ctx context.Context) error { return holder.SetBundle(ctx, drifted) })
		}, NodeTimeout(4*time.Minute))

		It("names an entry that does not ask for the bundle", func(ctx SpecContext) {
			w, _ := c.workload("frontend")
			cluster, err := c.cluster(w.Cluster().Name)
			Expect(err).NotTo(HaveOccurred())
			with := spire.WorkloadIdentity(w)
			spec, ok := with.Spec.(spire.WorkloadIdentitySpec)
			Expect(ok).To(BeTrue())
			spec.FederatesWith = []string{onprem.Name()}
			without := with
			without.Spec = spec
			c.restored(federation.RegistrationBound()+machine, func(ctx context.Context) error { return cluster.Apply(ctx, with) })
			Expect(cluster.Apply(ctx, without)).To(Succeed())
			broken(ctx, "aws.company.com", "gcp.company.com", "entry without federatesWith")
		}, NodeTimeout(3*time.Minute))

		It("names a misnamed certificate", func(ctx SpecContext) {
			// A second address that leads to the same endpoint, and that its
			// certificate does not have.
			cluster, err := c.cluster("onprem")
			Expect(err).NotTo(HaveOccurred())
			last := c.running(ctx, onprem).Server().Place.Cluster.Pool.Last
			service := map[string]any{
				"apiVersion": "v1", "kind": "Service",
				"metadata": map[string]any{
					"name": "second-endpoint", "namespace": topology.ServerNamespace, "annotations": map[string]any{"metallb.io/loadBalancerIPs": last.String()},
				},
				"spec": map[string]any{
					"type": "LoadBalancer", "publishNotReadyAddresses": true, "selector": map[string]any{"app.kubernetes.io/name": "spire-server"},
					"ports": []any{map[string]any{"name": "bundle", "port": 8443, "targetPort": "bundle"}},
				},
			}
			DeferCleanup(func(ctx SpecContext) { Expect(cluster.Delete(ctx, service)).To(Succeed()) }, NodeTimeout(time.Minute))
			Expect(cluster.Apply(ctx, service)).To(Succeed())
			edited(ctx, onprem, func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointURL = "https://" + last.String() + ":8443" })
			broken(ctx, "aws.company.com", "onprem.company.com", "misnamed certificate")
		}, NodeTimeout(3*time.Minute))

		It("names an unknown root, and an expired certificate", Label("slow", "night"), func(ctx SpecContext) {
			cluster, err := c.cluster("onprem")
			Expect(err).NotTo(HaveOccurred())
			object, found, err := cluster.Object(ctx, "v1", "Secret", topology.ServerNamespace, spire.WebCASecret)
			Expect(err).NotTo(HaveOccurred())
			Expect(found).To(BeTrue())
			var secret struct {
				Data map[string][]byte `json:"data"`
			}
			Expect(convert(object, &secret)).To(Succeed())
			use := func(ctx context.Context, data map[string][]byte) error {
				if err := cluster.Apply(ctx, map[string]any{
					"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": spire.WebCASecret, "namespace": topology.ServerNamespace}, "data": data,
				}); err != nil {
					return err
				}
				return cluster.Delete(ctx, map[string]any{
					"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": spire.ServerPod, "namespace": topology.ServerNamespace},
				})
			}
			c.restored(rollout, func(ctx context.Context) error { return use(ctx, secret.Data) })
			another, err := pki.NewRoot("another web CA", time.Minute)
			Expect(err).NotTo(HaveOccurred())
			key, err := another.KeyPEM()
			Expect(err).NotTo(HaveOccurred())
			Expect(use(ctx, map[string][]byte{spire.SecretCertificate: another.CertificatePEM(), spire.SecretKey: key})).To(Succeed())
			broken(ctx, "aws.company.com", "onprem.company.com", "unknown root")
			broken(ctx, "gcp.company.com", "onprem.company.com", "unknown root")
			By("it ends, and what it has issued ends with it")
			broken(ctx, "aws.company.com", "onprem.company.com", "expired certificate")
		}, NodeTimeout(6*time.Minute))
	})

	Describe("A change of the file", Label("up", "slow", "night"), func() {
		BeforeEach(func() {
			DeferCleanup(func(ctx SpecContext) { Expect(c.become(ctx, func(*config.Lab) {})).To(endWell()) }, NodeTimeout(5*time.Minute))
		})

		It("takes a relationship away: its bundle goes, and a new handshake is refused, resumed or not", Label("modes"), func(ctx SpecContext) {
			config := data.client(c.mint(ctx, legacy))
			config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			code, body, err := data.get(ctx, config, "/api/process-data")
			Expect(err).NotTo(HaveOccurred())
			Expect(code).To(Equal(http.StatusOK), "%s", body)

			Expect(c.become(ctx, without(gcp, onprem))).To(endWell())
			found, _, err := c.status(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(found.Problems()).To(BeEmpty())
			holder := c.site(ctx, gcp).API
			held, err := holder.HeldBundles(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(held).To(HaveLen(1))
			Expect(held[0].TrustDomain()).To(Equal(aws))

			Eventually(func() error {
				_, _, err := data.get(ctx, config, "/api/process-data")
				return err
			}).WithContext(ctx).WithTimeout(federation.RegistrationBound()+machine).WithPolling(poll).Should(
				MatchError(ContainSubstring("tls: ")), "with the session of the earlier call at hand")
			_, _, err = data.get(ctx, data.client(c.mint(ctx, legacy)), "/api/process-data")
			Expect(err).To(MatchError(ContainSubstring("tls: ")))

			By("and the others go on")
			Eventually(c.asItShould).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		}, NodeTimeout(5*time.Minute))

		It("goes from mode to mode without a call lost", Label("modes"), func(ctx SpecContext) {
			t := flow(data, data.client(c.mint(ctx, legacy)), "/api/process-data")
			defer t.end()
			for _, mode := range []topology.Mode{topology.Manual, topology.Static, topology.API, topology.CRD} {
				By(string(mode))
				Expect(c.become(ctx, by(mode))).To(endWell())
				found, code, err := c.status(ctx)
				Expect(err).NotTo(HaveOccurred())
				Expect(found.Problems()).To(BeEmpty())
				Expect(code).To(BeZero())
				for _, r := range found.Relationships {
					Expect(r.Mode).To(Equal(string(mode)))
				}
			}
			t.end()
			AddReportEntry("calls", fmt.Sprint(t.made), ReportEntryVisibilityAlways)
			Expect(t.lost).To(BeEmpty())
		}, NodeTimeout(10*time.Minute))

		It("adds a fourth domain and removes it again without a call lost", func(ctx SpecContext) {
			orders := flow(data, data.client(c.mint(ctx, frontend)), "/api/process-data")
			defer orders.end()
			ledger := flow(bridge, bridge.client(c.mint(ctx, frontend)), "/api/legacy-data")
			defer ledger.end()
			began := time.Now()
			Expect(c.become(ctx, func(l *config.Lab) {
				l.Spec.Clusters = append(l.Spec.Clusters, config.Cluster{Name: "edge", TrustDomain: "edge.company.com"})
				l.Spec.Workloads = append(l.Spec.Workloads, config.Workload{Name: "edge-gateway", App: "api-gateway", Cluster: "edge"})
			})).To(endWell())
			measured("fourth domain added in", began)
			Eventually(c.well).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).Should(Succeed())
			found, _, err := c.status(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(found.Relationships).To(HaveLen(12))

			began = time.Now()
			Expect(c.become(ctx, func(*config.Lab) {})).To(endWell())
			measured("fourth domain removed in", began)
			for _, td := range []spiffeid.TrustDomain{aws, gcp, onprem} {
				holder := c.site(ctx, td).API
				held, err := holder.HeldBundles(ctx)
				Expect(err).NotTo(HaveOccurred())
				Expect(held).To(HaveLen(2), td.Name())
			}
			orders.end()
			ledger.end()
			AddReportEntry("calls", fmt.Sprint(orders.made+ledger.made), ReportEntryVisibilityAlways)
			Expect(orders.lost).To(BeEmpty())
			Expect(ledger.lost).To(BeEmpty())
		}, NodeTimeout(10*time.Minute))

		It("is refused when it asks for another profile, with the reason and the way out", func(ctx SpecContext) {
			up := c.become(ctx, func(l *config.Lab) {
				l.Spec.TrustDomains[2].BundleEndpoint = config.BundleEndpoint{}
			})
			Expect(up.Code).NotTo(BeZero())
			Expect(up.Stderr).To(And(
				ContainSubstring("the bundleEndpoint.profile of cluster onprem is https_web, and the file asks for https_spiffe; it cannot be changed once it is set"),
				ContainSubstring("fedlab down"),
			))
		}, NodeTimeout(2*time.Minute))
	})
})

// by has each trust domain trust each other in one mode.
func by(mode topology.Mode) func(*config.Lab) {
	return func(l *config.Lab) { l.Spec.Federation = []config.Federation{{Shape: "mesh", Mode: string(mode)}} }
}

// without has all trust each other except two.
func without(a, b spiffeid.TrustDomain) func(*config.Lab) {
	return func(l *config.Lab) {
		l.Spec.Federation = nil
		for i, one := range l.Spec.Clusters {
			for _, other := range l.Spec.Clusters[i+1:] {
				pair := []string{one.TrustDomain, other.TrustDomain}
				if !slices.Contains(pair, a.Name()) || !slices.Contains(pair, b.Name()) {
					l.Spec.Federation = append(l.Spec.Federation, config.Federation{Between: pair})
				}
			}
		}
	}
}

// signed makes an SVID for an identity with the authority above a SPIRE server,
// as its Secret has it.
func signed(secret map[string][]byte, id spiffeid.ID) (*x509svid.SVID, error) {
	above, err := tls.X509KeyPair(secret[spire.SecretCertificate], secret[spire.SecretKey])
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Minute), NotAfter: time.Now().Add(5 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{id.URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above.Leaf, key.Public(), above.PrivateKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{leaf, above.Leaf}, PrivateKey: key}, err
}
