package lab_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var nestedAt = nodeName{"nested", "b"}

func TestNestedConverges(t *testing.T) {
	want := fresh(t, nested(t), (*world).dump)
	for _, line := range []string{
		`nested/a entry spiffe://one.test/client, federates with [], made for a`,
		`nested/a entry spiffe://one.test/fedlab/nested-server/b, federates with [], made for b, downstream`,
		`nested/b entry spiffe://one.test/server, federates with ["other.test"]`,
		`nested/c entry spiffe://other.test/client, federates with ["one.test"]`,
		"nested/a agent in b",
		"nested/b agents of one.test in spire-upstream: hung false, stale false",
		"nested/a trusts other.test at https://10.192.3.1:8443: in sync, polls true",
		"nested/b trusts other.test at https://10.192.3.1:8443: in sync, polls true",
		"nested/c trusts one.test at https://10.192.1.1:8443: in sync, polls true",
	} {
		if !slices.Contains(strings.Split(want, "\n"), line) {
			t.Errorf("a lab that is up lacks %q:\n%s", line, want)
		}
	}
	// Once the nested server is lost or gone, and once its upstream.
	for _, lost := range []string{"a", "b"} {
		for name, start := range situations(nested, lost, lost) {
			t.Run(lost+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					d := w.driver(t)
					start(t, w, d)
					if err := w.up(t, d, nested(t)); err != nil {
						t.Fatal(err)
					}
					wantWell(t, d, nested(t))
					w.wantNoop(t, d, nested(t))
					// Roots of an upstream that was lost stay until they end.
					below := w.nodes[nestedAt].spire
					if remade := lost == "a" && strings.HasPrefix(name, "one cluster"); (len(below.former) > 0) != remade {
						t.Errorf("the nested server has %d former roots", len(below.former))
					}
					w.forgetFormerRoots()
					w.want(t, want)
				})
			})
		}
	}
}

func TestStatusOfANestedLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, nested(t)); err != nil {
			t.Fatal(err)
		}
		golden(t, "status-nested.json", indented(t, wantWell(t, d, nested(t))))
	})
}

// TestNestedDisturbed has ups of which a call fails once, or is the last one.
func TestNestedDisturbed(t *testing.T) {
	want := fresh(t, nested(t), (*world).dump)
	found := map[string]string{}
	var own, rest []string
	for _, tt := range trialsOf(t, nested, situations(nested, "a", "b")) {
		found[tt.call] = tt.found
		names := []string{tt.call + "/fails once", tt.call + "/killed before", tt.call + "/killed after"}
		if strings.HasSuffix(tt.call, " in b") {
			own = append(own, names...)
		} else {
			rest = append(rest, names...)
		}
	}
	disturbed(t, nested, situations(nested, "a", "b"), found, slices.Concat(sample(t, own, 60), sample(t, rest, 15)), func(t *testing.T, w *world) {
		t.Helper()
		w.forgetFormerRoots()
		w.want(t, want)
	})
}

// forgetFormerRoots takes out of the nested server what stays until it ends: the roots of
// an upstream that has lost its data.
func (w *world) forgetFormerRoots() {
	w.nodes[nestedAt].spire.former = nil
	w.nodes[nestedAt].spire.publish()
}

func nestedEntryKey() access.ObjectKey {
	return access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: "nested-server." + topology.UpstreamNamespace}
}

