package spire

import (
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// HostEntry returns the entry that registers a workload of a host below the agent of
// that host. Neither pods nor a controller manager have to do with it.
func HostEntry(w *topology.Workload, agent spiffeid.ID) Entry {
	e := Entry{
		SPIFFEID: w.ID, ParentID: agent, Selectors: UnixSelectors(w.UID(), HostProgram(w)),
		Hint: hintOf(w), X509SVIDTTL: w.App.X509SVIDTTL,
	}
	for _, d := range w.FederatesWith {
		e.FederatesWith = append(e.FederatesWith, d.Name)
	}
	return e
}

// HostProgram returns the path of the program of a workload on a host, in its container
// and so for the agent (proc(5), /proc/pid/exe).
func HostProgram(w *topology.Workload) string { return "/" + w.App.Name }

// UnixSelectors returns the selectors of a program on a host: the number of the user who
// runs it, and its path (pkg/agent/plugin/workloadattestor/unix/unix_posix.go).
func UnixSelectors(uid int, path string) []string {
	return []string{"unix:uid:" + strconv.Itoa(uid), "unix:path:" + path}
}

// StaticEntrySpec is the spec of a ClusterStaticEntry.
type StaticEntrySpec struct {
	SPIFFEID      string   `json:"spiffeID"`
	ParentID      string   `json:"parentID"`
	Selectors     []string `json:"selectors"`
	FederatesWith []string `json:"federatesWith,omitempty"`
	// X509SVIDTTL and JWTSVIDTTL are left out where the server's own count.
	X509SVIDTTL string   `json:"x509SVIDTTL,omitempty"`
	JWTSVIDTTL  string   `json:"jwtSVIDTTL,omitempty"`
	DNSNames    []string `json:"dnsNames,omitempty"`
	Hint        string   `json:"hint,omitempty"`
	Admin       bool     `json:"admin,omitempty"`
	Downstream  bool     `json:"downstream,omitempty"`
	ClassName   string   `json:"className,omitempty"`
}

// StaticEntry returns the ClusterStaticEntry that makes HostEntry where the server is in
// a cluster: its controller manager deletes entries that no resource asks for.
func StaticEntry(w *topology.Workload, agent spiffeid.ID) Resource {
	return staticEntry(IdentityName(w), w.Member.Server.Class, HostEntry(w, agent))
}

// staticEntry returns the ClusterStaticEntry of a name and a class that makes an entry.
func staticEntry(name, class string, e Entry) Resource {
	spec := StaticEntrySpec{
		SPIFFEID: e.SPIFFEID.String(), ParentID: e.ParentID.String(), Selectors: e.Selectors, DNSNames: e.DNSNames,
		X509SVIDTTL: lifeOf(e.X509SVIDTTL), JWTSVIDTTL: lifeOf(e.JWTSVIDTTL),
		Hint: e.Hint, Admin: e.Admin, Downstream: e.Downstream, ClassName: class,
	}
	for _, td := range e.FederatesWith {
		spec.FederatesWith = append(spec.FederatesWith, td.Name())
	}
	return Resource{APIVersion: ResourceAPIVersion, Kind: string(topology.ClusterStaticEntry), Metadata: Metadata{Name: name, Labels: Owned()}, Spec: spec}
}
