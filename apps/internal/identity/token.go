package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

// Token returns a JWT-SVID of the identity of GetX509SVID that is for audience alone.
// An agent keeps one for each audience, and hands it out until half of its life is over.
// The error is a *MissingError.
func (s *Source) Token(ctx context.Context, audience spiffeid.ID) (string, error) {
	own, err := s.GetX509SVID()
	if err != nil {
		return "", err
	}
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience.String(), Subject: own.ID}, workloadapi.WithAddr(s.socket))
	if err != nil {
		return "", &MissingError{Cause: err}
	}
	return svid.Marshal(), nil
}

// JWTBundles holds the newest JWT bundles that the Workload API handed out. Like a
// Source it exists before there is one, and keeps what it has when the Workload API goes
// away.
//
// It implements jwtbundle.Source.
type JWTBundles struct {
	socket string
	log    *slog.Logger

	mu    sync.Mutex
	held  *jwtbundle.Set
	cause error // of the last failed watch; nil once an update came
}

// NewJWTBundles returns what the Workload API at socket hands out, whose address has
// been checked by NewSource. Nothing is received before Run.
func NewJWTBundles(socket string, log *slog.Logger) *JWTBundles {
	return &JWTBundles{socket: socket, log: log}
}

// Run follows the Workload API until ctx ends, and then returns nil.
func (b *JWTBundles) Run(ctx context.Context) error {
	return follow(ctx, b.socket, func(client *workloadapi.Client) {
		_ = client.WatchJWTBundles(ctx, jwtWatcher{b, ctx.Done()}) // the watcher is told
	})
}

// Ready returns nil once JWT bundles have been received, and else a *MissingError.
func (b *JWTBundles) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == nil {
		return &MissingError{Cause: b.cause}
	}
	return nil
}

// GetJWTBundleForTrustDomain returns the newest JWT bundle of td. The error is a
// *MissingError before there is any, and a *NotFederatedError where none is of td.
func (b *JWTBundles) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	if err := b.Ready(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bundle, err := b.held.GetJWTBundleForTrustDomain(td)
	if err != nil {
		return nil, &NotFederatedError{TrustDomain: td, Cause: err}
	}
	return bundle, nil
}

type jwtWatcher struct {
	bundles *JWTBundles
	ended   <-chan struct{}
}

func (w jwtWatcher) OnJWTBundlesUpdate(next *jwtbundle.Set) {
	b := w.bundles
	b.mu.Lock()
	b.held, b.cause = next, nil
	b.mu.Unlock()
	var names []spiffeid.TrustDomain
	for _, bundle := range next.Bundles() {
		names = append(names, bundle.TrustDomain())
	}
	b.log.LogAttrs(context.Background(), slog.LevelInfo, "JWT bundles received", slog.Any("bundles", names))
}

func (w jwtWatcher) OnJWTBundlesWatchError(err error) {
	select {
	case <-w.ended:
		return // our own end is no failure
	default:
	}
	b := w.bundles
	b.mu.Lock()
	same := b.cause != nil && status.Code(b.cause) == status.Code(err)
	b.cause = err
	b.mu.Unlock()
	if !same {
		b.log.LogAttrs(context.Background(), slog.LevelWarn, "no news of JWT bundles", slog.String("socket", b.socket), slog.Any("error", err))
	}
}

// Issuers are the "iss" claims of trust domains whose JWT-SVIDs have one. As a flag it is
// a list of aws.company.com=https://oidc.aws.company.com, separated by commas.
type Issuers map[spiffeid.TrustDomain]string

// Set reads what String writes.
func (i *Issuers) Set(text string) error {
	all := Issuers{}
	for pair := range strings.SplitSeq(text, ",") {
		if text == "" {
			break
		}
		name, issuer, both := strings.Cut(strings.TrimSpace(pair), "=")
		if !both || issuer == "" {
			return fmt.Errorf("%q has no issuer: want a trust domain with its issuer, such as cluster2.com=https://oidc.cluster2.com", pair)
		}
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return fmt.Errorf("want a trust domain with its issuer, such as cluster2.com=https://oidc.cluster2.com: %w", err)
		}
		all[td] = issuer
	}
	*i = all
	return nil
}

func (i Issuers) String() string {
	var pairs []string
	for _, td := range slices.SortedFunc(maps.Keys(i), spiffeid.TrustDomain.Compare) {
		pairs = append(pairs, td.Name()+"="+i[td])
	}
	return strings.Join(pairs, ",")
}

// Tokens verifies JWT-SVIDs.
type Tokens struct {
	Bundles jwtbundle.Source
	Issuers Issuers
}

// TokenError says which rule a JWT-SVID breaks. There is nothing of the token in it that
// could be used.
type TokenError struct {
	Rule  string
	Cause error
}

func (e *TokenError) Error() string { return e.Rule + ": " + e.Cause.Error() }

func (e *TokenError) Unwrap() error { return e.Cause }

// leeway is what go-spiffe grants to the clocks of others, in both directions
// (go-jose jwt/validation.go, DefaultLeeway). Nothing is added to it here.
const leeway = jwt.DefaultLeeway

