package svid_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
)

func environment(socket string) func(string) string {
	return func(name string) string {
		return map[string]string{"SPIFFE_ENDPOINT_SOCKET": "unix://" + socket}[name]
	}
}

// TestPrint: what the agent gives is printed, without the private key.
func TestPrint(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	ca, other := apptest.NewCA(t, "cluster2.com"), apptest.NewCA(t, "cluster1.com")
	own := ca.Issue(t, "/client")
	own.Hint = "ours"
	api.Set(t, own, ca.Bundle(), other.Bundle())
	key := apptest.NewJWTKey(t, "cluster2.com", "one")
	api.SetJWT("/client", key, key.Bundle())

	var out bytes.Buffer
	if err := svid.Print(t.Context(), []string{"-audience=someone"}, environment(socket), &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var held svid.Held
	if err := json.Unmarshal(out.Bytes(), &held); err != nil {
		t.Fatal(err)
	}
	if len(held.X509) != 1 || held.X509[0].Hint != "ours" || len(held.X509[0].Chain) != 1 || !bytes.Equal(held.X509[0].Chain[0], own.Certificates[0].Raw) {
		t.Errorf("it prints %s", out.String())
	}
	if slices.Sort(held.Bundles); !slices.Equal(held.Bundles, []string{"cluster1.com", "cluster2.com"}) || len(held.JWT) != 1 || strings.Count(held.JWT[0], ".") != 2 {
		t.Errorf("bundles %q, tokens %q", held.Bundles, held.JWT)
	}
	var fields map[string]any
	if err := json.Unmarshal(out.Bytes(), &fields); err != nil || len(fields) != 3 {
		t.Errorf("it prints %d fields, want x509, bundles and jwt", len(fields))
	}
	der, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(der)
	if err != nil || strings.Contains(out.String(), strings.Trim(string(encoded), `"=`)) {
		t.Errorf("error %v, or the private key is printed", err)
	}
}

func TestPrintRefuses(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	apptest.ServeWorkloadAPI(t, socket)
	err := svid.Print(t.Context(), nil, environment(socket), io.Discard, io.Discard)
	if err == nil || !strings.HasPrefix(err.Error(), "ask the Workload API at unix://"+socket+": ") || !strings.Contains(err.Error(), "no identity issued") {
		t.Errorf("without an identity: error %v", err)
	}
	wrong := (*process.UsageError)(nil)
	if err := svid.Print(t.Context(), []string{"all"}, environment(socket), io.Discard, io.Discard); !errors.As(err, &wrong) {
		t.Errorf("an argument that is none: error %v", err)
	}
}

// TestOr: the program runs unless somebody asks what it has.
func TestOr(t *testing.T) {
	ran := errors.New("the program ran")
	run := svid.Or(func(_ context.Context, _ []string, _ func(string) string, _ io.Writer) error { return ran })
	for _, args := range [][]string{nil, {"-listen", "svid"}} {
		if err := run(t.Context(), args, environment(""), io.Discard); !errors.Is(err, ran) {
			t.Errorf("%q: error %v", args, err)
		}
	}
	if err := run(t.Context(), []string{"svid", "-nonsense"}, environment(""), io.Discard); err == nil || errors.Is(err, ran) {
		t.Errorf("svid: error %v", err)
	}
}

// TestCalls: a call is made with what the Workload API gives, and one with an SVID that
// nobody has signed is refused.
func TestCalls(t *testing.T) {
	ca, other := apptest.NewCA(t, "cluster2.com"), apptest.NewCA(t, "cluster1.com")
	server := apptest.NewHolder(other.Issue(t, "/server"), other.Bundle(), ca.Bundle())
	status := http.StatusNotFound
	address := apptest.ServeHTTPS(t, server, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	calls := func(t *testing.T, target string, bundles ...*x509bundle.Bundle) svid.Call {
		t.Helper()
		socket := filepath.Join(t.TempDir(), "agent.sock")
		api, _ := apptest.ServeWorkloadAPI(t, socket)
		if bundles != nil {
			api.Set(t, ca.Issue(t, "/client"), bundles[0], bundles[1:]...)
		}
		var out bytes.Buffer
		if err := svid.Print(t.Context(), []string{"-call=" + target}, environment(socket), &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		var held svid.Held
		if err := json.Unmarshal(out.Bytes(), &held); err != nil || len(held.Calls) != 1 {
			t.Fatalf("error %v, got %s", err, out.String())
		}
		return held.Calls[0]
	}
	const id = "spiffe://cluster1.com/server"
	for name, tt := range map[string]struct {
		target                  string
		bundles                 []*x509bundle.Bundle
		status                  int
		outcome, peer, stranger string
	}{
		"whatever the answer is":          {id + "@" + address, []*x509bundle.Bundle{ca.Bundle(), other.Bundle()}, http.StatusNotFound, "answered", id, "refused-by-server"},
		"not permitted":                   {id + "@" + address, []*x509bundle.Bundle{ca.Bundle(), other.Bundle()}, http.StatusForbidden, "not-permitted", id, "refused-by-server"},
		"no bundle":                       {id + "@" + address, []*x509bundle.Bundle{ca.Bundle()}, http.StatusOK, "not-federated", "", "not-federated"},
		"somebody else":                   {"spiffe://cluster1.com/other@" + address, []*x509bundle.Bundle{ca.Bundle(), other.Bundle()}, http.StatusOK, "identity-refused", "", "identity-refused"},
		"nobody there":                    {id + "@127.0.0.1:1", []*x509bundle.Bundle{ca.Bundle(), other.Bundle()}, http.StatusOK, "unreachable", "", "unreachable"},
		"nobody has an identity for them": {id + "@" + address, nil, http.StatusOK, "no-identity", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			status = tt.status
			if c := calls(t, tt.target, tt.bundles...); c.Outcome != tt.outcome || c.Peer != tt.peer || c.Stranger != tt.stranger || (c.Detail == "") != (c.Outcome == svid.Answered) {
				t.Errorf("got %+v", c)
			}
		})
	}
	server.Set(other.Issue(t, "/server"), other.Bundle())
	if c := calls(t, id+"@"+address, ca.Bundle(), other.Bundle()); c.Outcome != "refused-by-server" || c.Peer != id {
		t.Errorf("a server without the caller's bundle: %+v", c)
	}
	for _, target := range []string{"nobody@" + address, id, id + "@nowhere"} {
		wrong := (*process.UsageError)(nil)
		if err := svid.Print(t.Context(), []string{"-call=" + target}, environment("x"), io.Discard, io.Discard); !errors.As(err, &wrong) {
			t.Errorf("%s: error %v", target, err)
		}
	}
}
