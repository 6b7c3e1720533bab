package lab_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/metallb"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// add puts a resource of somebody else into a cluster, as the controller manager has
// left it.
func (n *node) add(kind, name string, spec, status any) {
	key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: kind, Name: name}
	n.objects[key] = string(encode(map[string]any{"kind": kind, "metadata": map[string]any{"name": name}, "spec": spec, "status": status}))
	n.spire.register()
}

// everybody is what charts register all pods of a cluster with.
func everybody() spire.WorkloadIdentitySpec {
	return spire.WorkloadIdentitySpec{SPIFFEIDTemplate: "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"}
}

// stats are those of a ClusterSPIFFEID.
func stats(of string, n int) any { return map[string]any{"stats": map[string]any{of: n}} }

// TestStatusNamesResources has resources that others made besides the lab's, and what
// is said of them and of the workloads.
func TestStatusNamesResources(t *testing.T) {
	const broker, id = "broker", "spiffe://cluster2.com/client"
	static := func(id, parent string, selectors ...string) map[string]any {
		return map[string]any{"spiffeID": id, "parentID": parent, "selectors": selectors}
	}
	agent := "spiffe://cluster2.com/spire/agent/k8s_psat/broker/node"
	rendered := map[string]any{"rendered": true}
	const second = `it gives workload broker-webapp one more identity, spiffe://cluster2.com/ns/demo/sa/client-service-account; the demo programs present the one with the hint "fedlab"`
	for name, tt := range map[string]struct {
		spoil           func(n *node)
		problems, about []string
	}{
		"all pods are registered once more": {
			spoil: func(n *node) { n.add("ClusterSPIFFEID", "everybody", everybody(), nil) },
			about: []string{"broker ClusterSPIFFEID everybody: " + second},
		},
		"other pods are registered": {
			spoil: func(n *node) {
				spec := everybody()
				spec.PodSelector = spire.LabelSelector{MatchLabels: map[string]string{"app": "other"}}
				n.add("ClusterSPIFFEID", "others", spec, nil)
				spec = everybody()
				spec.NamespaceSelector = spire.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "other"}}
				n.add("ClusterSPIFFEID", "elsewhere", spec, nil)
			},
		},
		"a program presents another identity": {
			spoil: func(n *node) {
				n.add("ClusterSPIFFEID", "everybody", everybody(), nil)
				for _, r := range n.releases {
					r.registrations = slices.DeleteFunc(r.registrations, func(made registration) bool { return made.hint == spire.Hint })
				}
			},
			problems: []string{"broker-webapp: it presents the X509-SVID of spiffe://cluster2.com/ns/demo/sa/client-service-account, which it has by ClusterSPIFFEID everybody"},
			about:    []string{"broker ClusterSPIFFEID everybody: " + second},
		},
		"entries of the same ID, for others": {
			spoil: func(n *node) {
				n.add("ClusterStaticEntry", "by-user", static(id, agent, "unix:uid:1000"), rendered)
				n.add("ClusterStaticEntry", "by-account", static(id, agent, "k8s:ns:demo", "k8s:sa:other"), rendered)
				n.add("ClusterStaticEntry", "of-nobody", static(id, "spiffe://cluster2.com/nobody", "k8s:ns:demo"), rendered)
			},
		},
		"the entry of the same ID is for others, alone": {
			spoil: func(n *node) {
				delete(n.spire.entries, id)
				n.add("ClusterStaticEntry", "by-account", static(id, agent, "k8s:ns:demo", "k8s:sa:other"), rendered)
				delete(n.spire.entries, id)
			},
			problems: []string{"broker-webapp: no entry of " + id + " fits the pod broker-webapp-0: the workload does not get that identity"},
		},
		"templates that fit no pod": {
			spoil: func(n *node) {
				n.add("ClusterSPIFFEID", "elsewhere", spire.WorkloadIdentitySpec{
					SPIFFEIDTemplate: "spiffe://nsm.cluster1/{{ .PodMeta.Name }}", PodSelector: spire.LabelSelector{MatchLabels: map[string]string{"app": "nsm"}},
				}, stats("podEntryRenderFailures", 1))
			},
			about: []string{"broker ClusterSPIFFEID elsewhere: its templates come to no entry for 1 of the pods that it selects"},
		},
		"entries that the server refuses": {
			spoil: func(n *node) {
				n.add("ClusterSPIFFEID", "partner", spire.WorkloadIdentitySpec{
					PodSelector: spire.LabelSelector{MatchLabels: map[string]string{"app": "other"}}, FederatesWith: []string{"cluster1.com", "partner.test", "spiffe://other.test"},
				}, stats("entryFailures", 2))
			},
			about: []string{"broker ClusterSPIFFEID partner: the server does not take 2 of its entries: they federate with partner.test, spiffe://other.test, of which it holds no bundle"},
		},
		"entries that are passed over": {
			spoil: func(n *node) {
				n.add("ClusterSPIFFEID", "late", spire.WorkloadIdentitySpec{PodSelector: spire.LabelSelector{MatchLabels: map[string]string{"app": "other"}}}, stats("entriesMasked", 3))
				n.add("ClusterStaticEntry", "late", static(id, agent, "k8s:ns:other"), map[string]any{"rendered": true, "masked": true})
			},
			about: []string{
				"broker ClusterSPIFFEID late: 3 of its entries are passed over: an older resource asks for the same",
				"broker ClusterStaticEntry late: it is passed over: an older resource asks for the same entry",
			},
		},
		"what is no entry": {
			spoil: func(n *node) {
				n.add("ClusterStaticEntry", "no-id", static("cluster2.com/x", agent, "k8s:ns:demo"), nil)
				n.add("ClusterStaticEntry", "no-parent", static(id, "", "k8s:ns:demo"), nil)
				n.add("ClusterStaticEntry", "no-selector", static(id, agent, "demo"), nil)
				spec := static(id, agent, "k8s:ns:other")
				n.add("ClusterStaticEntry", "not-seen-yet", spec, nil)
				spec["federatesWith"] = []string{"Partner Test"}
				n.add("ClusterStaticEntry", "with-nobody", spec, nil)
			},
			about: []string{
				`broker ClusterStaticEntry no-id: the controller manager cannot make an entry of it: its spiffeID "cluster2.com/x" is no SPIFFE ID: scheme is missing or invalid`,
				`broker ClusterStaticEntry no-parent: the controller manager cannot make an entry of it: its parentID "" is no SPIFFE ID: cannot be empty`,
				`broker ClusterStaticEntry no-selector: the controller manager cannot make an entry of it: its selector "demo" is not of the form type:value`,
				`broker ClusterStaticEntry with-nobody: the controller manager cannot make an entry of it: it federates with "Partner Test", which is no trust domain: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`,
			},
		},
		"a class that nobody serves": {
			spoil: func(n *node) {
				n.add("ClusterSPIFFEID", "classy", map[string]any{"className": "theirs", "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/x", "podSelector": map[string]any{"matchLabels": map[string]any{"app": "other"}}}, nil)
			},
			about: []string{`broker ClusterSPIFFEID classy: it has the class "theirs", and no controller manager of the cluster serves that: nothing comes of it`},
		},
		"the lab's own is refused": {
			spoil: func(n *node) {
				n.editOwn("broker-webapp", stats("entryFailures", 1))
				delete(n.spire.entries, id)
				clear(n.spire.held)
			},
			problems: []string{
				"cluster2.com->cluster1.com: missing: lacks JWT authority jwt-of-cluster1.com, lacks X.509 authority KEY",
				"broker-webapp: no entry has the SPIFFE ID " + id + ": the workload gets no identity: ClusterSPIFFEID broker-webapp: the server does not take 1 of its entries: they federate with cluster1.com, of which it holds no bundle",
			},
			about: []string{"broker ClusterSPIFFEID broker-webapp: the server does not take 1 of its entries: they federate with cluster1.com, of which it holds no bundle"},
		},
		"the lab's own is outranked": {
			spoil: func(n *node) { n.outrank() },
			problems: []string{
				"cluster2.com->cluster1.com: the entry of " + id + " does not federate with cluster1.com: the workload does not get its bundle: " + outranked,
				"broker-webapp: the entry of " + id + " does not federate with cluster1.com: the workload does not get its bundle: " + outranked,
			},
			about: []string{"broker ClusterSPIFFEID broker-webapp: 1 of its entries are passed over: an older resource asks for the same"},
		},
		"the lab's own is gone": {
			spoil: func(n *node) {
				delete(n.objects, access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: "broker-webapp"})
				n.spire.register()
			},
			problems: []string{"broker-webapp: no entry has the SPIFFE ID " + id + ": the workload gets no identity: there is no ClusterSPIFFEID broker-webapp"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				tt.spoil(w.nodes[nodeName{"quotes", broker}])
				s, err := d.Status(t.Context(), quotes(t))
				if err != nil {
					t.Fatal(err)
				}
				if got := problems(s); !slices.EqualFunc(got, tt.problems, same) {
					t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.problems, "\n"))
				}
				if s.Well != (len(tt.problems) == 0) {
					t.Errorf("well is %t", s.Well)
				}
				var about []string
				for _, x := range s.Resources {
					about = append(about, x.Cluster+" "+x.Kind+" "+x.Name+": "+x.Problem)
				}
				if !slices.Equal(about, tt.about) {
					t.Errorf("of resources it says\n%s\nwant\n%s", strings.Join(about, "\n"), strings.Join(tt.about, "\n"))
				}
			})
		})
	}
}

