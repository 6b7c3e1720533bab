package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// The lab of the guide: a gateway in aws takes JWT-SVIDs of gcp, and the issuer of aws has
// its documents served.
var _ = Describe("JWT-SVIDs", Ordered, Label("tokens", "night"), func() {
	var (
		l        *subject
		aws, gcp spiffeid.TrustDomain
		gateway  *topology.Workload
		frontend *topology.Workload
		// anonymous presents no certificate to the gateway.
		anonymous *http.Client
	)
	BeforeAll(func(ctx SpecContext) {
		file, err := labFile(ctx, filepath.Join(root, "docs", "guides", "tokens.yaml"), "e2e-")
		Expect(err).NotTo(HaveOccurred())
		l = raised(ctx, file, "a lab with an OIDC discovery provider")
		aws, gcp = l.graph.Domains[0].Name, l.graph.Domains[1].Name
		gateway, err = l.graph.FindWorkload("aws-gateway")
		Expect(err).NotTo(HaveOccurred())
		frontend, err = l.graph.FindWorkload("frontend")
		Expect(err).NotTo(HaveOccurred())
		bundle, err := l.site(ctx, aws).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		anonymous = &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: tlsconfig.TLSClientConfig(bundle, tlsconfig.AuthorizeID(gateway.ID)),
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return l.dial(gateway, gateway.App.Port)(ctx)
			},
		}}
	}, NodeTimeout(10*time.Minute))

	// asked returns what the gateway answers to a caller without a certificate.
	asked := func(ctx context.Context, token string) (status int, rule string, err error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://gateway:8443/orders/api/health", nil)
		if err != nil {
			return 0, "", err
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := anonymous.Do(request)
		if err != nil {
			return 0, "", err
		}
		defer func() { err = errors.Join(err, response.Body.Close()) }()
		var refusal struct{ Rule string }
		body, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = json.Unmarshal(body, &refusal)
		}
		return response.StatusCode, refusal.Rule, err
	}
	// minted is a JWT-SVID that the server of gcp signs.
	minted := func(ctx context.Context, path, audience, ttl string) string {
		GinkgoHelper()
		site := l.site(ctx, gcp)
		out, err := site.Pods.Exec(ctx, site.Place.Namespace, site.Pod, spire.ServerContainer,
			spire.ServerProgram, "jwt", "mint", "-spiffeID", spiffeid.RequireFromPath(gcp, path).String(), "-audience", audience, "-ttl", ttl)
		Expect(err).NotTo(HaveOccurred())
		return strings.TrimSpace(string(out))
	}
	refuses := func(ctx context.Context, token string, status int, rule string) {
		GinkgoHelper()
		got, said, err := asked(ctx, token)
		Expect(err).NotTo(HaveOccurred())
		Expect(got).To(Equal(status), said)
		Expect(said).To(ContainSubstring(rule))
	}

	It("are taken by a gateway of another trust domain, or refused with the rule", func(ctx SpecContext) {
		// It is refused only when a minute more is over, so it is made first.
		expires := minted(ctx, frontend.ID.Path(), gateway.ID.String(), "1s")
		good := l.token(ctx, "frontend", gateway.ID.String())
		status, rule, err := asked(ctx, good)
		Expect(err).NotTo(HaveOccurred())
		Expect(status).To(Equal(http.StatusOK), rule)

		refuses(ctx, "", http.StatusUnauthorized, "must present an X509-SVID in the TLS handshake, or a JWT-SVID as a bearer token")
		refuses(ctx, l.token(ctx, "frontend", "spiffe://aws.company.com/other"), http.StatusUnauthorized, "the audience of a JWT-SVID must be "+gateway.ID.String())
		refuses(ctx, minted(ctx, "/stranger", gateway.ID.String(), "1m"), http.StatusForbidden, "spiffe://gcp.company.com/stranger is not in ALLOWED_CLIENT_IDS")
		refuses(ctx, made(spiffeid.RequireFromString("spiffe://partner.test/frontend"), gateway.ID, "one"), http.StatusUnauthorized,
			"no bundle held for trust domain partner.test")
		refuses(ctx, made(frontend.ID, gateway.ID, "one"), http.StatusUnauthorized, `there is none with the key ID "one"`)
		held, err := l.site(ctx, aws).API.HeldBundle(ctx, gcp)
		Expect(err).NotTo(HaveOccurred())
		for id := range held.JWTAuthorities() {
			refuses(ctx, made(frontend.ID, gateway.ID, id), http.StatusUnauthorized, "the signature is not by the key")
		}
		// go-spiffe grants a minute to clocks.
		Eventually(func(ctx context.Context) (string, error) {
			status, rule, err := asked(ctx, expires)
			return fmt.Sprint(status, " ", rule), err
		}).WithContext(ctx).WithTimeout(time.Minute + machine).WithPolling(time.Second).Should(HavePrefix("401 a JWT-SVID must not have expired"))
	}, NodeTimeout(4*time.Minute))

	It("are what a call on the page is made with", func(ctx SpecContext) {
		Eventually(func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+frontend.Expose.String()+"/api/calls", nil)
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			var report struct {
				Calls []struct {
					Name, State string
					Token       bool
				}
			}
			if err := errors.Join(json.NewDecoder(response.Body).Decode(&report), response.Body.Close()); err != nil {
				return err
			}
			for _, c := range report.Calls {
				if c.Token && c.State == "answered" {
					return nil
				}
			}
			return fmt.Errorf("no call with a JWT-SVID is answered: %+v", report.Calls)
		}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
	}, SpecTimeout(2*time.Minute))

	It("are verified by a client that knows OIDC alone, at the name of the issuer", func(ctx SpecContext) {
		d := l.running(ctx, aws)
		client := onlyOIDC(ctx, l, d)
		const audience = "https://api.example.com"
		Expect(verifiedByOIDC(ctx, client, d.JWTIssuer, audience, l.token(ctx, "orders", audience))).To(Equal("spiffe://aws.company.com/service/orders"))
		Expect(verifiedByOIDC(ctx, client, d.JWTIssuer, "https://other.example.com", l.token(ctx, "orders", audience))).Error().To(MatchError(ContainSubstring("audience")))
		Expect(verifiedByOIDC(ctx, client, d.JWTIssuer, audience, l.token(ctx, "frontend", audience))).Error().To(MatchError(ContainSubstring("failed to verify signature")))

		By("its keys are those of its own trust domain, and no others")
		own, err := l.site(ctx, aws).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(ctx context.Context) ([]string, error) { return keysAt(ctx, client, d) }).
			WithContext(ctx).WithTimeout(federation.DiscoveryBound(d.OIDCDiscovery.PollInterval) + machine).WithPolling(poll).
			Should(ConsistOf(slices.Collect(maps.Keys(own.JWTAuthorities()))))
	}, SpecTimeout(2*time.Minute))

	It("of a revoked authority are refused, by the gateway and by the client of OIDC", func(ctx SpecContext) {
		of := l.running(ctx, aws)
		client := onlyOIDC(ctx, l, of)
		const audience = "https://api.example.com"
		toGateway, toOIDC := l.token(ctx, "frontend", gateway.ID.String()), l.token(ctx, "orders", audience)
		revokeJWT(ctx, l.site(ctx, aws), func(ctx context.Context) bool { return l.token(ctx, "orders", audience) != toOIDC })
		revokeJWT(ctx, l.site(ctx, gcp), func(ctx context.Context) bool { return l.token(ctx, "frontend", gateway.ID.String()) != toGateway })
		Eventually(func(ctx context.Context) (string, error) {
			status, rule, err := asked(ctx, toGateway)
			return fmt.Sprint(status, " ", rule), err
		}).WithContext(ctx).WithTimeout(federation.PropagationBound(federation.PollInterval(time.Minute, 0)) + machine).WithPolling(poll).
			Should(HavePrefix("401 a JWT authority in the bundle of gcp.company.com must have signed the JWT-SVID: there is none"))
		bound := federation.DiscoveryBound(of.OIDCDiscovery.PollInterval) + machine
		Eventually(func(ctx context.Context) error {
			_, err := verifiedByOIDC(ctx, client, of.JWTIssuer, audience, toOIDC)
			return err
		}).WithContext(ctx).WithTimeout(bound).WithPolling(poll).Should(MatchError(ContainSubstring("failed to verify")))

		By("and those of the next one are taken")
		Eventually(func(ctx context.Context) (int, error) {
			status, _, err := asked(ctx, l.token(ctx, "frontend", gateway.ID.String()))
			return status, err
		}).WithContext(ctx).WithTimeout(bound).WithPolling(time.Second).Should(Equal(http.StatusOK))
		Eventually(func(ctx context.Context) (string, error) {
			return verifiedByOIDC(ctx, client, of.JWTIssuer, audience, l.token(ctx, "orders", audience))
		}).WithContext(ctx).WithTimeout(bound).WithPolling(time.Second).Should(Equal("spiffe://aws.company.com/service/orders"))
		Eventually(l.well).WithContext(ctx).WithTimeout(machine).WithPolling(time.Second).Should(Succeed())
	}, SpecTimeout(5*time.Minute))

	It("have an issuer that status looks at and up repairs", func(ctx SpecContext) {
		cluster, err := l.cluster("aws")
		Expect(err).NotTo(HaveOccurred())
		Expect(cluster.Scale(ctx, "Deployment", topology.ServerNamespace, spire.DiscoveryName, 0)).To(Succeed())
		found, code, err := l.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(code).To(Equal(3))
		Expect(found.Problems()).To(ConsistOf(ContainSubstring("the OIDC discovery provider: ")))
		Expect(found.TrustDomains[0].Cause).To(Equal(lab.IssuerUnreachable))
		Expect(l.fedlab(ctx, "up")).To(endWell())
		Expect(l.well(ctx)).To(Succeed())
		l.unchanged(ctx)
	}, SpecTimeout(4*time.Minute))
})

