package spire_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
)

// rotation is the API for one kind of authority.
type rotation struct {
	list     func(context.Context) (spire.Authorities, error)
	prepare  func(context.Context) (spire.Authority, error)
	activate func(context.Context, string) (spire.Authority, error)
	taint    func(context.Context, string) error
	revoke   func(context.Context, string) error
	// inBundle returns the IDs of the authorities that a bundle has, sorted.
	inBundle func(*spiffebundle.Bundle) []string
}

func x509Rotation(s *spire.Server) rotation {
	return rotation{
		s.X509Authorities, s.PrepareX509Authority, s.ActivateX509Authority, s.TaintX509Authority, s.RevokeX509Authority,
		func(b *spiffebundle.Bundle) (ids []string) {
			for _, authority := range b.X509Authorities() {
				ids = append(ids, hex.EncodeToString(authority.SubjectKeyId))
			}
			slices.Sort(ids)
			return ids
		},
	}
}

func jwtRotation(s *spire.Server) rotation {
	return rotation{
		s.JWTAuthorities, s.PrepareJWTAuthority, s.ActivateJWTAuthority, s.TaintJWTAuthority, s.RevokeJWTAuthority,
		func(b *spiffebundle.Bundle) []string { return slices.Sorted(maps.Keys(b.JWTAuthorities())) },
	}
}

// kinds are both, each with the words of its refusals; forgotten is that of
// revoking what the server remembers no more, where it refuses.
var kinds = map[string]struct {
	of                   func(*spire.Server) rotation
	name, key, forgotten string
}{
	"X.509": {x509Rotation, "X.509 authority", "root CA", "invalid authority ID: only Old local authority can be revoked"},
	"JWT":   {jwtRotation, "JWT authority", "key", ""},
}

func TestRotation(t *testing.T) {
	for kind, k := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			process, server := start(t, market)
			r := k.of(server)
			inBundle := func(want ...spire.Authority) {
				t.Helper()
				var ids []string
				for _, authority := range want {
					ids = append(ids, authority.ID)
				}
				slices.Sort(ids)
				if got := r.inBundle(mustBundle(t, server)); !slices.Equal(got, ids) {
					t.Errorf("bundle has %v, want %v", got, ids)
				}
			}
			refused := func(err error, doing string, code codes.Code, message string) {
				t.Helper()
				want := fmt.Sprintf("%s on SPIRE server of cluster1.com: rpc error: code = %s desc = %s", doing, code, message)
				if err == nil || err.Error() != want || status.Code(err) != code {
					t.Errorf("error = %v, want %s", err, want)
				}
			}

			first := only(t, r)
			inBundle(first)
			if life := time.Until(first.ExpiresAt); life < 23*time.Hour || life > 24*time.Hour {
				t.Errorf("%s expires in %s, want SPIRE's default of a day", kind, life)
			}

			// Nothing but what is prepared becomes active.
			_, err := r.activate(t.Context(), first.ID)
			refused(err, "activate "+k.name+" "+first.ID, codes.InvalidArgument, "unexpected authority ID")
			refused(r.taint(t.Context(), first.ID), "taint "+k.name+" "+first.ID, codes.InvalidArgument, "unable to taint current local authority")
			refused(r.revoke(t.Context(), first.ID), "revoke "+k.name+" "+first.ID, codes.InvalidArgument, "invalid authority ID: unable to use current authority")
			_, err = r.activate(t.Context(), "")
			refused(err, "activate "+k.name+" ", codes.InvalidArgument, "no authority ID provided")

			second, err := r.prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			inBundle(first, second) // at once
			are(t, r, spire.Authorities{Active: &first, Prepared: &second})
			refused(r.taint(t.Context(), second.ID), "taint "+k.name+" "+second.ID, codes.InvalidArgument,
				"only Old local authorities can be tainted: unsupported local authority status: PREPARED")
			if err := r.revoke(t.Context(), second.ID); status.Code(err) != codes.InvalidArgument {
				t.Errorf("revoking what is prepared: %v, want code InvalidArgument", err)
			}

			// Another takes its place, and what gave way is left to expire.
			third, err := r.prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			inBundle(first, second, third)
			are(t, r, spire.Authorities{Active: &first, Prepared: &third})
			_, err = r.activate(t.Context(), second.ID)
			refused(err, "activate "+k.name+" "+second.ID, codes.InvalidArgument, "unexpected authority ID")

			activated, err := r.activate(t.Context(), third.ID)
			if err != nil || activated != third {
				t.Fatalf("activated %+v, %v; want %+v", activated, err, third)
			}
			inBundle(first, second, third)
			are(t, r, spire.Authorities{Active: &third, Old: &first})
			_, err = r.activate(t.Context(), first.ID)
			refused(err, "activate "+k.name+" "+first.ID, codes.Internal,
				"only Prepared authorities can be activated: unsupported local authority status: OLD")
			refused(r.revoke(t.Context(), first.ID), "revoke "+k.name+" "+first.ID, codes.Internal,
				"failed to revoke "+k.name+": it is not possible to revoke an untainted "+k.key)

			// Who reads the bundle sees nothing of a taint.
			before := served(t, process)
			if err := r.taint(t.Context(), first.ID); err != nil {
				t.Fatal(err)
			}
			inBundle(first, second, third)
			are(t, r, spire.Authorities{Active: &third, Old: &first})
			if after := served(t, process); strings.Contains(after, "taint") || len(after) != len(before) {
				t.Errorf("the endpoint served %s before the taint, %s after", before, after)
			}
			if printed := process.Run(t, "bundle", "show", "-output", "json"); !strings.Contains(string(printed), `"tainted":true`) {
				t.Errorf("the server itself does not say who is tainted: %s", printed)
			}
			if err := r.taint(t.Context(), first.ID); status.Code(err) != codes.Internal {
				t.Errorf("tainting twice: %v, want code Internal", err)
			}

			if err := r.revoke(t.Context(), first.ID); err != nil {
				t.Fatal(err)
			}
			inBundle(second, third)
			are(t, r, spire.Authorities{Active: &third, Old: &first})
			if err := r.revoke(t.Context(), first.ID); status.Code(err) != codes.Internal {
				t.Errorf("revoking twice: %v, want code Internal", err)
			}

			// The next takes the place of the old one.
			fourth, err := r.prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			inBundle(second, third, fourth)
			are(t, r, spire.Authorities{Active: &third, Prepared: &fourth})

			// Tainted, but not revoked in time.
			if _, err := r.activate(t.Context(), fourth.ID); err != nil {
				t.Fatal(err)
			}
			if err := r.taint(t.Context(), third.ID); err != nil {
				t.Fatal(err)
			}
			fifth, err := r.prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = r.revoke(t.Context(), third.ID)
			if k.forgotten == "" {
				if err != nil {
					t.Errorf("revoking what was forgotten: %v", err)
				}
				inBundle(second, fourth, fifth)
				return
			}
			refused(err, "revoke "+k.name+" "+third.ID, codes.InvalidArgument, k.forgotten)
			inBundle(second, third, fourth, fifth)
		})
	}
}

