package spire

import (
	"slices"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Pod is what an agent sees of a Kubernetes pod when one of its programs asks for
// its identities, as the JSON of the Kubernetes API has it.
type Pod struct {
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		UID             string            `json:"uid"`
		Labels          map[string]string `json:"labels"`
		OwnerReferences []struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"ownerReferences"`
		// DeletionTimestamp is set once the pod is to go.
		DeletionTimestamp string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		NodeName           string   `json:"nodeName"`
		ServiceAccountName string   `json:"serviceAccountName"`
		Volumes            []Volume `json:"volumes"`
	} `json:"spec"`
	Status struct {
		ContainerStatuses     []ContainerStatus `json:"containerStatuses"`
		InitContainerStatuses []ContainerStatus `json:"initContainerStatuses"`
	} `json:"status"`
}

// Volume is what a pod has of its node.
type Volume struct {
	HostPath struct {
		Path string `json:"path"`
	} `json:"hostPath"`
}

// ContainerStatus is how Kubernetes describes a container that has been started.
type ContainerStatus struct {
	Name    string `json:"name"`
	Image   string `json:"image"`
	ImageID string `json:"imageID"`
}

// Selectors returns what the agent's k8s attestor says of the program in a pod (SPIRE
// pkg/agent/plugin/workloadattestor/k8s, getSelectorValuesFromPodInfo and
// getSelectorValuesFromWorkloadContainerStatus). It is the only attestor of a
// lab's agents. A pod with several containers has the selectors of them all here.
func (p Pod) Selectors() (all []string) {
	add := func(kind, value string) { all = append(all, "k8s:"+kind+":"+value) }
	add("ns", p.Metadata.Namespace)
	add("sa", p.Spec.ServiceAccountName)
	add("node-name", p.Spec.NodeName)
	add("pod-uid", p.Metadata.UID)
	add("pod-name", p.Metadata.Name)
	add("pod-image-count", strconv.Itoa(len(p.Status.ContainerStatuses)))
	add("pod-init-image-count", strconv.Itoa(len(p.Status.InitContainerStatuses)))
	for name, value := range p.Metadata.Labels {
		add("pod-label", name+":"+value)
	}
	for _, owner := range p.Metadata.OwnerReferences {
		add("pod-owner", owner.Kind+":"+owner.Name)
		add("pod-owner-uid", owner.Kind+":"+owner.UID)
	}
	for _, c := range p.Status.ContainerStatuses {
		add("container-name", c.Name)
		for _, image := range []string{c.Image, c.ImageID} {
			add("container-image", image)
			add("pod-image", image)
		}
	}
	for _, c := range p.Status.InitContainerStatuses {
		add("pod-init-image", c.Image)
		add("pod-init-image", c.ImageID)
	}
	return all
}

// Matches reports whether a workload with these selectors gets the entry: it has
// all that the entry asks for.
func (e Entry) Matches(selectors []string) bool {
	return !slices.ContainsFunc(e.Selectors, func(s string) bool { return !slices.Contains(selectors, s) })
}

// Authorized returns the entries that some of these agents are given to hand out:
// those below them, and those below a node alias, which is an entry below the server
// that has the agent's own selectors (SPIRE pkg/server/authorizedentries).
func Authorized(td spiffeid.TrustDomain, agents []Agent, entries []Entry) []Entry {
	parents := map[spiffeid.ID]bool{}
	for _, agent := range agents {
		parents[agent.ID] = !agent.Banned
	}
	for _, e := range entries {
		if e.ParentID == ServerID(td) && slices.ContainsFunc(agents, func(a Agent) bool { return !a.Banned && e.Matches(a.Selectors) }) {
			parents[e.SPIFFEID] = true
		}
	}
	var authorized []Entry
	for rest := entries; ; {
		var later []Entry
		found := false
		for _, e := range rest {
			if !parents[e.ParentID] {
				later = append(later, e)
				continue
			}
			authorized = append(authorized, e)
			parents[e.SPIFFEID], found = true, true
		}
		if rest = later; !found {
			return authorized
		}
	}
}

// Mounts reports whether a pod has a folder of its node.
func (p Pod) Mounts(folder string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v Volume) bool { return v.HostPath.Path == folder })
}
