package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

func TestBothSidesKnowWhoTheOtherIsAndWhatVerifiedIt(t *testing.T) {
	// Two trust domains need not have keys of the same type.
	market, broker := apptest.NewRSACA(t, "cluster1.com"), apptest.NewCA(t, "cluster2.com")
	server := apptest.NewHolder(market.Issue(t, "/server"), market.Bundle(), broker.Bundle())
	client := apptest.NewHolder(broker.Issue(t, "/client"), market.Bundle(), broker.Bundle())
	var serverLog, clientLog apptest.Log
	listening := serve(t, server, &serverLog)

	seen, err := call(t, listening.address, market, client, &clientLog)
	if err != nil {
		t.Fatal(err)
	}
	checkPeer(t, "server as the client sees it", seen, server, market)
	checkPeer(t, "client as the server sees it", <-listening.callers, client, broker)

	for who, line := range map[string]string{"server": serverLog.Await(t, "client authenticated"), "client": clientLog.Await(t, "server authenticated")} {
		ca, holder := broker, client
		if who == "client" {
			ca, holder = market, server
		}
		svid, _ := holder.GetX509SVID()
		for _, want := range []string{
			"spiffe_id=" + svid.ID.String(), "serial=" + svid.Certificates[0].SerialNumber.Text(16), "expires=",
			"bundle=" + ca.TrustDomain.Name(), "authority=" + hex.EncodeToString(ca.Root.SubjectKeyId), `authority_subject="CN=authority of ` + ca.TrustDomain.Name(),
		} {
			if !strings.Contains(line, want) {
				t.Errorf("the %s's log lacks %q:\n%s", who, want, line)
			}
		}
	}
}

func checkPeer(t *testing.T, who string, got identity.Peer, holder *apptest.Holder, ca *apptest.CA) {
	t.Helper()
	svid, err := holder.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	want := identity.Peer{Document: identity.DocumentOf(svid), VerifiedBy: identity.Authority{
		TrustDomain:  ca.TrustDomain,
		SubjectKeyID: hex.EncodeToString(ca.Root.SubjectKeyId),
		Subject:      "CN=authority of " + ca.TrustDomain.Name(),
		NotAfter:     ca.Root.NotAfter,
	}}
	if got != want {
		t.Errorf("%s:\n got %+v\nwant %+v", who, got, want)
	}
}

func TestHandshakesAreRefusedWithATypedReason(t *testing.T) {
	market, broker := apptest.NewCA(t, "cluster1.com"), apptest.NewCA(t, "cluster2.com")
	renewed := apptest.NewCA(t, "cluster1.com")
	both := []*x509bundle.Bundle{market.Bundle(), broker.Bundle()}
	long, short := time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)

	var (
		noBundle *identity.NotFederatedError
		stranger *identity.UnexpectedIDError
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		network  *net.OpError
	)
	alert := func(err error) bool { return errors.As(err, &network) && network.Op == "remote error" }
	for name, test := range map[string]struct {
		server, client *apptest.Holder
		typed          func(error) bool
	}{
		"the server is somebody else of the right domain": {
			server: apptest.NewHolder(market.Issue(t, "/other"), both...),
			client: apptest.NewHolder(broker.Issue(t, "/client"), both...),
			typed: func(err error) bool {
				return errors.As(err, &stranger) && stranger.Got.String() == "spiffe://cluster1.com/other" && stranger.Want.String() == "spiffe://cluster1.com/server"
			},
		},
		"the client holds no bundle of the server's domain": {
			server: apptest.NewHolder(market.Issue(t, "/server"), both...),
			client: apptest.NewHolder(broker.Issue(t, "/client"), broker.Bundle()),
			typed:  func(err error) bool { return errors.As(err, &noBundle) && noBundle.TrustDomain == market.TrustDomain },
		},
		"the client's bundle lacks the authority": {
			server: apptest.NewHolder(renewed.Issue(t, "/server"), both...),
			client: apptest.NewHolder(broker.Issue(t, "/client"), both...),
			typed:  func(err error) bool { return errors.As(err, &unknown) },
		},
		"the server's SVID has expired": {
			server: apptest.NewHolder(market.IssueFor(t, "/server", long, short), both...),
			client: apptest.NewHolder(broker.Issue(t, "/client"), both...),
			typed:  func(err error) bool { return errors.As(err, &invalid) && invalid.Reason == x509.Expired },
		},
		"the server holds no bundle of the client's domain": {
			server: apptest.NewHolder(market.Issue(t, "/server"), market.Bundle()),
			client: apptest.NewHolder(broker.Issue(t, "/client"), both...),
			typed:  alert,
		},
		"the client's SVID has expired": {
			server: apptest.NewHolder(market.Issue(t, "/server"), both...),
			client: apptest.NewHolder(broker.IssueFor(t, "/client", long, short), both...),
			typed:  alert,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var serverLog apptest.Log
			listening := serve(t, test.server, &serverLog)
			_, err := call(t, listening.address, market, test.client, &apptest.Log{})
			if !test.typed(err) {
				t.Errorf("the client's error is %v (%T)", err, err)
			}
			serverLog.Await(t, "handshake refused")
		})
	}
}

