package lab

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

var bundleKey = ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: spire.Namespace, Name: spire.BundleConfigMap}

// published returns nil when a cluster's agents find the X.509 authorities of this
// bundle, that of their server.
func published(ctx context.Context, objects Objects, bundle *spiffebundle.Bundle) error {
	var is struct {
		Data map[string]string `json:"data"`
	}
	there, err := objects.Object(ctx, bundleKey, &is)
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
func (v *visit) published(ctx context.Context, cluster string, a asked) error {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	objects := v.access[cluster].Objects
	err := published(ctx, objects, a.bundle)
	if causeOf(err) != Unpublished {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(federation.EndpointBound()):
	}
	bundle, err := a.server.Bundle(ctx)
	if err == nil {
		err = published(ctx, objects, bundle)
	}
	return err
}

// publish restores what agents start with. Those that have hung for want of it
// start again: the kubelet would look only up to two minutes later.
func (u *up) publish(ctx context.Context, cluster string, server *spire.Server) error {
	access := u.access(cluster)
	bundle, err := server.Bundle(ctx)
	if err != nil {
		return err
	}
	err = published(ctx, access.Objects, bundle)
	if causeOf(err) != Unpublished {
		return err
	}
	plan.Did(ctx)
	if _, err := access.Objects.Apply(ctx, bundleObject(bundle.X509Authorities())); err != nil {
		return err
	}
	if access.Pods.Ready(ctx, agentKey) == nil {
		return nil
	}
	return u.renewAgents(ctx, cluster)
}

func bundleObject(authorities []*x509.Certificate) any {
	return map[string]any{
		"apiVersion": bundleKey.APIVersion, "kind": bundleKey.Kind,
		"metadata": map[string]any{"namespace": bundleKey.Namespace, "name": bundleKey.Name},
		"data":     map[string]any{spire.SecretBundle: string(pki.Marshal(authorities...))},
	}
}
