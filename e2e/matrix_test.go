package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/e2e/guide"
	"github.com/fedlab-dev/fedlab/e2e/matrix"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
)

// All kinds of bundle endpoints in all modes, in one lab. What is seen of each is a row of
// docs/federation-matrix.md, which -update writes.
//
// Eight trust domains are enough for the 14 rows. One cluster has a trust domain for each
// kind of endpoint. The other one has a truster for each mode, which trusts all four in that
// mode: 12 rows, and each relationship goes from cluster to cluster. The truster of the rows
// by hand trusts one of the four one way, and another one two ways. The third trust domain,
// which is refused, is another truster: trusters do not trust each other.
//
// The rows go in two groups, as the black fields of a chessboard and the white ones. So each
// truster has rows that go and rows that stay at the same time, and so has each endpoint.
// Three bring-ups take each row away once: one group goes, comes back, and the other one goes.
//
// The desks, which are called, run the program of the guide to one's own services. That does
// what go-spiffe does by itself: it verifies a caller in the handshake, and not again.
var _ = Describe("The matrix of endpoints and modes", Ordered, Label("matrix", "modes", "profile", "night"), func() {
	var (
		c     *company
		file  string
		desks = map[string]door{} // by trust domain
		seen  = map[matrix.Row]matrix.Seen{}
	)
	// note adds to what was seen of a row.
	note := func(r matrix.Row, add func(*matrix.Seen)) {
		s := seen[r]
		add(&s)
		seen[r] = s
	}
	write := func(rows []matrix.Row) {
		GinkgoHelper()
		data, err := config.Marshal(matrix.Lab("e2e-matrix", rows))
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(file, data, 0o644)).To(Succeed())
	}
	become := func(ctx context.Context, what string, rows []matrix.Row) {
		GinkgoHelper()
		write(rows)
		began := time.Now()
		Expect(c.fedlab(ctx, "up")).To(endWell())
		measured(what, began)
		Expect(c.well(ctx)).To(Succeed())
	}
	// callers returns a caller of each trust domain, with an SVID that is signed now.
	callers := func(ctx context.Context) map[string]*x509svid.SVID {
		GinkgoHelper()
		minted := map[string]*x509svid.SVID{}
		for _, td := range c.graph.Domains {
			minted[td.String()] = c.mint(ctx, spiffeid.RequireFromPath(td.Name, "/caller"))
		}
		return minted
	}
	// call returns a call as somebody of the callers, for a desk.
	call := func(way matrix.Way, by map[string]*x509svid.SVID) asked {
		return asked{desks[way.Server], by[way.Caller]}
	}
	// lets waits until each call of a row is answered.
	lets := func(ctx context.Context, r matrix.Row, by map[string]*x509svid.SVID) {
		GinkgoHelper()
		for _, way := range r.Ways() {
			Eventually(call(way, by).answered).WithContext(ctx).WithTimeout(federation.RegistrationBound()+machine).WithPolling(poll).
				Should(Succeed(), "%s: %s calls %s", r, way.Caller, way.Server)
		}
	}
	// trusts compares the bundles that servers hold with these rows, and no others.
	trusts := func(ctx context.Context, rows []matrix.Row) {
		GinkgoHelper()
		found, _, err := c.status(ctx)
		Expect(err).NotTo(HaveOccurred())
		trusted, directions := map[string][]string{}, 0
		for _, r := range rows {
			for _, way := range r.Ways() {
				is := relationshipOf(found, way.Server, way.Caller)
				Expect(is.Bundle).To(Equal(federation.InSync), "%s", r)
				Expect(is.Mode).To(Equal(string(r.Mode)), "%s", r)
				if r.Profile != "" {
					Expect(is.Profile).To(Equal(string(r.Profile)), "%s", r)
				}
				note(r, func(s *matrix.Seen) { s.Bundle = string(is.Bundle) })
				trusted[way.Server] = append(trusted[way.Server], way.Caller)
				directions++
			}
		}
		Expect(found.Relationships).To(HaveLen(directions))
		for _, td := range c.graph.Domains {
			held, err := c.site(ctx, td.Name).API.HeldBundles(ctx)
			Expect(err).NotTo(HaveOccurred())
			var names []string
			for _, b := range held {
				names = append(names, b.TrustDomain().Name())
			}
			Expect(names).To(ConsistOf(trusted[td.String()]), "bundles that %s holds", td)
		}
	}
	// goOn has calls go on for each of these rows. They end with the spec at the latest.
	goOn := func(ctx context.Context, rows []matrix.Row, by map[string]*x509svid.SVID) (all []going) {
		GinkgoHelper()
		for _, r := range rows {
			for _, way := range r.Ways() {
				g := going{row: r, way: way, asked: call(way, by)}
				g.open = g.door.keep(ctx, g.door.client(g.caller))
				g.kept = again(time.Second, func(ctx context.Context) (int, []byte, error) { return g.open.get(ctx, "/") })
				DeferCleanup(g.kept.end)
				all = append(all, g)
			}
		}
		return all
	}
	// remain has no call of these rows be lost while something changes, neither on connections
	// of their own nor on one that stays open.
	remain := func(ctx context.Context, rows []matrix.Row, by map[string]*x509svid.SVID, change func()) {
		GinkgoHelper()
		calls := goOn(ctx, rows, by)
		for i := range calls {
			g := &calls[i]
			g.fresh = again(time.Second, func(ctx context.Context) (int, []byte, error) { return g.door.get(ctx, g.door.client(g.caller), "/") })
			DeferCleanup(g.fresh.end)
		}
		change()
		made := 0
		for _, g := range calls {
			for _, t := range []*traffic{g.fresh, g.kept} {
				t.end()
				Expect(t.lost).To(BeEmpty(), "%s: %s calls %s", g.row, g.way.Caller, g.way.Server)
				Expect(t.made).To(BeNumerically(">", 0))
				made += t.made
			}
		}
		AddReportEntry("calls of the rows that stay", fmt.Sprint(made), ReportEntryVisibilityAlways)
	}
	// lose takes the rows of a group away, and sees what happens to them and to the others.
	lose := func(ctx context.Context, group int) {
		GinkgoHelper()
		by, gone, staying := callers(ctx), matrix.Of(group), matrix.Of(1-group)
		open := goOn(ctx, gone, by)
		remain(ctx, staying, by, func() {
			become(ctx, fmt.Sprintf("%d rows removed in", len(gone)), staying)
			trusts(ctx, staying)
			for _, g := range open {
				var why string
				Eventually(func(ctx context.Context) (err error) {
					why, err = g.refused(ctx)
					return err
				}).WithContext(ctx).WithTimeout(federation.RegistrationBound()+machine).WithPolling(poll).Should(Succeed(), "%s: %s calls %s", g.row, g.way.Caller, g.way.Server)
				note(g.row, func(s *matrix.Seen) { s.Handshake = "refused: " + why })
			}
			By("a connection that was open stays so, and is not verified again")
			for _, g := range open {
				g.kept.end()
				Expect(g.kept.lost).To(BeEmpty(), "%s: %s calls %s", g.row, g.way.Caller, g.way.Server)
				Expect(g.answers(g.open.get(ctx, "/"))).To(Succeed(), "%s: %s calls %s", g.row, g.way.Caller, g.way.Server)
				note(g.row, func(s *matrix.Seen) { s.Open = "goes on" })
			}
		})
		for _, r := range gone {
			note(r, func(s *matrix.Seen) { s.Others = "none lost" })
		}
	}

	BeforeAll(func(ctx SpecContext) {
		folder := filepath.Join(scratch(), "matrix")
		Expect(guide.Copy(filepath.Join(folder, matrix.Program), filepath.Join(root, "docs", "guides", "payments"))).To(Succeed())
		Expect(guide.Copy(filepath.Join(folder, matrix.Chart), filepath.Join(root, "e2e", "testdata", "desk"))).To(Succeed())
		ca, err := pki.NewRoot("CA of the person", 24*time.Hour)
		Expect(err).NotTo(HaveOccurred())
		certificate, key, err := ca.ServingCert([]string{matrix.OwnHost}, nil, 24*time.Hour)
		Expect(err).NotTo(HaveOccurred())
		for name, data := range map[string][]byte{"tls.crt": certificate, "tls.key": key, "ca.crt": ca.CertificatePEM()} {
			Expect(os.WriteFile(filepath.Join(folder, name), data, 0o600)).To(Succeed())
		}
		file = filepath.Join(folder, "lab.yaml")
		write(matrix.Rows())
		c = &company{subject: raised(ctx, file, "the matrix")}
		for _, domain := range matrix.Domains() {
			desks[domain] = c.door(ctx, matrix.Desk(domain))
		}
	}, NodeTimeout(15*time.Minute))

	It("brings each bundle", func(ctx SpecContext) {
		Expect(c.well(ctx)).To(Succeed())
		Expect(c.fedlab(ctx, "drift")).To(endWell())
		trusts(ctx, matrix.Rows())
		c.unchanged(ctx)
	}, NodeTimeout(4*time.Minute))

	It("lets the calls of each row through, and refuses a third trust domain", func(ctx SpecContext) {
		by := callers(ctx)
		refused := func(way matrix.Way) string {
			GinkgoHelper()
			var why string
			Eventually(func(ctx context.Context) (err error) {
				if why, err = call(way, by).refused(ctx); errors.Is(err, errLetIn) {
					return StopTrying(err.Error())
				}
				return err
			}).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed(), "%s calls %s", way.Caller, way.Server)
			return "refused: " + why
		}
		for _, r := range matrix.Rows() {
			lets(ctx, r, by)
			back, third := "answered", ""
			if !r.TwoWays {
				back = refused(r.Back())
			}
			for _, way := range r.Ways() {
				third = refused(matrix.Way{Server: way.Server, Caller: matrix.Third(way.Server)})
			}
			note(r, func(s *matrix.Seen) { s.Call, s.Back, s.Third = "answered", back, third })
		}
	}, SpecTimeout(5*time.Minute))

	It("loses one half, and the other half goes on", func(ctx SpecContext) { lose(ctx, 0) }, SpecTimeout(10*time.Minute))

	It("gets that half back", func(ctx SpecContext) {
		by := callers(ctx)
		remain(ctx, matrix.Of(1), by, func() {
			become(ctx, "7 rows brought back in", matrix.Rows())
			trusts(ctx, matrix.Rows())
			for _, r := range matrix.Of(0) {
				lets(ctx, r, by)
			}
		})
	}, SpecTimeout(10*time.Minute))

	It("loses the other half, and the first one goes on", func(ctx SpecContext) { lose(ctx, 1) }, SpecTimeout(10*time.Minute))

	It("is what the table of the documents says", func() {
		path, table := filepath.Join(root, matrix.Document), matrix.Table(seen)
		AddReportEntry("table", table, ReportEntryVisibilityAlways)
		document, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		inside, err := matrix.Inside(string(document))
		Expect(err).NotTo(HaveOccurred())
		if *update {
			Expect(os.WriteFile(path, []byte(strings.Replace(string(document), inside, table, 1)), 0o644)).To(Succeed())
			return
		}
		Expect(inside).To(Equal(table), "-update writes what this run has seen into %s", matrix.Document)
	})
})

