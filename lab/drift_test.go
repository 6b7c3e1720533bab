package lab_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var (
	gcpDomain    = spiffeid.RequireTrustDomainFromString("gcp.company.com")
	onpremDomain = spiffeid.RequireTrustDomainFromString("onprem.company.com")
)

// TestDriftOfAWellLab holds the names of the fields, too: programs read them.
func TestDriftOfAWellLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		w.mutations = nil
		drift, err := d.Drift(t.Context(), quotes(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(w.mutations) > 0 {
			t.Errorf("it changed something: %v", w.mutations)
		}
		golden(t, "drift-well.json", strings.ReplaceAll(indented(t, drift), drift.At.Format(time.RFC3339Nano), "NOW"))
	})
}

func TestDriftOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newWorld(t).driver(t)
		_, err := d.Drift(t.Context(), quotes(t))
		if notUp := (*lab.NotUpError)(nil); !errors.As(err, &notUp) || err.Error() != "lab quotes is not up: it has no network" {
			t.Errorf("error %v", err)
		}
	})
}

// servers gives the server of each cluster of the company.
type servers func(cluster string) *spireServer

// drifted makes each state of a held bundle, and says all that is not well then,
// and what is left after it was repaired. KEY stands for any key.
func drifted() map[string]struct {
	file           labFile
	spoil          func(t *testing.T, w *world, server servers)
	want, repaired []string
} {
	const (
		gcpLacks    = "lacks JWT authority jwt-of-gcp.company.com, lacks X.509 authority KEY"
		onpremLacks = "lacks JWT authority jwt-of-onprem.company.com, lacks X.509 authority KEY"
	)
	stranger := spiffeid.RequireTrustDomainFromString("stranger.com")
	return map[string]struct {
		file           labFile
		spoil          func(t *testing.T, w *world, server servers)
		want, repaired []string
	}{
		"behind": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("aws").held[gcpDomain].RemoveJWTAuthority("jwt-of-gcp.company.com")
			},
			want: []string{"aws.company.com of gcp.company.com: behind, by endpoint, in 15s: behind: lacks JWT authority jwt-of-gcp.company.com"},
		},
		"behind by an X.509 authority": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				// No fetch will repair it: that authority signs.
				b := server("aws").held[gcpDomain]
				for _, c := range b.X509Authorities() {
					b.RemoveX509Authority(c)
				}
			},
			want: []string{"aws.company.com of gcp.company.com: behind, by endpoint, since -50s, in 15s: behind: lacks X.509 authority KEY; no fetch repairs it, since what is held does not authenticate the endpoint"},
		},
		"behind by an upstream authority": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				b := server("gcp").held[onpremDomain]
				for _, c := range b.X509Authorities() {
					b.RemoveX509Authority(c)
				}
			},
			want: []string{"gcp.company.com of onprem.company.com: behind, by endpoint, in 15s: behind: lacks X.509 authority KEY"},
		},
		"behind, by hand": {
			file: company(federated("shape: mesh, mode: manual")),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("aws").held[gcpDomain].RemoveJWTAuthority("jwt-of-gcp.company.com")
			},
			want: []string{"aws.company.com of gcp.company.com: behind, by server, set by hand: behind: lacks JWT authority jwt-of-gcp.company.com"},
		},
		"behind, without relationship": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				delete(server("aws").relationships, gcpDomain)
				server("aws").held[gcpDomain].RemoveJWTAuthority("jwt-of-gcp.company.com")
			},
			want: []string{"aws.company.com of gcp.company.com: behind, by endpoint, no relationship: behind: lacks JWT authority jwt-of-gcp.company.com"},
		},
		"differing": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("aws").held[gcpDomain].AddX509Authority(server("onprem").root)
			},
			want: []string{"aws.company.com of gcp.company.com: differing, by endpoint, in 15s: differing: has foreign X.509 authority KEY"},
		},
		"foreign": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("aws").held[gcpDomain] = hinted(gcpDomain, server("onprem").root)
			},
			want: []string{"aws.company.com of gcp.company.com: foreign, by endpoint, in 15s: foreign: " + gcpLacks + ", has foreign X.509 authority KEY; no fetch repairs it, since what is held does not authenticate the endpoint"},
		},
		"foreign, with https_web": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("aws").held[onpremDomain] = hinted(onpremDomain, server("gcp").root)
			},
			want: []string{"aws.company.com of onprem.company.com: foreign, by endpoint, in 15s: foreign: " + onpremLacks + ", has foreign X.509 authority KEY"},
		},
		"foreign, without a refresh hint": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				// Its only authority lives ten years.
				server("aws").held[gcpDomain] = spiffebundle.FromX509Authorities(gcpDomain, []*x509.Certificate{server("onprem").root})
			},
			want: []string{"aws.company.com of gcp.company.com: foreign, by endpoint, in 2190h0m1.5s: foreign: " + gcpLacks + ", has foreign X.509 authority KEY; no fetch repairs it, since what is held does not authenticate the endpoint"},
		},
		"empty": {
			file: company(),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("aws").held[gcpDomain] = spiffebundle.New(gcpDomain)
			},
			want: []string{"aws.company.com of gcp.company.com: empty, by endpoint, in 15s: empty: " + gcpLacks + "; no fetch repairs it, since what is held does not authenticate the endpoint"},
		},
		"missing": {
			file:  company(),
			spoil: func(_ *testing.T, _ *world, server servers) { delete(server("aws").held, gcpDomain) },
			want:  []string{"aws.company.com of gcp.company.com: missing, by endpoint, in 1m0s: missing: " + gcpLacks + "; no fetch repairs it, since what is held does not authenticate the endpoint"},
		},
		"missing, with https_web": {
			file:  company(),
			spoil: func(_ *testing.T, _ *world, server servers) { delete(server("gcp").held, onpremDomain) },
			want:  []string{"gcp.company.com of onprem.company.com: missing, by endpoint, in 1m0s: missing: " + onpremLacks},
		},
		"hanging": {
			file:  company(federated("between: [aws.company.com, gcp.company.com]")),
			spoil: func(_ *testing.T, _ *world, server servers) { server("gcp").hangs = true },
			want: []string{
				"aws.company.com of gcp.company.com: hanging, by server, kept waiting by the endpoint: the bundle endpoint https://10.192.2.1:8443 serves no bundle: https://10.192.2.1:8443 takes requests and has not answered within 1s; what is held is in sync",
			},
			repaired: []string{
				"aws.company.com of gcp.company.com: hanging, by server, kept waiting by the endpoint: the bundle endpoint https://10.192.2.1:8443 serves no bundle: https://10.192.2.1:8443 takes requests and has not answered within 1s; what is held is in sync",
			},
		},
		"hanging and behind": {
			file: company(federated("between: [aws.company.com, gcp.company.com]")),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("gcp").hangs = true
				server("aws").held[gcpDomain].RemoveJWTAuthority("jwt-of-gcp.company.com")
			},
			want: []string{
				"aws.company.com of gcp.company.com: hanging, by server, kept waiting by the endpoint: the bundle endpoint https://10.192.2.1:8443 serves no bundle: https://10.192.2.1:8443 takes requests and has not answered within 1s; what is held is behind: lacks JWT authority jwt-of-gcp.company.com",
			},
			repaired: []string{
				"aws.company.com of gcp.company.com: hanging, by server, kept waiting by the endpoint: the bundle endpoint https://10.192.2.1:8443 serves no bundle: https://10.192.2.1:8443 takes requests and has not answered within 1s; what is held is in sync",
			},
		},
		"an endpoint that its own cluster does not reach": {
			file:  company(federated("from: aws.company.com, to: gcp.company.com")),
			spoil: func(_ *testing.T, w *world, _ servers) { w.fault = once("Peers.Get from gcp of 10.192.2.1", fail) },
			want: []string{
				"aws.company.com of gcp.company.com: unreachable, by server, in 15s: the bundle endpoint https://10.192.2.1:8443 serves no bundle: Peers.Get from gcp of 10.192.2.1: injected fault; what is held is in sync",
			},
		},
		"an endpoint that a truster does not reach": {
			file:  company(federated("between: [aws.company.com, gcp.company.com]")),
			spoil: func(_ *testing.T, w *world, _ servers) { w.fault = always("Peers.Get from gcp of 10.192.1.1", fail) },
			want: []string{
				"gcp.company.com of aws.company.com: unreachable, by endpoint, in 15s: gcp does not get through to the bundle endpoint https://10.192.1.1:8443: Peers.Get from gcp of 10.192.1.1: injected fault; what is held is in sync",
			},
			repaired: []string{
				"gcp.company.com of aws.company.com: unreachable, by endpoint, in 15s: gcp does not get through to the bundle endpoint https://10.192.1.1:8443: Peers.Get from gcp of 10.192.1.1: injected fault; what is held is in sync",
			},
		},
		"an endpoint that shows another's SVID": {
			file: company(federated("between: [aws.company.com, gcp.company.com]")),
			spoil: func(t *testing.T, _ *world, server servers) {
				t.Helper()
				svid, err := server("gcp").svid(spiffeid.RequireFromPath(gcpDomain, "/somebody"))
				if err != nil {
					t.Fatal(err)
				}
				server("gcp").shown = svid.Certificates
			},
			want: []string{
				"aws.company.com of gcp.company.com: unreachable, by server, in 15s: the bundle endpoint https://10.192.2.1:8443 serves no bundle: it shows the X509-SVID of spiffe://gcp.company.com/somebody; what is held is in sync",
			},
			repaired: []string{
				"aws.company.com of gcp.company.com: unreachable, by server, in 15s: the bundle endpoint https://10.192.2.1:8443 serves no bundle: it shows the X509-SVID of spiffe://gcp.company.com/somebody; what is held is in sync",
			},
		},
		"an endpoint that shows a certificate of another CA": {
			file: company(federated("from: aws.company.com, to: onprem.company.com")),
			spoil: func(t *testing.T, _ *world, server servers) {
				t.Helper()
				svid, err := server("gcp").svid(spire.ServerID(gcpDomain))
				if err != nil {
					t.Fatal(err)
				}
				server("onprem").shown = svid.Certificates
			},
			want: []string{
				"aws.company.com of onprem.company.com: unreachable, by server, in 15s: the bundle endpoint https://10.192.3.1:8443 serves no bundle: x509: cannot validate certificate for 10.192.3.1 because it doesn't contain any IP SANs; what is held is in sync",
			},
			repaired: []string{
				"aws.company.com of onprem.company.com: unreachable, by server, in 15s: the bundle endpoint https://10.192.3.1:8443 serves no bundle: x509: cannot validate certificate for 10.192.3.1 because it doesn't contain any IP SANs; what is held is in sync",
			},
		},
		"an endpoint that serves an older bundle than its server has": {
			file: company(federated("between: [aws.company.com, gcp.company.com]")),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("gcp").lies = hinted(gcpDomain, server("gcp").root)
				server("aws").held[gcpDomain] = server("gcp").lies.Clone()
			},
			want: []string{
				"aws.company.com of gcp.company.com: behind, by server, in 15s: behind: lacks JWT authority jwt-of-gcp.company.com; its bundle endpoint does not serve what its server has, but what is behind: lacks JWT authority jwt-of-gcp.company.com",
			},
			repaired: []string{
				"aws.company.com of gcp.company.com: differing, by endpoint, in 15s: differing: has foreign JWT authority jwt-of-gcp.company.com; its bundle endpoint does not serve what its server has, but what is behind: lacks JWT authority jwt-of-gcp.company.com",
			},
		},
		"an endpoint that lies, where nobody fetches": {
			file: company(federated("from: aws.company.com, to: onprem.company.com, mode: manual", "from: gcp.company.com, to: onprem.company.com")),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("onprem").lies = hinted(onpremDomain, server("onprem").root)
			},
			want: []string{
				"gcp.company.com of onprem.company.com: differing, by endpoint, in 15s: differing: has foreign JWT authority jwt-of-onprem.company.com; its bundle endpoint does not serve what its server has, but what is behind: lacks JWT authority jwt-of-onprem.company.com",
			},
			repaired: []string{
				"gcp.company.com of onprem.company.com: differing, by endpoint, in 15s: differing: has foreign JWT authority jwt-of-onprem.company.com; its bundle endpoint does not serve what its server has, but what is behind: lacks JWT authority jwt-of-onprem.company.com",
			},
		},
		"a truster that does not answer": {
			file:  company(federated("from: aws.company.com, to: onprem.company.com")),
			spoil: func(_ *testing.T, w *world, _ servers) { w.nodes[nodeName{"company", "aws"}].running = false },
			want: []string{
				"aws.company.com of onprem.company.com: unknown: the server of aws.company.com does not answer",
				"silent: aws.company.com",
			},
			repaired: []string{
				"aws.company.com of onprem.company.com: unknown: the server of aws.company.com does not answer",
				"silent: aws.company.com",
			},
		},
		"a source that is gone": {
			file:  company(federated("from: aws.company.com, to: onprem.company.com")),
			spoil: func(_ *testing.T, w *world, _ servers) { w.nodes[nodeName{"company", "onprem"}].running = false },
			want: []string{
				"aws.company.com of onprem.company.com: unreachable, in 15s: aws does not get through to the bundle endpoint https://10.192.3.1:8443: connection refused",
				"silent: onprem.company.com",
			},
			repaired: []string{
				"aws.company.com of onprem.company.com: unreachable, in 15s: aws does not get through to the bundle endpoint https://10.192.3.1:8443: connection refused",
				"silent: onprem.company.com",
			},
		},
		"a source whose API does not answer": {
			file:  company(federated("from: aws.company.com, to: onprem.company.com")),
			spoil: func(_ *testing.T, w *world, _ servers) { w.fault = always("SPIRE GetBundle in onprem", fail) },
			want: []string{
				"aws.company.com of onprem.company.com: unknown, in 15s: the server of onprem.company.com does not answer",
				"silent: onprem.company.com",
			},
			repaired: []string{
				"aws.company.com of onprem.company.com: unknown, in 15s: the server of onprem.company.com does not answer",
				"silent: onprem.company.com",
			},
		},
		"held without a relationship": {
			file: company(federated("from: aws.company.com, to: onprem.company.com")),
			spoil: func(_ *testing.T, _ *world, server servers) {
				server("aws").held[gcpDomain] = server("gcp").bundle()
				server("aws").held[stranger] = spiffebundle.FromX509Authorities(stranger, []*x509.Certificate{server("gcp").root})
				server("onprem").held[gcpDomain] = hinted(gcpDomain, server("gcp").root)
				server("onprem").held[gcpDomain].SetRefreshHint(2 * time.Minute)
				server("onprem").relationships[gcpDomain] = &relationship{profile: topology.HTTPSWeb}
			},
			want: []string{
				"unasked: aws.company.com of gcp.company.com: in sync, by server, no relationship: no relationship of the lab asks for it; it is in sync",
				"unasked: aws.company.com of stranger.com: unknown, no relationship: no relationship of the lab asks for it",
				"unasked: onprem.company.com of gcp.company.com: behind, by server, in 30s: no relationship of the lab asks for it; it is behind: lacks JWT authority jwt-of-gcp.company.com",
			},
			repaired: []string{
				"unasked: aws.company.com of gcp.company.com: in sync, by server, no relationship: no relationship of the lab asks for it; it is in sync",
				"unasked: aws.company.com of stranger.com: unknown, no relationship: no relationship of the lab asks for it",
				"unasked: onprem.company.com of gcp.company.com: behind, by server, in 30s: no relationship of the lab asks for it; it is behind: lacks JWT authority jwt-of-gcp.company.com",
			},
		},
	}
}

