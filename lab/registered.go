package lab

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// told is what a server says about who gets which identity.
type told struct {
	held    map[spiffeid.TrustDomain]*spiffebundle.Bundle
	agents  []spire.Agent
	entries []spire.Entry
}

// registry is what decides on who gets which identity in a member, as the server and
// the member's cluster have it.
type registry struct {
	told
	member *topology.Member
	// resources are those that the member answers for.
	resources []registrar
}

// registrar is a resource of which the controller manager makes entries: a
// ClusterSPIFFEID or a ClusterStaticEntry, as far as it is needed to tell what
// comes of it.
type registrar struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		ClassName     string   `json:"className"`
		FederatesWith []string `json:"federatesWith"`

		// Of a ClusterSPIFFEID.
		SPIFFEIDTemplate  string        `json:"spiffeIDTemplate"`
		NamespaceSelector labelSelector `json:"namespaceSelector"`
		PodSelector       labelSelector `json:"podSelector"`

		// Of a ClusterStaticEntry.
		SPIFFEID  string   `json:"spiffeID"`
		ParentID  string   `json:"parentID"`
		Selectors []string `json:"selectors"`
	} `json:"spec"`
	// Status is what the controller manager 0.7.0 writes (its api/v1alpha1), and nil as
	// long as all of it would be zero: also for a ClusterStaticEntry of which it cannot
	// make an entry (its pkg/spireentry/reconciler.go). The fields "rendered" and "set"
	// of such a one are left out: the first says no more than its spec, and the second
	// is true only in the round in which the entry is made.
	Status *struct {
		Stats struct {
			PodEntryRenderFailures int `json:"podEntryRenderFailures"`
			EntriesMasked          int `json:"entriesMasked"`
			EntryFailures          int `json:"entryFailures"`
		} `json:"stats"`
		Masked bool `json:"masked"`
	} `json:"status"`
}

// Kinds of registrar.
const (
	clusterSPIFFEID    = "ClusterSPIFFEID"
	clusterStaticEntry = "ClusterStaticEntry"
)

func (x registrar) String() string { return x.Kind + " " + x.Metadata.Name }

// owned reports whether fedlab has made it.
func (x registrar) owned() bool {
	for label, value := range spire.Owned() {
		if x.Metadata.Labels[label] != value {
			return false
		}
	}
	return true
}

// labelSelector is a selector of Kubernetes. Only its labels are looked at:
// expressions may select anything.
type labelSelector struct {
	MatchLabels map[string]string `json:"matchLabels"`
}

func (s labelSelector) maySelect(labels map[string]string) bool {
	for label, value := range s.MatchLabels {
		if labels[label] != value {
			return false
		}
	}
	return true
}

// readRegistry asks the server of a member and looks at the member's cluster, where it is
// one.
func readRegistry(ctx context.Context, site *Site, in access.Objects, m *topology.Member) (registry, error) {
	r := registry{member: m}
	var errs [2]error
	r.told, errs[0] = readTold(ctx, site.API)
	if m.Host() == nil {
		r.resources, errs[1] = registrars(ctx, in, m)
	}
	return r, errors.Join(errs[:]...)
}

// readTold asks a server.
func readTold(ctx context.Context, api *spire.Server) (told, error) {
	t := told{held: map[spiffeid.TrustDomain]*spiffebundle.Bundle{}}
	var errs [3]error
	var held []*spiffebundle.Bundle
	held, errs[0] = api.HeldBundles(ctx)
	for _, b := range held {
		t.held[b.TrustDomain()] = b
	}
	t.agents, errs[1] = api.Agents(ctx)
	t.entries, errs[2] = api.Entries(ctx)
	return t, errors.Join(errs[:]...)
}

// registrars reads the resources that entries are made of and that a member answers for.
func registrars(ctx context.Context, in access.Objects, m *topology.Member) (all []registrar, err error) {
	for _, kind := range []string{clusterSPIFFEID, clusterStaticEntry} {
		var some []registrar
		if err := in.List(ctx, access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: kind}, nil, &some); err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return slices.DeleteFunc(all, func(x registrar) bool { return !spire.Registers(m, x.Spec.ClassName) }), nil
}

