package trial

import (
	"fmt"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
)

// Bound is how long something may take by SPIRE's arithmetic, and the formula
// that says so.
type Bound struct {
	Within  time.Duration
	Formula string
	// Propagation says that this is the way of a bundle between trust domains.
	Propagation bool
}

// Plus bounds what comes after something else. It is no propagation any more.
func (b Bound) Plus(next Bound) Bound {
	return Bound{Within: b.Within + next.Within, Formula: b.Formula + " + " + next.Formula}
}

// NextCall bounds when the first call begins of which something is claimed that no interval
// of SPIRE's stands before: one that is under way may end without an answer.
func NextCall() Bound { return CallsInVain(1) }

// NextCalls bounds when so many calls have shown that.
func NextCalls() Bound { return NextCall().Plus(Calls(settled)) }

// Rebootstrapped bounds when workloads have SVIDs of a server that is back with other keys, and
// was away for so long.
func Rebootstrapped(away time.Duration) Bound {
	return Bound{Within: federation.RebootstrapBound(away), Formula: "the agent's wait, which grew while its server was away + rebootstrap delay + agent synchronisation + the agent's next try"}.Plus(Registered())
}

// Registered bounds the way of a change of an entry to its workload.
func Registered() Bound {
	return Bound{Within: federation.RegistrationBound(), Formula: "entry cache + agent synchronisation"}
}

// Reconciled bounds the way of an entry that the controller manager could not
// make before.
func Reconciled() Bound { return ManagerLook().Plus(Registered()) }

// Resynchronised bounds when an agent asks its server again that was away for so long.
func Resynchronised(away time.Duration) Bound {
	return Bound{Within: federation.ResyncBound(away), Formula: "the agent's wait, which grew while its server was away"}
}

// ManagerLook bounds when the controller manager looks at its resources again.
func ManagerLook() Bound {
	return Bound{Within: federation.ReconcileBound(), Formula: "controller manager's interval"}
}

// ServerLook bounds when a server looks at its relationships again.
func ServerLook() Bound {
	return Bound{Within: federation.RelationshipBound(), Formula: "the server's look at its relationships"}
}

// Tainted bounds how long an SVID of a tainted authority is presented.
func Tainted() Bound {
	return Bound{Within: federation.TaintBound(), Formula: "two agent synchronisations"}
}

// Replaced bounds how long anything, workload, endpoint or agent, presents an SVID
// of a tainted authority.
func Replaced() Bound {
	return Bound{
		Within:  max(federation.TaintBound(), federation.EndpointSVIDBound(), federation.AgentSVIDBound()),
		Formula: "agent synchronisation + the agent's look at its own SVID",
	}
}

// Calls is how long so many calls of a stream take, each answered.
func Calls(n int) Bound {
	return Bound{Within: time.Duration(n) * callEvery, Formula: fmt.Sprintf("%d calls", n)}
}

// CallsInVain is how long so many calls take, each without an answer.
func CallsInVain(n int) Bound {
	return Bound{Within: time.Duration(n) * (callWithin + callEvery), Formula: fmt.Sprintf("%d calls without an answer", n)}
}

// ToServer bounds the way of a new authority to the server.
func (d Domain) ToServer(of Domain) Bound {
	poll := federation.PollInterval(of.BundleEndpoint.RefreshHint, of.CATTL)
	return Bound{Within: federation.FetchBound(poll), Formula: fmt.Sprintf("endpoint cache + one poll (%s)", poll)}
}

// ToWorkloads bounds the way of a new authority to the workloads.
func (d Domain) ToWorkloads(of Domain) Bound {
	b := d.ToServer(of).Plus(Registered())
	b.Propagation = true
	return b
}
