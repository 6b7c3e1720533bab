package synthetic_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
)

// These tests state what SPIRE 1.15.3 makes of each answer: who counts on it
// finds out here when another version does otherwise.

var trusterTD = spiffeid.RequireTrustDomainFromString("truster.test")

// truster is a real SPIRE server that federates with synthetic trust domains.
type truster struct {
	process *spiretest.Server
	*spire.Server
}

func startTruster(t *testing.T) truster {
	t.Helper()
	process := spiretest.StartServer(t, trusterTD, spire.AdminID(trusterTD))
	server, err := spire.Connect(t.Context(), process.Exec, process.Dial, trusterTD)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return truster{process, server}
}

// trusted is a synthetic trust domain whose bundle the server has fetched once by
// itself: from then on it may be told to.
func (s truster) trusted(t *testing.T, name string) (d *synthetic.Domain, url string) {
	t.Helper()
	d = newDomain(t, spiffeid.RequireTrustDomainFromString(name), time.Now)
	url = s.federate(t, d)
	s.logged(t, `msg="Bundle refreshed" .*trust_domain=`+regexp.QuoteMeta(name))
	s.holds(t, d, d.Bundle())
	return d, url
}

// logged waits until the server has logged what the regular expression matches,
// and returns what it captures.
func (s truster) logged(t *testing.T, expression string) (captured []string) {
	t.Helper()
	sought := regexp.MustCompile(expression)
	eventually(t, func(context.Context) error {
		if captured = sought.FindStringSubmatch(s.process.Log()); captured == nil {
			return fmt.Errorf("the log has no %s", sought)
		}
		return nil
	})
	return captured[1:]
}

// federate begins a relationship, with the X.509 authorities of d alone.
func (s truster) federate(t *testing.T, d *synthetic.Domain) (url string) {
	t.Helper()
	url, _ = serve(t, d)
	document, err := spiffebundle.FromX509Authorities(d.TrustDomain(), d.Bundle().X509Authorities()).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(path, document, 0o600); err != nil {
		t.Fatal(err)
	}
	s.process.Run(t, "federation", "create", "-trustDomain", d.TrustDomain().Name(), "-bundleEndpointURL", url,
		"-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID", d.EndpointID().String(),
		"-trustDomainBundlePath", path, "-trustDomainBundleFormat", "spiffe")
	return url
}

// holds compares what the server holds of d with the authorities of a bundle.
func (s truster) holds(t *testing.T, d *synthetic.Domain, want *spiffebundle.Bundle) {
	t.Helper()
	held, err := s.HeldBundle(t.Context(), d.TrustDomain())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(ids(held)), fmt.Sprint(ids(want)); got != want {
		t.Errorf("the server holds %s, want %s", got, want)
	}
}

// refresh tells the server to fetch, and returns what it says, with its constant
// beginning left out and with URL for all URLs; "" if all went well.
func (s truster) refresh(t *testing.T, d *synthetic.Domain) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := s.RefreshBundle(ctx, d.TrustDomain())
	if err == nil {
		return ""
	}
	if status.Code(err) != codes.Internal {
		t.Errorf("error = %v, want code Internal", err)
	}
	text, ok := strings.CutPrefix(err.Error(), "refresh held bundle of "+d.TrustDomain().Name()+" on SPIRE server of truster.test: "+
		"rpc error: code = Internal desc = failed to refresh bundle: failed to fetch federated bundle from endpoint: ")
	if !ok {
		t.Errorf("error = %v, want one of a fetch", err)
	}
	return regexp.MustCompile(`"https?://[^"]*"`).ReplaceAllString(text, "URL")
}

// waits tells the server to fetch, and not to answer within a second.
func (s truster) waits(t *testing.T, d *synthetic.Domain) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.RefreshBundle(ctx, d.TrustDomain()); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("refresh of %s: %v, want none within a second", d.TrustDomain(), err)
	}
}

const (
	getURL          = "failed to fetch bundle: Get URL: "
	unverified      = getURL + "x509svid: could not verify leaf certificate: x509: "
	unauthenticated = unverified + "certificate signed by unknown authority"
	// namesake is said of two roots with one name.
	namesake = ` (possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "%s")`
)