const outranked = "ClusterSPIFFEID elder asks for the same entry and is older, so that the controller manager passes over the one of the lab; delete it"

// outrank has somebody else's resource ask for the entry of the broker, without the
// bundle that the broker needs.
func (n *node) outrank() {
	n.add("ClusterSPIFFEID", "elder", spire.WorkloadIdentitySpec{SPIFFEIDTemplate: "spiffe://{{ .TrustDomain }}/client"}, nil)
	n.editOwn("broker-webapp", stats("entriesMasked", 1))
	n.spire.entries["spiffe://cluster2.com/client"] = nil
}

// spillBundle has something else stand where agents look for the bundle they start
// with.
func (n *node) spillBundle(text string) {
	object := decode[map[string]any](n.objects[bundleKey(topology.ServerNamespace)])
	object["data"] = map[string]any{spire.SecretBundle: text}
	n.objects[bundleKey(topology.ServerNamespace)] = string(encode(object))
	delete(n.managers, bundleKey(topology.ServerNamespace))
}

// TestUpRestoresWhatWasEmptied: what is written once and was taken away comes back,
// and what waited for it goes on.
func TestUpRestoresWhatWasEmptied(t *testing.T) {
	want := finished(t)
	market := nodeName{"quotes", "market"}
	for name, spoil := range map[string]func(n *node){
		"the published bundle":                      func(n *node) { n.spillBundle("") },
		"the published bundle, and its ConfigMap":   func(n *node) { delete(n.objects, bundleKey(topology.ServerNamespace)) },
		"the published bundle, and an agent starts": func(n *node) { n.spillBundle(""); n.spire.hung = true },
		"the agents that the server takes":          func(n *node) { n.spire.banned = true },
		"a class in a registration of the lab":      func(n *node) { n.classify("stock-quotes") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				spoil(w.nodes[market])
				if s, err := d.Status(t.Context(), quotes(t)); err != nil || s.Well {
					t.Errorf("well %t, error %v, before it is restored", s.Well, err)
				}
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
				if s := w.nodes[market].spire; s.hung || s.banned {
					t.Errorf("the agent waits for its bundle %t, is banned %t", s.hung, s.banned)
				}
				w.wantNoop(t, d, quotes(t))
			})
		})
	}
}

