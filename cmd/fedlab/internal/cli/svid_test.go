package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
)

func TestPrintSVIDs(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := lab.SVIDs{
		Workload: "stock-quotes", Cluster: "market", Bundles: []string{"cluster1.com", "cluster2.com"},
		X509: []lab.X509SVID{{
			SPIFFEID: "spiffe://cluster1.com/server", Hint: "ours",
			Chain: []lab.Certificate{{
				Serial: "12", SubjectKeyID: "aa", AuthorityKeyID: "bb", NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), DNSNames: []string{"quotes"},
			}, {Serial: "13", NotBefore: now.Add(time.Minute), NotAfter: now.Add(2 * time.Minute)}},
			Verified: []lab.Verification{{Holder: "cluster1.com"}, {Holder: "cluster2.com", Problem: "unknown authority\nmore"}},
		}},
		JWT: []lab.JWTSVID{{
			SPIFFEID: "spiffe://cluster1.com/server", Audience: []string{"me"}, Expiry: now.Add(5 * time.Minute), Token: "a.secret.token",
			Verified: []lab.Verification{{Holder: "cluster1.com"}},
		}},
	}
	want := `
WORKLOAD  stock-quotes in cluster market
BUNDLES   cluster1.com, cluster2.com

X509-SVID       spiffe://cluster1.com/server
  hint          ours
  certificate   serial 12, key aa, signed by key bb
  valid         from 2026-01-02T03:03:05Z to 2026-01-02T04:04:05Z (1h left)
  DNS names     quotes
  above it      serial 13, key -, signed by key -
  valid         from 2026-01-02T03:05:05Z to 2026-01-02T03:06:05Z (not yet)
  verified      by the bundle that cluster1.com has
  NOT VERIFIED  by the bundle that cluster2.com has: unknown authority

JWT-SVID    spiffe://cluster1.com/server
  audience  me
  valid     until 2026-01-02T03:09:05Z (5m00s left)
  verified  by the bundle that cluster1.com has
`
	var b bytes.Buffer
	if err := printSVIDs(&b, s, now); err != nil || b.String() != strings.TrimPrefix(want, "\n") {
		t.Errorf("error %v, got\n%s\nwant%s", err, b.String(), want)
	}
}
