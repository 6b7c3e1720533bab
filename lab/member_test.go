package lab_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var (
	serverAt = nodeName{"spread", "a"}
	memberAt = nodeName{"spread", "b"}
	otherAt  = nodeName{"spread", "c"}
)

// spreadStarts are what an up of the lab with a spread trust domain may find.
func spreadStarts(half, gone string) map[string]func(*testing.T, *world, *lab.Driver) {
	return situations(spread, half, gone)
}

// wantWell reports what of a lab is not well.
func wantWell(t *testing.T, d *lab.Driver, top topology.Topology) lab.Status {
	t.Helper()
	s, err := d.Status(t.Context(), top)
	if err != nil || !s.Well {
		t.Errorf("error %v, well %t:\n%s", err, s.Well, strings.Join(problems(s), "\n"))
	}
	return s
}

func TestSpreadConverges(t *testing.T) {
	want := fresh(t, spread(t), (*world).dump)
	for _, line := range []string{
		`spread/a entry spiffe://one.test/server, federates with ["other.test"], made for a`,
		`spread/a entry spiffe://one.test/client, federates with [], made for b`,
		`spread/c entry spiffe://other.test/client, federates with ["one.test"]`,
		"spread/a agent in b",
		"spread/b agents of one.test in spire-system: hung false, stale false",
		"spread/a Secret spire-kubeconfigs ",
		"spread/b Secret spire-server-token ",
	} {
		if !slices.Contains(strings.Split(want, "\n"), line) {
			t.Errorf("a lab that is up lacks %q:\n%s", line, want)
		}
	}
	// Once the member is the one that was made again, or is gone, and once the server.
	for _, lost := range []string{"a", "b"} {
		for name, start := range spreadStarts(lost, lost) {
			t.Run(lost+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := w.driver(t)
					start(t, w, d)
					if err := w.up(t, d, spread(t)); err != nil {
						t.Fatal(err)
					}
					w.want(t, want)
					s := wantWell(t, d, spread(t))
					if got := s.TrustDomains[0].Members; len(got) != 2 || got[1].Cluster != "b" || got[1].Agents == 0 {
						t.Errorf("members %+v", got)
					}
					if got := s.TrustDomains[1].Members; got != nil {
						t.Errorf("a trust domain in one cluster has members %+v", got)
					}
					w.wantNoop(t, d, spread(t))
				})
			})
		}
	}
}

func TestStatusOfASpreadLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, spread(t)); err != nil {
			t.Fatal(err)
		}
		golden(t, "status-spread.json", indented(t, wantWell(t, d, spread(t))))
	})
}

// TestSpreadDisturbed has ups of which a call fails once, or is the last one.
func TestSpreadDisturbed(t *testing.T) {
	want := fresh(t, spread(t), (*world).dump)
	known := map[string]bool{}
	for _, tt := range trials(t) {
		known[kindOf(tt.call, quotes(t))] = true
	}
	found := map[string]string{}
	var own, rest []string
	for _, tt := range trialsOf(t, spread, spreadStarts("a", "b")) {
		found[tt.call] = tt.found
		names := []string{tt.call + "/fails once", tt.call + "/killed before", tt.call + "/killed after"}
		if strings.HasSuffix(tt.call, " in b") || !known[kindOf(tt.call, spread(t))] {
			own = append(own, names...)
		} else {
			rest = append(rest, names...)
		}
	}
	disturbed(t, spread, spreadStarts("a", "b"), found, slices.Concat(sample(t, own, 60), sample(t, rest, 15)), func(t *testing.T, w *world) {
		t.Helper()
		w.want(t, want)
	})
}

// edit changes a field of the data of an object.
func (n *node) edit(key access.ObjectKey, data map[string]any) {
	object := decode[map[string]any](n.objects[key])
	object["data"] = data
	n.objects[key] = string(encode(object))
}

func kubeconfigsKey() access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: topology.ServerNamespace, Name: spire.KubeconfigsSecret}
}

