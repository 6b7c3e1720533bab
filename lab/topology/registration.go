package topology

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// RegistrationKind is how an identity is registered that no workload of the lab file has.
type RegistrationKind string

const (
	// ClusterSPIFFEID is a resource of which the controller manager makes an entry for
	// each pod that it selects.
	ClusterSPIFFEID RegistrationKind = "ClusterSPIFFEID"
	// ClusterStaticEntry is a resource of which the controller manager makes one entry.
	ClusterStaticEntry RegistrationKind = "ClusterStaticEntry"
	// PlainEntry is an entry that is made by SPIRE's API.
	PlainEntry RegistrationKind = "entry"
)

// RegistrationSpec is what a registration is meant to be, besides those that workloads
// have. Fields that are not said to be of one kind are of all.
type RegistrationSpec struct {
	// Name is unique among the registrations and workloads of the lab.
	Name        string
	Kind        RegistrationKind
	TrustDomain spiffeid.TrustDomain
	// Cluster is where the resource is, or for a plain entry where the server is that
	// has it. It is empty where that server is on a host.
	Cluster string `json:",omitempty"`

	// IDTemplate, of a ClusterSPIFFEID, comes to the SPIFFE ID of each pod.
	IDTemplate string `json:",omitempty"`
	// Namespaces and Pods, of a ClusterSPIFFEID, are labels of what it selects; none
	// select all.
	Namespaces, Pods map[string]string `json:",omitempty"`
	// Fallback, of a ClusterSPIFFEID, leaves out the pods that another one selects.
	Fallback bool `json:",omitempty"`
	// ServiceNames, of a ClusterSPIFFEID, adds the DNS names of the Services of a pod.
	ServiceNames bool `json:",omitempty"`

	// ID and ParentID are not those of a ClusterSPIFFEID.
	ID       spiffeid.ID `json:",omitzero"`
	ParentID spiffeid.ID `json:",omitzero"`

	// Selectors and DNSNames are templates in a ClusterSPIFFEID.
	Selectors []string `json:",omitempty"`
	DNSNames  []string `json:",omitempty"`
	// FederatesWith are the trust domains whose bundles the bearer receives besides its
	// own.
	FederatesWith []spiffeid.TrustDomain `json:",omitempty"`
	Hint          string                 `json:",omitempty"`
	// X509SVIDTTL and JWTSVIDTTL are zero where the server's own count.
	X509SVIDTTL time.Duration `json:",omitempty"`
	JWTSVIDTTL  time.Duration `json:",omitempty"`
	// Admin bearers may use the whole API of the server, Downstream ones may have
	// authorities signed.
	Admin      bool `json:",omitempty"`
	Downstream bool `json:",omitempty"`
}

// SPIFFEID returns the SPIFFE ID, or the template that comes to one.
func (r RegistrationSpec) SPIFFEID() string {
	if r.Kind == ClusterSPIFFEID {
		return r.IDTemplate
	}
	return r.ID.String()
}

// Registration is an identity that the lab file registers besides those of workloads.
type Registration struct {
	RegistrationSpec
	// Member is where the resource is, and whose server has the entry. For what is not a
	// ClusterSPIFFEID it is the member in the server's own place.
	Member *Member
}

// Domain returns the trust domain of the registration.
func (r *Registration) Domain() *Domain { return r.Member.Domain }

// Server returns the server that has the entries of the registration.
func (r *Registration) Server() *Server { return r.Member.Server }

// OwnEntryPrefix is what the IDs of the entries begin with that fedlab makes by SPIRE's API,
// before a dot.
const OwnEntryPrefix = "fedlab"
