package lab_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// ownKey is the resource by which cluster2.com trusts cluster1.com.
var ownKey = access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind, Name: "cluster1.com"}

// edit changes the lab's own resource in the cluster of the broker, as a person
// would, and gives it another name and labels where those are not empty.
func (w *world) edit(t *testing.T, change func(*spire.FederatedTrustDomainSpec), name string, labels map[string]string) {
	t.Helper()
	n := w.nodes[nodeName{"quotes", "broker"}]
	spec := specOf[spire.FederatedTrustDomainSpec](n.objects[ownKey])
	change(&spec)
	resource := spire.Resource{APIVersion: ownKey.APIVersion, Kind: ownKey.Kind, Metadata: spire.Metadata{Name: name, Labels: labels}, Spec: spec}
	if name == "" {
		resource.Metadata = spire.Metadata{Name: ownKey.Name, Labels: spire.Owned()}
	} else if err := (objects{n}).Delete(t.Context(), ownKey); err != nil {
		t.Fatal(err)
	}
	if _, err := (objects{n}).Apply(t.Context(), resource); err != nil {
		t.Fatal(err)
	}
}

// TestResourcesThatAPersonChanged changes what makes the one relationship with
// cluster1.com. Status and up say the same of it: both find nothing wrong, or
// status has the cause and up puts it right, or up ends at once and says what to
// do.
func TestResourcesThatAPersonChanged(t *testing.T) {
	const (
		noRelationship = "no relationship: the server of cluster2.com has no relationship with cluster1.com: nothing will refresh its bundle"
		noWay          = "broker does not get through to the bundle endpoint https://10.192.1.1:9999: connection refused"
		partners       = "; its server follows ClusterFederatedTrustDomain partner, which is not the lab's own"
		theirs         = `it has the class "theirs", and no controller manager of the cluster serves that: nothing comes of it`
	)
	url := func(text string) func(*spire.FederatedTrustDomainSpec) {
		return func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointURL = text }
	}
	for name, tt := range map[string]struct {
		change func(*spire.FederatedTrustDomainSpec)
		// name is that of a resource in the place of the lab's own.
		name   string
		labels map[string]string
		// status is what is said of the relationship, resources what is listed.
		status    string
		resources []string
		// up is how up ends, and note what it says that it does.
		up, note string
		// stays: the resource is as before.
		stays bool
	}{
		"the trust domain with its scheme": {
			change: func(s *spire.FederatedTrustDomainSpec) { s.TrustDomain = "spiffe://cluster1.com" }, stays: true,
		},
		"a name that the DNS of the cluster knows":              {change: url("https://endpoint.test:8443"), stays: true},
		"a name that only the search list of a pod makes whole": {change: url("https://market:8443/"), stays: true},
		"a name that nobody knows": {
			change: url("https://nowhere.test:8443"),
			status: "endpoint unreachable: https://nowhere.test:8443: the DNS of cluster broker knows no address of nowhere.test (NameError)",
			note:   "ClusterFederatedTrustDomain cluster1.com is not as it should be: https://nowhere.test:8443: the DNS of cluster broker knows no address of nowhere.test (NameError): writes it again",
		},
		"a path": {
			change: url("https://10.192.1.1:8443/bundle"),
			status: "no bundle served: https://10.192.1.1:8443/bundle answers 404 Not Found: a SPIRE server serves its bundle at the path / only",
			note:   "ClusterFederatedTrustDomain cluster1.com is not as it should be: https://10.192.1.1:8443/bundle answers 404 Not Found: a SPIRE server serves its bundle at the path / only: writes it again",
		},
		"another port": {
			change: url("https://10.192.1.1:9999"),
			status: "endpoint unreachable: " + noWay,
			note:   "ClusterFederatedTrustDomain cluster1.com is not as it should be: " + noWay + ": writes it again",
		},
		"a class": {
			change:    func(s *spire.FederatedTrustDomainSpec) { s.ClassName = "theirs" },
			status:    noRelationship + "; the controller manager passes over ClusterFederatedTrustDomain cluster1.com: " + theirs,
			resources: []string{"broker ClusterFederatedTrustDomain cluster1.com: " + theirs},
			note:      "ClusterFederatedTrustDomain cluster1.com is not as it should be: " + theirs + ": writes it again",
		},
		"another resource with another port": {
			change: url("https://10.192.1.1:9999"), name: "partner",
			status: "endpoint unreachable: " + noWay + partners,
			up: "federate/cluster2.com->cluster1.com: " + noWay +
				"; the server of cluster2.com follows ClusterFederatedTrustDomain partner, which is not the lab's own: correct it, or delete it with 'kubectl --context kind-quotes-broker delete clusterfederatedtrustdomain partner', and run up again",
			stays: true,
		},
		"another resource that works": {change: url("https://endpoint.test:8443"), name: "partner", stays: true},
		"another resource with fedlab's label": {
			change: url("https://10.192.1.1:9999"), name: "partner", labels: spire.Owned(),
			status: "endpoint unreachable: " + noWay + partners,
			note:   "ClusterFederatedTrustDomain partner stands in the way of the lab's own in cluster broker: removes it",
		},
		"another resource with a class": {
			change: func(s *spire.FederatedTrustDomainSpec) { s.ClassName = "theirs" }, name: "partner",
			status:    noRelationship + "; the controller manager passes over ClusterFederatedTrustDomain partner: " + theirs,
			resources: []string{"broker ClusterFederatedTrustDomain partner: " + theirs},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				market := netip.MustParseAddr("10.192.1.1")
				w.names = map[string]netip.Addr{"endpoint.test": market, "market": market, "market.spire-system.svc.cluster.local": market}
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				before := w.dump()
				w.edit(t, tt.change, tt.name, tt.labels)
				// The server fetches from where it is told to.
				<-time.After(time.Second) // of the bubble
				s, err := d.Status(t.Context(), quotes(t))
				if err != nil {
					t.Fatal(err)
				}
				edited := w.dump()
				if got := saysOf(s, "cluster2.com", "cluster1.com"); got != tt.status || s.Well != (tt.status == "") {
					t.Errorf("well %t, status says\n%s\nwant\n%s", s.Well, got, tt.status)
				}
				var listed []string
				for _, r := range s.Resources {
					listed = append(listed, fmt.Sprintf("%s %s %s: %s", r.Cluster, r.Kind, r.Name, r.Problem))
				}
				if !slices.Equal(listed, tt.resources) {
					t.Errorf("listed\n%s\nwant\n%s", strings.Join(listed, "\n"), strings.Join(tt.resources, "\n"))
				}
				if drift, err := d.Drift(t.Context(), quotes(t)); err != nil || tt.status == "" && !drift.Well {
					t.Errorf("error %v, drift %+v", err, drift.Held)
				}

				var notes []string
				d.Observe = func(e plan.Event) {
					if e.State == plan.Remarked && strings.HasPrefix(string(e.Step), "federate/") {
						notes = append(notes, e.Note)
					}
				}
				began := time.Now()
				err = w.up(t, d, quotes(t))
				if timeout := (*check.TimeoutError)(nil); errors.As(err, &timeout) || time.Since(began) > time.Minute {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
				if said := ""; err != nil {
					if said = err.Error(); said != tt.up {
						t.Errorf("up says\n%s\nwant\n%s", said, tt.up)
					}
				} else if tt.up != "" {
					t.Errorf("up ends well, want %s", tt.up)
				}
				if tt.note != "" && !slices.Contains(notes, tt.note) {
					t.Errorf("up notes %q, want %q", notes, tt.note)
				}
				switch {
				case tt.stays:
					w.want(t, edited)
				case tt.resources == nil || tt.name == "":
					w.want(t, before)
				}
			})
		})
	}
}

