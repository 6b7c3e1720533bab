package lab_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

const (
	namedGCP    = "bundleEndpoint: {host: spire-bundle.gcp.company.com}"
	namedOnprem = "upstreamAuthority: disk, bundleEndpoint: {profile: https_web, host: spire-bundle.onprem.company.com, port: 9443, httpsWeb: {servingCert: {ttl: 15m, fileSyncInterval: 10s, shortIntervals: true}}}"
)

// byName is a company whose endpoints have names, in all modes.
func byName() labFile { return company(with("gcp", namedGCP), with("onprem", namedOnprem)) }

// TestEndpointsByName: peers fetch by names that the DNS of each cluster knows, and what the
// DNS knew before stays.
func TestEndpointsByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := byName().topology(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		for name, n := range w.nodes {
			if !strings.Contains(n.objects[dnsKey], "forward . /etc/resolv.conf") {
				t.Errorf("the DNS of %s has lost what it had: %s", name.cluster, n.objects[dnsKey])
			}
			for _, host := range []string{"spire-bundle.gcp.company.com", "spire-bundle.onprem.company.com"} {
				if _, known := n.knows(host); !known {
					t.Errorf("the DNS of %s does not know %s: %s", name.cluster, host, n.objects[dnsKey])
				}
			}
		}
		s, err := d.Status(t.Context(), top)
		if err != nil || !s.Well {
			t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
		}
		var endpoints []string
		for _, td := range s.TrustDomains {
			endpoints = append(endpoints, td.BundleEndpoint)
		}
		slices.Sort(endpoints)
		if got, want := strings.Join(endpoints, " "), "https://10.192.1.1:8443 https://spire-bundle.gcp.company.com:8443 https://spire-bundle.onprem.company.com:9443"; got != want {
			t.Errorf("endpoints %s, want %s", got, want)
		}
		w.wantNoop(t, d, top)

		// Somebody takes the names out of one DNS by hand.
		for name, n := range w.nodes {
			if name.cluster == "aws" {
				n.objects[dnsKey] = newDNS()
			}
		}
		if s, err := d.Status(t.Context(), top); err != nil || s.Well || !strings.Contains(strings.Join(problems(s), "\n"), "the DNS of cluster aws knows no address of spire-bundle.gcp.company.com") {
			t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
		}
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		w.wantNoop(t, d, top)
	})
}

// TestEndpointsOfHostsByName: a server on a host finds the endpoints of others by name.
func TestEndpointsOfHostsByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := hosted(t, "{profile: https_web,", "{profile: https_web, host: bundle.company.com,")
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		if s, err := d.Status(t.Context(), top); err != nil || !s.Well {
			t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
		}
		w.wantNoop(t, d, top)
	})
}

// TestDNSOfOthers: up says what is wrong with a configuration of the DNS that it cannot
// write into, and leaves it alone.
func TestDNSOfOthers(t *testing.T) {
	for name, tt := range map[string]struct{ file, want string }{
		"no block for all names": {"example.com:53 {\n    forward . /etc/resolv.conf\n}\n", `has no line ".:53 {"`},
		"no end of our block":    {".:53 {\n    # The names of the lab, by fedlab:\n    errors\n}\n", `and not "# The names of the lab end here."`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				top := byName().topology(t)
				if err := w.up(t, d, top); err != nil {
					t.Fatal(err)
				}
				var written string
				for cluster, n := range w.nodes {
					if cluster.cluster == "gcp" {
						n.objects[dnsKey] = dnsWith(tt.file)
						written = n.objects[dnsKey]
					}
				}
				err := w.up(t, d, top)
				if err == nil || !strings.Contains(err.Error(), "write the names of the lab into the DNS of cluster gcp") || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want one with %s", err, tt.want)
				}
				for cluster, n := range w.nodes {
					if cluster.cluster == "gcp" && n.objects[dnsKey] != written {
						t.Errorf("up wrote %s", n.objects[dnsKey])
					}
				}
			})
		})
	}
}

// TestDNSWithoutNames: a lab without names leaves the configuration of the DNS as it is.
func TestDNSWithoutNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes {
			n.objects[dnsKey] = dnsWith("example.com:53 {\n    forward . /etc/resolv.conf\n}") // no line end
		}
		w.wantNoop(t, d, quotes(t))
	})
}

func TestNames(t *testing.T) {
	g, err := topology.Resolve(byName().topology(t), topology.NetworkCandidates()[0])
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range g.Names() {
		got = append(got, n.Host+" "+n.Address.String())
	}
	if want := "spire-bundle.gcp.company.com 10.192.2.1, spire-bundle.onprem.company.com 10.192.3.1"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}
