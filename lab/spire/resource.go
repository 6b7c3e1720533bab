package spire

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// ResourceAPIVersion is the API version of the resources.
const ResourceAPIVersion = "spire.spiffe.io/v1alpha1"

// Resource is a custom resource of the controller manager, cluster-scoped, as
// its JSON goes to the Kubernetes API.
type Resource struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	// Spec is a FederatedTrustDomainSpec or a WorkloadIdentitySpec.
	Spec any `json:"spec"`
}

// Metadata is the part of a resource's metadata that fedlab decides on.
type Metadata struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Owned are the labels of the resources that fedlab makes, by which it knows
// those that the lab file no longer asks for.
func Owned() map[string]string { return map[string]string{"app.kubernetes.io/managed-by": "fedlab"} }

// FederatedTrustDomainSpec is the spec of a ClusterFederatedTrustDomain.
type FederatedTrustDomainSpec struct {
	TrustDomain           string          `json:"trustDomain"`
	BundleEndpointURL     string          `json:"bundleEndpointURL"`
	BundleEndpointProfile EndpointProfile `json:"bundleEndpointProfile"`
	TrustDomainBundle     string          `json:"trustDomainBundle"`
	// ClassName is written also where it is empty: what is not written stays as
	// somebody else has set it.
	ClassName string `json:"className"`
}

// EndpointProfile says how the bundle endpoint is authenticated.
type EndpointProfile struct {
	Type topology.EndpointProfile `json:"type"`
	// EndpointSPIFFEID is empty where Type is https_web: the controller manager
	// refuses one there.
	EndpointSPIFFEID string `json:"endpointSPIFFEID,omitempty"`
}

// BundleEndpointURL returns where peers fetch the bundle of a trust domain from its
// server.
func BundleEndpointURL(s *topology.Server) string {
	endpoint := s.Domain.BundleEndpoint
	if endpoint.Route != "" {
		return "https://" + endpoint.Host + endpoint.Path // at the port of https
	}
	return "https://" + net.JoinHostPort(s.EndpointHost(), strconv.Itoa(endpoint.Port))
}

// AddressURL is BundleEndpointURL for an endpoint without a DNS name.
func AddressURL(s *topology.Server) string { return "https://" + s.Endpoint().String() }

// Pinned returns what a truster is given of a bundle when a relationship is
// made: the X.509 authorities only. They authenticate an https_spiffe endpoint
// the first time; an https_web endpoint needs none of them, but entries that
// federate with the trust domain do. The JWT authorities come with the first
// fetch, so a held bundle that is in sync shows that it took place.
//
// It has the endpoint's refresh hint, which no server's API reports for its own
// bundle: without one, a server whose first fetch fails comes back after a
// fortieth of the root's life, with a root of 24 hours in 36 minutes
// (pkg/server/bundle/client/manager.go).
func Pinned(endpoint topology.BundleEndpoint, bundle *spiffebundle.Bundle) *spiffebundle.Bundle {
	pinned := spiffebundle.FromX509Authorities(bundle.TrustDomain(), bundle.X509Authorities())
	pinned.SetRefreshHint(endpoint.RefreshHint)
	return pinned
}

// FederatedTrustDomain returns the ClusterFederatedTrustDomain that makes the
// truster's server fetch the bundle of the trusted domain from its endpoint. It
// carries the bundle as Pinned returns it.
//
// The controller manager acts on changes of the URL and of the profile only; a
// changed bundle alone is not read again.
func FederatedTrustDomain(t topology.Relationship, bundle *spiffebundle.Bundle) (Resource, error) {
	doing := func(err error) error { return fmt.Errorf("write relationship %s: %w", t.ID(), err) }
	switch {
	case t.Profile != topology.HTTPSSPIFFE && t.Profile != topology.HTTPSWeb:
		return Resource{}, doing(fmt.Errorf("profile %q: want %s or %s", t.Profile, topology.HTTPSSPIFFE, topology.HTTPSWeb))
	case bundle.TrustDomain() != t.Trusted.Name:
		// A bundle's document does not name its trust domain, so nobody can tell
		// after this.
		return Resource{}, doing(fmt.Errorf("bundle belongs to %s", bundle.TrustDomain()))
	case len(bundle.X509Authorities()) == 0:
		return Resource{}, doing(errors.New("bundle has no X.509 authority"))
	}
	document, err := Pinned(t.Trusted.BundleEndpoint, bundle).Marshal()
	if err != nil {
		return Resource{}, doing(err)
	}
	profile := EndpointProfile{Type: t.Profile}
	if t.Profile == topology.HTTPSSPIFFE {
		profile.EndpointSPIFFEID = ServerID(t.Trusted.Name).String()
	}
	return Resource{
		APIVersion: ResourceAPIVersion,
		Kind:       FederatedTrustDomainKind,
		Metadata:   Metadata{Name: ResourceName(t), Labels: Owned()},
		Spec: FederatedTrustDomainSpec{
			TrustDomain:           t.Trusted.String(),
			BundleEndpointURL:     BundleEndpointURL(t.Trusted.Server()),
			BundleEndpointProfile: profile,
			TrustDomainBundle:     string(document),
			ClassName:             t.By.Class,
		},
	}, nil
}

