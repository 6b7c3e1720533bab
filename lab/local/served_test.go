package local

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
)

// accepted accepts every chain.
func accepted([]*x509.Certificate) error { return nil }

// impatient waits for as long as a busy machine may need for a handshake.
var impatient = endpoint{within: 3 * time.Second}

func TestServed(t *testing.T) {
	errRefused := errors.New("nobody knows that root")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			_, _ = w.Write([]byte(`{"keys":[]}`))
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/large":
			_, _ = w.Write(make([]byte, servedLimit+1))
		case "/largest":
			_, _ = w.Write(make([]byte, servedLimit))
		default:
			http.NotFound(w, r)
		}
	}))
	server.StartTLS()
	t.Cleanup(server.Close)
	for name, tt := range map[string]struct {
		path   string
		refuse error
		// size is how much is served.
		size int
		want string
	}{
		"a bundle":                   {path: "/", size: len(`{"keys":[]}`)},
		"as much as may be":          {path: "/largest", size: servedLimit},
		"more than may be":           {path: "/large", want: "the answer has more than 1048576 bytes"},
		"a redirect":                 {path: "/moved", want: "302 Found"},
		"nothing":                    {path: "/nothing", want: "404 Not Found"},
		"a chain that is not wanted": {path: "/", refuse: errRefused, want: errRefused.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			var shown []*x509.Certificate
			document, err := impatient.served(t.Context(), server.URL+tt.path, func(chain []*x509.Certificate) error {
				shown = chain
				return tt.refuse
			})
			if tt.want != "" {
				if want := fmt.Sprintf("get %s: %s", server.URL+tt.path, tt.want); err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
			} else if err != nil || len(document) != tt.size {
				t.Errorf("%d bytes, error %v", len(document), err)
			}
			if len(shown) != 1 || !shown[0].Equal(server.Certificate()) {
				t.Errorf("verified %v, want the chain of the server", shown)
			}
			if tt.refuse != nil && !errors.Is(err, tt.refuse) {
				t.Errorf("error %v does not wrap %v", err, tt.refuse)
			}
		})
	}

	server.Close()
	var hanging *lab.HangingError
	if _, err := impatient.served(t.Context(), server.URL, accepted); err == nil || errors.As(err, &hanging) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("when nobody listens: %v", err)
	}
}

// TestServedByWhomHangs tells an endpoint that takes requests and does not answer,
// or not to the end, from one to which there is no connection.
func TestServedByWhomHangs(t *testing.T) {
	over := make(chan struct{})
	answering := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			_, _ = w.Write([]byte(`{"keys":`))
			_ = http.NewResponseController(w).Flush()
		}
		<-over
	}))
	t.Cleanup(answering.Close)
	t.Cleanup(func() { close(over) })
	deaf, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = deaf.Close() })

	for name, tt := range map[string]struct {
		url     string
		hanging bool
	}{
		"no answer":        {answering.URL, true},
		"half an answer":   {answering.URL + "/half", true},
		"no TLS handshake": {"https://" + deaf.Addr().String(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := impatient.served(t.Context(), tt.url, accepted)
			var hanging *lab.HangingError
			if errors.As(err, &hanging) != tt.hanging {
				t.Fatalf("error %v", err)
			}
			if want := (&lab.HangingError{URL: tt.url, Within: impatient.within}); tt.hanging && !reflect.DeepEqual(hanging, want) {
				t.Errorf("error %v, want %v", hanging, want)
			}
			if want := "get " + tt.url + ": context deadline exceeded"; !tt.hanging && err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
	t.Run("nobody waits any more", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := impatient.served(ctx, answering.URL, accepted)
		if hanging := (*lab.HangingError)(nil); errors.As(err, &hanging) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
