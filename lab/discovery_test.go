package lab_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// tokensFile is the lab of the guide about tokens.
func tokensFile(t *testing.T) string {
	t.Helper()
	file, err := os.ReadFile("../docs/guides/tokens.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(file)
}

func tokens(t *testing.T) topology.Topology {
	t.Helper()
	return topologyOf(t, tokensFile(t))
}

var issuing = nodeName{"tokens", "aws"}

func discoveryKey(kind, name string) access.ObjectKey {
	key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: kind, Name: name}
	if kind == "Deployment" {
		key.APIVersion, key.Namespace = "apps/v1", topology.ServerNamespace
	}
	return key
}

func TestAnIssuerIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, tokens(t)); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(w.calls, "Images.Ensure node oidc-discovery-provider") {
			t.Errorf("nobody asks for the image of the provider: %q", w.calls)
		}
		s := wantWell(t, d, tokens(t))
		if got := s.TrustDomains[0].Discovery; got == nil || got.Issuer != "https://oidc.aws.company.com" || got.Address != "10.192.1.100" || !got.Well {
			t.Errorf("the provider is %+v", got)
		}
		if s.TrustDomains[1].Discovery != nil {
			t.Errorf("a trust domain without a provider has %+v", s.TrustDomains[1].Discovery)
		}
		w.wantNoop(t, d, tokens(t))
	})
}

// TestAnIssuerOfATrustDomainOverClusters: the provider is next to the server, and its entries
// are for the agents there.
func TestAnIssuerOfATrustDomainOverClusters(t *testing.T) {
	file := replaced(t, tokensFile(t), "    - name: gcp\n      trustDomain: gcp.company.com\n  trustDomains:",
		"    - name: gcp\n      trustDomain: gcp.company.com\n    - name: branch\n      trustDomain: aws.company.com\n  trustDomains:")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, topologyOf(t, file)); err != nil {
			t.Fatal(err)
		}
		wantWell(t, d, topologyOf(t, file))
		w.wantNoop(t, d, topologyOf(t, file))
		for name, n := range w.nodes {
			if got := n.release(spire.DiscoveryName) != nil; got != (name == issuing) {
				t.Errorf("in %s is a provider: %t", name, got)
			}
		}
	})
}

