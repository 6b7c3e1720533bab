package lab_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// TestStatusOfAWellLab holds the names of the fields, too: programs read them.
func TestStatusOfAWellLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		w.mutations = nil
		s, err := d.Status(t.Context(), quotes(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(w.mutations) > 0 {
			t.Errorf("it changed something: %v", w.mutations)
		}
		golden(t, "status-well.json", indented(t, s))
	})
}

// TestKeysOfTwoTypes: a lab is well whose trust domains have keys of different types,
// and the RSA keys of one of them are what its peer holds.
func TestKeysOfTwoTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := keyTypes(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		if s, err := d.Status(t.Context(), top); err != nil || !s.Well {
			t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
		}
		if drift, err := d.Drift(t.Context(), top); err != nil || !drift.Well {
			t.Errorf("error %v, drift %+v", err, drift.Held)
		}
		market, broker := top.TrustDomains[0].Name, top.TrustDomains[1].Name
		held := w.authority("quotes", broker).held[market]
		for _, key := range append(slices.Collect(maps.Values(held.JWTAuthorities())), held.X509Authorities()[0].PublicKey) {
			if _, is := key.(*rsa.PublicKey); !is {
				t.Errorf("%s holds a key of %s that is %T", broker, market, key)
			}
		}
		w.wantNoop(t, d, top)
	})
}

func TestStatusOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newWorld(t).driver(t)
		s, err := d.Status(t.Context(), quotes(t))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "status-nothing.json", indented(t, s))
		alone := quotes(t)
		alone.Relationships, alone.Workloads = nil, nil
		if s, err = d.Status(t.Context(), alone); err != nil || strings.Contains(indented(t, s), "null") {
			t.Errorf("error %v; an empty list is null in %s", err, indented(t, s))
		}
	})
}

func indented(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data) + "\n"
}

