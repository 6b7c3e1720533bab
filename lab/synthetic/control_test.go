package synthetic_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/synthetic"
)

const token = "not-a-secret-of-anybody"

func dial(t *testing.T, base, token string) *synthetic.Client {
	t.Helper()
	c, err := synthetic.Dial(base, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestControl(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	endpoint, _ := serve(t, d)
	server := httptest.NewServer(d.Control(token))
	defer server.Close()
	c := dial(t, server.URL, token)

	if err := c.Play(t.Context(), synthetic.Script{{Kind: synthetic.Foreign, Document: json.RawMessage(`{"keys":[]}`), Times: 1}, {Kind: synthetic.Slow, Every: time.Microsecond}}); err != nil {
		t.Fatal(err)
	}
	if _, body := fetch(t, d, endpoint); body != `{"keys":[]}` {
		t.Errorf("the endpoint answers %q, want what is played", body)
	}
	lastRequest(t, d, synthetic.Answered)
	requests, err := c.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := d.Requests()
	for i := range want {
		want[i].Time = want[i].Time.Round(0) // its reading of the monotonic clock stays there
	}
	if !reflect.DeepEqual(requests, want) {
		t.Errorf("requests are %+v, want %+v", requests, want)
	}

	bundle, err := c.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !bundle.Equal(d.Bundle()) {
		t.Error("the client has another bundle than the domain")
	}
}

func TestControlSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	server := httptest.NewServer(d.Control(token))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	const denied = "status 401: this needs the token: want it in the header Authorization, as Bearer"
	for _, tt := range []struct {
		token string
		call  func(*synthetic.Client) error
		want  string
	}{
		{"another", func(c *synthetic.Client) error { return c.Play(t.Context(), synthetic.Script{{Kind: synthetic.Hang}}) }, "play script: " + denied},
		{"", func(c *synthetic.Client) error { _, err := c.Bundle(t.Context()); return err }, "get bundle: " + denied},
		{token, func(c *synthetic.Client) error { return c.Play(t.Context(), synthetic.Script{{Kind: "odd"}}) },
			`play script: status 400: play script: answer 1, "odd": kind is unknown`},
		// Only the program has these.
		{token, func(c *synthetic.Client) error { return c.Trust(t.Context(), d.Bundle()) }, `trust bundles: status 404: "404 page not found\n"`},
	} {
		want := strings.Replace(tt.want, ": ", " of synthetic trust domain at "+u.Host+": ", 1)
		if got := message(tt.call(dial(t, server.URL, tt.token))); got != want {
			t.Errorf("error is %q\nwant     %q", got, want)
		}
	}
}

func TestControlRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	handler := newDomain(t, synthTD, time.Now).Control(token)
	for _, tt := range []struct{ body, want string }{
		{`[{"kind":"bundle","time":2}]`, `read command: json: unknown field "time"`},
		{`[{"kind":"bundle"}] []`, "read command: it goes on after its end"},
		{"", "read command: EOF"},
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/script", strings.NewReader(tt.body))
		request.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		var told struct{ Error, Reason string }
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || w.Code != http.StatusBadRequest || told.Error != "bad request" || told.Reason != tt.want {
			t.Errorf("%s: %d %s, want %q", tt.body, w.Code, w.Body, tt.want)
		}
	}
}

// Without a token there is nobody who may.
func TestGuardWithoutToken(t *testing.T) {
	t.Parallel()
	handler := synthetic.Guard("", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") }))
	for _, header := range []string{"", "Bearer ", "Bearer x"} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		request.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		if w.Code != http.StatusUnauthorized || bytes.Contains(w.Body.Bytes(), []byte("in\n")) {
			t.Errorf("%q is let in: %d", header, w.Code)
		}
	}
}

func TestClientKeepsItsToken(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the token went elsewhere: %v", r.Header)
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	c := dial(t, server.URL, token)
	if _, err := c.Requests(t.Context()); err == nil {
		t.Error("a redirect is an answer")
	}
	for _, format := range []string{"%v", "%+v", "%s"} {
		if text := fmt.Sprintf(format, c); text != "client of synthetic trust domain at "+server.URL {
			t.Errorf("%s prints %q", format, text)
		}
	}
	if _, err := synthetic.Dial("127.0.0.1:8080", token); err == nil {
		t.Error("an address without a scheme is dialled")
	}
}
