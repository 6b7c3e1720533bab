package streams_test

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/streams"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// TestOutcomesAreClasses: the record and the diagnosis speak of the same things.
func TestOutcomesAreClasses(t *testing.T) {
	want := []string{string(traffic.Answered)}
	for _, class := range diagnosis.Classes() {
		if class != diagnosis.NotRefused { // a stream expects nothing
			want = append(want, string(class))
		}
	}
	var got []string
	for _, outcome := range traffic.Outcomes() {
		got = append(got, string(outcome))
	}
	if !slices.Equal(got, want) {
		t.Errorf("outcomes are\n%q\nwant\n%q", got, want)
	}
}

func order(change func(*traffic.Order)) traffic.Order {
	o := traffic.Order{
		Name: "a calls b", Address: "127.0.0.1:1", Server: "spiffe://gcp.test/server",
		Every: 10 * time.Millisecond, Within: 10 * time.Second, Connection: traffic.Fresh,
	}
	change(&o)
	return o
}

func keep(*traffic.Order) {}

// newSet returns the handler of a set whose calls are made as holder.
func newSet(t *testing.T, holder identity.Holder) http.Handler {
	t.Helper()
	set := streams.NewSet(holder, func() string { return "aws.test" }, time.Now, slog.New(slog.DiscardHandler))
	apptest.Run(t, set.Run)
	return set.Handler()
}

// ask asks handler, and returns what it says.
func ask(t *testing.T, handler http.Handler, method, path string, body any) (status int, text string) {
	t.Helper()
	encoded, ok := body.(string)
	if !ok {
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		encoded = string(data)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(encoded)))
	return w.Code, strings.TrimSpace(w.Body.String())
}

const path = "/streams/a%20calls%20b"

// record returns what is recorded of the one stream, by GET or DELETE.
func record(t *testing.T, handler http.Handler, method string) (s traffic.Stream) {
	t.Helper()
	status, text := ask(t, handler, method, path, "")
	if err := json.Unmarshal([]byte(text), &s); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s", method, status, text)
	}
	return s
}

// stop returns the whole record once it has n calls.
func stop(t *testing.T, handler http.Handler, n int) traffic.Stream {
	t.Helper()
	apptest.Await(t, "calls", func() bool { return len(record(t, handler, http.MethodGet).Calls) >= n })
	return record(t, handler, http.MethodDelete)
}

// pair is a caller of aws.test and a server of gcp.test.
type pair struct {
	aws, gcp       *apptest.CA
	caller, server *apptest.Holder
	address        string
}

// newPair serves answer to whoever is verified.
func newPair(t *testing.T, answer http.HandlerFunc) *pair {
	t.Helper()
	p := &pair{aws: apptest.NewCA(t, "aws.test"), gcp: apptest.NewCA(t, "gcp.test")}
	p.caller = apptest.NewHolder(p.aws.Issue(t, "/client"), p.aws.Bundle(), p.gcp.Bundle())
	p.server = apptest.NewHolder(p.gcp.Issue(t, "/server"), p.aws.Bundle(), p.gcp.Bundle())
	all := func(*http.Request, identity.Peer) error { return nil }
	p.address = apptest.ServeHTTPS(t, p.server, service.Guard(p.server, all, slog.New(slog.DiscardHandler), answer))
	return p
}

func tellCaller(w http.ResponseWriter, r *http.Request) {
	service.JSON(w, http.StatusOK, streams.PartyOf(service.CallerOf(r)))
}

func party(svid *x509svid.SVID, ca *apptest.CA) *traffic.Party {
	p := streams.PartyOf(identity.Peer{Document: identity.DocumentOf(svid)})
	p.Authority = hex.EncodeToString(ca.Root.SubjectKeyId)
	return &p
}

