package lab

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// published returns nil when the agents in a place find the X.509 authorities of this
// bundle, that of their server.
func published(ctx context.Context, objects access.Objects, p topology.Place, bundle *spiffebundle.Bundle) error {
	var is struct {
		Data map[string]string `json:"data"`
	}
	there, err := objects.Object(ctx, configMapKey(p, spire.BundleConfigMap), &is)
	if err != nil {
		return err
	}
	differs := func(seen string) error {
		return because(Unpublished, "the ConfigMap %s, by which an agent knows its server when it starts, %s: the next up restores it", spire.BundleConfigMap, seen)
	}
	text := is.Data[spire.SecretBundle]
	switch {
	case !there:
		return differs("is not there")
	case text == "":
		return differs("has no " + spire.SecretBundle)
	}
	authorities, err := pki.Parse([]byte(text))
	if err != nil {
		return differs(fmt.Sprintf("cannot be read (%v)", err))
	}
	if !x509bundle.FromX509Authorities(bundle.TrustDomain(), authorities).Equal(bundle.X509Bundle()) {
		return differs("has other X.509 authorities than the server")
	}
	return nil
}

// published asks once more where the two differ: the server publishes a new
// authority right after it has it.
func (a *asked) published(ctx context.Context, in access.Objects, p topology.Place) error {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	err := published(ctx, in, p, a.bundle)
	if causeOf(err) != Unpublished {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(federation.EndpointBound()):
	}
	bundle, err := a.site.API.Bundle(ctx)
	if err == nil {
		err = published(ctx, in, p, bundle)
	}
	return err
}

// publish restores what agents start with. Those that have hung because it was missing
// start again: the kubelet would look only up to two minutes later.
func (u *up) publish(ctx context.Context, m *topology.Member) error {
	in := u.in(m.Cluster())
	bundle, err := u.site(m.Server).API.Bundle(ctx)
	if err != nil {
		return err
	}
	err = published(ctx, in.Objects, m.Place, bundle)
	if causeOf(err) != Unpublished {
		return err
	}
	plan.Did(ctx)
	object := bundleObject(m.Place, bundle.X509Authorities())
	if m.Remote() {
		object = access.As{Manager: spire.BundlePublisher, Object: object}
	}
	if _, err := in.Objects.Apply(ctx, object); err != nil {
		return err
	}
	if in.Pods.Ready(ctx, AgentKey(m.Place)) == nil {
		return nil
	}
	return u.renewAgents(ctx, m)
}

func bundleObject(p topology.Place, authorities []*x509.Certificate) any {
	key := configMapKey(p, spire.BundleConfigMap)
	return map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"namespace": key.Namespace, "name": key.Name},
		"data":     map[string]any{spire.SecretBundle: string(pki.Marshal(authorities...))},
	}
}
