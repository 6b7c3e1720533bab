package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// AgentKey returns what the agents of a member run as.
func AgentKey(p topology.Place) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: p.Namespace, Name: spire.AgentDaemonSet}
}

func podKey(p topology.Place, name string) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: name}
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
	if s.Place.Host != nil {
		return u.hostServer(ctx, s)
	}
	in := u.in(s.Place.Cluster)
	volumes, err := claimed(ctx, in.Objects, ServerKey(s.Place), spire.ServerPods(s)...)
	if err != nil {
		return err
	}
	applied, err := in.Objects.Apply(ctx, u.images.CRDs...)
	if err != nil {
		return err
	}
	optional := []string{s.Domain.OtherServer(), s.Domain.OtherAgent()}
	if s.Domain.BundleEndpoint.Profile == topology.HTTPSWeb && !s.Nested() && !issuedElsewhere(s) {
		optional = append(optional, servingCert)
	}
	loaded, err := u.load(ctx, s.Place.Cluster, optional...)
	if err != nil {
		return err
	}
	values := spire.NewValues(u.serverSettings(s))
	install := func() (bool, error) {
		return in.Releases.Apply(ctx, access.Release{Name: spireRelease, Namespace: s.Place.Namespace, Chart: "spire", Values: values})
	}
	was, err := statefulSetOf(ctx, in.Objects, s)
	if err != nil {
		return err
	}
	// An agent hangs until the server has published a bundle, and kubelet looks for
	// that less and less often. Where the server first waits for its PostgreSQL, or for
	// its upstream, new agents come after the bundle.
	if s.Domain.Datastore == topology.Postgres || s.Nested() {
		if values.WithoutAgents, err = lacksAgents(ctx, in.Objects, s.Home()); err != nil {
			return err
		}
	}
	// Agents are never newer than their server (SPIRE doc/upgrading.md).
	newAgents := values.Images.Agent
	if values.Images.Agent, err = agentsUntilThen(ctx, in.Objects, s, values.Images); err != nil {
		return err
	}
	if err := volumes.bound(ctx); err != nil {
		return err
	}
	changed, err := install()
	if err != nil {
		return err
	}
	if applied || loaded || changed {
		plan.Did(ctx)
	}
	if was.unready() {
		if err := replaceStuck(ctx, in.Objects, s); err != nil {
			return err
		}
	}
	if err := u.connect(ctx, s); err != nil {
		return err
	}
	if was.unready() && s.Nested() {
		if err := u.becomesReady(ctx, s); err != nil {
			return err
		}
	}
	if err := u.publish(ctx, s.Home()); err != nil {
		return err
	}
	if values.WithoutAgents || values.Images.Agent != newAgents {
		values.WithoutAgents, values.Images.Agent = false, newAgents
		if _, err := install(); err != nil {
			return err
		}
	}
	if applied {
		return nil // what is to sign the webhook's certificate is new
	}
	for _, pod := range spire.ServerPods(s) {
		renewed, err := u.renewWebhook(ctx, u.site(s), pod)
		if err == nil && renewed {
			// The connection may still lead to the server that is ending.
			err = u.connect(ctx, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lacksAgents reports whether a member has no agents yet. One that is there before its
// server has published a bundle hangs, and kubelet looks for the bundle less and less often:
// so new agents come after it.
func lacksAgents(ctx context.Context, in access.Objects, m *topology.Member) (bool, error) {
	there, err := in.Object(ctx, AgentKey(m.Place), new(struct{}))
	return !there, err
}

// agentsUntilThen returns the image of the agents of a server until that runs: the one that
// they have, where the server is to have another one as well.
func agentsUntilThen(ctx context.Context, in access.Objects, s *topology.Server, images spire.Images) (string, error) {
	var server, agent struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct{ Name, Image string } `json:"containers"`
				} `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	_, ofServer := in.Object(ctx, ServerKey(s.Place), &server)
	_, ofAgent := in.Object(ctx, AgentKey(s.Place), &agent)
	changes := false
	for _, c := range server.Spec.Template.Spec.Containers {
		changes = changes || c.Name == spire.ServerContainer && c.Image != images.Server
	}
	for _, c := range agent.Spec.Template.Spec.Containers {
		if c.Name == spire.AgentContainer && changes {
			return c.Image, errors.Join(ofServer, ofAgent)
		}
	}
	return images.Agent, errors.Join(ofServer, ofAgent)
}

// statefulSet is what Kubernetes says of that of a server.
type statefulSet struct {
	Metadata struct {
		Generation int64 `json:"generation"`
	} `json:"metadata"`
	Status struct {
		ObservedGeneration int64  `json:"observedGeneration"`
		UpdateRevision     string `json:"updateRevision"`
		Replicas           int    `json:"replicas"`
		ReadyReplicas      int    `json:"readyReplicas"`
	} `json:"status"`
}

// unready reports whether there is a pod that is not ready.
func (s statefulSet) unready() bool { return s.Status.ReadyReplicas < s.Status.Replicas }

func statefulSetOf(ctx context.Context, in access.Objects, s *topology.Server) (is statefulSet, err error) {
	_, err = in.Object(ctx, ServerKey(s.Place), &is)
	return is, err
}

// replaceStuck deletes the pods of a server that was not ready, if they are of an older
// version now. A StatefulSet replaces no such pod by itself (kubernetes/kubernetes issue 67250), and
// the pod is not ready while the controller manager of another cluster is not.
func replaceStuck(ctx context.Context, in access.Objects, s *topology.Server) error {
	var set statefulSet
	err := wait(ctx, apiBound, check.Check{Name: "Kubernetes acts on the newest version of the SPIRE server", Probe: func(ctx context.Context) (err error) {
		if set, err = statefulSetOf(ctx, in, s); err == nil && set.Status.ObservedGeneration < set.Metadata.Generation {
			err = fmt.Errorf("it has acted on version %d of %d", set.Status.ObservedGeneration, set.Metadata.Generation)
		}
		return err
	}})
	if err != nil {
		return err
	}
	for _, name := range spire.ServerPods(s) {
		if err := replaceOlder(ctx, in, podKey(s.Place, name), set.Status.UpdateRevision); err != nil {
			return err
		}
	}
	return nil
}

func replaceOlder(ctx context.Context, in access.Objects, key access.ObjectKey, revision string) error {
	var pod struct {
		Metadata struct {
			Labels            map[string]string `json:"labels"`
			DeletionTimestamp string            `json:"deletionTimestamp"`
		} `json:"metadata"`
	}
	there, err := in.Object(ctx, key, &pod)
	if err != nil || !there || pod.Metadata.DeletionTimestamp != "" || pod.Metadata.Labels["controller-revision-hash"] == revision {
		return err
	}
	plan.Did(ctx)
	return in.Delete(ctx, key)
}

// connect waits until a server runs, and connects to it, also where there is a
// connection already.
func (u *up) connect(ctx context.Context, s *topology.Server) error {
	in := u.in(s.Place.Cluster)
	var site *Site
	// Of several replicas each starts once the one before it is ready.
	bound := rolloutBound * time.Duration(len(spire.ServerPods(s)))
	err := wait(ctx, bound, check.Check{Name: "the SPIRE server runs", Probe: func(ctx context.Context) (err error) {
		// Nothing but ctx ends a call over a connection that stands: a server that hangs,
		// or its upstream, must not take up the whole wait.
		ctx, cancel := context.WithTimeout(ctx, answerBound)
		defer cancel()
		if s.Place.Host != nil {
			if err := u.ended(ctx, s.Place.Host, HostServer); err != nil {
				return err
			}
			site, err = u.connectOnHost(ctx, s)
			return err
		}
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
			return errors.Join(err, u.unsigned(ctx, s))
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

// load gives a node the images that it lacks, and reports whether it lacked one. Empty names
// are none.
func (u *up) load(ctx context.Context, c *topology.Cluster, images ...string) (loaded bool, err error) {
	for _, name := range images {
		if name == "" {
			continue
		}
		did, err := u.Parts.Images.LoadDemo(ctx, c.Lab, c.Name, name)
		if err != nil {
			return loaded, fmt.Errorf("image of %s: %w", name, err)
		}
		loaded = loaded || did
	}
	return loaded, nil
}

// serverSettings gathers what a server is installed with: what its trust domain
// asks for, and what its relationships need in its configuration.
func (u *up) serverSettings(s *topology.Server) spire.Settings {
	settings := spire.Settings{Server: s, Images: spire.Images{
		Server: u.images.of(s.Domain.OtherServer(), u.images.SPIREServer), Agent: u.images.of(s.Domain.OtherAgent(), u.images.SPIREAgent),
		ControllerManager: u.images.SPIREControllerManager,
		ServingCert:       u.images.Demos[servingCert], Postgres: u.images.Demos[postgres],
	}, Kubeconfigs: u.kubeconfigsFor(s)}
	if orders(s) {
		// By it the server verifies the directory.
		settings.WebRoots = append(settings.WebRoots, u.webRoot(s))
	}
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

func (u *up) spireAgents(ctx context.Context, m *topology.Member) error {
	switch {
	case m.Host() != nil:
		return u.join(ctx, m)
	case m.Remote():
		return u.attend(ctx, m)
	}
	return wait(ctx, rolloutBound, check.Check{Name: "the SPIRE agent runs", Probe: func(ctx context.Context) error {
		err := u.in(m.Cluster()).Pods.Ready(ctx, AgentKey(m.Place))
		if err != nil {
			err = errors.Join(err, u.evict(ctx, m.Server))
		}
		return err
	}})
}

// evict has a server forget the agents that are banned, each of which ends whenever it starts.
func (u *up) evict(ctx context.Context, s *topology.Server) error {
	api := u.site(s).API
	agents, err := api.Agents(ctx)
	for _, a := range agents {
		if err == nil && a.Banned {
			plan.Did(ctx)
			err = api.DeleteAgent(ctx, a.ID)
		}
	}
	return err
}