func TestACallSaysWhoBothSidesAre(t *testing.T) {
	for _, connection := range []traffic.Connection{traffic.Fresh, traffic.Kept, traffic.Resumed} {
		t.Run(string(connection), func(t *testing.T) {
			p := newPair(t, tellCaller)
			handler := newSet(t, p.caller)
			o := order(func(o *traffic.Order) { o.Address, o.Connection = p.address, connection })
			begun := time.Now()
			if status, text := ask(t, handler, http.MethodPut, path, o); status != http.StatusCreated {
				t.Fatalf("answer is %d %s", status, text)
			}
			s := stop(t, handler, 3)
			if s.Order != o || s.From != "aws.test" || s.Began.Before(begun) || s.Ended.Before(s.Calls[len(s.Calls)-1].At) {
				t.Errorf("stream is %+v", s)
			}
			own, _ := p.caller.GetX509SVID()
			theirs, _ := p.server.GetX509SVID()
			server, client := party(theirs, p.gcp), party(own, p.aws)
			for i, c := range s.Calls {
				if c.Outcome != traffic.Answered || c.Detail != "" || c.Number != i+1 || c.Took <= 0 || c.Resumed ||
					c.Server == nil || *c.Server != *server || c.Client == nil || *c.Client != *client {
					t.Errorf("call is %+v\nserver %+v, want %+v\nclient %+v, want %+v", c, c.Server, server, c.Client, client)
				}
			}
			if status, text := ask(t, handler, http.MethodGet, path, ""); status != http.StatusNotFound || text != `{"error":"not found","reason":"no stream is called \"a calls b\""}` {
				t.Errorf("what was stopped is not forgotten: %d %s", status, text)
			}
		})
	}
}

func TestOutcomesOfCalls(t *testing.T) {
	past := time.Now().Add(-time.Hour)
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		change func(*pair, *traffic.Order)
		want   traffic.Outcome
		server bool // is known
		detail string
	}{
		"no identity": {tellCaller, func(*pair, *traffic.Order) {}, traffic.NoIdentity, false, "no identity yet: the Workload API has not answered"},
		"an SVID that has expired": {tellCaller, func(p *pair, _ *traffic.Order) {
			p.caller.Set(p.aws.IssueFor(t, "/client", past, past.Add(time.Minute)), p.gcp.Bundle())
		}, traffic.Expired, false, "own SVID spiffe://aws.test/client expired at "},
		"no bundle of the server": {tellCaller, func(p *pair, _ *traffic.Order) {
			p.caller.Set(p.aws.Issue(t, "/client"), p.aws.Bundle())
		}, traffic.NotFederated, false, "authenticate server: "},
		"another authority": {tellCaller, func(p *pair, _ *traffic.Order) {
			p.caller.Set(p.aws.Issue(t, "/client"), apptest.NewCA(t, "gcp.test").Bundle())
		}, traffic.UnknownAuthority, false, "authenticate server: "},
		"another server": {tellCaller, func(_ *pair, o *traffic.Order) { o.Server = "spiffe://gcp.test/other" },
			traffic.IdentityRefused, false, "authenticate server: peer is spiffe://gcp.test/server, want spiffe://gcp.test/other"},
		"no bundle of the caller": {tellCaller, func(p *pair, _ *traffic.Order) {
			p.server.Set(p.gcp.Issue(t, "/server"), p.gcp.Bundle())
		}, traffic.RefusedByServer, true, "wait for spiffe://gcp.test/server to accept this client: remote error: tls: bad certificate"},
		"not permitted": {func(w http.ResponseWriter, _ *http.Request) {
			service.JSON(w, http.StatusForbidden, service.Refusal{Kind: "forbidden", Rule: "you may not"})
		}, func(*pair, *traffic.Order) {}, traffic.NotPermitted, true, "answer is 403 forbidden: you may not"},
		"nobody there": {tellCaller, func(_ *pair, o *traffic.Order) { o.Address = "127.0.0.1:1" },
			traffic.Unreachable, false, "dial tcp 127.0.0.1:1: connect: connection refused"},
		"no answer": {silent, func(_ *pair, o *traffic.Order) { o.Within = time.Second }, traffic.NoAnswer, true, "context deadline exceeded"},
		"another answer": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oh", http.StatusTeapot) },
			func(*pair, *traffic.Order) {}, traffic.ServerFailed, true, "answer is 418 i'm a teapot"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, test.answer)
			var holder identity.Holder = p.caller
			if test.want == traffic.NoIdentity {
				holder = nobody{}
			}
			handler := newSet(t, holder)
			o := order(func(o *traffic.Order) { o.Address = p.address })
			test.change(p, &o)
			if status, text := ask(t, handler, http.MethodPut, path, o); status != http.StatusCreated {
				t.Fatalf("answer is %d %s", status, text)
			}
			c := stop(t, handler, 1).Calls[0]
			if c.Outcome != test.want || (c.Server != nil) != test.server || !strings.HasPrefix(c.Detail, test.detail) || c.Client != nil {
				t.Errorf("call is %+v\nwant %s (server known: %t): %s …", c, test.want, test.server, test.detail)
			}
		})
	}
}

