package spire

import (
	"context"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Relationship is a federation relationship as a server has it: intent, and how
// the server goes about it.
type Relationship struct {
	topology.RelationshipSpec
	// URL is where the bundle of Trusted is fetched.
	URL string
	// EndpointID is the SPIFFE ID that the endpoint must show; zero where the
	// profile does not use one.
	EndpointID spiffeid.ID
}

// Relationships returns the server's relationships, sorted by whom they trust.
// Those that are in the server's configuration file are not among them: SPIRE
// does not list them. It does not say either how it came to one, so that Mode is empty.
func (s *Server) Relationships(ctx context.Context) ([]Relationship, error) {
	const doing = "list relationships"
	answers, err := collect(func(token string) ([]*types.FederationRelationship, string, error) {
		page, err := s.relationships.ListFederationRelationships(ctx, &trustdomainv1.ListFederationRelationshipsRequest{
			OutputMask: &types.FederationRelationshipMask{BundleEndpointUrl: true, BundleEndpointProfile: true},
			PageSize:   pageSize,
			PageToken:  token,
		})
		return page.GetFederationRelationships(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, s.wrap(err, doing)
	}
	relationships := make([]Relationship, len(answers))
	for i, answer := range answers {
		if relationships[i], err = s.relationshipFromAPI(answer); err != nil {
			return nil, s.wrap(err, doing)
		}
	}
	slices.SortFunc(relationships, func(a, b Relationship) int { return a.Trusted.Compare(b.Trusted) })
	return relationships, nil
}

// CreateRelationship has the server fetch the bundle of r.Trusted from now on.
// What is given as that domain's bundle becomes the held one, whatever was held
// before; nil leaves it alone. With https_spiffe nothing is fetched as long as
// none is held of whom EndpointID belongs to. Mode is not looked at.
//
// A second one for the same domain is refused with the code Internal (the
// datastore has one row for each), and the bundle given with it is not set. Where
// a controller manager reconciles relationships it deletes this one soon, since
// no resource asks for it.
func (s *Server) CreateRelationship(ctx context.Context, r Relationship, bundle *spiffebundle.Bundle) error {
	request, err := s.relationshipToAPI(r, bundle)
	if err != nil {
		return s.wrap(err, "create relationship %s", r.ID())
	}
	answer, err := s.relationships.BatchCreateFederationRelationship(ctx, &trustdomainv1.BatchCreateFederationRelationshipRequest{
		FederationRelationships: []*types.FederationRelationship{request},
	})
	for _, result := range answer.GetResults() {
		err = statusError(result.GetStatus())
	}
	return s.wrap(err, "create relationship %s", r.ID())
}

// DeleteRelationship ends the fetching of the bundle of td; the one that is held
// stays, and is trusted as before. The error is a *NotFoundError if the server
// has no relationship with td, or has it from its configuration.
func (s *Server) DeleteRelationship(ctx context.Context, td spiffeid.TrustDomain) error {
	answer, err := s.relationships.BatchDeleteFederationRelationship(ctx, &trustdomainv1.BatchDeleteFederationRelationshipRequest{
		TrustDomains: []string{td.Name()},
	})
	for _, result := range answer.GetResults() {
		err = statusError(result.GetStatus())
	}
	return s.wrap(err, "delete relationship with %s", td)
}

// FetchError says that the server answered, and could not fetch a bundle.
type FetchError struct{ Err error }

func (e *FetchError) Error() string { return e.Err.Error() }

func (e *FetchError) Unwrap() error { return e.Err }

// RefreshBundle fetches the bundle of td at once, and returns when it is stored.
// The error is a *NotFoundError if the server has no relationship with td, and a
// *FetchError if it tried and could not.
//
// It is for relationships that are some seconds old. A server fetches for a new
// one by itself; a refresh that overtakes it ties the polling to its own call,
// and the server never polls again once that has returned (seen with SPIRE
// 1.15.3; pkg/server/bundle/client/manager.go, RefreshBundleFor).
func (s *Server) RefreshBundle(ctx context.Context, td spiffeid.TrustDomain) error {
	_, err := s.relationships.RefreshBundle(ctx, &trustdomainv1.RefreshBundleRequest{TrustDomain: td.Name()})
	wrapped := s.wrap(err, "refresh held bundle of %s", td)
	if status.Code(err) == codes.Internal { // whatever goes wrong with a fetch
		return &FetchError{wrapped}
	}
	return wrapped
}

func (s *Server) relationshipToAPI(r Relationship, bundle *spiffebundle.Bundle) (*types.FederationRelationship, error) {
	if r.Truster != s.td {
		return nil, fmt.Errorf("it is one of %s", r.Truster)
	}
	f := &types.FederationRelationship{TrustDomain: r.Trusted.Name(), BundleEndpointUrl: r.URL}
	switch r.Profile {
	case topology.HTTPSSPIFFE:
		f.BundleEndpointProfile = &types.FederationRelationship_HttpsSpiffe{
			HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: r.EndpointID.String()},
		}
	case topology.HTTPSWeb:
		f.BundleEndpointProfile = &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}}
	default:
		return nil, fmt.Errorf("unknown profile %q", r.Profile)
	}
	if bundle == nil {
		return f, nil
	}
	var err error
	f.TrustDomainBundle, err = bundleToAPI(bundle)
	return f, err
}

func (s *Server) relationshipFromAPI(f *types.FederationRelationship) (Relationship, error) {
	trusted, err := spiffeid.TrustDomainFromString(f.GetTrustDomain())
	if err != nil {
		return Relationship{}, fmt.Errorf("read relationship: %w", err)
	}
	r := Relationship{
		RelationshipSpec: topology.RelationshipSpec{Truster: s.td, Trusted: trusted},
		URL:              f.GetBundleEndpointUrl(),
	}
	switch profile := f.GetBundleEndpointProfile().(type) {
	case *types.FederationRelationship_HttpsSpiffe:
		r.Profile = topology.HTTPSSPIFFE
		if r.EndpointID, err = spiffeid.FromString(profile.HttpsSpiffe.GetEndpointSpiffeId()); err != nil {
			return Relationship{}, fmt.Errorf("read relationship %s: endpoint SPIFFE ID: %w", r.ID(), err)
		}
	case *types.FederationRelationship_HttpsWeb:
		r.Profile = topology.HTTPSWeb
	default:
		return Relationship{}, fmt.Errorf("read relationship %s: unknown profile %T", r.ID(), profile)
	}
	return r, nil
}
