// Package charts holds the Helm charts that a lab is made of, one folder each.
//
// It refuses to know Helm: what reads and installs them lives elsewhere.
package charts

import "embed"

// FS is all charts, each below a folder of its name.
//
//go:embed all:spire all:stock-quotes all:broker-webapp
//go:embed all:frontend all:data-service all:legacy-bridge all:api-gateway all:service all:plain-service all:postgres
//go:embed all:probe all:oidc-discovery-provider all:acme all:bundle-endpoint-proxy
var FS embed.FS
