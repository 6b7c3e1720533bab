package charts_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func acmeValues() spire.ACMEServerValues {
	return spire.NewACMEServerValues(&topology.ACMEServer{
		ACMEServerSpec: topology.ACMEServerSpec{TTL: 720*time.Hour + 2*time.Minute, Port: 9443}, Address: netip.MustParseAddr("10.192.1.100"),
	}, spire.ACMEImages{Pebble: "example.com/pebble:1", ServingCert: "example.com/serving-cert:1"})
}

func TestACMEGolden(t *testing.T) {
	manifests, err := render(spire.ACMERelease, spire.ACMENamespace, acmeValues())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/acme.yaml", manifests)
	all := ""
	for _, manifest := range manifests {
		all += manifest
	}
	for _, want := range []string{
		`"validityPeriod": 2592120`, `"tlsPort": 9443`, "secretName: " + spire.ACMERootSecret, "name: " + spire.ACMERelease, `value: "` + topology.ACMEHost + `"`,
		"kind: Deployment", "metallb.io/loadBalancerIPs: \"10.192.1.100\"",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in it", want)
		}
	}
}

func TestACMERefuses(t *testing.T) {
	for name, change := range map[string]func(*spire.ACMEServerValues){
		"no image":                 func(v *spire.ACMEServerValues) { v.Images.Pebble = "" },
		"a life that SPIRE renews": func(v *spire.ACMEServerValues) { v.ValidityPeriod = 2592000 },
		"no address":               func(v *spire.ACMEServerValues) { v.Service.Address = "" },
		"a name without a dot":     func(v *spire.ACMEServerValues) { v.Host = "acme" },
		"a port that is none":      func(v *spire.ACMEServerValues) { v.TLSPort = 0 },
	} {
		values := acmeValues()
		change(&values)
		if _, err := render(spire.ACMERelease, spire.ACMENamespace, values); err == nil {
			t.Errorf("the chart takes %s", name)
		}
	}
}