// token is the JWT-SVID that the agent of a workload gives to it.
func (s *subject) token(ctx context.Context, name, audience string) string {
	GinkgoHelper()
	e, err := s.run(ctx, "svid", name, "--audience", audience, "--token", "--lab", s.file)
	Expect(err).NotTo(HaveOccurred())
	Expect(e).To(endWell())
	return strings.TrimSpace(e.Stdout)
}

// made is a JWT-SVID that a key of this process signs, which nobody trusts.
func made(id, audience spiffeid.ID, keyID string) string {
	GinkgoHelper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: keyID}}, (&jose.SignerOptions{}).WithType("JWT"))
	Expect(err).NotTo(HaveOccurred())
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Subject: id.String(), Audience: jwt.Audience{audience.String()}, Issuer: "https://oidc." + id.TrustDomain().Name(), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).Serialize()
	Expect(err).NotTo(HaveOccurred())
	return token
}

// onlyOIDC is a client that knows a name and a CA, as any relying party does. The way to
// the provider is to its pod, by the Kubernetes API.
func onlyOIDC(ctx context.Context, l *subject, d *topology.Domain) *http.Client {
	GinkgoHelper()
	site := l.site(ctx, d.Name)
	var ca struct {
		Data map[string][]byte `json:"data"`
	}
	place := d.Discovery.Place()
	there, err := site.Objects.Object(ctx, access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: place.Namespace, Name: spire.WebCASecret}, &ca)
	Expect(err).NotTo(HaveOccurred())
	Expect(there).To(BeTrue())
	roots, err := pki.Parse(ca.Data[spire.SecretCertificate])
	Expect(err).NotTo(HaveOccurred())
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			if want := fmt.Sprintf("%s:%d", d.Discovery.Host, d.Discovery.Port); address != want {
				return nil, fmt.Errorf("asked for %s, and the issuer is at %s", address, want)
			}
			pods, err := site.Pods.Named(ctx, place.Namespace, map[string]string{"app.kubernetes.io/name": spire.DiscoveryChart})
			if err != nil || len(pods) == 0 {
				return nil, errors.Join(err, errors.New("the provider has no ready pod"))
			}
			return site.Pods.Dial(ctx, place.Namespace, pods[0], spire.DiscoveryPort)
		},
	}}
}

