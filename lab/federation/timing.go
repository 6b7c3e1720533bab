package federation

import "time"

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
	// charts/spire sets cache_reload_interval, which is 5 s by itself.
	entryCache = 2 * time.Second
	// agentSync is how long an agent waits between two calls, with its jitter of
	// a tenth (pkg/common/backoff/backoff.go): charts/spire sets sync_interval,
	// which is 5 s by itself.
	agentSync = 2200 * time.Millisecond

	// rotatorTick is how often a server looks whether it is time
	// (pkg/server/ca/rotator/rotator.go, rotateInterval).
	rotatorTick = 10 * time.Second
	// prepareShare and activateShare are the parts of an authority's life that
	// are left when the next one is prepared and activated, and prepareCap and
	// activateCap the most that may be left (pkg/server/ca/manager/manager.go).
	prepareShare, prepareCap   = 2, 30 * 24 * time.Hour
	activateShare, activateCap = 6, 7 * 24 * time.Hour
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

// PropagationBound returns how long a new authority of one trust domain may take
// to the workloads of another that polls at this interval: the endpoint's cache,
// one poll, and what an entry takes (of which the entry cache counts only where
// the entry is as new as the authority). What the machine needs for the work
// itself comes on top.
func PropagationBound(poll time.Duration) time.Duration {
	return endpointCache + poll + RegistrationBound()
}

// RegistrationBound returns how long a change of a registration entry may take
// from the server to the workloads that it is about: the entry cache and one
// agent synchronisation. Pushing it to the workload takes no interval of its own.
// What the machine needs for the work itself comes on top.
func RegistrationBound() time.Duration { return entryCache + agentSync }

// PreparedBy returns when, counted from an authority's issue, its successor is
// in the bundle at the latest: at half of its life or thirty days before its
// end, whichever is later, and one tick of the rotator.
func PreparedBy(life time.Duration) time.Duration {
	return life - min(life/prepareShare, prepareCap) + rotatorTick
}

// ActivatedBy returns when, counted from an authority's issue, its successor
// signs in its place at the latest: when a sixth of its life or seven days are
// left, whichever is less, and one tick of the rotator.
func ActivatedBy(life time.Duration) time.Duration {
	return life - min(life/activateShare, activateCap) + rotatorTick
}
