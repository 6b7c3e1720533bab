package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
		text := strings.NewReplacer("{name: sidecars}", "{name: e2e-sidecars}", "127.0.0.1:8080", "127.0.0.1:8478").Replace(string(data))
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
	}, SpecTimeout(3*time.Minute))

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

	It("cannot be asked for their SVIDs", func(ctx SpecContext) {
		refused := sidecars.fedlab(ctx, "svid", "stock")
		Expect(refused.Code).To(Equal(1))
		Expect(refused.Stderr).To(ContainSubstring("stock knows nothing of SPIFFE"))
	}, SpecTimeout(time.Minute))
})

// reportedCall is a call as a frontend tells it.
type reportedCall struct {
	Caller, Server, State string
	Reported              bool
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