// podsOf reads the pods of a workload that are not about to go.
func podsOf(ctx context.Context, objects access.Objects, w *topology.Workload) (all []spire.Pod, err error) {
	pods, labels := access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: w.Namespace}, w.PodSelector()
	err = objects.List(ctx, pods, labels, &all)
	return slices.DeleteFunc(all, func(p spire.Pod) bool {
		return p.Metadata.DeletionTimestamp != "" || w.Own != nil && p.Spec.ServiceAccountName != w.App.ServiceAccount
	}), err
}

// given returns the entries that a pod's program gets. While no agent has attested
// nobody gets any, which is what has to be said then: it returns those that fit.
func (r registry) given(pod spire.Pod) []spire.Entry {
	entries := slices.Clone(r.entries)
	if agents := slices.DeleteFunc(slices.Clone(r.agents), r.elsewhere); len(agents) > 0 {
		entries = spire.Authorized(r.member.Domain.Name, agents, entries)
	}
	selectors := pod.Selectors()
	return slices.DeleteFunc(entries, func(e spire.Entry) bool { return !e.Matches(selectors) })
}

// elsewhere reports whether an agent is of another member of the same server.
func (r registry) elsewhere(a spire.Agent) bool {
	in, on := spire.AttestedIn(a.ID), spire.JoinedOn(a.ID)
	return slices.ContainsFunc(r.member.Server.Members, func(m *topology.Member) bool {
		if m.Host() != nil {
			return m != r.member && m.Host().Name == on
		}
		return m != r.member && m.Cluster().Name == in
	})
}

// identified is a workload with the trust domains whose bundles it is to receive, and
// its pods.
type identified struct {
	*topology.Workload
	trusted []*topology.Domain
	pods    []spire.Pod
	// unseen says why its pods could not be looked at.
	unseen error
}

// identify looks at the pods of a workload. On a host there are none.
func identify(ctx context.Context, objects access.Objects, w *topology.Workload) identified {
	is := identified{Workload: w, trusted: w.FederatesWith}
	if w.Host() != nil {
		return is
	}
	is.pods, is.unseen = podsOf(ctx, objects, w)
	return is
}

// registered returns nil when each pod of a workload gets its identity and the
// bundles that it needs, which are those of all entries of the pod.
func (r registry) registered(w identified) error {
	if !slices.ContainsFunc(r.entries, func(e spire.Entry) bool { return e.SPIFFEID == w.ID }) {
		return r.because(w, because(NoEntry, "no entry has the SPIFFE ID %s: the workload gets no identity", w.ID))
	}
	if w.Host() != nil {
		return r.registeredOnHost(w)
	}
	for _, pod := range w.pods {
		entries := r.given(pod)
		if !slices.ContainsFunc(entries, func(e spire.Entry) bool { return e.SPIFFEID == w.ID }) {
			return r.because(w, because(NoEntry, "no entry of %s fits the pod %s: the workload does not get that identity", w.ID, pod.Metadata.Name))
		}
		for _, td := range w.trusted {
			if !slices.ContainsFunc(entries, func(e spire.Entry) bool { return slices.Contains(e.FederatesWith, td.Name) }) {
				return r.because(w, because(NoFederatesWith, "the entry of %s does not federate with %s: the workload does not get its bundle", w.ID, td))
			}
		}
	}
	return nil
}

// registeredOnHost is registered for a workload on a host: its entry is below the agent of
// the host, and selects its program.
func (r registry) registeredOnHost(w identified) error {
	h, selectors := w.Host(), spire.UnixSelectors(w.UID(), spire.HostProgram(w.Workload))
	agents := slices.DeleteFunc(hostAgents(r.agents, h), func(a spire.Agent) bool { return !live(a) })
	if len(agents) == 0 {
		return because(NotAttested, "no agent of host %s has attested: the workload gets no identity", h.Name)
	}
	given := slices.DeleteFunc(slices.Clone(r.entries), func(e spire.Entry) bool {
		return !slices.ContainsFunc(agents, func(a spire.Agent) bool { return a.ID == e.ParentID }) || !e.Matches(selectors)
	})
	if !slices.ContainsFunc(given, func(e spire.Entry) bool { return e.SPIFFEID == w.ID }) {
		return because(NoEntry, "no entry of %s is for the agent of host %s and the selectors %s: the workload does not get that identity: the next up registers it", w.ID, h.Name, strings.Join(selectors, ", "))
	}
	for _, td := range w.trusted {
		if !slices.ContainsFunc(given, func(e spire.Entry) bool { return slices.Contains(e.FederatesWith, td.Name) }) {
			return because(NoFederatesWith, "the entry of %s does not federate with %s: the workload does not get its bundle", w.ID, td)
		}
	}
	return nil
}

