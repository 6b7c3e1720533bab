package traffic_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/traffic"
)

const token = "eyJhbGciOiJFUzI1NiJ9.e30.c2VjcmV0"

// served is a probe that answers with handler.
func served(t *testing.T, handler http.HandlerFunc) *traffic.Probe {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return traffic.NewProbe(func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
}

func order() traffic.Order {
	return traffic.Order{
		Name: "cluster2.com calls 100%", Address: "172.18.200.10:8443", Server: "spiffe://cluster1.com/fedlab/probe",
		Every: time.Second, Within: 2 * time.Second, Connection: traffic.Fresh,
	}
}

// each asks all that a probe can be asked.
func each(ctx context.Context, p *traffic.Probe) map[string]func() error {
	return map[string]func() error{
		`start stream "cluster2.com calls 100%"`: func() error { return p.Start(ctx, order()) },
		`read stream "cluster2.com calls 100%"`:  func() error { _, err := p.Stream(ctx, order().Name); return err },
		`stop stream "cluster2.com calls 100%"`:  func() error { _, err := p.Stop(ctx, order().Name); return err },
		"read what the probe holds":              func() error { _, err := p.Holding(ctx); return err },
		`fetch a JWT-SVID for "market"`:          func() error { _, err := p.Token(ctx, "market"); return err },
		`validate a JWT-SVID for "market"`:       func() error { _, err := p.Validate(ctx, "market", token); return err },
	}
}

func TestProbeIsAskedAndUnderstood(t *testing.T) {
	record := load(t, "testdata/resumption.json").Streams[0]
	const stored = `{"order":{"name":"careless"},"from":"cluster2.com","began":"2026-03-01T09:00:00Z","calls":[]}`
	var asked []string
	answers := map[string]string{
		"GET /holding":   `{"self":{"id":"spiffe://cluster2.com/fedlab/probe","serial":"1a","notAfter":"2026-03-01T10:00:00Z","authority":"bb01"},"bundles":{"cluster1.com":["aa01","aa02"]},"jwtBundles":{"cluster1.com":["k1"]}}`,
		"POST /token":    `{"audience":"market","token":"` + token + `"}`,
		"POST /validate": `{"id":"spiffe://cluster2.com/fedlab/probe"}`,
	}
	p := served(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked = append(asked, r.Method+" "+r.URL.EscapedPath()+" "+string(body))
		if answer, ok := answers[r.Method+" "+r.URL.Path]; ok {
			_, _ = io.WriteString(w, answer)
			return
		}
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusCreated)
		}
		_, _ = io.WriteString(w, stored)
	})
	ctx := t.Context()
	if err := p.Start(ctx, order()); err != nil {
		t.Error(err)
	}
	want := traffic.Stream{Order: traffic.Order{Name: "careless"}, From: record.From, Began: record.Began, Calls: []traffic.Call{}}
	if got, err := p.Stream(ctx, order().Name); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("stream is %+v, %v", got, err)
	}
	if got, err := p.Stop(ctx, order().Name); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("stream that was stopped is %+v, %v", got, err)
	}
	held := traffic.Holding{
		Self:       &traffic.Party{ID: "spiffe://cluster2.com/fedlab/probe", Serial: "1a", NotAfter: moment(3600), Authority: "bb01"},
		Bundles:    map[string][]string{"cluster1.com": {"aa01", "aa02"}},
		JWTBundles: map[string][]string{"cluster1.com": {"k1"}},
	}
	if got, err := p.Holding(ctx); err != nil || !reflect.DeepEqual(got, held) {
		t.Errorf("holding is %+v, %v", got, err)
	}
	if got, err := p.Token(ctx, "market"); err != nil || got != token {
		t.Errorf("token is %q, %v", got, err)
	}
	if got, err := p.Validate(ctx, "market", token); err != nil || got != "spiffe://cluster2.com/fedlab/probe" {
		t.Errorf("the token is of %q, %v", got, err)
	}
	const name = "/streams/cluster2.com%20calls%20100%25 "
	expected := []string{
		"PUT " + name + `{"name":"cluster2.com calls 100%","address":"172.18.200.10:8443","server":"spiffe://cluster1.com/fedlab/probe","every":1000000000,"within":2000000000,"connection":"fresh"}`,
		"GET " + name, "DELETE " + name, "GET /holding ",
		`POST /token {"audience":"market"}`, `POST /validate {"audience":"market","token":"` + token + `"}`,
	}
	if !reflect.DeepEqual(asked, expected) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(expected, "\n"))
	}
}

