// Package identity gives a demo program its SPIFFE identity and tells it who
// is at the far end of a connection, and why that is believed: which
// authority of which trust domain's bundle verified the peer's X509-SVID.
//
// It speaks the SPIFFE Workload API, and mutual TLS for gRPC, for HTTPS and
// for plain connections. It refuses to know how identities are registered or
// federated, who may call what, and what the programs say to each other once
// they know whom they talk to.
package identity
