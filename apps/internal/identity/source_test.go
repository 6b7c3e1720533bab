package identity_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestSourceRefusesAnAddressThatIsNone(t *testing.T) {
	_, err := identity.NewSource("/run/agent.sock", slog.New(slog.DiscardHandler))
	want := `read Workload API address "/run/agent.sock": workload endpoint socket URI must have a "tcp" or "unix" scheme`
	if err == nil || err.Error() != want {
		t.Fatalf("error is %v\nwant %s", err, want)
	}
}

func TestSourceWaitsForSocketAndEntryInAnyOrder(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	source := run(t, socket)
	apptest.Await(t, "the missing socket is noticed", func() bool { return missing(source) == codes.Unavailable })

	api, stop := apptest.ServeWorkloadAPI(t, socket)
	apptest.Await(t, "the missing entry is noticed", func() bool { return missing(source) == codes.PermissionDenied })
	var unregistered *identity.MissingError
	if err := identity.Check(source, time.Now()); !errors.As(err, &unregistered) || !unregistered.Unregistered() {
		t.Errorf("check says %v, want a missing entry", err)
	}
	// By the client's own strategy the next try would be four seconds away.
	apptest.Await(t, "four refusals", func() bool { return api.Refusals() >= 4 })

	ca, other := apptest.NewCA(t, "cluster2.com"), apptest.NewCA(t, "cluster1.com")
	first := ca.Issue(t, "/client")
	registered := time.Now()
	api.Set(t, first, ca.Bundle(), other.Bundle())
	select {
	case <-source.Ready():
	case <-time.After(apptest.Patience):
		t.Fatal("no identity")
	}
	if took := time.Since(registered); took > 3*time.Second {
		t.Errorf("the identity took %s, want about a second, and less than four on any machine", took)
	}
	requireSerial(t, source, first.Certificates[0].SerialNumber.Text(16))
	if err := identity.Check(source, time.Now()); err != nil {
		t.Errorf("check says %v of a good SVID", err)
	}
	var tooOld *identity.ExpiredError
	if err := identity.Check(source, time.Now().Add(2*time.Hour)); !errors.As(err, &tooOld) {
		t.Errorf("check says %v of an expired SVID", err)
	}
	if got := source.TrustDomains(); len(got) != 2 || got[0].Name() != "cluster1.com" || got[1].Name() != "cluster2.com" {
		t.Errorf("bundles of %v, want cluster1.com and cluster2.com", got)
	}

	// An agent that restarts takes nothing away, and renews when it is back.
	stop()
	requireSerial(t, source, first.Certificates[0].SerialNumber.Text(16))
	api, _ = apptest.ServeWorkloadAPI(t, socket)
	second := ca.Issue(t, "/client")
	api.Set(t, second, ca.Bundle())
	apptest.Await(t, "the renewed SVID", func() bool {
		svid, err := source.GetX509SVID()
		return err == nil && svid.Certificates[0].Equal(second.Certificates[0])
	})
	if _, err := source.GetX509BundleForTrustDomain(other.TrustDomain); err == nil {
		t.Error("the bundle of cluster1.com is held although the agent no longer hands it out")
	}
}

// TestSourceOutlivesWhatEndsAWatch has the codes on which the client gives up.
func TestSourceOutlivesWhatEndsAWatch(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Canceled} {
		t.Run(code.String(), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "agent.sock")
			api, _ := apptest.ServeWorkloadAPI(t, socket)
			api.Refuse(code)
			source := run(t, socket)
			apptest.Await(t, "a second try", func() bool { return api.Refusals() >= 2 })
			ca := apptest.NewCA(t, "cluster2.com")
			api.Set(t, ca.Issue(t, "/client"), ca.Bundle())
			apptest.Await(t, "the identity", func() bool { return identity.Check(source, time.Now()) == nil })
		})
	}
}

// TestSourceTakesTheIdentityThatIsMeantForIt: others may stand before it.
func TestSourceTakesTheIdentityThatIsMeantForIt(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	ca := apptest.NewCA(t, "cluster2.com")
	broad, other, meant := ca.Issue(t, "/ns/demo/sa/client"), ca.Issue(t, "/other"), ca.Issue(t, "/client")
	other.Hint, meant.Hint = "external", identity.Hint
	source := run(t, socket)
	for _, tt := range []struct {
		handed []*x509svid.SVID
		want   *x509svid.SVID
	}{
		{[]*x509svid.SVID{broad, other, meant}, meant},
		{[]*x509svid.SVID{meant, broad}, meant},
		{[]*x509svid.SVID{broad, other}, broad},
	} {
		api.SetAll(t, tt.handed, ca.Bundle())
		apptest.Await(t, "the SVID of "+tt.want.ID.String(), func() bool {
			svid, err := source.GetX509SVID()
			return err == nil && svid.Certificates[0].Equal(tt.want.Certificates[0])
		})
	}
}

// run follows the Workload API at socket until the test ends.
func run(t *testing.T, socket string) *identity.Source {
	t.Helper()
	source, err := identity.NewSource("unix://"+socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := apptest.Ended(t, ended); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return source
}

func missing(source *identity.Source) codes.Code {
	_, err := source.GetX509SVID()
	var missing *identity.MissingError
	if !errors.As(err, &missing) {
		return codes.OK
	}
	return status.Code(missing.Cause)
}

func requireSerial(t *testing.T, source *identity.Source, want string) {
	t.Helper()
	svid, err := source.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if got := identity.DocumentOf(svid).Serial; got != want {
		t.Errorf("serial is %s, want %s", got, want)
	}
}