// only returns the one authority of a server that has just begun.
func only(t *testing.T, r rotation) spire.Authority {
	t.Helper()
	all, err := r.list(t.Context())
	if err != nil || all.Active == nil {
		t.Fatalf("authorities %+v, %v", all, err)
	}
	are(t, r, spire.Authorities{Active: all.Active})
	return *all.Active
}

func are(t *testing.T, r rotation, want spire.Authorities) {
	t.Helper()
	got, err := r.list(t.Context())
	if err != nil || show(got) != show(want) {
		t.Errorf("authorities are %s, %v; want %s", show(got), err, show(want))
	}
}

func show(all spire.Authorities) string {
	text := func(a *spire.Authority) string {
		if a == nil {
			return "none"
		}
		return a.ID + " until " + a.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("active %s, prepared %s, old %s", text(all.Active), text(all.Prepared), text(all.Old))
}

// served returns what a bundle endpoint serves to anybody.
func served(t *testing.T, process *spiretest.Server) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // what it serves is looked at, not believed
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, process.BundleEndpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("endpoint answers %s, %v: %s", response.Status, err, body)
	}
	return string(body)
}

// What an old authority has signed is replaced once it is tainted, before any of
// it would expire.
func TestTaintReachesWorkloads(t *testing.T) {
	process, server := startWith(t, spiretest.Config{TrustDomain: market, Server: `experimental { cache_reload_interval = "1s" }`})
	workloadAPI := process.StartAgent(t)
	id := spiffeid.RequireFromPath(market, "/workload")
	if _, err := server.CreateEntry(t.Context(), spire.Entry{
		SPIFFEID: id, ParentID: onlyAgent(t, server).ID, Selectors: []string{fmt.Sprintf("unix:uid:%d", os.Getuid())},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(workloadAPI)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	}()
	// signedBy returns which authority has signed what the workload has.
	signedBy := func() (x509, jwt string) {
		t.Helper()
		svid, err := source.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		token, err := workloadapi.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "test", Subject: id}, workloadapi.WithAddr(workloadAPI))
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(svid.Certificates[0].AuthorityKeyId), headerOf(t, token.Marshal()).KeyID
	}
	x509, jwt := x509Rotation(server), jwtRotation(server)
	oldX509, oldJWT := only(t, x509), only(t, jwt)
	if gotX509, gotJWT := signedBy(); gotX509 != oldX509.ID || gotJWT != oldJWT.ID {
		t.Fatalf("SVIDs are signed by %s and %s, want the active %s and %s", gotX509, gotJWT, oldX509.ID, oldJWT.ID)
	}

	newX509, newJWT := replaced(t, x509), replaced(t, jwt)
	if gotX509, gotJWT := signedBy(); gotX509 != oldX509.ID || gotJWT != oldJWT.ID {
		t.Errorf("after the activation SVIDs are signed by %s and %s, want still %s and %s", gotX509, gotJWT, oldX509.ID, oldJWT.ID)
	}
	began := time.Now()
	if err := errors.Join(x509.taint(t.Context(), oldX509.ID), jwt.taint(t.Context(), oldJWT.ID)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(context.Context) error {
		if gotX509, gotJWT := signedBy(); gotX509 != newX509.ID || gotJWT != newJWT.ID {
			return fmt.Errorf("SVIDs are signed by %s and %s, want the new %s and %s", gotX509, gotJWT, newX509.ID, newJWT.ID)
		}
		return nil
	})
	t.Logf("SVIDs were replaced %s after the taint", time.Since(began))

	// The workload trusts what is tainted until it is revoked.
	held := func() []string {
		t.Helper()
		bundle, err := source.GetX509BundleForTrustDomain(market)
		if err != nil {
			t.Fatal(err)
		}
		return x509.inBundle(spiffebundle.FromX509Bundle(bundle))
	}
	if got := held(); !slices.Contains(got, oldX509.ID) {
		t.Errorf("the workload's bundle has %v, want the tainted %s among them", got, oldX509.ID)
	}
	if err := x509.revoke(t.Context(), oldX509.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(context.Context) error {
		if got := held(); !slices.Equal(got, []string{newX509.ID}) {
			return fmt.Errorf("the workload's bundle has %v, want %s alone", got, newX509.ID)
		}
		return nil
	})
}

