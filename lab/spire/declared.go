package spire

import (
	"strings"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// EntryID returns the ID of the entry that a plain registration of the lab is. The server
// takes letters, digits, dots, dashes and underscores (pkg/server/datastore/sqlstore,
// validEntryIDChars), and a controller manager with a prefix leaves alone what begins
// otherwise.
func EntryID(r *topology.Registration) string { return ownEntries + r.Name }

const ownEntries = topology.OwnEntryPrefix + "."

// Declared reports whether an entry has an ID of EntryID.
func (e Entry) Declared() bool { return strings.HasPrefix(e.ID, ownEntries) }

// DeclaredEntry returns the entry that a registration asks for. It is none of a
// ClusterSPIFFEID, of which an entry comes for each pod.
func DeclaredEntry(r *topology.Registration) Entry {
	e := Entry{
		SPIFFEID: r.ID, ParentID: r.ParentID, Selectors: r.Selectors, FederatesWith: r.FederatesWith, DNSNames: r.DNSNames,
		Hint: r.Hint, X509SVIDTTL: r.X509SVIDTTL, JWTSVIDTTL: r.JWTSVIDTTL, Admin: r.Admin, Downstream: r.Downstream,
	}
	if r.Kind == topology.PlainEntry {
		e.ID = EntryID(r)
	}
	return e
}

// DeclaredResource returns the resource that a registration is. It is none of a plain
// entry.
func DeclaredResource(r *topology.Registration) Resource {
	if r.Kind != topology.ClusterSPIFFEID {
		return staticEntry(r.Name, r.Server().Class, DeclaredEntry(r))
	}
	var names []string
	for _, td := range r.FederatesWith {
		names = append(names, td.Name())
	}
	return Resource{
		APIVersion: ResourceAPIVersion,
		Kind:       string(topology.ClusterSPIFFEID),
		Metadata:   Metadata{Name: r.Name, Labels: Owned()},
		Spec: WorkloadIdentitySpec{
			SPIFFEIDTemplate: r.IDTemplate,
			// No labels select all.
			NamespaceSelector:         LabelSelector{MatchLabels: labelsOf(r.Namespaces)},
			PodSelector:               LabelSelector{MatchLabels: labelsOf(r.Pods)},
			WorkloadSelectorTemplates: append([]string{}, r.Selectors...),
			DNSNameTemplates:          r.DNSNames,
			AutoPopulateDNSNames:      r.ServiceNames,
			TTL:                       lifeOf(r.X509SVIDTTL),
			JWTTTL:                    lifeOf(r.JWTSVIDTTL),
			FederatesWith:             names,
			Hint:                      r.Hint,
			ClassName:                 r.Member.Class,
			Fallback:                  r.Fallback,
			Admin:                     r.Admin,
			Downstream:                r.Downstream,
		},
	}
}

// labelsOf returns labels that are written also where there are none.
func labelsOf(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}
