package doctor

import "slices"

// Kinds of parts.
const (
	Network      Kind = "network"
	Cluster      Kind = "cluster"
	Host         Kind = "host"
	Datastore    Kind = "datastore"
	Server       Kind = "server"
	Manager      Kind = "controller manager"
	Published    Kind = "published bundle"
	Agents       Kind = "agents"
	Proxy        Kind = "proxy"
	Endpoint     Kind = "bundle endpoint"
	Issuer       Kind = "issuer"
	Relationship Kind = "relationship"
	Fetch        Kind = "fetch"
	Bundle       Kind = "held bundle"
	Lockout      Kind = "next fetch" // one that a held bundle has to authenticate
	Registered   Kind = "identity"
	SVID         Kind = "SVID"
	Workload     Kind = "workload"
	Validation   Kind = "validation"
	Call         Kind = "call"
	Registration Kind = "registration"
	Resource     Kind = "resource"
	Pod          Kind = "pod"
)

// The diagnoses.
const (
	StrangerLetIn       ID = "stranger-let-in"
	SelectorsTooBroad   ID = "selectors-too-broad"
	ExtraKey            ID = "bundle-extra-key"
	AnothersBundle      ID = "bundle-of-another"
	EmptyBundle         ID = "bundle-empty"
	NetworkGone         ID = "network-gone"
	ClusterAbsent       ID = "cluster-absent"
	ClusterStopped      ID = "cluster-stopped"
	ClusterUnwell       ID = "cluster-unwell"
	HostUnwell          ID = "host-unwell"
	DatastoreAway       ID = "datastore-away"
	ServerSilent        ID = "server-silent"
	ServerUnwell        ID = "server-unwell"
	ReplicaAway         ID = "replica-away"
	ManagerAway         ID = "controller-manager-away"
	WebhookUnverified   ID = "webhook-unverified"
	Undelegated         ID = "no-downstream-entry"
	Unpublished         ID = "bundle-unpublished"
	ShutOut             ID = "server-shut-out"
	AgentAway           ID = "agent-away"
	AgentUnknown        ID = "agent-unknown"
	ProxyAway           ID = "proxy-away"
	ACMEAway            ID = "acme-away"
	EndpointHangs       ID = "endpoint-hangs"
	EndpointUnreachable ID = "endpoint-unreachable"
	NoBundleServed      ID = "no-bundle-served"
	OtherBundleServed   ID = "other-bundle-served"
	EndpointExpired     ID = "endpoint-certificate-expired"
	IssuerUnwell        ID = "issuer-unwell"
	NoRelationship      ID = "no-relationship"
	WrongProfile        ID = "wrong-profile"
	WrongEndpointID     ID = "wrong-endpoint-id"
	WrongName           ID = "wrong-endpoint-name"
	WebRootUnknown      ID = "web-root-unknown"
	WayBlocked          ID = "way-blocked"
	MissingBundle       ID = "bundle-missing"
	BundleBehind        ID = "bundle-behind"
	LockedOut           ID = "endpoint-not-verified"
	Outranked           ID = "entry-outranked"
	NoEntry             ID = "no-entry"
	NoFederatesWith     ID = "no-federates-with"
	SVIDUnverified      ID = "svid-unverified"
	OtherIdentity       ID = "other-identity"
	WorkloadUnwell      ID = "workload-unwell"
	RegistrationUnwell  ID = "registration-unwell"
	SVIDRefused         ID = "svid-refused"
	CallNoIdentity      ID = "call-no-identity"
	CallExpired         ID = "call-expired"
	CallNotFederated    ID = "call-not-federated"
	CallUnknown         ID = "call-unknown-authority"
	CallIdentityRefused ID = "call-identity-refused"
	CallRefused         ID = "call-refused-by-server"
	CallNotPermitted    ID = "call-not-permitted"
	CallUnreachable     ID = "call-unreachable"
	CallNoAnswer        ID = "call-no-answer"
	CallServerFailed    ID = "call-server-failed"
	NotKnown            ID = "not-known"
	WrongParent         ID = "entry-wrong-parent"
	PodWithout          ID = "pod-without-identity"
	ResourceIdle        ID = "resource-without-effect"
	UnaskedBundle       ID = "bundle-unasked"
)

