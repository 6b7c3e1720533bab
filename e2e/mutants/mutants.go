// Package mutants says which mutation is tried on which scenario, and by what each must be
// caught.
//
// It refuses to know how a scenario runs: the suite runs them.
package mutants

import "github.com/fedlab-dev/fedlab/scenarios/mutant"

// Mutant is a scenario in which one thing is wrong on purpose.
type Mutant struct {
	Scenario string
	Mutation mutant.Mutation
	// Caught is the step that must fail, or the verdict that must not hold: what
	// fails for another reason proves nothing.
	Caught string
}

const (
	cured  = "and calls are answered again after it"
	waits  = "let a newcomer come: it waits"
	noCall = "no call failed, though each made a new handshake"
)

// All returns the mutants, in the order of the catalogue.
func All() []Mutant {
	return []Mutant{
		{"rotation/x509-authority", mutant.SkipTaint, "taint the old one, so that all it has signed is replaced"},
		{"rotation/x509-authority", mutant.KeepOldBundle, "revoke the old one, and wait until the peer has dropped it"},
		{"rotation/x509-authority", mutant.NeverRefresh, "publish the next authority before anything is signed with it"},
		{"rotation/x509-authority", mutant.KillWorkload, "no call failed from the first step to the last"},
		{"rotation/revoked-too-early", mutant.KeepOldBundle, "taint the old one, and revoke it in the same breath"},
		{"rotation/revoked-too-early", mutant.NoCure, cured},
		{"rotation/jwt-authority", mutant.KeepOldBundle, "taint and revoke the old one, and wait until the peer refuses its token"},
		{"rotation/natural", mutant.NoFault, "wait for generation 1 to sign"},
		{"rotation/faster-than-refresh", mutant.NeverRefresh, "force a refresh"},
		{"rotation/faster-than-refresh", mutant.AcceptAny, "each call fails from soon after until the forced refresh"},
		{"rotation/below-upstream-root", mutant.KillWorkload, "no call failed"},
		{"rotation/serving-certificate", mutant.NoFault, "the next certificate is shown"},

		{"outage/server", mutant.RecoverEarly, waits},
		{"outage/server", mutant.RecordNothing, "no call failed while the server was away, though each made a new handshake"},
		{"outage/both-servers", mutant.RecoverEarly, waits},
		{"outage/replica", mutant.KillWorkload, "no call failed while one of the servers was away, though each made a new handshake"},
		{"outage/server-killed", mutant.KillWorkload, noCall},
		{"outage/server-data-lost", mutant.NoCure, cured},
		{"outage/datastore", mutant.RecoverEarly, "see that its peer cannot fetch its bundle, and keeps the one that it has"},
		{"outage/agent", mutant.RecoverEarly, waits},
		{"outage/agent-killed", mutant.KillWorkload, noCall},
		{"outage/agent-banned", mutant.RecoverEarly, "see it end each time that it is started"},
		{"outage/bundle-configmap-lost", mutant.RecoverEarly, "have the agent's pod made again: it does not start"},
		{"outage/controller-manager", mutant.RecoverEarly, waits},
		{"outage/webhook", mutant.RecoverEarly, "change both again: Kubernetes refuses that"},
		{"outage/bundle-endpoint", mutant.RecoverEarly, "publish another authority, which nobody can fetch"},
		{"outage/cluster", mutant.NoFault, "switch the called one's cluster off"},
		{"outage/partition", mutant.RecoverEarly, "part the caller's cluster from the called one's, in this direction alone"},
		{"outage/laptop-sleep", mutant.RecoverEarly, "until SVIDs are replaced each call fails, because they have expired"},
		{"outage/long-connections", mutant.KillWorkload, "by the connection that was open at first"},
		{"outage/long-connections", mutant.KeepOldBundle, "replace the authorities of both, and wait until neither is trusted any more"},
		{"outage/missing-bundle-blocks-identity", mutant.NoCure, "and it can after it"},
		{"outage/hung-endpoint-freezes-configuration", mutant.NoCure, "let the endpoint answer, and see all go on"},

		{"federation/no-route", mutant.NoFault, "the endpoint does not answer the peer"},
		{"federation/no-route", mutant.KeepOldBundle, "revoke the old one, and carry the bundle over again"},
		{"upgrade/server", mutant.KillWorkload, "no call failed"},
		{"upgrade/agent", mutant.KillWorkload, "no call failed"},

		{"drift/deleted", mutant.NoCure, cured},
		{"drift/deleted", mutant.AcceptAny, "each call fails from soon after the deletion until the bundle is handed over"},
		{"drift/delete-modes", mutant.RecoverEarly, "delete it with dissociate: the entry stays, without it"},
		{"drift/delete-modes", mutant.NoCure, cured},
		{"drift/tampered", mutant.NoFault, "let it try under the name of the called one"},
		{"drift/tampered", mutant.NoAuthentication, "let it try under the name of the called one"},
		{"drift/wrong-domain", mutant.RecoverEarly, "hand its bundle over as that of the called one"},
		{"drift/rolled-back", mutant.NoCure, cured},
		{"drift/emptied", mutant.NoCure, cured},
		{"drift/lying-endpoint", mutant.NoCure, "have its endpoint answer with a bundle without a list of keys"},
		{"drift/lying-endpoint", mutant.NoFault, "have its endpoint answer with a bundle without a key"},
		{"drift/crd-edit-is-ignored", mutant.KillWorkload, "no call failed"},
		{"drift/crd-edit-rolls-back", mutant.NoCure, cured},
		{"drift/two-resources", mutant.RecoverEarly, "delete the first one: the second one counts"},
		{"drift/relationship-by-command-is-removed", mutant.RecoverEarly, "let the controller manager hang, and make a relationship by the server's API: it stays, and the bundle is fetched"},
		{"drift/removal-keeps-bundle", mutant.NoFault, "delete the bundle as well"},
		{"drift/removal-keeps-bundle", mutant.RecordNothing, "no call fails while only the relationship is gone"},
		{"drift/stale-bootstrap-deadlock", mutant.NoCure, cured},
		{"drift/stale-by-web-certificate", mutant.SkipTaint, "replace the authority meanwhile, to the end"},
		{"drift/stale-by-hand", mutant.NoCure, cured},

		{"auth/not-federated", mutant.NoFault, "see it refused where the entry of the called workload does not federate with it"},
		{"auth/not-federated", mutant.NoCure, cured},
		{"auth/not-federated", mutant.RecordNothing, "it is refused where its bundle is not held"},
		{"auth/one-way", mutant.RecoverEarly, "it refuses JWT-SVIDs of the side that trusts"},
		{"auth/entry-without-federatesWith", mutant.NoCure, cured},
		{"auth/selector-too-narrow", mutant.NoCure, "and it can after it"},
		{"auth/selector-too-broad", mutant.RecoverEarly, "register the probe once more, with its namespace for the only selector"},
		{"auth/wrong-parent", mutant.RecoverEarly, "let another one come whose entry is below the agent of another node"},
		{"auth/two-identities", mutant.RecoverEarly, "make the first one again, so that it is the younger"},
		{"auth/wrong-endpoint-id", mutant.NoCure, "expect the right one again, and see it arrive"},
		{"auth/wrong-profile", mutant.RecoverEarly, "see that no fetch succeeds while the relationship expects the other profile"},
		{"auth/impersonation-across-domains", mutant.NoFault, "none of its calls under another's name is answered"},
		{"auth/impersonation-across-domains", mutant.NoAuthentication, "none of its calls under another's name is answered"},
		{"auth/wrong-svid", mutant.NoAuthentication, "none of its calls with a wrong X509-SVID is answered"},
		{"auth/no-identity", mutant.NoCure, "and they are after it"},
		{"auth/expired-svid", mutant.NoCure, "and each does with a new one"},
		{"auth/token", mutant.KeepOldBundle, "revoke the key, and wait until the peer refuses what it has signed"},
		{"auth/resumed-session-after-removal", mutant.NoFault, "remove the caller's trust domain from what the called one trusts"},
	}
}
