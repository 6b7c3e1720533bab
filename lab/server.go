package lab

import (
	"context"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// ServerKey returns what a SPIRE server runs as.
func ServerKey(p topology.Place) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: p.Namespace, Name: spire.ServerStatefulSet}
}

// AgentKey returns what the agents of a SPIRE server run as.
func AgentKey(p topology.Place) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: p.Namespace, Name: spire.AgentDaemonSet}
}

func serverPodKey(p topology.Place) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: spire.ServerPod}
}

func datastoreKey(p topology.Place) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: p.Namespace, Name: spire.DatabaseRelease}
}

func secretKey(p topology.Place, name string) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: p.Namespace, Name: name}
}

func configMapKey(p topology.Place, name string) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: p.Namespace, Name: name}
}

func (u *up) spireServer(ctx context.Context, s *topology.Server) error {
	in := u.in(s.Place.Cluster)
	applied, err := in.Objects.Apply(ctx, u.images.CRDs...)
	if err != nil {
		return err
	}
	loaded := false
	if s.Domain.BundleEndpoint.Profile == topology.HTTPSWeb {
		if loaded, err = u.Parts.Images.LoadDemo(ctx, s.Place.Cluster.Lab, s.Place.Cluster.Name, servingCert); err != nil {
			return err
		}
	}
	values := spire.NewValues(u.serverSettings(s))
	install := func() (bool, error) {
		return in.Releases.Apply(ctx, access.Release{Name: spireRelease, Namespace: s.Place.Namespace, Chart: "spire", Values: values})
	}
	// An agent hangs until the server has published a bundle, and kubelet looks for
	// that less and less often. Where the server first waits for its PostgreSQL, new
	// agents come after the bundle.
	if s.Domain.Datastore == topology.Postgres {
		there, err := in.Objects.Object(ctx, AgentKey(s.Place), new(struct{}))
		if err != nil {
			return err
		}
		values.WithoutAgents = !there
	}
	changed, err := install()
	if err != nil {
		return err
	}
	if applied || loaded || changed {
		plan.Did(ctx)
	}
	if err := u.connect(ctx, s); err != nil {
		return err
	}
	if err := u.publish(ctx, u.site(s)); err != nil {
		return err
	}
	if values.WithoutAgents {
		values.WithoutAgents = false
		if _, err := install(); err != nil {
			return err
		}
	}
	if applied {
		return nil // what is to sign the webhook's certificate is new
	}
	renewed, err := renewWebhook(ctx, u.site(s))
	if err == nil && renewed {
		// The connection may still lead to the server that is ending.
		err = u.connect(ctx, s)
	}
	return err
}

// connect waits until a server runs, and connects to it, also where there is a
// connection already.
func (u *up) connect(ctx context.Context, s *topology.Server) error {
	in := u.in(s.Place.Cluster)
	var site *Site
	err := wait(ctx, rolloutBound, check.Check{Name: "the SPIRE server runs", Probe: func(ctx context.Context) (err error) {
		// The server's pod waits for its datastore: that is what to look at first.
		if s.Domain.Datastore == topology.Postgres {
			if err := in.Pods.Started(ctx, datastoreKey(s.Place), postgres); err != nil {
				return fmt.Errorf("its datastore: %w", err)
			}
		}
		// Kubernetes says that the pods of a node that was stopped run until it
		// has looked again: only an answer shows that the server does. Whether
		// the pod is ready is no matter here: kubelet puts the first look off
		// by up to a period in a node that is new.
		if err := in.Pods.Started(ctx, ServerKey(s.Place), spire.ServerContainer); err != nil {
			return err
		}
		site, err = connect(ctx, s, in)
		return err
	}})
	if err != nil {
		return err
	}
	u.mu.Lock()
	before := u.sites[s]
	u.sites[s] = site
	u.mu.Unlock()
	if before != nil {
		return before.Close()
	}
	return nil
}

// serverSettings gathers what a server is installed with: what its trust domain
// asks for, and what its relationships need in its configuration.
func (u *up) serverSettings(s *topology.Server) spire.Settings {
	settings := spire.Settings{Server: s, Images: spire.Images{
		Server: u.images.SPIREServer, Agent: u.images.SPIREAgent, ControllerManager: u.images.SPIREControllerManager,
		ServingCert: u.images.Demos[servingCert], Postgres: u.images.Demos[postgres],
	}}
	for _, r := range s.Domain.Trusts {
		if r.Mode != topology.Manual && r.Profile == topology.HTTPSWeb {
			settings.WebRoots = append(settings.WebRoots, u.webRoot(r.Trusted.Server()))
		}
		if r.Mode == topology.Static {
			settings.Static = append(settings.Static, spire.StaticRelationship(r))
		}
	}
	return settings
}

func (u *up) spireAgents(ctx context.Context, s *topology.Server) error {
	return wait(ctx, rolloutBound, check.Check{Name: "the SPIRE agent runs", Probe: func(ctx context.Context) error {
		return u.in(s.Place.Cluster).Pods.Ready(ctx, AgentKey(s.Place))
	}})
}