// Entry is what there is to know of a diagnosis.
type Entry struct {
	ID ID
	// Kind is that of the part that it is about; empty where that differs.
	Kind Kind
	// Cause is what it means, and Cure what to do.
	Cause, Cure string
	// Alone is set for what follows from nothing else, even if what it needs is unwell.
	Alone bool
	// Note is set for what does not make a lab unwell.
	Note bool
}

// Catalogue returns all diagnoses, in the order in which to look at what was found: first
// who is let in that must not be, then from the ground up.
func Catalogue() []Entry {
	const call = "The rows on both workloads and on both held bundles say more where they are not well; 'fedlab logs TRUSTDOMAIN agent' has the log of the agent."
	return []Entry{
		{ID: StrangerLetIn, Kind: Call, Alone: true, Cause: "The server answers a caller whose X509-SVID no authority has signed that it trusts.", Cure: "Take the server out of use. It verifies no caller: look at how its TLS configuration is made."},
		{ID: SelectorsTooBroad, Kind: Pod, Alone: true, Cause: "A pod that is no workload of the lab gets the SPIFFE ID of one: the selectors of an entry say too little.", Cure: "Add selectors to the entry, or a podSelector to the resource that it comes of: namespace and service account tell workloads apart."},
		{ID: ExtraKey, Kind: Bundle, Alone: true, Cause: "The truster trusts a key that the trusted domain does not have. Somebody has set it, or the trusted domain has dropped it since.", Cure: "'fedlab drift --repair' sets the right bundle. If the key comes back, look at what the bundle endpoint serves."},
		{ID: AnothersBundle, Kind: Bundle, Alone: true, Cause: "No key that is held is of the trusted domain. The bundle of another one was set in its place, or the trusted domain was made again.", Cure: "'fedlab drift --repair' sets the right bundle."},
		{ID: EmptyBundle, Kind: Bundle, Alone: true, Cause: "The held bundle has no key. It verifies nobody, and with https_spiffe not the endpoint either, so that no fetch fills it.", Cure: "'fedlab drift --repair' sets the right bundle."},

		{ID: NetworkGone, Kind: Network, Cause: "The network of the lab is not there.", Cure: "'fedlab up' makes it again and starts the nodes."},
		{ID: ClusterAbsent, Kind: Cluster, Cause: "The cluster was never made, or was removed.", Cure: "'fedlab up' makes it."},
		{ID: ClusterStopped, Kind: Cluster, Cause: "The node of the cluster is stopped: Docker or the machine was restarted, or somebody stopped the container.", Cure: "'fedlab up' starts it. Its volumes are there still."},
		{ID: ClusterUnwell, Kind: Cluster, Cause: "The node runs, and its cluster does not answer or is not as the lab file asks.", Cure: "Look at the log of the kubelet on the node; 'fedlab up' repairs what it can, and says what it cannot."},
		{ID: HostUnwell, Kind: Host, Cause: "A program of the host does not run.", Cure: "'fedlab up' starts it."},
		{ID: DatastoreAway, Kind: Datastore, Cause: "The PostgreSQL of the SPIRE server does not run. The server takes no entries and serves no bundle meanwhile.", Cure: "'fedlab up' starts it; if it does not come, look at its pod."},
		{ID: ServerSilent, Kind: Server, Cause: "The SPIRE server does not run or does not answer. Workloads keep the identity that they have; new ones wait, and so do peers.", Cure: "'fedlab logs TRUSTDOMAIN server' says why; 'fedlab up' starts one that was scaled to none."},
		{ID: ReplicaAway, Kind: Server, Cause: "Not all pods of the SPIRE server are ready; another one answers.", Cure: "'fedlab up' brings it back; if it does not, look at the pod of the server."},
		{ID: ManagerAway, Kind: Manager, Cause: "The SPIRE server answers, and its pod is not ready: most often the controller manager in it does not run, so that no new entry and no new relationship is made. For a minute after its datastore was away, the server itself may count as not ready.", Cure: "Delete the pod of the server: both start again. 'fedlab logs TRUSTDOMAIN server --container spire-controller-manager' says why it stopped."},
		{ID: WebhookUnverified, Kind: Manager, Cause: "Kubernetes cannot call the controller manager: its webhook has a certificate of an authority that was revoked, or does not answer.", Cure: "'fedlab up' replaces the certificate, and so does a restart of the pod of the server."},
		{ID: Undelegated, Kind: Server, Cause: "Nobody signs the authorities of the nested server.", Cure: "'fedlab up' makes the downstream entry again."},
		{ID: ServerUnwell, Kind: Server, Cause: "The SPIRE server answers, and not all of what belongs to it is well.", Cure: "Read what was seen; 'fedlab up' repairs what it can."},
		{ID: ShutOut, Kind: Agents, Cause: "The SPIRE server does not get into a cluster of its trust domain, and so lets no agent of it in.", Cure: "'fedlab up' restores the kubeconfig and the token."},
		{ID: Unpublished, Kind: Published, Cause: "Agents that start do not find the bundle of their server. Those that run do not notice.", Cure: "'fedlab up' restores the ConfigMap spire-bundle."},
		{ID: AgentAway, Kind: Agents, Cause: "The SPIRE agent does not run. Workloads keep the identity that they have until it ends, and new ones wait.", Cure: "'fedlab logs TRUSTDOMAIN agent' says why; 'fedlab up' starts one that was removed."},
		{ID: AgentUnknown, Kind: Agents, Cause: "The SPIRE agent runs, and its server does not know it: it has not attested, or was removed.", Cure: "'fedlab logs TRUSTDOMAIN agent' says why; 'fedlab up' has it attest again."},
		{ID: ACMEAway, Kind: Endpoint, Cause: "The ACME server of the lab does not run: the endpoint gets no new certificate.", Cure: "'fedlab up' installs it."},
		{ID: ProxyAway, Kind: Proxy, Cause: "The proxy in front of the bundle endpoint does not run.", Cure: "'fedlab up' installs it."},
		{ID: EndpointHangs, Kind: Endpoint, Cause: "The bundle endpoint takes requests and does not answer. SPIRE waits for ever, and no metric changes.", Cure: "Repair the endpoint, and then end the connections: delete the pods of its server and of the servers that wait."},
		{ID: EndpointUnreachable, Kind: Endpoint, Cause: "Nobody gets through to the bundle endpoint, not even its own cluster.", Cure: "Look at the Service spire-server-bundle-endpoint of the trusted domain, and whether the pod of its server is ready; 'fedlab up' puts the Service back."},
		{ID: NoBundleServed, Kind: Endpoint, Cause: "The bundle endpoint answers, and not with a bundle.", Cure: "Look at the path in the URL of the relationship, and at what is in front of the endpoint; 'fedlab up' restores the URL."},
		{ID: OtherBundleServed, Kind: Endpoint, Cause: "The bundle endpoint serves another bundle than its server has: something in between keeps an old one, or lies.", Cure: "Repair what is in front of the endpoint first; 'fedlab drift --repair' helps until the next fetch alone."},
		{ID: EndpointExpired, Kind: Endpoint, Cause: "The certificate that the bundle endpoint shows has expired, or is not valid yet.", Cure: "With https_web look at what renews it ('fedlab logs TRUSTDOMAIN server --container serving-cert'), with https_spiffe at the log of the server; then at the clocks of both sides."},
		{ID: IssuerUnwell, Kind: Issuer, Cause: "The OIDC discovery provider does not answer, or not with the documents of this issuer and its keys.", Cure: "'fedlab up' repairs it."},
		{ID: NoRelationship, Kind: Relationship, Cause: "The server of the truster has no relationship: nothing refreshes the bundle.", Cure: "'fedlab up' makes it again. One that was made with SPIRE's command line goes when the controller manager looks."},
		{ID: WrongProfile, Kind: Relationship, Cause: "The relationship has one profile, and the endpoint shows a certificate of the other one, or something in between ends TLS.", Cure: "'fedlab up' writes the relationship again; with https_spiffe a proxy has to pass TLS through."},
		{ID: WrongEndpointID, Kind: Relationship, Cause: "The relationship wants another endpointSPIFFEID than the endpoint shows.", Cure: "'fedlab up' writes it again. It is the SPIFFE ID of the server: spiffe://TRUSTDOMAIN/spire/server."},
		{ID: WrongName, Kind: Relationship, Cause: "The certificate of the endpoint is for another name or address than the URL of the relationship.", Cure: "'fedlab up' restores the URL; a certificate of your own has to name the host in it."},
		{ID: WebRootUnknown, Kind: Fetch, Cause: "The truster's server has no root for the web certificate of the endpoint.", Cure: "'fedlab up' gives it the root. SPIRE takes web roots from the system alone."},
		{ID: WayBlocked, Kind: Fetch, Cause: "The bundle endpoint answers in its own cluster, and the truster does not get through: the network between the two, a firewall, a name or the URL.", Cure: "Look at the URL of the relationship, which 'fedlab up' restores, and at what was put between the clusters. After a partition it may take half a minute and a poll."},
		{ID: MissingBundle, Kind: Bundle, Cause: "The truster holds no bundle. An entry that federates with that trust domain is refused, and its workload has no identity at all.", Cure: "'fedlab up' hands it over, and so does 'fedlab drift --repair'."},
		{ID: BundleBehind, Kind: Bundle, Cause: "The trusted domain has a key that the truster does not have yet.", Cure: "Wait for one poll. If it stays, 'fedlab drift --repair' sets the present bundle."},
		{ID: LockedOut, Kind: Lockout, Cause: "With https_spiffe the held bundle has to verify the endpoint, and it does not: no fetch can repair it.", Cure: "'fedlab drift --repair' hands the present bundle over. If what is held is in sync, somebody else answers at that address."},
		{ID: Outranked, Kind: Registered, Cause: "An older resource of somebody else asks for the same entry, and the controller manager follows that one.", Cure: "Delete the resource that is named, then 'fedlab up'."},
		{ID: NoEntry, Kind: Registered, Cause: "No entry gives the workload its SPIFFE ID: it was removed, does not fit its selectors, or was refused.", Cure: "'fedlab up' makes it again. Compare its selectors and its parent with the pod if it stays."},
		{ID: NoFederatesWith, Kind: Registered, Cause: "The server holds the bundle, and the entry of the workload does not name the trust domain: the workload does not get it.", Cure: "'fedlab up' puts federatesWith back."},
		{ID: SVIDUnverified, Kind: SVID, Cause: "The workload presents an X509-SVID that the bundle of its own trust domain does not verify: its authority was revoked before agents heard that it was tainted.", Cure: "'fedlab up' starts the agents again; then they hand out new ones."},
		{ID: OtherIdentity, Kind: SVID, Cause: "The workload has several identities and presents another one than its own.", Cure: "Delete the resource that is named, or give it a podSelector."},
		{ID: WorkloadUnwell, Kind: Workload, Cause: "The program of the workload does not run, is not ready, or does not answer.", Cure: "Look at its pod and its log; 'fedlab up' installs it again."},
		{ID: RegistrationUnwell, Kind: Registration, Cause: "A registration of the lab file is not as the file has it, or nobody gets the identity.", Cure: "Read what was seen; 'fedlab up' makes it again, unless one of somebody else is in its place."},
		{ID: SVIDRefused, Kind: Validation, Cause: "A server of another trust domain, or the workload's own, holds a bundle that does not verify an SVID that the workload has.", Cure: "Look at the held bundle: 'fedlab drift'. 'fedlab svid WORKLOAD --audience NAME' shows the SVIDs."},
		{ID: CallNoIdentity, Kind: Call, Cause: "The caller gets no SVID from its Workload API: no entry fits it, or the agent does not answer.", Cure: "Look at its entry, its agent, and the volume with the socket in its pod."},
		{ID: CallExpired, Kind: Call, Cause: "An SVID is not valid now: it has expired, or the clocks differ.", Cure: "Look at the agents, which renew SVIDs, and at the clocks of both sides."},
		{ID: CallNotFederated, Kind: Call, Cause: "The caller was given no bundle of the server's trust domain.", Cure: "Look at federatesWith in its entry, then at the held bundle."},
		{ID: CallUnknown, Kind: Call, Cause: "The bundle that the caller was given does not have the authority that has signed for the server.", Cure: call},
		{ID: CallIdentityRefused, Kind: Call, Cause: "Somebody else answers: the X509-SVID is valid, and it is not that of the server.", Cure: "Look at what else has that address, and at the identities of the server."},
		{ID: CallRefused, Kind: Call, Cause: "The server does not verify the caller's X509-SVID.", Cure: "Look at the other direction: the bundle that the server's trust domain holds, and federatesWith in the server's entry."},
		{ID: CallNotPermitted, Kind: Call, Cause: "The server knows the caller and does not let it call.", Cure: "Look at the list of those whom the server lets call."},
		{ID: CallUnreachable, Kind: Call, Cause: "The caller gets no connection to the address of the server.", Cure: "Look at the Service of the server, and at the network between the clusters."},
		{ID: CallNoAnswer, Kind: Call, Cause: "The server took the connection and did not answer in time.", Cure: "Look at the log of the server."},
		{ID: CallServerFailed, Kind: Call, Cause: "The call ended with an error that is none of the others.", Cure: "Look at the log of the server."},
		{ID: NotKnown, Cause: "It could not be asked.", Cure: "Repair what is named before; then ask again."},

		{ID: WrongParent, Kind: Pod, Note: true, Cause: "An entry selects the pod, and its parent is no agent that has attested on its node: nobody hands the identity out.", Cure: "Give the entry the SPIFFE ID of the agent, or that of a node alias, for a parent."},
		{ID: ResourceIdle, Kind: Resource, Note: true, Cause: "A resource of somebody else has no effect, or another one than the lab asks for.", Cure: "Read what was seen, and correct or delete the resource. 'fedlab up' leaves it alone."},
		{ID: PodWithout, Kind: Pod, Note: true, Cause: "The pod has the socket of the Workload API, and no entry fits it: it gets no identity.", Cure: "Compare its namespace, service account and labels with the selectors of the entry; a ClusterSPIFFEID whose bundles are missing makes none."},
		{ID: UnaskedBundle, Kind: Bundle, Note: true, Cause: "The server holds and trusts the bundle of a trust domain that no relationship of the lab asks for.", Cure: "'fedlab up' deletes it, unless others have made a relationship for it."},
	}
}

// EntryOf returns the entry of a diagnosis; the zero value for an ID that is none.
func EntryOf(id ID) Entry {
	all := Catalogue()
	if i := slices.IndexFunc(all, func(e Entry) bool { return e.ID == id }); i >= 0 {
		return all[i]
	}
	return Entry{}
}

// IDs returns those of all diagnoses, in the order of the catalogue.
func IDs() (all []ID) {
	for _, e := range Catalogue() {
		all = append(all, e.ID)
	}
	return all
}

// OfCall returns the diagnosis of a call with an outcome of package traffic; it is not there
// for one that was answered.
func OfCall(outcome string) (ID, bool) {
	id := ID("call-" + outcome)
	return id, EntryOf(id).ID == id
}