// TestStatusOfABrokenLab breaks one thing at a time and compares all that is
// said to be wrong.
func TestStatusOfABrokenLab(t *testing.T) {
	const (
		noPage = "broker-webapp: get http://localhost:8080/quotes: connection refused"
		silent = "the server of cluster1.com does not answer"

		unpublished = "the ConfigMap spire-bundle, by which an agent knows its server when it starts, "
	)
	market, broker := nodeName{"quotes", "market"}, nodeName{"quotes", "broker"}
	for name, tt := range map[string]struct {
		spoil func(w *world)
		want  []string
	}{
		"a cluster is gone": {
			func(w *world) { delete(w.nodes, market) },
			[]string{
				"market: it is not there", "cluster1.com: cluster market does not answer",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: cluster market does not answer",
			},
		},
		"a cluster is stopped": {
			func(w *world) { w.nodes[broker].running = false },
			[]string{
				"broker: its node is stopped", "cluster2.com: cluster broker does not answer",
				"cluster1.com->cluster2.com: the server of cluster2.com does not answer",
				"cluster2.com->cluster1.com: the server of cluster2.com does not answer", "broker-webapp: cluster broker does not answer",
			},
		},
		"a node is not ready": {
			func(w *world) { w.nodes[market].ready = time.Now().Add(time.Hour) },
			[]string{
				"market: node is NotReady", "cluster1.com: cluster market does not answer",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: cluster market does not answer",
			},
		},
		"a cluster is half-made": {
			func(w *world) { w.renew(market); w.nodes[market].ready = time.Now() },
			[]string{
				"market: it was left half-made, and the next up makes it again", "cluster1.com: cluster market does not answer",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: cluster market does not answer",
			},
		},
		"a cluster has other ports": {
			func(w *world) {
				w.nodes[broker].spec.Ports = map[netip.AddrPort]int{netip.MustParseAddrPort("127.0.0.1:8080"): 30999}
			},
			[]string{
				"broker: cluster broker was made with other ports: it has 127.0.0.1:8080 (to 30999), and the file asks for 127.0.0.1:8080 (to 30081)",
				noPage,
			},
		},
		"a cluster too many": {
			func(w *world) {
				name := nodeName{"quotes", "exchange"}
				w.nodes[name] = newNode(w, name, lab.NodeSpec{})
			},
			[]string{"exchange: cluster exchange is there, and the file does not have it"},
		},
		"the server does not run": {
			func(w *world) { w.nodes[market].release("spire").broken = "0 of 1 pods are ready: CrashLoopBackOff" },
			[]string{
				"cluster1.com: 0 of 1 pods are ready: CrashLoopBackOff",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: " + silent,
			},
		},
		"the agent does not run": {
			func(w *world) {
				w.fault = func(c string) verdict {
					if c == "Pods.Ready spire-agent in market" {
						return fail
					}
					return pass
				}
			},
			[]string{"cluster1.com: Pods.Ready spire-agent in market: injected fault"},
		},
		"the server does not list its relationships": {
			func(w *world) { w.fault = once("SPIRE ListFederationRelationships in market", fail) },
			[]string{
				"cluster1.com: list relationships on SPIRE server of cluster1.com: rpc error: code = Unavailable desc = SPIRE ListFederationRelationships in market: injected fault",
				"cluster1.com->cluster2.com: " + silent, "cluster2.com->cluster1.com: " + silent, "stock-quotes: " + silent,
			},
		},
		"no agent": {
			func(w *world) { w.nodes[market].spire.agents = 0 },
			[]string{"cluster1.com: no agent has attested"},
		},
		"no relationship": {
			func(w *world) { clear(w.nodes[market].spire.relationships) },
			[]string{"cluster1.com->cluster2.com: the server of cluster1.com has no relationship with cluster2.com: nothing will refresh its bundle; the controller manager has not made it of ClusterFederatedTrustDomain cluster2.com yet"},
		},
		"no bundle": {
			func(w *world) { clear(w.nodes[market].spire.held) },
			[]string{"cluster1.com->cluster2.com: missing: lacks JWT authority jwt-of-cluster2.com, lacks X.509 authority KEY"},
		},
		"a bundle that is behind": {
			func(w *world) {
				for _, b := range w.nodes[broker].spire.held {
					b.RemoveJWTAuthority("jwt-of-cluster1.com")
				}
			},
			[]string{"cluster2.com->cluster1.com: behind: lacks JWT authority jwt-of-cluster1.com"},
		},
		"no entry": {
			func(w *world) { clear(w.nodes[market].spire.entries) },
			[]string{"stock-quotes: no entry has the SPIFFE ID spiffe://cluster1.com/server: the workload gets no identity"},
		},
		"an entry that does not federate": {
			func(w *world) { w.nodes[broker].spire.entries["spiffe://cluster2.com/client"] = nil },
			[]string{
				"cluster2.com->cluster1.com: the entry of spiffe://cluster2.com/client does not federate with cluster1.com: the workload does not get its bundle",
				"broker-webapp: the entry of spiffe://cluster2.com/client does not federate with cluster1.com: the workload does not get its bundle",
			},
		},
		"a workload does not run": {
			func(w *world) {
				w.nodes[market].release("stock-quotes").broken = "0 of 1 pods are ready: ImagePullBackOff"
			},
			[]string{"stock-quotes: 0 of 1 pods are ready: ImagePullBackOff"},
		},
		"an SVID of an authority that was revoked, at a webhook": {
			func(w *world) { w.nodes[market].spire.staleWebhook = true },
			[]string{`cluster1.com: the webhook of its controller manager: it presents an X509-SVID that the bundle of cluster1.com does not verify (x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority (possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "cluster1.com")): the next up starts the pod of the server again, and that replaces it`},
		},
		"the published bundle is gone": {
			func(w *world) { delete(w.nodes[market].objects, bundleKey(topology.ServerNamespace)) },
			[]string{"cluster1.com: " + unpublished + "is not there: the next up restores it"},
		},
		"the published bundle is empty, and an agent waits for it": {
			func(w *world) {
				w.nodes[market].spillBundle("")
				w.nodes[market].spire.hung = true
			},
			[]string{"cluster1.com: " + unpublished + "has no bundle.crt: the next up restores it\n0 of 1 pods are ready: ContainerCreating"},
		},
		"the published bundle is none": {
			func(w *world) { w.nodes[market].spillBundle("none") },
			[]string{"cluster1.com: " + unpublished + `cannot be read (read certificates: no PEM block "CERTIFICATE"): the next up restores it`},
		},
		"the published bundle is another one": {
			func(w *world) { w.nodes[market].spillBundle(string(pki.Marshal(w.nodes[broker].spire.root))) },
			[]string{"cluster1.com: " + unpublished + "has other X.509 authorities than the server: the next up restores it"},
		},
		"the published bundle comes a little later": {
			func(w *world) {
				server := w.nodes[market].spire
				delete(w.nodes[market].objects, bundleKey(topology.ServerNamespace))
				time.AfterFunc(federation.EndpointBound()/2, func() {
					w.mu.Lock()
					defer w.mu.Unlock()
					server.publish()
				})
			},
			nil,
		},
		"SVIDs of an authority that was revoked, at a port": {
			func(w *world) { w.nodes[market].spire.stale = true },
			[]string{`stock-quotes: it presents an X509-SVID that the bundle of cluster1.com does not verify (x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority (possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "cluster1.com")): the next up starts the agents of cluster market again, and that replaces it`},
		},
		"SVIDs of an authority that was revoked, behind a page": {
			func(w *world) { w.nodes[broker].spire.stale = true },
			[]string{"broker-webapp: it presents an X509-SVID that the bundle of cluster2.com does not verify: the next up starts the agents of cluster broker again, and that replaces it"},
		},
		"a page does not answer": {
			func(w *world) { w.fault = once("Page", fail) },
			[]string{"broker-webapp: Page: injected fault"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				tt.spoil(w)
				s, err := d.Status(t.Context(), quotes(t))
				if err != nil {
					t.Fatal(err)
				}
				if s.Well != (len(tt.want) == 0) {
					t.Errorf("well is %t", s.Well)
				}
				if got := problems(s); !slices.EqualFunc(got, tt.want, same) {
					t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
			})
		})
	}
}

