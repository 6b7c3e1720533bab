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
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// hostOf returns a host of the lab of these tests.
func (w *world) hostOf(name string) *machine { return w.hosts[nodeName{"partner", name}] }

// up brings the lab of these tests up, in a world of its own.
func upWithHosts(t *testing.T, do func(t *testing.T, w *world, d *lab.Driver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, hosted(t)); err != nil {
			t.Fatal(err)
		}
		do(t, w, d)
	})
}

// TestUpWithHosts: a lab with hosts comes up, is well, stays as it is when it is brought up
// again, and is gone after a down.
func TestUpWithHosts(t *testing.T) {
	t.Parallel()
	upWithHosts(t, func(t *testing.T, w *world, d *lab.Driver) {
		t.Helper()
		for _, line := range []string{
			"partner/market entry spiffe://company.com/client, federates with [\"partner.example.com\"]",
			"partner/market agent in onprem",
			"partner/market trusts partner.example.com at https://10.192.3.1:8443: in sync, polls true",
			"host partner/partner trusts company.com at https://10.192.1.1:8443: in sync, polls true",
			"host partner/partner agent in partner",
			"host partner/partner agent in partner-branch",
			"host partner/partner entry spiffe://partner.example.com/server, federates with [\"company.com\"]",
			"host partner/partner entry spiffe://partner.example.com/client, federates with [\"company.com\"]",
		} {
			if !strings.Contains(w.dump(), line) {
				t.Errorf("there is no line %s in\n%s", line, w.dump())
			}
		}
		s, err := d.Status(t.Context(), hosted(t))
		if err != nil || !s.Well {
			t.Errorf("error %v, problems %q", err, s.Problems())
		}
		drift, err := d.Drift(t.Context(), hosted(t))
		if err != nil || !drift.Well || len(drift.Held) != 2 {
			t.Errorf("error %v, drift %+v", err, drift)
		}
		w.wantNoop(t, d, hosted(t))
		w.mutations = nil
		if _, err := w.downOf(t, d, "partner"); err != nil || w.mutations[len(w.mutations)-1] != "Networks.Remove" {
			t.Errorf("error %v, changed %q", err, w.mutations)
		}
		w.want(t, "")
	})
}

// TestUpWithHostsIsCutOff: an up of which a call for a host fails once, or is the last one.
// The next up goes on from there.
func TestUpWithHostsIsCutOff(t *testing.T) {
	want := fresh(t, hosted(t), (*world).dump)
	var calls []string
	for _, call := range strings.Split(fresh(t, hosted(t), func(w *world) string { return strings.Join(w.calls, "\n") }), "\n") {
		of := strings.HasPrefix(call, "Hosts.") || strings.HasPrefix(call, "OnHost.") || strings.HasPrefix(call, "SPIRE ") && strings.HasSuffix(call, " in partner")
		if of && !slices.Contains(calls, call) {
			calls = append(calls, call)
		}
	}
	if len(calls) < 20 {
		t.Fatalf("only the calls %q", calls)
	}
	verdicts := map[string]verdict{"fails once": fail, "killed before": killBefore, "killed after": killAfter}
	var names []string
	for _, call := range calls {
		for what := range verdicts {
			names = append(names, call+"/"+what)
		}
	}
	slices.Sort(names)
	for _, name := range sample(t, names, 40) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				at := strings.LastIndex(name, "/")
				v := verdicts[name[at+1:]]
				w.fault = once(name[:at], v)
				if err := w.up(t, d, hosted(t)); err == nil && v != fail {
					t.Error("it ended well")
				}
				if err := w.up(t, d, hosted(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
			})
		})
	}
}

