package config

import (
	"time"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Defaults of single fields; complete puts them in.
const (
	defaultProfile = string(topology.HTTPSSPIFFE)
	defaultPort    = 8443
	// SPIRE's own default is 5m: a peer polls every 75 s then. With 1m, the least
	// that SPIRE heeds, it polls every 15 s, and a class sees a new root arrive.
	defaultRefreshHint  = Duration(time.Minute)
	defaultCATTL        = Duration(24 * time.Hour)
	defaultCountry      = "US"
	defaultOrganization = "SPIFFE"
	defaultX509TTL      = Duration(time.Hour)
	defaultJWTTTL       = Duration(5 * time.Minute)
	defaultLogLevel     = "info"
)

const (
	// SPIRE activates a prepared authority when a sixth of the active one's life
	// remains, but no more than seven days (pkg/server/ca/manager). An SVID that
	// lives longer than that is cut short at each rotation.
	svidsPerCA = 6
	maxSVIDTTL = Duration(7 * 24 * time.Hour)
	// An agent renews at half of an SVID's life and looks every 5 s, against a
	// server cache of 5 s: half of 20 s leaves it one look.
	minSVIDTTL = Duration(20 * time.Second)
	// Room for the shortest SVID. A third of it, the time between prepare and
	// activate, is 40 s: longer than the 35 s that a new root takes to the
	// workloads of a peer at the shortest poll (15 s, the rotator's tick of 10 s,
	// agent and cache 5 s each).
	minCATTL = svidsPerCA * minSVIDTTL
	maxCATTL = Duration(365 * 24 * time.Hour)

	// serverPort is where every SPIRE server's own API listens.
	serverPort = 8081
	// maxTrusted is how many relationships one trust domain may have as truster
	// (mission C11).
	maxTrusted = 50
)

// kind calls the node container of a cluster <lab>-<cluster>-control-plane, and
// that becomes a host name, which has at most 63 characters.
const (
	nodeSuffix  = "-control-plane"
	maxNodeName = 63
	maxName     = maxNodeName - len(nodeSuffix) - len("x-")
	// A Helm release, which a workload's name becomes, has at most 53.
	maxWorkloadName = 53
)

const noHTTPSWeb = "write https_spiffe, or leave the field out"

// labObject is the table of all fields.
func labObject() *object {
	return &object{says: "The whole file.", fields: []field{
		{name: "apiVersion", value: oneOf("API version", nil, APIVersion), required: true, says: "The version of this format."},
		{name: "kind", value: oneOf("kind", nil, Kind), required: true, says: "What the file describes."},
		{name: "metadata", value: nested(metadataObject()), required: true, says: "What the lab is called."},
		{name: "spec", value: nested(specObject()), required: true, says: "What the lab is made of."},
	}}
}

func metadataObject() *object {
	return &object{says: "What the lab is called.", fields: []field{
		{name: "name", value: label(maxName, "quotes"), required: true,
			says: "Tells labs on one machine apart. It starts the name of each container, network and kubeconfig context of the lab."},
	}}
}

func specObject() *object {
	return &object{says: "What the lab is made of.", fields: []field{
		{name: "clusters", value: list(nested(clusterObject()), 1, topology.MaxClusters), required: true,
			says: "The Kubernetes clusters, each a kind cluster."},
		{name: "trustDomains", value: list(nested(trustDomainObject()), 0, topology.MaxClusters),
			derived: "one for each cluster", says: "Settings of the trust domains that the clusters name."},
		{name: "federation", value: list(nested(federationObject()), 0, topology.MaxClusters*maxTrusted), says: "Who trusts whom."},
		{name: "workloads", value: list(nested(workloadObject()), 0, topology.MaxClusters*len(topology.Apps())), says: "The demo programs and where they run."},
	}}
}

func clusterObject() *object {
	return &object{says: "One Kubernetes cluster.", fields: []field{
		{name: "name", value: label(maxName, "market"), required: true, says: "A place or a role, unique in the lab."},
		{name: "trustDomain", value: trustDomain(), required: true,
			says: "The trust domain that its workloads belong to; its SPIRE server runs in this cluster."},
	}}
}

func trustDomainObject() *object {
	return &object{says: "Settings of one trust domain, that is, of its SPIRE server.", fields: []field{
		{name: "name", value: trustDomain(), required: true, says: "A trust domain that a cluster names."},
		{name: "bundleEndpoint", value: nested(bundleEndpointObject()), derived: "its fields' defaults", says: "Where its bundle is published."},
		{name: "ca", value: nested(caObject()), derived: "its fields' defaults", says: "Its X.509 authorities."},
		{name: "svid", value: nested(svidObject()), derived: "its fields' defaults", says: "The identities that it issues."},
		{name: "jwtIssuer", value: matching("secure URL", `^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$`, 255,
			"https, without query and fragment, at most 255 characters", "https://oidc.cluster1.com"),
			says: "The `iss` claim of JWT-SVIDs; they have none without it."},
		{name: "logLevel", value: oneOf("log level", nil, "debug", "info", "warn", "error"), fallback: defaultLogLevel,
			says: "How much the SPIRE server and agent log."},
	}}
}

func profile() value {
	return oneOf("endpoint profile", map[string]string{"https_web": noHTTPSWeb}, defaultProfile)
}

func bundleEndpointObject() *object {
	return &object{
		says: "Where and how a trust domain publishes its bundle.",
		fields: []field{
			{name: "profile", value: profile(), fallback: defaultProfile, says: "How the endpoint proves who it is: with an X509-SVID of its trust domain."},
			{name: "port", value: number(1, 65535), fallback: defaultPort, says: "The port of the endpoint on the SPIRE server's address."},
			{name: "refreshHint", value: duration(Duration(time.Minute), Duration(time.Hour)), fallback: defaultRefreshHint,
				says: "How often peers are asked to fetch the bundle; SPIRE polls four times as often. SPIRE's own default is 5m. The lab's is the least that SPIRE heeds, so that a new root reaches a peer while one watches."},
		},
		unsupported: map[string]string{"acme": noHTTPSWeb, "servingCert": noHTTPSWeb, "httpsWeb": noHTTPSWeb},
	}
}

func caObject() *object {
	return &object{says: "The X.509 authorities of a trust domain.", fields: []field{
		{name: "ttl", value: duration(minCATTL, maxCATTL), fallback: defaultCATTL,
			says: "The life of an authority. SPIRE prepares the next one at half of it and activates that one when a sixth remains. 6m shows a rotation in a lesson."},
		{name: "subject", value: nested(subjectObject()), derived: "its fields' defaults", says: "The distinguished name in its certificates."},
	}}
}

func subjectObject() *object {
	return &object{
		says: "The distinguished name of the authorities.",
		fields: []field{
			{name: "country", value: matching("country code", "^[A-Z]{2}$", 2, "two capital letters (ISO 3166)", defaultCountry),
				fallback: defaultCountry, says: "C. The default is SPIRE's."},
			{name: "organization", value: subject("Company Corp"), fallback: defaultOrganization, says: "O. The default is SPIRE's."},
			{name: "commonName", value: subject("SPIRE Server CA - AWS"), derived: "the trust domain, if it has at most 64 characters",
				says: "CN. Shows in a certificate chain whose authority signed."},
		},
		unsupported: map[string]string{"organizationalUnit": "SPIRE's ca_subject has none: say it in commonName"},
	}
}

func svidObject() *object {
	const sixth = ", or a sixth of ca.ttl if that is shorter"
	return &object{says: "How long the identities of workloads live.", fields: []field{
		{name: "x509TTL", value: duration(minSVIDTTL, maxSVIDTTL), derived: defaultX509TTL.String() + sixth,
			says: "The life of an X509-SVID. Agents renew it at half of it."},
		{name: "jwtTTL", value: duration(minSVIDTTL, maxSVIDTTL), derived: defaultJWTTTL.String() + sixth,
			says: "The life of a JWT-SVID."},
	}}
}

func federationObject() *object {
	return &object{
		says: "Trust in one direction (`from` and `to`) or in both (`between`). A relationship of SPIFFE is one way.",
		fields: []field{
			{name: "between", value: list(trustDomain(), 2, 2), says: "Two trust domains that trust each other."},
			{name: "from", value: trustDomain(), says: "The trust domain that trusts: its server fetches the other's bundle."},
			{name: "to", value: trustDomain(), says: "The trust domain that is trusted."},
			{name: "profile", value: profile(), fallback: defaultProfile, says: "The profile of the bundle endpoint that is fetched from."},
		},
		choice: [][]string{{"between"}, {"from", "to"}},
	}
}

func workloadObject() *object {
	return &object{says: "One demo program in one cluster.", fields: []field{
		{name: "name", value: label(maxWorkloadName, "stock-quotes"), derived: "the app's name", says: "Unique in the lab."},
		{name: "app", value: app(), required: true, says: "Which program it is."},
		{name: "cluster", value: label(maxName, "market"), required: true, says: "The cluster that it runs in."},
		{name: "expose", value: loopback(), says: "The address on this machine where a browser finds its page."},
		{name: "calls", value: label(maxWorkloadName, "stock-quotes"), derived: "the only workload of the app that this app calls",
			says: "The name of the workload that this one calls."},
	}}
}
