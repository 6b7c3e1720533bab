package spire

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// MetricsPort is the port on which a server shows its metrics, at MetricsPath. Nothing
// leads there from outside of its cluster or host.
const (
	MetricsPort = 9988
	MetricsPath = "/metrics"
)

// Fetches is what a server has counted, since it started, of its fetches of one trust
// domain's bundle.
type Fetches struct {
	// Done were stored, also where nothing was new; Failed were not.
	Done, Failed int
}

// What a server counts of fetches (SPIRE pkg/common/telemetry/server/bundle_manager.go):
// an update for each fetch that came to a bundle, and a call with the status of each.
var (
	fetchCounter = regexp.MustCompile(`(?m)^spire_server_bundle_manager_(update|fetch)_federated_bundle\{(.*)\} (\S+)$`)
	metricLabel  = regexp.MustCompile(`(\w+)="([^"]*)"`)
	unlabelled   = regexp.MustCompile(`\W+_?`)
)

// ReadFetches reads from a server's metrics what it has counted of these trust domains.
// Labels have "_" for what is no letter: trust domains that this makes equal cannot be told
// apart, and are left out.
func ReadFetches(metrics []byte, of []spiffeid.TrustDomain) (map[spiffeid.TrustDomain]Fetches, error) {
	counted := map[string]Fetches{}
	for _, line := range fetchCounter.FindAllSubmatch(metrics, -1) {
		value, err := strconv.ParseFloat(string(line[3]), 64)
		if err != nil {
			return nil, fmt.Errorf("read the metrics of a SPIRE server: %q: %w", line[0], err)
		}
		labels := map[string]string{}
		for _, label := range metricLabel.FindAllSubmatch(line[2], -1) {
			labels[string(label[1])] = string(label[2])
		}
		f := counted[labels["trust_domain_id"]]
		switch {
		case string(line[1]) == "update":
			f.Done += int(value)
		case labels["status"] != "OK":
			f.Failed += int(value)
		}
		counted[labels["trust_domain_id"]] = f
	}
	names := map[string]int{}
	for _, td := range of {
		names[labelOf(td)]++
	}
	all := map[spiffeid.TrustDomain]Fetches{}
	for _, td := range of {
		if names[labelOf(td)] == 1 {
			all[td] = counted[labelOf(td)]
		}
	}
	return all, nil
}

// labelOf is a trust domain as a label has it (pkg/common/telemetry/sanitize.go).
func labelOf(td spiffeid.TrustDomain) string { return unlabelled.ReplaceAllString(td.Name(), "_") }