// verifiedByOIDC returns the subject of a token.
func verifiedByOIDC(ctx context.Context, client *http.Client, issuer, audience, token string) (string, error) {
	ctx = oidc.ClientContext(ctx, client)
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return "", err
	}
	verified, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{oidc.ES256}}).Verify(ctx, token)
	if err != nil {
		return "", err
	}
	return verified.Subject, nil
}

// keysAt returns the IDs of the keys that a provider serves.
func keysAt(ctx context.Context, client *http.Client, d *topology.Domain) (ids []string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Discovery.Keys(), nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	bundle, err := jwtbundle.Read(d.Name, response.Body)
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(bundle.JWTAuthorities())), nil
}

// revokeJWT replaces the JWT authority of a trust domain at once, without the time that a
// rotation leaves for peers. It leaves time for the agents, which drop the tokens that they
// keep when they see the taint: one that does not see it, because the authority is revoked
// before, hands them out until half of their life is over.
func revokeJWT(ctx context.Context, site *lab.Site, dropped func(context.Context) bool) {
	GinkgoHelper()
	now, err := site.API.JWTAuthorities(ctx)
	Expect(err).NotTo(HaveOccurred())
	Expect(now.Active).NotTo(BeNil())
	next, err := site.API.PrepareJWTAuthority(ctx)
	Expect(err).NotTo(HaveOccurred())
	_, err = site.API.ActivateJWTAuthority(ctx, next.ID)
	Expect(err).NotTo(HaveOccurred())
	Expect(site.API.TaintJWTAuthority(ctx, now.Active.ID)).To(Succeed())
	Eventually(dropped).WithContext(ctx).WithTimeout(federation.TaintBound() + machine).WithPolling(time.Second).Should(BeTrue())
	Expect(site.API.RevokeJWTAuthority(ctx, now.Active.ID)).To(Succeed())
}