// TestStatusNamesTheDatastore: the server that needs it would be the second thing
// to look at.
func TestStatusNamesTheDatastore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, enterprise(t)); err != nil {
			t.Fatal(err)
		}
		w.nodes[nodeName{"enterprise", "aws"}].release(spire.DatabaseRelease).broken = "scaled to no pod"
		s, err := d.Status(t.Context(), enterprise(t))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := s.TrustDomains[0].Problem, "its datastore: scaled to no pod"; got != want {
			t.Errorf("%s is not well: %q, want %q", s.TrustDomains[0].Name, got, want)
		}
		for _, td := range s.TrustDomains[1:] {
			if !td.Well {
				t.Errorf("%s is not well: %s", td.Name, td.Problem)
			}
		}
	})
}

// same compares a problem with a wanted one, in which KEY stands for any key and
// TIME for any time.
func same(got, want string) bool {
	pattern := strings.NewReplacer("KEY", "[0-9a-f]+", "TIME", `[0-9TZ:.-]+`).Replace(regexp.QuoteMeta(want))
	return regexp.MustCompile("^" + pattern + "$").MatchString(got)
}

// problems lists what is not well, each with the name of its part.
func problems(s lab.Status) []string {
	var list []string
	add := func(name string, h lab.Health) {
		if h.Well != (h.Problem == "") {
			list = append(list, fmt.Sprintf("%s: well %t and problem %q do not agree", name, h.Well, h.Problem))
		} else if !h.Well {
			list = append(list, name+": "+h.Problem)
		}
	}
	for _, x := range s.Clusters {
		add(x.Name, x.Health)
	}
	for _, x := range s.TrustDomains {
		add(x.Name, x.Health)
	}
	for _, x := range s.Relationships {
		add(x.Truster+"->"+x.Trusted, x.Health)
	}
	for _, x := range s.Workloads {
		add(x.Name, x.Health)
	}
	return list
}