// saysOf is what status says of a relationship; empty where it is well.
func saysOf(s lab.Status, truster, trusted string) string {
	for _, r := range s.Relationships {
		if r.Truster == truster && r.Trusted == trusted && !r.Well {
			return fmt.Sprintf("%s: %s", r.Cause, r.Problem)
		}
	}
	return ""
}

// TestStatusListsWhatIsPassedOver: the lab does not need it, and is well.
func TestStatusListsWhatIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		n := w.nodes[nodeName{"quotes", "broker"}]
		own := specOf[spire.FederatedTrustDomainSpec](n.objects[ownKey])
		if _, err := (objects{n}).Apply(t.Context(), spire.Resource{
			APIVersion: ownKey.APIVersion, Kind: ownKey.Kind, Metadata: spire.Metadata{Name: "second"}, Spec: own,
		}); err != nil {
			t.Fatal(err)
		}
		s, err := d.Status(t.Context(), quotes(t))
		if err != nil || !s.Well {
			t.Fatalf("error %v, problems %q", err, problems(s))
		}
		want := []lab.ResourceStatus{
			{Cluster: "broker", Kind: "ClusterFederatedTrustDomain", Name: "second", Problem: "it is passed over: the older ClusterFederatedTrustDomain cluster1.com stands for cluster1.com, too, and counts"},
		}
		if !slices.Equal(s.Resources, want) {
			t.Errorf("listed %v, want %v", s.Resources, want)
		}
	})
}

