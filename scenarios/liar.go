package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// wrongSVIDs are the ways in which an X509-SVID is wrong by the standard alone. One without a
// path is not among them: it is valid, and names no workload.
func wrongSVIDs() []synthetic.WrongX509 {
	return []synthetic.WrongX509{
		synthetic.SelfSigned, synthetic.ExpiredX509, synthetic.NotYetValid, synthetic.TwoURIs, synthetic.NoURI, synthetic.CATrue, synthetic.UnknownAuthority,
	}
}

var lyingWorkload = trial.Scenario{
	Name:  "auth/wrong-svid",
	Claim: "A workload of a federated trust domain is refused whose X509-SVID is self-signed, expired, not yet valid, a CA, signed by an unknown authority, or has no SPIFFE ID or two; with a right one it is answered again.",
	Parts: []trial.Part{
		trial.Carried("A workload of a federated trust domain is refused whose X509-SVID is self-signed, expired, not yet valid, a CA, signed by an unknown authority, or has no SPIFFE ID or two", "none of its calls with a wrong X509-SVID is answered"),
		trial.Carried("with a right one it is answered again", "each call with a right one is answered"),
	},
	Sources: []string{
		"SPIFFE X509-SVID, sections 2, 4 and 5: what a leaf must be, and how it is validated",
		"go-spiffe svid/x509svid/verify.go, which our probes use",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		_, caller := t.Pair()
		var s *trial.Synthetic
		t.Step(ctx, "federate with a third trust domain, and see it let in", func(ctx context.Context) (err error) {
			s, err = letIn(ctx, t)
			return err
		})
		for _, wrong := range append(wrongSVIDs(), "") {
			name := fmt.Sprintf("let it call with an X509-SVID that is wrong: %s", wrong)
			if wrong == "" {
				name = "let it call with a right one again"
			}
			t.Step(ctx, name, func(ctx context.Context) error {
				if err := t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
					return s.Client.Present(ctx, synthetic.X509Request{ID: s.ID(), Wrong: wrong})
				}); err != nil {
					return err
				}
				// Who may resume sessions presents what it has, expired or not. It is given none to resume.
				calls, err := t.Attempt(ctx, s.Domain.Name(), s.Client, caller, trial.Call{Connection: traffic.Resumed, Name: strings.TrimPrefix(name, "let it ")})
				if err != nil {
					return err
				}
				ends := traffic.RefusedByServer
				if wrong == "" {
					ends = traffic.Answered
					calls.AllAnswered("each call with a right one is answered")
				} else {
					calls.NoneAnswered("none of its calls with a wrong X509-SVID is answered", time.Time{}, time.Time{})
				}
				if err := t.Soon(ctx, calls.Ends(ends)); err != nil {
					return err
				}
				return errors.Join(t.Stays(ctx, trial.Calls(3), calls.Ends(ends)), calls.End(ctx))
			})
		}
		return t.Err()
	},
}

// lie is an answer of a bundle endpoint, and what becomes of it.
type lie struct {
	is     string
	answer synthetic.Answer
	// taken says that a server takes it for the bundle, and has then lost what authenticates
	// the endpoint.
	taken bool
}

// lies are the answers of an endpoint that a server meets at once; those that never end are
// another scenario's. Foreign is the bundle of another trust domain.
func lies(of spiffeid.TrustDomain, foreign []byte) []lie {
	all := []lie{
		{"a bundle without a key", synthetic.Answer{Kind: synthetic.EmptyBundle}, true},
		{"a bundle without a list of keys", synthetic.Answer{Kind: synthetic.Nothing}, true},
		{"the bundle of another trust domain", synthetic.Answer{Kind: synthetic.Foreign, Document: foreign}, true},
		{"a key of unknown type", synthetic.Answer{Kind: synthetic.UnknownKeyType}, false},
		{"a key of unknown use", synthetic.Answer{Kind: synthetic.UnknownKeyUse}, false},
		{"status 500", synthetic.Answer{Kind: synthetic.ServerError}, false},
		{"a web page", synthetic.Answer{Kind: synthetic.NotJSON}, false},
		{"an X509-SVID of another SPIFFE ID", synthetic.Answer{Kind: synthetic.WrongCertificate}, false},
	}
	for _, wrong := range append(wrongSVIDs(), synthetic.NoPath) {
		shows := synthetic.X509Request{ID: spiffeid.RequireFromPath(of, "/spire/server"), Wrong: wrong}
		all = append(all, lie{"an X509-SVID that is wrong: " + string(wrong), synthetic.Answer{Kind: synthetic.WrongCertificate, Shows: &shows}, false})
	}
	return all
}