// Hint marks the identities that fedlab registers, so that a workload with others
// besides can tell which one is meant. The demo programs go by it
// (apps/internal/identity).
const Hint = "fedlab"

// WorkloadIdentitySpec is the spec of a ClusterSPIFFEID.
type WorkloadIdentitySpec struct {
	SPIFFEIDTemplate          string        `json:"spiffeIDTemplate"`
	NamespaceSelector         LabelSelector `json:"namespaceSelector"`
	PodSelector               LabelSelector `json:"podSelector"`
	WorkloadSelectorTemplates []string      `json:"workloadSelectorTemplates"`
	DNSNameTemplates          []string      `json:"dnsNameTemplates,omitempty"`
	// AutoPopulateDNSNames adds the names of the Services that lead to the pod.
	AutoPopulateDNSNames bool `json:"autoPopulateDNSNames,omitempty"`
	// TTL is that of X509-SVIDs, and JWTTTL that of JWT-SVIDs; without it the server's own
	// counts.
	TTL           string   `json:"ttl,omitempty"`
	JWTTTL        string   `json:"jwtTtl,omitempty"`
	FederatesWith []string `json:"federatesWith,omitempty"`
	Hint          string   `json:"hint,omitempty"`
	ClassName     string   `json:"className,omitempty"`
	// Fallback leaves out the pods that another ClusterSPIFFEID selects.
	Fallback bool `json:"fallback,omitempty"`
	// Admin lets the pods use the whole API of the server.
	Admin bool `json:"admin,omitempty"`
	// Downstream lets the pods have authorities signed, and publish JWT authorities.
	Downstream bool `json:"downstream,omitempty"`
}

// LabelSelector selects what has all of these labels.
type LabelSelector struct {
	MatchLabels map[string]string `json:"matchLabels"`
}

// WorkloadIdentity returns the ClusterSPIFFEID that registers the pods of a workload.
func WorkloadIdentity(w *topology.Workload) Resource {
	names := make([]string, len(w.FederatesWith))
	for i, td := range w.FederatesWith {
		names[i] = td.String()
	}
	return Resource{
		APIVersion: ResourceAPIVersion,
		Kind:       "ClusterSPIFFEID",
		Metadata:   Metadata{Name: IdentityName(w), Labels: Owned()},
		Spec: WorkloadIdentitySpec{
			SPIFFEIDTemplate: "spiffe://{{ .TrustDomain }}" + w.App.IDTemplate,
			// Kubernetes itself labels each namespace with its name.
			NamespaceSelector: LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.Namespace}},
			PodSelector:       LabelSelector{MatchLabels: w.PodSelector()},
			WorkloadSelectorTemplates: append([]string{
				"k8s:ns:" + w.Namespace,
				"k8s:sa:" + w.App.ServiceAccount,
			}, w.App.Selectors...),
			DNSNameTemplates: w.App.DNSNames,
			TTL:              lifeOf(w.App.X509SVIDTTL),
			FederatesWith:    names,
			Hint:             hintOf(w),
			ClassName:        w.Member.Class,
		},
	}
}

// lifeOf writes a life as resources have it: none where the server's own counts.
func lifeOf(ttl time.Duration) string {
	if ttl == 0 {
		return ""
	}
	return ttl.String()
}