// hinted is a bundle with one authority, and the refresh hint of a lab.
func hinted(td spiffeid.TrustDomain, root *x509.Certificate) *spiffebundle.Bundle {
	b := spiffebundle.FromX509Authorities(td, []*x509.Certificate{root})
	b.SetRefreshHint(time.Minute)
	return b
}

// TestDriftAndRepair makes each state, compares all that is said of it, repairs, and
// compares what is left.
func TestDriftAndRepair(t *testing.T) {
	for name, tt := range drifted() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				top := tt.file.topology(t)
				if err := w.up(t, d, top); err != nil {
					t.Fatal(err)
				}
				tt.spoil(t, w, func(cluster string) *spireServer { return w.nodes[nodeName{"company", cluster}].spire })
				drift, err := d.Drift(t.Context(), top)
				if err != nil {
					t.Fatal(err)
				}
				wantDrift(t, drift, tt.want)

				w.mutations = nil
				repaired, err := d.Repair(t.Context(), top)
				if err != nil {
					t.Fatal(err)
				}
				want, calls := []lab.Repaired{}, []string(nil)
				for _, h := range drift.Held {
					// Where only the endpoint is to blame, what is held is right.
					lies := h.ComparedWith == lab.Endpoint && strings.Contains(h.Problem, "does not serve what its server has")
					if h.ComparedWith == "" || h.Bundle == federation.InSync || lies {
						continue
					}
					m := lab.Repaired{Truster: h.Truster, Trusted: h.Trusted, Was: h.Bundle}
					switch {
					case h.State == lab.Hanging:
						// It was to fetch in time.
						m.NextPollBy = time.Now().Add(15 * time.Second)
					case !h.NextPollBy.IsZero():
						m.NextPollBy = time.Now().Add(h.NextPollBy.Sub(drift.At))
					}
					want = append(want, m)
					calls = append(calls, "SPIRE BatchSetFederatedBundle in "+strings.TrimSuffix(h.Truster, ".company.com"))
				}
				if !reflect.DeepEqual(repaired, want) || !slices.Equal(w.mutations, calls) {
					t.Errorf("repaired %v by %v, want %v by %v", repaired, w.mutations, want, calls)
				}
				if drift, err = d.Drift(t.Context(), top); err != nil {
					t.Fatal(err)
				}
				wantDrift(t, drift, tt.repaired)
			})
		})
	}
}