func TestNewHandshakesUseWhatIsHeldNow(t *testing.T) {
	market, broker := apptest.NewCA(t, "cluster1.com"), apptest.NewCA(t, "cluster2.com")
	server := apptest.NewHolder(market.Issue(t, "/server"), market.Bundle(), broker.Bundle())
	svid := broker.Issue(t, "/client")
	client := apptest.NewHolder(svid, market.Bundle())
	listening := serve(t, server, &apptest.Log{})
	if _, err := call(t, listening.address, market, client, &apptest.Log{}); err != nil {
		t.Fatal(err)
	}

	next := apptest.NewCA(t, "cluster1.com")
	server.Set(next.Issue(t, "/server"), next.Bundle(market), broker.Bundle())
	var unknown x509.UnknownAuthorityError
	if _, err := call(t, listening.address, market, client, &apptest.Log{}); !errors.As(err, &unknown) {
		t.Fatalf("before the new authority is known: %v", err)
	}
	client.Set(svid, market.Bundle(next))
	seen, err := call(t, listening.address, market, client, &apptest.Log{})
	if err != nil {
		t.Fatal(err)
	}
	checkPeer(t, "server after the rotation", seen, server, next)
}

// TestServersHandOutNoSessionTickets: what is never handed out cannot be used
// to come back without being verified.
func TestServersHandOutNoSessionTickets(t *testing.T) {
	market, broker := apptest.NewCA(t, "cluster1.com"), apptest.NewCA(t, "cluster2.com")
	client := apptest.NewHolder(broker.Issue(t, "/client"), market.Bundle())
	listening := serve(t, apptest.NewHolder(market.Issue(t, "/server"), broker.Bundle()), &apptest.Log{})

	var tickets tickets
	config := tlsconfig.MTLSClientConfig(client, client, tlsconfig.AuthorizeAny())
	config.NextProtos = []string{"h2"}
	config.ServerName = "server"
	config.ClientSessionCache = &tickets
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", listening.address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil { // a ticket would come before it
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if tickets.count != 0 {
		t.Errorf("the server handed out %d tickets", tickets.count)
	}
}

// tickets is a session cache that counts and holds nothing.
type tickets struct{ count int }

func (*tickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (s *tickets) Put(string, *tls.ClientSessionState)      { s.count++ }

func TestConnSaysWhyItDoesNotConnect(t *testing.T) {
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	market := apptest.NewCA(t, "cluster1.com")
	client := apptest.NewHolder(market.Issue(t, "/client"), market.Bundle())
	var network *net.OpError
	if _, err := call(t, listener.Addr().String(), market, client, &apptest.Log{}); !errors.As(err, &network) || network.Op != "dial" {
		t.Errorf("error is %v (%T), want that of the dialer", err, err)
	}
}

// TestSelfTellsWhatVerifiesIt: nothing does after its authority was revoked.
func TestSelfTellsWhatVerifiesIt(t *testing.T) {
	ca, next := apptest.NewCA(t, "cluster1.com"), apptest.NewCA(t, "cluster1.com")
	holder := apptest.NewHolder(ca.Issue(t, "/server"), ca.Bundle(next))
	if by := identity.SelfOf(holder).VerifiedBy; by == nil || by.SubjectKeyID != hex.EncodeToString(ca.Root.SubjectKeyId) {
		t.Errorf("verified by %+v", by)
	}
	holder.Set(ca.Issue(t, "/server"), next.Bundle())
	if by := identity.SelfOf(holder).VerifiedBy; by != nil {
		t.Errorf("verified by %+v, want nothing", by)
	}
}

func TestParseIDWantsAWorkload(t *testing.T) {
	for text, want := range map[string]string{
		"spiffe://cluster2.com/client": "",
		"cluster2.com/client":          "want a SPIFFE ID such as spiffe://cluster2.com/client: scheme is missing or invalid",
		"spiffe://cluster2.com":        "want a SPIFFE ID with a path, such as spiffe://cluster2.com/client",
	} {
		_, err := identity.ParseID(text)
		if got := errorText(err); got != want {
			t.Errorf("%s: error is %q, want %q", text, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// call makes one call to the server of market, and returns who answered or
// the reason that a Conn gives.
func call(t *testing.T, address string, market *apptest.CA, client *apptest.Holder, log *apptest.Log) (identity.Peer, error) {
	t.Helper()
	want, err := identity.ParseID(market.TrustDomain.IDString() + "/server")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := identity.NewConn(address, want, client, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), apptest.Patience)
	defer cancel()
	var answered peer.Peer
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, nil, grpc.Peer(&answered))
	if err != nil {
		return identity.Peer{}, errors.Join(conn.Err(), err)
	}
	if err := conn.Err(); err != nil {
		t.Errorf("the call came through, but Err says %v", err)
	}
	seen, ok := identity.PeerOf(&answered)
	if !ok {
		t.Fatal("the answer has no authenticated peer")
	}
	return seen, nil
}

type listening struct {
	grpc_health_v1.UnimplementedHealthServer
	address string
	callers chan identity.Peer
}

func (l *listening) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	caller, ok := identity.PeerFromContext(ctx)
	if !ok {
		return nil, errors.New("the caller is not authenticated")
	}
	l.callers <- caller
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func serve(t *testing.T, holder identity.Holder, log *apptest.Log) *listening {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &listening{address: listener.Addr().String(), callers: make(chan identity.Peer, 8)}
	server := grpc.NewServer(grpc.Creds(identity.ServerCredentials(holder, slog.New(slog.NewTextHandler(log, nil)))))
	grpc_health_v1.RegisterHealthServer(server, l)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
	return l
}