func TestWrongOrdersAreNotSent(t *testing.T) {
	p := served(t, func(http.ResponseWriter, *http.Request) { t.Error("the probe was asked") })
	o := order()
	o.Address = "nowhere"
	const want = `order "cluster2.com calls 100%": address is "nowhere": want host:port, such as 172.18.200.10:8443`
	if err := p.Start(t.Context(), o); err == nil || err.Error() != want {
		t.Errorf("error is %v\nwant %s", err, want)
	}
}

func TestErrorsNameWhatTheProbeSays(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"error":"conflict","reason":"the name is in use"}`)
		}, "the probe answers 409 conflict: the name is in use"},
		"something else that answers": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such page", http.StatusNotFound) },
			"the probe answers 404 not found"},
	} {
		t.Run(name, func(t *testing.T) {
			for what, ask := range each(t.Context(), served(t, test.answer)) {
				err := ask()
				var invalid *traffic.InvalidError
				if err == nil || err.Error() != what+": "+test.want || errors.As(err, &invalid) {
					t.Errorf("error is %v\nwant %s: %s", err, what, test.want)
				}
			}
		})
	}
}

func TestAProbeThatIsNotReached(t *testing.T) {
	gone := errors.New("no such pod")
	p := traffic.NewProbe(func(context.Context) (net.Conn, error) { return nil, gone })
	for what, ask := range each(t.Context(), p) {
		err := ask()
		if want := what + ": reach the probe: no such pod"; !errors.Is(err, gone) || err.Error() != want {
			t.Errorf("error is %v\nwant %s", err, want)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		want   map[string]string
	}{
		"no JSON": {"<p>", map[string]string{
			"start": "<nil>", "stream": `read stream "a": read the probe's answer: invalid character '<' looking for beginning of value`,
			"token":    `fetch a JWT-SVID for "market": read the probe's answer: invalid character '<' looking for beginning of value`,
			"validate": `validate a JWT-SVID for "market": read the probe's answer: invalid character '<' looking for beginning of value`,
		}},
		"nothing in it": {"{}", map[string]string{
			"start": "<nil>", "stream": "<nil>",
			"token":    `fetch a JWT-SVID for "market": the answer has no token`,
			"validate": `validate a JWT-SVID for "market": the answer names nobody`,
		}},
		"a token that is refused": {`{"invalid":"token has expired"}`, map[string]string{
			"start": "<nil>", "stream": "<nil>",
			"token":    `fetch a JWT-SVID for "market": the answer has no token`,
			"validate": `validate a JWT-SVID for "market": the JWT-SVID is refused: token has expired`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := served(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, test.answer) })
			_, stream := p.Stream(t.Context(), "a")
			_, fetched := p.Token(t.Context(), "market")
			_, validated := p.Validate(t.Context(), "market", token)
			for what, err := range map[string]error{"start": p.Start(t.Context(), order()), "stream": stream, "token": fetched, "validate": validated} {
				got := "<nil>"
				if err != nil {
					got = err.Error()
				}
				if got != test.want[what] {
					t.Errorf("%s: error is %s\nwant %s", what, got, test.want[what])
				}
			}
			var invalid *traffic.InvalidError
			if errors.As(validated, &invalid) != strings.Contains(test.answer, "invalid") {
				t.Errorf("error %v is of the wrong type", validated)
			}
		})
	}
}

// TestAnAnswerWithoutAnEndIsNotReadOn: an answer that would be right if it were
// read to its end, and is longer than any record.
func TestAnAnswerWithoutAnEndIsNotReadOn(t *testing.T) {
	const limit = 64 << 20
	spaces := strings.Repeat(" ", 1<<20)
	p := served(t, func(w http.ResponseWriter, _ *http.Request) {
		for range limit / len(spaces) {
			if _, err := io.WriteString(w, spaces); err != nil {
				return // the probe's client has gone
			}
		}
		_, _ = io.WriteString(w, "{}")
	})
	_, err := p.Stream(t.Context(), "a")
	if want := `read stream "a": read the probe's answer: it is longer than 67108864 bytes`; err == nil || err.Error() != want {
		t.Errorf("error is %v\nwant %s", err, want)
	}
}
