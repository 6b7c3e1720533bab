package scenarios

import (
	"context"
	"errors"
	"time"

	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

var openConnection = trial.Scenario{
	Name:  "outage/long-connections",
	Claim: "Where a server looks in the handshake alone, a connection that is open outlives the rotation of the X.509 authorities of both sides, the SVIDs with which it began, and the end of trust on both sides; a server that checks each call refuses it once the caller's old authority is revoked.",
	Parts: []trial.Part{
		trial.Carried("a connection that is open outlives", "each call by the open connection is answered", "by the connection that was open at first"),
		trial.Carried("the rotation of the X.509 authorities of both sides", "the peer no longer trusts the authority under which the connection began"),
		trial.Carried("the SVIDs with which it began", "the SVIDs with which it began have expired"),
		trial.Carried("the end of trust on both sides", "no new handshake succeeds once trust has ended"),
		trial.Carried("a server that checks each call refuses it once the caller's old authority is revoked", "a server that checks each call refuses the open connection"),
		trial.Carried("", "each new handshake succeeds until then", "the peer trusts the authority under which the connection began", "the SVIDs with which it began are valid"),
	},
	Labels: []string{Slow},
	Needs:  []trial.Need{bySPIFFE, fetchedBothWays, rotates, rotatesBack},
	Sources: []string{
		"go-spiffe spiffetls/tlsconfig: verification is in VerifyPeerCertificate, which TLS calls in a handshake",
		"RFC 8446, section 4.4.2: certificates are of the handshake",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		both := []trial.Domain{called, caller}
		var open, checked *trial.Traffic
		var first traffic.Call
		var began time.Time
		t.Step(ctx, "let X509-SVIDs live for "+nap.String(), func(ctx context.Context) error { return shortLived(ctx, t, both...) })
		fresh := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "open connections to a server that looks in the handshake alone, and to one that checks each call", func(ctx context.Context) (err error) {
			began = time.Now()
			if open, err = t.Traffic(ctx, caller, called, trial.Call{Connection: traffic.Kept, Careless: true, Name: "open"}); err != nil {
				return err
			}
			if checked, err = t.Traffic(ctx, caller, called, trial.Call{Connection: traffic.Kept, Name: "open, checked at each call"}); err != nil {
				return err
			}
			first, err = open.First(ctx, began, func(c traffic.Call) bool { return c.Server != nil && c.Client != nil })
			if err != nil {
				return err
			}
			return t.See(ctx, "the SVIDs with which it began are valid", age(first), svidValid)
		})
		t.Step(ctx, "replace the authorities of both, and wait until neither is trusted any more", func(ctx context.Context) error {
			for i, d := range both {
				peer := both[1-i]
				r, err := d.Replace(ctx)
				if err != nil {
					return err
				}
				trusted := peer.AuthorityOf(d, trial.X509, r.Old.ID)
				if err := t.See(ctx, "the peer trusts the authority under which the connection began", trusted, trial.There); err != nil {
					return err
				}
				revoked := time.Now()
				if err := r.Revoke(ctx); err != nil {
					return err
				}
				if err := t.Await(ctx, revoked, peer.ToWorkloads(d), peer.Dropped(d, trial.X509, r.Old.ID)); err != nil {
					return err
				}
				if err := t.See(ctx, "the peer no longer trusts the authority under which the connection began", trusted, trial.Absent); err != nil {
					return err
				}
				if d == caller {
					checked.RefusedBy("a server that checks each call refuses the open connection", revoked, called.ToWorkloads(caller).Plus(trial.NextCall()), time.Time{}, traffic.NotPermitted)
				}
			}
			return t.Soon(ctx, checked.Ends(traffic.NotPermitted))
		})
		t.Step(ctx, "wait until the SVIDs with which it began have expired", func(ctx context.Context) error {
			left := trial.Bound{Within: max(0, time.Until(first.Server.NotAfter), time.Until(first.Client.NotAfter)), Formula: "the rest of the life of both SVIDs"}
			if err := t.Stays(ctx, left.Plus(trial.NextCall()), open.Ends(traffic.Answered)); err != nil {
				return err
			}
			return t.See(ctx, "the SVIDs with which it began have expired", age(first), svidExpired)
		})
		var damage []*trial.Breakage
		var removed time.Time
		t.StepWith(ctx, "delete what each holds of the other: no poll brings it back", "'fedlab drift' says \"missing\"", func(ctx context.Context) error {
			fresh.AnsweredBetween("each new handshake succeeds until then", began, time.Now())
			for i, d := range both {
				removed = time.Now()
				d.PollsLate()
				b, err := t.Break(ctx, fault.BundleDeleted(d.Name, d.Server(), both[1-i].Name, spire.DeleteDissociate))
				if err != nil {
					return err
				}
				damage = append(damage, b)
			}
			if err := t.Await(ctx, removed, trial.Registered(), fresh.Ends(noTrust...)); err != nil {
				return err
			}
			return t.Stays(ctx, trial.Calls(5), open.Ends(traffic.Answered))
		})
		t.Step(ctx, "see by which connection the calls were answered", func(ctx context.Context) error {
			fresh.RefusedBy("no new handshake succeeds once trust has ended", removed, trial.Registered(), time.Now(), noTrust...)
			open.AllAnswered("each call by the open connection is answered")
			return t.See(ctx, "by the connection that was open at first", shown(open, called), first.Server.Serial)
		})
		t.Step(ctx, "have them trust each other again", func(ctx context.Context) error {
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error { return errors.Join(damage[0].Recover(ctx), damage[1].Recover(ctx)) }); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), trial.Reconciled(), fresh.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// noTrust is how a handshake ends for those who hold no bundle of each other.
var noTrust = []traffic.Outcome{traffic.NotFederated, traffic.RefusedByServer}

// age is whether the SVIDs of both sides of a call are over.
func age(c traffic.Call) trial.Fact {
	return trial.Fact{Of: "the SVIDs with which the connection began", Well: svidValid, Look: func(context.Context) (string, error) {
		switch now := time.Now(); {
		case now.After(c.Server.NotAfter) && now.After(c.Client.NotAfter):
			return svidExpired, nil
		case now.Before(c.Server.NotAfter) && now.Before(c.Client.NotAfter):
			return svidValid, nil
		}
		return "one of both is valid", nil
	}}
}

// shown is the serial number of the X509-SVID that the server of the last call has shown in
// its handshake.
func shown(calls *trial.Traffic, called trial.Domain) trial.Fact {
	return trial.Fact{Of: "the serial number that " + called.String() + " has shown by the open connection", Look: func(ctx context.Context) (string, error) {
		last, err := calls.Last(ctx)
		if err != nil || last.Server == nil {
			return trial.Absent, err
		}
		return last.Server.Serial, nil
	}}
}
