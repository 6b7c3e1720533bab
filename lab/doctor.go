package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/doctor"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// diagnosisOf returns the diagnosis for a cause that a check names; empty where the part that
// it was seen at decides.
func diagnosisOf(c Cause) doctor.ID {
	return map[Cause]doctor.ID{
		NoRelationship:      doctor.NoRelationship,
		EndpointUnreachable: doctor.WayBlocked,
		WrongProfile:        doctor.WrongProfile,
		WrongEndpointID:     doctor.WrongEndpointID,
		NotServed:           doctor.NoBundleServed,
		ExpiredCertificate:  doctor.EndpointExpired,
		MisnamedCertificate: doctor.WrongName,
		UnknownRoot:         doctor.LockedOut,
		ACMEUnready:         doctor.ACMEAway,
		ProxyUnready:        doctor.ProxyAway,
		MissingBundle:       doctor.MissingBundle,
		DifferingBundle:     doctor.BundleBehind,
		NoFederatesWith:     doctor.NoFederatesWith,
		OtherIdentity:       doctor.OtherIdentity,
		Unpublished:         doctor.Unpublished,
		ShutOut:             doctor.ShutOut,
		Undelegated:         doctor.Undelegated,
		IssuerUnreachable:   doctor.IssuerUnwell,
		OtherIssuer:         doctor.IssuerUnwell,
		OtherKeys:           doctor.IssuerUnwell,
		Unverified:          doctor.SVIDUnverified,
		ClusterAbsent:       doctor.ClusterAbsent,
		NodeStopped:         doctor.ClusterStopped,
		DatastoreUnready:    doctor.DatastoreAway,
		ReplicaUnready:      doctor.ReplicaAway,
		ManagerUnready:      doctor.ManagerAway,
		WebhookUnreachable:  doctor.WebhookUnverified,
		AgentUnready:        doctor.AgentAway,
		NotAttested:         doctor.AgentUnknown,
		NoEntry:             doctor.NoEntry,
	}[c]
}

// Doctor looks at a lab as Status and Drift do, and has each workload call those that the lab
// file lets it call where calls are asked for. It says which of what it has found is the
// cause. What does not answer is part of the report; an error means that this machine could
// not be asked.
func (d *Driver) Doctor(ctx context.Context, t topology.Topology, calls bool) (doctor.Report, error) {
	began := time.Now()
	v, err := d.visit(ctx, t)
	if err != nil {
		return doctor.Report{}, err
	}
	defer v.close()
	// An agent keeps a JWT-SVID for an audience, also when its key was revoked since.
	e := &examination{visit: v, audience: fmt.Sprintf("fedlab-doctor-%d", began.UnixNano())}
	var status Status
	looks := []func(){func() { e.served = v.askEndpoints(ctx); status, err = v.status(ctx) }}
	if len(v.Registrations) == 0 {
		looks = append(looks, func() { v.lookAtHolders(ctx) })
	}
	if calls {
		looks = append(looks, func() { e.askWorkloads(ctx) })
	}
	each(len(looks), func(i int) { looks[i]() })
	if err != nil {
		return doctor.Report{}, err
	}
	e.ground(status)
	e.servers(status)
	e.trust(status)
	e.workloads(status)
	e.strangers(ctx)
	e.others(status, began)
	return doctor.Conclude(t.Name, doctor.Look{Findings: e.found, Needs: doctor.Needs(v.Graph)}, e.calls, began, time.Since(began)), nil
}

// examination collects what a visit finds.
type examination struct {
	*visit
	// audience is for whom the JWT-SVIDs are that are validated.
	audience string
	served   map[*topology.Server]served
	told     map[*topology.Workload]heldSVIDs
	calls    []doctor.Called
	found    []doctor.Finding
}

func (e *examination) add(id doctor.ID, name, seen string) {
	e.found = append(e.found, doctor.Found(id, name, seen))
}

// unknown notes that something could not be asked.
func (e *examination) unknown(kind doctor.Kind, name string, seen error) {
	e.found = append(e.found, doctor.Finding{ID: doctor.NotKnown, Part: doctor.Part{Kind: kind, Name: name}, Seen: seen.Error()})
}

