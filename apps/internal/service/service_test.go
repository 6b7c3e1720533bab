package service_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var serverID = spiffeid.RequireFromString("spiffe://gcp.test/server")

// rules allow spiffe://aws.test/client; gcp.test is an allowed domain without
// an allowed ID.
func rules(t *testing.T) service.Rules {
	t.Helper()
	var r service.Rules
	if err := errors.Join(r.TrustDomains.Set("aws.test,gcp.test"), r.IDs.Set("spiffe://aws.test/client,spiffe://partner.test/client")); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGuardNamesTheRule(t *testing.T) {
	gcp, aws, partner := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test"), apptest.NewCA(t, "partner.test")
	holder := apptest.NewHolder(gcp.Issue(t, "/server"), gcp.Bundle(), aws.Bundle(), partner.Bundle())
	var log apptest.Log
	asked := 0
	guarded := service.Guard(holder, rules(t).Allow, slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		service.JSON(w, http.StatusOK, service.CallerOf(r).ID)
	}))
	address := "https://" + apptest.ServeHTTPS(t, holder, guarded) + "/data"

	for name, test := range map[string]struct {
		ca     *apptest.CA
		path   string
		status int
		body   string
	}{
		"allowed": {aws, "/client", 200, `"spiffe://aws.test/client"`},
		"a domain that is not allowed, though the ID is": {partner, "/client", 403,
			`{"error":"forbidden","rule":"trust domain partner.test is not in ALLOWED_CLIENT_TRUST_DOMAINS","caller":"spiffe://partner.test/client","server":"spiffe://gcp.test/server"}`},
		"an ID that is not allowed, though its domain is": {aws, "/client/other", 403,
			`{"error":"forbidden","rule":"spiffe://aws.test/client/other is not in ALLOWED_CLIENT_IDS","caller":"spiffe://aws.test/client/other","server":"spiffe://gcp.test/server"}`},
	} {
		t.Run(name, func(t *testing.T) {
			client := apptest.NewHolder(test.ca.Issue(t, test.path), gcp.Bundle())
			status, body, _, err := apptest.Get(t, client, serverID, address)
			if err != nil {
				t.Fatal(err)
			}
			if status != test.status || strings.TrimSpace(body) != test.body {
				t.Errorf("answer is %d %s\nwant %d %s", status, body, test.status, test.body)
			}
		})
	}
	status, body := apptest.GetPlain(t, gcp.Bundle(), address)
	if want := `{"error":"unauthorized","rule":"a client must present an X509-SVID in the TLS handshake","server":"spiffe://gcp.test/server"}`; status != 401 || strings.TrimSpace(body) != want {
		t.Errorf("without a certificate: %d %s\nwant 401 %s", status, body, want)
	}
	if asked != 1 {
		t.Errorf("the handler was asked %d times, want once", asked)
	}
	line := log.Await(t, "status=200")
	for _, part := range []string{"msg=request", "method=GET", "path=/data", "caller.spiffe_id=spiffe://aws.test/client", "caller.serial=", "caller.bundle=aws.test", "caller.authority="} {
		if !strings.Contains(line, part) {
			t.Errorf("the log lacks %q:\n%s", part, line)
		}
	}
	log.Await(t, `rule="trust domain partner.test is not in ALLOWED_CLIENT_TRUST_DOMAINS"`)
}

