package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// probe is one that runs in this process, next to a Workload API of its own.
type probe struct {
	*traffic.Probe
	ca                *apptest.CA
	api               *apptest.WorkloadAPI
	key               *apptest.JWTKey
	svid              *x509svid.SVID
	id                string
	careful, careless string
	anybody           string
	log               *apptest.Log
}

// start runs a probe that has no identity yet.
func start(t *testing.T, name string) *probe {
	t.Helper()
	p := &probe{ca: apptest.NewCA(t, name), key: apptest.NewJWTKey(t, name, "key of "+name), id: "spiffe://" + name + "/probe", log: &apptest.Log{}}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	p.api, _ = apptest.ServeWorkloadAPI(t, socket)
	env := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket, "ALLOWED_CLIENT_TRUST_DOMAINS": "cluster1.com,cluster2.com",
		"PROBE_LISTEN": "127.0.0.1:0", "PROBE_CARELESS_RESUMPTION": "127.0.0.1:0", "PROBE_ANYBODY": "127.0.0.1:0",
		"PROBE_CONTROL_LISTEN": "127.0.0.1:0", "PROBE_HEALTH_LISTEN": "127.0.0.1:0",
	}
	apptest.Run(t, func(ctx context.Context) error {
		return run(ctx, nil, func(name string) string { return env[name] }, p.log)
	})
	control := p.listens(t, "what=control ")
	p.Probe = traffic.NewProbe(func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", control)
	})
	return p
}

func (p *probe) listens(t *testing.T, what string) string {
	t.Helper()
	_, address, _ := strings.Cut(p.log.Await(t, what), "listen=")
	return address
}

// hold has a probe hold svid and the bundles of its own and other trust domains.
func (p *probe) hold(t *testing.T, svid *x509svid.SVID, others ...*probe) {
	t.Helper()
	p.svid = svid
	var bundles []*x509bundle.Bundle
	for _, other := range others {
		bundles = append(bundles, other.ca.Bundle())
	}
	p.api.Set(t, svid, p.ca.Bundle(), bundles...)
	apptest.Await(t, "the Workload API's answer", func() bool {
		held, err := p.Holding(t.Context())
		return err == nil && held.Self != nil && held.Self.Serial == identity.DocumentOf(svid).Serial && len(held.Bundles) == 1+len(others)
	})
}

// pair returns two probes that hold each other's bundles.
func pair(t *testing.T) (called, caller *probe) {
	t.Helper()
	called, caller = start(t, "cluster1.com"), start(t, "cluster2.com")
	for p, other := range map[*probe]*probe{called: caller, caller: called} {
		p.api.SetJWT("/probe", p.key, p.key.Bundle(), other.key.Bundle())
		p.hold(t, p.ca.Issue(t, "/probe"), other)
		p.careful, p.careless = p.listens(t, "what=HTTPS "), p.listens(t, `what="HTTPS with careless resumption"`)
		p.anybody = p.listens(t, `what="HTTPS for anybody"`)
	}
	return called, caller
}

func (p *probe) party() *traffic.Party {
	own := identity.DocumentOf(p.svid)
	return &traffic.Party{ID: p.id, Serial: own.Serial, NotAfter: own.NotAfter, Authority: hex.EncodeToString(p.ca.Root.SubjectKeyId)}
}

// call has p call another probe until the test ends, and returns a function that
// waits for calls that end so, from now on, and returns the last one.
func (p *probe) call(t *testing.T, name, address string, to *probe, connection traffic.Connection) (ends func(traffic.Outcome) traffic.Call) {
	t.Helper()
	order := traffic.Order{Name: name, Address: address, Server: to.id, Every: 20 * time.Millisecond, Within: 10 * time.Second, Connection: connection}
	if err := p.Start(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	return func(outcome traffic.Outcome) (last traffic.Call) {
		t.Helper()
		began := time.Now()
		apptest.Await(t, name+" to end with "+string(outcome), func() bool {
			s, err := p.Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Calls) > 0 {
				last = s.Calls[len(s.Calls)-1]
			}
			return last.Outcome == outcome && last.At.After(began)
		})
		return last
	}
}