func TestSPIREOnAnswers(t *testing.T) {
	t.Parallel()
	s := startTruster(t)
	foreign := newDomain(t, otherTD, time.Now)
	document, err := foreign.Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) }))
	defer plain.Close()
	foreignURL, _ := serve(t, foreign)

	whole := (*synthetic.Domain).Bundle
	none := func(d *synthetic.Domain) *spiffebundle.Bundle { return spiffebundle.New(d.TrustDomain()) }
	others := func(*synthetic.Domain) *spiffebundle.Bundle { return foreign.Bundle() }
	for name, tt := range map[string]struct {
		answer synthetic.Answer
		says   string
		holds  func(*synthetic.Domain) *spiffebundle.Bundle
		// after is what the next fetch says, from an endpoint that tells the truth
		// again: with https_spiffe it is the bundle held that authenticates it
		// (pkg/server/bundle/client/updater.go, newClient).
		after string
	}{
		// Nobody looks whether there are keys, and whose they are
		// (pkg/common/bundleutil/unmarshal.go).
		"empty":   {synthetic.Answer{Kind: synthetic.EmptyBundle}, "", none, unauthenticated},
		"nothing": {synthetic.Answer{Kind: synthetic.Nothing}, "", none, unauthenticated},
		"foreign": {synthetic.Answer{Kind: synthetic.Foreign, Document: document}, "", others, unauthenticated},
		// One key that is not known spoils all (same file).
		"unknown kty": {synthetic.Answer{Kind: synthetic.UnknownKeyType}, "failed to decode bundle: go-jose/go-jose: unsupported key type/format", whole, ""},
		"unknown use": {synthetic.Answer{Kind: synthetic.UnknownKeyUse}, `unrecognized use "fedlab-svid" for key entry 2`, whole, ""},
		"error":       {synthetic.Answer{Kind: synthetic.ServerError}, "unexpected status 500 fetching bundle: the bundle endpoint has a problem\n", whole, ""},
		"not JSON":    {synthetic.Answer{Kind: synthetic.NotJSON}, "failed to decode bundle: invalid character '<' looking for beginning of value", whole, ""},
		// No size is too large, and redirects are followed, to where nobody is
		// authenticated, too (pkg/server/bundle/client/client.go, FetchBundle).
		"huge":             {synthetic.Answer{Kind: synthetic.Huge, MiB: 64}, "", whole, ""},
		"redirect to HTTP": {synthetic.Answer{Kind: synthetic.Redirect, URL: plain.URL}, "", others, unauthenticated},
		"redirect to another domain": {synthetic.Answer{Kind: synthetic.Redirect, URL: foreignURL},
			getURL + `x509svid: could not get X509 bundle: x509bundle: no X.509 bundle found for trust domain: "other.test"`, whole, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := s.trusted(t, strings.ToLower(strings.ReplaceAll(name, " ", "-"))+".test")
			play(t, d, tt.answer)
			if got := s.refresh(t, d); got != tt.says {
				t.Errorf("server says %q\nwant        %q", got, tt.says)
			}
			s.holds(t, d, tt.holds(d))
			play(t, d, synthetic.Answer{Kind: synthetic.TrueBundle})
			if got := s.refresh(t, d); got != tt.after {
				t.Fatalf("afterwards the server says %q\nwant                       %q", got, tt.after)
			}
			// Who is locked out is let in by hand.
			if err := s.SetBundle(t.Context(), d.Bundle()); err != nil {
				t.Fatal(err)
			}
			if got := s.refresh(t, d); got != "" {
				t.Errorf("with a bundle set by hand the server says %q", got)
			}
		})
	}

	t.Run("redirect in a circle", func(t *testing.T) {
		d, url := s.trusted(t, "circle.test")
		play(t, d, synthetic.Answer{Kind: synthetic.Redirect, URL: url})
		if got, want := s.refresh(t, d), getURL+"stopped after 10 redirects"; got != want {
			t.Errorf("server says %q, want %q", got, want)
		}
		// Elsewhere may be anywhere, as long as it shows the same SPIFFE ID.
		play(t, d, synthetic.Answer{Kind: synthetic.Redirect, URL: url + "/elsewhere"}, synthetic.Answer{Kind: synthetic.TrueBundle})
		if got := s.refresh(t, d); got != "" {
			t.Errorf("server says %q", got)
		}
		if last := lastRequest(t, d, synthetic.Answered); last.Path != "/elsewhere" {
			t.Errorf("last request is %+v", last)
		}
	})

	// Who may answer for a trust domain may make anybody pass for one of its
	// workloads.
	t.Run("foreign authority", func(t *testing.T) {
		d, _ := s.trusted(t, "victim.test")
		lie, err := foreign.MintX509(synthetic.X509Request{ID: spiffeid.RequireFromPath(d.TrustDomain(), "/client"), PublicKey: publicKey(t)})
		if err != nil {
			t.Fatal(err)
		}
		verify := func() error {
			held, err := s.HeldBundle(t.Context(), d.TrustDomain())
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = x509svid.ParseAndVerify(lie, held)
			return err
		}
		if !errors.As(verify(), new(x509.UnknownAuthorityError)) {
			t.Errorf("before: %v", verify())
		}
		play(t, d, synthetic.Answer{Kind: synthetic.Foreign, Document: document})
		if got := s.refresh(t, d); got != "" {
			t.Errorf("server says %q", got)
		}
		if err := verify(); err != nil {
			t.Errorf("after: %v", err)
		}
	})

	t.Run("older", func(t *testing.T) {
		d, _ := s.trusted(t, "older.test")
		first := d.Bundle()
		if _, err := d.Prepare(); err != nil {
			t.Fatal(err)
		}
		// The sequence number is not read (pkg/common/bundleutil/unmarshal.go), and
		// without it an older bundle is as good as any.
		for _, step := range []struct {
			kind  synthetic.Kind
			holds *spiffebundle.Bundle
		}{{synthetic.TrueBundle, d.Bundle()}, {synthetic.OlderBundle, first}, {synthetic.TrueBundle, d.Bundle()}} {
			play(t, d, synthetic.Answer{Kind: step.kind})
			if got := s.refresh(t, d); got != "" {
				t.Errorf("server says %q", got)
			}
			s.holds(t, d, step.holds)
		}
		// Once the new authority signs, going back locks out.
		if _, err := d.Activate(); err != nil {
			t.Fatal(err)
		}
		play(t, d, synthetic.Answer{Kind: synthetic.OlderBundle})
		if got := s.refresh(t, d); got != "" {
			t.Errorf("server says %q", got)
		}
		s.holds(t, d, first)
		play(t, d, synthetic.Answer{Kind: synthetic.TrueBundle})
		if got, want := s.refresh(t, d), unauthenticated+fmt.Sprintf(namesake, "older.test"); got != want {
			t.Errorf("server says %q\nwant        %q", got, want)
		}
	})

	t.Run("wrong certificate", func(t *testing.T) {
		d, _ := s.trusted(t, "certificate.test")
		for _, tt := range []struct {
			id    spiffeid.ID
			wrong synthetic.WrongX509
			want  string // a regular expression
		}{
			{spiffeid.RequireFromPath(d.TrustDomain(), "/spire/other"), "", `unexpected ID "spiffe://certificate.test/spire/other"`},
			{d.EndpointID(), synthetic.SelfSigned, "x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority"},
			{d.EndpointID(), synthetic.UnknownAuthority, "x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority" +
				regexp.QuoteMeta(fmt.Sprintf(namesake, "certificate.test"))},
			{d.EndpointID(), synthetic.ExpiredX509, `x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet valid: current time \S+ is after \S+`},
			{d.EndpointID(), synthetic.NotYetValid, `x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet valid: current time \S+ is before \S+`},
			{d.EndpointID(), synthetic.TwoURIs, "x509svid: could not get leaf SPIFFE ID: certificate contains more than one URI SAN"},
			{d.EndpointID(), synthetic.NoURI, "x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN"},
			{d.EndpointID(), synthetic.CATrue, "x509svid: leaf certificate with CA flag set to true"},
			{d.EndpointID(), synthetic.NoPath, `unexpected ID "spiffe://certificate.test"`},
		} {
			play(t, d, synthetic.Answer{Kind: synthetic.WrongCertificate, Shows: &synthetic.X509Request{ID: tt.id, Wrong: tt.wrong}})
			if got := s.refresh(t, d); !regexp.MustCompile("^" + getURL + tt.want + "$").MatchString(got) {
				t.Errorf("%s: server says %q, want %q", tt.wrong, got, tt.want)
			}
		}
		s.holds(t, d, d.Bundle())
	})

	// A refresh hint may be as long as one likes: the next poll is a quarter of it
	// away (pkg/server/bundle/client/manager.go, calculateNextUpdate).
	t.Run("refresh hint of ten years", func(t *testing.T) {
		const years = 365 * 24 * time.Hour
		d := newDomain(t, spiffeid.RequireTrustDomainFromString("hint.test"), time.Now)
		bundle := d.Bundle()
		bundle.SetRefreshHint(10 * years)
		document, err := bundle.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		play(t, d, synthetic.Answer{Kind: synthetic.Foreign, Document: document})
		s.federate(t, d)
		at, err := time.Parse(time.RFC3339, s.logged(t, `msg="Scheduling next bundle refresh" at="(\S+)" .*trust_domain=hint\.test`)[0])
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(at); left < 2*years || left > 3*years {
			t.Errorf("the next poll is at %s, want it in two years and a half", at)
		}
	})
}

