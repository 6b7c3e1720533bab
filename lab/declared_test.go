package lab_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// registering is a lab with a prefix in market, and these registrations. Its workload in
// market is stock-quotes, and its agent the one of the world.
func registering(t *testing.T, registrations ...string) topology.Topology {
	t.Helper()
	file := `
apiVersion: fedlab.dev/v1alpha1
kind: Lab
metadata: {name: quotes}
spec:
  clusters: [{name: market, trustDomain: cluster1.com}, {name: broker, trustDomain: cluster2.com}]
  hosts: [{name: partner, trustDomain: partner.test}]
  trustDomains: [{name: cluster1.com, entryPrefix: lab}]
  federation: [{between: [cluster1.com, cluster2.com]}]
  workloads:
    - {app: stock-quotes, cluster: market}
    - {name: partner-quotes, app: stock-quotes, host: partner}
`
	if len(registrations) > 0 {
		file += "  registrations: [{" + strings.Join(registrations, "}, {") + "}]\n"
	}
	return topologyOf(t, file)
}

const (
	parentAgent  = `parentID: "spiffe://cluster1.com/spire/agent/k8s_psat/market/node"`
	nodesEntry   = `name: nodes, trustDomain: cluster1.com, entry: {spiffeID: "spiffe://cluster1.com/nodes", ` + parentAgent + `, selectors: ["k8s:ns:nobody"]}`
	belowNodes   = `name: below, trustDomain: cluster1.com, entry: {spiffeID: "spiffe://cluster1.com/below", parentID: "spiffe://cluster1.com/nodes", selectors: ["k8s:ns:demo"], hint: external, x509SVIDTTL: 5m, dnsNames: [quotes.demo.svc]}`
	staticEntry1 = `name: static, trustDomain: cluster1.com, clusterStaticEntry: {spiffeID: "spiffe://cluster1.com/static", ` + parentAgent + `, selectors: ["k8s:sa:server-service-account"], x509SVIDTTL: 5m, dnsNames: [static.demo.svc], federatesWith: [cluster2.com]}`
	podsOfDemo   = `name: pods, trustDomain: cluster1.com, clusterSPIFFEID: {spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/pods/{{ .PodMeta.Namespace }}", podSelector: {matchLabels: {app.kubernetes.io/name: stock-quotes}}, hint: pods}`
	partnerEntry = `name: partner, trustDomain: partner.test, entry: {spiffeID: "spiffe://partner.test/program", parentID: "spiffe://partner.test/spire/server", selectors: ["unix:uid:1000"]}`
)

// registered brings the registrations of the tests up, in a world of its own.
func registered(t *testing.T, do func(t *testing.T, w *world, d *lab.Driver, top topology.Topology)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := registering(t, nodesEntry, belowNodes, staticEntry1, podsOfDemo, partnerEntry)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		do(t, w, d, top)
	})
}