// DatabaseIdentity returns the ClusterSPIFFEID of the PostgreSQL next to a workload. Its
// first DNS name is the common name of the certificate, by which old clients of PostgreSQL
// go. It federates with nobody: only the trust domain's own clients are to believe it.
func DatabaseIdentity(w *topology.Workload) Resource {
	d := w.Database()
	service := d.Release + "." + w.Namespace + ".svc"
	return Resource{
		APIVersion: ResourceAPIVersion,
		Kind:       "ClusterSPIFFEID",
		Metadata:   Metadata{Name: DatabaseIdentityName(w), Labels: Owned()},
		Spec: WorkloadIdentitySpec{
			SPIFFEIDTemplate:          "spiffe://{{ .TrustDomain }}" + d.ID.Path(),
			NamespaceSelector:         LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.Namespace}},
			PodSelector:               LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/instance": d.Release, "app.kubernetes.io/name": "postgres"}},
			WorkloadSelectorTemplates: []string{"k8s:ns:" + w.Namespace, "k8s:pod-label:app.kubernetes.io/instance:" + d.Release},
			DNSNameTemplates:          []string{d.Release, service, service + ".cluster.local"},
			ClassName:                 w.Member.Class,
		},
	}
}

// DatabaseIdentityName returns the name of the ClusterSPIFFEID of a workload's database. No
// workload has it: none has a dot in its name.
func DatabaseIdentityName(w *topology.Workload) string { return "database." + w.Name }

// NestedID returns the SPIFFE ID by which a nested server is known to its upstream. Paths
// below /spire are SPIRE's own (pkg/common/idutil, IsReservedPath).
func NestedID(s *topology.Server) spiffeid.ID {
	return spiffeid.RequireFromPath(s.Domain.Name, nestedPath+s.Place.Cluster.Name)
}

const nestedPath = "/fedlab/nested-server/"

// NestedIdentity returns the ClusterSPIFFEID by which the upstream of a nested server
// signs its authorities. It is for the controller manager that the upstream has for the
// cluster of the nested server.
func NestedIdentity(s *topology.Server) Resource {
	return Resource{
		APIVersion: ResourceAPIVersion,
		Kind:       "ClusterSPIFFEID",
		Metadata:   Metadata{Name: NestedIdentityName(s), Labels: Owned()},
		Spec: WorkloadIdentitySpec{
			SPIFFEIDTemplate:          "spiffe://{{ .TrustDomain }}" + NestedID(s).Path(),
			NamespaceSelector:         LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.Place.Namespace}},
			PodSelector:               LabelSelector{MatchLabels: map[string]string{ProgramLabel: ServerStatefulSet}},
			WorkloadSelectorTemplates: []string{"k8s:ns:" + s.Place.Namespace, "k8s:sa:" + serverServiceAccount},
			ClassName:                 s.Link.Class,
			Downstream:                true,
		},
	}
}

// NestedIdentityName returns the name of the ClusterSPIFFEID of a nested server. No
// workload has it: the name of none begins so and has a dot.
func NestedIdentityName(s *topology.Server) string { return "nested-server." + s.Link.Class }

func hintOf(w *topology.Workload) string {
	if w.Own != nil && w.Own.Hint != "" {
		return w.Own.Hint
	}
	return Hint
}

// ResourceName returns the name of the ClusterFederatedTrustDomain of a relationship.
func ResourceName(t topology.Relationship) string { return NameFor(t.By, t.Trusted.Name) }

// NameFor returns the name of the ClusterFederatedTrustDomain by which a server
// follows a trust domain: that domain's own name, where Kubernetes accepts it, after
// the class where the server has one.
func NameFor(s *topology.Server, trusted spiffeid.TrustDomain) string {
	if s.Class == "" {
		return resourceName(trusted.Name())
	}
	return resourceName(s.Class + "." + trusted.Name())
}

// IdentityName returns the name of the ClusterSPIFFEID of a workload.
func IdentityName(w *topology.Workload) string { return resourceName(w.Name) }

var subdomain = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// resourceName returns name if Kubernetes accepts it for a resource, and else
// one that it accepts and that no other name is turned into: trust domains may
// have underscores and may be longer.
func resourceName(name string) string {
	const longest = 253
	if len(name) <= longest && subdomain.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	return strings.Trim(readable[:min(len(readable), 200)]+"-"+hex.EncodeToString(sum[:8]), "-")
}
