package calls_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func TestTargetsAsFlag(t *testing.T) {
	good := `[{"name":"orders","url":"https://10.1.2.3:8443/api","server":"spiffe://gcp.test/data","profile":"https_web","expect":"not-permitted","report":true}]`
	var targets calls.Targets
	if err := targets.Set(good); err != nil {
		t.Fatal(err)
	}
	if targets.String() != good {
		t.Errorf("targets are %s, want %s", targets, good)
	}
	if got := (calls.Targets{}).String(); got != "[]" {
		t.Errorf("no targets are %q", got)
	}
	with := func(field string) string {
		return `[{"name":"orders","url":"https://gcp.test:8443/","server":"spiffe://gcp.test/data"` + field + `}]`
	}
	for name, test := range map[string]struct{ text, want string }{
		"no JSON":              {"orders", "invalid character 'o' looking for beginning of value"},
		"two arrays":           {"[] []", "want one JSON array"},
		"a field that is none": {with(`,"expct":"no"`), `json: unknown field "expct"`},
		"an unknown class":     {with(`,"expect":"denied"`), `target 1 ("orders"): expect is "denied": want one of ["no-identity" "expired"`},
		"no name":              {with(`,"name":""`), `target 1 (""): name is empty`},
		"plain HTTP":           {with(`,"url":"http://gcp.test:80/"`), `target 1 ("orders"): url is "http://gcp.test:80/": want https://host:port/path`},
		"no port":              {with(`,"url":"https://gcp.test/"`), `target 1 ("orders"): url is "https://gcp.test/": want https://host:port/path`},
		"no server":            {`[{"name":"orders","url":"https://gcp.test:8443/"}]`, `target 1 ("orders"): want a SPIFFE ID such as`},
		"a name twice":         {strings.Replace(with(""), "]", ","+with("")[1:], 1), `target 2: the name "orders" is taken`},
	} {
		t.Run(name, func(t *testing.T) {
			var targets calls.Targets
			if err := targets.Set(test.text); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("error is %v\nwant %s …", err, test.want)
			}
		})
	}
}

// pair is a caller of aws.test and a server of gcp.test that answers answer.
type pair struct {
	aws, gcp *apptest.CA
	own      *apptest.Holder
	address  string
	answer   http.HandlerFunc
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{aws: apptest.NewCA(t, "aws.test"), gcp: apptest.NewCA(t, "gcp.test")}
	p.own = apptest.NewHolder(p.aws.Issue(t, "/client"), p.aws.Bundle(), p.gcp.Bundle())
	server := apptest.NewHolder(p.gcp.Issue(t, "/data"), p.aws.Bundle(), p.gcp.Bundle())
	p.address = apptest.ServeHTTPS(t, server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.answer(w, r) }))
	return p
}

func (p *pair) target(change func(*calls.Target)) calls.Target {
	target := calls.Target{Name: "orders", URL: "https://" + p.address + "/api", Server: spiffeid.RequireFromString("spiffe://gcp.test/data"), Profile: "https_web"}
	change(&target)
	return target
}

// look waits until all calls of a watch have ended once.
func look(t *testing.T, own calls.Caller, log *slog.Logger, targets ...calls.Target) (r calls.Report) {
	t.Helper()
	watch := calls.NewWatch(targets, own, time.Now, log)
	apptest.Await(t, "the calls to end", func() bool {
		r = watch.Report(t.Context())
		return !slices.ContainsFunc(r.Calls, func(v calls.View) bool { return v.State == calls.Waiting })
	})
	return r
}

func TestStatesOfACall(t *testing.T) {
	answered := func(w http.ResponseWriter, _ *http.Request) {
		service.JSON(w, http.StatusOK, map[string]any{"type": "aggregated", "records": 7})
	}
	refused := func(w http.ResponseWriter, _ *http.Request) {
		service.JSON(w, http.StatusForbidden, map[string]string{"error": "forbidden", "rule": "you may not"})
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		change func(*calls.Target)
		state  calls.State
		class  diagnosis.Class
		what   string
		peer   bool
	}{
		"answered":             {answered, func(*calls.Target) {}, calls.Answered, "", "", true},
		"refused":              {refused, func(*calls.Target) {}, calls.Failed, diagnosis.NotPermitted, `The server of "orders" knows the caller and refuses: you may not.`, false},
		"refused as it should": {refused, func(c *calls.Target) { c.Expect = diagnosis.NotPermitted }, calls.Refused, diagnosis.NotPermitted, `The server of "orders" knows the caller and refuses: you may not.`, true},
		"answered what should be refused": {answered, func(c *calls.Target) { c.Expect = diagnosis.NotPermitted },
			calls.Failed, diagnosis.NotRefused, `The server of "orders" answered what it should refuse.`, false},
		"refused, with another reason": {refused, func(c *calls.Target) { c.Expect = diagnosis.NotFederated },
			calls.Failed, diagnosis.NotPermitted, `The server of "orders" knows the caller and refuses: you may not.`, false},
		"somebody else": {answered, func(c *calls.Target) { c.Server = spiffeid.RequireFromString("spiffe://gcp.test/other") },
			calls.Failed, diagnosis.IdentityRefused, "spiffe://gcp.test/data answers in place of spiffe://gcp.test/other. Nothing was asked of them.", false},
		"nobody there": {answered, func(c *calls.Target) { c.URL = "https://127.0.0.1:1/" },
			calls.Failed, diagnosis.Unreachable, `The server of "orders" cannot be reached at 127.0.0.1:1.`, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.answer = test.answer
			r := look(t, p.own, slog.New(slog.DiscardHandler), p.target(test.change))
			v := r.Calls[0]
			if v.State != test.state || (v.Peer != nil) != test.peer {
				t.Fatalf("view is %+v, want state %s, peer known %t", v, test.state, test.peer)
			}
			if v.Caller.String() != "spiffe://aws.test/client" || v.Profile != "https_web" || v.Reported {
				t.Errorf("view is %+v", v)
			}
			if test.peer && (v.Peer.ID.String() != "spiffe://gcp.test/data" || v.Millis <= 0) {
				t.Errorf("answered by %+v after %v ms", v.Peer, v.Millis)
			}
			if test.state == calls.Answered && (v.Type != "aggregated" || v.Records != 7) {
				t.Errorf("answer is %q with %d records", v.Type, v.Records)
			}
			if (v.Problem == nil) != (test.class == "") || v.Problem != nil && (v.Problem.Class != test.class || v.Problem.What != test.what) {
				t.Errorf("problem is %+v, want %s: %s", v.Problem, test.class, test.what)
			}
		})
	}
}