// TestGuardTokens has callers with a token, with a certificate, and with both.
func TestGuardTokens(t *testing.T) {
	gcp, aws := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	holder := apptest.NewHolder(gcp.Issue(t, "/server"), gcp.Bundle(), aws.Bundle())
	key := apptest.NewJWTKey(t, "aws.test", "one")
	key.Issuer = "https://oidc.aws.test"
	tokens := identity.Tokens{Bundles: key.Bundle(), Issuers: identity.Issuers{key.TrustDomain: key.Issuer}}
	var log apptest.Log
	guarded := service.GuardTokens(holder, tokens, rules(t).Allow, slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		service.JSON(w, http.StatusOK, service.CallerOf(r).ID)
	}))
	address := "https://" + apptest.ServeHTTPS(t, holder, guarded) + "/data"
	bearer := func(path string, audience spiffeid.ID) string {
		token, err := key.Sign(path, audience.String(), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + token
	}
	good := bearer("/client", serverID)
	const realm, invalid = `Bearer realm="spiffe://gcp.test/server"`, `, error="invalid_token"`
	const server = `,"server":"spiffe://gcp.test/server"}`
	for name, test := range map[string]struct {
		certificate           string // the path of the client's X509-SVID; empty for none
		authorization         string
		status                int
		body, challengeWanted string
	}{
		"a token":                   {"", good, 200, `"spiffe://aws.test/client"`, ""},
		"a token in small letters":  {"", strings.Replace(good, "Bearer", "bearer", 1), 200, `"spiffe://aws.test/client"`, ""},
		"a certificate":             {"/client", "", 200, `"spiffe://aws.test/client"`, ""},
		"both of one workload":      {"/client", good, 200, `"spiffe://aws.test/client"`, ""},
		"nothing":                   {"", "", 401, `{"error":"unauthorized","rule":"a client must present an X509-SVID in the TLS handshake, or a JWT-SVID as a bearer token"` + server, realm},
		"another scheme":            {"", "Basic eDp5", 401, `{"error":"unauthorized","rule":"the one header Authorization must be Bearer, with a JWT-SVID"` + server, realm + invalid},
		"the token of somebody":     {"/other", good, 401, `{"error":"unauthorized","rule":"a client that presents both must present a JWT-SVID and an X509-SVID of one SPIFFE ID: the one is of spiffe://aws.test/client, the other of spiffe://aws.test/other"` + server, realm + invalid},
		"a token of wrong audience": {"", bearer("/client", spiffeid.RequireFromString("spiffe://gcp.test/else")), 401, `{"error":"unauthorized","rule":"the audience of a JWT-SVID must be spiffe://gcp.test/server: it is [\"spiffe://gcp.test/else\"]"` + server, realm + invalid},
		"a caller who may not":      {"", bearer("/other", serverID), 403, `{"error":"forbidden","rule":"spiffe://aws.test/other is not in ALLOWED_CLIENT_IDS","caller":"spiffe://aws.test/other"` + server, ""},
	} {
		t.Run(name, func(t *testing.T) {
			client := identity.Client{Server: serverID, Log: slog.New(slog.DiscardHandler), Anonymous: test.certificate == ""}
			client.Holder = apptest.NewHolder(aws.Issue(t, cmp.Or(test.certificate, "/unseen")), gcp.Bundle())
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.authorization != "" {
				request.Header.Set("Authorization", test.authorization)
			}
			response, _, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if got := response.Header.Get("WWW-Authenticate"); response.StatusCode != test.status || strings.TrimSpace(string(body)) != test.body || got != test.challengeWanted {
				t.Errorf("answer is %d %s, challenge %q\nwant %d %s, challenge %q", response.StatusCode, body, got, test.status, test.body, test.challengeWanted)
			}
		})
	}
	line := log.Await(t, "status=200")
	for _, part := range []string{"caller.spiffe_id=spiffe://aws.test/client", "caller.bundle=aws.test"} {
		if !strings.Contains(line, part) {
			t.Errorf("the log lacks %q:\n%s", part, line)
		}
	}
	log.Await(t, "caller.authority=one")
	if _, token, _ := strings.Cut(good, " "); log.Count(token) != 0 {
		t.Error("the log has a token in it")
	}
}

