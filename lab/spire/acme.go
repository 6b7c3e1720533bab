package spire

import (
	"time"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// What charts/acme names things, and what it finds in its namespace when it is installed. A
// test of the chart holds both sides to it.
const (
	// ACMERelease is the chart, the release, and what the Deployment and the Service are
	// called.
	ACMERelease = "acme"
	// ACMENamespace is where the lab's ACME server runs.
	ACMENamespace = "fedlab-acme"
	// ACMERootSecret is the authority that the certificates of endpoints lead to, and that of
	// the ACME server itself: its certificate at SecretCertificate, its key at SecretKey.
	ACMERootSecret = "acme-root"
)

// ACMEServerValues is what charts/acme is installed with. Its fields are those of the chart's
// values.schema.json, where the limits of each are.
type ACMEServerValues struct {
	Images  ACMEImages `json:"images"`
	Host    string     `json:"host"`
	TLSPort int        `json:"tlsPort"`
	// ValidityPeriod is in seconds.
	ValidityPeriod int64       `json:"validityPeriod"`
	Service        ACMEService `json:"service"`
}

// ACMEImages names the images to run, each as one whole reference.
type ACMEImages struct {
	Pebble      string `json:"pebble"`
	ServingCert string `json:"servingCert"`
}

// ACMEService is where the ACME server is found.
type ACMEService struct {
	Address string `json:"address"`
}

// NewACMEServerValues returns the values that install the lab's ACME server, whose address
// must be one of the cluster's MetalLB pool.
func NewACMEServerValues(a *topology.ACMEServer, images ACMEImages) ACMEServerValues {
	return ACMEServerValues{
		Images: images, Host: topology.ACMEHost, TLSPort: a.Port, ValidityPeriod: int64(a.TTL / time.Second),
		Service: ACMEService{Address: a.Address.String()},
	}
}
