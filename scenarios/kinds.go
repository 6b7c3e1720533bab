package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// What the profile, the mode and the authority above a trust domain change.

var staleByWeb = trial.Scenario{
	Name:  "drift/stale-by-web-certificate",
	Claim: "A peer that was cut off while an authority was replaced fetches again by itself by https_web, because a web CA authenticates the endpoint there, and not the bundle that the peer holds; until then every call fails.",
	Parts: []trial.Part{
		trial.Carried("fetches again by itself by https_web", "and calls are answered again within a poll"),
		trial.Carried("until then every call fails", "each call fails from soon after the replacement until the endpoint is back"),
	},
	Needs: []trial.Need{byWeb, fetched, rotates},
	Sources: []string{
		"SPIFFE Federation, section 5.2.1: the endpoint is authenticated by Web PKI",
		"SPIRE pkg/server/bundle/client/client.go: with https_web no bundle is read before the fetch",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		calls := t.CallsThroughout(ctx, caller, called)
		missed := replacedUnseen(ctx, t)
		t.Step(ctx, "give the endpoint back, and see the peer fetch by itself", func(ctx context.Context) error {
			if err := missed.cut.Recover(ctx); err != nil {
				return err
			}
			back := missed.cut.Window().Healed
			calls.RefusedBy("each call fails from soon after the replacement until the endpoint is back", missed.broken, trial.Tainted(), missed.cut.Window().Recovered, unknownAuthority...)
			calls.AnsweredBy("and calls are answered again within a poll", back, caller.ToWorkloads(called))
			return t.Await(ctx, back, caller.ToWorkloads(called), calls.Meets(missed.rotation.Next.ID))
		})
		return t.Err()
	},
}

// unseen is an authority that is replaced while a peer cannot fetch.
type unseen struct {
	cut      *trial.Breakage
	rotation *trial.Rotation
	// broken is when the next authority begins to sign.
	broken time.Time
}

// replacedUnseen cuts the bundle endpoint of the called trust domain off and replaces its
// authority meanwhile.
func replacedUnseen(ctx context.Context, t *trial.Trial) *unseen {
	called, caller := t.Pair()
	u := &unseen{}
	t.Step(ctx, "cut the bundle endpoint off", func(ctx context.Context) (err error) {
		u.cut, err = t.CutEndpoint(ctx, called, caller)
		return err
	})
	t.Step(ctx, "replace the authority meanwhile, to the end", func(ctx context.Context) (err error) {
		if u.rotation, err = called.Prepare(ctx, trial.X509); err != nil {
			return err
		}
		u.broken = time.Now()
		if err := errors.Join(u.rotation.Activate(ctx), u.rotation.Taint(ctx)); err != nil {
			return err
		}
		if err := t.Await(ctx, u.broken, trial.Replaced(), u.rotation.Replaced()); err != nil {
			return err
		}
		return u.rotation.Revoke(ctx)
	})
	return u
}

var staleByHand = trial.Scenario{
	Name:  "drift/stale-by-hand",
	Claim: "Where bundles travel by hand, a peer never learns of a new authority by itself: once that authority signs, every call fails until somebody hands the bundle over.",
	Parts: []trial.Part{
		trial.Carried("a peer never learns of a new authority by itself", "it does not arrive while a poll would come"),
		trial.Carried("once that authority signs, every call fails", "each call fails from soon after until the bundle is handed over"),
		trial.Carried("until somebody hands the bundle over", "and calls are answered again after it"),
		trial.Carried("", "no call fails until then"),
	},
	Needs: []trial.Need{byHand, rotates},
	Sources: []string{
		"SPIRE doc/spire_server.md (bundle set): a bundle without a federation relationship is not refreshed",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		var broken time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "publish another authority: it does not arrive", "'fedlab drift' says by which authority the peer is behind", func(ctx context.Context) (err error) {
			if r, err = called.Prepare(ctx, trial.X509); err != nil {
				return err
			}
			if err := t.Soon(ctx, caller.InState(called, federation.Behind)); err != nil {
				return err
			}
			return t.Watch(ctx, "it does not arrive while a poll would come", caller.ToServer(called), caller.Held(called), string(federation.Behind))
		})
		t.Step(ctx, "sign with it", func(ctx context.Context) error {
			calls.AnsweredBetween("no call fails until then", time.Time{}, time.Now())
			broken = time.Now()
			if err := errors.Join(r.Activate(ctx), r.Taint(ctx)); err != nil {
				return err
			}
			return t.Await(ctx, broken, trial.Tainted(), calls.Ends(unknownAuthority...))
		})
		t.StepWith(ctx, "hand the bundle over", "'fedlab drift --repair' does the same", func(ctx context.Context) error {
			from := trial.Refusal{Says: "each call fails from soon after until the bundle is handed over", Since: broken, Bound: trial.Tainted(), Ends: unknownAuthority}
			return handOver(ctx, t, calls, from, trial.Registered(), calls.Meets(r.Next.ID))
		})
		return t.Err()
	},
}

