package synthetic_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/fedlab-dev/fedlab/lab/synthetic"
)

// serve runs the bundle endpoint until stop is called or the test ends.
func serve(t *testing.T, d *synthetic.Domain) (url string, stop func()) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, listener) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the endpoint is still there after 30 s")
		}
	})
	t.Cleanup(stop)
	return "https://" + listener.Addr().String(), stop
}

// get asks an endpoint that is to show id, verified by roots, and follows no
// redirect.
func get(ctx context.Context, url string, roots x509bundle.Source, id spiffeid.ID) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: tlsconfig.TLSClientConfig(roots, tlsconfig.AuthorizeID(id)), DisableKeepAlives: true}
	return transport.RoundTrip(request)
}

// fetch is get with all of the body.
func fetch(t *testing.T, d *synthetic.Domain, url string) (response *http.Response, body string) {
	t.Helper()
	response, err := get(t.Context(), url, d.Bundle(), d.EndpointID())
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

func play(t *testing.T, d *synthetic.Domain, script ...synthetic.Answer) {
	t.Helper()
	if err := d.Play(script); err != nil {
		t.Fatal(err)
	}
}

// lastRequest waits until the last request has ended in that way.
func lastRequest(t *testing.T, d *synthetic.Domain, ended synthetic.Ending) synthetic.Request {
	t.Helper()
	var last synthetic.Request
	eventually(t, func(context.Context) error {
		requests := d.Requests()
		if len(requests) == 0 {
			return errors.New("nobody has asked")
		}
		if last = requests[len(requests)-1]; last.Ended != ended {
			return fmt.Errorf("last request is %+v, want %s", last, ended)
		}
		return nil
	})
	return last
}

// eventually asks again until there is no error, or for half a minute.
func eventually(t *testing.T, probe func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after 30 s still: %v", err)
		case <-again.C:
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	url, _ := serve(t, d)
	older := d.Bundle()
	if _, err := d.Prepare(); err != nil {
		t.Fatal(err)
	}
	same := func(want *spiffebundle.Bundle) func(*testing.T, string) {
		return func(t *testing.T, body string) {
			t.Helper()
			if got, err := spiffebundle.Parse(synthTD, []byte(body)); err != nil || !got.Equal(want) {
				t.Errorf("body is another bundle (%v): %s", err, body)
			}
		}
	}
	text := func(want string) func(*testing.T, string) {
		return func(t *testing.T, body string) {
			t.Helper()
			if body != want {
				t.Errorf("body is %q, want %q", body, want)
			}
		}
	}
	// oneMore also tells what go-spiffe says of the document.
	oneMore := func(member, value, says string) func(*testing.T, string) {
		return func(t *testing.T, body string) {
			t.Helper()
			var document struct {
				Keys []map[string]any `json:"keys"`
			}
			if err := json.Unmarshal([]byte(body), &document); err != nil {
				t.Fatal(err)
			}
			if n := len(document.Keys); n != 5 || document.Keys[n-1][member] != value {
				t.Errorf("document has %d keys, want 5 and %q in the last one: %s", n, value, body)
			}
			got, err := spiffebundle.Parse(synthTD, []byte(body))
			if message(err) != says {
				t.Errorf("go-spiffe says %v, want %q", err, says)
			}
			if err == nil && !got.Equal(d.Bundle()) {
				t.Error("go-spiffe does not ignore the key")
			}
		}
	}
	for _, tt := range []struct {
		answer synthetic.Answer
		status int
		length int64
		body   func(*testing.T, string)
	}{
		{synthetic.Answer{Kind: synthetic.TrueBundle}, 200, 0, same(d.Bundle())},
		{synthetic.Answer{Kind: synthetic.OlderBundle}, 200, 0, same(older)},
		{synthetic.Answer{Kind: synthetic.EmptyBundle}, 200, 0, text(`{"keys":[],"spiffe_refresh_hint":60,"spiffe_sequence":3}`)},
		{synthetic.Answer{Kind: synthetic.Nothing}, 200, 2, text(`{}`)},
		{synthetic.Answer{Kind: synthetic.Foreign, Document: json.RawMessage(`{"keys": [1]}`)}, 200, 0, text(`{"keys": [1]}`)},
		{synthetic.Answer{Kind: synthetic.UnknownKeyType}, 200, 0, oneMore("kty", "fedlab", "spiffebundle: unable to parse JWKS: go-jose/go-jose: unsupported key type/format")},
		{synthetic.Answer{Kind: synthetic.UnknownKeyUse}, 200, 0, oneMore("use", "fedlab-svid", "")},
		{synthetic.Answer{Kind: synthetic.ServerError}, 500, 0, text("the bundle endpoint has a problem\n")},
		{synthetic.Answer{Kind: synthetic.Redirect, URL: "http://127.0.0.1:1/elsewhere"}, 302, 0, text("")},
		{synthetic.Answer{Kind: synthetic.Huge, MiB: 1}, 200, 0, func(t *testing.T, body string) {
			t.Helper()
			same(d.Bundle())(t, body)
			if len(body) < 1<<20 {
				t.Errorf("body has %d bytes, want at least 1 MiB", len(body))
			}
		}},
		{synthetic.Answer{Kind: synthetic.Slow, Every: time.Microsecond}, 200, 0, same(d.Bundle())},
		{synthetic.Answer{Kind: synthetic.NotJSON}, 200, 0, text("<!doctype html><title>It works</title>\n")},
	} {
		t.Run(string(tt.answer.Kind), func(t *testing.T) {
			play(t, d, tt.answer)
			before := time.Now()
			response, body := fetch(t, d, url+"/some/path")
			tt.body(t, body)
			if response.StatusCode != tt.status || response.Header.Get("Location") != tt.answer.URL || response.ContentLength != int64(len(body)) {
				t.Errorf("answer is %+v with %d bytes", response, len(body))
			}
			last := lastRequest(t, d, synthetic.Answered)
			if last.Time.Before(before) || last.Time.After(time.Now()) || last.Took <= 0 || !strings.HasPrefix(last.RemoteAddr, "127.0.0.1:") {
				t.Errorf("request is %+v", last)
			}
			last.Number, last.Time, last.Took, last.RemoteAddr = 0, time.Time{}, 0, ""
			if want := (synthetic.Request{Path: "/some/path", Answer: tt.answer.Kind, Ended: synthetic.Answered}); last != want {
				t.Errorf("request is %+v, want %+v", last, want)
			}
		})
	}
}

// lasting are the answers that another script ends.
var lasting = []synthetic.Answer{
	{Kind: synthetic.Hang},
	{Kind: synthetic.Slow, Every: time.Hour},
	{Kind: synthetic.Endless, Every: time.Millisecond},
	{Kind: synthetic.Huge, MiB: 1 << 20},
}

// asked begins a request that does not end by itself, and returns what its
// client ends with.
func asked(ctx context.Context, t *testing.T, d *synthetic.Domain, url string) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		response, err := get(ctx, url, d.Bundle(), d.EndpointID())
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			err = errors.Join(err, response.Body.Close())
		}
		ended <- err
	}()
	eventually(t, func(context.Context) error {
		if requests := d.Requests(); len(requests) == 0 || requests[len(requests)-1].Path == "" {
			return errors.New("nobody has asked")
		}
		return nil
	})
	lastRequest(t, d, synthetic.UnderWay)
	return ended
}

