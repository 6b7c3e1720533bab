package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/streams"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const token = "not-a-secret-of-anybody"

var (
	own    = spiffeid.RequireTrustDomainFromString("synthetic.test")
	client = spiffeid.RequireFromPath(own, "/client")
)

// program is a running one.
type program struct {
	*synthetic.Client
	control, endpoint string
	log               *apptest.Log
}

func start(t *testing.T) program {
	t.Helper()
	p := program{control: apptest.Address(t), endpoint: apptest.Address(t), log: &apptest.Log{}}
	args := []string{"-trust-domain", own.Name(), "-control-listen", p.control, "-bundle-listen", p.endpoint}
	apptest.Run(t, func(ctx context.Context) error { return process.With(parse, run)(ctx, args, environment(token), p.log) })
	var err error
	if p.Client, err = synthetic.Dial("http://"+p.control, token); err != nil {
		t.Fatal(err)
	}
	p.log.Await(t, "starting")
	return p
}

func environment(token string) func(string) string {
	return func(name string) string { return map[string]string{"SYNTHETIC_TOKEN": token}[name] }
}

func (p program) bundle(t *testing.T) *spiffebundle.Bundle {
	t.Helper()
	bundle, err := p.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

func TestProgramServes(t *testing.T) {
	p := start(t)
	bundle := p.bundle(t)
	fetch := func() (*spiffebundle.Bundle, error) {
		return federation.FetchBundle(t.Context(), own, "https://"+p.endpoint, federation.WithSPIFFEAuth(bundle, spiffeid.RequireFromPath(own, "/spire/server")))
	}
	if fetched, err := fetch(); err != nil || !fetched.Equal(bundle) {
		t.Errorf("the endpoint has another bundle than the control (%v)", err)
	}
	if err := p.Play(t.Context(), synthetic.Script{{Kind: synthetic.Nothing}}); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(); err == nil {
		t.Error("the script is not played")
	}
	requests, err := p.Requests(t.Context())
	if err != nil || len(requests) != 2 {
		t.Errorf("requests are %+v, %v; want 2", requests, err)
	}
	if n := p.log.Count(token); n != 0 {
		t.Errorf("the token is in %d lines of the log", n)
	}
}

func TestProgramGuards(t *testing.T) {
	p := start(t)
	for _, at := range []struct{ method, path string }{
		{http.MethodGet, "/bundle"}, {http.MethodPut, "/script"}, {http.MethodPut, "/identity"}, {http.MethodPut, "/bundles"},
		{http.MethodGet, "/streams/some"}, {http.MethodGet, "/anything"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), at.method, "http://"+p.control+at.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer another")
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s without the token: %s", at.method, at.path, response.Status)
		}
	}
}

