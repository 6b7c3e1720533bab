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
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/apps/stock-quotes/quotes"
	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// handshakeLife is how long the demo programs let one handshake stand for: ten
// seconds and gRPC's jitter of a tenth at the server, less at the broker. An
// established connection outlives what would be refused now.
const handshakeLife = 11 * time.Second

var _ = Describe("A workload without federatesWith", Label("auth", "slow"), func() {
	bound := federation.RegistrationBound() + handshakeLife + machine

	DescribeTable("is refused, and accepted once it has it",
		func(ctx SpecContext, which func(pair) *topology.Workload, class string) {
			p := under.pair()
			w := which(p)
			cluster, err := under.cluster(w.Cluster().Name)
			Expect(err).NotTo(HaveOccurred())
			with := spire.WorkloadIdentity(w)
			spec, ok := with.Spec.(spire.WorkloadIdentitySpec)
			Expect(ok).To(BeTrue())
			Expect(spec.FederatesWith).NotTo(BeEmpty())
			spec.FederatesWith = nil
			without := with
			without.Spec = spec

			By("the call works before")
			Eventually(flowing(p.broker)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
			pods, err := under.podsOf(ctx, w)
			Expect(err).NotTo(HaveOccurred())

			By("federatesWith is taken away")
			under.restored(bound, func(ctx context.Context) error { return cluster.Apply(ctx, with) })
			began := time.Now()
			Expect(cluster.Apply(ctx, without)).To(Succeed())
			Eventually(refused(p.broker, class)).WithContext(ctx).WithTimeout(bound).WithPolling(poll).Should(Succeed())
			measured("refused after", began)
			found, code, err := under.status(ctx)
			Expect(err).NotTo(HaveOccurred())
			Expect(code).To(Equal(3))
			Expect(found.Problems()).To(And(HaveLen(2), HaveEach(ContainSubstring("does not federate with"))), "the relationship and the workload")

			By("federatesWith is given back")
			began = time.Now()
			Expect(cluster.Apply(ctx, with)).To(Succeed())
			Eventually(flowing(p.broker)).WithContext(ctx).WithTimeout(bound).WithPolling(poll).Should(Succeed())
			measured("accepted after", began)
			Expect(under.podsOf(ctx, w)).To(Equal(pods), "no pod had to be started again")
		},
		Entry("where it is called: it cannot verify its client", func(p pair) *topology.Workload { return p.server }, "refused-by-server", SpecTimeout(4*time.Minute)),
	)
})

var _ = Describe("A client", Label("auth"), func() {
	var (
		dial           func(context.Context) (net.Conn, error)
		server, client spiffeid.ID
		bundle         *spiffebundle.Bundle
		issuer         *lab.Site
	)
	BeforeEach(func(ctx SpecContext) {
		p := under.pair()
		dial, server, client = under.dial(p.server, p.server.App.Port), p.server.ID, p.broker.ID
		var err error
		bundle, err = under.site(ctx, p.server.Domain().Name).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		issuer = under.site(ctx, p.broker.Domain().Name)

		By("the same client, with the broker's SVID, gets quotes")
		svid, err := mint(ctx, issuer, client)
		Expect(err).NotTo(HaveOccurred())
		Expect(call(ctx, dial, server, bundle, svid)).Error().NotTo(HaveOccurred())
	}, NodeTimeout(time.Minute))

	It("without an SVID is refused in the handshake", func(ctx SpecContext) {
		Expect(greet(ctx, dial, nil)).To(MatchError("remote error: tls: certificate required"))
	}, SpecTimeout(time.Minute))

	It("with the right SPIFFE ID from an authority that nobody trusts is refused in the handshake", func(ctx SpecContext) {
		forged, err := forge(client)
		Expect(err).NotTo(HaveOccurred())
		Expect(greet(ctx, dial, forged)).To(MatchError("remote error: tls: bad certificate"))
	}, SpecTimeout(time.Minute))

	It("with an SVID of a trusted domain that is not on the list is known and refused", func(ctx SpecContext) {
		stranger := spiffeid.RequireFromPath(client.TrustDomain(), "/stranger")
		svid, err := mint(ctx, issuer, stranger)
		Expect(err).NotTo(HaveOccurred())
		_, err = call(ctx, dial, server, bundle, svid)
		Expect(status.Code(err)).To(Equal(codes.PermissionDenied))
		Expect(status.Convert(err).Message()).To(Equal(stranger.String() + " may not ask for quotes"))
	}, SpecTimeout(time.Minute))
})

// mint lets a trust domain's server sign an SVID for an identity. The private key
// is in memory only.
func mint(ctx context.Context, issuer *lab.Site, id spiffeid.ID) (*x509svid.SVID, error) {
	out, err := issuer.Pods.Exec(ctx, issuer.Place.Namespace, spire.ServerPod, spire.ServerContainer,
		spire.ServerProgram, "x509", "mint", "-spiffeID", id.String(), "-ttl", "15m", "-output", "json")
	if err != nil {
		return nil, err
	}
	var minted struct {
		X509SVID   [][]byte `json:"x509_svid"`
		PrivateKey []byte   `json:"private_key"`
	}
	if err := json.Unmarshal(out, &minted); err != nil {
		return nil, fmt.Errorf("read minted SVID of %s: %w", id, err)
	}
	return x509svid.ParseRaw(slices.Concat(minted.X509SVID...), minted.PrivateKey)
}

// forge makes an SVID that looks right and is signed by itself.
func forge(id spiffeid.ID) (*tls.Certificate, error) {
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
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// greet makes a TLS connection that trusts whoever answers, and waits for the
// server's first word. In TLS 1.3 the client's handshake is over before the
// server has looked at the client's certificate: a refusal comes with that word.
func greet(ctx context.Context, dial func(context.Context) (net.Conn, error), certificate *tls.Certificate) (err error) {
	config := &tls.Config{
		InsecureSkipVerify: true, // the server is not what is tested
		NextProtos:         []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if certificate == nil {
				return &tls.Certificate{}, nil
			}
			return certificate, nil
		},
	}
	conn, err := handshake(ctx, dial, config)
	if err != nil {
		return err
	}
	defer func() {
		// After a refusal there is nobody to say good-bye to.
		_ = conn.Close()
	}()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	if alert := (*net.OpError)(nil); errors.As(err, &alert) {
		return err
	}
	return errors.Join(errors.New("no refusal"), err)
}

// call asks for quotes as the identity of an SVID.
func call(ctx context.Context, dial func(context.Context) (net.Conn, error), server spiffeid.ID, bundle *spiffebundle.Bundle, svid *x509svid.SVID) (_ *quotes.QuotesResponse, err error) {
	conn, err := grpc.NewClient("passthrough:///quotes",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithTransportCredentials(credentials.NewTLS(tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(server)))))
	if err != nil {
		return nil, err
	}
	defer func() {
		// The server's own words are what is looked at: nothing is joined to them.
		if lost := conn.Close(); err == nil {
			err = lost
		}
	}()
	return quotes.NewStockQuotesClient(conn).Quotes(ctx, &quotes.QuotesRequest{})
}