// TestUpRemakesAnEmptiedSecret: a Secret that lacks a file is none.
func TestUpRemakesAnEmptiedSecret(t *testing.T) {
	files := []string{spire.SecretCertificate, spire.SecretKey, spire.SecretBundle}
	for name, wanted := range map[string][]string{spire.WebCASecret: files[:2], spire.UpstreamAuthoritySecret: files} {
		for _, file := range wanted {
			t.Run(name+" without "+file, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := w.driver(t)
					if err := w.up(t, d, enterprise(t)); err != nil {
						t.Fatal(err)
					}
					n := w.nodes[nodeName{"enterprise", "onprem"}]
					key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: topology.ServerNamespace, Name: name}
					object := decode[map[string]any](n.objects[key])
					object["data"].(map[string]any)[file] = ""
					n.objects[key] = string(encode(object))
					if err := w.up(t, d, enterprise(t)); err != nil {
						t.Fatal(err)
					}
					for _, file := range wanted {
						if len(n.secret(name)[file]) == 0 {
							t.Errorf("it has no %s", file)
						}
					}
				})
			})
		}
	}
}

// TestUpRemakesTheEmptiedSecretOfSpeakers: MetalLB's would not start without it.
func TestUpRemakesTheEmptiedSecretOfSpeakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		n := w.nodes[nodeName{"quotes", "market"}]
		key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: metallb.Namespace, Name: metallb.SecretName}
		n.objects[key] = `{"metadata":{},"data":{}}`
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		if len(decode[struct{ Data map[string][]byte }](n.objects[key]).Data[metallb.SecretKey]) == 0 {
			t.Error("it is empty")
		}
	})
}