// outrankedError says that the controller manager passes over what fedlab has
// registered. As long as what outranks it is there, nothing changes that.
type outrankedError struct{ by string }

func (e *outrankedError) Error() string {
	return e.by + " asks for the same entry and is older, so that the controller manager passes over the one of the lab; delete it"
}

// because adds to what is wrong with a workload's identity which resource the cause
// is, where one is: what gives it the identity that it presents, what outranks its
// ClusterSPIFFEID, or that itself, by what the controller manager says of it.
func (r registry) because(w identified, err error) error {
	if err == nil || unverified(err) || w.Host() != nil {
		return err
	}
	if other := (*otherIDError)(nil); errors.As(err, &other) {
		for _, pod := range w.pods {
			if by := r.makers(pod, other.id); by != "" {
				err = because(OtherIdentity, "%w, which it has by %s", err, by)
				break
			}
		}
	}
	i := slices.IndexFunc(r.resources, func(x registrar) bool {
		return x.Kind == clusterSPIFFEID && x.Metadata.Name == spire.IdentityName(w.Workload)
	})
	if i < 0 {
		return fmt.Errorf("%w: there is no %s %s", err, clusterSPIFFEID, spire.IdentityName(w.Workload))
	}
	own := r.resources[i]
	if own.Status != nil && own.Status.Stats.EntriesMasked > 0 {
		for _, pod := range w.pods {
			if by := r.makers(pod, w.ID); by != "" {
				return fmt.Errorf("%w: %w", err, &outrankedError{by})
			}
		}
	}
	if failure := r.failure(own); failure != "" {
		return fmt.Errorf("%w: %s: %s", err, own, failure)
	}
	return err
}

// failure says what keeps a resource from coming to entries; empty when nothing
// does.
func (r registry) failure(x registrar) string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	switch {
	case x.Spec.ClassName != r.member.Class:
		return (&spire.UnservedClassError{Class: x.Spec.ClassName}).Error()
	case x.Kind == clusterStaticEntry && r.member.Remote():
		return fmt.Sprintf("the controller manager of %s makes no entries of this kind in cluster %s: write it into cluster %s, where the SPIRE server is",
			r.member.Domain, r.member.Cluster().Name, r.member.Server.Place.Cluster.Name)
	case x.Kind == clusterStaticEntry && fault(x) != "":
		return "the controller manager cannot make an entry of it: " + fault(x)
	case x.Status == nil:
		return ""
	case x.Kind == clusterStaticEntry && x.Status.Masked:
		return "it is passed over: an older resource asks for the same entry"
	case x.Kind == clusterStaticEntry && !slices.ContainsFunc(r.entries, x.madeStatic):
		return "the server does not take its entry" + r.refusal(x)
	}
	stats := x.Status.Stats
	if n := stats.PodEntryRenderFailures; n > 0 {
		say("its templates come to no entry for %d of the pods that it selects", n)
	}
	if n := stats.EntryFailures; n > 0 {
		say("the server does not take %d of its entries%s", n, r.refusal(x))
	}
	if n := stats.EntriesMasked; n > 0 {
		say("%d of its entries are passed over: an older resource asks for the same", n)
	}
	return strings.Join(all, "; ")
}

// fault says what is wrong in a ClusterStaticEntry, of which no webhook says it;
// empty when nothing is.
func fault(x registrar) string {
	for _, field := range []struct{ name, id string }{{"spiffeID", x.Spec.SPIFFEID}, {"parentID", x.Spec.ParentID}} {
		if _, err := spiffeid.FromString(field.id); err != nil {
			return fmt.Sprintf("its %s %q is no SPIFFE ID: %v", field.name, field.id, err)
		}
	}
	for _, s := range x.Spec.Selectors {
		if kind, value, found := strings.Cut(s, ":"); !found || kind == "" || value == "" {
			return fmt.Sprintf("its selector %q is not of the form type:value", s)
		}
	}
	for _, name := range x.Spec.FederatesWith {
		if _, err := spiffeid.TrustDomainFromString(name); err != nil {
			return fmt.Sprintf("it federates with %q, which is no trust domain: %v", name, err)
		}
	}
	return ""
}

