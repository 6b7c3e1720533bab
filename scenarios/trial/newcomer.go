package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// newcomer is what the label, the pod and the registration of a workload that
// comes during a trial are called.
const newcomer = "newcomer"

// Newcomer is a workload that comes to a cluster during a trial: a probe that has
// no identity until it is registered. Then it has the SPIFFE ID of the probe itself,
// so that whoever lets the one in lets the other in.
type Newcomer struct {
	Domain
}

// Welcome lets a newcomer come whose registration fits, and waits until it has its
// identity.
func (d Domain) Welcome(ctx context.Context, federatesWith ...spiffeid.TrustDomain) (Newcomer, error) {
	n, err := d.Newcomer(ctx)
	if err != nil {
		return n, err
	}
	// Until it runs, Kubernetes decides, and not SPIRE.
	if err := d.trial.WaitFor(ctx, n.Runs()); err != nil {
		return n, err
	}
	registered := time.Now()
	if err := n.Register(ctx, federatesWith); err != nil {
		return n, err
	}
	if err := d.trial.Await(ctx, registered, Reconciled(), n.HasIdentity()); err != nil {
		return n, err
	}
	return n, d.trial.See(ctx, "a newcomer whose registration fits gets its identity", n.Identity(), n.ID().String())
}

// Newcomer starts a pod like the probe's.
func (d Domain) Newcomer(ctx context.Context) (Newcomer, error) {
	n := Newcomer{d}
	app := topology.Probe()
	var deployment struct {
		Spec struct {
			Template struct {
				Spec json.RawMessage `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	key := access.ObjectKey{APIVersion: "apps/v1", Kind: "Deployment", Namespace: d.namespace(), Name: app.Deployment}
	there, err := d.Access().Objects.Object(ctx, key, &deployment)
	if err != nil {
		return n, err
	}
	if !there {
		return n, fmt.Errorf("cluster %s has no probe to make another of", d.Cluster().Name)
	}
	d.trial.Restore("remove the newcomer from "+d.Cluster().Name, n.Leave)
	_, err = d.Access().Objects.Apply(ctx, map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": newcomer, "namespace": d.namespace(), "labels": n.labels()},
		"spec":     deployment.Spec.Template.Spec,
	})
	return n, err
}

func (n Newcomer) labels() map[string]string {
	return map[string]string{"fedlab.dev/" + newcomer: "here"}
}

// Label is that of the newcomer's pod, as the selector k8s:pod-label has it.
func (n Newcomer) Label() string { return "fedlab.dev/" + newcomer + ":here" }

// Probe returns a client of the newcomer.
func (n Newcomer) Probe() *traffic.Probe { return n.pod(n.labels()) }

// Calls has the newcomer call a trust domain as soon as it runs, whatever comes of
// it.
func (n Newcomer) Calls(ctx context.Context, to Domain) (*Traffic, error) {
	if err := n.trial.WaitFor(ctx, n.Runs()); err != nil {
		return nil, err
	}
	return n.trial.Attempt(ctx, "the newcomer of "+n.String(), n.Probe(), to, Call{})
}

// Leave takes the newcomer away, and its registration.
func (n Newcomer) Leave(ctx context.Context) error {
	return errors.Join(n.Access().Objects.Delete(ctx, n.registration()), n.Remove(ctx))
}

// Remove deletes the pod and waits until it is gone: the next newcomer has the
// same name. Its registration stays, and fits the next one.
func (n Newcomer) Remove(ctx context.Context) error {
	if err := n.Access().Objects.Delete(ctx, newcomerPod(n.Domain.Domain)); err != nil {
		return err
	}
	return n.trial.WaitFor(ctx, newcomerGone(n.Access().Objects, n.Domain.Domain))
}

func newcomerPod(of *topology.Domain) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: probeNamespace(of), Name: newcomer}
}

// probeNamespace returns where the probe of a trust domain runs.
func probeNamespace(of *topology.Domain) string { return of.Members[0].Namespace(topology.Probe()) }

func (d Domain) namespace() string { return probeNamespace(d.Domain) }

// newcomerGone checks that the pod of a newcomer is no more.
func newcomerGone(objects access.Objects, of *topology.Domain) check.Check {
	return check.Check{Name: "the newcomer is gone", Probe: func(ctx context.Context) error {
		there, err := objects.Object(ctx, newcomerPod(of), &struct{}{})
		if err == nil && there {
			err = errors.New("it is still there")
		}
		return err
	}}
}

func (n Newcomer) registration() access.ObjectKey {
	return n.registrationKey(newcomer, spire.WorkloadIdentitySpec{})
}

// Register gives the newcomer an identity that federates with these trust
// domains. Selectors are those that a workload must have besides its namespace and
// service account.
func (n Newcomer) Register(ctx context.Context, federatesWith []spiffeid.TrustDomain, selectors ...string) error {
	app := topology.Probe()
	names := make([]string, len(federatesWith))
	for i, td := range federatesWith {
		names[i] = td.Name()
	}
	spec := spire.WorkloadIdentitySpec{
		SPIFFEIDTemplate:  "spiffe://{{ .TrustDomain }}" + app.IDTemplate,
		NamespaceSelector: spire.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": n.namespace()}},
		PodSelector:       spire.LabelSelector{MatchLabels: n.labels()},
		WorkloadSelectorTemplates: append([]string{
			"k8s:ns:" + n.namespace(), "k8s:sa:" + app.ServiceAccount, "k8s:pod-name:" + newcomer,
		}, selectors...),
		FederatesWith: names,
	}
	// One that has just started answers a little later than it is ready.
	return n.trial.WaitFor(ctx, check.Check{Name: "the controller manager takes the registration", Probe: func(ctx context.Context) error {
		return n.Write(ctx, newcomer, spec)
	}})
}

// entryFailures returns how many entries of the registration the server refuses.
func (n Newcomer) entryFailures(ctx context.Context) (int, error) {
	var resource struct {
		Status struct {
			Stats struct {
				EntryFailures int `json:"entryFailures"`
			} `json:"stats"`
		} `json:"status"`
	}
	there, err := n.Access().Objects.Object(ctx, n.registration(), &resource)
	if err == nil && !there {
		err = errors.New("the newcomer's registration is not there")
	}
	return resource.Status.Stats.EntryFailures, err
}

// Runs checks that the newcomer's program runs, with or without an identity.
func (n Newcomer) Runs() check.Check {
	return check.Check{Name: "the newcomer runs", Probe: func(ctx context.Context) error {
		_, err := n.Probe().Holding(ctx)
		return err
	}}
}

// NoIdentity is what a look at an identity sees where there is none.
const NoIdentity = "none"

// Identity is the SPIFFE ID that the Workload API gives the newcomer, or NoIdentity.
func (n Newcomer) Identity() Fact {
	return Fact{Of: "the identity of the newcomer in " + n.Cluster().Name, Well: n.ID().String(), Look: func(ctx context.Context) (string, error) {
		holding, err := n.Probe().Holding(ctx)
		if err != nil || holding.Self == nil {
			return NoIdentity, err
		}
		return holding.Self.ID, nil
	}}
}

// HasIdentity checks that the Workload API gives the newcomer its SVID.
func (n Newcomer) HasIdentity() check.Check { return n.Identity().Is(n.ID().String()) }

// FailedEntries is whether there are entries of the registration that the server refuses: the
// only sign of it that Kubernetes shows.
func (n Newcomer) FailedEntries() Fact {
	return Fact{Of: "failed entries of the newcomer's registration", Well: Absent, Look: func(ctx context.Context) (string, error) {
		failures, err := n.entryFailures(ctx)
		if failures > 0 {
			return There, err
		}
		return Absent, err
	}}
}

// EditRegistration changes the probe's registration, and has it put back at the end.
func (d Domain) EditRegistration(ctx context.Context, change func(*spire.WorkloadIdentitySpec)) error {
	d.restoreRegistration()
	return d.register(ctx, change)
}

// RemoveRegistration deletes the probe's registration, and has it put back at the end.
func (d Domain) RemoveRegistration(ctx context.Context) error {
	w, err := d.probe()
	if err != nil {
		return err
	}
	d.restoreRegistration()
	return d.Access().Objects.Delete(ctx, access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: spire.IdentityName(w)})
}

func (d Domain) restoreRegistration() {
	d.trial.Restore("put the registration of the probe of "+d.String()+" back", d.RestoreRegistration)
}

// RestoreRegistration makes the probe's registration what the lab asks for.
func (d Domain) RestoreRegistration(ctx context.Context) error {
	return d.register(ctx, func(*spire.WorkloadIdentitySpec) {})
}

// Registration returns the probe's registration as the lab asks for it.
func (d Domain) Registration() (spire.WorkloadIdentitySpec, error) {
	w, err := d.probe()
	if err != nil {
		return spire.WorkloadIdentitySpec{}, err
	}
	resource := spire.WorkloadIdentity(w)
	spec, ok := resource.Spec.(spire.WorkloadIdentitySpec)
	if !ok {
		return spec, fmt.Errorf("registration of %s has a %T", w.Name, resource.Spec)
	}
	spec.FederatesWith = slices.Clone(spec.FederatesWith)
	return spec, nil
}

func (d Domain) register(ctx context.Context, change func(*spire.WorkloadIdentitySpec)) error {
	w, err := d.probe()
	if err != nil {
		return err
	}
	spec, err := d.Registration()
	if err != nil {
		return err
	}
	change(&spec)
	resource := spire.WorkloadIdentity(w)
	resource.Spec = spec
	_, err = d.Access().Objects.Apply(ctx, resource)
	return err
}
