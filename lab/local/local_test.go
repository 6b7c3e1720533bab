package local

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab"
	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/kindcluster"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func TestPage(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/quotes" {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	// A proxy would say that it cannot be reached, not that the page is there.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	if err := page(t.Context(), server.URL+"/quotes"); err != nil {
		t.Error(err)
	}
	if err := page(t.Context(), server.URL+"/"); err == nil || err.Error() != "get "+server.URL+"/: 404 Not Found" {
		t.Errorf("error %v", err)
	}
	server.Close()
	if err := page(t.Context(), server.URL+"/quotes"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
}

// TestProgramsAreAllThatThereAre: a program below apps that is not listed would
// be in no cluster.
func TestProgramsAreAllThatThereAre(t *testing.T) {
	mains, err := fs.Glob(fedlab.Source, "apps/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range mains {
		want = append(want, path.Base(path.Dir(name)))
	}
	got := slices.Sorted(slices.Values(programs()))
	if !slices.Equal(got, want) {
		t.Errorf("programs %q, want those below apps: %q", got, want)
	}
}

// What topology asks for is what there is.
func TestOptionalProgramsAreThoseOfTheImages(t *testing.T) {
	asked := []string{topology.Pebble, topology.Ghostunnel, topology.SPIFFEHelper, topology.OIDCProvider, topology.HAProxy}
	// No topology asks for these: 'images path' makes them for whoever watches a lab.
	asked = append(asked, "alertmanager", "prometheus", "promtool")
	for _, version := range topology.SPIREVersions()[1:] {
		of := topology.Settings{SPIREVersion: version, AgentVersion: version}
		asked = append(asked, of.OtherServer(), of.OtherAgent())
	}
	if got := images.Optional(); !slices.Equal(got, asked) {
		t.Errorf("images of %q can be made, a topology may ask for %q", got, asked)
	}
}

func TestPortFree(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(l.Addr().String())
	if err := portFree(addr); err == nil || !strings.Contains(err.Error(), "stop what listens on "+addr.String()+", or expose the workload on another port") {
		t.Errorf("error %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := portFree(addr); err != nil {
		t.Errorf("when nobody listens: %v", err)
	}
}

func TestHalfMade(t *testing.T) {
	err := halfMade("market", &kindcluster.NoKubeconfigError{Cluster: "quotes-market"})
	if none := (*lab.NoKubeconfigError)(nil); !errors.As(err, &none) || none.Cluster != "market" {
		t.Errorf("error %#v", err)
	}
	other := errors.New("is not running")
	if err := halfMade("market", other); !errors.Is(err, other) {
		t.Errorf("of another error: %v", err)
	}
	if err := halfMade("market", nil); err != nil {
		t.Errorf("of none: %v", err)
	}
}

func TestExposedIsWithoutTheAPI(t *testing.T) {
	got := exposed(map[netip.AddrPort]uint16{
		netip.MustParseAddrPort("127.0.0.1:8080"):  30081,
		netip.MustParseAddrPort("127.0.0.1:41234"): kindcluster.APIPort,
	})
	if want := (map[netip.AddrPort]int{netip.MustParseAddrPort("127.0.0.1:8080"): 30081}); !maps.Equal(got, want) {
		t.Errorf("exposed %v, want %v", got, want)
	}
}
