package spire

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
)

// adminTTL is the life of the SVID that a connection is made with. It must
// outlast a connection, which SPIRE ends after three minutes
// (pkg/server/endpoints/endpoints.go, defaultMaxConnectionAge).
const adminTTL = 10 * time.Minute

// AdminID returns the SPIFFE ID that fedlab calls the server of td with. The
// server's configuration names it in admin_ids.
func AdminID(td spiffeid.TrustDomain) spiffeid.ID {
	return spiffeid.RequireFromPath(td, "/fedlab/admin")
}

// ServerID returns the SPIFFE ID that the server of td shows to agents, to
// callers of its API and, with the https_spiffe profile, to readers of its
// bundle (pkg/common/idutil/spiffeid.go).
func ServerID(td spiffeid.TrustDomain) spiffeid.ID {
	return spiffeid.RequireFromPath(td, "/spire/server")
}

// agentPath is where the IDs of agents begin that the node attestor k8s_psat has
// attested (pkg/common/plugin/k8s, AgentID).
const agentPath = "/spire/agent/k8s_psat/"

// AgentID returns the SPIFFE ID of the agent of td on a node of a cluster.
func AgentID(td spiffeid.TrustDomain, cluster, nodeUID string) spiffeid.ID {
	return spiffeid.RequireFromPath(td, agentPath+cluster+"/"+nodeUID)
}

// AttestedIn returns the cluster in which an agent has attested, by its SPIFFE ID; empty
// for what is none of AgentID.
func AttestedIn(id spiffeid.ID) string {
	node, of := strings.CutPrefix(id.Path(), agentPath)
	cluster, _, whole := strings.Cut(node, "/")
	if !of || !whole {
		return ""
	}
	return cluster
}

// mint lets the server of td sign an SVID for AdminID, and returns it with the
// server's own X.509 authorities. The private key is in memory only.
func mint(ctx context.Context, exec Exec, td spiffeid.TrustDomain) (*x509svid.SVID, *x509bundle.Bundle, error) {
	id := AdminID(td)
	out, err := exec(ctx, "x509", "mint", "-spiffeID", id.String(), "-ttl", adminTTL.String(), "-output", "json")
	if err != nil {
		return nil, nil, fmt.Errorf("mint SVID of %s: %w", id, err)
	}
	var minted struct {
		X509SVID   [][]byte `json:"x509_svid"`
		PrivateKey []byte   `json:"private_key"`
		RootCAs    [][]byte `json:"root_cas"`
	}
	// Before 1.15.0 the answer is the only element of a list (its CHANGELOG, number 6655).
	var list []json.RawMessage
	if json.Unmarshal(out, &list) == nil && len(list) == 1 {
		out = list[0]
	}
	if err := json.Unmarshal(out, &minted); err != nil {
		return nil, nil, fmt.Errorf("read minted SVID of %s: %w", id, err)
	}
	svid, err := x509svid.ParseRaw(slices.Concat(minted.X509SVID...), minted.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("read minted SVID of %s: %w", id, err)
	}
	bundle, err := x509bundle.ParseRaw(td, slices.Concat(minted.RootCAs...))
	if err != nil {
		return nil, nil, fmt.Errorf("read X.509 authorities that came with SVID of %s: %w", id, err)
	}
	return svid, bundle, nil
}

// adminCredentials mints for every handshake. Connections live for minutes, so
// no SVID ever comes near its end, and none outlives the authority that signed
// it: a server that has rotated its keys meanwhile is met with its new ones.
type adminCredentials struct {
	// TransportCredentials answers what does not depend on the SVID.
	credentials.TransportCredentials
	exec Exec
	td   spiffeid.TrustDomain
}

func newAdminCredentials(exec Exec, td spiffeid.TrustDomain) credentials.TransportCredentials {
	return adminCredentials{TransportCredentials: credentials.NewTLS(nil), exec: exec, td: td}
}

func (c adminCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	svid, bundle, err := mint(ctx, c.exec, c.td)
	if err != nil {
		return nil, nil, err
	}
	config := tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(ServerID(c.td)))
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

func (c adminCredentials) Clone() credentials.TransportCredentials { return c }
