package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about the registrations of the lab file, which no workload has. A resource is
// known by its label and an entry by its ID.

// declaredIn names the registrations of a kind that a member has.
func declaredIn(m *topology.Member, kind topology.RegistrationKind) (names []string) {
	for _, r := range m.Registrations {
		if r.Kind == kind {
			names = append(names, r.Name)
		}
	}
	return names
}

// declared makes what a registration of the lab file asks for. Of a ClusterSPIFFEID there
// are as many entries as there are pods, also none.
func (u *up) declared(ctx context.Context, r *topology.Registration) error {
	if r.Kind == topology.PlainEntry {
		return u.takesEntry(ctx, r)
	}
	objects := u.in(r.Member.Cluster()).Objects
	if r.Kind == topology.ClusterStaticEntry {
		// One of another name that asks for the same entry is older, and would count.
		if err := tidyStatic(ctx, u.site(r.Server())); err != nil {
			return err
		}
	}
	if err := u.takesIdentity(ctx, objects, spire.DeclaredResource(r)); err != nil || r.Kind == topology.ClusterSPIFFEID {
		return err
	}
	var outranked outranking
	return wait(ctx, apiBound, check.Check{Name: "the SPIRE server has the entry of " + r.Name, Probe: func(ctx context.Context) error {
		all, err := readRegistry(ctx, u.site(r.Server()), objects, r.Member)
		if err != nil {
			return err
		}
		return outranked.judge(all.made(r))
	}})
}

// takesEntry makes the entry of a registration by the API of its server, and makes it again
// where it is another one.
func (u *up) takesEntry(ctx context.Context, r *topology.Registration) error {
	site, want := u.site(r.Server()), spire.DeclaredEntry(r)
	if site.Place.Cluster != nil {
		// The file may have had the same entry as a resource.
		if err := tidyStatic(ctx, site); err != nil {
			return err
		}
	}
	var outranked outranking
	return wait(ctx, apiBound, check.Check{Name: "the SPIRE server takes the registration", Probe: func(ctx context.Context) error {
		entries, err := site.API.Entries(ctx)
		if err != nil {
			return err
		}
		if rival := rivalOf(want, entries); rival != nil && !surplus(site.Server, *rival) {
			return outranked.judge(&rivalError{r.Server(), rival.ID})
		}
		for _, e := range entries {
			switch {
			case e.ID == want.ID && sameEntry(e, want):
				return nil
			case e.ID == want.ID, sameKey(e, want):
				plan.Did(ctx)
				if err := known(site.API.DeleteEntry(ctx, e.ID)); err != nil {
					return err
				}
			}
		}
		plan.Did(ctx)
		_, err = site.API.CreateEntry(ctx, want)
		return err
	}})
}

// rivalOf returns the entry that keeps another one away; nil where none does.
func rivalOf(want spire.Entry, entries []spire.Entry) *spire.Entry {
	i := slices.IndexFunc(entries, func(e spire.Entry) bool { return e.ID != want.ID && sameKey(e, want) })
	if i < 0 {
		return nil
	}
	return &entries[i]
}

// rivalError says that an entry of somebody else keeps the lab's own away.
type rivalError struct {
	server *topology.Server
	id     string
}

func (e *rivalError) Error() string {
	return fmt.Sprintf("entry %s has the same SPIFFE ID, parent and selectors, and a server has such an entry once; delete it with 'fedlab spire %s -- entry delete -entryID %s'", e.id, e.server, e.id)
}

// surplus reports whether fedlab has made an entry that the file does not have.
func surplus(s *topology.Server, e spire.Entry) bool {
	return e.Declared() && !slices.ContainsFunc(s.Home().Registrations, func(r *topology.Registration) bool {
		return r.Kind == topology.PlainEntry && spire.EntryID(r) == e.ID
	})
}

// tidyEntries deletes the entries that registrations of a former file were.
func (u *up) tidyEntries(ctx context.Context, site *Site) error {
	entries, err := site.API.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !surplus(site.Server, e) {
			continue
		}
		plan.Did(ctx)
		if err := known(site.API.DeleteEntry(ctx, e.ID)); err != nil {
			return err
		}
	}
	return nil
}

