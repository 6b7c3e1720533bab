package main

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestWhyThereAreNoQuotes breaks a real connection in each way.
func TestWhyThereAreNoQuotes(t *testing.T) {
	past, soon := time.Now().Add(-2*time.Hour), time.Now().Add(2*time.Hour)
	for name, test := range map[string]struct {
		spoil func(*pair)
		class diagnosis.Class
		what  string // a meaningful part
	}{
		"our SVID has expired": {
			func(p *pair) {
				p.client.Set(p.broker.IssueFor(p.t, "/client", past, time.Now().Add(-time.Minute)), p.market.Bundle())
			},
			diagnosis.Expired, "The identity of this broker expired at",
		},
		"their SVID has expired": {
			func(p *pair) {
				p.server.Set(p.market.IssueFor(p.t, "/server", past, time.Now().Add(-time.Minute)), p.broker.Bundle())
			},
			diagnosis.Expired, "The identity of the quotes server expired at",
		},
		"their SVID has not begun": {
			func(p *pair) {
				p.server.Set(p.market.IssueFor(p.t, "/server", soon, soon.Add(time.Hour)), p.broker.Bundle())
			},
			diagnosis.Expired, "The identity of the quotes server is not valid before",
		},
		"we hold no bundle of the server": {
			func(p *pair) {
				p.client.Set(p.broker.Issue(p.t, "/client"), p.broker.Bundle())
			},
			diagnosis.NotFederated, "holds no bundle of that trust domain",
		},
		"somebody of a third domain answers": {
			func(p *pair) {
				p.server.Set(apptest.NewCA(p.t, "elsewhere.test").Issue(p.t, "/server"), p.broker.Bundle())
			},
			diagnosis.NotFederated, "Somebody from elsewhere.test answered",
		},
		"their authority is not in our bundle": {
			func(p *pair) {
				p.server.Set(apptest.NewCA(p.t, "cluster1.com").Issue(p.t, "/server"), p.broker.Bundle())
			},
			diagnosis.UnknownAuthority, "does not contain the authority that signed for it",
		},
		"an authority of a third domain is not in our bundle": {
			func(p *pair) {
				p.server.Set(apptest.NewCA(p.t, "elsewhere.test").Issue(p.t, "/server"), p.broker.Bundle())
				p.client.Set(p.broker.Issue(p.t, "/client"), apptest.NewCA(p.t, "elsewhere.test").Bundle())
			},
			diagnosis.UnknownAuthority, "claims to be from elsewhere.test, but the bundle that this broker holds of elsewhere.test",
		},
		"somebody else of their domain answers": {
			func(p *pair) {
				p.server.Set(p.market.Issue(p.t, "/other"), p.broker.Bundle())
			},
			diagnosis.IdentityRefused, "spiffe://cluster1.com/other answers in place of spiffe://cluster1.com/server",
		},
		"their certificate is that of an authority": {
			spoilt(func(leaf *x509.Certificate) { leaf.BasicConstraintsValid, leaf.IsCA = true, true }),
			diagnosis.IdentityRefused, "The certificate of the quotes server breaks a rule of X509-SVIDs, so it proves nothing.",
		},
		"their certificate may sign others": {
			spoilt(func(leaf *x509.Certificate) { leaf.KeyUsage |= x509.KeyUsageCertSign }),
			diagnosis.IdentityRefused, "The certificate of the quotes server breaks a rule of X509-SVIDs, so it proves nothing.",
		},
		"their certificate has no SPIFFE ID": {
			spoilt(func(leaf *x509.Certificate) { leaf.URIs = nil }),
			diagnosis.IdentityRefused, "The certificate of the quotes server breaks a rule of X509-SVIDs, so it proves nothing.",
		},
		"their certificate has two SPIFFE IDs": {
			spoilt(func(leaf *x509.Certificate) { leaf.URIs = append(leaf.URIs, leaf.URIs[0]) }),
			diagnosis.IdentityRefused, "The certificate of the quotes server breaks a rule of X509-SVIDs, so it proves nothing.",
		},
		"the server holds no bundle of the broker": {
			func(p *pair) { p.server.Set(p.market.Issue(p.t, "/server"), p.market.Bundle()) },
			diagnosis.RefusedByServer, "broke off the handshake",
		},
		"they do not allow us": {
			func(p *pair) { p.replies.fail(status.Error(codes.PermissionDenied, "no")) },
			diagnosis.NotPermitted, "does not let it call",
		},
		"they answer with another error": {
			func(p *pair) { p.replies.fail(status.Error(codes.Internal, "no")) },
			diagnosis.ServerFailed, "The quotes server was reached and proved who it is",
		},
		"they are connected but silent": {
			func(p *pair) { p.replies.hang.Store(true) },
			diagnosis.NoAnswer, "does not answer within 3s",
		},
		"they have gone": {
			func(p *pair) { p.stop() },
			diagnosis.Unreachable, "cannot be reached at 127.0.0.1:",
		},
		"something that takes connections and says nothing": {
			func(p *pair) { p.settings.address = accept(p.t, func(net.Conn) {}) },
			diagnosis.NoAnswer, "does not answer within 3s",
		},
		"something that is not TLS": {
			func(p *pair) {
				p.settings.address = accept(p.t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-of-all-things\r\n") })
			},
			diagnosis.Unreachable, "cannot be reached at 127.0.0.1:",
		},
		"something that hangs up": {
			func(p *pair) { p.settings.address = accept(p.t, func(c net.Conn) { _ = c.Close() }) },
			diagnosis.Unreachable, "cannot be reached at 127.0.0.1:",
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
			if took := time.Since(begun); took > 2*identity.CallBound {
				t.Errorf("the call took %s, want at most about %s", took, identity.CallBound)
			}
			got := diagnosis.Explain(err, p.settings.words(), begun, time.Now())
			if got.Class != test.class || !strings.Contains(got.What, test.what) {
				t.Errorf("%v\nclass %s: %s\nwant %s: … %s …", err, got.Class, got.What, test.class, test.what)
			}
			if got.Look == "" || got.Detail != err.Error() || got.Since != begun {
				t.Errorf("incomplete: %+v", got)
			}
		})
	}
}

// spoilt gives the server a certificate that is against the rules.
func spoilt(spoil func(leaf *x509.Certificate)) func(*pair) {
	return func(p *pair) { p.server.Set(p.market.IssueSpoilt(p.t, "/server", spoil), p.broker.Bundle()) }
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
