package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var (
	gatewayID  = spiffeid.RequireFromString("spiffe://aws.company.com/gateway/edge/us-east-1")
	upstreamID = spiffeid.RequireFromString("spiffe://gcp.company.com/data")
)

// world is a gateway of aws.company.com in front of an upstream that tells
// what it was asked.
type world struct {
	aws, gcp *apptest.CA
	own      *apptest.Holder
	upstream string // its URL
	answer   http.HandlerFunc
}

// asked is what the upstream was asked, and by whom.
type asked struct {
	Caller, Method, URI, Host, Body string
	Header                          http.Header
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{aws: apptest.NewCA(t, "aws.company.com"), gcp: apptest.NewCA(t, "gcp.company.com")}
	w.own = apptest.NewHolder(w.aws.Issue(t, gatewayID.Path()), w.aws.Bundle(), w.gcp.Bundle())
	holder := apptest.NewHolder(w.gcp.Issue(t, upstreamID.Path()), w.aws.Bundle(), w.gcp.Bundle())
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		caller, err := identity.Verify(r.TLS, holder)
		body, readErr := io.ReadAll(r.Body)
		if err := errors.Join(err, readErr); err != nil {
			t.Error(err)
		}
		service.JSON(rw, http.StatusOK, asked{caller.ID.String(), r.Method, r.RequestURI, r.Host, string(body), r.Header})
	}
	w.upstream = "https://" + apptest.ServeHTTPS(t, holder, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.answer(rw, r) }))
	return w
}

func (w *world) target() calls.Target {
	return calls.Target{Name: "gcp", URL: w.upstream, Server: upstreamID, Profile: "https_spiffe"}
}

// serve runs a gateway to upstreams, and returns where it listens.
func (w *world) serve(t *testing.T, upstreams ...calls.Target) (url string) {
	t.Helper()
	var rules service.Rules
	if err := errors.Join(rules.TrustDomains.Set("aws.company.com"), rules.IDs.Set("spiffe://aws.company.com/frontend")); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	return "https://" + apptest.ServeHTTPS(t, w.own, service.Guard(w.own, rules.Allow, log, newHandler(upstreams, w.own, time.Now, log)))
}

func (w *world) get(t *testing.T, path, url string, header ...string) (int, string) {
	t.Helper()
	client := apptest.NewHolder(w.aws.Issue(t, path), w.aws.Bundle())
	status, body, _, err := apptest.Get(t, client, gatewayID, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	return status, strings.TrimSpace(body)
}

// anonymous asks without a certificate.
func (w *world) anonymous(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	client := identity.Client{Server: gatewayID, Holder: w.own, Anonymous: true, Log: slog.New(slog.DiscardHandler)}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, _, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(body))
}

func TestAGatewayCallsInItsOwnName(t *testing.T) {
	w := newWorld(t)
	address := w.serve(t, w.target())
	status, body := w.get(t, "/frontend", address+"/gcp/api/process-data?type=raw",
		service.OriginalCallerHeader, "spiffe://onprem.company.com/forged", "X-Forwarded-For", "10.9.9.9", "Forwarded", "for=10.9.9.9",
		"X-Trace", "kept")
	if status != http.StatusOK {
		t.Fatalf("answer is %d %s", status, body)
	}
	var got asked
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Caller != gatewayID.String() || got.Method != http.MethodGet || got.URI != "/api/process-data?type=raw" || got.Host != strings.TrimPrefix(w.upstream, "https://") {
		t.Errorf("the upstream was asked %+v", got)
	}
	if original := got.Header.Values(service.OriginalCallerHeader); !slices.Equal(original, []string{"spiffe://aws.company.com/frontend"}) {
		t.Errorf("the original caller is %q, want the one that TLS has authenticated", original)
	}
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "Forwarded"} {
		if values := got.Header.Values(name); len(values) != 0 {
			t.Errorf("%s is %q, want nothing that a caller could forge", name, values)
		}
	}
	if got.Header.Get("X-Trace") != "kept" {
		t.Errorf("other headers are lost: %v", got.Header)
	}
}

