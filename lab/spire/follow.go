package spire

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// FederatedTrustDomainKind is the kind of the resources that relationships are
// made of.
const FederatedTrustDomainKind = "ClusterFederatedTrustDomain"

// FederatedTrustDomainResource is a ClusterFederatedTrustDomain as it is in a
// cluster, whoever made it.
type FederatedTrustDomainResource struct {
	Metadata struct {
		Metadata
		UID     string    `json:"uid"`
		Created time.Time `json:"creationTimestamp"`
	} `json:"metadata"`
	Spec FederatedTrustDomainSpec `json:"spec"`
}

// Relationship returns the relationship that the controller manager of a server makes
// of a spec. The error says why it makes none (its api/v1alpha1,
// ParseClusterFederatedTrustDomainSpec).
func (f FederatedTrustDomainSpec) Relationship(of *topology.Server) (Relationship, error) {
	if f.ClassName != of.Class {
		return Relationship{}, &UnservedClassError{f.ClassName}
	}
	if of.RelatesByAPI() {
		return Relationship{}, errRelatesByAPI
	}
	trusted, err := spiffeid.TrustDomainFromString(f.TrustDomain)
	if err != nil {
		return Relationship{}, fmt.Errorf("trustDomain %q: %w", f.TrustDomain, err)
	}
	r := Relationship{
		RelationshipSpec: topology.RelationshipSpec{Truster: of.Domain.Name, Trusted: trusted, Profile: f.BundleEndpointProfile.Type},
		URL:              f.BundleEndpointURL,
	}
	if err := endpointURL(f.BundleEndpointURL); err != nil {
		return r, fmt.Errorf("bundleEndpointURL %q: %w", f.BundleEndpointURL, err)
	}
	id := f.BundleEndpointProfile.EndpointSPIFFEID
	switch {
	case r.Profile == topology.HTTPSSPIFFE:
		if r.EndpointID, err = spiffeid.FromString(id); err != nil {
			return r, fmt.Errorf("endpointSPIFFEID %q: %w", id, err)
		}
	case r.Profile != topology.HTTPSWeb:
		return r, fmt.Errorf("unknown profile %q", r.Profile)
	case id != "":
		return r, fmt.Errorf("endpointSPIFFEID %q: profile %s has none", id, r.Profile)
	}
	if f.TrustDomainBundle != "" {
		if _, err := spiffebundle.Parse(trusted, []byte(f.TrustDomainBundle)); err != nil {
			return r, fmt.Errorf("trustDomainBundle: %w", err)
		}
	}
	return r, nil
}

// errRelatesByAPI says why nothing comes of a resource that is right.
var errRelatesByAPI = errors.New("the lab file has mode api for this trust domain, and so its controller manager makes no relationships")

// endpointURL returns nil for a URL that the controller manager takes.
func endpointURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return err
	case u.Scheme != "https":
		return errors.New("want https")
	case u.Host == "":
		return errors.New("it names no host")
	case u.User != nil:
		return errors.New("it has a user in it")
	}
	return nil
}

// Answers reports whether a server answers for the relationships of a class: its
// controller manager makes them, or none of the cluster does and the server is the
// cluster's first.
func Answers(s *topology.Server, class string) bool {
	return first(s.Place.Cluster.Servers, func(other *topology.Server) bool { return other.Class == class }) == s
}

// Registers reports whether a member answers for the registrations of a class in its
// cluster: its controller manager makes entries of them, or none of the cluster does
// and the member is the cluster's first.
func Registers(m *topology.Member, class string) bool {
	return first(m.Cluster().Members, func(other *topology.Member) bool { return other.Class == class }) == m
}

// first returns the first of all that serves, or else the first of all.
func first[T any](all []T, serves func(T) bool) T { return all[max(slices.IndexFunc(all, serves), 0)] }

// UnservedClassError says that no controller manager of a cluster serves the class of
// a resource.
type UnservedClassError struct{ Class string }

func (e *UnservedClassError) Error() string {
	if e.Class == "" {
		return "it has no class, and each controller manager of the cluster serves one: nothing comes of it"
	}
	return fmt.Sprintf("it has the class %q, and no controller manager of the cluster serves that: nothing comes of it", e.Class)
}

// DuplicateError says that an older resource stands for the same trust domain.
type DuplicateError struct {
	Trusted spiffeid.TrustDomain
	// Older is the name of the resource that counts.
	Older string
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("the older %s %s stands for %s, too, and counts", FederatedTrustDomainKind, e.Older, e.Trusted.Name())
}

// Followed is the resource that a server follows for one trust domain.
type Followed struct {
	Relationship
	// Resource is its name, and Owned tells that it has fedlab's labels.
	Resource string
	Owned    bool
}

// PassedOver is a resource that the controller manager makes no relationship of.
type PassedOver struct {
	Resource string
	// Trusted is zero where nobody can tell it.
	Trusted spiffeid.TrustDomain
	Why     error
}

// Follow says of which of a cluster's resources the controller manager of a server
// makes relationships, and which it passes over: of those for one trust domain only
// the oldest counts (its pkg/spirefederationrelationship, version 0.7.0). It writes
// that to its log and nowhere else: the resource has no status. Resources for which
// another server of the cluster answers are left out.
func Follow(of *topology.Server, resources []FederatedTrustDomainResource) (map[spiffeid.TrustDomain]Followed, []PassedOver) {
	resources = slices.DeleteFunc(slices.Clone(resources), func(r FederatedTrustDomainResource) bool { return !Answers(of, r.Spec.ClassName) })
	slices.SortFunc(resources, func(a, b FederatedTrustDomainResource) int {
		return cmp.Or(a.Metadata.Created.Compare(b.Metadata.Created), cmp.Compare(a.Metadata.UID, b.Metadata.UID))
	})
	followed := map[spiffeid.TrustDomain]Followed{}
	var passed []PassedOver
	for _, resource := range resources {
		r, err := resource.Spec.Relationship(of)
		if older, twice := followed[r.Trusted]; err == nil && twice {
			err = &DuplicateError{r.Trusted, older.Resource}
		}
		if err != nil {
			if r.Trusted.IsZero() {
				// Also of a resource with a class.
				r.Trusted, _ = spiffeid.TrustDomainFromString(resource.Spec.TrustDomain)
			}
			passed = append(passed, PassedOver{resource.Metadata.Name, r.Trusted, err})
			continue
		}
		followed[r.Trusted] = Followed{r, resource.Metadata.Name, resource.owned()}
	}
	return followed, passed
}

// owned reports whether fedlab has made a resource.
func (f FederatedTrustDomainResource) owned() bool {
	for label, value := range Owned() {
		if f.Metadata.Labels[label] != value {
			return false
		}
	}
	return true
}
