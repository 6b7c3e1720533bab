package svid_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/svid"
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
