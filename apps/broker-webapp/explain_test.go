package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestWhyThereAreNoQuotes breaks a real connection in each way.
func TestWhyThereAreNoQuotes(t *testing.T) {
	past, soon := time.Now().Add(-2*time.Hour), time.Now().Add(2*time.Hour)
	for name, test := range map[string]struct {
		spoil func(*pair)
		class class
		what  string // a meaningful part
	}{
		"our SVID has expired": {
			func(p *pair) {
				p.client.Set(p.broker.IssueFor(p.t, "/client", past, time.Now().Add(-time.Minute)), p.market.Bundle())
			},
			expired, "This broker's own identity expired at",
		},
		"their SVID has expired": {
			func(p *pair) {
				p.server.Set(p.market.IssueFor(p.t, "/server", past, time.Now().Add(-time.Minute)), p.broker.Bundle())
			},
			expired, "The identity of the quotes server expired at",
		},
		"their SVID has not begun": {
			func(p *pair) {
				p.server.Set(p.market.IssueFor(p.t, "/server", soon, soon.Add(time.Hour)), p.broker.Bundle())
			},
			expired, "The identity of the quotes server is not valid before",
		},
		"we hold no bundle of theirs": {
			func(p *pair) {
				p.client.Set(p.broker.Issue(p.t, "/client"), p.broker.Bundle())
			},
			notFederated, "holds no bundle of that trust domain",
		},
		"somebody of a third domain answers": {
			func(p *pair) {
				p.server.Set(apptest.NewCA(p.t, "elsewhere.test").Issue(p.t, "/server"), p.broker.Bundle())
			},
			notFederated, "Somebody from elsewhere.test answered",
		},
		"their authority is not in our bundle": {
			func(p *pair) {
				p.server.Set(apptest.NewCA(p.t, "cluster1.com").Issue(p.t, "/server"), p.broker.Bundle())
			},
			unknownAuthority, "does not contain the authority that signed for it",
		},
		"an authority of a third domain is not in our bundle": {
			func(p *pair) {
				p.server.Set(apptest.NewCA(p.t, "elsewhere.test").Issue(p.t, "/server"), p.broker.Bundle())
				p.client.Set(p.broker.Issue(p.t, "/client"), apptest.NewCA(p.t, "elsewhere.test").Bundle())
			},
			unknownAuthority, "claims to be from elsewhere.test, but the bundle that this broker holds of elsewhere.test",
		},
		"somebody else of their domain answers": {
			func(p *pair) {
				p.server.Set(p.market.Issue(p.t, "/other"), p.broker.Bundle())
			},
			identityRefused, "spiffe://cluster1.com/other answers in place of spiffe://cluster1.com/server",
		},
		"they hold no bundle of ours": {
			func(p *pair) { p.server.Set(p.market.Issue(p.t, "/server"), p.market.Bundle()) },
			refusedByServer, "broke off the handshake",
		},
		"they do not allow us": {
			func(p *pair) { p.replies.fail(status.Error(codes.PermissionDenied, "no")) },
			notPermitted, "does not let it ask",
		},
		"they answer with another error": {
			func(p *pair) { p.replies.fail(status.Error(codes.Internal, "no")) },
			serverFailed, "spiffe://cluster1.com/server was reached and proved who it is",
		},
		"they are connected but silent": {
			func(p *pair) { p.replies.hang.Store(true) },
			noAnswer, "does not answer within 3s",
		},
		"they have gone": {
			func(p *pair) { p.stop() },
			unreachable, "cannot be reached at 127.0.0.1:",
		},
		"something that takes connections and says nothing": {
			func(p *pair) { p.settings.address = accept(p.t, func(net.Conn) {}) },
			noAnswer, "does not answer within 3s",
		},
		"something that is not TLS": {
			func(p *pair) {
				p.settings.address = accept(p.t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-of-all-things\r\n") })
			},
			unreachable, "cannot be reached at 127.0.0.1:",
		},
		"something that hangs up": {
			func(p *pair) { p.settings.address = accept(p.t, func(c net.Conn) { _ = c.Close() }) },
			unreachable, "cannot be reached at 127.0.0.1:",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			test.spoil(p)
			begun := time.Now()
			_, err := p.caller(t, &apptest.Log{}).call(t.Context())
			if err == nil {
				t.Fatal("the call came through")
			}
			if took := time.Since(begun); took > 2*callBound {
				t.Errorf("the call took %s, want at most about %s", took, callBound)
			}
			got := explain(err, p.settings, begun, time.Now())
			if got.Class != test.class || !strings.Contains(got.What, test.what) {
				t.Errorf("%v\nclass %s: %s\nwant %s: … %s …", err, got.Class, got.What, test.class, test.what)
			}
			if got.Look == "" || got.Detail != err.Error() || got.Since != begun {
				t.Errorf("incomplete: %+v", got)
			}
		})
	}
}

// TestReasonsWithoutAConnection has those that no connection of a test shows.
func TestReasonsWithoutAConnection(t *testing.T) {
	s := settings{address: "quotes.test:8090", server: spiffeid.RequireFromString("spiffe://cluster1.com/server")}
	for name, test := range map[string]struct {
		err   error
		class class
		what  string
	}{
		"no agent": {
			&identity.MissingError{Cause: status.Error(codes.Unavailable, "no socket")},
			noIdentity, "This broker has no identity yet: the SPIRE agent on its node does not answer.",
		},
		"no entry": {
			&identity.MissingError{Cause: status.Error(codes.PermissionDenied, "no identity issued")},
			noIdentity, "This broker has no identity yet: the SPIRE agent answers, but no registration entry matches this workload.",
		},
		"a name that does not resolve": {
			&net.OpError{Op: "dial", Err: &net.DNSError{Name: "quotes.test", IsNotFound: true}},
			unreachable, "The name in quotes.test:8090 cannot be resolved.",
		},
		"a chain against the rules": {
			x509.CertificateInvalidError{Reason: x509.TooManyIntermediates},
			unknownAuthority, "The server's certificate chain breaks a rule of X.509, so it proves nothing.",
		},
		"an error of no known type": {
			errors.New("out of paper"),
			serverFailed, "spiffe://cluster1.com/server was reached and proved who it is, but answered with an error.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := explain(fmt.Errorf("ask for quotes: %w", test.err), s, time.Time{}, time.Now())
			if got.Class != test.class || got.What != test.what {
				t.Errorf("class %s: %s\nwant %s: %s", got.Class, got.What, test.class, test.what)
			}
		})
	}
}

// accept takes connections and leaves them to behave until the test ends.
func accept(t *testing.T, behave func(net.Conn)) string {
	t.Helper()
	listener := listen(t)
	accepted := make(chan error, 1)
	go func() {
		var conns []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				for _, conn := range conns {
					_ = conn.Close()
				}
				accepted <- nil
				return
			}
			conns = append(conns, conn)
			behave(conn)
		}
	}()
	t.Cleanup(func() {
		if err := errors.Join(listener.Close(), apptest.Ended(t, accepted)); err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}