// wantDrift compares all that is not well.
func wantDrift(t *testing.T, drift lab.Drift, want []string) {
	t.Helper()
	var got []string
	well := true
	for _, h := range drift.Held {
		if h.Well != (h.Problem == "") || h.Well != (h.State == federation.InSync) {
			t.Errorf("well %t, state %s and problem %q do not agree", h.Well, h.State, h.Problem)
		}
		if well = well && h.Well; !h.Well {
			got = append(got, said(drift, h))
		}
	}
	for _, h := range drift.Unasked {
		got = append(got, "unasked: "+said(drift, h))
	}
	for _, name := range drift.Silent {
		got = append(got, "silent: "+name)
	}
	if drift.Well != well || !slices.EqualFunc(got, want, same) {
		t.Errorf("well %t, drift\n%s\nwant\n%s", drift.Well, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// said is all that is said of a held bundle. Times are seen from the start of
// the test.
func said(d lab.Drift, h lab.HeldBundle) string {
	text := fmt.Sprintf("%s of %s: %s", h.Truster, h.Trusted, h.State)
	if h.ComparedWith != "" {
		text += fmt.Sprintf(", by %s", h.ComparedWith)
	}
	if !h.Since.IsZero() {
		text += fmt.Sprintf(", since %s", h.Since.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Round(10*time.Second))
	}
	if every := h.NextPollBy.Sub(d.At); !h.NextPollBy.IsZero() {
		text += fmt.Sprintf(", in %s", every)
		if every.Seconds() != h.PollSeconds {
			text += fmt.Sprintf(" and not in %v s", h.PollSeconds)
		}
	}
	if h.Unpolled != "" {
		text += ", " + h.Unpolled
	}
	return text + ": " + h.Problem
}

// TestDriftLooksAgain: what an endpoint's cache still has is not what it serves.
func TestDriftLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := company(federated("from: aws.company.com, to: gcp.company.com")).topology(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		gcp := w.nodes[nodeName{"company", "gcp"}].spire
		gcp.lies = spiffebundle.FromX509Authorities(gcpDomain, []*x509.Certificate{gcp.root})
		asked := 0
		w.fault = func(call string) verdict {
			if call == "Peers.Get from gcp of 10.192.2.1" {
				if asked++; asked == 2 {
					gcp.lies = nil
				}
			}
			return pass
		}
		drift, err := d.Drift(t.Context(), top)
		if err != nil || !drift.Well || asked != 2 {
			t.Errorf("asked %d times, error %v, drift %+v", asked, err, drift)
		}
	})
}

// TestDriftEachCallFailing: whatever cannot be asked, nothing is said to be in
// sync that was not seen to be.
func TestDriftEachCallFailing(t *testing.T) {
	drift := func(t *testing.T, fault func(string) verdict) (*world, lab.Drift, error) {
		t.Helper()
		w := newWorld(t)
		d := w.driver(t)
		top := company().topology(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		w.calls, w.fault = nil, fault
		drift, err := d.Drift(t.Context(), top)
		return w, drift, err
	}
	distinct := map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		w, drift, err := drift(t, nil)
		if err != nil || !drift.Well {
			t.Fatalf("well %t, error %v", drift.Well, err)
		}
		for _, c := range w.calls {
			distinct[c] = true
		}
	})
	for _, call := range slices.Sorted(maps.Keys(distinct)) {
		if strings.HasPrefix(call, "Pods.Ready spire-agent") || strings.HasPrefix(call, "Pods.Ready spire-server") {
			continue // a matter of status: the server itself answers
		}
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, drift, err := drift(t, once(call, fail))
				if err == nil && drift.Well || err != nil && !strings.Contains(err.Error(), call+": injected fault") {
					t.Errorf("well %t, error %v", drift.Well, err)
				}
			})
		})
	}
}