// TestUpRestoresTheWayIntoAMember: what is between a server and its agents in another
// cluster was changed by hand.
func TestUpRestoresTheWayIntoAMember(t *testing.T) {
	want := fresh(t, spread(t), (*world).dump)
	const (
		secret    = "one.test: in cluster b: the Secret spire-kubeconfigs, by which the server gets into cluster b, "
		published = "one.test: in cluster b: the ConfigMap spire-bundle, by which an agent knows its server when it starts, "
		restores  = ": the next up restores it"
	)
	for name, tt := range map[string]struct {
		spoil func(*world)
		want  string
		cause lab.Cause
	}{
		"no kubeconfigs":    {func(w *world) { delete(w.nodes[serverAt].objects, kubeconfigsKey()) }, secret + "has no kubeconfig of it" + restores, lab.ShutOut},
		"empty kubeconfigs": {func(w *world) { w.nodes[serverAt].edit(kubeconfigsKey(), map[string]any{}) }, secret + "has no kubeconfig of it" + restores, lab.ShutOut},
		"an empty kubeconfig": {
			func(w *world) { w.nodes[serverAt].edit(kubeconfigsKey(), map[string]any{"b": ""}) }, secret + "has no kubeconfig of it" + restores, lab.ShutOut,
		},
		"another kubeconfig": {
			func(w *world) { w.nodes[serverAt].edit(kubeconfigsKey(), map[string]any{"b": []byte("{}")}) },
			secret + "has another kubeconfig than the cluster asks for" + restores, lab.ShutOut,
		},
		"no token": {
			func(w *world) { delete(w.nodes[memberAt].objects, tokenKey(topology.ServerNamespace)) },
			"one.test: in cluster b: the server cannot be let into cluster b: cluster b has no Secret spire-system/spire-server-token" + restores, lab.ShutOut,
		},
		"no bundle": {
			func(w *world) { delete(w.nodes[memberAt].objects, bundleKey(topology.ServerNamespace)) }, published + "is not there" + restores, lab.Unpublished,
		},
		"an empty bundle": {func(w *world) { w.nodes[memberAt].spillBundle("") }, published + "has no bundle.crt" + restores, lab.Unpublished},
		"another bundle": {
			func(w *world) { w.nodes[memberAt].spillBundle(string(pki.Marshal(w.nodes[otherAt].spire.root))) },
			published + "has other X.509 authorities than the server" + restores, lab.Unpublished,
		},
		"the right bundle, written by somebody else": {
			func(w *world) { delete(w.nodes[memberAt].managers, bundleKey(topology.ServerNamespace)) },
			published + "was written by fedlab, from which the server does not take it over: it could not publish its next authority" + restores, lab.Unpublished,
		},
		"an empty bundle, and agents start": {
			func(w *world) {
				w.nodes[memberAt].spillBundle("")
				w.nodes[memberAt].attendants[topology.ServerNamespace].start()
			},
			published + "has no bundle.crt" + restores + "\n0 of 1 pods are ready: ContainerCreating", lab.Unpublished,
		},
		"agents have started with another bundle": {
			func(w *world) {
				n, key := w.nodes[memberAt], bundleKey(topology.ServerNamespace)
				right := n.objects[key]
				n.spillBundle(string(pki.Marshal(w.nodes[otherAt].spire.root)))
				n.attendants[topology.ServerNamespace].start()
				n.objects[key], n.managers[key] = right, spire.BundlePublisher
				clear(w.nodes[serverAt].spire.attested)
			},
			"one.test: in cluster b: 0 of 1 pods are ready: x509: certificate signed by unknown authority", lab.AgentUnready,
		},
		"no agents": {
			func(w *world) {
				delete(w.nodes[memberAt].objects, access.ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: topology.ServerNamespace, Name: spire.AgentDaemonSet})
			},
			"one.test: in cluster b: there is no DaemonSet spire-agent", lab.AgentUnready,
		},
		"the server forgets the agents": {
			func(w *world) { clear(w.nodes[serverAt].spire.attested) },
			"one.test: in cluster b: no agent of the node spread-b-control-plane has attested to the server in cluster a", lab.NotAttested,
		},
		"an empty kubeconfig, and the server starts": {
			func(w *world) {
				w.nodes[serverAt].edit(kubeconfigsKey(), map[string]any{})
				w.nodes[serverAt].spire.since = w.nodes[serverAt].spire.since.Add(1)
			},
			"one.test: 0 of 1 pods are ready: open /run/spire/kubeconfigs/b: no such file or directory", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, spread(t)); err != nil {
					t.Fatal(err)
				}
				tt.spoil(w)
				s, err := d.Status(t.Context(), spread(t))
				if err != nil {
					t.Fatal(err)
				}
				if got := problems(s); len(got) == 0 || got[0] != tt.want || s.TrustDomains[0].Cause != tt.cause {
					t.Errorf("cause %q, problems\n%s\nwant %q and\n%s", s.TrustDomains[0].Cause, strings.Join(got, "\n"), tt.cause, tt.want)
				}
				drift, err := d.Drift(t.Context(), spread(t))
				if err != nil || drift.Well == (tt.cause == lab.Unpublished) && len(drift.Silent) == 0 {
					t.Errorf("error %v, drift is well: %t: %+v", err, drift.Well, drift.Published)
				}
				if err := w.up(t, d, spread(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
				wantWell(t, d, spread(t))
				w.wantNoop(t, d, spread(t))
				if by := w.nodes[memberAt].managers[bundleKey(topology.ServerNamespace)]; by != spire.BundlePublisher {
					t.Errorf("the bundle in b is written by %q: the server's next one would be refused", by)
				}
			})
		})
	}
}

