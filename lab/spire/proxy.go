package spire

import (
	"cmp"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// What charts/bundle-endpoint-proxy names things. A test of the chart holds both sides to it.
const (
	// ProxyChart is the name of the chart.
	ProxyChart = "bundle-endpoint-proxy"
	// ProxyName is the release, and what its Deployment and its Service are called.
	ProxyName = "spire-bundle-endpoint-proxy"
	// ProxyContainer is the container with HAProxy.
	ProxyContainer = "haproxy"
)

// ProxyValues is what charts/bundle-endpoint-proxy is installed with. Its fields are those of
// the chart's values.schema.json, where the limits of each are.
type ProxyValues struct {
	Images ProxyImages    `json:"images"`
	Route  topology.Route `json:"route"`
	Host   string         `json:"host"`
	// Path is where the proxy answers, with a query if there is one, where it ends TLS.
	Path        string           `json:"path"`
	Certificate ProxyCertificate `json:"certificate"`
	Endpoint    ProxyAddress     `json:"endpoint"`
	Service     ProxyAddress     `json:"service"`
}

// ProxyImages names the images to run, each as one whole reference.
type ProxyImages struct {
	HAProxy string `json:"haproxy"`
	// ServingCert is that of apps/serving-cert; a proxy that ends TLS with a certificate of
	// the lab's needs it.
	ServingCert string `json:"servingCert,omitempty"`
}

// ProxyCertificate is what a proxy shows that ends TLS.
type ProxyCertificate struct {
	// Secret has a certificate of the person's own; empty is one of the web CA.
	Secret string `json:"secret,omitempty"`
	// Digest changes with the certificates: the proxy reads them once.
	Digest string `json:"digest,omitempty"`
}

// ProxyAddress is an address with its port.
type ProxyAddress struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
}

// NewProxyValues returns the values that install the proxy in front of a bundle endpoint,
// whose address must be one of the cluster's MetalLB pool. Digest is of the certificates that
// a proxy has which ends TLS.
func NewProxyValues(p *topology.Proxy, images ProxyImages, digest string) ProxyValues {
	server := p.Domain.Server()
	endpoint := server.Domain.BundleEndpoint
	values := ProxyValues{
		Images: ProxyImages{HAProxy: images.HAProxy}, Route: endpoint.Route, Host: endpoint.Host, Path: cmp.Or(endpoint.Path, "/"),
		Endpoint: ProxyAddress{server.Address.String(), endpoint.Port}, Service: ProxyAddress{p.Address.String(), endpoint.PublicPort()},
	}
	if !p.EndsTLS() {
		return values
	}
	values.Certificate.Digest = digest
	if own := endpoint.ServingCert.Own; own != nil {
		values.Certificate.Secret = own.Secret
	} else {
		values.Images.ServingCert = images.ServingCert
	}
	return values
}