func TestDriftInterrupted(t *testing.T) {
	interrupts(t, func(call string) bool { return strings.HasPrefix(call, "Peers.Get ") }, func(ctx context.Context, d *lab.Driver) error {
		_, err := d.Drift(ctx, quotes(t))
		return err
	})
}

// TestRepairEachCallFailing: an error names the pair and the cause, what was repaired
// next to it is told, and the next one repairs the rest.
func TestRepairEachCallFailing(t *testing.T) {
	for call, want := range map[string]string{
		"SPIRE BatchSetFederatedBundle in market": "repair cluster1.com->cluster2.com: set held bundle of cluster2.com on SPIRE server of cluster1.com: rpc error: code = Unavailable desc = SPIRE BatchSetFederatedBundle in market: injected fault",
		"SPIRE GetFederatedBundle in market":      "repair cluster1.com->cluster2.com: get held bundle of cluster2.com on SPIRE server of cluster1.com: rpc error: code = Unavailable desc = SPIRE GetFederatedBundle in market: injected fault",
		"Networks.Find":                           "Networks.Find: injected fault",
		"Nodes.List":                              "Nodes.List: injected fault",
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				for _, cluster := range []string{"market", "broker"} {
					clear(w.nodes[nodeName{"quotes", cluster}].spire.held)
				}
				w.fault = once(call, fail)
				repaired, err := d.Repair(t.Context(), quotes(t))
				if err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
				other := []lab.Repaired{{Truster: "cluster2.com", Trusted: "cluster1.com", Was: federation.Missing, NextPollBy: time.Now().Add(time.Minute)}}
				if strings.HasPrefix(call, "SPIRE") && !reflect.DeepEqual(repaired, other) {
					t.Errorf("repaired %v, want %v", repaired, other)
				}
				if _, err = d.Repair(t.Context(), quotes(t)); err != nil {
					t.Fatal(err)
				}
				if drift, err := d.Drift(t.Context(), quotes(t)); err != nil || !drift.Well {
					t.Errorf("after another: error %v, drift %+v", err, drift)
				}
			})
		})
	}
}

