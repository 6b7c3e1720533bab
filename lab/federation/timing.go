package federation

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
)

// The numbers of SPIRE 1.15 that every bound is made of. None can be asked of a
// server.
const (
	// hintFloor is what a smaller refresh hint is read as
	// (pkg/common/bundleutil/refreshhint.go, MinimumRefreshHint).
	hintFloor = time.Minute
	// pollsPerHint is how often a server polls within one refresh hint
	// (pkg/server/bundle/client/manager.go, attemptsPerRefreshHint).
	pollsPerHint = 4
	// hintlessShare is the part of the shortest root's life that stands in for a
	// hint (pkg/common/bundleutil/refreshhint.go, refreshHintLeewayFactor).
	hintlessShare = 10

	// endpointCache is how old a bundle may be that an endpoint serves
	// (pkg/server/cache/dscache/cache.go, datastoreCacheExpiry).
	endpointCache = time.Second
	// entryCache is how old the entries may be that a server shows to agents:
	// charts/spire sets cache_reload_interval, which is 5 s by default.
	entryCache = time.Second
	// agentSync is how long an agent waits between two calls, with its jitter of
	// a tenth (pkg/common/backoff/backoff.go): charts/spire sets sync_interval,
	// which is 5 s by default.
	agentSync = 1100 * time.Millisecond

	// syncGrowth is by how much an agent's wait grows with each synchronisation that fails, and
	// syncJitter how much longer or shorter it may be (pkg/common/backoff/backoff.go, and
	// DefaultMultiplier of github.com/cenkalti/backoff/v4); syncWaits is how many times
	// agentSync the longest is (pkg/agent/manager/manager.go,
	// synchronizeMaxIntervalMultiple).
	syncGrowth, syncJitter, syncWaits = 1.5, 0.1, 48

	// backDating is how long before its issue a certificate begins to be valid
	// (pkg/server/credtemplate/builder.go, NotBeforeCushion).
	backDating = 10 * time.Second

	// reconcile is how often the controller manager makes the server's entries and
	// relationships what its resources say: charts/spire sets gcInterval, which is
	// 10 s by default (its cmd/main.go, defaultGCInterval). It hears of a change at
	// once, unless it is at work in that moment: then the change is not heard (its
	// pkg/reconciler/reconciler.go, Trigger).
	reconcile = 2 * time.Second
	// lease is how long a controller manager that leads may be silent, and leaseRetry how
	// often another one asks whether it is (controller-runtime
	// pkg/manager/manager.go, defaultLeaseDuration and defaultRetryPeriod).
	lease, leaseRetry = 15 * time.Second, 2 * time.Second
	// configReload is how often a server reads again which relationships it has
	// (pkg/server/bundle/client/manager.go, configRefreshInterval).
	configReload = 10 * time.Second
	// dialTimeout is when a server gives up a connection to an endpoint that is
	// not made (net/http, DefaultTransport, which
	// pkg/server/bundle/client/client.go clones).
	dialTimeout = 30 * time.Second
	// serverSVIDTick is how often a server looks whether its own SVID is to be
	// replaced (pkg/server/svid/rotator_config.go, DefaultRotatorInterval).
	serverSVIDTick = 5 * time.Second
	// healthCheck is how often a server looks whether it is well, once it has been
	// (pkg/common/health/health.go, readyCheckInterval), and readiness how often
	// Kubernetes asks it: charts/spire sets periodSeconds.
	healthCheck, readiness = time.Minute, 5 * time.Second

	// agentSVIDTick is how often an agent looks whether its own SVID is to be
	// replaced, with a jitter of a tenth (pkg/agent/svid/rotator_config.go,
	// DefaultRotatorInterval).
	agentSVIDTick = 5500 * time.Millisecond

	// rebootstrapDelay is for how long an agent must have met a server that its bundle does not
	// verify before it bootstraps again: charts/spire sets rebootstrap_delay. attestRetry is
	// how often it tries then (pkg/agent/agent.go, bootstrapBackoffInterval).
	rebootstrapDelay, attestRetry = time.Minute, 5 * time.Second

	// upstreamPoll is how often a nested server asks its upstream for the bundle
	// (pkg/server/plugin/upstreamauthority/spire/spire.go, upstreamPollFreq).
	upstreamPoll = 5 * time.Second
	// upstreamBackoff is the longest wait of a nested server between two tries to connect to
	// its upstream, with its jitter of a fifth: it keeps one connection, with what gRPC has by
	// default (google.golang.org/grpc/backoff/backoff.go, DefaultConfig). upstreamDial is how
	// long a try may go on (its clientconn.go, minConnectTimeout).
	upstreamBackoff, upstreamDial = 144 * time.Second, 20 * time.Second

	// rotatorTick is how often a server looks whether it is time
	// (pkg/server/ca/rotator/rotator.go, rotateInterval).
	rotatorTick = 10 * time.Second
	// prepareShare and activateShare are the parts of an authority's life that
	// are left when the next one is prepared and activated, and prepareCap and
	// activateCap the most that may be left (pkg/server/ca/manager/manager.go).
	prepareShare, prepareCap   = 2, 30 * 24 * time.Hour
	activateShare, activateCap = 6, 7 * 24 * time.Hour

	// svidShare is the part of an X509-SVID's life that is left when a server, or an agent,
	// replaces it (pkg/common/rotationutil/rotationutil.go), and servingShare that of a serving
	// certificate when apps/serving-cert does. webhookLeft is what is left of the controller
	// manager's when it does (its pkg/webhookmanager/manager.go, expiresSoon), or half of a
	// life that is no longer than an hour.
	svidShare, servingShare = 2, 3
	webhookLeft             = 30 * time.Minute
)