// classify gives a ClusterSPIFFEID of the lab a class.
func (n *node) classify(name string) {
	key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: name}
	object := decode[map[string]any](n.objects[key])
	object["spec"].(map[string]any)["className"] = "theirs"
	n.objects[key] = string(encode(object))
	n.spire.register()
}

// TestUpEndsWhereSomebodyElseIsRegistered: waiting for what an older resource keeps
// from coming to anything does not help.
func TestUpEndsWhereSomebodyElseIsRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.nodes[nodeName{"quotes", "broker"}].outrank()
		began := time.Now()
		err := w.up(t, d, quotes(t))
		want := "presents/broker-webapp: wait until broker-webapp presents its X509-SVID: " +
			"the entry of spiffe://cluster2.com/client does not federate with cluster1.com: the workload does not get its bundle: " + outranked
		if err == nil || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it waited %s", took)
		}
	})
}

// TestUpSaysWhyAWorkloadHasNoIdentity: that its pod is not ready is not why.
func TestUpSaysWhyAWorkloadHasNoIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		n := w.nodes[nodeName{"quotes", "broker"}]
		n.editOwn("broker-webapp", stats("entryFailures", 1))
		n.release("broker-webapp").identified = false
		w.fault = func(string) verdict {
			delete(n.spire.entries, "spiffe://cluster2.com/client")
			return pass
		}
		err := w.up(t, d, quotes(t))
		want := "last seen: 0 of 1 pods are ready: no identity yet: no entry has the SPIFFE ID spiffe://cluster2.com/client: " +
			"the workload gets no identity: ClusterSPIFFEID broker-webapp: the server does not take 1 of its entries"
		if err == nil || !strings.HasPrefix(err.Error(), "runs/broker-webapp: wait until broker-webapp runs: not after 4m") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("error %v\nwants %s", err, want)
		}
	})
}

// TestUpIsNotMisledByAnotherIdentity: it is up as it was, and changes nothing.
func TestUpIsNotMisledByAnotherIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.nodes[nodeName{"quotes", "broker"}].add("ClusterSPIFFEID", "everybody", everybody(), nil)
		w.wantNoop(t, d, quotes(t))
	})
}

// editOwn gives a ClusterSPIFFEID of the lab a status.
func (n *node) editOwn(name string, status any) {
	key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: name}
	object := decode[map[string]any](n.objects[key])
	object["status"] = status
	n.objects[key] = string(encode(object))
}