// TestAnotherBundlePlugin: the file of a lab that is up asks for the other plugin, and for
// the first one again, whose server takes nothing over.
func TestAnotherBundlePlugin(t *testing.T) {
	notified := func(t *testing.T) topology.Topology {
		t.Helper()
		return topologyOf(t, strings.Replace(spreadFile(t), "  federation:\n", "  trustDomains:\n    - {name: one.test, bundlePlugin: k8sbundle}\n  federation:\n", 1))
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		for _, tt := range []struct {
			lab    topology.Topology
			plugin topology.BundlePlugin
			by     string
		}{
			{spread(t), "", spire.BundlePublisher}, {notified(t), topology.K8sBundle, notifier}, {spread(t), "", spire.BundlePublisher},
		} {
			if err := w.up(t, d, tt.lab); err != nil {
				t.Fatal(err)
			}
			wantWell(t, d, tt.lab)
			w.wantNoop(t, d, tt.lab)
			if is := w.nodes[serverAt].spire.values.BundlePlugin; is != tt.plugin {
				t.Errorf("the server has the plugin %q, want %q", is, tt.plugin)
			}
			if by := w.nodes[memberAt].managers[bundleKey(topology.ServerNamespace)]; by != tt.by {
				t.Errorf("the bundle in b is written by %q, want %q", by, tt.by)
			}
		}
	})
}

// A server goes on, and can be asked, while another cluster of its trust domain does not
// answer; its agents there, and what they have, stay known.
func TestStatusWithoutAMember(t *testing.T) {
	whole := fresh(t, spread(t), (*world).dump)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, spread(t)); err != nil {
			t.Fatal(err)
		}
		w.nodes[memberAt].running = false
		server := w.nodes[serverAt].server()
		server.unready = "0 of 1 ready: pod spire-server-0: manager-b: CrashLoopBackOff"
		w.nodes[serverAt].spire.since = w.nodes[serverAt].spire.since.Add(1) // it starts again
		s, err := d.Status(t.Context(), spread(t))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			"b: its node is stopped",
			"one.test: 0 of 1 ready: pod spire-server-0: manager-b: CrashLoopBackOff\nin cluster b: cluster b does not answer",
			"broker-webapp: cluster b does not answer",
		}
		if got := problems(s); !slices.Equal(got, want) {
			t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if td := s.TrustDomains[0]; td.Agents != 2 || td.Entries != 2 || len(td.Members) != 2 || td.Members[0].Well == td.Members[1].Well {
			t.Errorf("%+v", td)
		}
		server.unready = ""
		if err := w.up(t, d, spread(t)); err != nil {
			t.Fatal(err)
		}
		w.want(t, whole)
	})
}