func TestLastingAnswersEnd(t *testing.T) {
	t.Parallel()
	for _, answer := range lasting {
		for _, tt := range []struct {
			by     string
			ended  synthetic.Ending
			detail string
		}{
			{"another script", synthetic.Cut, "another script is played"},
			{"the client", synthetic.ClientGone, "the client left"},
			{"the endpoint", synthetic.Cut, "context canceled"},
		} {
			t.Run(string(answer.Kind)+" by "+tt.by, func(t *testing.T) {
				t.Parallel()
				d := newDomain(t, synthTD, time.Now)
				url, stop := serve(t, d)
				play(t, d, answer)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				ended := asked(ctx, t, d, url)
				switch tt.by {
				case "another script":
					play(t, d, synthetic.Answer{Kind: synthetic.TrueBundle})
				case "the client":
					leave()
				case "the endpoint":
					stop()
				}
				if err := <-ended; err == nil {
					t.Error("the client got an answer")
				}
				if last := lastRequest(t, d, tt.ended); last.Detail != tt.detail {
					t.Errorf("detail is %q, want %q", last.Detail, tt.detail)
				}
				if tt.by == "another script" {
					if _, body := fetch(t, d, url); body == "" {
						t.Error("afterwards there is no answer")
					}
				}
			})
		}
	}
}