// tidyStatic deletes the ClusterStaticEntries of a former file.
func tidyStatic(ctx context.Context, site *Site) error {
	keep := declaredIn(site.Home(), topology.ClusterStaticEntry)
	for _, m := range site.OnHosts() {
		for _, w := range m.Workloads {
			keep = append(keep, spire.IdentityName(w))
		}
	}
	if d := site.Domain.Discovery; d != nil && !site.Nested() {
		keep = append(keep, spire.DiscoveryEntryNames(d)...)
	}
	return removeOwned(ctx, site.Objects, clusterStaticEntry, func(class string) bool { return spire.Answers(site.Server, class) }, keep)
}

// asDeclared returns nil when the resource of a registration is as the lab file has it.
func asDeclared(ctx context.Context, objects access.Objects, r *topology.Registration) error {
	resource := spire.DeclaredResource(r)
	key := access.ObjectKey{APIVersion: resource.APIVersion, Kind: resource.Kind, Name: resource.Metadata.Name}
	there, err := objects.Object(ctx, key, &struct{}{})
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("there is no %s %s: the next up makes it", resource.Kind, r.Name)
	}
	same, err := hasSpec(ctx, objects, resource)
	if err == nil && !same {
		err = fmt.Errorf("%s %s is not as the file has it: the next up restores it", resource.Kind, r.Name)
	}
	return err
}

// made returns nil when the server has what a registration asks for.
func (r registry) made(d *topology.Registration) error {
	if d.Kind != topology.PlainEntry {
		for _, x := range r.resources {
			if x.Kind != string(d.Kind) || x.Metadata.Name != d.Name {
				continue
			}
			if x.Kind == clusterStaticEntry && x.Status != nil && x.Status.Masked {
				return &outrankedError{r.elder(d)}
			}
			if failure := r.failure(x); failure != "" {
				return errors.New(failure)
			}
		}
	}
	if d.Kind == topology.ClusterSPIFFEID {
		return nil
	}
	want := spire.DeclaredEntry(d)
	is := r.entryOf(d)
	switch rival := rivalOf(want, r.entries); {
	case is == nil && d.Kind == topology.PlainEntry && rival != nil && !surplus(d.Server(), *rival):
		return &rivalError{d.Server(), rival.ID}
	case is == nil && d.Kind == topology.PlainEntry:
		return fmt.Errorf("the server has no entry %s: the next up makes it", want.ID)
	case is == nil:
		return errors.New("the controller manager has not made its entry yet")
	case !sameEntry(*is, want) && d.Kind == topology.PlainEntry:
		return fmt.Errorf("entry %s is not as the file has it: the next up restores it", is.ID)
	case !sameEntry(*is, want):
		return errors.New("the controller manager has not brought its entry up to date yet")
	}
	return nil
}

// elder names what asks for the entry of a registration besides its ClusterStaticEntry.
func (r registry) elder(d *topology.Registration) string {
	want := spire.DeclaredEntry(d)
	for _, x := range r.resources {
		if x.Metadata.Name != d.Name && x.madeStatic(want) {
			return x.String()
		}
	}
	return "another resource"
}

// entryOf returns the entry that a registration asks for, however it has changed; nil where
// there is none.
func (r registry) entryOf(d *topology.Registration) *spire.Entry {
	want := spire.DeclaredEntry(d)
	i := slices.IndexFunc(r.entries, func(e spire.Entry) bool {
		if d.Kind == topology.PlainEntry {
			return e.ID == want.ID
		}
		return sameKey(e, want)
	})
	if i < 0 {
		return nil
	}
	return &r.entries[i]
}

// parented returns nil when somebody can hand out what a registration asks for.
func (r registry) parented(d *topology.Registration) error {
	if d.Kind == topology.ClusterSPIFFEID || d.ParentID == spire.ServerID(d.TrustDomain) {
		return nil
	}
	agents := slices.DeleteFunc(slices.Clone(r.agents), func(a spire.Agent) bool { return !live(a) })
	is := r.entryOf(d)
	if is == nil || slices.ContainsFunc(spire.Authorized(d.TrustDomain, agents, r.entries), func(e spire.Entry) bool { return e.ID == is.ID }) {
		return nil
	}
	return fmt.Errorf("its parent %s is no agent that has attested, and no entry that such an agent is given: nobody gets the identity", d.ParentID)
}

