package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// The lab is that of docs/guides/sidecars.md, under a name and a port of its own.
var _ = Describe("Services that know nothing of SPIFFE", Ordered, Label("sidecars", "night"), func() {
	var sidecars *subject
	workload := func(name string) *topology.Workload {
		GinkgoHelper()
		w, err := sidecars.graph.FindWorkload(name)
		Expect(err).NotTo(HaveOccurred())
		return w
	}
	// id is the SPIFFE ID of a workload: an address comes with the lab's network, and an ID
	// with the file.
	id := func(name string) spiffeid.ID { return workload(name).ID }

	BeforeAll(func(ctx SpecContext) {
		data, err := os.ReadFile(filepath.Join(root, "docs", "guides", "sidecars.yaml"))
		Expect(err).NotTo(HaveOccurred())
		// Short lives, so that a certificate is renewed while a spec looks.
		short := fmt.Sprintf("  trustDomains:\n    - {name: depot.test, svid: {x509TTL: %s}}\n  federation:\n", databaseTTL)
		text := strings.NewReplacer("{name: sidecars}", "{name: e2e-sidecars}", "127.0.0.1:8080", "127.0.0.1:8478", "  federation:\n", short).Replace(string(data))
		file := filepath.Join(scratch(), "sidecars.yaml")
		Expect(os.WriteFile(file, []byte(text), 0o644)).To(Succeed())
		sidecars = raised(ctx, file, "a lab with sidecars")
	}, NodeTimeout(15*time.Minute))

	It("call and are called across the federation, by ghostunnels", func(ctx SpecContext) {
		Expect(sidecars.well(ctx)).To(Succeed())
		sidecars.unchanged(ctx)
		want := [][2]string{{"till", "stock"}, {"till", "prices"}, {"stock", "prices"}, {"prices", "stock"}}
		Eventually(func(ctx context.Context) error {
			calls, err := reportedCalls(ctx, workload("watch"))
			if err != nil {
				return err
			}
			var errs []error
			for _, pair := range want {
				caller, server := id(pair[0]).String(), id(pair[1]).String()
				i := slices.IndexFunc(calls, func(c reportedCall) bool { return c.Reported && c.Caller == caller && c.Server == server })
				switch {
				case i < 0:
					errs = append(errs, fmt.Errorf("no call of %s to %s is reported", caller, server))
				case calls[i].State != "answered":
					errs = append(errs, fmt.Errorf("the call of %s to %s is %s", caller, server, calls[i].State))
				}
			}
			return errors.Join(errs...)
		}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
	}, NodeTimeout(3*time.Minute))

	It("are asked by those alone who may", func(ctx SpecContext) {
		stock := workload("stock")
		own, err := sidecars.site(ctx, stock.Domain().Name).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		issuer := sidecars.site(ctx, id("till").TrustDomain())
		// asked asks for the health of stock as somebody of the shop.
		asked := func(as spiffeid.ID) (int, error) {
			svid, err := mint(ctx, issuer, as)
			if err != nil {
				return 0, err
			}
			dial := sidecars.dial(stock, stock.App.Port)
			conn, err := handshake(ctx, dial, tlsconfig.MTLSClientConfig(svid, own, tlsconfig.AuthorizeID(stock.ID)))
			if err != nil {
				return 0, err
			}
			defer func() { _ = conn.Close() }() // after a refusal nobody is there
			return health(ctx, conn)
		}
		By("who is on ghostunnel's list is answered")
		Expect(asked(id("till"))).To(Equal(http.StatusOK))
		By("another one of the same trust domain is not")
		_, err = asked(spiffeid.RequireFromPath(id("till").TrustDomain(), "/stranger"))
		Expect(err).To(HaveOccurred())
	}, SpecTimeout(2*time.Minute))

	It("have a PostgreSQL that proves its name, and renews its certificate without the end of a connection", func(ctx SpecContext) {
		w := workload("orders")
		site := sidecars.site(ctx, w.Domain().Name)
		bundle, err := site.API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		pod := w.Database().Release + "-0"
		// psql runs PostgreSQL's own client where the server is, as somebody with the password.
		// The image has a shell, and no programs like cat.
		psql := func(ctx context.Context, connection string, statements ...string) (string, error) {
			command := `read -r PGPASSWORD </run/secrets/database/password; export PGPASSWORD; exec /usr/lib/postgresql/15/bin/psql "dbname=app user=app sslrootcert=/run/svid/bundle.pem ` + connection + `" -At`
			for _, s := range statements {
				command += " -c '" + s + "'"
			}
			out, err := site.Pods.Exec(ctx, w.Namespace, pod, "postgres", "sh", "-c", command)
			return string(out), err
		}
		By("a client that verifies trust domain and name is let in")
		const encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
		Expect(psql(ctx, "host=data-database sslmode=verify-full", encrypted)).To(Equal("t\n"))
		By("the server is not believed under another name")
		_, err = psql(ctx, "host=127.0.0.1 sslmode=verify-full", encrypted)
		Expect(err).To(MatchError(ContainSubstring(`server certificate for "data-database"`)))
		By("nobody is let in without TLS")
		_, err = psql(ctx, "host=data-database sslmode=disable", encrypted)
		Expect(err).To(MatchError(ContainSubstring("no encryption")))

		By("a connection outlives the certificate that it was made with")
		show := func(ctx context.Context) (*x509.Certificate, error) {
			conn, err := site.Pods.Dial(ctx, w.Namespace, pod, 5432)
			if err != nil {
				return nil, err
			}
			return certificateOf(ctx, conn)
		}
		first, err := show(ctx)
		Expect(err).NotTo(HaveOccurred())
		id, _, err := x509svid.Verify([]*x509.Certificate{first}, bundle)
		Expect(err).NotTo(HaveOccurred())
		Expect(id).To(Equal(w.Database().ID))
		Expect(first.DNSNames[0]).To(Equal("data-database"))
		Expect(first.NotAfter.Sub(first.NotBefore)).To(BeNumerically("<", 2*databaseTTL))
		type end struct {
			said string
			err  error
		}
		ended := make(chan end, 1)
		held := databaseTTL + databaseTTL/4
		go func() {
			said, err := psql(ctx, "host=data-database sslmode=verify-full", fmt.Sprintf("select pg_sleep(%d)", int(held.Seconds())), "select count(*) > 0 from orders")
			ended <- end{said, err}
		}()
		Eventually(func(ctx context.Context) error {
			now, err := show(ctx)
			if err == nil && now.SerialNumber.Cmp(first.SerialNumber) == 0 {
				err = fmt.Errorf("the server still shows certificate %x", now.SerialNumber)
			}
			return err
		}).WithContext(ctx).WithTimeout(databaseTTL + machine).WithPolling(time.Second).Should(Succeed())
		var last end
		Eventually(ctx, ended).WithTimeout(held + machine).Should(Receive(&last))
		Expect(last.err).NotTo(HaveOccurred())
		Expect(last.said).To(HaveSuffix("t\n"))
		Expect(sidecars.well(ctx)).To(Succeed())
	}, SpecTimeout(6*time.Minute))

	It("read a database of another trust domain through the port of a bridge, which lets nobody else in", func(ctx SpecContext) {
		bridge := workload("mainframe")
		Eventually(func(ctx context.Context) (string, error) {
			calls, err := reportedCalls(ctx, workload("watch"))
			i := slices.IndexFunc(calls, func(c reportedCall) bool { return c.Name == "ledger through orders" })
			if err != nil || i < 0 {
				return "", err
			}
			return calls[i].State, nil
		}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Equal("answered"))
		own, err := sidecars.site(ctx, bridge.Domain().Name).API.Bundle(ctx)
		Expect(err).NotTo(HaveOccurred())
		// greeted comes with an identity to the port, and waits for the bridge's first word.
		greeted := func(as spiffeid.ID) error {
			svid, err := mint(ctx, sidecars.site(ctx, as.TrustDomain()), as)
			if err != nil {
				return err
			}
			conn, err := handshake(ctx, sidecars.dial(bridge, topology.DatabasePort), tlsconfig.MTLSClientConfig(svid, own, tlsconfig.AuthorizeID(bridge.ID)))
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }() // after a refusal nobody is there
			if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
				return err
			}
			_, err = io.ReadFull(conn, make([]byte, 1))
			return err
		}
		Expect(greeted(id("orders"))).To(Succeed())
		Expect(greeted(id("till"))).To(MatchError("remote error: tls: bad certificate"))
	}, SpecTimeout(2*time.Minute))

	It("cannot be asked for their SVIDs", func(ctx SpecContext) {
		refused := sidecars.fedlab(ctx, "svid", "stock")
		Expect(refused.Code).To(Equal(1))
		Expect(refused.Stderr).To(ContainSubstring("stock knows nothing of SPIFFE"))
	}, SpecTimeout(time.Minute))
})

