package lab

import (
	"context"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// What of SPIRE runs in each cluster.
var (
	serverKey    = ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: spire.Namespace, Name: spire.ServerStatefulSet}
	agentKey     = ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: spire.Namespace, Name: spire.AgentDaemonSet}
	serverPodKey = ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: spire.Namespace, Name: spire.ServerPod}
	datastoreKey = ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: spire.Namespace, Name: spire.DatabaseRelease}
)

// ServerKey and AgentKey return what SPIRE's server and agents run as in each
// cluster.
func ServerKey() ObjectKey { return serverKey }

// AgentKey is beside ServerKey.
func AgentKey() ObjectKey { return agentKey }

func (u *up) spireServer(ctx context.Context, td topology.TrustDomain) error {
	access := u.access(td.Cluster)
	settings, err := u.serverSettings(td)
	if err != nil {
		return err
	}
	applied, err := access.Objects.Apply(ctx, u.images.CRDs...)
	if err != nil {
		return err
	}
	loaded := false
	if td.BundleEndpoint.Profile == topology.HTTPSWeb {
		if loaded, err = u.Parts.Images.LoadDemo(ctx, u.topology.Name, td.Cluster, servingCert); err != nil {
			return err
		}
	}
	changed, err := access.Releases.Apply(ctx, Release{
		Name: spireRelease, Namespace: spire.Namespace, Chart: "spire", Values: spire.NewValues(settings),
	})
	if err != nil {
		return err
	}
	if applied || loaded || changed {
		plan.Did(ctx)
	}
	var server *spire.Server
	err = wait(ctx, rolloutBound, check.Check{Name: "the SPIRE server runs", Probe: func(ctx context.Context) (err error) {
		// Kubernetes says that the pods of a node that was stopped run until it
		// has looked again: only an answer shows that the server does. Whether
		// the pod is ready is no matter here: kubelet puts the first look off
		// by up to a period in a node that is new.
		if err := access.Pods.Started(ctx, serverKey, spire.ServerContainer); err != nil {
			return err
		}
		server, err = connectServer(ctx, access, td.Name)
		return err
	}})
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.servers[td.Name] = server
	u.mu.Unlock()
	if err := u.publish(ctx, td.Cluster, server); err != nil {
		return err
	}
	if applied {
		return nil // what is to sign the webhook's certificate is new
	}
	return renewWebhook(ctx, access, server)
}

// serverSettings gathers what a server is installed with: what its trust domain
// asks for, and what its relationships need in its configuration.
func (u *up) serverSettings(td topology.TrustDomain) (s spire.Settings, err error) {
	s = spire.Settings{TrustDomain: td, Images: spire.Images{
		Server: u.images.SPIREServer, Agent: u.images.SPIREAgent, ControllerManager: u.images.SPIREControllerManager,
		ServingCert: u.images.Demos[servingCert],
	}}
	if s.Address, err = u.addresses.Server(td); err != nil {
		return s, err
	}
	for _, r := range u.topology.RelationshipsOf(td.Name) {
		trusted, err := u.topology.TrustDomain(r.Trusted)
		if err != nil {
			return s, err
		}
		if r.Mode != topology.Manual && r.Profile == topology.HTTPSWeb {
			s.WebRoots = append(s.WebRoots, u.webRoot(r.Trusted))
		}
		if r.Mode == topology.Static {
			address, err := u.addresses.Server(trusted)
			if err != nil {
				return s, err
			}
			s.Static = append(s.Static, spire.StaticRelationship(r, trusted.BundleEndpoint, address))
		}
	}
	return s, nil
}

// datastore runs the PostgreSQL that a server keeps its entries in.
func (u *up) datastore(ctx context.Context, td topology.TrustDomain) error {
	if err := u.database(ctx, td.Cluster, spire.Namespace, spire.DatabaseRelease, spire.DatabaseName, spire.DatabaseUser); err != nil {
		return err
	}
	return wait(ctx, rolloutBound, check.Check{Name: "PostgreSQL runs", Probe: func(ctx context.Context) error {
		return u.access(td.Cluster).Pods.Started(ctx, datastoreKey, postgres)
	}})
}

func (u *up) spireAgents(ctx context.Context, td topology.TrustDomain) error {
	return wait(ctx, rolloutBound, check.Check{Name: "the SPIRE agent runs", Probe: func(ctx context.Context) error {
		return u.access(td.Cluster).Pods.Ready(ctx, agentKey)
	}})
}
