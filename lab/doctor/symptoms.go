package doctor

// Symptom is what a person sees, and what may be behind it.
type Symptom struct {
	// Says is a message, in which "…" stands for what differs, or the trouble in a few words.
	Says string
	// Check is what doctor looks at.
	Check string
	// IDs are the diagnoses that show so.
	IDs []ID
}

// Symptoms returns those that widely read documents list, and the messages of SPIRE and of
// TLS that people paste.
func Symptoms() []Symptom {
	identity := []ID{NoEntry, Outranked, PodWithout, WrongParent, MissingBundle, AgentAway, AgentUnknown, Unpublished, ServerSilent, ManagerAway, CallNoIdentity}
	handshake := []ID{CallUnknown, CallRefused, CallNotFederated, CallExpired, CallIdentityRefused, SVIDUnverified, SVIDRefused}
	bundles := []ID{BundleBehind, MissingBundle, EmptyBundle, ExtraKey, AnothersBundle, NoRelationship, EndpointHangs, EndpointUnreachable, WayBlocked, LockedOut, WebRootUnknown, OtherBundleServed}
	agents := []ID{AgentUnknown, AgentAway, ShutOut, Unpublished, ServerSilent, ClusterStopped}
	return []Symptom{
		{"workload does not get an SVID", "entries, selectors, parents and agents of each workload, and pods that no entry fits", identity},
		{"no identity issued", "the same", identity},
		{"attestation error in the log of an agent", "agents that run, and those that their server knows", agents},
		{"join token does not exist or has already been used", "the same", agents},
		{"agent does not start", "the pods of agents, and the bundle that they start with", agents},
		{"selectors are too broad", "identities that a workload has besides its own, and the resource that gives them", []ID{SelectorsTooBroad, OtherIdentity, ResourceIdle}},
		{"selectors are too specific", "entries whose selectors a workload or a pod does not have", []ID{NoEntry, PodWithout}},
		{"parentID mismatch", "entries whose parent is no agent that has attested", []ID{WrongParent, NoEntry, RegistrationUnwell}},
		{"workload API socket is not mounted", "a call as the workload, from its own container", []ID{CallNoIdentity, WorkloadUnwell}},
		{"mTLS handshake failure", "a call for each pair of workloads, with its outcome", handshake},
		{"remote error: tls: bad certificate", "the same, as the server sees it", []ID{CallRefused, AgentUnknown, SVIDUnverified}},
		{"x509: certificate signed by unknown authority", "held bundles, what endpoints and webhooks show, and a call for each pair", []ID{CallUnknown, LockedOut, WebRootUnknown, SVIDUnverified, SVIDRefused, WebhookUnverified}},
		{"application does not present its SVID", "the X509-SVID that each port shows, and a call", []ID{OtherIdentity, WorkloadUnwell, CallNoIdentity, CallRefused, CallIdentityRefused}},
		{"unexpected peer SPIFFE ID", "the SPIFFE ID that answers a call", []ID{CallIdentityRefused, OtherIdentity}},
		{"trust bundles do not propagate or are out of sync", "each held bundle next to that of its owner, and the way to it", bundles},
		{"local copy of bundle not found", "the same", []ID{MissingBundle}},
		{"unable to find federated bundle", "bundles that entries name", []ID{MissingBundle, NoEntry}},
		{"caller holds no bundle of the trust domain", "federatesWith of each entry, and the held bundle", []ID{NoFederatesWith, CallNotFederated, MissingBundle}},
		{"firewall blocks the port", "the way from each truster's node to each endpoint, and a call", []ID{WayBlocked, CallUnreachable, CallNoAnswer, EndpointUnreachable}},
		{"connection refused", "the same, and whether clusters and servers run", []ID{ClusterStopped, ServerSilent, EndpointUnreachable, WayBlocked, WorkloadUnwell, CallUnreachable}},
		{"no such host", "the host in each endpoint's URL, as the truster looks it up", []ID{WayBlocked, WrongName}},
		{"certificate has expired or is not yet valid", "the certificate of each endpoint and webhook, and a call", []ID{CallExpired, EndpointExpired, AgentAway, ServerSilent}},
		{"clocks are not synchronized", "the same: a certificate that is not valid yet", []ID{CallExpired, EndpointExpired}},
		{"permission denied by the server", "a call that is answered with 401 or 403", []ID{CallNotPermitted}},
		{"ClusterFederatedTrustDomain has no status", "relationships that servers have, and resources that come to nothing", append([]ID{ResourceIdle}, bundles...)},
		{"SPIRE server is not Ready", "pods of servers, datastores and controller managers", []ID{ServerSilent, DatastoreAway, ManagerAway, ReplicaAway, ClusterStopped, Undelegated}},
		{"federation endpoint gives no JSON", "each endpoint, from its own cluster and from each truster's", []ID{NoBundleServed, OtherBundleServed, EndpointUnreachable, EndpointHangs, ProxyAway, WayBlocked, ServerSilent}},
		{"maybe use https_spiffe instead of https_web", "the profile of each relationship next to what the endpoint shows", []ID{WrongProfile}},
		{"endpointSPIFFEID is wrong", "the SPIFFE ID that each endpoint shows", []ID{WrongEndpointID}},
		{"certificate is valid for …, not …", "the name in each endpoint's certificate", []ID{WrongName, IssuerUnwell}},
		{"certificate is not issued by ACME", "the ACME server, and the certificate of the endpoint", []ID{ACMEAway, EndpointExpired}},
		{"route to the federation endpoint does not work", "the proxy in front of each endpoint", []ID{ProxyAway, WrongProfile, WrongName, NoBundleServed}},
		{"failed calling webhook", "the certificate of each controller manager's webhook", []ID{WebhookUnverified, ManagerAway}},
	}
}

// Step is a step of the list of troubleshooting commands that many documents have.
type Step struct {
	// Command is the one in the list.
	Command string
	// Check is what doctor does in its place.
	Check string
	IDs   []ID
}

// Steps returns the nine steps.
func Steps() []Step {
	return []Step{
		{"spire-server federation list", "each relationship of the lab file is one that the server has", []ID{NoRelationship, WrongProfile, WrongEndpointID}},
		{"curl of the bundle endpoint, in the server", "each endpoint is asked from the node of each truster's server, with what that server trusts", []ID{EndpointUnreachable, EndpointHangs, WayBlocked, NoBundleServed}},
		{"spire-server bundle show", "each held bundle is compared with its owner's, authority by authority", []ID{MissingBundle, BundleBehind, ExtraKey, AnothersBundle, EmptyBundle, OtherBundleServed, UnaskedBundle}},
		{"validate-jwt-svid", "a JWT-SVID and the X509-SVID of each workload are validated by what each truster's server holds", []ID{SVIDRefused, SVIDUnverified}},
		{"kubectl logs | grep federation", "the log is quoted below a diagnosis, and decides nothing", nil},
		{"curl from a pod of another cluster", "a call from the container of each workload to each one that it calls", []ID{CallUnreachable, CallNoAnswer, WayBlocked}},
		{"nslookup", "the host in each endpoint's URL is looked up as the truster's cluster does", []ID{WayBlocked, WrongName}},
		{"openssl s_client to the bundle endpoint", "the chain that each endpoint shows is verified as the truster's server does", []ID{LockedOut, WebRootUnknown, EndpointExpired, WrongName, WrongProfile}},
		{"openssl s_client to a workload", "the SPIFFE ID that answers that call, whether the server takes that of the caller, and a caller that must be refused", []ID{CallIdentityRefused, CallRefused, CallUnknown, StrangerLetIn, OtherIdentity}},
	}
}