// PollInterval returns how often a server fetches a bundle: a quarter of its
// refresh hint, where less than a minute counts as a minute, so 15 s at least.
// Without a hint (zero), a tenth of the life of the bundle's shortest X.509
// authority takes its place. It also holds after a fetch has failed, with what
// the held bundle says; there is no back-off.
func PollInterval(hint, authorityLife time.Duration) time.Duration {
	if hint <= 0 {
		hint = authorityLife / hintlessShare
	}
	return max(hint, hintFloor) / pollsPerHint
}

// NextPoll returns how long it takes at most until a server fetches again that
// holds one bundle of a source which serves the other; either is nil where there
// is none. Its last fetch has set the time: by what was served if that succeeded,
// else by what was held then, and by a minute where that was nothing
// (pkg/server/bundle/client/manager.go, runUpdateOnce). What was held and was
// replaced since cannot be known.
func NextPoll(held, served *spiffebundle.Bundle) time.Duration {
	longest := time.Duration(0)
	if held == nil {
		longest = hintFloor
	}
	for _, b := range []*spiffebundle.Bundle{held, served} {
		if b == nil {
			continue
		}
		hint, _ := b.RefreshHint()
		longest = max(longest, PollInterval(hint, shortestLife(b)))
	}
	return longest
}

// shortestLife is that of the X.509 authority that lives the shortest; zero
// without any.
func shortestLife(b *spiffebundle.Bundle) time.Duration {
	shortest := time.Duration(0)
	for i, c := range b.X509Authorities() {
		if life := c.NotAfter.Sub(c.NotBefore); i == 0 || life < shortest {
			shortest = life
		}
	}
	return shortest
}

// LeaderBound returns how long none of several controller managers may be at work once the
// one that leads has ended.
func LeaderBound() time.Duration { return lease + leaseRetry }

// EndpointBound returns how long a bundle endpoint may go on to serve what its
// server no longer has.
func EndpointBound() time.Duration { return endpointCache }

// PropagationBound returns how long a new authority of one trust domain may take
// to the workloads of another that polls at this interval: the endpoint's cache,
// one poll, and what an entry takes (of which the entry cache counts only where
// the entry is as new as the authority). What the machine needs for the work
// itself comes on top.
func PropagationBound(poll time.Duration) time.Duration {
	return endpointCache + poll + RegistrationBound()
}

// FetchBound returns how long a new authority of one trust domain may take to the
// server of another that polls at this interval.
func FetchBound(poll time.Duration) time.Duration { return endpointCache + poll }

// NestedBound returns how long a new authority of a trust domain may take from its
// server to the servers that are nested below it: what the upstream shows may be old by
// its cache, and so may be what the nested server shows of itself
// (pkg/server/api/bundle/v1/service.go, GetBundle).
func NestedBound() time.Duration { return endpointCache + upstreamPoll + endpointCache }

// UpstreamBound returns how long a nested server may take to reach its upstream again,
// once that is back: the longer the upstream was away, the longer the nested server waits
// between two connections.
func UpstreamBound() time.Duration { return upstreamBackoff + upstreamDial }

// CaughtBound returns how long a fetch may go on that a partition has caught: the
// next poll is one interval after its end, also where the partition has long been
// over. One that is caught between its request and its answer is not given up.
func CaughtBound() time.Duration { return dialTimeout }

// DiscoveryBound returns how long an OIDC discovery provider that asks its agent at this
// interval may serve other keys than its server has: the agent's synchronisation, and one
// poll (support/oidc-discovery-provider/workload_api.go).
func DiscoveryBound(poll time.Duration) time.Duration { return RegistrationBound() + poll }

// ReconcileBound returns how long it may take until the controller manager puts
// an entry or a relationship right that it could not make before, or that
// somebody has changed behind its back.
func ReconcileBound() time.Duration { return reconcile }

