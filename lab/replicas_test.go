package lab_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab/spire"
)

// The webhook of each replica is looked at, and the next up starts that pod again.
func TestWebhookOfAReplica(t *testing.T) {
	pair := topologyOf(t, strings.Replace(spreadFile(t), "  federation:\n", "  trustDomains:\n    - {name: one.test, serverReplicas: 2, datastore: postgres}\n  federation:\n", 1))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, pair); err != nil {
			t.Fatal(err)
		}
		w.nodes[serverAt].spire.staleReplica = "spire-server-1"
		s, err := d.Status(t.Context(), pair)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Join(problems(s), "\n"), "one.test: the webhook of its controller manager in spire-server-1: it presents an X509-SVID that"; !strings.HasPrefix(got, want) {
			t.Errorf("problems\n%s\nwant\n%s", got, want)
		}
		if err := w.up(t, d, pair); err != nil {
			t.Fatal(err)
		}
		wantWell(t, d, pair)
	})
}

// A trust domain with two servers is asked by the one that runs.
func TestOneOfTwoServers(t *testing.T) {
	pair := topologyOf(t, strings.Replace(spreadFile(t), "  federation:\n", "  trustDomains:\n    - {name: one.test, serverReplicas: 2, datastore: postgres}\n  federation:\n", 1))
	for _, away := range []string{spire.ServerPod, "spire-server-1"} {
		t.Run(away, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, pair); err != nil {
					t.Fatal(err)
				}
				wantWell(t, d, pair)
				w.wantNoop(t, d, pair)

				n := w.nodes[serverAt]
				n.spire.away, n.server().unready = away, "1 of 2 pods are ready: "+away+": not there"
				s, err := d.Status(t.Context(), pair)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := strings.Join(problems(s), "\n"), "one.test: 1 of 2 pods are ready: "+away+": not there"; got != want {
					t.Errorf("problems\n%s\nwant\n%s", got, want)
				}
				if td := s.TrustDomains[0]; td.Agents != 2 || td.Entries != 2 {
					t.Errorf("the other server is not asked: %+v", td)
				}
				l, err := d.Open(t.Context(), pair)
				if err != nil {
					t.Fatal(err)
				}
				server := l.Graph.Domains[0].Server()
				site, err := d.Site(t.Context(), server)
				if err != nil {
					t.Fatal(err)
				}
				if site.Pod == away {
					t.Errorf("it leads to %s, which does not run", site.Pod)
				}
				_, err = d.Replicas(t.Context(), server)
				if err == nil || !strings.HasPrefix(err.Error(), "connect to "+away+": ") {
					t.Errorf("all replicas: error is %v, want one about %s", err, away)
				}
				for _, closed := range []interface{ Close() error }{site, l} {
					if err := closed.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}