// A fetch ends when the endpoint wants it to: SPIRE sets no limit, and does not
// look whether its own caller still waits (pkg/server/bundle/client/client.go,
// FetchBundle).
func TestSPIREOnAnswersThatLast(t *testing.T) {
	t.Parallel()
	s := startTruster(t)
	for _, answer := range []synthetic.Answer{{Kind: synthetic.Hang}, {Kind: synthetic.Slow, Every: time.Minute}, {Kind: synthetic.Endless}} {
		t.Run(string(answer.Kind), func(t *testing.T) {
			d, _ := s.trusted(t, string(answer.Kind)+".test")
			play(t, d, answer)
			s.waits(t, d)
			other, _ := s.trusted(t, "next-to-"+string(answer.Kind)+".test")
			if got := s.refresh(t, other); got != "" {
				t.Errorf("of another trust domain the server says %q", got)
			}
			lastRequest(t, d, synthetic.UnderWay)
			play(t, d, synthetic.Answer{Kind: synthetic.TrueBundle})
			lasted := slices.ContainsFunc(d.Requests(), func(r synthetic.Request) bool { return r.Answer == answer.Kind })
			if got := s.refresh(t, d); got != "" || !lasted {
				t.Errorf("afterwards the server says %q, requests are %+v", got, d.Requests())
			}
			for _, r := range d.Requests() {
				if r.Answer == answer.Kind && r.Ended != synthetic.Cut {
					t.Errorf("request is %+v, want it to have lasted until it was cut", r)
				}
			}
		})
	}
}