var lyingEndpoint = trial.Scenario{
	Name:  "drift/lying-endpoint",
	Claim: "A SPIRE server takes a bundle without keys, and that of another trust domain, for the bundle of an endpoint's own, and no fetch succeeds then until somebody hands the right one over; it keeps what it has where the endpoint serves a key of unknown type or use, an error or a web page, or shows a wrong X509-SVID; no call between others fails.",
	Parts: []trial.Part{
		trial.Carried("A SPIRE server takes a bundle without keys, and that of another trust domain, for the bundle of an endpoint's own", "the lie is fetched", "and takes the place of the bundle"),
		trial.Carried("no fetch succeeds then until somebody hands the right one over", "the truth is not fetched after it", "the truth is fetched"),
		trial.Carried("it keeps what it has where the endpoint serves a key of unknown type or use, an error or a web page, or shows a wrong X509-SVID", "the lie is refused", "and the bundle stays"),
		trial.Carried("no call between others fails", "no call failed"),
	},
	Needs: []trial.Need{byResource},
	Sources: []string{
		"SPIFFE Trust Domain and Bundle, section 4.2: a key of unknown type or use is ignored, which SPIRE does not do",
		"SPIRE pkg/server/bundle/client/client.go, FetchBundle, and updater.go, UpdateBundle",
		"SPIFFE Federation, section 5.2.2: how the endpoint is authenticated by https_spiffe",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var s *trial.Synthetic
		var foreign []byte
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "follow a third trust domain", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			bundle, err := called.Bundle(ctx)
			if err != nil {
				return err
			}
			if foreign, err = bundle.Marshal(); err != nil {
				return err
			}
			if err := caller.Follow(ctx, s); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), trial.ServerLook(), s.Fetched(1))
		})
		if t.Err() != nil {
			return t.Err()
		}
		fetch, held := s.Fetch(caller), heldBundle(caller, s.Domain)
		for _, l := range lies(s.Domain, foreign) {
			t.Step(ctx, "have its endpoint answer with "+l.is, func(ctx context.Context) error {
				if err := t.See(ctx, "the truth is fetched", fetch, trial.Fetched); err != nil {
					return err
				}
				before, err := held.Look(ctx)
				if err != nil {
					return err
				}
				if err := t.Do(ctx, trial.ToChange, func(ctx context.Context) error { return s.Client.Play(ctx, synthetic.Script{l.answer}) }); err != nil {
					return err
				}
				if !l.taken {
					return errors.Join(
						t.See(ctx, "the lie is refused", fetch, trial.FetchRefused),
						t.See(ctx, "and the bundle stays", held, before),
						s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}}),
					)
				}
				if err := t.See(ctx, "the lie is fetched", fetch, trial.Fetched); err != nil {
					return err
				}
				if err := t.See(ctx, "and takes the place of the bundle", gone(held, before), trial.Absent); err != nil {
					return err
				}
				if err := s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}}); err != nil {
					return err
				}
				if err := t.See(ctx, "the truth is not fetched after it", fetch, trial.FetchRefused); err != nil {
					return err
				}
				bundle, err := s.Client.Bundle(ctx)
				if err != nil {
					return err
				}
				return t.Do(ctx, trial.ToCure, func(ctx context.Context) error { return caller.Server().SetBundle(ctx, bundle) })
			})
		}
		t.Step(ctx, "see the truth fetched after all of them", func(ctx context.Context) error {
			return t.See(ctx, "the truth is fetched", fetch, trial.Fetched)
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

// heldBundle is which authorities of a trust domain a server holds.
func heldBundle(d trial.Domain, of spiffeid.TrustDomain) trial.Fact {
	return trial.Fact{Of: fmt.Sprintf("the authorities of %s that %s holds", of, d), Look: func(ctx context.Context) (string, error) {
		held, err := d.Server().HeldBundle(ctx, of)
		if err != nil || held == nil {
			return "none", err
		}
		return strings.Join(slices.Concat(federation.X509IDs(held), federation.JWTIDs(held)), " "), nil
	}}
}

// gone is whether what was seen of a fact before is still seen.
func gone(f trial.Fact, before string) trial.Fact {
	return trial.Fact{Of: "what was held before: " + f.Of, Look: func(ctx context.Context) (string, error) {
		now, err := f.Look(ctx)
		if now != before {
			return trial.Absent, err
		}
		return trial.There, err
	}}
}