// stream makes calls until one has ended, and returns the last one.
func (p program) stream(t *testing.T, order traffic.Order) traffic.Call {
	t.Helper()
	if err := p.Start(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	apptest.Await(t, "a call of "+order.Name, func() bool {
		s, err := p.Stream(t.Context(), order.Name)
		if err != nil {
			t.Fatal(err)
		}
		return len(s.Calls) > 0
	})
	s, err := p.Stop(t.Context(), order.Name)
	if err != nil {
		t.Fatal(err)
	}
	if s.From != own.Name() {
		t.Errorf("stream is from %q", s.From)
	}
	return s.Calls[len(s.Calls)-1]
}

func TestProgramCalls(t *testing.T) {
	p := start(t)
	ca := apptest.NewCA(t, "server.test")
	server := apptest.NewHolder(ca.Issue(t, "/server"), ca.Bundle(), p.bundle(t).X509Bundle())
	address := apptest.ServeHTTPS(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := identity.Verify(r.TLS, server)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		service.JSON(w, http.StatusOK, streams.PartyOf(peer))
	}))
	order := traffic.Order{
		Name: "calls", Address: address, Server: ca.TrustDomain.IDString() + "/server",
		Every: 10 * time.Millisecond, Within: 10 * time.Second, Connection: traffic.Fresh,
	}
	if call := p.stream(t, order); call.Outcome != traffic.NoIdentity || call.Detail != "no identity yet: none has been ordered" {
		t.Errorf("without an SVID a call is %+v", call)
	}
	if err := p.Present(t.Context(), synthetic.X509Request{ID: client}); err != nil {
		t.Fatal(err)
	}
	if call := p.stream(t, order); call.Outcome != traffic.NotFederated {
		t.Errorf("without a bundle a call is %+v", call)
	}
	if err := p.Trust(t.Context(), spiffebundle.FromX509Bundle(ca.Bundle())); err != nil {
		t.Fatal(err)
	}
	call := p.stream(t, order)
	x509IDs := []string{}
	for _, authority := range p.bundle(t).X509Authorities() {
		x509IDs = append(x509IDs, hex.EncodeToString(authority.SubjectKeyId))
	}
	if call.Outcome != traffic.Answered || call.Client == nil || call.Client.ID != client.String() || !slices.Contains(x509IDs, call.Client.Authority) {
		t.Errorf("call is %+v from %+v", call, call.Client)
	}

	// A program that checked its own SVID first would not present one that has
	// expired; a stream that resumes sessions does not (apps/internal/streams).
	order.Connection = traffic.Resumed
	lie := spiffeid.RequireFromPath(ca.TrustDomain, "/client")
	for _, wrong := range []synthetic.X509Request{
		{ID: client, Wrong: synthetic.SelfSigned},
		{ID: client, Wrong: synthetic.UnknownAuthority},
		{ID: client, Wrong: synthetic.ExpiredX509},
		{ID: client, Wrong: synthetic.NotYetValid},
		{ID: client, Wrong: synthetic.TwoURIs},
		{ID: client, Wrong: synthetic.NoURI},
		{ID: client, Wrong: synthetic.CATrue},
		{ID: lie},
	} {
		if err := p.Present(t.Context(), wrong); err != nil {
			t.Fatal(err)
		}
		if call := p.stream(t, order); call.Outcome != traffic.RefusedByServer {
			t.Errorf("a call with an SVID of %s that is wrong (%q) is %+v", wrong.ID, wrong.Wrong, call)
		}
	}
}

func TestPresentedRefuses(t *testing.T) {
	domain, err := synthetic.New(own, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	p := &presented{domain: domain, bundles: x509bundle.NewSet()}
	_, err = p.present(nil, synthetic.X509Request{ID: client, PublicKey: []byte{1}})
	if want := "present X509-SVID: there is a public key: the program makes its own"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	_, err = p.trust(nil, map[spiffeid.TrustDomain]json.RawMessage{own: json.RawMessage("{}")})
	if want := "read bundle of synthetic.test: spiffebundle: no authorities found"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		token string
		args  []string
		want  string
	}{
		"no token":         {"", []string{"-trust-domain=synthetic.test"}, "read environment: SYNTHETIC_TOKEN is empty: nobody could control the trust domain"},
		"no trust domain":  {token, nil, `read flags: -trust-domain is "": want a name such as synthetic.test: trust domain is missing`},
		"bad trust domain": {token, []string{"-trust-domain=A"}, `read flags: -trust-domain is "A": want a name such as synthetic.test: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`},
		"token as a flag":  {token, []string{"-token=x"}, "read flags: flag provided but not defined: -token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tt.args, environment(tt.token), io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != tt.want {
				t.Errorf("error is %v\nwant usage error %s", err, tt.want)
			}
		})
	}
	s, err := parse([]string{"-trust-domain=synthetic.test"}, environment(token), io.Discard)
	if want := (settings{trustDomain: own, bundle: ":8443", control: ":8080", token: token}); err != nil || s != want {
		t.Errorf("settings are %+v, %v", s, err)
	}
}