func TestWrongCertificates(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	url, _ := serve(t, d)
	for name, tt := range map[string]struct {
		shows *synthetic.X509Request
		want  string
	}{
		"another ID":        {nil, `unexpected ID "spiffe://synthetic.test/spire/other"`},
		"unknown authority": {&synthetic.X509Request{ID: d.EndpointID(), Wrong: synthetic.SelfSigned}, "x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority"},
		"no ID":             {&synthetic.X509Request{ID: d.EndpointID(), Wrong: synthetic.NoURI}, "x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, d, synthetic.Answer{Kind: synthetic.WrongCertificate, Shows: tt.shows})
			_, err := get(t.Context(), url, d.Bundle(), d.EndpointID())
			if got := message(err); got != tt.want {
				t.Errorf("error is %q, want %q", got, tt.want)
			}
			if last := lastRequest(t, d, synthetic.HandshakeFailed); last.Path != "" || last.Detail != "remote error: tls: bad certificate" {
				t.Errorf("request is %+v", last)
			}
		})
	}

	// Who accepts it is told the truth.
	play(t, d, synthetic.Answer{Kind: synthetic.WrongCertificate})
	response, err := get(t.Context(), url, d.Bundle(), spiffeid.RequireFromPath(synthTD, "/spire/other"))
	if err != nil {
		t.Fatal(err)
	}
	if bundle, err := spiffebundle.Read(synthTD, response.Body); err != nil || !bundle.Equal(d.Bundle()) {
		t.Errorf("body is another bundle (%v)", err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestScriptGoesOn(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	url, _ := serve(t, d)
	play(t, d,
		synthetic.Answer{Kind: synthetic.ServerError, Times: 2},
		synthetic.Answer{Kind: synthetic.Nothing},
		synthetic.Answer{Kind: synthetic.TrueBundle, Times: 1})
	var got []synthetic.Kind
	for range 5 {
		fetch(t, d, url)
	}
	lastRequest(t, d, synthetic.Answered)
	for i, request := range d.Requests() {
		got = append(got, request.Answer)
		if request.Number != i+1 {
			t.Errorf("request %d has number %d", i+1, request.Number)
		}
	}
	want := []synthetic.Kind{synthetic.ServerError, synthetic.ServerError, synthetic.Nothing, synthetic.TrueBundle, synthetic.TrueBundle}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("answers are %q, want %q", got, want)
	}
}

func TestPlayRefuses(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	for _, tt := range []struct {
		script synthetic.Script
		want   string
	}{
		{nil, "play script: it has no answers"},
		{synthetic.Script{{Kind: "odd"}, {Kind: synthetic.TrueBundle}, {Kind: synthetic.Foreign}},
			"play script: answer 1, \"odd\": kind is unknown\nplay script: answer 3, \"foreign\": document is missing"},
		{synthetic.Script{{Kind: synthetic.OlderBundle}}, `play script: answer 1, "older": there is no older version: the bundle has not changed yet`},
		{synthetic.Script{{Kind: synthetic.Redirect, URL: "elsewhere"}}, `play script: answer 1, "redirect": url "elsewhere" is none`},
		{synthetic.Script{{Kind: synthetic.Huge}}, `play script: answer 1, "huge": mib is missing`},
		{synthetic.Script{{Kind: synthetic.Hang, Times: -1}}, `play script: answer 1, "hang": a number is below zero`},
		{synthetic.Script{{Kind: synthetic.WrongCertificate, Shows: &synthetic.X509Request{}}}, `play script: answer 1, "wrong-certificate": it has no SPIFFE ID`},
		{synthetic.Script{{Kind: synthetic.WrongCertificate, Shows: &synthetic.X509Request{ID: client, PublicKey: []byte{1}}}},
			`play script: answer 1, "wrong-certificate": shows has a public key: the endpoint shows its own`},
	} {
		if got := message(d.Play(tt.script)); got != tt.want {
			t.Errorf("error is %q\nwant     %q", got, tt.want)
		}
	}
}