// A serving certificate lives for certLife, and the next one is issued when a third of that
// remains; the server reads it each certSync.
const (
	certLife = 30 * time.Second
	certSync = 2 * time.Second
)

var servingCertReplaced = trial.Scenario{
	Name:  "rotation/serving-certificate",
	Claim: "A SPIRE server shows each new certificate of its https_web endpoint without a restart, and no fetch fails while one takes the place of another, three times.",
	Parts: []trial.Part{
		trial.Carried("A SPIRE server shows each new certificate of its https_web endpoint", "the next certificate is shown"),
		trial.Carried("without a restart", "the server is the one that it was"),
		trial.Carried("no fetch fails while one takes the place of another, three times", "no fetch fails"),
		trial.Carried("", "the first certificate is shown", "no call failed"),
	},
	Needs: []trial.Need{byIssued, fetched},
	Sources: []string{
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (serving_cert_file, file_sync_interval)",
		"SPIRE pkg/common/diskcertmanager/cert_manager.go: the files are read again at an interval",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		shown := certificates(called)
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "let serving certificates live for "+certLife.String(), func(ctx context.Context) error {
			return t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
				return t.Reconfigure(ctx, called, func(td *topology.Settings) {
					td.BundleEndpoint.ServingCert.TTL, td.BundleEndpoint.ServingCert.FileSyncInterval = certLife, certSync
				})
			})
		})
		var server trial.Fact
		t.Step(ctx, "see which one is shown", func(ctx context.Context) (err error) {
			if server, err = called.Started(ctx); err != nil {
				return err
			}
			return t.See(ctx, "the first certificate is shown", shown, nth(1))
		})
		replaced := trial.Bound{Within: certLife - certLife/3 + certSync, Formula: "two thirds of its life + the server's look at the file"}
		for generation := 2; generation <= 4; generation++ {
			t.Step(ctx, fmt.Sprintf("fetch until certificate %d is shown", generation), func(ctx context.Context) error {
				return errors.Join(
					t.Watch(ctx, "no fetch fails", replaced, caller.Fetch(called), trial.Fetched),
					t.See(ctx, "the next certificate is shown", shown, nth(generation)),
				)
			})
		}
		t.Step(ctx, "see that the server was not started again", func(ctx context.Context) error {
			return t.See(ctx, "the server is the one that it was", server, trial.There)
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

func nth(certificate int) string { return fmt.Sprintf("certificate %d", certificate) }

// certificates counts those that a bundle endpoint has shown, from the first look on.
func certificates(of trial.Domain) trial.Fact {
	var seen []string
	return trial.Fact{Of: "the certificate that the endpoint of " + of.String() + " shows", Look: func(ctx context.Context) (string, error) {
		shown, err := of.Shown(ctx)
		if err != nil {
			return "", err
		}
		if serial := shown.SerialNumber.String(); !slices.Contains(seen, serial) {
			seen = append(seen, serial)
		}
		return nth(len(seen)), nil
	}}
}

var noRoute = trial.Scenario{
	Name:  "federation/no-route",
	Claim: "Where no server reaches the bundle endpoint of the other and bundles travel as files, an authority is replaced without a failed call, as long as each file is there before the authority in it signs.",
	Parts: []trial.Part{
		trial.Carried("no server reaches the bundle endpoint of the other", "the endpoint does not answer the peer", "and does not when all is over"),
		trial.Carried("an authority is replaced", "soon after the old authority is tainted, each call is answered under the new one", "and the second file ends trust in the old one"),
		trial.Carried("without a failed call", "no call failed"),
		trial.Carried("", "the endpoint answers the peer at first", "the peer trusts the old authority until then"),
	},
	Needs: []trial.Need{byHand, rotates},
	Sources: []string{
		"SPIRE doc/spire_server.md (bundle show, bundle set): a bundle as a file, in the format of the SPIFFE standard",
		"SPIFFE Trust Domain and Bundle, section 4: the format",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		reaches := caller.Reaches(called)
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "cut the bundle endpoint off", func(ctx context.Context) error {
			if err := t.See(ctx, "the endpoint answers the peer at first", reaches, trial.There); err != nil {
				return err
			}
			if _, err := t.CutEndpoint(ctx, called, caller); err != nil {
				return err
			}
			return t.See(ctx, "the endpoint does not answer the peer", reaches, trial.Absent)
		})
		t.Step(ctx, "publish the next authority, and carry the bundle over as a file", func(ctx context.Context) (err error) {
			if r, err = called.Prepare(ctx, trial.X509); err != nil {
				return err
			}
			if err := carried(ctx, called, caller); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), trial.Registered(), caller.Has(called, trial.X509, r.Next.ID))
		})
		t.Step(ctx, "sign with it, and taint the old one", func(ctx context.Context) error {
			if err := r.Activate(ctx); err != nil {
				return err
			}
			tainted := time.Now()
			if err := r.Taint(ctx); err != nil {
				return err
			}
			calls.MeetsBy("soon after the old authority is tainted, each call is answered under the new one", tainted, trial.Replaced(), r.Next.ID)
			return t.Await(ctx, tainted, trial.Replaced(), r.Replaced(), calls.Meets(r.Next.ID))
		})
		t.Step(ctx, "revoke the old one, and carry the bundle over again", func(ctx context.Context) error {
			old := caller.AuthorityOf(called, trial.X509, r.Old.ID)
			if err := t.See(ctx, "the peer trusts the old authority until then", old, trial.There); err != nil {
				return err
			}
			if err := errors.Join(r.Revoke(ctx), carried(ctx, called, caller)); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), trial.Registered(), caller.Dropped(called, trial.X509, r.Old.ID)); err != nil {
				return err
			}
			return t.See(ctx, "and the second file ends trust in the old one", old, trial.Absent)
		})
		t.Step(ctx, "see that nothing went by the endpoint", func(ctx context.Context) error {
			return t.See(ctx, "and does not when all is over", reaches, trial.Absent)
		})
		t.StillAnswered(ctx, calls, "see that calls never noticed", "no call failed")
		return t.Err()
	},
}

