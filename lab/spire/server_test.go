package spire_test

import (
	"context"
	"errors"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
)

var (
	market = spiffeid.RequireTrustDomainFromString("cluster1.com")
	broker = spiffeid.RequireTrustDomainFromString("cluster2.com")
	absent = spiffeid.RequireTrustDomainFromString("absent.com")
)

// start runs the server of td and connects to it.
func start(t *testing.T, td spiffeid.TrustDomain) (*spiretest.Server, *spire.Server) {
	t.Helper()
	process := spiretest.StartServer(t, td, spire.AdminID(td))
	return process, connect(t, process, process.Dial)
}

func connect(t *testing.T, process *spiretest.Server, dial spire.Dial) *spire.Server {
	t.Helper()
	server, err := spire.Connect(t.Context(), process.Exec, dial, process.TrustDomain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func TestConnectRefusesAnotherServer(t *testing.T) {
	brokerProcess, _ := start(t, broker)
	marketProcess, _ := start(t, market)

	// The program next to the market's server, the port of the broker's.
	_, err := spire.Connect(t.Context(), marketProcess.Exec, brokerProcess.Dial, market)
	want := `no X.509 bundle found for trust domain: \"cluster2.com\"`
	if err == nil || !strings.HasPrefix(err.Error(), "connect to SPIRE server of cluster1.com: ") || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v, want one with %q", err, want)
	}
}

func TestConnectRefusesCallerThatIsNoAdmin(t *testing.T) {
	process := spiretest.StartServer(t, market, spiffeid.RequireFromPath(market, "/somebody/else"))
	_, err := spire.Connect(t.Context(), process.Exec, process.Dial, market)
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("error = %v, want code PermissionDenied", err)
	}
}

func TestConnectSaysWhyItCannotMint(t *testing.T) {
	process := spiretest.StartServer(t, market, spire.AdminID(market))
	exec := func(context.Context, ...string) ([]byte, error) { return nil, errors.New("no such pod") }
	_, err := spire.Connect(t.Context(), exec, process.Dial, market)
	want := "mint SVID of spiffe://cluster1.com/fedlab/admin: no such pod"
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v, want code Unavailable and %q", err, want)
	}
}

// A server before 1.15 puts what it has minted into a list.
func TestConnectToAnOlderServer(t *testing.T) {
	process := spiretest.StartServer(t, market, spire.AdminID(market))
	exec := func(ctx context.Context, argv ...string) ([]byte, error) {
		minted, err := process.Exec(ctx, argv...)
		return slices.Concat([]byte("["), minted, []byte("]")), err
	}
	server, err := spire.Connect(t.Context(), exec, process.Dial, market)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

// A connection ends after three minutes at the latest, and each time a
// port-forward does. The next call must find its way with an SVID of its own.
func TestEachConnectionMintsItsOwnSVID(t *testing.T) {
	process := spiretest.StartServer(t, market, spire.AdminID(market))
	var minted atomic.Int32
	exec := func(ctx context.Context, argv ...string) ([]byte, error) {
		minted.Add(1)
		return process.Exec(ctx, argv...)
	}
	dialled := make(chan net.Conn, 2)
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := process.Dial(ctx)
		if err == nil {
			dialled <- conn
		}
		return conn, err
	}
	server, err := spire.Connect(t.Context(), exec, dial, market)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()

	if err := (<-dialled).Close(); err != nil {
		t.Fatal(err)
	}
	// The call that meets the broken connection may fail; one after it must not.
	eventually(t, func(ctx context.Context) error {
		_, err := server.Bundle(ctx)
		if err == nil && minted.Load() < 2 {
			return errors.New("call went over the connection that was closed")
		}
		return err
	})
	if got := minted.Load(); got != 2 {
		t.Errorf("%d SVIDs minted for two connections", got)
	}
}