// TestGuardVerifiesEachRequest gives it a request whose connection was
// authenticated when its client's bundle was still held.
func TestGuardVerifiesEachRequest(t *testing.T) {
	gcp, aws := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	svid := gcp.Issue(t, "/server")
	holder := apptest.NewHolder(svid, gcp.Bundle(), aws.Bundle())
	guarded := service.Guard(holder, rules(t).Allow, slog.New(slog.DiscardHandler), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		holder.Set(svid, gcp.Bundle())
		service.JSON(w, http.StatusOK, "first")
	}))
	second := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guarded.ServeHTTP(httptest.NewRecorder(), r)
		guarded.ServeHTTP(w, r)
	})
	client := apptest.NewHolder(aws.Issue(t, "/client"), gcp.Bundle())
	status, body, _, err := apptest.Get(t, client, serverID, "https://"+apptest.ServeHTTPS(t, holder, second)+"/")
	if err != nil {
		t.Fatal(err)
	}
	if status != 401 || !strings.Contains(body, `"rule":"the X509-SVID of a client must verify when it calls: verify client:`) || !strings.Contains(body, "no bundle held for trust domain aws.test") {
		t.Errorf("answer is %d %s", status, body)
	}
}

func TestAnOriginalCallerIsLoggedAndDecidesNothing(t *testing.T) {
	gcp, aws := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	holder := apptest.NewHolder(gcp.Issue(t, "/server"), gcp.Bundle(), aws.Bundle())
	var log apptest.Log
	guarded := service.Guard(holder, rules(t).Allow, slog.New(slog.NewTextHandler(&log, nil)), http.NotFoundHandler())
	address := "https://" + apptest.ServeHTTPS(t, holder, guarded) + "/"
	stranger := apptest.NewHolder(aws.Issue(t, "/stranger"), gcp.Bundle())
	status, _, _, err := apptest.Get(t, stranger, serverID, address, service.OriginalCallerHeader, "spiffe://aws.test/client")
	if err != nil || status != http.StatusForbidden {
		t.Errorf("answer is %d, %v, want it forbidden whatever the header says", status, err)
	}
	if line := log.Await(t, "status=403"); !strings.Contains(line, "claimed_original_caller=spiffe://aws.test/client") {
		t.Errorf("the log lacks the claim:\n%s", line)
	}
}

func TestReadJSON(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"an answer":                {200, `"hello"`, ""},
		"no JSON":                  {200, `<html>`, "read answer: invalid character '<' looking for beginning of value"},
		"a refusal":                {403, `{"error":"forbidden","rule":"no"}`, "answer is 403 forbidden: no"},
		"a failure":                {503, `{"error":"service unavailable","reason":"gone"}`, "answer is 503 service unavailable: gone"},
		"a refusal of other make":  {404, `404 page not found`, "answer is 404 not found"},
		"a failure without a word": {502, ``, "answer is 502 bad gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			recorded := httptest.NewRecorder()
			recorded.WriteHeader(test.status)
			_, _ = recorded.WriteString(test.body)
			var got string
			err := service.ReadJSON(recorded.Result(), &got)
			if test.want == "" {
				if err != nil || got != "hello" {
					t.Errorf("read %q, %v", got, err)
				}
				return
			}
			if err == nil || err.Error() != test.want {
				t.Errorf("error is %v, want %s", err, test.want)
			}
			var refusal *service.Refusal
			if isRefusal := errors.As(err, &refusal); isRefusal != (test.status != 200) || isRefusal && refusal.Status != test.status {
				t.Errorf("error is %#v", err)
			}
		})
	}
}

// TestALongAnswerIsNotReadOn: answers that would be right if they were read to
// their ends.
func TestALongAnswerIsNotReadOn(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusOK:        "read answer: unexpected end of JSON input",
		http.StatusForbidden: "answer is 403 forbidden",
	} {
		recorded := httptest.NewRecorder()
		recorded.WriteHeader(status)
		_, _ = recorded.WriteString(`{"error":"forbidden","rule":"` + strings.Repeat("x", 4<<20) + `"}`)
		var got any
		if err := service.ReadJSON(recorded.Result(), &got); err == nil || err.Error() != want {
			t.Errorf("%d: error is %.80v, want %s", status, err, want)
		}
	}
}