// TestAKeptConnectionIsMadeAgain closes it from the other side.
func TestAKeptConnectionIsMadeAgain(t *testing.T) {
	p := newPair(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // a GOAWAY in HTTP/2
		tellCaller(w, r)
	})
	handler := newSet(t, p.caller)
	o := order(func(o *traffic.Order) { o.Address, o.Connection = p.address, traffic.Kept })
	if status, text := ask(t, handler, http.MethodPut, path, o); status != http.StatusCreated {
		t.Fatalf("answer is %d %s", status, text)
	}
	apptest.Await(t, "three calls", func() bool { return len(record(t, handler, http.MethodGet).Calls) >= 3 })
	renewed := p.gcp.Issue(t, "/server") // shows with the next handshake
	p.server.Set(renewed, p.gcp.Bundle(), p.aws.Bundle())
	apptest.Await(t, "another connection", func() bool {
		_, seen := record(t, handler, http.MethodGet).First(time.Time{}, func(c traffic.Call) bool {
			return c.Server != nil && c.Server.Serial == identity.DocumentOf(renewed).Serial
		})
		return seen
	})
	s := record(t, handler, http.MethodDelete)
	if _, failed := s.First(time.Time{}, func(c traffic.Call) bool { return c.Outcome != traffic.Answered }); failed {
		t.Errorf("calls are %+v", s.Calls)
	}
}

func TestPace(t *testing.T) {
	for took, want := range map[time.Duration][]time.Duration{
		0:                       {0, time.Second, 2 * time.Second, 3 * time.Second},
		1500 * time.Millisecond: {0, 1500 * time.Millisecond, 3 * time.Second, 4500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			handler := newSet(t, nobody{took})
			begun := time.Now()
			ask(t, handler, http.MethodPut, path, order(func(o *traffic.Order) { o.Every = time.Second }))
			<-time.After(5 * time.Second)
			s := record(t, handler, http.MethodDelete)
			if !s.Ended.After(s.Calls[len(s.Calls)-1].At) && took > 0 {
				t.Errorf("the call under way was not waited for: %+v", s)
			}
			for i, after := range want {
				if got := s.Calls[i].At.Sub(begun); got != after || s.Calls[i].Took != took {
					t.Errorf("with calls of %s, call %d began after %s and took %s, want after %s", took, i+1, got, s.Calls[i].Took, after)
				}
			}
		})
	}
}

func TestAFullRecordEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := newSet(t, nobody{})
		ask(t, handler, http.MethodPut, path, order(keep))
		<-time.After(time.Hour)
		s := record(t, handler, http.MethodGet)
		if len(s.Calls) != traffic.MaxCalls || s.Ended.Sub(s.Began) != (traffic.MaxCalls-1)*10*time.Millisecond {
			t.Fatalf("there are %d calls in %s", len(s.Calls), s.Ended.Sub(s.Began))
		}
		const missing = "no identity yet: the Workload API has not answered"
		for i, want := range map[int]string{0: missing, traffic.MaxCalls - 2: missing, traffic.MaxCalls - 1: missing + "\nthe record is full: 20000 calls, no more are made"} {
			if got := s.Calls[i].Detail; got != want {
				t.Errorf("call %d: %s\nwant %s", i+1, got, want)
			}
		}
		if status, text := ask(t, handler, http.MethodPut, path, order(keep)); status != http.StatusConflict {
			t.Errorf("the name of what was not fetched is free: %d %s", status, text)
		}
		if stopped := record(t, handler, http.MethodDelete); len(stopped.Calls) != traffic.MaxCalls {
			t.Errorf("there are %d calls left", len(stopped.Calls))
		}
	})
}

func TestRefusedOrders(t *testing.T) {
	handler := newSet(t, nobody{})
	if status, text := ask(t, handler, http.MethodPut, path, order(keep)); status != http.StatusCreated {
		t.Fatalf("answer is %d %s", status, text)
	}
	for name, test := range map[string]struct {
		method, path string
		body         any
		status       int
		want         string
	}{
		"a name in use": {http.MethodPut, path, order(keep), http.StatusConflict, `{"error":"conflict","reason":"the name \"a calls b\" is in use"}`},
		"another name": {http.MethodPut, "/streams/other", order(keep), http.StatusBadRequest,
			`{"error":"bad request","reason":"read order: it is of \"a calls b\", and was sent to \"other\""}`},
		"an order that is wrong": {http.MethodPut, "/streams/wrong", order(func(o *traffic.Order) { o.Name, o.Every = "wrong", 0 }), http.StatusBadRequest,
			`{"error":"bad request","reason":"order \"wrong\": every is 0s: want 10ms to 30s"}`},
		"a field that is none": {http.MethodPut, path, `{"url":"x"}`, http.StatusBadRequest, `{"error":"bad request","reason":"read order: json: unknown field \"url\""}`},
		"nothing":              {http.MethodPut, path, "", http.StatusBadRequest, `{"error":"bad request","reason":"read order: EOF"}`},
		"a stream that is none": {http.MethodDelete, "/streams/none", "", http.StatusNotFound,
			`{"error":"not found","reason":"no stream is called \"none\""}`},
	} {
		t.Run(name, func(t *testing.T) {
			if status, text := ask(t, handler, test.method, test.path, test.body); status != test.status || text != test.want {
				t.Errorf("answer is %d %s\nwant %d %s", status, text, test.status, test.want)
			}
		})
	}
}

// TestTheEndOfASetEndsItsCalls has one under way that would take long.
func TestTheEndOfASetEndsItsCalls(t *testing.T) {
	asked := make(chan struct{}, 1)
	p := newPair(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	})
	set := streams.NewSet(p.caller, func() string { return "aws.test" }, time.Now, slog.New(slog.DiscardHandler))
	end := apptest.Run(t, set.Run)
	ask(t, set.Handler(), http.MethodPut, path, order(func(o *traffic.Order) { o.Address, o.Within = p.address, 30*time.Second }))
	<-asked
	begun := time.Now()
	end()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the end took %s", took)
	}
	const want = `{"error":"service unavailable","reason":"the probe is about to end"}`
	if status, text := ask(t, set.Handler(), http.MethodPut, "/streams/b", order(func(o *traffic.Order) { o.Name = "b" })); status != http.StatusServiceUnavailable || text != want {
		t.Errorf("answer is %d %s", status, text)
	}
}

// nobody holds no identity, and takes time to say so.
type nobody struct{ took time.Duration }

func (n nobody) GetX509SVID() (*x509svid.SVID, error) {
	if n.took > 0 {
		<-time.After(n.took)
	}
	return nil, &identity.MissingError{}
}

func (nobody) GetX509BundleForTrustDomain(spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return nil, io.EOF
}