// A pod that is not ready is not replaced by Kubernetes: without another cluster the
// server would wait for that cluster for ever, also when an up was killed in between.
func TestUpReplacesAServerThatIsNotReady(t *testing.T) {
	for name, of := range map[string]func(string) verdict{
		"in one go": nil, "killed after the release": once("Releases.Apply spire in a", killAfter), "killed before the pod goes": once("Objects.Delete Pod in a", killBefore),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, spread(t)); err != nil {
					t.Fatal(err)
				}
				w.nodes[serverAt].server().unready = "0 of 1 ready: pod spire-server-0: manager-b: CrashLoopBackOff"
				w.mutations, w.fault = nil, of
				err := w.up(t, d, alone(t))
				if of != nil {
					if err == nil {
						t.Error("it ended well")
					}
					err = w.up(t, d, alone(t))
				}
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(w.mutations, "Objects.Delete Pod in a") {
					t.Errorf("the pod of the server is still the old one: %v", w.mutations)
				}
				wantWell(t, d, alone(t))
				w.wantNoop(t, d, alone(t))
			})
		})
	}
}

// Agents that are there before their bundle hang: they come after it.
func TestAgentsOfAMemberComeAfterTheBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.up(t, w.driver(t), spread(t)); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(w.mutations, "Objects.Delete Pod in b") {
			t.Errorf("agents were started again: %v", w.mutations)
		}
	})
}

// A controller manager that has failed for long is started again by Kubernetes some minutes
// later: up waits for it.
func TestUpWaitsForTheControllerManagerOfAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, spread(t)); err != nil {
			t.Fatal(err)
		}
		server := w.nodes[serverAt].server()
		server.unready = "0 of 1 ready: pod spire-server-0: manager-b: CrashLoopBackOff"
		time.AfterFunc(5*time.Minute, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			server.unready = ""
		})
		w.mutations = nil
		if err := w.up(t, d, spread(t)); err != nil {
			t.Fatal(err)
		}
		if len(w.mutations) > 0 {
			t.Errorf("it changed %v", w.mutations)
		}
		wantWell(t, d, spread(t))
	})
}

// alone is the lab without the further cluster of its trust domain.
func alone(t *testing.T) topology.Topology {
	t.Helper()
	return topologyOf(t, replaced(t, spreadFile(t),
		"    - {name: b, trustDomain: one.test}\n", "",
		"    - {app: broker-webapp, cluster: b, expose: \"127.0.0.1:8080\"}\n", ""))
}

// shared is the lab whose further cluster is one that has a server already.
func shared(t *testing.T) topology.Topology {
	t.Helper()
	return topologyOf(t, replaced(t, spreadFile(t),
		"    - {name: b, trustDomain: one.test}\n", "",
		"{name: c, trustDomain: other.test}", "{name: c, trustDomains: [other.test, one.test]}",
		"{app: broker-webapp, cluster: b,", "{app: broker-webapp, cluster: c, trustDomain: one.test,",
		"{name: partner, app: broker-webapp, cluster: c,", "{name: partner, app: broker-webapp, cluster: c, trustDomain: other.test,"))
}