// TestUpRepairsHosts: what is not as it should be is seen by status, and the next up repairs
// it. An agent that is there and known keeps its SPIFFE ID.
func TestUpRepairsHosts(t *testing.T) {
	want := fresh(t, hosted(t), (*world).dump)
	const noEntry = "workload partner-quotes: no entry of spiffe://partner.example.com/server is for the agent of host partner"
	for name, tt := range map[string]struct {
		spoil func(*world)
		// problem is what status says.
		problem string
		// joins is whose agent attests with another token.
		joins string
	}{
		"a container of the agent is gone": {
			func(w *world) { w.hostOf("partner").end("agent") }, "host partner: host partner has no program agent", "",
		},
		"a container of the server is gone": {
			func(w *world) { w.hostOf("partner").end("server") }, "host partner: host partner has no program server", "",
		},
		"the machine was switched off": {
			func(w *world) {
				for _, p := range w.hostOf("partner").programs {
					p.ended = "SIGKILL"
				}
			}, "host partner: owner on host partner is stopped", "",
		},
		"the owner of the PID namespace is gone": {
			func(w *world) { w.hostOf("onprem").end("owner") }, "host onprem: host onprem has no program owner", "",
		},
		"an agent has lost its data": {
			func(w *world) {
				w.hostOf("partner-branch").end("agent")
				w.hostOf("partner-branch").lose("agent")
			}, "host partner-branch: host partner-branch has no program agent", "partner-branch",
		},
		"an agent was forgotten": {
			func(w *world) { delete(w.hostOf("partner").spire.attested, w.hostOf("partner").joined) },
			"trust domain partner.example.com: agent is not ready: it answers 503 Service Unavailable: Agent needs to re-attest: removing SVID and shutting down", "partner",
		},
		"an agent of the cluster's server was forgotten": {
			func(w *world) {
				s := w.nodes[nodeName{"partner", "market"}].spire
				for id := range s.attested {
					delete(s.attested, id)
				}
			}, "trust domain company.com: in host onprem: agent is not ready: it answers 503 Service Unavailable: Agent needs to re-attest: removing SVID and shutting down", "onprem",
		},
		"an entry was deleted": {
			func(w *world) { delete(w.hostOf("partner").spire.entries, "spiffe://partner.example.com/server") },
			"workload partner-quotes: no entry has the SPIFFE ID spiffe://partner.example.com/server", "",
		},
		"an entry has other selectors": {
			func(w *world) {
				w.hostOf("partner").spire.selectors["spiffe://partner.example.com/server"] = []string{"unix:uid:0"}
			}, noEntry, "",
		},
		"an entry federates with nobody": {
			func(w *world) { w.hostOf("partner").spire.entries["spiffe://partner.example.com/server"] = nil },
			"relationship partner.example.com->company.com: the entry of spiffe://partner.example.com/server does not federate with company.com", "",
		},
		"a relationship was deleted": {
			func(w *world) { clear(w.hostOf("partner").spire.relationships) },
			"relationship partner.example.com->company.com: the server of partner.example.com has no relationship with company.com", "",
		},
		"a relationship leads elsewhere": {
			func(w *world) {
				for _, r := range w.hostOf("partner").spire.relationships {
					r.url = "https://10.192.9.9:8443"
				}
			}, "relationship partner.example.com->company.com: market does not get through to the bundle endpoint https://10.192.9.9:8443: connection refused", "",
		},
		"an entry lets a workload sign authorities": {
			func(w *world) { w.hostOf("partner").spire.downstream["spiffe://partner.example.com/server"] = true }, "", "",
		},
		"a workload runs as somebody else": {
			func(w *world) {
				p := w.hostOf("partner").programs["run-partner-quotes"]
				p.User = 0
				p.text = w.hostOf("partner").made(p.HostProgram)
			}, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upWithHosts(t, func(t *testing.T, w *world, d *lab.Driver) {
				t.Helper()
				before := map[string]spiffeid.ID{}
				for key, m := range w.hosts {
					before[key.cluster] = m.joined
				}
				tt.spoil(w)
				s, err := d.Status(t.Context(), hosted(t))
				if err != nil || tt.problem != "" && (s.Well || !slices.ContainsFunc(s.Problems(), func(p string) bool { return strings.HasPrefix(p, tt.problem) })) {
					t.Errorf("error %v, problems\n%s\nwant %s", err, strings.Join(s.Problems(), "\n"), tt.problem)
				}
				if err := w.up(t, d, hosted(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
				for id := range w.hostOf("partner").spire.downstream {
					t.Errorf("%s may sign authorities", id)
				}
				for host, was := range before {
					if again := w.hostOf(host).joined != was; again != (host == tt.joins) {
						t.Errorf("the agent on host %s has attested again: %t", host, again)
					}
				}
				if s, err := d.Status(t.Context(), hosted(t)); err != nil || !s.Well {
					t.Errorf("error %v, problems %q", err, s.Problems())
				}
			})
		})
	}
}

// A program that has ended starts again only with another up: this one says why, at once.
func TestUpSaysWhatEndedOnAHost(t *testing.T) {
	for _, program := range []string{"server", "run-partner-quotes"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.dies = map[string]string{program: "exit code 1"}
				began := time.Now()
				err := w.up(t, w.driver(t), hosted(t))
				if want := program + " on host partner is stopped; it wrote last: fatal"; err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v, want in it %s", err, want)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %s", took)
				}
				w.dies = nil
				if err := w.up(t, w.driver(t), hosted(t)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestUpTidiesHosts: what the file no longer has goes, and takes along what servers know of
// it.
func TestUpTidiesHosts(t *testing.T) {
	for name, texts := range map[string][]string{
		"a workload of a host":            {"    - {name: partner-quotes, app: stock-quotes, host: partner}\n", "", ", host: onprem, trustDomain: company.com, calls: [partner-quotes]", ", host: onprem, trustDomain: company.com, calls: [stock-quotes]"},
		"a workload below a cluster's":    {"    - {name: onprem-broker, app: broker-webapp, host: onprem, trustDomain: company.com, calls: [partner-quotes]}\n", ""},
		"a host of a host's trust domain": {"    - {name: partner-branch, trustDomain: partner.example.com}\n", ""},
		"a host of a cluster's": {
			"    - {name: onprem, trustDomain: company.com}\n", "",
			"    - {name: onprem-broker, app: broker-webapp, host: onprem, trustDomain: company.com, calls: [partner-quotes]}\n", "",
		},
		"the federation": {
			"  federation:\n    - {between: [company.com, partner.example.com]}\n", "",
			", calls: [stock-quotes]}", ", calls: [partner-quotes]}", ", trustDomain: company.com, calls: [partner-quotes]}", ", trustDomain: company.com, calls: [stock-quotes]}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := fresh(t, hosted(t, texts...), (*world).dump)
			upWithHosts(t, func(t *testing.T, w *world, d *lab.Driver) {
				t.Helper()
				if err := w.up(t, d, hosted(t, texts...)); err != nil {
					t.Fatal(err)
				}
				if name != "a workload of a host" && name != "a host of a cluster's" { // what stays has the place that it had
					w.want(t, want)
				}
				w.wantNoop(t, d, hosted(t, texts...))
				if s, err := d.Status(t.Context(), hosted(t, texts...)); err != nil || !s.Well {
					t.Errorf("error %v, problems %q", err, s.Problems())
				}
				for _, gone := range []string{"onprem", "partner-branch"} {
					if slices.ContainsFunc(hosted(t, texts...).Hosts, func(h topology.HostSpec) bool { return h.Name == gone }) {
						continue
					}
					if strings.Contains(w.dump(), "agent in "+gone) || w.hostOf(gone) != nil {
						t.Errorf("something of host %s is left:\n%s", gone, w.dump())
					}
				}
			})
		})
	}
}

// TestSurplusHostIsSeen: status reports a host that the file does not have.
func TestSurplusHostIsSeen(t *testing.T) {
	t.Parallel()
	upWithHosts(t, func(t *testing.T, _ *world, d *lab.Driver) {
		t.Helper()
		s, err := d.Status(t.Context(), hosted(t, "    - {name: partner-branch, trustDomain: partner.example.com}\n", ""))
		const want = "host partner-branch: host partner-branch is there, and the file does not have it"
		if err != nil || s.Well || !slices.Contains(s.Problems(), want) {
			t.Errorf("error %v, problems %q", err, s.Problems())
		}
	})
}

// TestHostsCannotBecomeOthers: what agents and peers know a host or a server by stays.
func TestHostsCannotBecomeOthers(t *testing.T) {
	const keys = "; it cannot be moved: agents and peers know it by its keys"
	for want, texts := range map[string][]string{
		"the SPIRE server of trust domain partner.example.com is in host partner, and the file asks for it in host partner-branch" + keys: {
			"    - {name: partner, trustDomain: partner.example.com}\n    - {name: partner-branch, trustDomain: partner.example.com}\n",
			"    - {name: partner-branch, trustDomain: partner.example.com}\n    - {name: partner, trustDomain: partner.example.com}\n",
		},
		"the SPIRE server of trust domain partner.example.com is in host partner, and the file asks for it in cluster second" + keys: {
			"  hosts:\n", "    - {name: second, trustDomain: partner.example.com}\n  hosts:\n",
		},
		"the trust domain of host partner-branch is partner.example.com, and the file asks for company.com; it cannot be changed once it is set: every identity in it would be another": {
			"{name: partner-branch, trustDomain: partner.example.com}", "{name: partner-branch, trustDomain: company.com}",
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			upWithHosts(t, func(t *testing.T, w *world, d *lab.Driver) {
				t.Helper()
				before := w.dump()
				err := w.up(t, d, hosted(t, texts...))
				if mismatch := (*lab.MismatchError)(nil); !errors.As(err, &mismatch) || !slices.Equal(mismatch.Differences, []string{want}) {
					t.Errorf("error %v", err)
				}
				w.want(t, before)
			})
		})
	}
}

// TestOpenWithHosts: a handle on a lab leads to servers on hosts, too, and is given only when
// all of them run.
func TestOpenWithHosts(t *testing.T) {
	t.Parallel()
	upWithHosts(t, func(t *testing.T, w *world, d *lab.Driver) {
		t.Helper()
		l, err := d.Open(t.Context(), hosted(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range l.Graph.Servers() {
			site, err := l.Site(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := l.Site(t.Context(), s); again != site || err != nil {
				t.Errorf("another connection to %s, error %v", s.Domain, err)
			}
			agents, err := site.API.Agents(t.Context())
			if err != nil || len(agents) != 2 {
				t.Errorf("server of %s: agents %v, error %v", s.Domain, agents, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		w.hostOf("partner").end("server")
		site, err := d.Site(t.Context(), l.Graph.Servers()[1])
		const want = "lab partner is not up: host partner has no program server"
		if notUp := (*lab.NotUpError)(nil); !errors.As(err, &notUp) || err.Error() != want || site != nil {
			t.Errorf("site: error %v", err)
		}
		if _, err := d.Open(t.Context(), hosted(t)); fmt.Sprint(err) != want {
			t.Errorf("open: error %v", err)
		}
	})
}