// blame notes each of the errors that were joined: by its cause, or where that is not known,
// by what the part in general may have.
func (e *examination) blame(err error, name string, otherwise doctor.ID) {
	for _, one := range parts(err) {
		id := cmp.Or(diagnosisOf(causeOf(one)), otherwise)
		if outranked := (*outrankedError)(nil); errors.As(one, &outranked) {
			id = doctor.Outranked
		}
		e.add(id, name, one.Error())
	}
}

// parts returns the errors that were joined, however deep.
func parts(err error) (all []error) {
	if err == nil {
		return nil
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		several, is := e.(interface{ Unwrap() []error })
		if is && e.Error() == errors.Join(several.Unwrap()...).Error() {
			for _, one := range several.Unwrap() {
				all = append(all, parts(one)...)
			}
			return all
		}
		if _, known := e.(*causeError); known { //nolint:errorlint // each layer is looked at by itself
			break
		}
	}
	return []error{err}
}

// ground has the network, clusters and hosts.
func (e *examination) ground(s Status) {
	if !e.networked() {
		e.add(doctor.NetworkGone, s.Lab, "the lab has no network")
	}
	for _, c := range s.Clusters {
		e.blame(c.err, c.Name, doctor.ClusterUnwell)
	}
	for _, h := range s.Hosts {
		e.blame(h.err, h.Name, doctor.HostUnwell)
	}
}

// servers has trust domains: their servers, and what belongs to them.
func (e *examination) servers(s Status) {
	for i, server := range e.Servers() {
		row, a := s.TrustDomains[i], e.visit.servers[server]
		if a.silent != nil {
			e.blame(a.silent, server.String(), doctor.ServerSilent)
			continue
		}
		var ofMembers []error
		for j, m := range server.Members {
			if len(row.Members) > 0 {
				e.blame(row.Members[j].err, doctor.Member(m), doctor.AgentUnknown)
				ofMembers = append(ofMembers, parts(row.Members[j].err)...)
			}
		}
		for _, one := range parts(row.err) {
			if slices.ContainsFunc(ofMembers, func(said error) bool { return errors.Is(one, said) }) {
				continue
			}
			name := server.String()
			id := cmp.Or(diagnosisOf(causeOf(one)), doctor.ServerUnwell)
			if id == doctor.SVIDUnverified {
				id = doctor.WebhookUnverified // no workload is looked at here
			}
			if kind := doctor.EntryOf(id).Kind; kind == doctor.Endpoint || kind == doctor.Proxy || kind == doctor.Issuer {
				name = server.Domain.String()
			}
			e.add(id, name, one.Error())
		}
	}
}

// trust has relationships: the way to each endpoint, and what is held.
func (e *examination) trust(s Status) {
	for i, r := range e.Relationships() {
		row := s.Relationships[i]
		compared, silent := e.compared(r)
		if silent != nil {
			e.unknown(doctor.Bundle, r.ID(), silent)
			continue
		}
		if id := bundleDiagnosis(compared); id != "" {
			e.add(id, r.ID(), compared.String())
		}
		switch cause := causeOf(row.err); cause {
		case Silent, MissingBundle, DifferingBundle, NoFederatesWith: // of the bundle, or of workloads
		case "":
			if row.err != nil {
				e.unknown(doctor.Fetch, r.ID(), row.err)
			}
		case EndpointUnreachable:
			e.unreached(r, row.err)
		case NotServed, ExpiredCertificate:
			e.add(diagnosisOf(cause), r.Trusted.String(), row.Problem)
		case UnknownRoot:
			id := doctor.LockedOut
			if r.Profile == topology.HTTPSWeb {
				id = doctor.WebRootUnknown
			}
			e.add(id, r.ID(), row.Problem)
		default:
			e.add(diagnosisOf(cause), r.ID(), row.Problem)
		}
		if serves, is := e.served[r.Trusted.Server()]; is && serves.err == nil && r.Mode != topology.Manual {
			if c := federation.Compare(serves.bundle, serves.own); c.State != federation.InSync {
				e.add(doctor.OtherBundleServed, r.Trusted.String(), "what it serves is "+c.String())
			}
		}
	}
}

// unreached tells an endpoint that nobody gets through to from one that only the truster does
// not: its own cluster was asked, too.
func (e *examination) unreached(r topology.Relationship, err error) {
	hanging := (*HangingError)(nil)
	switch own := e.served[r.Trusted.Server()]; {
	case errors.As(err, &hanging):
		e.add(doctor.EndpointHangs, r.Trusted.String(), err.Error())
	case own.err != nil && own.chain == nil:
		e.add(doctor.EndpointUnreachable, r.Trusted.String(), own.err.Error())
	default:
		e.add(doctor.WayBlocked, r.ID(), err.Error())
	}
}