func (p *probe) stop(t *testing.T, name string) traffic.Stream {
	t.Helper()
	s, err := p.Stop(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func judge(t *testing.T, s traffic.Stream, v traffic.Verdict) {
	t.Helper()
	v.Stream = s.Order.Name
	if _, err := v.Judge([]traffic.Stream{s}); err != nil {
		t.Errorf("%s: %v", v.Rule, err)
	}
}

func TestCallsAreRecordedWhileThingsBreak(t *testing.T) {
	t.Parallel()
	called, caller := pair(t)
	begun := time.Now()
	ends := caller.call(t, "fresh", called.careful, called, traffic.Fresh)
	answered := ends(traffic.Answered)
	if !reflect.DeepEqual(answered.Server, called.party()) || !reflect.DeepEqual(answered.Client, caller.party()) || answered.Detail != "" {
		t.Errorf("call is %+v\nserver %+v, want %+v\nclient %+v, want %+v", answered, answered.Server, called.party(), answered.Client, caller.party())
	}

	// A call that is under way now may come to its end before or after.
	fault := time.Now()
	called.hold(t, called.svid)
	if c := ends(traffic.RefusedByServer); !reflect.DeepEqual(c.Server, called.party()) || c.Client != nil || !strings.Contains(c.Detail, "remote error: tls: ") {
		t.Errorf("call is %+v", c)
	}
	refused := time.Now()
	stillRefused := ends(traffic.RefusedByServer)
	called.hold(t, called.svid, caller)
	ends(traffic.Answered)
	healed := time.Now()
	answeredAgain := ends(traffic.Answered)

	past := time.Now().Add(-time.Hour)
	caller.hold(t, caller.ca.IssueFor(t, "/probe", past, past.Add(time.Minute)), called)
	if c := ends(traffic.Expired); c.Server != nil || !strings.HasPrefix(c.Detail, "own SVID spiffe://cluster2.com/probe expired at ") {
		t.Errorf("call is %+v", c)
	}

	seen, err := caller.Stream(t.Context(), "fresh")
	if err != nil {
		t.Fatal(err)
	}
	whole := caller.stop(t, "fresh")
	if !seen.Ended.IsZero() || whole.Ended.IsZero() || len(whole.Calls) < len(seen.Calls) || !reflect.DeepEqual(whole.Calls[:len(seen.Calls)], seen.Calls) {
		t.Errorf("the record of %d calls that was stopped does not begin with the %d seen before", len(whole.Calls), len(seen.Calls))
	}
	if whole.From != "cluster2.com" || whole.Order.Name != "fresh" {
		t.Errorf("the record is of %q from %q", whole.Order.Name, whole.From)
	}
	const want = `read stream "fresh": the probe answers 404 not found: no stream is called "fresh"`
	if _, err := caller.Stream(t.Context(), "fresh"); err == nil || err.Error() != want {
		t.Errorf("what was stopped is not forgotten: %v", err)
	}
	judge(t, whole, traffic.Verdict{Rule: traffic.AllAnswered, From: begun, Until: fault})
	judge(t, whole, traffic.Verdict{Rule: traffic.RefusedBy, From: fault, Within: refused.Sub(fault), Until: stillRefused.At, Outcomes: []traffic.Outcome{traffic.RefusedByServer}})
	judge(t, whole, traffic.Verdict{Rule: traffic.AuthorityBy, From: refused, Within: healed.Sub(refused), Until: answeredAgain.At, Authority: called.party().Authority})
}

// TestAKeptConnectionOutlivesItsHandshake until its requests are looked at.
func TestAKeptConnectionOutlivesItsHandshake(t *testing.T) {
	t.Parallel()
	called, caller := pair(t)
	careful := caller.call(t, "careful", called.careful, called, traffic.Kept)
	careless := caller.call(t, "careless", called.careless, called, traffic.Kept)
	careful(traffic.Answered)
	if c := careless(traffic.Answered); !reflect.DeepEqual(c.Client, caller.party()) {
		t.Errorf("client is %+v, want %+v", c.Client, caller.party())
	}
	// A connection that was made again would see the new SVID.
	first := called.party()
	called.hold(t, called.ca.Issue(t, "/probe"), caller)
	if c := careful(traffic.Answered); !reflect.DeepEqual(c.Server, first) {
		t.Errorf("server is %+v, want the one of the first handshake", c.Server)
	}
	called.hold(t, called.svid)
	// Not refused in a handshake, which there is none of: refused in words.
	if c := careful(traffic.NotPermitted); !reflect.DeepEqual(c.Server, first) || !strings.Contains(c.Detail, "no bundle held for trust domain cluster2.com") {
		t.Errorf("call is %+v", c)
	}
	careless(traffic.Answered)
	begun := time.Now()
	careless(traffic.Answered)
	judge(t, caller.stop(t, "careless"), traffic.Verdict{Rule: traffic.AllAnswered, From: begun})
	caller.stop(t, "careful")
}

// TestSessionsAreResumedByTheCarelessPortAlone takes away, after the first
// handshake, what it rested on.
func TestSessionsAreResumedByTheCarelessPortAlone(t *testing.T) {
	t.Parallel()
	called, caller := pair(t)
	begun := time.Now()
	careful := caller.call(t, "careful", called.careful, called, traffic.Resumed)
	careless := caller.call(t, "careless", called.careless, called, traffic.Resumed)
	careful(traffic.Answered)
	if c := careless(traffic.Answered); !reflect.DeepEqual(c.Server, called.party()) || !reflect.DeepEqual(c.Client, caller.party()) {
		t.Errorf("call is %+v, server %+v, client %+v", c, c.Server, c.Client)
	}
	fault := time.Now()
	called.hold(t, called.svid)
	if c := careful(traffic.RefusedByServer); c.Resumed {
		t.Errorf("call is %+v", c)
	}
	if c := careless(traffic.Answered); !c.Resumed || !reflect.DeepEqual(c.Client, caller.party()) {
		t.Errorf("call is %+v, client %+v", c, c.Client)
	}
	settled := time.Now()
	careful(traffic.RefusedByServer)
	careless(traffic.Answered)

	s := caller.stop(t, "careless")
	judge(t, s, traffic.Verdict{Rule: traffic.ResumedSome, From: begun})
	judge(t, s, traffic.Verdict{Rule: traffic.AllAnswered, From: begun})
	if s.Calls[0].Resumed || !s.Calls[1].Resumed {
		t.Errorf("calls are %+v, %+v: want the second to resume the session of the first", s.Calls[0], s.Calls[1])
	}
	s = caller.stop(t, "careful")
	judge(t, s, traffic.Verdict{Rule: traffic.ResumedNone, From: begun})
	judge(t, s, traffic.Verdict{Rule: traffic.RefusedBy, From: fault, Within: settled.Sub(fault), Outcomes: []traffic.Outcome{traffic.RefusedByServer}})

	// Who resumes looks at the server all the same.
	called.hold(t, called.svid, caller)
	again := caller.call(t, "again", called.careless, called, traffic.Resumed)
	again(traffic.Answered)
	caller.hold(t, caller.svid)
	again(traffic.NotFederated)
	caller.stop(t, "again")
}

func TestTrustDomainsThatAreNotOnTheList(t *testing.T) {
	t.Parallel()
	called, _ := pair(t)
	stranger := start(t, "cluster3.com")
	stranger.api.SetJWT("/probe", stranger.key, stranger.key.Bundle())
	stranger.hold(t, stranger.ca.Issue(t, "/probe"), called)
	if c := stranger.call(t, "anybody", called.anybody, called, traffic.Fresh)(traffic.Answered); c.Client == nil || c.Client.ID != stranger.id {
		t.Errorf("call is %+v", c)
	}
	called.hold(t, called.svid, stranger)
	ends := stranger.call(t, "careful", called.careful, called, traffic.Fresh)
	if c := ends(traffic.NotPermitted); c.Detail != "answer is 403 forbidden: trust domain cluster3.com is not in ALLOWED_CLIENT_TRUST_DOMAINS" {
		t.Errorf("call is %+v", c)
	}
	ends = stranger.call(t, "careless", called.careless, called, traffic.Fresh)
	ends(traffic.RefusedByServer)
}

func TestHolding(t *testing.T) {
	t.Parallel()
	p, other := start(t, "cluster1.com"), start(t, "cluster2.com")
	const denied = "no identity yet: rpc error: code = PermissionDenied desc = no identity issued"
	var held traffic.Holding
	apptest.Await(t, "the Workload API's refusal", func() (ok bool) {
		var err error
		if held, err = p.Holding(t.Context()); err != nil {
			t.Fatal(err)
		}
		return held.Problem == denied
	})
	if want := (traffic.Holding{Bundles: map[string][]string{}, JWTBundles: map[string][]string{}, Problem: denied}); !reflect.DeepEqual(held, want) {
		t.Errorf("holding is %+v, want %+v", held, want)
	}

	second := apptest.NewCA(t, "cluster1.com")
	p.svid = p.ca.Issue(t, "/probe")
	p.api.Set(t, p.svid, p.ca.Bundle(second), other.ca.Bundle())
	const missing = "read what the probe holds: the probe answers 503 service unavailable: fetch JWT bundles: rpc error: code = PermissionDenied desc = no identity issued"
	apptest.Await(t, "the SVID", func() bool {
		_, err := p.Holding(t.Context())
		return err != nil && err.Error() == missing
	})
	p.api.SetJWT("/probe", p.key, p.key.Bundle(apptest.NewJWTKey(t, "cluster1.com", "a newer key")), other.key.Bundle())
	held, err := p.Holding(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, next := hex.EncodeToString(p.ca.Root.SubjectKeyId), hex.EncodeToString(second.Root.SubjectKeyId)
	want := traffic.Holding{
		Self:       p.party(),
		Bundles:    map[string][]string{"cluster1.com": {min(first, next), max(first, next)}, "cluster2.com": {hex.EncodeToString(other.ca.Root.SubjectKeyId)}},
		JWTBundles: map[string][]string{"cluster1.com": {"a newer key", "key of cluster1.com"}, "cluster2.com": {"key of cluster2.com"}},
	}
	if !reflect.DeepEqual(held, want) {
		t.Errorf("holding is\n%+v\nwant\n%+v", held, want)
	}

	// An SVID that no held bundle verifies has no authority.
	stray := second.Issue(t, "/probe")
	p.api.Set(t, stray, p.ca.Bundle())
	apptest.Await(t, "the other SVID", func() bool {
		held, err = p.Holding(t.Context())
		return err == nil && held.Self.Serial == identity.DocumentOf(stray).Serial
	})
	if held.Self.Authority != "" {
		t.Errorf("authority is %q, want none", held.Self.Authority)
	}
}

// A probe makes one request with its SVID, of any server whose SPIFFE ID it is told.
func TestGet(t *testing.T) {
	called, caller := pair(t)
	ctx := t.Context()
	status, err := caller.Get(ctx, traffic.Get{URL: "https://" + called.careful + "/healthz", Server: called.id})
	if err != nil || status/100 != 2 {
		t.Errorf("the answer is %d, %v", status, err)
	}
	for _, tt := range []struct{ url, server, want string }{
		{"https://" + called.careful, called.id + "/other", `unexpected ID "` + called.id + `"`},
		{"http://" + called.careful, called.id, "want one of https"},
		{"https://" + called.careful, "cluster1.com", "read question: "},
		{"https://127.0.0.1:1", called.id, "connection refused"},
	} {
		if _, err := caller.Get(ctx, traffic.Get{URL: tt.url, Server: tt.server}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s of %s: error is %v, want %q", tt.url, tt.server, err, tt.want)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	called, caller := pair(t)
	ctx := t.Context()
	token, err := caller.Token(ctx, called.id)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := called.Validate(ctx, called.id, token); err != nil || id != caller.id {
		t.Errorf("the token is of %q, %v; want %s", id, err, caller.id)
	}
	late, err := caller.key.Sign("/probe", called.id, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ audience, token string }{
		"for somebody else": {"spiffe://cluster1.com/other", token},
		"expired":           {called.id, late},
		"broken":            {called.id, token[:len(token)-8]},
		"none":              {called.id, "not-a-token"},
		"nothing":           {called.id, ""},
	} {
		_, err := called.Validate(ctx, test.audience, test.token)
		var invalid *traffic.InvalidError
		if !errors.As(err, &invalid) || invalid.Reason == "" || test.token != "" && strings.Contains(err.Error(), test.token) {
			t.Errorf("%s: error is %v, want a refusal without the token", name, err)
		}
	}
	called.api.SetJWT("/probe", called.key, called.key.Bundle())
	const want = `validate a JWT-SVID for "spiffe://cluster1.com/probe": the JWT-SVID is refused: jwtsvid: no bundle found for trust domain "cluster2.com"`
	if _, err := called.Validate(ctx, called.id, token); err == nil || err.Error() != want {
		t.Errorf("error is %v\nwant %s", err, want)
	}
	lonely := start(t, "cluster1.com")
	var invalid *traffic.InvalidError
	const unasked = `validate a JWT-SVID for "x": the probe answers 503 service unavailable: validate JWT-SVID: rpc error: code = PermissionDenied desc = no identity issued`
	if _, err := lonely.Validate(ctx, "x", token); err == nil || err.Error() != unasked || errors.As(err, &invalid) {
		t.Errorf("error is %v\nwant %s", err, unasked)
	}
	const none = "no identity yet: rpc error: code = PermissionDenied desc = no identity issued"
	apptest.Await(t, "the missing entry is noticed", func() bool {
		held, err := lonely.Holding(ctx)
		return err == nil && held.Problem == none
	})
	const unfetched = `fetch a JWT-SVID for "x": the probe answers 503 service unavailable: fetch JWT-SVID: ` + none
	if _, err := lonely.Token(ctx, "x"); err == nil || err.Error() != unfetched {
		t.Errorf("error is %v\nwant %s", err, unfetched)
	}
	const nobody = `fetch a JWT-SVID for "": the probe answers 400 bad request: read question: audience is empty`
	if _, err := called.Token(ctx, ""); err == nil || err.Error() != nobody {
		t.Errorf("error is %v\nwant %s", err, nobody)
	}
	for _, p := range []*probe{called, caller, lonely} {
		for _, secret := range []string{token, late} {
			if n := p.log.Count(secret); n > 0 {
				t.Errorf("a token is in %d lines of a log", n)
			}
		}
	}
}

func TestParse(t *testing.T) {
	none := func(string) string { return "" }
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nobody may call":          {nil, "read flags: -allow-trust-domains (or ALLOWED_CLIENT_TRUST_DOMAINS) must be given: name who may call, such as cluster2.com"},
		"everybody may call":       {[]string{"-allow-trust-domains=*"}, `read flags: invalid value "*" for flag -allow-trust-domains: want a trust domain such as cluster2.com: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`},
		"orders from anywhere":     {[]string{"-allow-trust-domains=a.test", "-control-listen=:8080"}, `read flags: -control-listen is ":8080": want a loopback address, such as 127.0.0.1:8080`},
		"orders from the pod's IP": {[]string{"-allow-trust-domains=a.test", "-control-listen=10.1.2.3:8080"}, `read flags: -control-listen is "10.1.2.3:8080": want a loopback address, such as 127.0.0.1:8080`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.args, none, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || err.Error() != test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
	s, err := parse([]string{"-allow-trust-domains=b.test,a.test"}, none, io.Discard)
	if err != nil || s.control != "127.0.0.1:8080" || s.careless != "" || s.Listen != ":8443" || s.Health != ":8081" || s.allowed.String() != "a.test,b.test" {
		t.Errorf("settings are %+v, %v", s, err)
	}
	var help bytes.Buffer
	if _, err := parse([]string{"-h"}, none, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-careless-resumption [PROBE_CARELESS_RESUMPTION]") {
		t.Errorf("help is %v\n%s", err, help.String())
	}
}