// databaseTTL is the life of the certificate of the database: the shortest that leaves an
// agent, and whoever else is busy, time to renew it.
const databaseTTL = time.Minute

// certificateOf asks a PostgreSQL for TLS (its protocol, SSLRequest) and returns the
// certificate that it shows. It verifies nothing, and closes the connection.
func certificateOf(ctx context.Context, conn net.Conn) (_ *x509.Certificate, err error) {
	defer func() {
		_ = conn.Close() // the server is in the middle of its start-up
	}()
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, fmt.Errorf("the server answers %q to the wish for TLS, want S", answer)
	}
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // the certificate is what is looked at
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured.ConnectionState().PeerCertificates[0], nil
}

// reportedCall is a call as a frontend tells it.
type reportedCall struct {
	Name, Caller, Server, State string
	Reported                    bool
}

// reportedCalls asks a frontend for its calls, and for those that others report to it.
func reportedCalls(ctx context.Context, frontend *topology.Workload) ([]reportedCall, error) {
	url := strings.TrimSuffix(frontend.URL(), frontend.App.Page) + frontend.App.Tells
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	var told struct{ Calls []reportedCall }
	err = json.NewDecoder(response.Body).Decode(&told)
	return told.Calls, errors.Join(err, response.Body.Close())
}

// health asks for /api/health over a connection, and returns the status.
func health(ctx context.Context, conn net.Conn) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://service/api/health", nil)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