// carried takes the bundle of a trust domain to another as a file, in the format of the
// standard, and removes the file.
func carried(ctx context.Context, of, to trial.Domain) (err error) {
	bundle, err := of.Bundle(ctx)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "fedlab-bundle-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	document, err := bundle.Marshal()
	if err != nil {
		return err
	}
	file := filepath.Join(folder, of.Name.Name()+".json")
	if err := os.WriteFile(file, document, 0o600); err != nil {
		return err
	}
	read, err := spiffebundle.Load(of.Name, file)
	if err != nil {
		return err
	}
	return to.Server().SetBundle(ctx, read)
}

var belowUpstream = trial.Scenario{
	Name:  "rotation/below-upstream-root",
	Claim: "Below an upstream root, a SPIRE server replaces its X.509 authority and no peer notices: no bundle changes, no call fails, and a peer accepts what the new authority signs at once.",
	Parts: []trial.Part{
		trial.Carried("no bundle changes", "no poll brings another authority"),
		trial.Carried("no call fails", "no call failed"),
		trial.Carried("a peer accepts what the new authority signs at once", "a newcomer whose registration fits gets its identity", "the peer answers the newcomer for whom the new authority has signed"),
		trial.Carried("", "the new authority signs"),
	},
	Needs: []trial.Need{belowRoot},
	Sources: []string{
		"SPIRE doc/plugin_server_upstreamauthority_disk.md: the root of the bundle is the upstream one",
		"SPIRE pkg/server/ca/manager/manager.go: an authority below an upstream one is an intermediate",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var before string
		held := caller.Authorities(called)
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "replace the authority, with no time left for peers", func(ctx context.Context) (err error) {
			if before, err = held.Look(ctx); err != nil {
				return err
			}
			r, err := called.Prepare(ctx, trial.X509)
			if err != nil {
				return err
			}
			if err := t.Do(ctx, trial.ToChange, r.Activate); err != nil {
				return err
			}
			return t.See(ctx, "the new authority signs", called.SignsWith(), r.Next.ID)
		})
		t.Step(ctx, "let a newcomer come, which the new authority has signed for: the peer answers it", func(ctx context.Context) error {
			guest, err := called.Welcome(ctx, caller.Name)
			if err != nil {
				return err
			}
			came := time.Now()
			theirs, err := guest.Calls(ctx, caller)
			if err != nil {
				return err
			}
			theirs.AnsweredBy("the peer answers the newcomer for whom the new authority has signed", came, trial.NextCalls())
			if err := t.Await(ctx, came, trial.NextCalls(), theirs.Ends(traffic.Answered)); err != nil {
				return err
			}
			return errors.Join(theirs.End(ctx), guest.Leave(ctx))
		})
		t.Step(ctx, "see that what the peer holds stays what it was", func(ctx context.Context) error {
			return t.Watch(ctx, "no poll brings another authority", caller.ToServer(called), held, before)
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}