// TestUpWithOtherMembers has a cluster come to a trust domain, and leave it.
func TestUpWithOtherMembers(t *testing.T) {
	labs := map[string]func(*testing.T) topology.Topology{"alone": alone, "spread": spread, "shared": shared}
	for before, was := range labs {
		for after, is := range labs {
			if before == after {
				continue
			}
			t.Run(before+" to "+after, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := w.driver(t)
					for i, top := range []topology.Topology{was(t), is(t)} {
						if i > 0 {
							ports := func(n nodeName) { w.nodes[n].spec.Ports = resolved(t, top).Clusters[len(top.Clusters)-1].Ports() }
							ports(otherAt) // as if it had been made so: ports cannot be changed
						}
						if err := w.up(t, d, top); err != nil {
							t.Fatal(err)
						}
						wantWell(t, d, top)
						w.wantNoop(t, d, top)
					}
					s := w.nodes[serverAt].spire
					for id, from := range s.origins {
						if _, there := s.entries[id]; there && (len(is(t).TrustDomains[0].Members) == 0) != (from.prefix == "") {
							t.Errorf("entry %s has the prefix %q", id, from.prefix)
						}
					}
					for id := range s.attested {
						if in := spire.AttestedIn(id); !slices.ContainsFunc(is(t).TrustDomains[0].Members, func(m topology.MemberSpec) bool { return m.Cluster == in }) {
							t.Errorf("the server knows agent %s", id)
						}
					}
					if _, there := w.nodes[serverAt].objects[kubeconfigsKey()]; there != (len(is(t).TrustDomains[0].Members) > 0) {
						t.Errorf("the server has kubeconfigs: %t", there)
					}
				})
			})
		}
	}
}

// TestUpTakesOutAMember: the cluster stays, and of the trust domain nothing stays in it
// that fedlab has made.
func TestUpTakesOutAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		before := shared(t)
		if err := w.up(t, d, before); err != nil {
			t.Fatal(err)
		}
		theirs := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: "theirs"}
		n := w.nodes[otherAt]
		n.objects[theirs] = string(encode(map[string]any{"kind": theirs.Kind, "metadata": map[string]any{"name": theirs.Name}, "spec": map[string]any{"className": "spire-system-2"}}))
		n.spec.Ports = resolved(t, alone(t)).Clusters[1].Ports()
		if err := w.up(t, d, alone(t)); err != nil {
			t.Fatal(err)
		}
		for key := range n.objects {
			if key.Namespace == "spire-system-2" || key.Kind == "ClusterSPIFFEID" && key.Name == "broker-webapp" {
				t.Errorf("%s %s is still in the cluster", key.Kind, key.Name)
			}
		}
		if n.releases[releaseName{"spire-system-2", "spire"}] != nil || n.server() == nil {
			t.Errorf("releases %v", n.releases)
		}
		if _, there := n.objects[theirs]; !there {
			t.Error("what somebody else has made is gone")
		}
		if entries := w.nodes[serverAt].spire.entries; len(entries) != 1 {
			t.Errorf("entries %v", entries)
		}
	})
}

// Each of these would leave agents, or peers, with keys of a server that is not theirs.
func TestUpRefusesToMoveTheServer(t *testing.T) {
	for name, tt := range map[string]struct {
		after func(*testing.T) topology.Topology
		spoil func(*world)
		want  string
	}{
		"to the other cluster": {
			after: func(t *testing.T) topology.Topology {
				t.Helper()
				return topologyOf(t, replaced(t, spreadFile(t), "  federation:", "  trustDomains:\n    - {name: one.test, serverCluster: b}\n  federation:"))
			},
			want: "the SPIRE server of trust domain one.test is in cluster a, and the file asks for it in cluster b; it cannot be moved: agents and peers know it by its keys",
		},
		"by taking its cluster out": {
			after: func(t *testing.T) topology.Topology {
				t.Helper()
				return topologyOf(t, replaced(t, spreadFile(t), "    - {name: a, trustDomain: one.test}\n", "", "{app: stock-quotes, cluster: a}", "{app: stock-quotes, cluster: b}"))
			},
			want: "the SPIRE server of trust domain one.test is in cluster a, and the file asks for it in cluster b; it cannot be moved: agents and peers know it by its keys",
		},
		"when its cluster is gone": {
			after: func(t *testing.T) topology.Topology {
				t.Helper()
				return topologyOf(t, replaced(t, spreadFile(t), "    - {name: a, trustDomain: one.test}\n", "", "{app: stock-quotes, cluster: a}", "{app: stock-quotes, cluster: b}"))
			},
			spoil: func(w *world) { delete(w.nodes, serverAt) },
			want:  "the SPIRE server of trust domain one.test is in cluster one that is gone, and the file asks for it in cluster b; it cannot be moved: agents and peers know it by its keys",
		},
		"another trust domain in the place of a member": {
			after: func(t *testing.T) topology.Topology {
				t.Helper()
				return topologyOf(t, replaced(t, spreadFile(t), "{name: b, trustDomain: one.test}", "{name: b, trustDomain: third.test}",
					"    - {app: broker-webapp, cluster: b, expose: \"127.0.0.1:8080\"}\n", ""))
			},
			want: "the trust domain of cluster b is one.test, and the file asks for third.test; it cannot be changed once it is set: every identity in it would be another",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, spread(t)); err != nil {
					t.Fatal(err)
				}
				if tt.spoil != nil {
					tt.spoil(w)
				}
				for _, n := range w.nodes { // ports are another question
					for _, c := range resolved(t, tt.after(t)).Clusters {
						if c.Name == n.name.cluster {
							n.spec.Ports = c.Ports()
						}
					}
				}
				w.mutations = nil
				err := w.up(t, d, tt.after(t))
				mismatch := (*lab.MismatchError)(nil)
				if !errors.As(err, &mismatch) || !slices.Equal(mismatch.Differences, []string{tt.want}) {
					t.Errorf("error %v, want %s", err, tt.want)
				}
				if len(w.mutations) > 0 {
					t.Errorf("it changed something: %v", w.mutations)
				}
			})
		})
	}
}