// While a relationship hangs, others go on. It cannot be given up, though: once
// it is deleted the server waits for its fetch to end, and neither refreshes nor
// begins any other (pkg/server/bundle/client/manager.go, refreshConfigs).
func TestSPIREOnRelationshipThatHangs(t *testing.T) {
	t.Parallel()
	s := startTruster(t)
	hung, _ := s.trusted(t, "hung.test")
	play(t, hung, synthetic.Answer{Kind: synthetic.Hang})
	well, _ := s.trusted(t, "well.test")
	eventually(t, func(context.Context) error { // a quarter of a minute at most
		if last := hung.Requests()[len(hung.Requests())-1]; last.Path == "" || last.Ended != synthetic.UnderWay {
			return fmt.Errorf("last request is %+v, want one that hangs", last)
		}
		return nil
	})
	if got := s.refresh(t, well); got != "" {
		t.Errorf("of another trust domain the server says %q", got)
	}

	s.process.Run(t, "federation", "delete", "-id", "spiffe://hung.test")
	s.logged(t, `msg="Stopping stale updaters"`)
	s.waits(t, well)
	late := newDomain(t, spiffeid.RequireTrustDomainFromString("late.test"), time.Now)
	s.federate(t, late)
	polled := len(well.Requests())
	eventually(t, func(context.Context) error {
		if len(well.Requests()) == polled {
			return errors.New("the other relationship is not polled any more")
		}
		return nil
	})
	if requests := late.Requests(); len(requests) != 0 {
		t.Errorf("a new relationship is begun: %+v", requests)
	}

	play(t, hung, synthetic.Answer{Kind: synthetic.TrueBundle})
	s.logged(t, `msg="Done stopping stale updaters"`)
	s.logged(t, `msg="Bundle refreshed" .*trust_domain=late\.test`)
	if got := s.refresh(t, well); got != "" {
		t.Errorf("afterwards the server says %q", got)
	}
}