// Verify tells whose token is, if it is for audience, by the JWT bundles that are held
// now. The error is a *TokenError.
//
// What the JWT-SVID standard demands go-spiffe looks at: signature, audience and expiry.
// The standard leaves "iss" open (JWT-SVID, section 3): that it is the one of the trust
// domain, or not there where the trust domain has none, is a rule of this package.
func (t Tokens) Verify(token string, audience spiffeid.ID) (Peer, error) {
	svid, err := jwtsvid.ParseAndValidate(token, t.Bundles, []string{audience.String()})
	if err != nil {
		return Peer{}, t.broken(token, audience, err)
	}
	if svid.ID.Path() == "" {
		return Peer{}, &TokenError{"the subject of a JWT-SVID must be a workload", fmt.Errorf("it is %s", svid.ID)}
	}
	td := svid.ID.TrustDomain()
	issuer, there := svid.Claims["iss"]
	switch want := t.Issuers[td]; {
	case want == "" && there:
		return Peer{}, &TokenError{fmt.Sprintf("a JWT-SVID of %s must have no issuer", td), fmt.Errorf("it has %q", fmt.Sprint(issuer))}
	case want != "" && issuer != want:
		err := fmt.Errorf("it is %q", fmt.Sprint(issuer))
		if !there {
			err = errors.New("it has none")
		}
		return Peer{}, &TokenError{fmt.Sprintf("the issuer of a JWT-SVID of %s must be %q", td, want), err}
	}
	read, err := readToken(token)
	if err != nil {
		return Peer{}, &TokenError{wellFormed, err} // it was read above
	}
	return Peer{
		Document: Document{ID: svid.ID, TrustDomain: td, NotBefore: read.issued(), NotAfter: svid.Expiry},
		// A JWT authority is known by its key ID, and the bundle says no more of it.
		VerifiedBy: Authority{TrustDomain: td, SubjectKeyID: read.keyID},
	}, nil
}

const wellFormed = "a JWT-SVID must be a signed JWT with a SPIFFE ID for its subject, an expiry and a key ID"

// broken names the rule for which go-spiffe has refused a token; its error has no type.
// The rules are looked at in its order. Nothing of the token has been verified here.
func (t Tokens) broken(token string, audience spiffeid.ID, refusal error) error {
	read, err := readToken(token)
	if err != nil {
		return &TokenError{wellFormed, err}
	}
	id, err := spiffeid.FromString(read.claims.Subject)
	switch {
	case err != nil:
		return &TokenError{wellFormed, err}
	case read.keyID == "" || read.claims.Expiry == nil:
		return &TokenError{wellFormed, refusal}
	}
	td := id.TrustDomain()
	bundle, err := t.Bundles.GetJWTBundleForTrustDomain(td)
	if err != nil {
		return &TokenError{"a bundle must be held of the trust domain of a JWT-SVID", err}
	}
	signed := fmt.Sprintf("a JWT authority in the bundle of %s must have signed the JWT-SVID", td)
	key, there := bundle.FindJWTAuthority(read.keyID)
	if !there {
		return &TokenError{signed, fmt.Errorf("there is none with the key ID %q", read.keyID)}
	}
	if err := read.signed.Claims(key); err != nil {
		return &TokenError{signed, fmt.Errorf("the signature is not by the key %q", read.keyID)}
	}
	err = read.claims.Validate(jwt.Expected{AnyAudience: []string{audience.String()}, Time: time.Now()})
	switch {
	case errors.Is(err, jwt.ErrInvalidAudience):
		return &TokenError{fmt.Sprintf("the audience of a JWT-SVID must be %s", audience), fmt.Errorf("it is %q", []string(read.claims.Audience))}
	case errors.Is(err, jwt.ErrExpired):
		return &TokenError{fmt.Sprintf("a JWT-SVID must not have expired, with %s granted to clocks", leeway),
			fmt.Errorf("it has at %s", read.claims.Expiry.Time().UTC().Format(time.RFC3339))}
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return &TokenError{fmt.Sprintf("a JWT-SVID must be valid already, with %s granted to clocks", leeway), err}
	}
	return &TokenError{wellFormed, refusal}
}

// readable is what a token says.
type readable struct {
	signed *jwt.JSONWebToken
	claims jwt.Claims
	keyID  string
}

// readToken reads a token, and verifies nothing of it. The algorithms are those of the
// JWT-SVID standard, section 2.1.
func readToken(token string) (read readable, err error) {
	read.signed, err = jwt.ParseSigned(token, []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512,
	})
	if err != nil {
		return read, errors.New("it is none, or is signed with another algorithm than those of JWT-SVIDs") // the cause may have parts of it
	}
	read.keyID = read.signed.Headers[0].KeyID
	return read, read.signed.UnsafeClaimsWithoutVerification(&read.claims)
}

// issued is the zero value where a token does not say when it was issued.
func (r readable) issued() time.Time {
	if r.claims.IssuedAt == nil {
		return time.Time{}
	}
	return r.claims.IssuedAt.Time().UTC()
}