// A ClusterStaticEntry or a ClusterFederatedTrustDomain next to agents whose server is
// elsewhere has no effect, and a ClusterSPIFFEID has.
func TestStatusNamesResourcesInAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, spread(t)); err != nil {
			t.Fatal(err)
		}
		n := w.nodes[memberAt]
		for _, kind := range []string{"ClusterSPIFFEID", "ClusterStaticEntry", "ClusterFederatedTrustDomain"} {
			key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: kind, Name: "more"}
			n.objects[key] = string(encode(map[string]any{
				"kind": kind, "metadata": map[string]any{"name": key.Name},
				"spec": map[string]any{"spiffeIDTemplate": "spiffe://one.test/more", "spiffeID": "spiffe://one.test/more", "parentID": "spiffe://one.test/agent", "selectors": []string{"k8s:ns:demo"}},
			}))
		}
		n.reregister()
		s := wantWell(t, d, spread(t))
		var got []string
		for _, r := range s.Resources {
			got = append(got, fmt.Sprintf("%s %s in %s: %s", r.Kind, r.Name, r.Cluster, r.Problem))
		}
		want := []string{
			`ClusterSPIFFEID more in b: it gives workload broker-webapp one more identity, spiffe://one.test/more; the demo programs present the one with the hint "fedlab"`,
			"ClusterStaticEntry more in b: the controller manager of one.test makes no entries of this kind in cluster b: write it into cluster a, where the SPIRE server is",
			"ClusterFederatedTrustDomain more in b: the controller manager of one.test makes no relationships in cluster b: write it into cluster a, where the SPIRE server is",
		}
		if !slices.Equal(got, want) {
			t.Errorf("resources\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// The two workloads of one trust domain need no bundle of each other.
func TestCallsWithinASpreadTrustDomain(t *testing.T) {
	g := resolved(t, spread(t))
	quotes, broker := g.Workloads[0], g.Workloads[1]
	if broker.Cluster() == quotes.Cluster() || broker.Domain() != quotes.Domain() || len(broker.FederatesWith) > 0 || !slices.Contains(broker.Calls, quotes) {
		t.Errorf("%s in %s calls %v and receives the bundles of %v", broker.Name, broker.Cluster().Name, broker.Calls, broker.FederatesWith)
	}
	if td := spiffeid.RequireTrustDomainFromString("other.test"); len(quotes.FederatesWith) != 1 || quotes.FederatesWith[0].Name != td {
		t.Errorf("%s receives the bundles of %v", quotes.Name, quotes.FederatesWith)
	}
}