// TestReportedCallsAreTheirCallers has a server that reports calls of others.
func TestReportedCallsAreTheirCallers(t *testing.T) {
	p := newPair(t)
	p.answer = func(w http.ResponseWriter, _ *http.Request) {
		service.JSON(w, http.StatusOK, calls.Report{Calls: []calls.View{
			{Name: "mine", Caller: spiffeid.RequireFromString("spiffe://aws.test/somebody-else"), State: calls.Answered},
			{Name: "hearsay", Reported: true, State: calls.Answered},
		}})
	}
	r := look(t, p.own, slog.New(slog.DiscardHandler), p.target(func(c *calls.Target) { c.Report = true }))
	if len(r.Calls) != 2 || r.Calls[1].Name != "mine" || r.Calls[1].Caller.String() != "spiffe://gcp.test/data" || !r.Calls[1].Reported {
		t.Errorf("calls are %+v\nwant those of the server only, under its own name", r.Calls)
	}
}

func TestWithoutAnIdentityNothingIsCalled(t *testing.T) {
	p := newPair(t)
	p.answer = func(http.ResponseWriter, *http.Request) { t.Error("the server was called") }
	r := look(t, nobody{}, slog.New(slog.DiscardHandler), p.target(func(*calls.Target) {}))
	if v := r.Calls[0]; r.Self != nil || v.State != calls.Failed || v.Problem.Class != diagnosis.NoIdentity {
		t.Errorf("report is %+v", r)
	}
}

func TestALogTellsEachPeerOnce(t *testing.T) {
	p := newPair(t)
	var asked, seconds atomic.Int64
	p.answer = func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		service.JSON(w, http.StatusOK, nil)
	}
	begun := time.Now()
	now := func() time.Time { return begun.Add(time.Duration(seconds.Add(1)) * time.Second) } // each look is a call
	var log apptest.Log
	watch := calls.NewWatch([]calls.Target{p.target(func(*calls.Target) {})}, p.own, now, slog.New(slog.NewTextHandler(&log, nil)))
	apptest.Await(t, "three calls", func() bool {
		watch.Report(t.Context())
		return asked.Load() >= 3
	})
	if count := log.Count("server authenticated"); count != 1 {
		t.Errorf("%d lines tell who the server is, want one", count)
	}
	if line := log.Await(t, "server authenticated"); !strings.Contains(line, "server.spiffe_id=spiffe://gcp.test/data") || !strings.Contains(line, "server.bundle=gcp.test") {
		t.Errorf("line is %s", line)
	}
}

// TestFields fails when a field that scenarios and the page read is renamed or
// lost.
func TestFields(t *testing.T) {
	p := newPair(t)
	p.answer = func(w http.ResponseWriter, _ *http.Request) {
		service.JSON(w, http.StatusOK, map[string]any{"type": "raw", "records": 1})
	}
	watch := calls.NewWatch([]calls.Target{
		p.target(func(*calls.Target) {}),
		p.target(func(c *calls.Target) { c.Name, c.Expect = "more", diagnosis.NotPermitted }),
	}, p.own, time.Now, slog.New(slog.DiscardHandler))
	var w *httptest.ResponseRecorder
	apptest.Await(t, "both calls to end", func() bool {
		w = httptest.NewRecorder()
		watch.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/calls", nil))
		return !strings.Contains(w.Body.String(), `"waiting"`)
	})
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	list, ok := v["calls"].([]any)
	if !ok || len(list) != 2 {
		t.Fatalf("calls are %v", v["calls"])
	}
	names := slices.Concat(keys("", v), keys("call.", list[0]), keys("failed.", list[1]))
	want := strings.Fields(`calls nextInMillis now self
		call.caller call.millis call.name call.peer call.profile call.records call.server call.state call.type call.url
		failed.caller failed.expect failed.name failed.problem failed.profile failed.server failed.state failed.url`)
	if !slices.Equal(names, want) {
		t.Errorf("fields are\n%s\nwant\n%s", names, want)
	}
}

func keys(prefix string, object any) []string {
	fields, _ := object.(map[string]any)
	var names []string
	for name := range fields {
		names = append(names, prefix+name)
	}
	slices.Sort(names)
	return names
}

// nobody holds no identity.
type nobody struct{}

func (nobody) GetX509SVID() (*x509svid.SVID, error) { return nil, &identity.MissingError{} }
func (nobody) GetX509BundleForTrustDomain(spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return nil, errors.New("no identity")
}
func (nobody) TrustDomains() []spiffeid.TrustDomain { return nil }
func (nobody) Token(context.Context, spiffeid.ID) (string, error) {
	return "", &identity.MissingError{}
}