func TestWhatAGatewayAnswers(t *testing.T) {
	w := newWorld(t)
	silent := apptest.Listen(t)
	t.Cleanup(func() { _ = silent.Close() })
	elsewhere, stranger, mute := w.target(), w.target(), w.target()
	elsewhere.Name, elsewhere.URL = "elsewhere", "https://127.0.0.1:1"
	stranger.Name, stranger.Server = "stranger", spiffeid.RequireFromString("spiffe://gcp.company.com/other")
	mute.Name, mute.URL = "mute", "https://"+silent.Addr().String()
	address := w.serve(t, w.target(), elsewhere, stranger, mute)
	answered := w.answer
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/refused" {
			answered(rw, r)
			return
		}
		service.JSON(rw, http.StatusForbidden, map[string]string{"error": "forbidden", "rule": "a rule of the upstream", "server": upstreamID.String()})
	}
	const server = `,"server":"spiffe://aws.company.com/gateway/edge/us-east-1"}`
	for name, test := range map[string]struct {
		path, caller string
		status       int
		want         string
	}{
		"itself":                       {"/api/health", "/frontend", 200, `{"service":"api-gateway","status":"healthy","trust_domain":"aws.company.com"}`},
		"who may not call":             {"/gcp/x", "/other", 403, `{"error":"forbidden","rule":"spiffe://aws.company.com/other is not in ALLOWED_CLIENT_IDS","caller":"spiffe://aws.company.com/other"` + server},
		"an upstream's refusal, as is": {"/gcp/refused", "/frontend", 403, `{"error":"forbidden","rule":"a rule of the upstream","server":"spiffe://gcp.company.com/data"}`},
		"no such upstream":             {"/azure/x", "/frontend", 404, `{"error":"not found","reason":"no upstream is called by the first part of /azure/x"` + server},
		"nobody there":                 {"/elsewhere/x", "/frontend", 502, `{"error":"bad gateway","reason":"The upstream elsewhere cannot be reached at 127.0.0.1:1."` + server},
		"somebody else": {"/stranger/x", "/frontend", 502,
			`{"error":"bad gateway","reason":"spiffe://gcp.company.com/data answers in place of spiffe://gcp.company.com/other. Nothing was asked of them."` + server},
		"silence": {"/mute/x", "/frontend", 504, fmt.Sprintf(`{"error":"gateway timeout","reason":"Something accepts connections at %s, but does not answer within 2.5s."`, silent.Addr()) + server},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := w.get(t, test.caller, address+test.path)
			if status != test.status || body != test.want {
				t.Errorf("answer is %d %s\nwant %d %s", status, body, test.status, test.want)
			}
		})
	}
}

func TestAGatewayTellsOfItsUpstreams(t *testing.T) {
	w := newWorld(t)
	address := w.serve(t, w.target())
	apptest.Await(t, "a call of the upstream", func() bool {
		_, body := w.get(t, "/frontend", address+"/api/calls")
		var r calls.Report
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		return len(r.Calls) == 1 && r.Calls[0].State == calls.Answered && r.Calls[0].URL == w.upstream+"/api/health" && r.Calls[0].Caller == gatewayID
	})
}