// bundleDiagnosis says what is wrong with a held bundle; empty where nothing is.
func bundleDiagnosis(c federation.Comparison) doctor.ID {
	switch c.State {
	case federation.InSync:
		return ""
	case federation.Missing:
		return doctor.MissingBundle
	case federation.Empty:
		return doctor.EmptyBundle
	case federation.Foreign:
		return doctor.AnothersBundle
	}
	if len(c.Lacking) == 0 {
		return doctor.ExtraKey
	}
	return doctor.BundleBehind
}

// workloads has workloads, what they are given, and their calls.
func (e *examination) workloads(s Status) {
	for i, w := range e.Workloads {
		row, is, a := s.Workloads[i], e.visit.workloads[w], e.visit.servers[w.Member.Server]
		if a.silent == nil && is.unseen == nil && (w.Host() != nil || e.clusters[w.Cluster()].answers()) {
			e.blame(e.member(w.Member).registered(*is), w.Name, doctor.NoEntry)
		}
		if causeOf(row.err) == Silent {
			e.unknown(doctor.Workload, w.Name, row.err)
			continue
		}
		e.blame(row.err, w.Name, doctor.WorkloadUnwell)
		if told, asked := e.told[w]; asked {
			e.validate(w, told)
		}
	}
	for _, c := range e.calls {
		name := c.From + "->" + c.To
		if id, wrong := doctor.OfCall(c.Outcome); wrong {
			e.add(id, name, c.Detail)
		}
		if c.Stranger == string(traffic.Answered) {
			e.add(doctor.StrangerLetIn, name, "it answers a caller who has made the SVID itself")
		}
	}
}

// validate has what each server holds verify the SVIDs of a workload.
func (e *examination) validate(w *topology.Workload, told heldSVIDs) {
	holdings := []holding{{holder: w.Member.Server, bundle: e.bundleOf(w.Member.Server)}}
	for _, t := range w.Domain().TrustedBy {
		for _, r := range t.Relationships() {
			if by := e.visit.servers[r.By]; by.silent == nil && by.held[r.Trusted.Name] != nil {
				holdings = append(holdings, holding{holder: r.By, bundle: by.held[r.Trusted.Name]})
			}
		}
	}
	holdings = slices.DeleteFunc(holdings, func(h holding) bool { return h.bundle == nil })
	svids, err := judged(w, told, holdings, e.audience)
	if err != nil {
		e.add(doctor.SVIDRefused, doctor.ValidationBy(w, w.Member.Server), err.Error())
	}
	refused := func(what string, all []Verification) {
		for i, one := range all {
			if one.Problem != "" {
				e.add(doctor.SVIDRefused, doctor.ValidationBy(w, holdings[i].holder), "its "+what+": "+one.Problem)
			}
		}
	}
	for _, x := range svids.X509 {
		refused("X509-SVID", x.Verified)
	}
	for _, j := range svids.JWT {
		refused("JWT-SVID", j.Verified)
	}
}

// others has what does not make a lab unwell, and registrations of the lab file.
func (e *examination) others(s Status, now time.Time) {
	for _, r := range s.Registrations {
		e.blame(r.err, r.Name, doctor.RegistrationUnwell)
	}
	for _, r := range s.Resources {
		e.add(doctor.ResourceIdle, r.Cluster+"/"+r.Kind+" "+r.Name, r.Problem)
	}
	for _, h := range e.unasked(now) {
		e.add(doctor.UnaskedBundle, h.Holder()+"->"+h.Trusted, h.Problem)
	}
	for _, server := range e.Servers() {
		for _, m := range server.InClusters() {
			if e.visit.servers[server].silent == nil && e.clusters[m.Cluster()].answers() {
				e.pods(m)
			}
		}
	}
}