// lookAtHolders reads the pods of all clusters that answer, of which each may hold an
// identity.
func (v *visit) lookAtHolders(ctx context.Context) {
	each(len(v.Clusters), func(i int) {
		c := v.clusters[v.Clusters[i]]
		if !c.answers() {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		c.unseen = c.in.Objects.List(ctx, access.ObjectKey{APIVersion: "v1", Kind: "Pod"}, nil, &c.pods)
		c.pods = slices.DeleteFunc(c.pods, func(p spire.Pod) bool { return p.Metadata.DeletionTimestamp != "" })
	})
}

func (v *visit) registration(ctx context.Context, d *topology.Registration) RegistrationStatus {
	s := RegistrationStatus{
		Name: d.Name, Kind: string(d.Kind), TrustDomain: d.Domain().String(), Cluster: clusterName(d.Member.Place), Host: hostName(d.Member.Place),
		SPIFFEID: d.SPIFFEID(), HeldBy: []string{},
	}
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	server, found := v.servers[d.Server()], v.member(d.Member)
	c := d.Member.Cluster()
	var err error
	switch {
	case server.silent != nil:
		err = fmt.Errorf("the server of %s does not answer", d.Server())
	case c != nil && !v.clusters[c].answers():
		err = fmt.Errorf("cluster %s does not answer", c.Name)
	case c != nil && v.clusters[c].unseen != nil:
		err = v.clusters[c].unseen
	default:
		if d.Kind != topology.PlainEntry {
			err = asDeclared(ctx, v.clusters[c].in.Objects, d)
		}
		if err == nil {
			err = errors.Join(found.unread, found.made(d))
		}
		if err == nil {
			err = found.parented(d)
		}
		s.HeldBy = append(s.HeldBy, v.holders(d)...)
	}
	s.Health = health(err)
	return s
}

// holders names those who are given the identity of a registration: pods, workloads on
// hosts, and for an entry below the server, nodes.
func (v *visit) holders(d *topology.Registration) (all []string) {
	s := d.Server()
	for _, m := range s.Members {
		found := v.member(m)
		if d.Kind != topology.ClusterSPIFFEID && d.ParentID == spire.ServerID(d.TrustDomain) {
			all = append(all, found.nodesOf(d)...)
			continue
		}
		if m.Host() != nil {
			all = append(all, found.onHost(d)...)
			continue
		}
		for _, pod := range v.clusters[m.Cluster()].pods {
			if slices.ContainsFunc(found.given(pod), func(e spire.Entry) bool { return found.comesOf(e, d, pod) }) {
				all = append(all, fmt.Sprintf("pod %s/%s", pod.Metadata.Namespace, pod.Metadata.Name))
			}
		}
	}
	slices.Sort(all)
	return all
}

// comesOf reports whether an entry that a pod gets comes of a registration. An entry of a
// ClusterSPIFFEID does not name it.
func (r registry) comesOf(e spire.Entry, d *topology.Registration, pod spire.Pod) bool {
	if d.Kind != topology.ClusterSPIFFEID {
		is := r.entryOf(d)
		return is != nil && is.ID == e.ID
	}
	return d.Member == r.member && e.Hint == d.Hint && slices.ContainsFunc(r.resources, func(x registrar) bool {
		return x.Kind == clusterSPIFFEID && x.Metadata.Name == d.Name && x.renders(e, pod)
	})
}

// nodesOf names the nodes of a member that an entry below the server stands for.
func (r registry) nodesOf(d *topology.Registration) (all []string) {
	is := r.entryOf(d)
	for _, a := range r.agents {
		here := spire.JoinedOn(a.ID) != "" && r.member.Host() != nil && spire.JoinedOn(a.ID) == r.member.Host().Name ||
			r.member.Host() == nil && spire.AttestedIn(a.ID) == r.member.Cluster().Name
		if is != nil && here && live(a) && is.Matches(a.Selectors) {
			all = append(all, "node in "+r.member.Place.Name())
		}
	}
	return all
}

// onHost names the workloads of a host that get the identity of a registration.
func (r registry) onHost(d *topology.Registration) (all []string) {
	is := r.entryOf(d)
	agents := slices.DeleteFunc(hostAgents(r.agents, r.member.Host()), func(a spire.Agent) bool { return !live(a) })
	given := spire.Authorized(d.TrustDomain, agents, r.entries)
	if is == nil || !slices.ContainsFunc(given, func(e spire.Entry) bool { return e.ID == is.ID }) {
		return nil
	}
	for _, w := range r.member.Workloads {
		if is.Matches(spire.UnixSelectors(w.UID(), spire.HostProgram(w))) {
			all = append(all, "workload "+w.Name)
		}
	}
	return all
}