// registrationsOf returns what status says of each registration.
func registrationsOf(t *testing.T, d *lab.Driver, top topology.Topology) (lines []string, s lab.Status) {
	t.Helper()
	s, err := d.Status(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Registrations {
		lines = append(lines, strings.TrimSuffix(fmt.Sprintf("%s %s%s held by %q: %s", r.Name, r.Cluster, r.Host, r.HeldBy, r.Problem), ": "))
	}
	return lines, s
}

// TestRegistrations: what the file registers is there, is well, stays with the next up, and
// goes when the file drops it. What somebody else has made by hand stays.
func TestRegistrations(t *testing.T) {
	t.Parallel()
	registered(t, func(t *testing.T, w *world, d *lab.Driver, top topology.Topology) {
		t.Helper()
		lines, s := registrationsOf(t, d, top)
		want := []string{
			`nodes market held by []`,
			`below market held by ["pod demo/stock-quotes-0"]`,
			`static market held by ["pod demo/stock-quotes-0"]`,
			`pods market held by ["pod demo/stock-quotes-0"]`,
			`partner partner held by []`,
		}
		if !slices.Equal(lines, want) || !s.Well {
			t.Errorf("well %t, problems %q, status says\n%s\nwant\n%s", s.Well, s.Problems(), strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
		market := w.nodes[nodeName{"quotes", "market"}].spire
		byHand := &types.Entry{
			Id: "12c07f5f-8629", SpiffeId: &types.SPIFFEID{TrustDomain: "cluster1.com", Path: "/by-hand"}, ParentId: &types.SPIFFEID{TrustDomain: "cluster1.com", Path: "/nodes"},
			Selectors: []*types.Selector{{Type: "k8s", Value: "sa:other"}},
		}
		if answer := market.createPlain(byHand); answer.Code != 0 {
			t.Fatal(answer.Message)
		}
		w.wantNoop(t, d, top)
		// Whoever has no file has the registrations from the cluster.
		if told, err := d.Topology(t.Context(), "quotes"); err != nil || !reflect.DeepEqual(told.Registrations, top.Registrations) {
			t.Errorf("error %v, the cluster says %+v, want %+v", err, told.Registrations, top.Registrations)
		}

		if err := w.up(t, d, registering(t)); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, line := range strings.Split(w.dump(), "\n") {
			if strings.Contains(line, "by its ID") || strings.Contains(line, "cluster1.com/static") || strings.Contains(line, "cluster1.com/pods") || strings.Contains(line, "ClusterStaticEntry static") {
				left = append(left, line)
			}
		}
		if len(left) != 1 || !strings.Contains(left[0], "12c07f5f-8629") {
			t.Errorf("left is\n%s", strings.Join(left, "\n"))
		}
	})
}

// TestRegistrationsAreRepaired: what somebody has done to a registration is seen by status,
// and the next up repairs it.
func TestRegistrationsAreRepaired(t *testing.T) {
	resource := func(kind, name string) access.ObjectKey {
		return access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: kind, Name: name}
	}
	for name, tt := range map[string]struct {
		spoil func(n *node)
		says  string
	}{
		"an entry is gone":                 {func(n *node) { delete(n.spire.plain, "fedlab.nodes") }, "registration nodes: the server has no entry fedlab.nodes: the next up makes it"},
		"an entry has a hint":              {func(n *node) { n.spire.plain["fedlab.nodes"].Hint = "mine" }, "registration nodes: entry fedlab.nodes is not as the file has it: the next up restores it"},
		"an entry lost its life":           {func(n *node) { n.spire.plain["fedlab.below"].X509SvidTtl = 0 }, "registration below: entry fedlab.below is not as the file has it: the next up restores it"},
		"an entry lost its names":          {func(n *node) { n.spire.plain["fedlab.below"].DnsNames = nil }, "registration below: entry fedlab.below is not as the file has it: the next up restores it"},
		"an entry lets its bearers do all": {func(n *node) { n.spire.plain["fedlab.below"].Admin = true }, "registration below: entry fedlab.below is not as the file has it: the next up restores it"},
		"a resource of pods is gone": {func(n *node) {
			delete(n.objects, resource("ClusterSPIFFEID", "pods"))
			n.spire.register()
		}, "registration pods: there is no ClusterSPIFFEID pods: the next up makes it"},
		"a static entry is gone": {func(n *node) {
			delete(n.objects, resource("ClusterStaticEntry", "static"))
			n.spire.register()
		}, "registration static: there is no ClusterStaticEntry static: the next up makes it"},
		"a resource has another class": {func(n *node) { n.classify("pods") }, "registration pods: ClusterSPIFFEID pods is not as the file has it: the next up restores it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registered(t, func(t *testing.T, w *world, d *lab.Driver, top topology.Topology) {
				t.Helper()
				before := w.dump()
				tt.spoil(w.nodes[nodeName{"quotes", "market"}])
				if _, s := registrationsOf(t, d, top); s.Well || !slices.Contains(s.Problems(), tt.says) {
					t.Errorf("well %t, problems\n%s\nwant %s", s.Well, strings.Join(s.Problems(), "\n"), tt.says)
				}
				if err := w.up(t, d, top); err != nil {
					t.Fatal(err)
				}
				if _, s := registrationsOf(t, d, top); !s.Well {
					t.Errorf("after up: problems %q", s.Problems())
				}
				w.want(t, before)
			})
		})
	}
}

// TestRegistrationsThatComeToNothing: selectors that nobody has are well, and told; a parent
// that is nobody, and what the controller manager says of a resource, is not.
func TestRegistrationsThatComeToNothing(t *testing.T) {
	const orphan = `name: orphan, trustDomain: cluster1.com, entry: {spiffeID: "spiffe://cluster1.com/orphan", parentID: "spiffe://cluster1.com/nobody", selectors: ["k8s:ns:demo"]}`
	const narrow = `name: narrow, trustDomain: cluster1.com, entry: {spiffeID: "spiffe://cluster1.com/narrow", ` + parentAgent + `, selectors: ["k8s:ns:demo", "k8s:sa:other"]}`
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := registering(t, orphan, narrow, podsOfDemo)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		lines, _ := registrationsOf(t, d, top)
		want := []string{
			`orphan market held by []: its parent spiffe://cluster1.com/nobody is no agent that has attested, and no entry that such an agent is given: nobody gets the identity`,
			`narrow market held by []`,
			`pods market held by ["pod demo/stock-quotes-0"]`,
		}
		if !slices.Equal(lines, want) {
			t.Errorf("status says\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
		w.nodes[nodeName{"quotes", "market"}].editOwn("pods", stats("entriesMasked", 1))
		if _, s := registrationsOf(t, d, top); !slices.Contains(s.Problems(), "registration pods: 1 of its entries are passed over: an older resource asks for the same") || len(s.Resources) != 1 || strings.Contains(s.Resources[0].Problem, "passed over") {
			t.Errorf("problems %q, resources %+v", s.Problems(), s.Resources)
		}
	})
}

