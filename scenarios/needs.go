package scenarios

import (
	"slices"

	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// What a relationship needs for some of the scenarios.
var (
	// byResource is for what changes the resource of a relationship while servers run, in
	// either direction.
	byResource = trial.Need{
		What: "a relationship by a resource in both directions; 'mode: crd' in the lab file gives it",
		Met: func(r *topology.Trust) bool {
			return r.Mode == topology.CRD && r.Trusted.TrustIn(r.Truster).Mode == topology.CRD
		},
	}
	// fetched is for what the truster's server fetches by itself.
	fetched = trial.Need{
		What: "a truster that fetches the bundle; any mode but 'manual' in the lab file gives it",
		Met:  func(r *topology.Trust) bool { return r.Mode != topology.Manual },
	}
	// byWeb is for what a web CA authenticates.
	byWeb = trial.Need{
		What: "a bundle endpoint of the called trust domain with profile https_web; 'bundleEndpoint: {profile: https_web}' in the lab file gives it",
		Met:  func(r *topology.Trust) bool { return r.Profile == topology.HTTPSWeb },
	}
	// byIssued is for what the lab's own web CA issues and the peer sees.
	byIssued = trial.Need{
		What: "a bundle endpoint of the called trust domain that shows a certificate from the lab; 'bundleEndpoint: {profile: https_web, httpsWeb: {servingCert: {}}}' in the lab file gives it",
		Met: func(r *topology.Trust) bool {
			e := r.Trusted.BundleEndpoint
			return r.Profile == topology.HTTPSWeb && e.ServingCert.TTL > 0 && e.Route != topology.Reencrypt
		},
	}
	// byHand is for bundles that nobody fetches.
	byHand = trial.Need{
		What: "a truster that is handed the bundle; 'mode: manual' in the lab file gives it",
		Met:  func(r *topology.Trust) bool { return r.Mode == topology.Manual },
	}
	// belowRoot is for authorities that are not in any bundle.
	belowRoot = trial.Need{
		What: "a called trust domain below an upstream root; 'upstreamAuthority: disk' in the lab file gives it",
		Met:  func(r *topology.Trust) bool { return r.Trusted.UpstreamAuthority != topology.SelfSigned },
	}
	// fetchedBothWays is for what the servers of both trust domains fetch by themselves.
	fetchedBothWays = trial.Need{
		What: "two trust domains that fetch each other's bundles; any mode but 'manual' in the lab file gives it",
		Met: func(r *topology.Trust) bool {
			return r.Mode != topology.Manual && r.Trusted.TrustIn(r.Truster).Mode != topology.Manual
		},
	}
	// reconciled is for what the controller manager of the truster does with relationships that
	// no resource asks for.
	reconciled = trial.Need{
		What: "a truster whose controller manager makes its relationships; 'mode: crd' in the lab file gives it",
		Met:  func(r *topology.Trust) bool { return r.Mode == topology.CRD },
	}
	// bySPIFFE is for what becomes of a peer whose only way to verify an endpoint is the bundle
	// that it holds.
	bySPIFFE = trial.Need{
		What: "bundle endpoints with profile https_spiffe in both directions; that is what an endpoint has where the lab file says nothing",
		Met: func(r *topology.Trust) bool {
			return r.Profile == topology.HTTPSSPIFFE && r.Trusted.TrustIn(r.Truster).Profile == topology.HTTPSSPIFFE
		},
	}
	// rotates is for what replaces an authority of the called trust domain. What its rotations
	// reach is asked of probes in pods, so that nobody may have it on a host.
	rotates = trial.Need{
		What: "a called trust domain that signs by itself, with no host among its members or among the servers that trust it; a lab file without 'upstreamAuthority' gives it",
		Met:  func(r *topology.Trust) bool { return signsBySelf(r.Trusted) },
	}
	// rotatesBack is for what replaces an authority of the caller's trust domain as well.
	rotatesBack = trial.Need{
		What: "a caller's trust domain that signs by itself, with no host among its members or among the servers that trust it; a lab file without 'upstreamAuthority' gives it",
		Met:  func(r *topology.Trust) bool { return signsBySelf(r.Truster) },
	}
	// apart is for what is done to one cluster and seen from another.
	apart = trial.Need{
		What: "two trust domains in clusters of their own; 'trustDomain' in the lab file gives a cluster one alone",
		Met: func(r *topology.Trust) bool {
			return r.Trusted.Server().Place.Cluster != r.Truster.Server().Place.Cluster
		},
	}
	// postgresDatastore is for whoever breaks a datastore: sqlite is a file of the server's own.
	postgresDatastore = trial.Need{
		What: "a SPIRE server with a PostgreSQL, that of the called trust domain; 'datastore: postgres' in the lab file gives it one",
		Met:  func(r *topology.Trust) bool { return r.Trusted.Datastore == topology.Postgres },
	}
)

// dynamic is for what was tried by https_spiffe and a resource alone, with an authority that the
// called trust domain replaces.
func dynamic() []trial.Need { return []trial.Need{bySPIFFE, byResource, rotates} }

func signsBySelf(d *topology.Domain) bool {
	return d.UpstreamAuthority == topology.SelfSigned && len(d.Server().OnHosts()) == 0 &&
		!slices.ContainsFunc(d.TrustedBy, func(by *topology.Trust) bool { return by.Truster.Server().Place.Host != nil })
}