// TestUpKeepsAPartner: both ways to write a trust domain mean the same one, and
// up waits for the removal of neither.
func TestUpKeepsAPartner(t *testing.T) {
	for _, written := range []string{"partner.test", "spiffe://partner.test"} {
		t.Run(written, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				n := w.nodes[nodeName{"quotes", "broker"}]
				bundle, err := n.spire.bundle().Marshal()
				if err != nil {
					t.Fatal(err)
				}
				_, err = objects{n}.Apply(t.Context(), spire.Resource{
					APIVersion: ownKey.APIVersion, Kind: ownKey.Kind, Metadata: spire.Metadata{Name: "partner"},
					Spec: spire.FederatedTrustDomainSpec{
						TrustDomain: written, BundleEndpointURL: "https://10.192.9.9:8443",
						BundleEndpointProfile: spire.EndpointProfile{Type: topology.HTTPSWeb}, TrustDomainBundle: string(bundle),
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				if n.spire.relationships[spiffeid.RequireTrustDomainFromString("partner.test")] == nil {
					t.Fatal("nothing was made of it")
				}
				made, began := w.dump(), time.Now()
				w.wantNoop(t, d, quotes(t))
				w.want(t, made)
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// TestUpDoesNotWaitForWhatNobodyMakes: somebody sets a class while up waits for
// the relationship.
func TestUpDoesNotWaitForWhatNobodyMakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		n := w.nodes[nodeName{"quotes", "broker"}]
		clear(n.spire.relationships)
		looks := 0
		w.fault = func(call string) verdict {
			if call == "SPIRE ListFederationRelationships in broker" {
				if looks++; looks == 5 {
					spec := specOf[spire.FederatedTrustDomainSpec](n.objects[ownKey])
					spec.ClassName = "theirs"
					n.objects[ownKey] = string(encode(spire.Resource{Metadata: spire.Metadata{Name: ownKey.Name}, Spec: spec}))
				}
			}
			return pass
		}
		began := time.Now()
		err := w.up(t, d, quotes(t))
		const want = `federate/cluster2.com->cluster1.com: wait until cluster2.com holds the bundle of cluster1.com: its server does not have the relationship; the controller manager passes over ClusterFederatedTrustDomain cluster1.com: it has the class "theirs", and no controller manager of the cluster serves that: nothing comes of it`
		if err == nil || !strings.Contains(err.Error(), want) || time.Since(began) > time.Minute {
			t.Errorf("after %s: %v, want %s", time.Since(began), err, want)
		}
	})
}

// TestEndpointWithAnotherAddress: MetalLB has not given the Service what it asks for.
// Both name it, and up ends at once where another Service has the address.
func TestEndpointWithAnotherAddress(t *testing.T) {
	for name, tt := range map[string]struct {
		ingress, other, want string
		atOnce               bool
	}{
		"another": {ingress: `[{"ip":"10.192.1.7"}]`, want: "; the Service spire-bundle-endpoint of cluster market has the address 10.192.1.7, and should have 10.192.1.1"},
		"none":    {ingress: `[]`, want: "; the Service spire-bundle-endpoint of cluster market has no address, and should have 10.192.1.1"},
		"taken": {
			ingress: `[]`, other: `[{"ip":"10.192.1.1"}]`, atOnce: true,
			want: "; the Service spire-bundle-endpoint of cluster market should have the address 10.192.1.1, and the Service theirs in the namespace shop has it: delete that one, or give it another address",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				serves := func(namespace, name, ingress string) {
					w.nodes[nodeName{"quotes", "market"}].objects[access.ObjectKey{APIVersion: "v1", Kind: "Service", Namespace: namespace, Name: name}] = fmt.Sprintf(
						`{"metadata":{"namespace":%q,"name":%q},"status":{"loadBalancer":{"ingress":%s}}}`, namespace, name, ingress)
				}
				serves(topology.ServerNamespace, spire.BundleEndpointService, tt.ingress)
				if tt.other != "" {
					serves("shop", "theirs", tt.other)
				}
				w.fault = always("Peers.Get from broker of 10.192.1.1", fail)
				s, err := d.Status(t.Context(), quotes(t))
				if got := saysOf(s, "cluster2.com", "cluster1.com"); err != nil || !strings.HasSuffix(got, tt.want) {
					t.Errorf("error %v; status says %s, want %s", err, got, tt.want)
				}
				if err := (objects{w.nodes[nodeName{"quotes", "broker"}]}).Delete(t.Context(), ownKey); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := w.up(t, d, quotes(t)); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("up says %v, want %s", err, tt.want)
				}
				if took := time.Since(began); took < time.Minute != tt.atOnce {
					t.Errorf("up ends after %s", took)
				}
			})
		})
	}
}

