package config

import (
	"strconv"
	"time"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Defaults of single fields; complete puts them in.
const (
	defaultProfile = string(topology.HTTPSSPIFFE)
	defaultPort    = 8443
	// SPIRE's own default is 5m: a peer polls every 75 s then. With 1m, the least
	// that SPIRE obeys, it polls every 15 s, and a class sees a new root arrive.
	defaultRefreshHint  = Duration(time.Minute)
	defaultCATTL        = Duration(24 * time.Hour)
	defaultCountry      = "US"
	defaultOrganization = "SPIFFE"
	defaultX509TTL      = Duration(time.Hour)
	defaultJWTTTL       = Duration(5 * time.Minute)
	defaultLogLevel     = "info"
	defaultDatastore    = string(topology.SQLite)
	defaultBundlePlugin = string(topology.K8sConfigMap)
	defaultUpstream     = string(topology.SelfSigned)
	defaultKeyType      = string(topology.ECP256)
	defaultMode         = string(topology.CRD)
	// Pods that name no service account run as this one.
	defaultServiceAccount = "default"
	// SPIRE's own default, and the life that certificates of the public web have.
	defaultFileSync       = Duration(time.Hour)
	defaultServingCertTTL = 90 * day
	// SPIRE's own default (support/oidc-discovery-provider/workload_api.go).
	defaultPollInterval = Duration(10 * time.Second)
)

const day = Duration(24 * time.Hour)

const (
	// SPIRE activates a prepared authority when a sixth of the active one's life
	// remains, but no more than seven days (pkg/server/ca/manager). An SVID that
	// lives longer than that is cut short at each rotation.
	svidsPerCA = 6
	maxSVIDTTL = Duration(7 * 24 * time.Hour)
	// An agent renews at half of an SVID's life, and has a new one with its next
	// look and synchronisation, some 7 s later: half of 20 s leaves it room.
	minSVIDTTL = Duration(20 * time.Second)
	// Room for the shortest SVID. A third of it, the time between prepare and
	// activate, is 40 s: longer than the 30.2 s that a new root takes to the
	// workloads of a peer at the shortest poll (the rotator's tick of 10 s, and
	// federation.PropagationBound of 15 s).
	minCATTL = svidsPerCA * minSVIDTTL
	maxCATTL = Duration(365 * 24 * time.Hour)

	// serverPort is where every SPIRE server's own API listens.
	serverPort = 8081
	// maxTrusted is how many relationships one trust domain may have as truster.
	maxTrusted = 50
)

const (
	// The limits without shortIntervals: 3600 to 7776000 seconds, as the SpireServer
	// resource of OpenShift's Zero Trust Workload Identity Manager has them.
	minFileSync = Duration(time.Hour)
	maxFileSync = 90 * day
	// SPIRE takes any interval above zero (pkg/common/diskcertmanager).
	minShortFileSync = Duration(time.Second)
	// A serving certificate is renewed when a third of its life remains (10 s is the
	// least that apps/serving-cert issues), and the server reads it once in each
	// fileSyncInterval.
	renewedAtThird    = 3
	minServingCertTTL = Duration(10 * time.Second)
	maxServingCertTTL = 365 * day
	// SPIRE renews a certificate that came by ACME 30 days before its end, and up to an hour
	// earlier (its pkg/server/endpoints/bundle/internal/autocert/renewal.go). One that does
	// not live longer it would renew without a pause.
	minACMETTL = 30*day + Duration(time.Minute)
	// SPIRE takes any interval above zero. Five of the longest are less than the time
	// after which the provider counts as not ready (healthchecks_handler.go).
	minPollInterval = Duration(time.Second)
	maxPollInterval = Duration(30 * time.Second)
)

// The ways in which one entry of federation joins several trust domains.
const (
	mesh  = "mesh"
	hub   = "hub"
	chain = "chain"
	pairs = "pairs"
	tree  = "tree"
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

// serverID is what an https_spiffe endpoint of SPIRE presents (its
// pkg/common/idutil, ServerID).
func serverID(trustDomain string) string { return "spiffe://" + trustDomain + "/spire/server" }

// labObject is the table of all fields.
func labObject(a apps) *object {
	return &object{says: "The whole file.", fields: []field{
		{name: "apiVersion", value: oneOf("API version", nil, APIVersion), required: true, says: "The version of this format."},
		{name: "kind", value: oneOf("kind", nil, Kind), required: true, says: "What the file describes."},
		{name: "metadata", value: nested(metadataObject()), required: true, says: "What the lab is called."},
		{name: "spec", value: nested(specObject(a)), required: true, says: "What the lab is made of."},
	}}
}

func metadataObject() *object {
	return &object{says: "What the lab is called.", fields: []field{
		{name: "name", value: label(maxName, "quotes"), required: true,
			says: "Tells labs on one machine apart. It is part of the name of each container (`<lab>-<cluster>-control-plane`), of the network (`fedlab-<lab>`) and of each kubeconfig context (`kind-<lab>-<cluster>`)."},
	}}
}

func specObject(a apps) *object {
	return &object{says: "What the lab is made of.", fields: []field{
		{name: "clusters", value: list(nested(clusterObject()), 1, topology.MaxClusters), required: true,
			says: "The Kubernetes clusters, each a kind cluster."},
		{name: "hosts", value: list(nested(hostObject()), 0, topology.MaxClusters-1),
			says: "Machines outside Kubernetes, each a group of containers on the lab's network."},
		{name: "trustDomains", value: list(nested(trustDomainObject()), 0, maxTrustDomains),
			derived: "one for each that a cluster or a host names, of defaults", says: "Settings of the trust domains that clusters and hosts name."},
		{name: "federation", value: list(nested(federationObject()), 0, maxTrustDomains*maxTrusted), says: "Who trusts whom."},
		{name: "workloads", value: list(nested(workloadObject(a)), 0, maxWorkloads), says: "The demo programs and where they run."},
		{name: "registrations", value: list(nested(registrationObject()), 0, maxWorkloads), says: "Identities that are registered besides those of workloads. No program comes with them."},
	}}
}

// How many of them there can be in a lab.
const (
	maxTrustDomains = topology.MaxClusters * topology.MaxServers
	maxWorkloads    = topology.MaxClusters * topology.MaxWorkloads
)

func clusterObject() *object {
	return &object{
		says: "One Kubernetes cluster, with one trust domain (`trustDomain`) or several (`trustDomains`).",
		fields: []field{
			{name: "name", value: label(maxName, "market"), required: true, says: "A place or a role, unique in the lab."},
			{name: "trustDomain", value: trustDomain(),
				says: "The trust domain that its workloads belong to. Its SPIRE server runs in the first cluster that names it; agents run in each, and attest to that server, or to a nested one."},
			{name: "trustDomains", value: list(trustDomain(), 1, topology.MaxServers),
				says: "Trust domains that share the cluster. Each has its SPIRE server, or its agents alone, in a namespace of its own: the first in `spire-system`, the second in `spire-system-2`, and so on. Those come first whose server runs in this cluster. Its workloads run in namespaces of their own, too."},
		},
		choices: []choice{{{"trustDomain"}, {"trustDomains"}}},
		elsewhere: map[string]string{
			"serverCluster": inTrustDomain, "nestedServers": inTrustDomain,
			"nested": nestedServers + ", in the entry of the trust domain in trustDomains",
		},
	}
}

const (
	inTrustDomain = "write it in trustDomains, into the entry of the trust domain"
	nestedServers = "write nestedServers, with the names of clusters"
)

func hostObject() *object {
	return &object{
		says: "One machine outside Kubernetes.",
		fields: []field{
			{name: "name", value: label(maxName, "partner"), required: true, says: "A place or a role, unique among the clusters and hosts of the lab."},
			{name: "trustDomain", value: trustDomain(), required: true,
				says: "The trust domain that its workloads belong to. Its SPIRE server runs in a cluster where one names it, or else on the first host that names it. The host's agent attests to that server, with a join token."},
		},
		unsupported: map[string]string{"trustDomains": "write trustDomain: a host has one"},
	}
}

func trustDomainObject() *object {
	const (
		server    = "write serverCluster, with the name of a cluster"
		plugin    = "write bundlePlugin"
		discovery = "write jwtIssuer and oidcDiscovery: {}"
	)
	return &object{says: "Settings of one trust domain, that is, of its SPIRE server.", elsewhere: map[string]string{
		"cluster": server, "server": server, "clusters": "name the trust domain in each of its clusters, in clusters",
		"version": "write spire: {version: …}", "spireVersion": "write spire: {version: …}", "keyType": inCA, "jwtKeyType": inCA, "replicas": "write serverReplicas", "entryIDPrefix": "write entryPrefix", "notifier": plugin, "bundlePublisher": plugin, "nested": nestedServers, "nestedClusters": nestedServers,
		"oidc": discovery, "oidcProvider": discovery, "oidcDiscoveryProvider": discovery, "discovery": discovery,
	}, fields: []field{
		{name: "name", value: trustDomain(), required: true, says: "A trust domain that a cluster or a host names."},
		{name: "serverCluster", value: label(maxName, "market"), derived: "the first cluster that names it",
			says: "Where several clusters name the trust domain: the one in which its SPIRE server runs. It cannot be changed once the lab is up."},
		{name: "bundlePlugin", value: bundlePlugin(), derived: "`" + defaultBundlePlugin + "` where several clusters name it",
			says: "Where several clusters name the trust domain: the plugin by which its SPIRE server writes the bundle, with which agents start, into the clusters that it does not run in. `k8s_configmap`, a bundle publisher, tries again where a cluster does not answer. With `k8sbundle`, a notifier, the server does not start before each of the clusters has answered."},
		{name: "serverReplicas", value: numberTo(topology.MaxReplicas), fallback: 1,
			says: "How many servers stand behind the addresses of its SPIRE server. They share a PostgreSQL, and each has keys of its own: the bundle has the authorities of all. One that leaves takes its keys along; its authorities stay in the bundle until they expire."},
		{name: "entryPrefix", value: label(maxName, "lab"),
			says: "`entryIDPrefix` of the controller manager next to the SPIRE server: the IDs of its entries begin with it. Without it the manager deletes each entry that it has not made, such as one made by `spire-server entry create`; with it, those of others stay. It cannot be changed once the lab is up."},
		{name: "nestedServers", value: list(label(maxName, "branch"), 1, topology.MaxMembers-1),
			says: "Those of its other clusters that have a SPIRE server of their own, nested below the server of the trust domain: that one signs their authorities. Agents there attest to the nested server. It has the settings of the trust domain, and no bundle endpoint: peers fetch from the server of the trust domain. Which clusters have one cannot be changed once they are up."},
		{name: "bundleEndpoint", value: nested(bundleEndpointObject()), derived: "its fields' defaults", says: "Where its bundle is published."},
		{name: "ca", value: nested(caObject()), derived: "its fields' defaults", says: "Its authorities."},
		{name: "svid", value: nested(svidObject()), derived: "its fields' defaults", says: "The identities that it issues."},
		{name: "jwtIssuer", value: matching("secure URL", `^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$`, 255,
			"https, without query and fragment, at most 255 characters", "https://oidc.cluster1.com"),
			says: "The `iss` claim of JWT-SVIDs; they have none without it."},
		{name: "oidcDiscovery", value: nested(oidcDiscoveryObject()), derived: "nobody serves them",
			says: "SPIRE's OIDC discovery provider, which serves the documents of `jwtIssuer` at that name: a program that knows OIDC and nothing of SPIFFE verifies JWT-SVIDs with them. `oidcDiscovery: {}` is enough. It runs next to the SPIRE server, at an address of its own, with a certificate of the private CA of the trust domain."},
		{name: "spire", value: nested(spireObject()), derived: "its fields' defaults", says: "Which versions of SPIRE it runs."},
		{name: "logLevel", value: oneOf("log level", nil, "debug", "info", "warn", "error"), fallback: defaultLogLevel,
			says: "How much the SPIRE server and agent log."},
		{name: "datastore", value: oneOf("datastore", nil, defaultDatastore, string(topology.Postgres)), fallback: defaultDatastore,
			says: "Where the SPIRE server keeps its entries and bundles: in a file (`sqlite`), or in a PostgreSQL server of its own in the same cluster (`postgres`)."},
		{name: "upstreamAuthority", value: upstreamAuthority(), fallback: defaultUpstream,
			says: "Who signs its X.509 authorities. `none`: each is a root. `disk`: an intermediate that the server reads from files; the bundle then holds the root above it, and stays as it is when an authority is replaced."},
	}}
}

func spireObject() *object {
	version := oneOf("version of SPIRE", nil, topology.SPIREVersions()...)
	return &object{
		says: "Versions of SPIRE. Another one than that of the nodes is made for a lab that asks for it, which takes some minutes once.",
		fields: []field{
			{name: "version", value: version, derived: "`" + topology.SPIREVersion + "`, which is in every node",
				says: "That of its SPIRE servers. It can be changed to the minor version before or after, as SPIRE supports it: the servers are replaced, and keep their data."},
			{name: "agentVersion", value: version, derived: "`version`",
				says: "That of its SPIRE agents in clusters. It is of the same minor version, or of the one before. Where both change, agents follow when the servers are up."},
		},
		elsewhere: map[string]string{"serverVersion": "write version"},
	}
}

func oidcDiscoveryObject() *object {
	const byIssuer = "write it in jwtIssuer, which says where the documents are"
	return &object{
		says: "How SPIRE's OIDC discovery provider serves the documents of `jwtIssuer`.",
		fields: []field{
			{name: "pollInterval", value: duration(minPollInterval, maxPollInterval), fallback: defaultPollInterval,
				says: "How often the provider asks its SPIRE agent for the keys of the trust domain, so how late a new one may be among those that it serves. The default is SPIRE's."},
		},
		elsewhere:   map[string]string{"issuer": byIssuer, "host": byIssuer, "domains": byIssuer, "port": byIssuer, "path": byIssuer},
		unsupported: map[string]string{"acme": "leave it out: the private CA of the trust domain issues the certificate", "servingCert": "leave it out: the lab issues the certificate and renews it"},
	}
}

const inCA = "write it in ca"

func bundlePlugin() value {
	const ours = "write k8s_configmap, or k8sbundle"
	return oneOf("bundle plugin", map[string]string{"aws_s3": ours, "gcp_cloudstorage": ours, "gcs_bundle": ours}, defaultBundlePlugin, string(topology.K8sBundle))
}

func upstreamAuthority() value {
	const standIn = "write disk, which takes its place"
	return oneOf("upstream authority", map[string]string{
		"aws_pca": standIn, "gcp_cas": standIn, "vault": standIn, "cert-manager": standIn, "spire": "write none, or disk; for servers below this one write nestedServers",
	}, defaultUpstream, string(topology.Disk))
}

func profile() value {
	return oneOf("endpoint profile", nil, string(topology.HTTPSSPIFFE), string(topology.HTTPSWeb))
}

// withServingCert is how an https_web endpoint is written.
const withServingCert = "httpsWeb: {servingCert: {}}"

const writeHost = "write host, with a DNS name, and port"

func bundleEndpointObject() *object {
	return &object{
		says: "Where and how a trust domain publishes its bundle.",
		fields: []field{
			{name: "profile", value: profile(), fallback: defaultProfile,
				says: "How the endpoint proves who it is. `https_spiffe`: with an X509-SVID of its trust domain. `https_web`: with a serving certificate, as any web server does; peers have the root of its private CA from the lab. It cannot be changed once the lab is up."},
			{name: "host", value: webName(), derived: "its address",
				says: "The DNS name in the endpoint's URL. Each cluster and each host of the lab finds the endpoint's address by it; this machine does not."},
			{name: "route", value: route(), derived: "none: peers ask the endpoint itself",
				says: "How a proxy in front of the endpoint passes on what peers ask. The proxy is a HAProxy next to the SPIRE server, at an address of its own, which `host` leads to; its port is " + strconv.Itoa(topology.ProxyPort) + ". `passthrough` goes by the name that a TLS client asks for, and leaves TLS alone. `reencrypt` ends TLS with a certificate of its own, from where the endpoint has its own, and begins TLS again to the endpoint. OpenShift has both."},
			{name: "path", value: webPath(), derived: "none",
				says: "What the endpoint's URL has after its host, with `reencrypt`: a path, and a query if it has one. The proxy answers there alone, and takes both away: a SPIRE server serves its bundle at the path / only."},
			{name: "port", value: numberTo(65535), fallback: defaultPort, says: "The port of the endpoint on the SPIRE server's address. With `route`, peers do not see it."},
			{name: "refreshHint", value: duration(Duration(time.Minute), Duration(time.Hour)), fallback: defaultRefreshHint,
				says: "How often peers are asked to fetch the bundle; SPIRE polls four times as often. SPIRE's own default is 5m. The lab's is the shortest that SPIRE obeys, so that a new root reaches a peer while you watch."},
			{name: "httpsWeb", value: nested(httpsWebObject()), derived: "required with `https_web`", says: "Where the certificate of an `https_web` endpoint comes from."},
		},
		elsewhere: map[string]string{
			"acme":        "write profile: https_web and " + withACME,
			"servingCert": "write " + withServingCert, "url": writeHost, "bundleEndpointUrl": writeHost, "domainName": writeHost, "hostname": writeHost, "address": writeHost,
			"managedRoute": writeRoute, "termination": writeRoute, "query": "write it in path, after a question mark",
		},
	}
}

const writeRoute = "write host, and route: passthrough or reencrypt"

func route() value {
	return oneOf("route", map[string]string{
		"edge": "write reencrypt: the SPIRE server serves its bundle by TLS alone", "true": "write passthrough, or reencrypt", "false": "leave it out",
	}, string(topology.Passthrough), string(topology.Reencrypt))
}

func httpsWebObject() *object {
	return &object{
		says: "Where an `https_web` endpoint has its certificate from. `" + withServingCert + "` is enough.",
		fields: []field{
			{name: "servingCert", value: nested(servingCertObject()), derived: "required without `acme`",
				says: "A certificate that a private CA of the trust domain issues, and issues again while the lab runs when a third of its life remains; or one of your own."},
			{name: "acme", value: nested(acmeObject()), derived: "none",
				says: "A certificate that the SPIRE server orders itself, by ACME (RFC 8555), from the lab's own ACME server: a Pebble in the lab's network. It takes the place of `servingCert`."},
		},
	}
}

// withACME is how an endpoint is written whose certificate comes by ACME.
const withACME = "httpsWeb: {acme: {domainName: bundle.cluster1.com, email: admin@cluster1.com, tosAccepted: true}}"

func acmeObject() *object {
	const own = "leave it out: the lab has an ACME server of its own, and nothing of a lab leaves the machine"
	return &object{
		says: "How the SPIRE server orders its serving certificate. It proves that it has the name by a TLS handshake (TLS-ALPN-01, RFC 8737) at the bundle endpoint, and orders when somebody asks for the name the first time.",
		fields: []field{
			{name: "domainName", value: webName(), required: true, says: "The DNS name that the certificate is for, which is `bundleEndpoint.host`."},
			{name: "email", value: matching("mail address", `^[^@\s]+@[^@\s]+$`, 255, "a name, an at sign and a host", "admin@cluster1.com"), required: true, says: "The contact of the account. Nobody writes there."},
			{name: "tosAccepted", value: boolean(), required: true, says: "That the terms of service of the ACME server are accepted, without which SPIRE orders nothing. The only value is `true`."},
			{name: "ttl", value: duration(minACMETTL, maxServingCertTTL), fallback: defaultServingCertTTL,
				says: "The life of a certificate. SPIRE orders the next one 30 days before the end, or up to an hour earlier, by chance. With `720h2m` a renewal comes within two minutes, and most of the next ones come at once, one after another; from `721h` on there is time between them. It is the same for all endpoints of the lab with `acme`."},
		},
		elsewhere: map[string]string{"directoryUrl": own, "directoryURL": own, "directory_url": own, "domain_name": "write domainName", "tos_accepted": "write tosAccepted: true"},
	}
}

const (
	writeSecret = "write externalSecretRef, with cert, key and ca"
	writeFiles  = "write cert, key and ca, with externalSecretRef"
)

func servingCertObject() *object {
	return &object{
		says: "The serving certificate of an `https_web` endpoint: one that the lab issues, or with `externalSecretRef` one of your own.",
		fields: []field{
			{name: "externalSecretRef", value: subdomainName("spire-server-federation-tls"),
				says: "The Secret, next to the SPIRE server, with a certificate of your own. `up` makes it of the files `cert` and `key`, and again when they have changed. The server has it as a folder, in which the kubelet has another Secret within a minute or two."},
			{name: "cert", value: filePath("./tls.crt"), says: "The certificate of your own, in PEM, with those between it and the CA after it. It is for the name in `bundleEndpoint.host`."},
			{name: "key", value: filePath("./tls.key"), says: "The private key of the certificate, in PEM."},
			{name: "ca", value: filePath("./ca.crt"), says: "The certificate of the CA by which peers verify it, in PEM."},
			{name: "ttl", value: duration(minServingCertTTL, maxServingCertTTL), derived: defaultServingCertTTL.String() + ", without `externalSecretRef`", says: "The life of a certificate that the lab issues. 15m shows a renewal in a lesson."},
			{name: "fileSyncInterval", value: duration(minShortFileSync, maxFileSync), fallback: defaultFileSync,
				says: "How often the SPIRE server looks whether the certificate was renewed. At least 1h without `shortIntervals`."},
			{name: "shortIntervals", value: boolean(), fallback: false,
				says: "Allows a `fileSyncInterval` below 1h, which is for lessons and tests and not for production."},
		},
		elsewhere: map[string]string{"secretName": writeSecret, "secret": writeSecret, "certificate": writeFiles, "certFile": writeFiles, "keyFile": writeFiles, "caFile": writeFiles},
	}
}

func caObject() *object {
	return &object{says: "The authorities of a trust domain.", fields: []field{
		{name: "ttl", value: duration(minCATTL, maxCATTL), fallback: defaultCATTL,
			says: "The life of an authority. SPIRE prepares the next one at half of it and activates that one when a sixth remains. 6m shows a rotation in a lesson."},
		{name: "keyType", value: keyType(), fallback: defaultKeyType,
			says: "The type of the keys of X.509 authorities. The default is SPIRE's. Another type restarts the SPIRE server of a lab that runs, and replaces no authority: the present one goes on signing, and the next one that SPIRE prepares has the new type. With `upstreamAuthority: disk` the type is that of the server's authorities; the root above them, which the bundle has, stays as it is."},
		{name: "jwtKeyType", value: keyType(), derived: "`keyType`",
			says: "The type of the keys of JWT authorities. RSA keys sign JWT-SVIDs by RS256, EC keys by ES256 or ES384. Another type comes with the next authority, as with `keyType`."},
		{name: "subject", value: nested(subjectObject()), derived: "its fields' defaults", says: "The distinguished name in the certificates of X.509 authorities."},
	}}
}

func keyType() value {
	return oneOf("key type", nil, string(topology.RSA2048), string(topology.RSA4096), string(topology.ECP256), string(topology.ECP384))
}

func subjectObject() *object {
	return &object{
		says: "The distinguished name of the X.509 authorities.",
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
		says: "Trust in one direction (`from` and `to`), in both (`between`), or in both directions of each pair that a `shape` joins. A relationship of SPIFFE is one way.",
		fields: []field{
			{name: "between", value: list(trustDomain(), 2, 2), says: "Two trust domains that trust each other."},
			{name: "from", value: trustDomain(), says: "The trust domain that trusts: its server fetches the other's bundle."},
			{name: "to", value: trustDomain(), says: "The trust domain that is trusted."},
			{name: "shape", value: oneOf("shape", nil, mesh, hub, chain, pairs, tree),
				says: "Several trust domains at once, in the order of `of`. `mesh`: each and each other. `hub`: the first and each other. `chain`: each and the next. `pairs`: the first and the second, the third and the fourth, and so on. `tree`: each and those below it, as `branches` says. Trust goes no further than that: a trust domain does not trust whom those trust that it trusts."},
			{name: "of", value: list(trustDomain(), 2, maxTrustDomains), derived: "all trust domains, in the order of the clusters, then of the hosts",
				says: "The trust domains of the shape, which is no `tree`."},
			{name: "branches", value: list(list(trustDomain(), 2, maxTrustDomains), 1, maxTrustDomains),
				says: "The branches of a `tree`, from its root on: of each, the trust domain above and those below it. `[[root.company.com, prod.company.com, staging.company.com], [prod.company.com, aws.prod.company.com]]` has three levels."},
			{name: "mode", value: oneOf("mode", nil, defaultMode, string(topology.API), string(topology.Static), string(topology.Manual)), fallback: defaultMode,
				says: "How the truster's server comes to know the bundle. `crd`: by a ClusterFederatedTrustDomain, while it runs. A truster whose server is on a host has none: there it is as with `api`. `api`: by SPIRE's API, while it runs; the controller manager of such a truster makes no relationships. `static`: by `federates_with` in its configuration, which it reads when it starts. `manual`: by hand, without a relationship; only the next `fedlab up` refreshes such a bundle."},
			{name: "profile", value: profile(), derived: "that of the trusted side's endpoint, for each direction",
				says: "The profile of the bundle endpoint that is fetched from. It says again what `bundleEndpoint` of the trusted side says."},
			{name: "endpointSpiffeId", value: spiffeID(), derived: "`spiffe://<to>/spire/server`, if the endpoint is https_spiffe",
				says: "The SPIFFE ID that the endpoint has to present. It is for `from` and `to`, and for an `https_spiffe` endpoint."},
		},
		choices: []choice{{{"between"}, {"from", "to"}, {"shape"}}},
	}
}

func workloadObject(a apps) *object {
	return &object{
		says: "One program in one cluster, or on one host: one that fedlab brings along (`app`), or one of your own, which a Helm chart (`chart`) or plain manifests (`manifests`) run. Paths are relative to the lab file.",
		fields: []field{
			{name: "name", value: label(maxWorkloadName, "payments"), derived: "the app's name", says: "Unique in the lab."},
			{name: "app", value: oneOf("app", nil, a.names()...), says: "Which program of fedlab it is."},
			{name: "cluster", value: label(maxName, "market"), says: "The cluster that it runs in."},
			{name: "host", value: label(maxName, "partner"), says: "The host that it runs on."},
			{name: "trustDomain", value: trustDomain(), derived: "that of its cluster", says: "The trust domain that it belongs to, where its cluster has several."},
			{name: "replicaOf", value: label(maxWorkloadName, "payments"), says: "The workload or registration that has the same SPIFFE ID, in another cluster of the trust domain. Without it one SPIFFE ID is given once."},
			{name: "expose", value: loopback(), says: "The address on this machine where a browser finds its page."},
			{name: "calls", value: list(label(maxWorkloadName, "payments"), 0, maxWorkloads),
				derived: "all of the apps that its app calls, as far as both trust domains trust each other",
				says:    "The names of the workloads that this one calls. An app that needs nobody to call takes an empty list."},
			{name: "databaseTLS", value: boolean(),
				says: "Gives the PostgreSQL next to the workload an identity of its own and TLS with it, and lets nobody in without. spiffe-helper keeps the certificate. The workload verifies the name of the server by the bundle of its own trust domain, as `sslmode=verify-full` of PostgreSQL does."},
			{name: "legacyDatabase", value: boolean(),
				says: "Lets the workload read the database behind the bridge that calls it, through the bridge's port 5432, and gives it the password. With it the workload answers `/api/legacy-data`."},
			{name: "chart", value: filePath("./charts/payments"), says: "The folder of a Helm chart of your own."},
			{name: "manifests", value: filePath("./k8s"), says: "A folder of manifests of your own: all `.yaml`, `.yml` and `.json` files in it."},
			{name: "values", value: free(), says: "The values of the chart. Write no secret here: the lab keeps its file in each cluster, in plain text."},
			{name: "images", value: list(nested(imageObject()), 1, maxImages), says: "How each image of your own gets into the nodes. A changed one restarts its pods with the next `up`."},
			{name: "identity", value: nested(identityObject()), says: "What your program is registered with."},
			{name: "port", value: numberTo(65535), says: "The port at which peers call your program: that of its one Service of type LoadBalancer, which gets the workload's address. `up` then also looks whether it presents its X509-SVID there."},
			{name: "check", value: nested(checkObject()), says: "A request that your program answers with a status from 200 to 299 when it is well. `up` waits for it, and `status` looks at it."},
		},
		choices: []choice{{{"cluster"}, {"host"}}, {{"app"}, {"chart"}, {"manifests"}}},
	}
}

const (
	maxImages = 32
	// maxSelectors and maxDNSNames are more than an entry of SPIRE sensibly has.
	maxSelectors = 32
	maxDNSNames  = 32
)

func imageObject() *object {
	return &object{
		says: "An image, as manifests call it, and where it comes from.",
		fields: []field{
			{name: "name", value: imageName(), required: true, says: "What the chart or the manifests call the image."},
			{name: "go", value: filePath("./cmd/payments"), says: "The folder of a Go main package: `up` builds the image."},
			{name: "archive", value: filePath("payments.tar"), says: "A file as `docker save` writes it, or an OCI layout in a tar."},
			{name: "docker", value: imageName(), says: "An image of the local Docker engine."},
		},
		choices: []choice{{{"go"}, {"archive"}, {"docker"}}},
	}
}

func registrationObject() *object {
	return &object{
		says: "One identity, in one of the forms that upstream has: a ClusterSPIFFEID, a ClusterStaticEntry, or an entry that is made by SPIRE's API, as `spire-server entry create` does. Their fields are those of upstream.",
		fields: []field{
			{name: "name", value: label(maxWorkloadName, "quotes-server"), required: true, says: "Unique among the registrations and workloads of the lab. A resource has this name; the ID of an `entry` is `fedlab.<name>`."},
			{name: "trustDomain", value: trustDomain(), required: true, says: "The trust domain of the identity."},
			{name: "cluster", value: label(maxName, "market"), derived: "that of the SPIRE server of the trust domain",
				says: "For `clusterSPIFFEID`: the cluster whose pods get the identity. For the others: the cluster with the SPIRE server that has the entry, which may be a nested one."},
			{name: "replicaOf", value: label(maxWorkloadName, "quotes-server"), says: "The workload or registration of the trust domain that has the same SPIFFE ID. Without it one SPIFFE ID is given once."},
			{name: "clusterSPIFFEID", value: nested(clusterSPIFFEIDObject()), says: "A ClusterSPIFFEID: the controller manager makes an entry for each pod that it selects."},
			{name: "clusterStaticEntry", value: nested(entryObject("The spec of a ClusterStaticEntry.")), says: "A ClusterStaticEntry: the controller manager makes one entry of it."},
			{name: "entry", value: nested(entryObject("An entry, by the names that a ClusterStaticEntry has.")), says: "An entry that `up` makes by SPIRE's API. It needs `entryPrefix`, or a SPIRE server on a host."},
		},
		choices: []choice{{{"clusterSPIFFEID"}, {"clusterStaticEntry"}, {"entry"}}},
		unsupported: map[string]string{
			"kind": "write the kind as a field with its spec: clusterSPIFFEID, clusterStaticEntry or entry", "host": "a registration is for pods, or says its parentID; what runs on a host is a workload",
		},
	}
}

const (
	byTrustDomain = "leave it out: fedlab writes it for the trust domain"
	noStore       = "no agent of a lab stores SVIDs"
)

func clusterSPIFFEIDObject() *object {
	return &object{
		says: "The spec of a ClusterSPIFFEID.",
		fields: []field{
			{name: "spiffeIDTemplate", value: template("template of a SPIFFE ID", "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}"), required: true, says: "What comes to the SPIFFE ID of each pod."},
			{name: "namespaceSelector", value: nested(selectorObject("namespaces")), derived: "all namespaces", says: "The namespaces whose pods get the identity. Those of Kubernetes, MetalLB and SPIRE are always left out."},
			{name: "podSelector", value: nested(selectorObject("pods")), derived: "all pods", says: "The pods that get the identity."},
			{name: "workloadSelectorTemplates", value: list(template("selector", "k8s:sa:{{ .PodSpec.ServiceAccountName }}"), 0, maxSelectors), says: "Selectors besides that of the pod."},
			{name: "dnsNameTemplates", value: list(template("DNS name", "{{ .PodMeta.Name }}.shop.svc"), 0, maxDNSNames), says: "DNS names of its X509-SVIDs."},
			{name: "autoPopulateDNSNames", value: boolean(), derived: "`false`", says: "Adds the DNS names of the Services that lead to the pod."},
			{name: "ttl", value: duration(minSVIDTTL, maxSVIDTTL), derived: "that of its trust domain", says: "The life of its X509-SVIDs."},
			{name: "jwtTtl", value: duration(minSVIDTTL, maxSVIDTTL), derived: "that of its trust domain", says: "The life of its JWT-SVIDs."},
			federatesWithField(), hintField(),
			{name: "fallback", value: boolean(), derived: "`false`", says: "Leaves out pods that another ClusterSPIFFEID selects."},
			adminField(), downstreamField(),
		},
		unsupported: map[string]string{"className": byTrustDomain},
		elsewhere:   map[string]string{"podSelectors": "write podSelector", "matchLabels": "write it in podSelector, or in namespaceSelector"},
	}
}

func selectorObject(of string) *object {
	const named = "write matchLabels"
	return &object{
		says: "Selects the " + of + " that have all of these labels.",
		fields: []field{
			{name: "matchLabels", value: labels(), derived: "none, which selects all", says: "The labels. Kubernetes gives each namespace the label `kubernetes.io/metadata.name` with its name."},
		},
		unsupported: map[string]string{"matchExpressions": named},
		elsewhere:   map[string]string{"matchNames": "no selector of Kubernetes has it: write matchLabels: {kubernetes.io/metadata.name: NAME}"},
	}
}

func entryObject(says string) *object {
	return &object{
		says: says,
		fields: []field{
			{name: "spiffeID", value: spiffeID(), required: true, says: "The SPIFFE ID."},
			{name: "parentID", value: spiffeID(), required: true,
				says: "Whose bearers hand it out: an agent, the SPIFFE ID of another entry, or `spiffe://<trust domain>/spire/server`. An entry below the server with selectors of nodes (`k8s_psat:cluster:…`) stands for those nodes, and others can be below it."},
			{name: "selectors", value: list(selector(), 1, maxSelectors), required: true, says: "What a program must have, all of them; for an entry below the server, what a node must have."},
			{name: "dnsNames", value: list(hostName(), 0, maxDNSNames), says: "DNS names of its X509-SVIDs. The first one is also the CN."},
			{name: "x509SVIDTTL", value: duration(minSVIDTTL, maxSVIDTTL), derived: "that of its trust domain", says: "The life of its X509-SVIDs."},
			{name: "jwtSVIDTTL", value: duration(minSVIDTTL, maxSVIDTTL), derived: "that of its trust domain", says: "The life of its JWT-SVIDs."},
			federatesWithField(), hintField(), adminField(), downstreamField(),
		},
		unsupported: map[string]string{"storeSVID": noStore, "storeSvid": noStore, "className": byTrustDomain},
		elsewhere:   map[string]string{"ttl": "write x509SVIDTTL", "x509SVIDTtl": "write x509SVIDTTL", "spiffeIDTemplate": "write spiffeID; a template belongs into clusterSPIFFEID"},
	}
}

func federatesWithField() field {
	return field{name: "federatesWith", value: list(trustDomain(), 0, maxTrusted), says: "The trust domains whose bundles its bearers receive besides their own."}
}

func hintField() field {
	return field{name: "hint", value: matching("hint", `^[^\s].*$`, 1024, "text", "internal"), says: "What tells a program with several identities which one this is, by the Workload API."}
}

func adminField() field {
	return field{name: "admin", value: boolean(), derived: "`false`", says: "Lets its bearers use the whole API of the SPIRE server."}
}

func downstreamField() field {
	return field{name: "downstream", value: boolean(), derived: "`false`", says: "Lets its bearers have authorities signed, as a nested SPIRE server does."}
}

func checkObject() *object {
	return &object{
		says: "A request by which your program is seen to be well.",
		fields: []field{
			{name: "path", value: matching("path of a URL", `^/[^\s#]*$`, 1024, "a path that starts with a slash", "/healthz"), required: true, says: "What is asked for."},
			{name: "port", value: numberTo(65535), derived: "the workload's `port`", says: "The port that answers."},
			{name: "as", value: trustDomain(), says: "The trust domain as which it is asked, by HTTPS with an X509-SVID, at the workload's address: a probe runs there. " +
				"Without it a pod of the program is asked through the cluster's API, by plain HTTP."},
		},
	}
}

func identityObject() *object {
	return &object{
		says: "What a program of your own is registered with, as in a ClusterSPIFFEID.",
		fields: []field{
			{name: "namespace", value: label(maxNodeName, "shop"), required: true, says: "The namespace of all its objects; `up` makes it."},
			{name: "serviceAccount", value: subdomainName("payments"), fallback: defaultServiceAccount, says: "The service account that its pods run as."},
			{name: "path", value: matching("path of a SPIFFE ID", `^/.*$`, 2048, "segments of letters, digits, dots, dashes and underscores, each after a slash, or a template of a ClusterSPIFFEID", "/payments"),
				derived: "`/ns/<namespace>/sa/<serviceAccount>`", says: "The path of its SPIFFE ID, which may be a template."},
			{name: "dnsNames", value: list(template("DNS name", "payments.shop.svc"), 0, maxDNSNames), says: "DNS names of its X509-SVIDs, as templates of a ClusterSPIFFEID."},
			{name: "ttl", value: duration(minSVIDTTL, maxSVIDTTL), derived: "that of its trust domain", says: "The life of its X509-SVIDs."},
			{name: "selectors", value: list(template("selector", "k8s:pod-label:app:payments"), 0, maxSelectors), says: "Selectors besides those of namespace and service account, as templates of a ClusterSPIFFEID."},
			{name: "hint", value: matching("hint", `^[^\s].*$`, 1024, "text", "internal"), derived: "`fedlab`", says: "What tells a program with several identities which one this is, by the Workload API."},
			{name: "federatesWith", value: list(trustDomain(), 0, maxTrusted), derived: "all that its trust domain trusts", says: "The trust domains whose bundles it receives."},
		},
	}
}