func TestHealth(t *testing.T) {
	gcp := apptest.NewCA(t, "gcp.test")
	holder := apptest.NewHolder(gcp.Issue(t, "/server"), gcp.Bundle())
	ask := func(check func(context.Context) error) string {
		w := httptest.NewRecorder()
		service.Health("data", holder, check)(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		return w.Result().Status + " " + strings.TrimSpace(w.Body.String())
	}
	for want, check := range map[string]func(context.Context) error{
		`200 OK {"service":"data","status":"healthy","trust_domain":"gcp.test"}`:                                             nil,
		`503 Service Unavailable {"error":"service unavailable","reason":"no database","server":"spiffe://gcp.test/server"}`: func(context.Context) error { return errors.New("no database") },
	} {
		if got := ask(check); got != want {
			t.Errorf("answer is %s\nwant %s", got, want)
		}
	}
}

func TestRulesMustBeGiven(t *testing.T) {
	var s service.Settings
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	named := s.Flags(flags)
	env := map[string]string{"ALLOWED_CLIENT_TRUST_DOMAINS": "aws.test, gcp.test"}
	if err := process.Parse(flags, "DEMO", named, nil, func(name string) string { return env[name] }); err != nil {
		t.Fatal(err)
	}
	if s.Rules.TrustDomains.String() != "aws.test,gcp.test" || s.Listen != ":8443" {
		t.Errorf("settings are %+v", s)
	}
	want := "read flags: -allow-trust-domains (or ALLOWED_CLIENT_TRUST_DOMAINS) and -allow-ids (or ALLOWED_CLIENT_IDS) must both be given: " +
		"name who may call, such as aws.company.com and spiffe://aws.company.com/ns/demo/service/frontend"
	var usage *process.UsageError
	if err := s.Rules.Complete(); !errors.As(err, &usage) || err.Error() != want {
		t.Errorf("error is %v\nwant %s", err, want)
	}
}

// TestProgram starts before its agent: its port opens with its identity, and
// it is ready when the rest is.
func TestProgram(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	var log apptest.Log
	logger := slog.New(slog.NewTextHandler(&log, nil))
	source, err := service.Source("unix://"+socket, logger)
	if err != nil {
		t.Fatal(err)
	}
	missing := make(chan struct{})
	health := apptest.Address(t)
	stop := apptest.Run(t, service.Program{
		Source: source, Health: health, Log: logger,
		Ready: func() error {
			select {
			case <-missing:
				return nil
			default:
				return errors.New("no database yet")
			}
		},
		Ports: []service.Port{{Name: "greetings", Address: "127.0.0.1:0", Serve: func(listener net.Listener) process.Server {
			return process.HTTP(listener, http.NotFoundHandler(), time.Minute, logger)
		}}},
		Tasks: []func(context.Context) error{func(ctx context.Context) error { <-ctx.Done(); return nil }},
	}.Run)
	ready := func() string {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+health+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err.Error()
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	apptest.Await(t, "the missing agent", func() bool { return strings.HasPrefix(ready(), "no identity yet") })
	if log.Count("msg=serving") != 0 {
		t.Error("the port is open without an identity")
	}
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	gcp := apptest.NewCA(t, "gcp.test")
	api.Set(t, gcp.Issue(t, "/server"), gcp.Bundle())
	log.Await(t, "msg=serving what=greetings listen=127.0.0.1:")
	apptest.Await(t, "the missing database", func() bool { return ready() == "no database yet\n" })
	close(missing)
	apptest.Await(t, "readiness", func() bool { return ready() == "ok\n" })
	stop()
}

func TestAWrongSocketIsAUsageError(t *testing.T) {
	_, err := service.Source("/run/agent.sock", slog.New(slog.DiscardHandler))
	var usage *process.UsageError
	if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), "read flags: -socket (or SPIFFE_ENDPOINT_SOCKET): ") {
		t.Errorf("error is %v", err)
	}
}