// RelationshipBound returns how long a server may take to fetch for the first
// time by a relationship that somebody has made through its API.
func RelationshipBound() time.Duration { return configReload }

// HealthBound returns how long Kubernetes may take to see that a server is well
// again.
func HealthBound() time.Duration { return healthCheck + readiness }

// TaintBound returns how long the workloads of a trust domain may present SVIDs
// that an authority has signed which their server has tainted since: the agent
// hears of it with one synchronisation, drops the SVIDs, and has new ones with
// the next (pkg/agent/manager/cache/lru_cache.go, scheduleRotation). It handles
// 100 SVIDs every 5 s; a lab has fewer.
func TaintBound() time.Duration { return 2 * agentSync }

// EndpointSVIDBound returns how long a server's bundle endpoint may show an SVID
// that a tainted authority has signed.
func EndpointSVIDBound() time.Duration { return serverSVIDTick }

// AgentSVIDBound returns how long an agent may authenticate itself by an SVID that
// a tainted authority has signed: it hears of the taint with one synchronisation,
// and attests again when it looks at its own SVID. An authority that is revoked
// before locks the agent out: the server refuses its SVID with its next connection,
// and nothing tells it why.
func AgentSVIDBound() time.Duration { return agentSync + agentSVIDTick }

// RegistrationBound returns how long a change of a registration entry may take
// from the server to the workloads that it is about: the entry cache and one
// agent synchronisation. Pushing it to the workload takes no interval of its own.
// What the machine needs for the work itself comes on top.
func RegistrationBound() time.Duration { return entryCache + agentSync }

// ResyncBound returns how long an agent may wait until it synchronises again with a server that
// was away for so long: as its waits grow, the one that is under way is longer than the first by
// a part of all that have ended.
func ResyncBound(away time.Duration) time.Duration {
	const part = (syncGrowth - 1) * (1 + syncJitter) / (1 - syncJitter)
	return min(agentSync+time.Duration(part*float64(away)), syncWaits*agentSync)
}

// RebootstrapBound returns how long after a server is back with other keys, which was away for so
// long, its agents may take to attest to it. An agent that meets it asks it at each synchronisation
// again until the delay is over (pkg/agent/manager/manager.go, runSynchronizer), and ends; it
// attests when Kubernetes has started it again.
func RebootstrapBound(away time.Duration) time.Duration {
	return ResyncBound(away) + rebootstrapDelay + agentSync + attestRetry
}

// AwakeBound returns how long workloads may be without an SVID that is valid, once all nodes go on
// that stood still for longer than SVIDs live. The server replaces its own one. Before that the
// agent cannot attest again, as it must; and it synchronises after a wait that grew meanwhile. An
// agent that tries too early ends (pkg/agent/svid/rotator.go, runRotation), and is not later when
// Kubernetes starts it again: it tries to attest every 5 s then (pkg/agent/agent.go).
func AwakeBound() time.Duration {
	attested := serverSVIDTick + agentSVIDTick
	return attested + ResyncBound(attested)
}

// PreparedBy returns when, counted from an authority's issue, its successor is
// in the bundle at the latest: at half of its life or thirty days before its
// end, whichever is later, and one tick of the rotator.
func PreparedBy(life time.Duration) time.Duration {
	return life - min(life/prepareShare, prepareCap) + rotatorTick
}

// What is left of a life when somebody should look, because by then something else should
// have come in its place: two thirds of what is left when that is made. For an authority, of
// which the newest in a bundle counts, that is a third of its life, or twenty days.
func notice(left time.Duration) time.Duration { return left * 2 / 3 }

// AuthorityNotice is notice for the newest authority of a bundle.
func AuthorityNotice(life time.Duration) time.Duration {
	return notice(min(life/prepareShare, prepareCap))
}

// SVIDNotice is notice for the X509-SVID of an agent, or of a workload.
func SVIDNotice(life time.Duration) time.Duration { return notice(life / svidShare) }

// EndpointNotice is notice for what a bundle endpoint shows, whether that is an X509-SVID or a
// serving certificate.
func EndpointNotice(life time.Duration) time.Duration {
	return notice(life / max(svidShare, servingShare))
}

// WebhookNotice is notice for what the webhook of a controller manager shows.
func WebhookNotice(life time.Duration) time.Duration { return notice(min(life/2, webhookLeft)) }

// ActivatedBy returns when, counted from an authority's issue, its successor
// signs in its place at the latest: when a sixth of its life or seven days are
// left, whichever is less, and one tick of the rotator.
func ActivatedBy(life time.Duration) time.Duration {
	return life - min(life/activateShare, activateCap) + rotatorTick
}