// TestRegistrationsThatBecomeOthers: the same entry by another name, or in another form, is
// one that the server has already.
func TestRegistrationsThatBecomeOthers(t *testing.T) {
	const fields = `{spiffeID: "spiffe://cluster1.com/nodes", ` + parentAgent + `, selectors: ["k8s:ns:nobody"]}`
	forms := []string{"name: nodes, trustDomain: cluster1.com, entry: ", "name: others, trustDomain: cluster1.com, entry: ", "name: nodes, trustDomain: cluster1.com, clusterStaticEntry: ", "name: others, trustDomain: cluster1.com, clusterStaticEntry: "}
	for i, from := range forms {
		for j, to := range forms {
			if i == j {
				continue
			}
			t.Run(fmt.Sprintf("%d to %d", i, j), func(t *testing.T) {
				t.Parallel()
				want := fresh(t, registering(t, to+fields), (*world).dump)
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := w.driver(t)
					for _, form := range []string{from, to, to} {
						if err := w.up(t, d, registering(t, form+fields)); err != nil {
							t.Fatal(err)
						}
					}
					w.want(t, want)
				})
			})
		}
	}
}

// TestRegistrationRefusesARival: an entry of somebody else is not taken away, and up says
// which one it is.
func TestRegistrationRefusesARival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, registering(t)); err != nil {
			t.Fatal(err)
		}
		rival := &types.Entry{
			Id: "12c07f5f-8629", SpiffeId: &types.SPIFFEID{TrustDomain: "cluster1.com", Path: "/nodes"},
			ParentId: &types.SPIFFEID{TrustDomain: "cluster1.com", Path: "/spire/agent/k8s_psat/market/node"}, Selectors: []*types.Selector{{Type: "k8s", Value: "ns:nobody"}},
		}
		if answer := w.nodes[nodeName{"quotes", "market"}].spire.createPlain(rival); answer.Code != 0 {
			t.Fatal(answer.Message)
		}
		const want = "entry 12c07f5f-8629 has the same SPIFFE ID, parent and selectors, and a server has such an entry once; delete it with 'fedlab spire cluster1.com -- entry delete -entryID 12c07f5f-8629'"
		if err := w.up(t, d, registering(t, nodesEntry)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %s", err, want)
		}
		if _, s := registrationsOf(t, d, registering(t, nodesEntry)); !slices.Contains(s.Problems(), "registration nodes: "+want) {
			t.Errorf("problems %q", s.Problems())
		}
	})
}

// TestUpEndsWhereAStaticEntryIsOutranked: an older resource that asks for the same entry is
// somebody else's, and stays. Waiting for it to go does not help.
func TestUpEndsWhereAStaticEntryIsOutranked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := registering(t, staticEntry1)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		n := w.nodes[nodeName{"quotes", "market"}]
		key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterStaticEntry", Name: "static"}
		object := decode[map[string]any](n.objects[key])
		object["status"] = map[string]any{"rendered": true, "masked": true}
		n.objects[key] = string(encode(object))
		n.add("ClusterStaticEntry", "elder", object["spec"], map[string]any{"rendered": true})
		const want = "ClusterStaticEntry elder asks for the same entry and is older, so that the controller manager passes over the one of the lab; delete it"
		if _, s := registrationsOf(t, d, top); !slices.Contains(s.Problems(), "registration static: "+want) {
			t.Errorf("problems %q", s.Problems())
		}
		began := time.Now()
		if err := w.up(t, d, top); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %s", err, want)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it waited %s", took)
		}
	})
}

// TestEntryPrefixStays: a manager with another prefix would leave the entries of before.
func TestEntryPrefixStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := registering(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		top.TrustDomains = slices.Clone(top.TrustDomains)
		for prefix, want := range map[string]string{"": "the entryPrefix of cluster market is lab, and the file asks for none", "other": "the entryPrefix of cluster market is lab, and the file asks for other"} {
			top.TrustDomains[0].EntryPrefix = prefix
			if err := w.up(t, d, top); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one that says %s", err, want)
			}
		}
	})
}

// A manager without a prefix is why a lab file has none of these entries there.
func TestPlainEntriesGoWithoutPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, registering(t)); err != nil {
			t.Fatal(err)
		}
		for cluster, stays := range map[string]bool{"market": true, "broker": false} {
			s := w.nodes[nodeName{"quotes", cluster}].spire
			s.createPlain(&types.Entry{Id: "12c07f5f-8629", SpiffeId: &types.SPIFFEID{Path: "/x"}, ParentId: &types.SPIFFEID{Path: "/y"}})
			if _, there := s.plain["12c07f5f-8629"]; there != stays {
				t.Errorf("in %s it stays: %t", cluster, there)
			}
		}
	})
}
