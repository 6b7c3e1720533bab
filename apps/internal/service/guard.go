package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

// OriginalCallerHeader is where a gateway says for whom it calls. Anybody who
// may call could write anything there: it is told to the log, and decides
// nothing. The caller is who has proved to be one, and that is the gateway.
const OriginalCallerHeader = "X-Original-Spiffe-Id"

// Policy returns nil when caller may send r, and otherwise an error that names
// the rule against it.
type Policy func(r *http.Request, caller identity.Peer) error

// Rules let in the callers that both lists have.
type Rules struct {
	TrustDomains identity.TrustDomains
	IDs          identity.IDs
}

const (
	trustDomainsVariable = "ALLOWED_CLIENT_TRUST_DOMAINS"
	idsVariable          = "ALLOWED_CLIENT_IDS"
)

// Flags defines the flags that fill r, and returns the variables that they
// also read.
func (r *Rules) Flags(flags *flag.FlagSet) map[string]string {
	flags.Var(&r.TrustDomains, "allow-trust-domains", "trust domains whose workloads may call, separated by commas; required")
	flags.Var(&r.IDs, "allow-ids", "SPIFFE IDs that may call, separated by commas; required")
	return map[string]string{"allow-trust-domains": trustDomainsVariable, "allow-ids": idsVariable}
}

// Complete returns a usage error when a list is empty: who may call is said,
// never taken for granted.
func (r Rules) Complete() error {
	if len(r.TrustDomains) == 0 || len(r.IDs) == 0 {
		return process.Usagef("read flags: -allow-trust-domains (or %s) and -allow-ids (or %s) must both be given: "+
			"name who may call, such as aws.company.com and spiffe://aws.company.com/ns/demo/service/frontend", trustDomainsVariable, idsVariable)
	}
	return nil
}

// Allow is the Policy of r.
func (r Rules) Allow(_ *http.Request, caller identity.Peer) error {
	if err := r.TrustDomains.Check(caller.TrustDomain, trustDomainsVariable); err != nil {
		return err
	}
	return r.IDs.Check(caller.ID, idsVariable)
}

type callerKey struct{}

// CallerOf returns who sent r, which Guard has let through.
func CallerOf(r *http.Request) identity.Peer {
	caller, _ := r.Context().Value(callerKey{}).(identity.Peer)
	return caller
}

// Guard passes on to next what policy allows, and logs each request with its
// caller. It answers 401 to those who prove no identity, and 403 to those of
// whom policy does not want this request.
//
// The caller is verified with each request, not with each connection: one
// whose SVID has expired since, or whose authority was revoked, is out at once.
func Guard(holder identity.Holder, policy Policy, log *slog.Logger, next http.Handler) http.Handler {
	return guard(holder, policy, log, next, func(r *http.Request) (identity.Peer, *Refusal) {
		return byCertificate(r, holder, "a client must present an X509-SVID in the TLS handshake")
	})
}

// GuardTokens is Guard for callers who present a JWT-SVID as a bearer token (RFC 6750,
// section 2.1), or an X509-SVID, or both, which must be of one SPIFFE ID then: who has
// come by the token of another cannot use it with a certificate of his own.
//
// The audience of a token is the server's own SPIFFE ID, which each 401 names as its
// realm (RFC 6750, section 3).
func GuardTokens(holder identity.Holder, tokens identity.Tokens, policy Policy, log *slog.Logger, next http.Handler) http.Handler {
	return guard(holder, policy, log, next, func(r *http.Request) (identity.Peer, *Refusal) {
		caller, refusal := byToken(r, holder, tokens)
		if refusal != nil {
			refusal.challenge = challenge{there: true, presented: len(r.Header.Values("Authorization")) > 0}
		}
		return caller, refusal
	})
}

func guard(holder identity.Holder, policy Policy, log *slog.Logger, next http.Handler, authenticate func(*http.Request) (identity.Peer, *Refusal)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		level := slog.LevelInfo
		line := []slog.Attr{slog.String("method", r.Method), slog.String("path", r.URL.Path)}
		caller, refusal := authenticate(r)
		if refusal == nil {
			if err := policy(r, caller); err != nil {
				refusal = &Refusal{Status: http.StatusForbidden, Rule: err.Error(), Caller: caller.ID.String()}
			}
		}
		if !caller.ID.IsZero() {
			line = append(line, slog.Any("caller", caller))
		}
		if original, err := identity.ParseID(r.Header.Get(OriginalCallerHeader)); err == nil {
			line = append(line, slog.String("claimed_original_caller", original.String()))
		}
		if refusal != nil {
			level = slog.LevelWarn
			line = append(line, slog.String("rule", refusal.Rule), slog.String("remote", r.RemoteAddr))
			refusal.Write(answer, holder)
		} else {
			next.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
		}
		line = append(line, slog.Int("status", answer.status), slog.Duration("took", time.Since(begun)))
		log.LogAttrs(r.Context(), level, "request", line...)
	})
}

// byCertificate tells who sent r by the X509-SVID of the TLS handshake; missing is the rule
// against a client that presents none.
func byCertificate(r *http.Request, holder identity.Holder, missing string) (identity.Peer, *Refusal) {
	caller, err := identity.Verify(r.TLS, holder)
	switch {
	case errors.Is(err, identity.ErrNoCertificate):
		return caller, &Refusal{Status: http.StatusUnauthorized, Rule: missing}
	case err != nil:
		return caller, &Refusal{Status: http.StatusUnauthorized, Rule: "the X509-SVID of a client must verify when it calls: " + err.Error()}
	}
	return caller, nil
}

// byToken tells who sent r by the JWT-SVID in it, and where there is none, by the X509-SVID.
func byToken(r *http.Request, holder identity.Holder, tokens identity.Tokens) (identity.Peer, *Refusal) {
	presented := r.Header.Values("Authorization")
	certified, refusal := byCertificate(r, holder, "a client must present an X509-SVID in the TLS handshake, or a JWT-SVID as a bearer token")
	if len(presented) == 0 || refusal != nil && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return certified, refusal
	}
	unauthorized := func(rule string) (identity.Peer, *Refusal) {
		return identity.Peer{}, &Refusal{Status: http.StatusUnauthorized, Rule: rule}
	}
	scheme, token, _ := strings.Cut(presented[0], " ")
	if len(presented) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return unauthorized("the one header Authorization must be Bearer, with a JWT-SVID")
	}
	own, err := holder.GetX509SVID()
	if err != nil {
		return unauthorized("the server must have the SPIFFE ID that a JWT-SVID is for: " + err.Error())
	}
	caller, err := tokens.Verify(strings.TrimSpace(token), own.ID)
	switch {
	case err != nil:
		return unauthorized(err.Error())
	case refusal == nil && certified.ID != caller.ID:
		return unauthorized(fmt.Sprintf("a client that presents both must present a JWT-SVID and an X509-SVID of one SPIFFE ID: the one is of %s, the other of %s", caller.ID, certified.ID))
	}
	return caller, nil
}

type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController through.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
