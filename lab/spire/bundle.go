package spire

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// DeleteMode says what becomes of the entries that federate with a trust domain
// whose bundle is deleted.
type DeleteMode string

const (
	// DeleteRestrict refuses to delete a bundle that an entry federates with.
	DeleteRestrict DeleteMode = "restrict"
	// DeleteDissociate keeps those entries, without that trust domain.
	DeleteDissociate DeleteMode = "dissociate"
	// DeleteEntries deletes those entries along with the bundle.
	DeleteEntries DeleteMode = "delete"
)

// Bundle returns the bundle of the server's own trust domain, as its bundle
// endpoint serves it, except for the refresh hint, which only the endpoint knows.
// That an authority is tainted is not part of a bundle and does not show.
func (s *Server) Bundle(ctx context.Context) (*spiffebundle.Bundle, error) {
	const doing = "get bundle"
	answer, err := s.bundles.GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return nil, s.wrap(err, doing)
	}
	bundle, err := bundleFromAPI(answer)
	return bundle, s.wrap(err, doing)
}

// HeldBundles returns the bundles that the server holds of other trust domains,
// sorted by their names. A relationship may exist without one, and a bundle
// stays when its relationship is deleted.
func (s *Server) HeldBundles(ctx context.Context) ([]*spiffebundle.Bundle, error) {
	const doing = "list held bundles"
	answers, err := collect(func(token string) ([]*types.Bundle, string, error) {
		page, err := s.bundles.ListFederatedBundles(ctx, &bundlev1.ListFederatedBundlesRequest{PageSize: pageSize, PageToken: token})
		return page.GetBundles(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, s.wrap(err, doing)
	}
	held := make([]*spiffebundle.Bundle, len(answers))
	for i, answer := range answers {
		if held[i], err = bundleFromAPI(answer); err != nil {
			return nil, s.wrap(err, doing)
		}
	}
	slices.SortFunc(held, func(a, b *spiffebundle.Bundle) int { return a.TrustDomain().Compare(b.TrustDomain()) })
	return held, nil
}

// HeldBundle returns the bundle that the server holds of td; nil, without an error,
// if it holds none.
func (s *Server) HeldBundle(ctx context.Context, td spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	answer, err := s.bundles.GetFederatedBundle(ctx, &bundlev1.GetFederatedBundleRequest{TrustDomain: td.Name()})
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, s.wrap(err, "get held bundle of %s", td)
	}
	bundle, err := bundleFromAPI(answer)
	return bundle, s.wrap(err, "get held bundle of %s", td)
}

// SetBundle makes bundle the one that the server holds of its trust domain,
// whatever it held before. SPIRE asks nothing about it: an older or an empty
// one replaces a good one.
func (s *Server) SetBundle(ctx context.Context, bundle *spiffebundle.Bundle) error {
	td := bundle.TrustDomain()
	request, err := bundleToAPI(bundle)
	if err != nil {
		return s.wrap(err, "set held bundle of %s", td)
	}
	answer, err := s.bundles.BatchSetFederatedBundle(ctx, &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{request}})
	for _, result := range answer.GetResults() {
		err = statusError(result.GetStatus())
	}
	return s.wrap(err, "set held bundle of %s", td)
}

// FederatedError says that entries federate with a bundle that was to be deleted only where
// none does.
type FederatedError struct{ Err error }

func (e *FederatedError) Error() string { return e.Err.Error() }

func (e *FederatedError) Unwrap() error { return e.Err }

// DeleteBundle makes the server hold no bundle of td any more. The error is a
// *NotFoundError if it holds none, and a *FederatedError if DeleteRestrict refuses it. With a relationship in place the bundle may
// come back, unless it was what authenticated the endpoint.
func (s *Server) DeleteBundle(ctx context.Context, td spiffeid.TrustDomain, mode DeleteMode) error {
	modes := map[DeleteMode]bundlev1.BatchDeleteFederatedBundleRequest_Mode{
		DeleteRestrict:   bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT,
		DeleteDissociate: bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE,
		DeleteEntries:    bundlev1.BatchDeleteFederatedBundleRequest_DELETE,
	}
	wanted, known := modes[mode]
	if !known {
		return s.wrap(fmt.Errorf("unknown mode %q", mode), "delete held bundle of %s", td)
	}
	answer, err := s.bundles.BatchDeleteFederatedBundle(ctx, &bundlev1.BatchDeleteFederatedBundleRequest{
		TrustDomains: []string{td.Name()},
		Mode:         wanted,
	})
	for _, result := range answer.GetResults() {
		err = statusError(result.GetStatus())
	}
	wrapped := s.wrap(err, "delete held bundle of %s", td)
	if status.Code(err) == codes.FailedPrecondition {
		return &FederatedError{wrapped}
	}
	return wrapped
}

func bundleFromAPI(b *types.Bundle) (*spiffebundle.Bundle, error) {
	td, err := spiffeid.TrustDomainFromString(b.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	bundle := spiffebundle.New(td)
	for _, authority := range b.GetX509Authorities() {
		certificate, err := x509.ParseCertificate(authority.GetAsn1())
		if err != nil {
			return nil, fmt.Errorf("read X.509 authority of %s: %w", td, err)
		}
		bundle.AddX509Authority(certificate)
	}
	for _, authority := range b.GetJwtAuthorities() {
		key, err := x509.ParsePKIXPublicKey(authority.GetPublicKey())
		if err != nil {
			return nil, fmt.Errorf("read JWT authority %s of %s: %w", authority.GetKeyId(), td, err)
		}
		if err := bundle.AddJWTAuthority(authority.GetKeyId(), key); err != nil {
			return nil, fmt.Errorf("read JWT authority of %s: %w", td, err)
		}
	}
	// The API writes both as zero where the bundle does not say.
	if hint := b.GetRefreshHint(); hint > 0 {
		bundle.SetRefreshHint(time.Duration(hint) * time.Second)
	}
	if sequence := b.GetSequenceNumber(); sequence > 0 {
		bundle.SetSequenceNumber(sequence)
	}
	return bundle, nil
}

func bundleToAPI(bundle *spiffebundle.Bundle) (*types.Bundle, error) {
	b := &types.Bundle{TrustDomain: bundle.TrustDomain().Name()}
	for _, authority := range bundle.X509Authorities() {
		b.X509Authorities = append(b.X509Authorities, &types.X509Certificate{Asn1: authority.Raw})
	}
	authorities := bundle.JWTAuthorities()
	for _, id := range slices.Sorted(maps.Keys(authorities)) {
		key, err := x509.MarshalPKIXPublicKey(authorities[id])
		if err != nil {
			return nil, fmt.Errorf("write JWT authority %s: %w", id, err)
		}
		b.JwtAuthorities = append(b.JwtAuthorities, &types.JWTKey{KeyId: id, PublicKey: key})
	}
	if hint, ok := bundle.RefreshHint(); ok {
		b.RefreshHint = int64(hint / time.Second)
	}
	if sequence, ok := bundle.SequenceNumber(); ok {
		b.SequenceNumber = sequence
	}
	return b, nil
}