// TestStatusEachCallFailing: whatever cannot be asked, the lab is not said to be
// well, and the cause is told.
func TestStatusEachCallFailing(t *testing.T) {
	var calls []string
	status := func(t *testing.T, fault func(string) verdict) (*world, lab.Status, error) {
		t.Helper()
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		w.calls, w.fault = nil, fault
		s, err := d.Status(t.Context(), quotes(t))
		return w, s, err
	}
	synctest.Test(t, func(t *testing.T) {
		w, s, err := status(t, nil)
		if err != nil || !s.Well {
			t.Fatalf("well %t, error %v", s.Well, err)
		}
		distinct := map[string]bool{}
		for _, c := range w.calls {
			distinct[c] = true
		}
		calls = slices.Sorted(maps.Keys(distinct))
	})
	for _, call := range calls {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, s, err := status(t, once(call, fail))
				said := fmt.Sprint(err) + strings.Join(problems(s), "\n")
				if err == nil && s.Well || !strings.Contains(said, call+": injected fault") {
					t.Errorf("well %t, and it says:\n%s", s.Well, said)
				}
			})
		})
	}
}

func TestStatusInterrupted(t *testing.T) {
	interrupts(t, func(call string) bool { return strings.HasPrefix(call, "SPIRE") }, func(ctx context.Context, d *lab.Driver) error {
		_, err := d.Status(ctx, quotes(t))
		return err
	})
}

