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

// StaticEntrySpec is the spec of a ClusterStaticEntry. A lab's has no DNS names.
type StaticEntrySpec struct {
	SPIFFEID      string   `json:"spiffeID"`
	ParentID      string   `json:"parentID"`
	Selectors     []string `json:"selectors"`
	FederatesWith []string `json:"federatesWith,omitempty"`
	// X509SVIDTTL is left out where the server's own counts.
	X509SVIDTTL string `json:"x509SVIDTTL,omitempty"`
	Hint        string `json:"hint,omitempty"`
	ClassName   string `json:"className,omitempty"`
}

// StaticEntry returns the ClusterStaticEntry that makes HostEntry where the server is in
// a cluster: its controller manager deletes entries that no resource asks for.
func StaticEntry(w *topology.Workload, agent spiffeid.ID) Resource {
	e := HostEntry(w, agent)
	spec := StaticEntrySpec{
		SPIFFEID: e.SPIFFEID.String(), ParentID: e.ParentID.String(), Selectors: e.Selectors,
		Hint: e.Hint, ClassName: w.Member.Server.Class,
	}
	for _, td := range e.FederatesWith {
		spec.FederatesWith = append(spec.FederatesWith, td.Name())
	}
	if e.X509SVIDTTL > 0 {
		spec.X509SVIDTTL = e.X509SVIDTTL.String()
	}
	return Resource{APIVersion: ResourceAPIVersion, Kind: "ClusterStaticEntry", Metadata: Metadata{Name: IdentityName(w), Labels: Owned()}, Spec: spec}
}
