package lab_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

const (
	passthroughGCP  = "bundleEndpoint: {host: federation.gcp.company.com, route: passthrough}"
	reencryptOnprem = "upstreamAuthority: disk, bundleEndpoint: {profile: https_web, host: federation.onprem.company.com, route: reencrypt, path: '/federation?format=spiffe', httpsWeb: {servingCert: {}}}"
	acmeBehindProxy = "upstreamAuthority: disk, bundleEndpoint: {profile: https_web, route: passthrough, httpsWeb: {acme: {domainName: federation.onprem.company.com, email: admin@company.com, tosAccepted: true}}}"
	proxied         = "https://federation.onprem.company.com/federation?format=spiffe"
)

// routes is a company with proxies of both kinds in front of its endpoints.
func routes(changes ...func(*labFile)) labFile {
	return company(append([]func(*labFile){with("gcp", passthroughGCP), with("onprem", reencryptOnprem)}, changes...)...)
}

// proxies returns the nodes that have a proxy, by the trust domain's cluster.
func (w *world) proxies() (clusters []string) {
	for name, n := range w.nodes {
		if n.releases[releaseName{topology.ServerNamespace, spire.ProxyName}] != nil {
			clusters = append(clusters, name.cluster)
		}
	}
	slices.Sort(clusters)
	return clusters
}

// TestRoutes: peers fetch through proxies; up puts back one that is gone, and a lab that asks
// for none loses it.
func TestRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := routes().topology(t)
		well := func(top topology.Topology, proxies ...string) {
			t.Helper()
			if err := w.up(t, d, top); err != nil {
				t.Fatal(err)
			}
			if s, err := d.Status(t.Context(), top); err != nil || !s.Well {
				t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
			}
			if got := w.proxies(); !slices.Equal(got, proxies) {
				t.Errorf("proxies in %q, want %q", got, proxies)
			}
			w.wantNoop(t, d, top)
		}
		well(top, "gcp", "onprem")
		if !slices.Contains(w.calls, "Images.Ensure haproxy") {
			t.Error("no image of HAProxy is asked for")
		}
		s, err := d.Status(t.Context(), top)
		if err != nil || !slices.ContainsFunc(s.TrustDomains, func(td lab.TrustDomainStatus) bool { return td.BundleEndpoint == proxied }) {
			t.Errorf("error %v, no bundle endpoint %s in %+v", err, proxied, s.TrustDomains)
		}

		for n, node := range w.nodes {
			if n.cluster == "onprem" {
				delete(node.releases, releaseName{topology.ServerNamespace, spire.ProxyName})
			}
		}
		s, err = d.Status(t.Context(), top)
		if text := strings.Join(problems(s), "\n"); err != nil || s.Well || !strings.Contains(text, "the proxy in front of its bundle endpoint does not run") {
			t.Errorf("error %v, problems:\n%s", err, text)
		}
		well(top, "gcp", "onprem")
		well(company().topology(t))
		well(top, "gcp", "onprem")
		well(company(with("onprem", acmeBehindProxy)).topology(t), "onprem")
	})
}

// TestHTTPSSPIFFEBehindReencrypt: somebody has a server follow, by https_spiffe, an endpoint
// where a proxy ends TLS. Status names the route; up puts the lab's own relationship back, and
// says of a person's own what is wrong with it.
func TestHTTPSSPIFFEBehindReencrypt(t *testing.T) {
	const (
		route = "; the route of onprem.company.com is reencrypt, so that a proxy ends TLS there, and no peer sees the X509-SVID of its SPIRE server"
		want  = "wrong profile: the relationship is https_spiffe, and the endpoint shows a certificate without SPIFFE ID, as with https_web" + route
	)
	for name, resource := range map[string]string{"the lab's own": "", "a resource of one's own": "partner"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				top := routes(federated("shape: mesh")).topology(t)
				if err := w.up(t, d, top); err != nil {
					t.Fatal(err)
				}
				var gcp *node
				for name, n := range w.nodes {
					if name.cluster == "gcp" {
						gcp = n
					}
				}
				key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind, Name: "onprem.company.com"}
				spec := specOf[spire.FederatedTrustDomainSpec](gcp.objects[key])
				if spec.BundleEndpointURL != proxied || spec.BundleEndpointProfile.Type != topology.HTTPSWeb {
					t.Fatalf("the lab's own is %+v", spec)
				}
				spec.BundleEndpointProfile.Type = topology.HTTPSSPIFFE
				spec.BundleEndpointProfile.EndpointSPIFFEID = "spiffe://onprem.company.com/spire/server"
				metadata := spire.Metadata{Name: key.Name, Labels: spire.Owned()}
				if resource != "" {
					metadata = spire.Metadata{Name: resource}
					if err := (objects{gcp}).Delete(t.Context(), key); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := (objects{gcp}).Apply(t.Context(), spire.Resource{APIVersion: key.APIVersion, Kind: key.Kind, Metadata: metadata, Spec: spec}); err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Second) // of the bubble
				s, err := d.Status(t.Context(), top)
				if got := saysOf(s, "gcp.company.com", "onprem.company.com"); err != nil || !strings.HasPrefix(got, want) {
					t.Errorf("error %v, status says\n%s\nwant\n%s", err, got, want)
				}
				err = w.up(t, d, top)
				if resource == "" {
					if s, wrong := d.Status(t.Context(), top); err != nil || wrong != nil || !s.Well {
						t.Errorf("up ends with %v, and then %v: %q", err, wrong, problems(s))
					}
				} else if err == nil || !strings.Contains(err.Error(), route) {
					t.Errorf("up ends with %v, want %s", err, route)
				}
			})
		})
	}
}