// TestRepairReadsBack: what somebody else sets in between is noticed.
func TestRepairReadsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		market := w.nodes[nodeName{"quotes", "market"}].spire
		clear(market.held)
		w.fault = func(call string) verdict {
			if call == "SPIRE GetFederatedBundle in market" {
				clear(market.held)
			}
			return pass
		}
		const want = "repair cluster1.com->cluster2.com: after it was set, the held bundle is missing: lacks JWT authority jwt-of-cluster2.com, lacks X.509 authority KEY"
		if _, err := d.Repair(t.Context(), quotes(t)); err == nil || !same(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	})
}

// TestRepairKeepsTheRefreshHint: without one a server whose next fetch fails would
// stay away for half an hour.
func TestRepairKeepsTheRefreshHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		starts()["all of it"](t, w, d)
		market := w.nodes[nodeName{"quotes", "market"}].spire
		clear(market.held)
		if _, err := d.Repair(t.Context(), quotes(t)); err != nil {
			t.Fatal(err)
		}
		for td, b := range market.held {
			if hint, there := b.RefreshHint(); !there || hint != time.Minute {
				t.Errorf("the bundle of %s has the refresh hint %s, %t", td, hint, there)
			}
		}
	})
}

// TestRepairIsOneChangeAtATime has a repair come while an up is under way.
func TestRepairIsOneChangeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		second := *d
		tried := false
		d.Observe = func(e plan.Event) {
			if e.Step != "cluster/market" || e.State != plan.Started {
				return
			}
			tried = true
			const want = "lab quotes is being changed by another command: 'fedlab up', process 4711"
			if _, err := second.Repair(t.Context(), quotes(t)); err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		}
		if err := w.up(t, d, quotes(t)); err != nil || !tried {
			t.Fatalf("tried %t, error %v", tried, err)
		}
	})
}