// strangers has relationships of servers that the lab file does not ask for: one that
// hangs keeps the server from others.
func (e *examination) strangers(ctx context.Context) {
	for _, server := range e.Servers() {
		a := e.visit.servers[server]
		for _, is := range a.relationships {
			if a.silent != nil || trusts(server.Domain, is.Trusted) {
				continue
			}
			bounded, cancel := context.WithTimeout(ctx, statusBound)
			err := e.outlook(server).accepts(bounded, is)
			cancel()
			name := server.String() + "->" + is.Trusted.Name()
			switch hanging := (*HangingError)(nil); {
			case errors.As(err, &hanging):
				e.add(doctor.EndpointHangs, is.Trusted.Name(), err.Error())
			case err != nil:
				e.blame(err, name, doctor.WayBlocked)
			}
		}
	}
}

// pods has those with the socket of a member's agents that are no workload of the lab, and
// that no entry fits, or one that is for another.
func (e *examination) pods(m *topology.Member) {
	known := map[string]bool{}
	for _, w := range m.Workloads {
		for _, pod := range e.visit.workloads[w].pods {
			known[pod.Metadata.UID] = true
		}
	}
	for _, pod := range e.clusters[m.Cluster()].pods {
		name := m.Cluster().Name + "/" + pod.Metadata.Namespace + "/" + pod.Metadata.Name
		agent := pod.Metadata.Namespace == m.Place.Namespace && pod.Metadata.Labels[spire.ProgramLabel] == spire.AgentDaemonSet
		if known[pod.Metadata.UID] || agent || !pod.Mounts(spire.SocketDir(m)) {
			continue
		}
		given := e.member(m).given(pod)
		if len(given) == 0 {
			id, seen := e.member(m).ungiven(pod)
			e.add(id, name, seen)
		}
		for _, w := range m.Workloads {
			if slices.ContainsFunc(given, func(entry spire.Entry) bool { return entry.SPIFFEID == w.ID }) {
				e.add(doctor.SelectorsTooBroad, name, fmt.Sprintf("it gets %s, which is the identity of workload %s", w.ID, w.Name))
			}
		}
	}
}

// ungiven says why no entry is given to a pod.
func (r registry) ungiven(pod spire.Pod) (doctor.ID, string) {
	selectors := pod.Selectors()
	near := ""
	for _, entry := range r.entries {
		lacks := slices.DeleteFunc(slices.Clone(entry.Selectors), func(s string) bool { return slices.Contains(selectors, s) })
		switch {
		case len(lacks) == 0 && !strings.HasPrefix(entry.SPIFFEID.Path(), "/spire/"):
			return doctor.WrongParent, fmt.Sprintf("the entry of %s selects it, and its parent %s is none of the agents there", entry.SPIFFEID, entry.ParentID)
		case len(lacks) == 1 && len(entry.Selectors) > 1:
			near = fmt.Sprintf("; the entry of %s also wants %s", entry.SPIFFEID, lacks[0])
		}
	}
	return doctor.PodWithout, "no entry fits it" + near
}

// askWorkloads has each program of fedlab say what it has, and call those that it may call.
func (e *examination) askWorkloads(ctx context.Context) {
	var asked []*topology.Workload
	for _, w := range e.Workloads {
		if c := e.clusters[w.Cluster()]; tells(w) == nil && (w.Host() != nil || c.answers()) {
			asked = append(asked, w)
		}
	}
	told, errs := make([]heldSVIDs, len(asked)), make([]error, len(asked))
	each(len(asked), func(i int) {
		flags := []string{"-audience=" + e.audience}
		for _, to := range callable(asked[i]) {
			flags = append(flags, "-call="+to.ID.String()+"@"+to.Port().String())
		}
		told[i], errs[i] = e.svidsOf(ctx, func(c *topology.Cluster) access.Cluster { return e.clusters[c].in }, asked[i], flags...)
	})
	e.told = map[*topology.Workload]heldSVIDs{}
	for i, w := range asked {
		if errs[i] != nil {
			e.unknown(doctor.Workload, w.Name, errs[i])
			continue
		}
		e.told[w] = told[i]
		for j, to := range callable(w) {
			if j < len(told[i].Calls) {
				c := told[i].Calls[j]
				e.calls = append(e.calls, doctor.Called{From: w.Name, To: to.Name, Outcome: c.Outcome, Server: c.Peer, Detail: c.Detail, Stranger: c.Stranger})
			}
		}
	}
}

// callable returns the workloads that one may call, and that answer calls by mutual TLS.
func callable(w *topology.Workload) (all []*topology.Workload) {
	for _, to := range w.Calls {
		if to.App.Port > 0 && to.App.Tells == "" {
			all = append(all, to)
		}
	}
	return all
}
