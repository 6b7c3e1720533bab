package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAPageAnswersToItsOwnHostsOnly(t *testing.T) {
	var names Names
	if err := names.Set("frontend, Frontend.fedlab.svc"); err != nil || names.String() != "frontend,frontend.fedlab.svc" {
		t.Fatalf("names are %s, %v", names, err)
	}
	handler := Secure(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }), names)
	ask := func(host string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/calls", nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, host := range []string{
		"localhost", "localhost:30081", "LocalHost:1", "127.0.0.1:30081", "[::1]:30081", "[::1]", "172.18.0.2:30081",
		"10.244.0.7:8080", // the kubelet's probes
		"frontend", "frontend:8080", "frontend.fedlab.svc.:8080",
	} {
		if code, body := ask(host); code != http.StatusOK || body != "secret" {
			t.Errorf("host %q: %d %q", host, code, body)
		}
	}
	for _, host := range []string{"evil.example", "evil.example:30081", "localhost.evil.example", "127.0.0.1.evil.example:30081", "frontend.evil.example", "xfrontend", ""} {
		code, body := ask(host)
		want := `this page does not answer to the host "` + host + `": open it as localhost, by an address, or as frontend, frontend.fedlab.svc`
		if code != http.StatusMisdirectedRequest || strings.TrimSpace(body) != want {
			t.Errorf("host %q: %d %q, want 421 %q", host, code, body, want)
		}
	}
	if err := names.Set("frontend:80"); err == nil {
		t.Error("a name with a port is taken")
	}
}