func TestBundle(t *testing.T) {
	process, server := start(t, market)
	got, err := server.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := spiffebundle.Parse(market, process.Run(t, "bundle", "show", "-format", "spiffe"))
	if err != nil {
		t.Fatal(err)
	}
	if !sameAuthorities(got, want) || got.TrustDomain() != market {
		t.Errorf("bundle of %s has authorities other than those that the server prints", got.TrustDomain())
	}
	if hint, ok := got.RefreshHint(); ok {
		t.Errorf("bundle has refresh hint %s, want none: only the endpoint knows it", hint)
	}
	if len(got.X509Authorities()) != 1 || len(got.JWTAuthorities()) != 1 {
		t.Errorf("bundle has %d X.509 and %d JWT authorities, want one of each", len(got.X509Authorities()), len(got.JWTAuthorities()))
	}
}

func TestHeldBundles(t *testing.T) {
	_, server := start(t, market)
	own, err := server.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	if held, err := server.HeldBundles(t.Context()); err != nil || len(held) != 0 {
		t.Fatalf("a new server holds %v, %v; want none", held, err)
	}
	wantNotHeld(t, server, broker)

	set := relabelled(own, broker)
	set.SetRefreshHint(90 * time.Second)
	set.SetSequenceNumber(42)
	if err := server.SetBundle(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	got, err := server.HeldBundle(t.Context(), broker)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(set) {
		t.Errorf("held bundle differs from the one that was set")
	}

	if err := server.SetBundle(t.Context(), relabelled(own, absent)); err != nil {
		t.Fatal(err)
	}
	held, err := server.HeldBundles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, bundle := range held {
		names = append(names, bundle.TrustDomain().Name())
	}
	if want := []string{"absent.com", "cluster2.com"}; !slices.Equal(names, want) {
		t.Errorf("server holds bundles of %v, want %v", names, want)
	}

	// SPIRE takes an empty bundle for a good one.
	if err := server.SetBundle(t.Context(), spiffebundle.New(broker)); err != nil {
		t.Fatal(err)
	}
	if got, err = server.HeldBundle(t.Context(), broker); err != nil || !got.Empty() {
		t.Errorf("held bundle after an empty one was set: %v, %v", got, err)
	}

	err = server.SetBundle(t.Context(), own)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("setting the server's own bundle: error = %v, want code InvalidArgument", err)
	}
}

func TestDeleteBundle(t *testing.T) {
	process, server := start(t, market)
	own, err := server.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	foreign := relabelled(own, broker)
	register := func() {
		t.Helper()
		if err := server.SetBundle(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		process.Run(t, "entry", "create", "-spiffeID", "spiffe://cluster1.com/server", "-parentID", "spiffe://cluster1.com/agent",
			"-selector", "unix:uid:1000", "-federatesWith", "cluster2.com", "-x509SVIDTTL", "600")
	}
	entries := func() []spire.Entry {
		t.Helper()
		entries, err := server.Entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			entries[i].ID = ""
		}
		return entries
	}
	entry := spire.Entry{
		SPIFFEID:      spiffeid.RequireFromPath(market, "/server"),
		ParentID:      spiffeid.RequireFromPath(market, "/agent"),
		Selectors:     []string{"unix:uid:1000"},
		FederatesWith: []spiffeid.TrustDomain{broker},
		X509SVIDTTL:   10 * time.Minute,
	}

	register()
	if got := entries(); !reflect.DeepEqual(got, []spire.Entry{entry}) {
		t.Fatalf("entries = %+v, want %+v", got, entry)
	}

	err = server.DeleteBundle(t.Context(), broker, spire.DeleteRestrict)
	if federated := (*spire.FederatedError)(nil); !errors.As(err, &federated) || status.Code(err) != codes.FailedPrecondition {
		t.Errorf("restrict with an entry: error = %v, want a FederatedError with code FailedPrecondition", err)
	}
	if held, err := server.HeldBundle(t.Context(), broker); held == nil || err != nil {
		t.Errorf("bundle that must not be deleted: %v", err)
	}

	if err := server.DeleteBundle(t.Context(), broker, spire.DeleteDissociate); err != nil {
		t.Fatal(err)
	}
	alone := entry
	alone.FederatesWith = nil
	if got := entries(); !reflect.DeepEqual(got, []spire.Entry{alone}) {
		t.Errorf("after dissociate: entries = %+v, want %+v", got, alone)
	}
	wantNotHeld(t, server, broker)
	wantNotFound(t, server.DeleteBundle(t.Context(), broker, spire.DeleteRestrict), "delete held bundle of cluster2.com on SPIRE server of cluster1.com: ")

	deleteAll(t, process)
	register()
	if err := server.DeleteBundle(t.Context(), broker, spire.DeleteEntries); err != nil {
		t.Fatal(err)
	}
	if got := entries(); len(got) != 0 {
		t.Errorf("after delete: entries = %+v, want none", got)
	}

	err = server.DeleteBundle(t.Context(), broker, "gently")
	if want := `delete held bundle of cluster2.com on SPIRE server of cluster1.com: unknown mode "gently"`; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}