// TestUpRestoresANestedServer: what is between a nested server and its upstream was changed
// by hand, or the upstream is another one.
func TestUpRestoresANestedServer(t *testing.T) {
	want := fresh(t, nested(t), (*world).dump)
	const (
		undelegated = "one.test: in cluster b: the server in cluster a has no downstream entry of spiffe://one.test/fedlab/nested-server/b: " +
			"it signs no authority of the nested server in cluster b: the next up restores it"
		foreign = "it presents an X509-SVID that the bundle of one.test does not verify (x509svid: could not verify leaf certificate: " +
			`x509: certificate signed by unknown authority (possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "one.test"))`
	)
	for name, tt := range map[string]struct {
		spoil func(*world)
		want  []string
		cause lab.Cause // of the first trust domain that is not well
	}{
		"no entry": {func(w *world) {
			delete(w.nodes[nestedAt].objects, nestedEntryKey())
			w.nodes[nestedAt].reregister()
		}, []string{undelegated}, lab.Undelegated},
		"an entry that is not downstream": {func(w *world) {
			n, key := w.nodes[nestedAt], nestedEntryKey()
			object := decode[map[string]any](n.objects[key])
			spec := decode[map[string]any](string(encode(object["spec"])))
			delete(spec, "downstream")
			object["spec"] = spec
			n.objects[key] = string(encode(object))
			n.reregister()
		}, []string{undelegated}, lab.Undelegated},
		"no agent of the upstream": {func(w *world) {
			delete(w.nodes[nestedAt].objects, access.ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: topology.UpstreamNamespace, Name: spire.AgentDaemonSet})
		}, []string{"one.test: in cluster b: there is no DaemonSet spire-agent"}, lab.AgentUnready},
		"the nested server's own bundle is gone": {func(w *world) {
			delete(w.nodes[nestedAt].objects, bundleKey(topology.ServerNamespace))
		}, []string{"one.test: the ConfigMap spire-bundle, by which an agent knows its server when it starts, is not there: the next up restores it"}, lab.Unpublished},
		"the upstream's bundle is gone next to it": {func(w *world) {
			delete(w.nodes[nestedAt].objects, bundleKey(topology.UpstreamNamespace))
		}, []string{"one.test: in cluster b: the ConfigMap spire-bundle, by which an agent knows its server when it starts, is not there: the next up restores it"}, lab.Unpublished},
		"its authority could not be replaced for long": {func(w *world) {
			w.nodes[nestedAt].server().unready = "0 of 1 pods are ready: pod spire-server-0 is not ready"
		}, []string{"one.test: 0 of 1 pods are ready: pod spire-server-0 is not ready"}, lab.ManagerUnready},
		"the nested server holds nothing": {func(w *world) { clear(w.nodes[nestedAt].spire.held) },
			[]string{"one.test->other.test: missing: lacks JWT authority jwt-of-other.test, lacks X.509 authority KEY"}, ""},
		"another upstream has signed": {func(w *world) {
			s := w.nodes[nestedAt].spire
			made, err := newSPIREServer(w.nodes[nestedAt], spire.Values{TrustDomain: "one.test"})
			if err != nil {
				panic(err)
			}
			s.activate(&nestedAuthority{root: made.root, issuer: made.root, key: made.key})
			s.former = nil
			s.since = s.since.Add(1) // it starts again
		}, []string{
			"one.test: the webhook of its controller manager: " + foreign + ": the next up starts the pod of the server again, and that replaces it",
			"stock-quotes: " + foreign + ": the next up starts the agents of cluster b again, and that replaces it",
		}, lab.Unverified},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, nested(t)); err != nil {
					t.Fatal(err)
				}
				tt.spoil(w)
				s, err := d.Status(t.Context(), nested(t))
				if err != nil {
					t.Fatal(err)
				}
				got := problems(s)
				for _, one := range tt.want {
					if !slices.ContainsFunc(got, func(is string) bool { return same(is, one) }) {
						t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), one)
					}
				}
				var cause lab.Cause
				for _, td := range s.TrustDomains {
					if !td.Well && cause == "" {
						cause = td.Cause
					}
				}
				if cause != tt.cause {
					t.Errorf("cause %q, want %q: %s", cause, tt.cause, strings.Join(got, "\n"))
				}
				if err := w.up(t, d, nested(t)); err != nil {
					t.Fatal(err)
				}
				w.forgetFormerRoots()
				wantWell(t, d, nested(t))
				w.wantNoop(t, d, nested(t))
				w.want(t, want)
			})
		})
	}
}

// A nested server goes on while its upstream is away, and says so of itself.
func TestStatusWithoutTheRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, nested(t)); err != nil {
			t.Fatal(err)
		}
		w.nodes[nodeName{"nested", "a"}].running = false
		s, err := d.Status(t.Context(), nested(t))
		if err != nil {
			t.Fatal(err)
		}
		for i, td := range s.TrustDomains {
			if td.Well != (i > 0) {
				t.Errorf("%s is well: %t: %s", td.Server(), td.Well, td.Problem)
			}
		}
		for _, r := range s.Relationships {
			if r.Well != (r.Server() == "one.test@b") {
				t.Errorf("%s trusts %s: well %t: %s", r.Server(), r.Trusted, r.Well, r.Problem)
			}
		}
		want := []string{
			"cluster a: its node is stopped",
			"trust domain one.test: cluster a does not answer",
			"relationship one.test->other.test: the server of one.test does not answer",
		}
		if got := s.Problems(); len(got) < 3 || !slices.Equal(got[:3], want) {
			t.Errorf("problems\n%s", strings.Join(got, "\n"))
		}
		drift, err := d.Drift(t.Context(), nested(t))
		if err != nil || !slices.Equal(drift.Silent, []string{"one.test"}) {
			t.Errorf("error %v, silent %v", err, drift.Silent)
		}
	})
}

