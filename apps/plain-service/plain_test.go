package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

// get asks a service that calls these.
func get(t *testing.T, path, targets string) (status int, body string) {
	t.Helper()
	var log apptest.Log
	stop := apptest.Run(t, func(ctx context.Context) error {
		return process.With(parse, run)(ctx, []string{"-name=stock", "-listen=127.0.0.1:0", "-health-listen=127.0.0.1:0", "-calls=" + targets}, func(string) string { return "" }, &log)
	})
	defer stop()
	_, address, _ := strings.Cut(log.Await(t, "what=HTTP"), "listen=")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(text))
}

func TestHealth(t *testing.T) {
	if status, body := get(t, "/api/health", "[]"); status != http.StatusOK || body != `{"service":"stock","status":"healthy"}` {
		t.Errorf("answer is %d %s", status, body)
	}
}

// TestCallsAreToldAsOthersTellThem: what reads the reports of services reads this one.
func TestCallsAreToldAsOthersTellThem(t *testing.T) {
	there := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(there.Close)
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "you may not", http.StatusForbidden) }))
	t.Cleanup(refuses.Close)
	// A connection that is closed without an answer is what ghostunnel makes of a server
	// that is not whom it wants.
	closes := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(closes.Close)
	list := targets{
		{Name: "there", URL: there.URL + "/", Server: "spiffe://one.test/a", Profile: "https_web"},
		{Name: "refuses", URL: refuses.URL + "/", Server: "spiffe://one.test/b"},
		{Name: "closes", URL: closes.URL + "/", Server: "spiffe://one.test/c"},
	}
	status, body := get(t, "/api/calls", list.String())
	var told calls.Report
	if err := json.Unmarshal([]byte(body), &told); err != nil || status != http.StatusOK || len(told.Calls) != len(list) || told.NextInMillis <= 0 || told.Now.IsZero() {
		t.Fatalf("answer is %d %s, error %v", status, body, err)
	}
	for i, want := range []struct {
		state  calls.State
		detail string
	}{{calls.Answered, ""}, {calls.Failed, "the answer is 403 Forbidden: you may not"}, {calls.Failed, "EOF"}} {
		is := told.Calls[i]
		if is.State != want.state || is.Name != list[i].Name || is.Server.String() != list[i].Server || is.Profile != list[i].Profile {
			t.Errorf("call is %+v, want it %s", is, want.state)
		}
		if (is.Problem != nil) != (want.detail != "") || is.Problem != nil && is.Problem.Detail != want.detail {
			t.Errorf("%s: problem is %+v, want %q", is.Name, is.Problem, want.detail)
		}
	}
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct{ arg, want string }{
		"no name":              {"-name=", "read flags: -name is empty: want a name such as stock"},
		"no JSON":              {"-calls=orders", "invalid character 'o'"},
		"two arrays":           {"-calls=[] []", "want one JSON array"},
		"a field that is none": {`-calls=[{"nme":"x"}]`, `unknown field "nme"`},
		"a call without name":  {`-calls=[{"url":"http://127.0.0.1:1/"}]`, `target 1 (""): name is empty`},
		"HTTPS":                {`-calls=[{"name":"x","url":"https://127.0.0.1:1/"}]`, `target 1 ("x"): url is "https://127.0.0.1:1/": want http://host:port/path`},
		"a name twice":         {`-calls=[{"name":"x","url":"http://127.0.0.1:1/"},{"name":"x","url":"http://127.0.0.1:1/"}]`, `target 2 ("x"): the name is taken`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse([]string{test.arg}, func(string) string { return "" }, io.Discard)
			var usage *process.UsageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestFlagsAreReadBack(t *testing.T) {
	list := targets{{Name: "x", URL: "http://127.0.0.1:9001/", Server: "spiffe://one.test/a"}}
	var again targets
	if err := again.Set(list.String()); err != nil || !slices.Equal(again, list) {
		t.Errorf("%s is read as %v, error %v", list, again, err)
	}
}
