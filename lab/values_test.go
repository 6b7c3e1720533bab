package lab_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// TestValues holds what the driver installs the charts with. These files are
// what charts/demo_test.go renders the charts with, so that both sides are held
// to each other.
func TestValues(t *testing.T) {
	alone := edited(t, "  name: quotes\n", "  name: alone\n")
	alone.Clusters, alone.TrustDomains, alone.Relationships, alone.Workloads = alone.Clusters[:1], alone.TrustDomains[:1], nil, alone.Workloads[:1]
	unfederated := company(federated(), with("gcp", "jwtIssuer: 'https://gcp.company.com'")).topology(t)
	for name, top := range map[string]topology.Topology{
		"quotes": quotes(t), "enterprise": enterprise(t), "alone": alone, "unfederated": unfederated,
		"static": company(federated("shape: mesh, mode: static")).topology(t), "key-types": keyTypes(t), "spread": spread(t), "nested": nested(t), "hosts": hosted(t),
		"company": presetOf(t, "company"), "tokens": tokens(t), "plain": plain(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if err := w.up(t, w.driver(t), top); err != nil {
					t.Fatal(err)
				}
				golden(t, "values-"+name+".json", w.values())
			})
		})
	}
}

// keyTypes is the preset quotes, with RSA keys in one trust domain and keys of two types
// in the other.
func keyTypes(t *testing.T) topology.Topology {
	t.Helper()
	return edited(t, "  federation:\n", "  trustDomains:\n    - {name: cluster1.com, ca: {keyType: rsa-2048}}\n    - {name: cluster2.com, ca: {jwtKeyType: ec-p384}}\n  federation:\n")
}

// values returns what the releases of all charts of fedlab were made from, with
// one certificate in the place of all.
func (w *world) values() string {
	type installed struct {
		Cluster, Name, Namespace, Chart string
		Values                          json.RawMessage
	}
	var all []installed
	for _, top := range slices.SortedFunc(maps.Keys(w.nodes), nodeName.compare) {
		n := w.nodes[top]
		for _, r := range slices.SortedFunc(maps.Values(n.releases), func(a, b *release) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
		}) {
			if r.Chart != metallbChart {
				values := somePEM.ReplaceAllString(string(encode(r.Values)), `"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"`)
				values = madeAtRandom.ReplaceAllString(values, `"$1":"0123456789abcdef"`)
				all = append(all, installed{top.cluster, r.Name, r.Namespace, r.Chart, json.RawMessage(values)})
			}
		}
	}
	var text bytes.Buffer
	if err := json.Indent(&text, encode(all), "", "  "); err != nil {
		panic(err)
	}
	return text.String() + "\n"
}