// header is that of a JWT-SVID.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
}

// headerOf returns what a token says that it is signed with, and how.
func headerOf(t *testing.T, token string) (h header) {
	t.Helper()
	encoded, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// replaced makes a new authority the active one.
func replaced(t *testing.T, r rotation) spire.Authority {
	t.Helper()
	prepared, err := r.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	active, err := r.activate(t.Context(), prepared.ID)
	if err != nil {
		t.Fatal(err)
	}
	return active
}

// A peer knows nothing of a taint, and learns of a new authority, and of one that
// is revoked, when it fetches.
func TestRotationSeenByPeer(t *testing.T) {
	marketProcess, marketServer := start(t, market)
	brokerProcess, brokerServer := start(t, broker)
	r := x509Rotation(marketServer)
	old := only(t, r)
	source := mustBundle(t, marketServer)
	federate(t, brokerProcess, marketProcess, source, spire.ServerID(market))
	inSync(t, brokerServer, source)
	next := replaced(t, r)
	compare := func(when string, want federation.State, holds ...string) {
		t.Helper()
		held, err := brokerServer.HeldBundle(t.Context(), market)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(holds)
		if c := federation.Compare(held, mustBundle(t, marketServer)); c.State != want || !slices.Equal(r.inBundle(held), holds) {
			t.Errorf("%s the peer holds %v, which is %s; want %v, %s", when, r.inBundle(held), c, holds, want)
		}
	}
	compare("before it fetches", federation.Behind, old.ID)
	refresh := func() {
		t.Helper()
		if err := brokerServer.RefreshBundle(t.Context(), market); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	compare("after the next one was activated", federation.InSync, old.ID, next.ID)
	if err := r.taint(t.Context(), old.ID); err != nil {
		t.Fatal(err)
	}
	refresh()
	compare("after the taint", federation.InSync, old.ID, next.ID)
	if err := r.revoke(t.Context(), old.ID); err != nil {
		t.Fatal(err)
	}
	refresh()
	compare("after the old one was revoked", federation.InSync, next.ID)
}

// What is above a server is all that its bundle has, so that only that can be
// tainted.
func TestRotationBelowUpstreamAuthority(t *testing.T) {
	root, _, plugin := upstream(t)
	_, server := startWith(t, spiretest.Config{TrustDomain: market, Plugins: plugin})
	r := x509Rotation(server)
	old := only(t, r)
	active := replaced(t, r)
	are(t, r, spire.Authorities{Active: &active, Old: &old})
	if got, want := r.inBundle(mustBundle(t, server)), hex.EncodeToString(root.Certificate.SubjectKeyId); !slices.Equal(got, []string{want}) {
		t.Errorf("bundle has %v, want the root %s and nothing else", got, want)
	}
	for doing, err := range map[string]error{
		"tainted": r.taint(t.Context(), old.ID),
		"revoked": r.revoke(t.Context(), old.ID),
	} {
		want := "local authority can't be " + doing + " if there is an upstream authority"
		if status.Code(err) != codes.FailedPrecondition || !strings.HasSuffix(err.Error(), "desc = "+want) {
			t.Errorf("error = %v, want code FailedPrecondition and %q", err, want)
		}
	}
	jwt := jwtRotation(server)
	first := only(t, jwt)
	replaced(t, jwt)
	if err := jwt.taint(t.Context(), first.ID); err != nil {
		t.Errorf("tainting a JWT authority, with which the upstream one has nothing to do: %v", err)
	}
}
