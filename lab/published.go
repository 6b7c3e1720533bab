package lab

import (
	"context"
	"fmt"
	"strings"
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

// published returns nil when the agents of a member find the X.509 authorities of this
// bundle, that of their server, and the server can write the next one.
func published(ctx context.Context, objects access.Objects, m *topology.Member, bundle *spiffebundle.Bundle) error {
	is, there, err := bundleIn(ctx, objects, m)
	if err != nil {
		return err
	}
	differs := func(seen string) error {
		return because(Unpublished, "the ConfigMap %s, by which an agent knows its server when it starts, %s: the next up restores it", spire.BundleConfigMap, seen)
	}
	text := is.text()
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
	// This plugin takes nothing over from others (see spire.BundlePublisher).
	if others := is.others(spire.BundlePublisher); m.Remote() && m.Domain.BundlePlugin == topology.K8sConfigMap && len(others) > 0 {
		return differs(fmt.Sprintf("was written by %s, from which the server does not take it over: it could not publish its next authority", strings.Join(others, " and ")))
	}
	return nil
}

// bundleObject is the ConfigMap with the bundle that agents start with.
type bundleObject struct {
	Metadata struct {
		ManagedFields []struct {
			Manager  string `json:"manager"`
			FieldsV1 struct {
				Data map[string]any `json:"f:data"`
			} `json:"fieldsV1"`
		} `json:"managedFields"`
	} `json:"metadata"`
	Data map[string]string `json:"data"`
}

func bundleIn(ctx context.Context, objects access.Objects, m *topology.Member) (is bundleObject, there bool, err error) {
	there, err = objects.Object(ctx, configMapKey(m.Place, spire.BundleConfigMap), &is)
	return is, there, err
}

func (o bundleObject) text() string { return o.Data[spire.SecretBundle] }

// others returns the field managers that have written the bundle, except this one.
func (o bundleObject) others(manager string) (names []string) {
	for _, by := range o.Metadata.ManagedFields {
		if _, wrote := by.FieldsV1.Data["f:"+spire.SecretBundle]; wrote && by.Manager != manager {
			names = append(names, by.Manager)
		}
	}
	return names
}

// published asks once more where the two differ: the server publishes a new
// authority right after it has it.
func (a *asked) published(ctx context.Context, in access.Objects, m *topology.Member) error {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	err := published(ctx, in, m, a.bundle)
	if causeOf(err) != Unpublished {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(federation.EndpointBound()):
	}
	bundle, err := a.site.API.Bundle(ctx)
	if err == nil {
		err = published(ctx, in, m, bundle)
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
	err = published(ctx, in.Objects, m, bundle)
	if causeOf(err) != Unpublished {
		return err
	}
	plan.Did(ctx)
	object, err := restoredBundle(ctx, in.Objects, m, bundle)
	if err != nil {
		return err
	}
	if _, err := in.Objects.Apply(ctx, object); err != nil {
		return err
	}
	if in.Pods.Ready(ctx, AgentKey(m.Place)) == nil {
		return nil
	}
	return u.renewAgents(ctx, m)
}

// restoredBundle is what the server would have written for the agents of a member, in the
// name of its plugin.
func restoredBundle(ctx context.Context, objects access.Objects, m *topology.Member, bundle *spiffebundle.Bundle) (any, error) {
	key, text := configMapKey(m.Place, spire.BundleConfigMap), string(pki.Marshal(bundle.X509Authorities()...))
	object := map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"namespace": key.Namespace, "name": key.Name},
		"data":     map[string]any{spire.SecretBundle: text},
	}
	if !m.Remote() || m.Domain.BundlePlugin != topology.K8sConfigMap {
		return object, nil
	}
	is, _, err := bundleIn(ctx, objects, m)
	if err != nil {
		return nil, err
	}
	// Two that write the same value own it together; only another one takes it away
	// from who wrote it before (Kubernetes, Server-Side Apply, Conflicts).
	if is.text() == text {
		object["data"] = map[string]any{spire.SecretBundle: text + "\n"}
	}
	return access.As{Manager: spire.BundlePublisher, Object: object}, nil
}