// TestStatusNamesCauses makes each fault of a relationship that has a name, where
// it can be made with https_spiffe and with https_web.
func TestStatusNamesCauses(t *testing.T) {
	gcp, onprem := spiffeid.RequireTrustDomainFromString("gcp.company.com"), spiffeid.RequireTrustDomainFromString("onprem.company.com")
	for name, tt := range map[string]struct {
		file  labFile
		spoil func(t *testing.T, w *world, server func(cluster string) *spireServer)
		want  []string
	}{
		"no relationship": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				delete(server("aws").relationships, gcp)
			},
			[]string{"aws.company.com->gcp.company.com: no relationship: the server of aws.company.com has no relationship with gcp.company.com: nothing will refresh its bundle; the controller manager has not made it of ClusterFederatedTrustDomain gcp.company.com yet"},
		},
		"nobody listens": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				server("aws").relationships[gcp].url = "https://10.192.2.1:9999"
			},
			[]string{"aws.company.com->gcp.company.com: endpoint unreachable: aws does not get through to the bundle endpoint https://10.192.2.1:9999: connection refused"},
		},
		"no way there": {
			company(),
			func(_ *testing.T, w *world, _ func(string) *spireServer) {
				w.fault = func(call string) verdict {
					if strings.HasPrefix(call, "Peers.Get from gcp of ") {
						return fail
					}
					return pass
				}
			},
			[]string{
				"gcp.company.com->aws.company.com: endpoint unreachable: gcp does not get through to the bundle endpoint https://10.192.1.1:8443: Peers.Get from gcp of 10.192.1.1: injected fault",
				"gcp.company.com->onprem.company.com: endpoint unreachable: gcp does not get through to the bundle endpoint https://10.192.3.1:8443: Peers.Get from gcp of 10.192.3.1: injected fault",
			},
		},
		"an endpoint that hangs": {
			company(federated("from: aws.company.com, to: gcp.company.com")),
			func(_ *testing.T, _ *world, server func(string) *spireServer) { server("gcp").hangs = true },
			[]string{"aws.company.com->gcp.company.com: endpoint unreachable: asked from aws, https://10.192.2.1:8443 takes requests and has not answered within 1s"},
		},
		"https_web where it is https_spiffe": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				server("aws").relationships[gcp].profile = topology.HTTPSWeb
			},
			[]string{"aws.company.com->gcp.company.com: wrong profile: the relationship is https_web, and the endpoint shows the X509-SVID of spiffe://gcp.company.com/spire/server, as with https_spiffe"},
		},
		"https_spiffe where it is https_web": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				r := server("aws").relationships[onprem]
				r.profile, r.endpointID = topology.HTTPSSPIFFE, "spiffe://onprem.company.com/spire/server"
			},
			[]string{"aws.company.com->onprem.company.com: wrong profile: the relationship is https_spiffe, and the endpoint shows a certificate without SPIFFE ID, as with https_web"},
		},
		"another endpoint SPIFFE ID": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				server("aws").relationships[gcp].endpointID = "spiffe://gcp.company.com/bundle"
			},
			[]string{"aws.company.com->gcp.company.com: wrong endpointSPIFFEID: the relationship wants spiffe://gcp.company.com/bundle, and the endpoint shows spiffe://gcp.company.com/spire/server"},
		},
		"another root with https_spiffe": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				server("aws").held[gcp] = spiffebundle.FromX509Authorities(gcp, []*x509.Certificate{server("aws").root})
			},
			[]string{"aws.company.com->gcp.company.com: unknown root: what the bundle endpoint shows is not accepted: x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority"},
		},
		"another root with https_web": {
			company(),
			func(t *testing.T, w *world, _ func(string) *spireServer) {
				t.Helper()
				other, err := pki.NewRoot("of nobody", time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				key := access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: topology.ServerNamespace, Name: spire.WebRootsConfigMap}
				w.nodes[nodeName{"company", "aws"}].objects[key] = string(encode(map[string]any{"data": map[string]string{"roots.pem": string(other.CertificatePEM())}}))
			},
			[]string{"aws.company.com->onprem.company.com: unknown root: what the bundle endpoint shows is not accepted: x509: certificate signed by unknown authority"},
		},
		"an SVID that has expired": {
			company(),
			func(t *testing.T, _ *world, server func(string) *spireServer) {
				t.Helper()
				svid, err := server("gcp").svidUntil(spire.ServerID(gcp), time.Now().Add(-time.Second))
				if err != nil {
					t.Fatal(err)
				}
				server("gcp").shown = svid.Certificates
			},
			[]string{
				"aws.company.com->gcp.company.com: expired certificate: what the bundle endpoint shows is not accepted: x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet valid: current time TIME is after TIME",
				"onprem.company.com->gcp.company.com: expired certificate: what the bundle endpoint shows is not accepted: x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet valid: current time TIME is after TIME",
			},
		},
		"a serving certificate that has expired": {
			company(),
			func(t *testing.T, _ *world, server func(string) *spireServer) {
				t.Helper()
				server("onprem").showServingCert(t, "10.192.3.1", -time.Minute)
			},
			[]string{
				"aws.company.com->onprem.company.com: expired certificate: what the bundle endpoint shows is not accepted: x509: certificate has expired or is not yet valid: current time TIME is after TIME",
				"gcp.company.com->onprem.company.com: expired certificate: what the bundle endpoint shows is not accepted: x509: certificate has expired or is not yet valid: current time TIME is after TIME",
			},
		},
		"a serving certificate for another address": {
			company(),
			func(t *testing.T, _ *world, server func(string) *spireServer) {
				t.Helper()
				server("onprem").showServingCert(t, "10.192.3.9", time.Hour)
			},
			[]string{
				"aws.company.com->onprem.company.com: misnamed certificate: what the bundle endpoint shows is not accepted: x509: certificate is valid for 10.192.3.9, not 10.192.3.1",
				"gcp.company.com->onprem.company.com: misnamed certificate: what the bundle endpoint shows is not accepted: x509: certificate is valid for 10.192.3.9, not 10.192.3.1",
			},
		},
		"no bundle with https_spiffe": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) { delete(server("aws").held, gcp) },
			[]string{"aws.company.com->gcp.company.com: missing bundle: missing: lacks JWT authority jwt-of-gcp.company.com, lacks X.509 authority KEY"},
		},
		"no bundle with https_web": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) { delete(server("gcp").held, onprem) },
			[]string{"gcp.company.com->onprem.company.com: missing bundle: missing: lacks JWT authority jwt-of-onprem.company.com, lacks X.509 authority KEY"},
		},
		"a bundle that is behind": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				server("aws").held[onprem].RemoveJWTAuthority("jwt-of-onprem.company.com")
			},
			[]string{"aws.company.com->onprem.company.com: differing bundle: behind: lacks JWT authority jwt-of-onprem.company.com"},
		},
		"a bundle that is behind, by hand": {
			company(federated("shape: mesh, mode: manual")),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				server("aws").held[onprem].RemoveJWTAuthority("jwt-of-onprem.company.com")
			},
			[]string{"aws.company.com->onprem.company.com: differing bundle: behind: lacks JWT authority jwt-of-onprem.company.com; nothing refreshes it but another exchange, such as the next up"},
		},
		"no bundle, by hand": {
			company(federated("shape: mesh, mode: manual")),
			func(_ *testing.T, _ *world, server func(string) *spireServer) { delete(server("onprem").held, gcp) },
			[]string{"onprem.company.com->gcp.company.com: missing bundle: missing: lacks JWT authority jwt-of-gcp.company.com, lacks X.509 authority KEY; nothing refreshes it but another exchange, such as the next up"},
		},
		"an entry without federatesWith": {
			company(),
			func(_ *testing.T, _ *world, server func(string) *spireServer) {
				server("onprem").entries["spiffe://onprem.company.com/gateway/edge/onprem"] = []string{"gcp.company.com"}
			},
			[]string{"onprem.company.com->aws.company.com: entry without federatesWith: the entry of spiffe://onprem.company.com/gateway/edge/onprem does not federate with aws.company.com: the workload does not get its bundle"},
		},
		"a server that does not answer": {
			company(),
			func(_ *testing.T, w *world, _ func(string) *spireServer) {
				w.nodes[nodeName{"company", "aws"}].release("spire-database").broken = "0 of 1 pods are ready: CrashLoopBackOff"
			},
			[]string{
				"aws.company.com->gcp.company.com: server does not answer: the server of aws.company.com does not answer",
				"gcp.company.com->aws.company.com: server does not answer: the server of aws.company.com does not answer",
				"aws.company.com->onprem.company.com: server does not answer: the server of aws.company.com does not answer",
				"onprem.company.com->aws.company.com: server does not answer: the server of aws.company.com does not answer",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, tt.file.topology(t)); err != nil {
					t.Fatal(err)
				}
				tt.spoil(t, w, func(cluster string) *spireServer { return w.nodes[nodeName{"company", cluster}].spire })
				s, err := d.Status(t.Context(), tt.file.topology(t))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, r := range s.Relationships {
					if !r.Well {
						got = append(got, fmt.Sprintf("%s->%s: %s: %s", r.Truster, r.Trusted, r.Cause, r.Problem))
					}
				}
				if s.Well || !slices.EqualFunc(got, tt.want, same) {
					t.Errorf("well %t, problems\n%s\nwant\n%s", s.Well, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
			})
		})
	}
}

// showServingCert makes the endpoint show a certificate of its web CA that is not
// the right one.
func (s *spireServer) showServingCert(t *testing.T, address string, ttl time.Duration) {
	t.Helper()
	var err error
	if s.shown, err = s.servingCert([]string{address}, ttl); err != nil {
		t.Fatal(err)
	}
}