// misled are peers that meet another server at an address.
type misled struct {
	lab.Peers
	at, meet netip.AddrPort
}

func (p misled) Presented(ctx context.Context, name, cluster string, server netip.AddrPort) ([]*x509.Certificate, error) {
	if server == p.at {
		server = p.meet
	}
	return p.Peers.Presented(ctx, name, cluster, server)
}

// TestWorkloadWhoseAddressIsTaken: what another program shows at the address says
// nothing of the workload, and no agent is started again for it.
func TestWorkloadWhoseAddressIsTaken(t *testing.T) {
	const want = "the Service stock-quotes-service of cluster market should have the address 10.192.1.101, and the Service theirs in the namespace shop has it: delete that one, or give it another address"
	for name, shown := range map[string]string{"it shows nothing": "10.192.9.9:8090", "it shows the X509-SVID of another trust domain": "10.192.2.1:8443"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				market := w.nodes[nodeName{"quotes", "market"}].objects
				for of, ingress := range map[[2]string]string{{"demo", "stock-quotes-service"}: `[]`, {"shop", "theirs"}: `[{"ip":"10.192.1.101"}]`} {
					market[access.ObjectKey{APIVersion: "v1", Kind: "Service", Namespace: of[0], Name: of[1]}] = fmt.Sprintf(
						`{"metadata":{"namespace":%q,"name":%q},"status":{"loadBalancer":{"ingress":%s}}}`, of[0], of[1], ingress)
				}
				d.Parts.Peers = misled{d.Parts.Peers, netip.MustParseAddrPort("10.192.1.101:8090"), netip.MustParseAddrPort(shown)}
				s, err := d.Status(t.Context(), quotes(t))
				if got := strings.Join(s.Problems(), "\n"); err != nil || !strings.Contains(got, want) {
					t.Errorf("error %v; status says %s, want %s", err, got, want)
				}
				w.fault = func(call string) verdict {
					if call == "Objects.Delete Pod" {
						t.Error("a pod is deleted")
					}
					return pass
				}
				began := time.Now()
				if err := w.up(t, d, quotes(t)); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("up says %v, want %s", err, want)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("up ends after %s", took)
				}
			})
		})
	}
}
