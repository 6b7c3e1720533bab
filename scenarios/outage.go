package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// outage is what takes a part of SPIRE away, so that those who have an identity go on, and
// newcomers wait.
type outage struct {
	// away and back say how it is meanwhile and afterwards; take and give are the steps that
	// take it and give it back.
	away, back, take, give string
	fault                  func(trial.Domain) fault.Fault
	// agentsWait says that agents ask their server without success, and less and less often.
	agentsWait bool
	// both takes it away from the caller's trust domain, too.
	both bool
	// meanwhile has steps for what else there is to see; it may be nil.
	meanwhile func(called, caller trial.Domain)
}

// taken is an outage of a part of the called trust domain's cluster.
func taken(what string, f func(fault.Cluster) fault.Fault) outage {
	return outage{
		away: "the " + what + " was away", back: "the " + what + " is back",
		take: "take the " + what + " away", give: "give it back, and see the newcomer get its identity",
		fault: func(d trial.Domain) fault.Fault { return f(d.Fault()) },
	}
}

// run is the scenario of an outage.
func (o outage) run(ctx context.Context, t *trial.Trial) error {
	called, caller := t.Pair()
	of := []trial.Domain{called}
	calls := []*trial.Traffic{t.CallsThroughout(ctx, caller, called)}
	if o.both {
		of = append(of, caller)
		calls = append(calls, t.CallsThroughout(ctx, called, caller))
	}
	broken, guests := make([]*trial.Breakage, len(of)), make([]trial.Newcomer, len(of))
	each := func(name, look string, do func(ctx context.Context, i int) error) {
		t.StepWith(ctx, name, look, func(ctx context.Context) error {
			for i := range of {
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	each("see that a newcomer gets an identity while all is well", "", func(ctx context.Context, i int) (err error) {
		if guests[i], err = of[i].Welcome(ctx); err != nil {
			return err
		}
		// Its registration stays: the controller manager makes an entry of it for
		// each pod that comes.
		return guests[i].Remove(ctx)
	})
	each(o.take, "'fedlab status' says so", func(ctx context.Context, i int) (err error) {
		broken[i], err = t.Break(ctx, o.fault(of[i]))
		return err
	})
	if o.meanwhile != nil {
		o.meanwhile(called, caller)
	}
	each("let a newcomer come: it waits", "", func(ctx context.Context, i int) (err error) {
		if guests[i], err = of[i].Newcomer(ctx); err != nil {
			return err
		}
		if err := t.WaitFor(ctx, guests[i].Runs()); err != nil {
			return err
		}
		// As long as it would take, were all well.
		return t.Watch(ctx, "a newcomer waits", trial.Reconciled(), guests[i].Identity(), trial.NoIdentity)
	})
	each(o.give, "", func(ctx context.Context, i int) error {
		if err := broken[i].Recover(ctx); err != nil {
			return err
		}
		bound, window := trial.Reconciled(), broken[i].Window()
		if o.agentsWait {
			bound = trial.Resynchronised(window.Healed.Sub(window.Injected)).Plus(bound)
		}
		if err := t.Await(ctx, window.Healed, bound, guests[i].HasIdentity()); err != nil {
			return err
		}
		return t.See(ctx, "and gets its identity once "+o.back, guests[i].Identity(), guests[i].ID().String())
	})
	for _, c := range calls {
		t.StillAnswered(ctx, c, "see that those who had one never noticed", "no call failed while "+o.away+", though each made a new handshake")
	}
	return t.Err()
}

// parts are those of the claim of an outage: words that say who goes on, and who waits.
func (o outage) parts(goOn, wait string) []trial.Part {
	return []trial.Part{
		trial.Carried(goOn, "no call failed while "+o.away+", though each made a new handshake"),
		trial.Carried(wait, "a newcomer waits", "and gets its identity once "+o.back),
		trial.Carried("", "a newcomer whose registration fits gets its identity"),
	}
}

// What is taken away by more than one scenario, or with more to say than its fault.
func serverTaken() outage {
	o := taken("server", fault.ServerStopped)
	o.agentsWait = true
	return o
}

// datastoreTaken has agents wait longer, too: with the entries they ask for the bundle, which
// the server reads from its datastore.
func datastoreTaken() outage {
	o := taken("datastore", fault.DatastoreStopped)
	o.agentsWait = true
	return o
}

func serversTaken() outage {
	o := serverTaken()
	o.away, o.back, o.both = "the servers were away", "the servers are back", true
	o.take, o.give = "take the servers of both trust domains away", "give them back, and see the newcomers get their identities"
	return o
}

func banned() outage {
	return outage{
		away: "the agent was banned", back: "the server has forgotten the agent",
		take: "ban the agent", give: "have the server forget the agent, and see the newcomer get its identity",
		fault: func(d trial.Domain) fault.Fault { return fault.AgentBanned(d.Fault(), d.Server()) },
	}
}

var serverAway = trial.Scenario{
	Name:  "outage/server",
	Claim: "While a SPIRE server is away, workloads with an identity keep calling across the federation, and only new workloads wait.",
	Parts: serverTaken().parts("workloads with an identity keep calling across the federation", "only new workloads wait"),
	Sources: []string{
		"SPIRE doc/spire_agent.md: an agent hands out what it has cached",
		"spiffe/spire test/integration: connectivity with servers stopped",
	},
	Run: serverTaken().run,
}

// bothServersAway publishes JWT authorities afterwards: those of either trust domain can be
// replaced, whoever signs its X.509 authorities.
var bothServersAway = trial.Scenario{
	Name:  "outage/both-servers",
	Claim: "While the SPIRE servers of both trust domains are away, workloads with an identity keep calling each other, and only new workloads wait; once the servers are back, each fetches what the other publishes.",
	Parts: append(serversTaken().parts("workloads with an identity keep calling each other", "only new workloads wait"),
		trial.Carried("each fetches what the other publishes", "workloads get what the other trust domain publishes")),
	Needs: []trial.Need{fetchedBothWays},
	Sources: []string{
		"SPIRE doc/spire_agent.md: an agent hands out what it has cached",
		"SPIRE pkg/server/bundle/client/manager.go: a server that starts polls by the relationships that it has",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		if err := serversTaken().run(ctx, t); err != nil {
			return err
		}
		called, caller := t.Pair()
		for _, d := range []struct {
			of, by trial.Domain
			where  string
		}{{called, caller, "in the called trust domain"}, {caller, called, "in the caller's"}} {
			t.Step(ctx, "publish another key "+d.where, func(ctx context.Context) error {
				published := time.Now()
				r, err := d.of.Prepare(ctx, trial.JWT)
				if err != nil {
					return err
				}
				if err := t.Await(ctx, published, d.by.ToWorkloads(d.of), d.by.Has(d.of, trial.JWT, r.Next.ID)); err != nil {
					return err
				}
				return t.See(ctx, "workloads get what the other trust domain publishes", d.by.AuthorityOf(d.of, trial.JWT, r.Next.ID), trial.There)
			})
		}
		return t.Err()
	},
}

var datastoreAway = trial.Scenario{
	Name:  "outage/datastore",
	Claim: "While the datastore of a SPIRE server is away, workloads with an identity keep calling across the federation; new workloads and peers wait, because the server takes no entry and does not serve its bundle.",
	Parts: append(datastoreTaken().parts("workloads with an identity keep calling across the federation", "new workloads and peers wait"),
		trial.Carried("does not serve its bundle", "asked to fetch, the peer cannot", "and keeps the bundle that it has")),
	Needs: []trial.Need{postgresDatastore, fetched},
	Sources: []string{
		"SPIRE pkg/server/endpoints/bundle/server.go: 500 where the bundle cannot be read",
		"SPIRE pkg/server/server.go, CheckHealth: a server is well when it can read its bundle",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		o := datastoreTaken()
		o.meanwhile = func(called, caller trial.Domain) {
			t.Step(ctx, "see that its peer cannot fetch its bundle, and keeps the one that it has", func(ctx context.Context) error {
				held := heldBundle(caller, called.Name)
				before, err := held.Look(ctx)
				if err != nil {
					return err
				}
				// The endpoint may have the bundle in its cache for a second.
				if err := t.WaitFor(ctx, caller.Fetch(called).Is(trial.FetchRefused, trial.FetchHangs)); err != nil {
					return err
				}
				if err := caller.CannotFetch(ctx, called); err != nil {
					return err
				}
				return t.See(ctx, "and keeps the bundle that it has", held, before)
			})
		}
		if err := o.run(ctx, t); err != nil {
			return err
		}
		// Kubernetes may have seen it unwell, and does not look again at once.
		t.Step(ctx, "see that the server counts as well", func(ctx context.Context) error {
			called, _ := t.Pair()
			b := trial.Bound{Within: federation.HealthBound(), Formula: "the server's look at itself + Kubernetes' look at the server"}
			return t.Await(ctx, time.Now(), b, called.Ready())
		})
		return t.Err()
	},
}

var agentAway = trial.Scenario{
	Name:    "outage/agent",
	Claim:   "While a SPIRE agent is away, its workloads keep calling across the federation with the identity that they hold, and only new workloads wait.",
	Parts:   taken("agent", fault.AgentStopped).parts("its workloads keep calling across the federation with the identity that they hold", "only new workloads wait"),
	Sources: []string{"go-spiffe workloadapi.X509Source keeps what it has when the Workload API goes away"},
	Run:     taken("agent", fault.AgentStopped).run,
}

var agentBanned = trial.Scenario{
	Name:  "outage/agent-banned",
	Claim: "A SPIRE agent that is banned ends each time that it is started; its workloads keep calling across the federation with the identity that they hold, and only new workloads wait; once the server has forgotten the agent, it attests by itself.",
	Parts: append(banned().parts("its workloads keep calling across the federation with the identity that they hold", "only new workloads wait; once the server has forgotten the agent, it attests by itself"),
		trial.Carried("A SPIRE agent that is banned ends each time that it is started", "no agent runs while it is banned"), trial.Carried("", "an agent runs while it is not")),
	Sources: []string{
		"SPIRE pkg/agent/manager/manager.go: an agent that hears that it is banned ends",
		"SPIRE pkg/server/api/agent/v1/service.go: an agent that is banned cannot attest",
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (agent ban, agent evict)",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, _ := t.Pair()
		t.Step(ctx, "see that the agent runs", func(ctx context.Context) error {
			return t.See(ctx, "an agent runs while it is not", called.Agents(), trial.There)
		})
		o := banned()
		o.meanwhile = func(called, _ trial.Domain) {
			t.Step(ctx, "see it end each time that it is started", func(ctx context.Context) error {
				return t.Watch(ctx, "no agent runs while it is banned", trial.Reconciled(), called.Agents(), trial.Absent)
			})
		}
		return o.run(ctx, t)
	},
}

var controllerManagerHangs = trial.Scenario{
	Name:    "outage/controller-manager",
	Claim:   "While the controller manager hangs, workloads with an identity keep calling across the federation, and only new workloads wait.",
	Parts:   taken("controller manager", fault.ControllerManagerGone).parts("workloads with an identity keep calling across the federation", "only new workloads wait"),
	Sources: []string{"SPIRE Controller Manager pkg/spireentry: it makes an entry for each pod that comes"},
	Run:     taken("controller manager", fault.ControllerManagerGone).run,
}

var bundleConfigMapLost = trial.Scenario{
	Name:  "outage/bundle-configmap-lost",
	Claim: "If the ConfigMap is lost by which agents know their server, an agent that runs goes on to give identities; one that is made again does not start, its workloads keep calling with the identity that they hold, and new ones wait until the ConfigMap is there again.",
	Parts: append(taken("ConfigMap", fault.BundleLost).parts("its workloads keep calling with the identity that they hold", "new ones wait until the ConfigMap is there again"),
		trial.Carried("an agent that runs goes on to give identities", "an agent that runs gives a newcomer its identity"),
		trial.Carried("one that is made again does not start", "an agent that is made again does not start"),
		trial.Carried("", "an agent that is made again starts while all is well")),
	Sources: []string{
		"SPIRE doc/plugin_server_notifier_k8sbundle.md: the server writes the bundle when it starts and when it changes",
		"https://kubernetes.io/docs/concepts/storage/volumes/#configmap: a pod waits for a ConfigMap that is not there",
		"https://github.com/spiffe/spire/issues/3032",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, _ := t.Pair()
		var took trial.Bound
		t.Step(ctx, "have the agent's pod made again while all is well", func(ctx context.Context) error {
			began := time.Now()
			if err := remade(ctx, t, called); err != nil {
				return err
			}
			if err := t.WaitFor(ctx, called.Ready()); err != nil {
				return err
			}
			took = trial.Bound{Within: time.Since(began), Formula: "what it took while all was well"}
			return t.See(ctx, "an agent that is made again starts while all is well", called.Agents(), trial.There)
		})
		o := taken("ConfigMap", fault.BundleLost)
		o.meanwhile = func(called, _ trial.Domain) {
			t.Step(ctx, "see that a newcomer gets an identity from the agent that runs", func(ctx context.Context) error {
				guest, err := called.Newcomer(ctx)
				if err != nil {
					return err
				}
				if err := t.WaitFor(ctx, guest.Runs()); err != nil {
					return err
				}
				if err := t.Await(ctx, time.Now(), trial.Reconciled(), guest.HasIdentity()); err != nil {
					return err
				}
				err = t.See(ctx, "an agent that runs gives a newcomer its identity", guest.Identity(), guest.ID().String())
				return errors.Join(err, guest.Remove(ctx))
			})
			t.Step(ctx, "have the agent's pod made again: it does not start", func(ctx context.Context) error {
				if err := remade(ctx, t, called); err != nil {
					return err
				}
				return t.Watch(ctx, "an agent that is made again does not start", took, called.Agents(), trial.Absent)
			})
		}
		return o.run(ctx, t)
	},
}

// remade has the pods of agents made again, and waits until those of before are gone.
func remade(ctx context.Context, t *trial.Trial, d trial.Domain) error {
	if err := d.RestartAgents(ctx); err != nil {
		return err
	}
	return t.WaitFor(ctx, d.Agents().Is(trial.Absent))
}

var webhookAway = trial.Scenario{
	Name:  "outage/webhook",
	Claim: "While the webhook of the controller manager is away, Kubernetes takes no change of a ClusterFederatedTrustDomain or a ClusterSPIFFEID; those that it has count as before, so that new workloads get their identity, and no call fails.",
	Parts: []trial.Part{
		trial.Carried("Kubernetes takes no change of a ClusterFederatedTrustDomain or a ClusterSPIFFEID", "Kubernetes refuses a change", "and takes it once the webhook is back"),
		trial.Carried("new workloads get their identity", "a newcomer gets its identity meanwhile"),
		trial.Carried("no call fails", "no call failed"),
		trial.Carried("", "Kubernetes takes a change while all is well", "a newcomer whose registration fits gets its identity"),
	},
	Needs: []trial.Need{byResource},
	Sources: []string{
		"https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#failure-policy",
		"SPIRE Controller Manager api/v1alpha1/clusterspiffeid_webhook.go and clusterfederatedtrustdomain_webhook.go: what is created or updated is validated",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var broken *trial.Breakage
		var guest trial.Newcomer
		calls := t.CallsThroughout(ctx, caller, called)
		names := 0
		changes := []trial.Fact{
			changeOf(t, "ClusterFederatedTrustDomain", func(ctx context.Context) error { return caller.EditRelationship(ctx, called, writtenOtherwise) }),
			changeOf(t, "ClusterSPIFFEID", func(ctx context.Context) error {
				names++
				return caller.EditRegistration(ctx, alsoCalled(fmt.Sprintf("name-%d", names)))
			}),
		}
		see := func(ctx context.Context, says, want string) error {
			for _, c := range changes {
				if err := t.See(ctx, says, c, want); err != nil {
					return err
				}
			}
			return nil
		}
		t.Step(ctx, "change a relationship and a registration, and see Kubernetes take both", func(ctx context.Context) (err error) {
			if err := see(ctx, "Kubernetes takes a change while all is well", changeTaken); err != nil {
				return err
			}
			if guest, err = caller.Welcome(ctx, called.Name); err != nil {
				return err
			}
			return guest.Remove(ctx)
		})
		t.Step(ctx, "cut the webhook off", func(ctx context.Context) (err error) {
			broken, err = t.Break(ctx, fault.WebhookCut(caller.Fault()))
			return err
		})
		t.StepWith(ctx, "change both again: Kubernetes refuses that", "kubectl says that it failed to call the webhook", func(ctx context.Context) error {
			return see(ctx, "Kubernetes refuses a change", changeRefused)
		})
		t.Step(ctx, "let another newcomer come that fits the registration", func(ctx context.Context) (err error) {
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if err := t.WaitFor(ctx, guest.Runs()); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), trial.Reconciled(), guest.HasIdentity()); err != nil {
				return err
			}
			return t.See(ctx, "a newcomer gets its identity meanwhile", guest.Identity(), guest.ID().String())
		})
		t.Step(ctx, "give the webhook back, and see Kubernetes take changes again", func(ctx context.Context) error {
			if err := broken.Recover(ctx); err != nil {
				return err
			}
			if err := t.WaitFor(ctx, changes[0].Is(changeTaken), changes[1].Is(changeTaken)); err != nil {
				return err
			}
			return see(ctx, "and takes it once the webhook is back", changeTaken)
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

// What comes of a change that Kubernetes is asked for.
const (
	changeTaken   = "taken"
	changeRefused = "refused"
)

// changeOf is what comes of a change of a resource.
func changeOf(t *trial.Trial, kind string, change func(context.Context) error) trial.Fact {
	return trial.Fact{Of: "a change of a " + kind, Well: changeTaken, Look: func(ctx context.Context) (string, error) {
		if err := change(ctx); err != nil {
			t.Seen("%v", err)
			return changeRefused, nil
		}
		return changeTaken, nil
	}}
}

// writtenOtherwise writes the address of an endpoint in other words.
func writtenOtherwise(spec *spire.FederatedTrustDomainSpec) {
	bare, slash := strings.CutSuffix(spec.BundleEndpointURL, "/")
	if !slash {
		bare += "/"
	}
	spec.BundleEndpointURL = bare
}

// alsoCalled gives a registration a DNS name more.
func alsoCalled(name string) func(*spire.WorkloadIdentitySpec) {
	return func(spec *spire.WorkloadIdentitySpec) {
		spec.DNSNameTemplates = append(spec.DNSNameTemplates, name+".{{ .TrustDomain }}")
	}
}

// unreached is how calls end that go to a cluster that is not there.
var unreached = []traffic.Outcome{traffic.Unreachable, traffic.NoAnswer}

var clusterOff = trial.Scenario{
	Name:  "outage/cluster",
	Claim: "When a whole cluster stops, only calls to it fail; when it is back, they are answered again, and nobody has to do anything.",
	Parts: []trial.Part{
		trial.Carried("When a whole cluster stops, only calls to it fail", "no call is answered while the cluster is off", "a newcomer whose registration fits gets its identity"),
		trial.Carried("when it is back, they are answered again, and nobody has to do anything", "calls fail while the cluster is off or starting, and never else"),
	},
	Labels: []string{Slow},
	Needs:  []trial.Need{apart},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var broken *trial.Breakage
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "switch the called one's cluster off", "the demo's page says that nobody answers", func(ctx context.Context) (err error) {
			if broken, err = t.Break(ctx, fault.ClusterStopped(called.Fault())); err != nil {
				return err
			}
			return t.Soon(ctx, calls.Ends(unreached...))
		})
		t.Step(ctx, "see that the other cluster gives newcomers their identity meanwhile", func(ctx context.Context) error {
			_, err := caller.Welcome(ctx, called.Name)
			return err
		})
		t.Step(ctx, "switch it on again, and wait", func(ctx context.Context) error {
			if err := broken.Recover(ctx); err != nil {
				return err
			}
			if err := t.WaitFor(ctx, calls.Ends(traffic.Answered)); err != nil {
				return err
			}
			calls.NoneAnswered("no call is answered while the cluster is off", broken.Window().Felt, broken.Window().Recovered)
			calls.FailsOnlyBetween("calls fail while the cluster is off or starting, and never else", broken.Window().Injected, time.Now())
			return t.Await(ctx, time.Now(), caller.ToServer(called), caller.InState(called, federation.InSync))
		})
		t.Step(ctx, "see more calls come through", func(ctx context.Context) error { return t.Stays(ctx, trial.Calls(5), calls.Ends(traffic.Answered)) })
		return t.Err()
	},
}

var clustersParted = trial.Scenario{
	Name:  "outage/partition",
	Claim: "A partition in one direction stops only the calls of that direction, and a partition in both directions stops both; what was published meanwhile arrives within one poll of its end, or of the end of a fetch that it caught, which SPIRE gives up after 30 seconds.",
	Parts: []trial.Part{
		trial.Carried("A partition in one direction stops only the calls of that direction", "no call comes through a direction that is parted", "calls of the other direction go on while one is parted"),
		trial.Carried("a partition in both directions stops both", "and through neither when both are"),
		trial.Carried("what was published meanwhile arrives", "calls are answered again once both directions are joined", "what was published meanwhile has arrived"),
	},
	Needs: []trial.Need{apart, fetched, rotates},
	Sources: []string{
		"SPIRE pkg/server/bundle/client/client.go: the transport is net/http's own, which has 30 seconds for a connection",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var there, back *trial.Traffic
		var one, both *trial.Breakage
		var r *trial.Rotation
		t.Step(ctx, "call in both directions", func(ctx context.Context) (err error) {
			if there, err = t.Traffic(ctx, caller, called, trial.Call{}); err != nil {
				return err
			}
			back, err = t.Traffic(ctx, called, caller, trial.Call{})
			return err
		})
		t.Step(ctx, "part the caller's cluster from the called one's, in this direction alone", func(ctx context.Context) (err error) {
			if one, err = t.Break(ctx, fault.PartitionOneWay(caller.Fault(), called.Fault())); err != nil {
				return err
			}
			if err := t.Soon(ctx, there.Ends(unreached...)); err != nil {
				return err
			}
			return t.Stays(ctx, trial.CallsInVain(2), back.Ends(traffic.Answered))
		})
		t.Step(ctx, "join them again", func(ctx context.Context) error {
			if err := one.Recover(ctx); err != nil {
				return err
			}
			return t.Await(ctx, one.Window().Recovered, trial.NextCall(), there.Ends(traffic.Answered))
		})
		t.Step(ctx, "part them in both directions, and publish another authority", func(ctx context.Context) (err error) {
			back.AnsweredBetween("calls of the other direction go on while one is parted", time.Time{}, time.Now())
			if both, err = t.Break(ctx, fault.Partition(caller.Fault(), called.Fault())); err != nil {
				return err
			}
			if err := t.Soon(ctx, there.Ends(unreached...), back.Ends(unreached...)); err != nil {
				return err
			}
			if r, err = called.Prepare(ctx, trial.X509); err != nil {
				return err
			}
			return t.Stays(ctx, trial.CallsInVain(2), there.Ends(unreached...))
		})
		t.Step(ctx, "join them, and wait until the authority is there", func(ctx context.Context) error {
			if err := both.Recover(ctx); err != nil {
				return err
			}
			joined := both.Window().Recovered
			for _, s := range []*trial.Traffic{there, back} {
				s.AnsweredBy("calls are answered again once both directions are joined", joined, trial.NextCall())
			}
			if err := t.Await(ctx, joined, trial.NextCall(), there.Ends(traffic.Answered), back.Ends(traffic.Answered)); err != nil {
				return err
			}
			b := trial.Bound{Within: federation.CaughtBound(), Formula: "a fetch that the partition has caught"}.Plus(caller.ToWorkloads(called))
			b.Propagation = true
			if err := t.Await(ctx, joined, b, caller.Has(called, trial.X509, r.Next.ID)); err != nil {
				return err
			}
			return t.See(ctx, "what was published meanwhile has arrived", caller.AuthorityOf(called, trial.X509, r.Next.ID), trial.There)
		})
		t.Step(ctx, "count", func(context.Context) error {
			there.NoneAnswered("no call comes through a direction that is parted", one.Window().Felt, one.Window().Recovered)
			for _, s := range []*trial.Traffic{there, back} {
				s.NoneAnswered("and through neither when both are", both.Window().Felt, both.Window().Recovered)
			}
			return nil
		})
		return t.Err()
	},
}