// asked is a call of a desk as somebody.
type asked struct {
	door   door
	caller *x509svid.SVID
}

// answers returns nil for an answer that names the caller.
func (a asked) answers(code int, body []byte, err error) error {
	if want := "paid by " + a.caller.ID.String(); err == nil && (code != http.StatusOK || string(body) != want) {
		err = fmt.Errorf("%d: %s: want %s", code, body, want)
	}
	return err
}

// answered returns nil when a call on a connection of its own is answered.
func (a asked) answered(ctx context.Context) error {
	return a.answers(a.door.get(ctx, a.door.client(a.caller), "/"))
}

// errLetIn is about a caller whom a desk does not refuse.
var errLetIn = errors.New("is let in")

// refused returns by which alert (RFC 8446, section 6.2) the desk refuses a handshake. The
// error says what happens instead: errLetIn, or that the connection is lost without one.
func (a asked) refused(ctx context.Context) (alert string, err error) {
	code, body, err := a.door.get(ctx, a.door.client(a.caller), "/")
	remote := &net.OpError{}
	switch {
	case err == nil:
		return "", fmt.Errorf("%s %w: %d: %s", a.caller.ID, errLetIn, code, body)
	case errors.As(err, &remote) && remote.Op == "remote error": // crypto/tls, Conn.readRecordOrCCS
		return strings.TrimPrefix(remote.Err.Error(), "tls: "), nil
	}
	return "", fmt.Errorf("%s is not refused by an alert: %w", a.caller.ID, err)
}

// going are the calls of one row that go on: on a connection that stays open, and on one of
// its own for each.
type going struct {
	asked
	row         matrix.Row
	way         matrix.Way
	open        *kept
	kept, fresh *traffic
}