// refusal says which of the bundles that a resource wants for its entries the server
// does not hold: SPIRE takes no entry without them.
func (r registry) refusal(x registrar) string {
	var missing []string
	for _, name := range x.Spec.FederatesWith {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil || td != r.member.Domain.Name && r.held[td] == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return ": they federate with " + strings.Join(missing, ", ") + ", of which it holds no bundle"
}

// madeStatic reports whether an entry is that of a ClusterStaticEntry.
func (x registrar) madeStatic(e spire.Entry) bool {
	return x.Kind == clusterStaticEntry && e.SPIFFEID.String() == x.Spec.SPIFFEID && e.ParentID.String() == x.Spec.ParentID &&
		slices.Equal(slices.Sorted(slices.Values(e.Selectors)), slices.Sorted(slices.Values(x.Spec.Selectors)))
}

// action is what a template fills in.
var action = regexp.MustCompile(`\{\{.*?\}\}`)

// renders reports whether a ClusterSPIFFEID may ask for an entry of a pod. It goes by
// the labels that it selects, and by what stands between the actions of its template.
func (x registrar) renders(e spire.Entry, pod spire.Pod) bool {
	namespace, only := x.Spec.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
	if x.Kind != clusterSPIFFEID || only && namespace != pod.Metadata.Namespace || !x.Spec.PodSelector.maySelect(pod.Metadata.Labels) {
		return false
	}
	var id strings.Builder
	for i, literal := range action.Split(x.Spec.SPIFFEIDTemplate, -1) {
		if i > 0 {
			id.WriteString(".*")
		}
		id.WriteString(regexp.QuoteMeta(literal))
	}
	fits, err := regexp.MatchString("^"+id.String()+"$", e.SPIFFEID.String())
	return err == nil && fits
}

// makes reports whether an entry that a pod gets may come of a resource. An entry
// does not name its resource.
func (r registry) makes(x registrar, e spire.Entry, pod spire.Pod) bool {
	return x.Spec.ClassName == r.member.Class && (x.madeStatic(e) || x.renders(e, pod))
}

// makers names the resources, other than those of the lab, that ask for an identity
// of a pod; empty for none.
func (r registry) makers(pod spire.Pod, id spiffeid.ID) string {
	wanted := spire.Entry{SPIFFEID: id}
	var names []string
	for _, x := range r.resources {
		made := slices.ContainsFunc(r.given(pod), func(e spire.Entry) bool { return e.SPIFFEID == id && x.madeStatic(e) })
		if !x.owned() && x.Spec.ClassName == r.member.Class && (made || x.renders(wanted, pod)) {
			names = append(names, x.String())
		}
	}
	return strings.Join(names, " or ")
}

// remarks lists the resources of which a person has to know: those that come to
// nothing, and those that give a workload of the lab, of which these are all, one
// more identity.
func (r registry) remarks(cluster string, workloads []identified) []ResourceStatus {
	said := map[string][]string{}
	for _, w := range workloads {
		for _, pod := range w.pods {
			for _, e := range r.given(pod) {
				if e.SPIFFEID == w.ID {
					continue
				}
				for _, x := range r.resources {
					remark := fmt.Sprintf("it gives workload %s one more identity, %s; the demo programs present the one with the hint %q", w.Name, e.SPIFFEID, spire.Hint)
					if r.makes(x, e, pod) && !slices.Contains(said[x.String()], remark) {
						said[x.String()] = append(said[x.String()], remark)
					}
				}
			}
		}
	}
	list := []ResourceStatus{}
	for _, x := range r.resources {
		remarks := said[x.String()]
		if failure := r.failure(x); failure != "" && !r.declares(x) {
			remarks = append([]string{failure}, remarks...)
		}
		if len(remarks) > 0 {
			list = append(list, ResourceStatus{Cluster: cluster, Kind: x.Kind, Name: x.Metadata.Name, Problem: strings.Join(remarks, "; ")})
		}
	}
	return list
}

// declares reports whether a resource is that of a registration of the lab file, whose
// status says what is wrong with it.
func (r registry) declares(x registrar) bool {
	return x.owned() && slices.ContainsFunc(r.member.Registrations, func(d *topology.Registration) bool {
		return string(d.Kind) == x.Kind && d.Name == x.Metadata.Name
	})
}