// TestStatusOfAnIssuer: each thing by which those who know OIDC alone would be led astray
// is told, and what the next up repairs is right after it.
func TestStatusOfAnIssuer(t *testing.T) {
	want := fresh(t, tokens(t), (*world).dump)
	const at = "aws.company.com: "
	other := func(t *testing.T) []byte {
		t.Helper()
		key, err := newKey("")
		if err != nil {
			t.Fatal(err)
		}
		bundle := jwtbundle.New(tokens(t).TrustDomains[0].Name)
		if err := bundle.AddJWTAuthority("made-up", key.Public()); err != nil {
			t.Fatal(err)
		}
		text, err := bundle.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, tt := range map[string]struct {
		change func(t *testing.T, n *node, p *provider)
		cause  lab.Cause
		says   string
		// repaired says that the next up puts it right by itself; else it waits for it.
		repaired bool
	}{
		"no deployment": {func(_ *testing.T, n *node, _ *provider) {
			delete(n.objects, discoveryKey("Deployment", spire.DiscoveryName))
		},
			lab.IssuerUnreachable, "the OIDC discovery provider: there is no Deployment spire-oidc-discovery-provider", true},
		"scaled to none": {func(_ *testing.T, n *node, _ *provider) {
			key := discoveryKey("Deployment", spire.DiscoveryName)
			n.objects[key] = strings.ReplaceAll(n.objects[key], `"replicas":1`, `"replicas":0`)
		}, lab.IssuerUnreachable, "the OIDC discovery provider: scaled to no pod", true},
		"no release": {func(_ *testing.T, n *node, _ *provider) {
			n.uninstall(n.releases[releaseName{topology.ServerNamespace, spire.DiscoveryName}])
		}, lab.IssuerUnreachable, "the OIDC discovery provider: there is no Deployment spire-oidc-discovery-provider", true},
		"refuses connections": {func(_ *testing.T, _ *node, p *provider) { p.down = true },
			lab.IssuerUnreachable, "https://oidc.aws.company.com/.well-known/openid-configuration does not answer at 10.192.1.100: connection refused", false},
		"answers with an error": {func(_ *testing.T, _ *node, p *provider) { p.status = 500 },
			lab.IssuerUnreachable, "https://oidc.aws.company.com/.well-known/openid-configuration answers 500 Internal Server Error", false},
		"another issuer": {func(_ *testing.T, _ *node, p *provider) { p.issuer = "https://oidc.aws.company.com/" },
			lab.OtherIssuer, `https://oidc.aws.company.com/.well-known/openid-configuration says that the issuer is "https://oidc.aws.company.com/", and JWT-SVIDs of aws.company.com have "https://oidc.aws.company.com"`, false},
		"keys of nobody": {func(t *testing.T, _ *node, p *provider) {
			t.Helper()
			p.keys = other(t)
		},
			lab.OtherKeys, "https://oidc.aws.company.com/keys does not serve the JWT authorities of the server of aws.company.com: it lacks jwt-of-aws.company.com, nobody signs with made-up", false},
		"another key of that name": {func(t *testing.T, _ *node, p *provider) {
			t.Helper()
			p.keys = []byte(strings.ReplaceAll(string(other(t)), "made-up", "jwt-of-aws.company.com"))
		}, lab.OtherKeys, "https://oidc.aws.company.com/keys does not serve the JWT authorities of the server of aws.company.com: jwt-of-aws.company.com is another key", false},
		"no keys": {func(_ *testing.T, _ *node, p *provider) { p.keys = []byte(`<html>`) },
			lab.OtherKeys, "https://oidc.aws.company.com/keys has no keys of JWT authorities: ", false},
		"another certificate": {func(t *testing.T, n *node, p *provider) {
			t.Helper()
			var err error
			if p.shown, err = n.spire.servingCert([]string{"oidc.elsewhere.com"}, time.Hour); err != nil {
				t.Fatal(err)
			}
		}, lab.MisnamedCertificate, "what the OIDC discovery provider of aws.company.com shows is not accepted: x509: certificate is valid for oidc.elsewhere.com, not oidc.aws.company.com", false},
		"an expired certificate": {func(t *testing.T, n *node, p *provider) {
			t.Helper()
			var err error
			if p.shown, err = n.spire.servingCert([]string{"oidc.aws.company.com"}, -time.Minute); err != nil {
				t.Fatal(err)
			}
		}, lab.ExpiredCertificate, "what the OIDC discovery provider of aws.company.com shows is not accepted: x509: certificate has expired or is not yet valid", false},
		"no entry": {func(_ *testing.T, n *node, _ *provider) {
			delete(n.objects, discoveryKey("ClusterStaticEntry", "oidc-discovery-provider.spire-system"))
			n.reregister()
		}, lab.IssuerUnreachable, "the OIDC discovery provider: 0 of 1 pods are ready: no keys yet: no identity issued", true},
		"no node alias": {func(_ *testing.T, n *node, _ *provider) {
			delete(n.objects, discoveryKey("ClusterStaticEntry", "nodes.spire-system"))
			n.reregister()
		}, lab.IssuerUnreachable, "the OIDC discovery provider: 0 of 1 pods are ready: no keys yet: no identity issued", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, tokens(t)); err != nil {
					t.Fatal(err)
				}
				n := w.nodes[issuing]
				p := n.provider(topology.ServerNamespace)
				tt.change(t, n, p)
				s, err := d.Status(t.Context(), tokens(t))
				if err != nil {
					t.Fatal(err)
				}
				if got := problems(s); len(got) != 1 || !strings.HasPrefix(got[0], at+tt.says) || s.TrustDomains[0].Cause != tt.cause || s.TrustDomains[0].Discovery.Well {
					t.Errorf("cause %q, problems:\n%s\nwant cause %q and\n%s", s.TrustDomains[0].Cause, strings.Join(got, "\n"), tt.cause, at+tt.says)
				}
				if !tt.repaired {
					time.AfterFunc(30*time.Second, func() {
						w.mu.Lock()
						defer w.mu.Unlock()
						*p = provider{}
					})
				}
				if err := w.up(t, d, tokens(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
			})
		})
	}
}

// TestAnIssuerNeedsNotBeServedAnyMore: what the file no longer asks for goes, its CA too,
// and comes back at the same address.
func TestAnIssuerNeedsNotBeServedAnyMore(t *testing.T) {
	without := topologyOf(t, replaced(t, tokensFile(t), "      oidcDiscovery: {pollInterval: 1s}\n", ""))
	served, unserved := fresh(t, tokens(t), (*world).dump), fresh(t, without, (*world).dump)
	if served == unserved {
		t.Fatal("the provider is not in what the world says of itself")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		for _, step := range []struct {
			top  topology.Topology
			want string
		}{{without, unserved}, {tokens(t), served}, {without, unserved}, {tokens(t), served}} {
			if err := w.up(t, d, step.top); err != nil {
				t.Fatal(err)
			}
			w.want(t, step.want)
		}
	})
}

// TestTokensDisturbed has ups of which a call fails once, or is the last one.
func TestTokensDisturbed(t *testing.T) {
	want := fresh(t, tokens(t), (*world).dump)
	starts := situations(tokens, "aws", "gcp")
	found := map[string]string{}
	var names []string
	for _, tt := range trialsOf(t, tokens, starts) {
		found[tt.call] = tt.found
		names = append(names, tt.call+"/fails once", tt.call+"/killed before", tt.call+"/killed after")
	}
	disturbed(t, tokens, starts, found, sample(t, names, 40), func(t *testing.T, w *world) {
		t.Helper()
		w.want(t, want)
	})
}

// TestStepsOfAnIssuer: nobody waits for what it does not need.
func TestStepsOfAnIssuer(t *testing.T) {
	p, err := (&lab.Driver{}).Plan(tokens(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps() {
		var after []string
		for _, id := range s.After {
			after = append(after, string(id))
		}
		slices.Sort(after)
		if want, is := map[string]string{
			"oidc/aws.company.com":   "authorities/aws.company.com server/aws.company.com",
			"issuer/aws.company.com": "agents/aws.company.com metallb/aws oidc/aws.company.com",
		}[string(s.Name)]; is && strings.Join(after, " ") != want {
			t.Errorf("%s comes after %q, want %q", s.Name, after, want)
		}
	}
}
