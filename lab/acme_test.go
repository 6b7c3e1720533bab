package lab_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

const (
	acmeGCP    = "bundleEndpoint: {profile: https_web, httpsWeb: {acme: {domainName: federation.gcp.company.com, email: admin@company.com, tosAccepted: true}}}"
	acmeOnprem = "upstreamAuthority: disk, bundleEndpoint: {profile: https_web, httpsWeb: {acme: {domainName: federation.onprem.company.com, email: admin@company.com, tosAccepted: true}}}"
)

// ordering is a company that has the certificate of an endpoint by ACME.
func ordering(changes ...func(*labFile)) labFile {
	return company(append([]func(*labFile){with("onprem", acmeOnprem)}, changes...)...)
}

// TestACMEServer: peers verify an endpoint whose certificate came from the lab's ACME server; up
// puts the server back, and its root; a lab that asks for it no more loses it.
func TestACMEServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := ordering().topology(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(w.calls, "Images.Ensure node pebble") {
			t.Errorf("calls %q", w.calls)
		}
		well := func(top topology.Topology) {
			t.Helper()
			if s, err := d.Status(t.Context(), top); err != nil || !s.Well {
				t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
			}
			w.wantNoop(t, d, top)
		}
		well(top)
		var home *node
		release := releaseName{spire.ACMENamespace, spire.ACMERelease}
		for _, n := range w.nodes {
			if n.releases[release] != nil {
				home = n
			}
		}
		if home == nil {
			t.Fatal("no cluster has the ACME server")
		}

		// Its release is gone.
		delete(home.releases, release)
		s, err := d.Status(t.Context(), top)
		if text := strings.Join(problems(s), "\n"); err != nil || s.Well || !strings.Contains(text, "the lab's ACME server in cluster onprem does not run") {
			t.Errorf("error %v, problems:\n%s", err, text)
		}
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		well(top)

		// Its root is gone: the servers that order and those that trust them get the next one.
		delete(home.objects, access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: spire.ACMENamespace, Name: spire.ACMERootSecret})
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		well(top)

		plain := company().topology(t)
		if err := w.up(t, d, plain); err != nil {
			t.Fatal(err)
		}
		if home.releases[release] != nil {
			t.Error("the ACME server is still there")
		}
		well(plain)
	})
}

// TestACMEServerStays: with another trust domain before the first one that orders, the ACME
// server stays where its root is.
func TestACMEServerStays(t *testing.T) {
	before := ordering().topology(t)
	after := company(with("gcp", acmeGCP), with("onprem", acmeOnprem)).topology(t)
	if before.ACMEServer.Cluster != "onprem" || after.ACMEServer.Cluster != "gcp" {
		t.Fatalf("the ACME server is in %s, then in %s", before.ACMEServer.Cluster, after.ACMEServer.Cluster)
	}
	if placed := after.Placed(before); placed.ACMEServer.Cluster != "onprem" {
		t.Errorf("the ACME server goes to %s", placed.ACMEServer.Cluster)
	}
	if after.ACMEServer.Cluster != "gcp" {
		t.Error("the topology itself has changed")
	}
}