func TestParse(t *testing.T) {
	upstream := func(name, url string) string {
		return fmt.Sprintf(`-upstreams=[{"name":%q,"url":%q,"server":"spiffe://gcp.test/data"}]`, name, url)
	}
	allowed := []string{"-allow-trust-domains=aws.test", "-allow-ids=spiffe://aws.test/x"}
	for name, test := range map[string]struct{ arg, want string }{
		"a name that no path has":  {upstream("g/cp", "https://gcp.test:8443"), `read flags: -upstreams: name is "g/cp": want lower-case letters, digits and dashes, and not api`},
		"the gateway's own name":   {upstream("api", "https://gcp.test:8443"), `read flags: -upstreams: name is "api": want lower-case letters, digits and dashes, and not api`},
		"an upstream with a path":  {upstream("gcp", "https://gcp.test:8443/api"), `read flags: -upstreams: url of gcp is "https://gcp.test:8443/api": want no path`},
		"an issuer of nobody":      {"-issuers=https://oidc.gcp.test", `read flags: invalid value "https://oidc.gcp.test" for flag -issuers: "https://oidc.gcp.test" has no issuer: want a trust domain with its issuer, such as cluster2.com=https://oidc.cluster2.com`},
		"an upstream without port": {upstream("gcp", "https://gcp.test"), `read flags: invalid value "[{\"name\":\"gcp\",\"url\":\"https://gcp.test\",\"server\":\"spiffe://gcp.test/data\"}]" for flag -upstreams: target 1 ("gcp"): url is "https://gcp.test": want https://host:port/path`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(append(allowed, test.arg), func(string) string { return "" }, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}

// TestRun starts the program before its agent, and takes its identity away.
func TestRun(t *testing.T) {
	w := newWorld(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	env := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket, "GATEWAY_LISTEN": "127.0.0.1:0", "GATEWAY_HEALTH_LISTEN": "127.0.0.1:0",
		"ALLOWED_CLIENT_TRUST_DOMAINS": "aws.company.com,gcp.company.com", "ALLOWED_CLIENT_IDS": "spiffe://aws.company.com/frontend,spiffe://gcp.company.com/partner",
		"GATEWAY_ISSUERS":   "gcp.company.com=https://oidc.gcp.company.com",
		"GATEWAY_UPSTREAMS": calls.Targets{w.target()}.String(),
	}
	var log apptest.Log
	stop := apptest.Run(t, func(ctx context.Context) error {
		return service.With(parse, run)(ctx, nil, func(name string) string { return env[name] }, &log)
	})
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	api.Set(t, w.aws.Issue(t, gatewayID.Path()), w.aws.Bundle(), w.gcp.Bundle())
	old, next := apptest.NewJWTKey(t, "gcp.company.com", "old"), apptest.NewJWTKey(t, "gcp.company.com", "next")
	old.Issuer, next.Issuer = "https://oidc.gcp.company.com", "https://oidc.gcp.company.com"
	api.SetJWT("/gateway", apptest.NewJWTKey(t, "aws.company.com", "own"), old.Bundle(next))
	_, address, _ := strings.Cut(log.Await(t, "what=HTTPS"), "listen=")
	if status, body := w.get(t, "/frontend", "https://"+address+"/gcp/x"); status != http.StatusOK {
		t.Errorf("answer is %d %s", status, body)
	}
	log.Await(t, `msg="server authenticated" spiffe_id=`+upstreamID.String())

	// A caller of another trust domain presents no certificate, and a token. It does not
	// get as far as the upstream.
	log.Await(t, "JWT bundles received")
	byToken := func(key *apptest.JWTKey) (int, string) {
		token, err := key.Sign("/partner", gatewayID.String(), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return w.anonymous(t, "https://"+address+"/gcp/x", "Authorization", "Bearer "+token)
	}
	status, body := byToken(old)
	var got asked
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("with a token the answer is %d %s, %v", status, body, err)
	}
	if got.Header.Get("Authorization") != "" || got.Header.Get(service.OriginalCallerHeader) != "spiffe://gcp.company.com/partner" || got.Caller != gatewayID.String() {
		t.Errorf("with a token the upstream was asked %+v", got)
	}

	// Its JWT authority is revoked: the token is good no longer, and one of the next is.
	api.SetJWT("/gateway", apptest.NewJWTKey(t, "aws.company.com", "own"), next.Bundle())
	apptest.Await(t, "the token to be refused", func() bool {
		status, body := byToken(old)
		return status == http.StatusUnauthorized && strings.Contains(body, `there is none with the key ID \"old\"`)
	})
	if status, body := byToken(next); status != http.StatusOK {
		t.Errorf("with a token of the next authority the answer is %d %s", status, body)
	}

	// No bundle of gcp.company.com any more: the next request says so.
	api.Set(t, w.aws.Issue(t, gatewayID.Path()), w.aws.Bundle())
	apptest.Await(t, "the upstream to be refused", func() bool {
		status, body := w.get(t, "/frontend", "https://"+address+"/gcp/x")
		return status == http.StatusBadGateway && strings.Contains(body, "holds no bundle of that trust domain")
	})
	log.Await(t, "class="+string(diagnosis.NotFederated))
	stop()
}
