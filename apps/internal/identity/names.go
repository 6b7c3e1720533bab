package identity

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// IDs is a set of SPIFFE IDs. As a flag it is a list separated by commas.
type IDs map[spiffeid.ID]struct{}

// Set reads whole SPIFFE IDs, each of a workload.
func (s *IDs) Set(text string) error { return fill((*map[spiffeid.ID]struct{})(s), text, ParseID) }

func (s IDs) String() string { return list(s) }

// Check returns nil when id is in the set. setting names the set in the error.
func (s IDs) Check(id spiffeid.ID, setting string) error { return in(s, id, "", setting) }

// TrustDomains is a set of trust domains. As a flag it is a list separated by
// commas.
type TrustDomains map[spiffeid.TrustDomain]struct{}

// Set reads names of trust domains.
func (s *TrustDomains) Set(text string) error {
	return fill((*map[spiffeid.TrustDomain]struct{})(s), text, func(name string) (spiffeid.TrustDomain, error) {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return domain, fmt.Errorf("want a trust domain such as cluster2.com: %w", err)
		}
		return domain, nil
	})
}

func (s TrustDomains) String() string { return list(s) }

// Check returns nil when domain is in the set. setting names the set in the
// error.
func (s TrustDomains) Check(domain spiffeid.TrustDomain, setting string) error {
	return in(s, domain, "trust domain ", setting)
}

// fill replaces what is in set, unless text is wrong.
func fill[T comparable](set *map[T]struct{}, text string, parse func(string) (T, error)) error {
	values := map[T]struct{}{}
	for name := range strings.SplitSeq(text, ",") {
		value, err := parse(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		values[value] = struct{}{}
	}
	*set = values
	return nil
}

func list[T interface {
	comparable
	fmt.Stringer
}](set map[T]struct{}) string {
	var names []string
	for value := range set {
		names = append(names, value.String())
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

func in[T comparable](set map[T]struct{}, value T, kind, setting string) error {
	if _, ok := set[value]; !ok {
		return fmt.Errorf("%s%v is not in %s", kind, value, setting)
	}
	return nil
}