func TestAgents(t *testing.T) {
	process, server := start(t, market)
	if agents, err := server.Agents(t.Context()); err != nil || len(agents) != 0 {
		t.Fatalf("a new server has agents %v, %v; want none", agents, err)
	}
	process.StartAgent(t)

	agent := onlyAgent(t, server)
	if agent.AttestedBy != "join_token" || agent.Banned || !strings.HasPrefix(agent.ID.String(), "spiffe://cluster1.com/spire/agent/join_token/") {
		t.Errorf("agent = %+v, want one that attested with a join token and is not banned", agent)
	}
	if life := time.Until(agent.ExpiresAt); life < 50*time.Minute || life > time.Hour {
		t.Errorf("agent's SVID ends in %s, want about an hour", life)
	}

	if err := server.BanAgent(t.Context(), agent.ID); err != nil {
		t.Fatal(err)
	}
	if agent := onlyAgent(t, server); !agent.Banned {
		t.Errorf("agent = %+v, want it banned", agent)
	}

	if err := server.DeleteAgent(t.Context(), agent.ID); err != nil {
		t.Fatal(err)
	}
	if agents, err := server.Agents(t.Context()); err != nil || len(agents) != 0 {
		t.Errorf("after delete: agents = %+v, %v; want none", agents, err)
	}
	wantNotFound(t, server.BanAgent(t.Context(), agent.ID), "ban agent "+agent.ID.String()+" on SPIRE server of cluster1.com: ")
	wantNotFound(t, server.DeleteAgent(t.Context(), agent.ID), "delete agent "+agent.ID.String()+" on SPIRE server of cluster1.com: ")
}

func onlyAgent(t *testing.T, server *spire.Server) spire.Agent {
	t.Helper()
	agents, err := server.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(agents) != 1 {
		t.Fatalf("agents = %+v, want one", agents)
	}
	return agents[0]
}

// deleteAll deletes all entries of a server.
func deleteAll(t *testing.T, process *spiretest.Server) {
	t.Helper()
	server := connect(t, process, process.Dial)
	entries, err := server.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		process.Run(t, "entry", "delete", "-entryID", entry.ID)
	}
}

// wantNotHeld fails the test when the server holds a bundle of td.
func wantNotHeld(t *testing.T, server *spire.Server, td spiffeid.TrustDomain) {
	t.Helper()
	if held, err := server.HeldBundle(t.Context(), td); held != nil || err != nil {
		t.Errorf("the server holds %v of %s, %v; want nothing", held, td, err)
	}
}

func wantNotFound(t *testing.T, err error, prefix string) {
	t.Helper()
	var notFound *spire.NotFoundError
	if !errors.As(err, &notFound) || status.Code(err) != codes.NotFound || !strings.HasPrefix(err.Error(), prefix) {
		t.Errorf("error = %v, want a NotFoundError that starts with %q", err, prefix)
	}
}

// relabelled returns the authorities of a bundle as those of another domain.
func relabelled(bundle *spiffebundle.Bundle, td spiffeid.TrustDomain) *spiffebundle.Bundle {
	relabelled := spiffebundle.New(td)
	relabelled.SetX509Authorities(bundle.X509Authorities())
	relabelled.SetJWTAuthorities(bundle.JWTAuthorities())
	return relabelled
}

func sameAuthorities(a, b *spiffebundle.Bundle) bool {
	return a.X509Bundle().Equal(b.X509Bundle()) && a.JWTBundle().Equal(b.JWTBundle())
}

// eventually asks again until there is no error, or for half a minute.
func eventually(t *testing.T, probe func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after 30 s still: %v", err)
		case <-again.C:
		}
	}
}