// Each server of the truster follows its relationships, and what one of them holds is told
// and repaired by itself.
func TestDriftOfANestedServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, nested(t)); err != nil {
			t.Fatal(err)
		}
		clear(w.nodes[nestedAt].spire.held)
		drift, err := d.Drift(t.Context(), nested(t))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range drift.Held {
			got = append(got, fmt.Sprintf("%s holds of %s: %s", h.Holder(), h.Trusted, h.State))
		}
		for _, p := range drift.Published {
			got = append(got, fmt.Sprintf("%s in %s, downstream %t: %t", p.TrustDomain, p.Cluster, p.Downstream, p.Well))
		}
		want := []string{
			"one.test holds of other.test: in sync", "one.test@b holds of other.test: missing", "other.test holds of one.test: in sync",
			"one.test in a, downstream false: true", "one.test in b, downstream true: true", "one.test in b, downstream false: true",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		repaired, err := d.Repair(t.Context(), nested(t))
		if err != nil || len(repaired) != 1 || repaired[0].Holder() != "one.test@b" {
			t.Errorf("error %v, repaired %+v", err, repaired)
		}
		wantWell(t, d, nested(t))
	})
}

// withoutNested is the lab whose agents in b attest to the server in a.
func withoutNested(t *testing.T) topology.Topology {
	t.Helper()
	return topologyOf(t, replaced(t, nestedFile(t), "  trustDomains:\n    - {name: one.test, nestedServers: [b]}\n", ""))
}

// inOneCluster is the lab without the cluster of the nested server.
func inOneCluster(t *testing.T) topology.Topology {
	t.Helper()
	return topologyOf(t, replaced(t, nestedFile(t),
		"  trustDomains:\n    - {name: one.test, nestedServers: [b]}\n", "",
		"    - {name: b, trustDomain: one.test}\n", "",
		"{app: stock-quotes, cluster: b}", "{app: stock-quotes, cluster: a}"))
}

// A nested server comes to a trust domain that runs, and leaves it.
func TestUpWithAndWithoutANestedServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		for _, top := range []topology.Topology{inOneCluster(t), nested(t), inOneCluster(t)} {
			if err := w.up(t, d, top); err != nil {
				t.Fatal(err)
			}
			wantWell(t, d, top)
			w.wantNoop(t, d, top)
		}
		root := w.nodes[nodeName{"nested", "a"}]
		for id := range root.spire.entries {
			if strings.Contains(id, "nested-server") {
				t.Errorf("the root still has the entry %s", id)
			}
		}
		if len(root.spire.attested) > 0 || w.nodes[nestedAt] != nil {
			t.Errorf("the root knows the agents %v", root.spire.attested)
		}
		if _, there := root.objects[kubeconfigsKey()]; there {
			t.Error("the root still has a kubeconfig")
		}
	})
}

// Each of these would leave agents with a server whose keys they do not know.
func TestUpRefusesToChangeWhoIsNested(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after func(*testing.T) topology.Topology
		want          string
	}{
		"no nested server any more": {nested, withoutNested,
			"the SPIRE server of one.test of cluster b is a nested one, and the file asks for that of another cluster; it cannot be changed once it is set: agents know their server by its keys"},
		"a nested server now": {withoutNested, nested,
			"the SPIRE server of one.test of cluster b is that of another cluster, and the file asks for a nested one; it cannot be changed once it is set: agents know their server by its keys"},
		"the nested one is the root now": {nested, func(t *testing.T) topology.Topology {
			t.Helper()
			return topologyOf(t, replaced(t, nestedFile(t), "nestedServers: [b]", "serverCluster: b, nestedServers: [a]"))
		}, "the SPIRE server of trust domain one.test is in cluster a, and the file asks for it in cluster b; it cannot be moved: agents and peers know it by its keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, tt.before(t)); err != nil {
					t.Fatal(err)
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

// A nested server that waits for its upstream says what it waits for.
func TestUpSaysWhatANestedServerWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		w.fault = func(call string) verdict {
			if n := w.nodes[nestedAt]; n != nil && call == "Pods.Started spire-server in b" {
				delete(n.objects, nestedEntryKey())
				n.reregister()
			}
			return pass
		}
		err := w.up(t, d, nested(t))
		const want = "the server in cluster a has no downstream entry of spiffe://one.test/fedlab/nested-server/b"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	})
}

// What a trust domain asks for besides its servers is the root's, except the datastore.
func TestNestedHasNoEndpointAndNoFiles(t *testing.T) {
	top := topologyOf(t, replaced(t, nestedFile(t), "nestedServers: [b]}",
		"nestedServers: [b], datastore: postgres, upstreamAuthority: disk, bundleEndpoint: {profile: https_web, httpsWeb: {servingCert: {}}}}"))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		wantWell(t, d, top)
		w.wantNoop(t, d, top)
		n := w.nodes[nestedAt]
		for _, name := range []string{spire.WebCASecret, spire.UpstreamAuthoritySecret, spire.KubeconfigsSecret} {
			if n.secret(name) != nil {
				t.Errorf("the nested server has the Secret %s", name)
			}
		}
		if n.release(spire.DatabaseRelease) == nil {
			t.Error("the nested server has no datastore of its own")
		}
	})
}
