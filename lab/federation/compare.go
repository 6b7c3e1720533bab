// Package federation holds the rules on bundles and relationships: what it means
// that a bundle is in sync with its source, and how long each change may take to
// get from one trust domain to another.
//
// It is pure: it refuses to know servers, clusters and clocks, and is told what
// they said.
package federation

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
)

// State says how a held bundle stands to its source.
type State string

const (
	// InSync means the same authorities on both sides.
	InSync State = "in sync"
	// Behind means that authorities of the source are not there yet, and nothing
	// else is. What the source signs with them is refused until the next fetch.
	Behind State = "behind"
	// Differing means that there are authorities that the source does not have,
	// besides some that it has. Most often it had them and dropped them; that they
	// were never its own the bundles alone cannot rule out. What they sign is
	// trusted.
	Differing State = "differing"
	// Foreign means that there are authorities, and that the source has none of
	// them. Most often they are another trust domain's; a source that was made
	// again, or that replaced all its authorities while nobody fetched, looks the
	// same. Nobody of the source is verified, and what they sign is trusted.
	Foreign State = "foreign"
	// Empty is a bundle without any authority. It verifies nothing, and it cannot
	// authenticate an https_spiffe endpoint, so no fetch will repair it.
	Empty State = "empty"
	// Missing means that no bundle is held.
	Missing State = "missing"
)

// Kind is what an authority signs.
type Kind string

// The kinds of authorities that a bundle may hold.
const (
	X509 Kind = "X.509"
	JWT  Kind = "JWT"
)

// Authority names one authority of a bundle.
type Authority struct {
	Kind Kind `json:"kind"`
	// ID is the subject key ID in hexadecimal or the JWT key ID: what SPIRE
	// calls the authority's ID. A certificate without a subject key ID goes by
	// the SHA-256 of its bytes.
	ID string `json:"id"`
	// NotBefore and NotAfter are the certificate's; a bundle tells no times of
	// JWT authorities.
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
}

// Comparison is what Compare found. The lists are sorted by kind and ID.
type Comparison struct {
	State State
	// Lacking are the authorities that only the source has.
	Lacking []Authority
	// Foreign are the authorities that only the held bundle has. An ID in both
	// lists belongs to two different keys.
	Foreign []Authority
}

// String says the state and, where there is one, the difference: "behind: lacks
// X.509 authority 0a1b…".
func (c Comparison) String() string {
	var differences []string
	for _, list := range []struct {
		what        string
		authorities []Authority
	}{{"lacks", c.Lacking}, {"has foreign", c.Foreign}} {
		for _, a := range list.authorities {
			differences = append(differences, fmt.Sprintf("%s %s authority %s", list.what, a.Kind, a.ID))
		}
	}
	if len(differences) == 0 {
		return string(c.State)
	}
	return string(c.State) + ": " + strings.Join(differences, ", ")
}

// LackingSince returns when the first of the lacking X.509 authorities was issued,
// if it was a SPIRE server that signed it; zero without any.
func (c Comparison) LackingSince() (first time.Time) {
	for _, a := range c.Lacking {
		if a.Kind != X509 {
			continue
		}
		if issued := a.NotBefore.Add(backDating); first.IsZero() || issued.Before(first) {
			first = issued
		}
	}
	return first
}

// Compare compares the bundle that one server holds of a trust domain, nil if
// none, with the one that this trust domain's own server has.
//
// Refresh hints do not count, and neither do sequence numbers: SPIRE never reads
// them, numbers what it fetched differently from what it serves, and accepts an
// older number over a newer one (pkg/server/bundle/client/updater.go), so equal
// bundles have different numbers and rolled-back ones may have higher.
func Compare(held, source *spiffebundle.Bundle) Comparison {
	want := authorities(source)
	if held == nil {
		return Comparison{State: Missing, Lacking: without(want, nil)}
	}
	have := authorities(held)
	c := Comparison{Lacking: without(want, have), Foreign: without(have, want)}
	switch {
	case len(have) == 0:
		c.State = Empty
	case len(c.Foreign) == len(have):
		c.State = Foreign
	case len(c.Foreign) > 0:
		c.State = Differing
	case len(c.Lacking) > 0:
		c.State = Behind
	default:
		c.State = InSync
	}
	return c
}

// Authorities names the authorities of a bundle, sorted by kind and ID; none where it is nil.
func Authorities(bundle *spiffebundle.Bundle) []Authority {
	if bundle == nil {
		return nil
	}
	return without(authorities(bundle), nil)
}

// authority is an Authority with what makes it equal to another one.
type authority struct {
	Authority
	// certificate is that of an X.509 authority, key that of a JWT authority.
	certificate []byte
	key         crypto.PublicKey
}

func (a authority) equal(b authority) bool {
	if a.Kind != b.Kind || a.ID != b.ID {
		return false
	}
	if a.Kind == X509 {
		return bytes.Equal(a.certificate, b.certificate)
	}
	key, ok := a.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b.key)
}

func authorities(bundle *spiffebundle.Bundle) []authority {
	var all []authority
	for _, certificate := range bundle.X509Authorities() {
		id := hex.EncodeToString(certificate.SubjectKeyId)
		if id == "" {
			sum := sha256.Sum256(certificate.Raw)
			id = hex.EncodeToString(sum[:])
		}
		all = append(all, authority{
			Authority:   Authority{Kind: X509, ID: id, NotBefore: certificate.NotBefore, NotAfter: certificate.NotAfter},
			certificate: certificate.Raw,
		})
	}
	for id, key := range bundle.JWTAuthorities() {
		all = append(all, authority{Authority: Authority{Kind: JWT, ID: id}, key: key})
	}
	return all
}

// without names those of a that are not among b.
func without(a, b []authority) []Authority {
	var rest []Authority
	for _, x := range a {
		if !slices.ContainsFunc(b, x.equal) {
			rest = append(rest, x.Authority)
		}
	}
	slices.SortFunc(rest, func(x, y Authority) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.ID, y.ID))
	})
	return rest
}

// X509IDs returns the IDs of a bundle's X.509 authorities, in their order.
func X509IDs(bundle *spiffebundle.Bundle) []string { return ids(bundle, X509) }

// JWTIDs returns the key IDs of a bundle's JWT authorities, sorted.
func JWTIDs(bundle *spiffebundle.Bundle) []string {
	return slices.Sorted(slices.Values(ids(bundle, JWT)))
}

func ids(bundle *spiffebundle.Bundle, kind Kind) []string {
	var list []string
	for _, a := range authorities(bundle) {
		if a.Kind == kind {
			list = append(list, a.ID)
		}
	}
	return list
}
