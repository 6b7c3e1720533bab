package main

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
)

func TestCallTellsWhatWasSaidAndByWhom(t *testing.T) {
	p := newPair(t)
	got, err := p.caller(t, &apptest.Log{}).call(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := quote{Symbol: "ACRN", Company: "Acorn Foods", PriceCents: 1, ChangeCents: -1, Moved: time.Unix(1, 0).UTC()}
	if len(got.quotes) != 1 || got.quotes[0] != want {
		t.Errorf("quotes are %+v, want %+v", got.quotes, want)
	}
	svid, err := p.server.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if got.peer.Document != identity.DocumentOf(svid) || got.peer.VerifiedBy.TrustDomain != p.market.TrustDomain {
		t.Errorf("answered by %+v, want the server of %s", got.peer, p.market.TrustDomain)
	}
}

func TestAHandshakeStandsForALimitedTime(t *testing.T) {
	p := newPair(t)
	var log apptest.Log
	c := p.caller(t, &log)
	clock := time.Now()
	c.now = func() time.Time { return clock }
	call := func() answer {
		t.Helper()
		got, err := c.call(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	first := call()
	renewed := p.market.Issue(t, "/server")
	p.server.Set(renewed, p.market.Bundle(), p.broker.Bundle())
	clock = clock.Add(p.settings.reauthenticate - 1)
	if got := call(); got.peer != first.peer {
		t.Errorf("the connection was given up before its time: %+v", got.peer)
	}
	clock = clock.Add(1)
	if got := call(); got.peer.Document != identity.DocumentOf(renewed) {
		t.Errorf("the renewed SVID goes unnoticed: %+v", got.peer)
	}
	if count := log.Count("server authenticated"); count != 2 {
		t.Errorf("%d handshakes are logged, want 2", count)
	}
}

func TestAuthoritiesRotateUnderRunningCalls(t *testing.T) {
	p := newPair(t)
	p.settings.reauthenticate = 0 // each call shakes hands
	c := p.caller(t, &apptest.Log{})
	own, err := p.client.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	call := func(what string, want *apptest.CA) {
		t.Helper()
		got, err := c.call(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got.peer.VerifiedBy != (identity.Authority{
			TrustDomain: want.TrustDomain, SubjectKeyID: got.peer.VerifiedBy.SubjectKeyID,
			Subject: want.Root.Subject.String(), NotAfter: want.Root.NotAfter,
		}) {
			t.Errorf("%s: verified by %+v", what, got.peer.VerifiedBy)
		}
	}
	call("before", p.market)
	next := apptest.NewCA(t, "cluster1.com")
	p.client.Set(own, p.market.Bundle(next), p.broker.Bundle())
	call("the next authority is published", p.market)
	p.server.Set(next.Issue(t, "/server"), next.Bundle(p.market), p.broker.Bundle())
	call("the next authority signs", next)
	p.client.Set(own, next.Bundle(), p.broker.Bundle())
	call("the old authority is gone", next)

	p.server.Set(p.market.Issue(t, "/server"), next.Bundle(p.market), p.broker.Bundle())
	var unknown x509.UnknownAuthorityError
	if _, err := c.call(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("the old authority is still trusted: error is %v", err)
	}
}

func TestACallThatFailedIsMadeAfreshAtOnce(t *testing.T) {
	p := newPair(t)
	c := p.caller(t, &apptest.Log{})
	own, err := p.client.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	p.client.Set(own, p.broker.Bundle())
	var noBundle *identity.NotFederatedError
	if _, err := c.call(t.Context()); !errors.As(err, &noBundle) {
		t.Fatalf("error is %v, want a missing bundle", err)
	}
	p.client.Set(own, p.market.Bundle())
	if _, err := c.call(t.Context()); err != nil {
		t.Errorf("the next call still fails: %v", err)
	}
}
