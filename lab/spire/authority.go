package spire

import (
	"context"
	"time"

	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
)

// Authority is a key that a server signs with, has signed with or will sign
// with.
type Authority struct {
	// ID is the subject key ID of an X.509 authority's certificate, in lower-case
	// hexadecimal, and the key ID of a JWT authority. With an upstream authority
	// the certificate is an intermediate, which no bundle has.
	ID        string
	ExpiresAt time.Time
}

// Authorities are a server's X.509 or JWT authorities as it reports them. It
// remembers two (pkg/server/ca/manager/manager.go, PrepareX509CA), so that
// Prepared and Old are never both there.
//
// The methods below say what may follow what, which is ruled in
// pkg/server/api/localauthority/v1/service.go. The code of a refusal is
// InvalidArgument but where they say otherwise.
type Authorities struct {
	// Active is what everything is signed with.
	Active *Authority
	// Prepared is in the bundle and signs nothing yet; nil where there is none.
	Prepared *Authority
	// Old was active before; nil where there is none. A revoked one is still told
	// of, and so is a tainted one, with no sign of either.
	Old *Authority
}

// X509Authorities returns the server's X.509 authorities.
func (s *Server) X509Authorities(ctx context.Context) (Authorities, error) {
	answer, err := s.authorities.GetX509AuthorityState(ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
	if err != nil {
		return Authorities{}, s.wrap(err, "get X.509 authorities")
	}
	return authoritiesFromAPI(answer), nil
}

// PrepareX509Authority makes a new X.509 authority. It is in Bundle when this
// returns; peers learn of it when they fetch. One that was prepared before, or
// that is old, gives way to it and stays in the bundle until it expires: it can
// be activated, tainted and revoked no more. So the old one is revoked before the
// next is prepared. A server whose ca_ttl is half over prepares by itself.
func (s *Server) PrepareX509Authority(ctx context.Context) (Authority, error) {
	answer, err := s.authorities.PrepareX509Authority(ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
	if err != nil {
		return Authority{}, s.wrap(err, "prepare X.509 authority")
	}
	return *authorityFromAPI(answer.GetPreparedAuthority()), nil
}

// ActivateX509Authority has the server sign with an X.509 authority, which must
// be the prepared one; for the old one the refusal's code is Internal. What the
// one before has signed stays as it is.
func (s *Server) ActivateX509Authority(ctx context.Context, id string) (Authority, error) {
	answer, err := s.authorities.ActivateX509Authority(ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id})
	if err != nil {
		return Authority{}, s.wrap(err, "activate X.509 authority %s", id)
	}
	return *authorityFromAPI(answer.GetActivatedAuthority()), nil
}

// TaintX509Authority has the server and its agents replace what an X.509
// authority has signed, which must be the old one. Done twice, it is refused with
// the code Internal.
//
// A taint is local. Neither Bundle nor the bundle endpoint shows it
// (pkg/common/bundleutil/marshal.go): peers, and the trust domain's own
// workloads, trust the authority until it is revoked and they have learned so.
//
// With an upstream authority the code is FailedPrecondition: what can be tainted
// then is a key of that one.
func (s *Server) TaintX509Authority(ctx context.Context, id string) error {
	_, err := s.authorities.TaintX509Authority(ctx, &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: id})
	return s.wrap(err, "taint X.509 authority %s", id)
}

// RevokeX509Authority takes an X.509 authority out of the bundle, which must be
// the old one and tainted. The code is Internal where it is not tainted, or
// revoked already, and FailedPrecondition with an upstream authority. What it has
// signed and nobody has replaced yet is good for nothing from then on.
func (s *Server) RevokeX509Authority(ctx context.Context, id string) error {
	_, err := s.authorities.RevokeX509Authority(ctx, &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: id})
	return s.wrap(err, "revoke X.509 authority %s", id)
}

// JWTAuthorities returns the server's JWT authorities.
func (s *Server) JWTAuthorities(ctx context.Context) (Authorities, error) {
	answer, err := s.authorities.GetJWTAuthorityState(ctx, &localauthorityv1.GetJWTAuthorityStateRequest{})
	if err != nil {
		return Authorities{}, s.wrap(err, "get JWT authorities")
	}
	return authoritiesFromAPI(answer), nil
}

// PrepareJWTAuthority is PrepareX509Authority for JWT authorities.
func (s *Server) PrepareJWTAuthority(ctx context.Context) (Authority, error) {
	answer, err := s.authorities.PrepareJWTAuthority(ctx, &localauthorityv1.PrepareJWTAuthorityRequest{})
	if err != nil {
		return Authority{}, s.wrap(err, "prepare JWT authority")
	}
	return *authorityFromAPI(answer.GetPreparedAuthority()), nil
}

// ActivateJWTAuthority is ActivateX509Authority for JWT authorities.
func (s *Server) ActivateJWTAuthority(ctx context.Context, id string) (Authority, error) {
	answer, err := s.authorities.ActivateJWTAuthority(ctx, &localauthorityv1.ActivateJWTAuthorityRequest{AuthorityId: id})
	if err != nil {
		return Authority{}, s.wrap(err, "activate JWT authority %s", id)
	}
	return *authorityFromAPI(answer.GetActivatedAuthority()), nil
}

// TaintJWTAuthority is TaintX509Authority for JWT authorities, except that an
// upstream authority does not matter. Agents give out no JWT-SVID any more that
// it has signed; who has one keeps it.
func (s *Server) TaintJWTAuthority(ctx context.Context, id string) error {
	_, err := s.authorities.TaintJWTAuthority(ctx, &localauthorityv1.TaintJWTAuthorityRequest{AuthorityId: id})
	return s.wrap(err, "taint JWT authority %s", id)
}

// RevokeJWTAuthority takes a JWT authority out of the bundle, which must be
// tainted. Other than with X.509, a further one may have been prepared since. The
// code is Internal where it is not tainted, or revoked already.
func (s *Server) RevokeJWTAuthority(ctx context.Context, id string) error {
	_, err := s.authorities.RevokeJWTAuthority(ctx, &localauthorityv1.RevokeJWTAuthorityRequest{AuthorityId: id})
	return s.wrap(err, "revoke JWT authority %s", id)
}

func authoritiesFromAPI(answer interface {
	GetActive() *localauthorityv1.AuthorityState
	GetPrepared() *localauthorityv1.AuthorityState
	GetOld() *localauthorityv1.AuthorityState
}) Authorities {
	return Authorities{
		Active:   authorityFromAPI(answer.GetActive()),
		Prepared: authorityFromAPI(answer.GetPrepared()),
		Old:      authorityFromAPI(answer.GetOld()),
	}
}

func authorityFromAPI(state *localauthorityv1.AuthorityState) *Authority {
	if state == nil {
		return nil
	}
	return &Authority{ID: state.GetAuthorityId(), ExpiresAt: time.Unix(state.GetExpiresAt(), 0)}
}
