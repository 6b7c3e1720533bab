package trial

import (
	"context"
	"fmt"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// Mistake is something that a person has written wrong into a lab, such as a registration too
// many: a fault that Break injects.
type Mistake struct {
	// What is the name of the fault: its kind, a slash, and where.
	What string
	// Make makes the mistake, and Undo corrects it. Both are harmless where nothing is left to do.
	Make, Undo func(ctx context.Context) error
	// Made holds once the mistake has its effect, and Corrected once that is over.
	Made, Corrected check.Check
}

// Name returns What.
func (m Mistake) Name() string { return m.What }

// Inject makes the mistake. One that may have been made is returned with the error.
func (m Mistake) Inject(ctx context.Context) (fault.Injected, error) { return mistaken{m}, m.Make(ctx) }

// mistaken is a mistake that was made.
type mistaken struct{ Mistake }

func (m mistaken) Felt() check.Check                 { return m.Made }
func (m mistaken) Healed() check.Check               { return m.Corrected }
func (m mistaken) Recover(ctx context.Context) error { return m.Undo(ctx) }

// Write makes a registration in the trust domain's cluster what it is given as: a ClusterSPIFFEID
// or a ClusterStaticEntry, as spec is. Nothing puts that back.
func (d Domain) Write(ctx context.Context, name string, spec any) error {
	resource := spire.Resource{Metadata: spire.Metadata{Labels: spire.Owned()}}
	switch spec := spec.(type) {
	case spire.WorkloadIdentitySpec:
		spec.ClassName = d.site.Class
		resource.Spec = spec
	case spire.StaticEntrySpec:
		spec.ClassName = d.site.Class
		resource.Spec = spec
	}
	key := d.registrationKey(name, spec)
	resource.APIVersion, resource.Kind, resource.Metadata.Name = key.APIVersion, key.Kind, key.Name
	_, err := d.Access().Objects.Apply(ctx, resource)
	return err
}

// Erase deletes what Write has made, if it is there.
func (d Domain) Erase(ctx context.Context, name string, spec any) error {
	return d.Access().Objects.Delete(ctx, d.registrationKey(name, spec))
}

// registrationKey names a registration that no lab file has.
func (d Domain) registrationKey(name string, spec any) access.ObjectKey {
	key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: "fedlab-" + name}
	if _, static := spec.(spire.StaticEntrySpec); static {
		key.Kind = "ClusterStaticEntry"
	}
	if class := d.site.Class; class != "" {
		key.Name += "-" + class
	}
	return key
}

// Entry returns the entry of the probe.
func (d Domain) Entry(ctx context.Context) (spire.Entry, error) {
	all, err := d.Server().Entries(ctx)
	i := slices.IndexFunc(all, func(e spire.Entry) bool { return e.SPIFFEID == d.ID() })
	switch {
	case err != nil:
		return spire.Entry{}, err
	case i < 0:
		return spire.Entry{}, fmt.Errorf("the server of %s has no entry of its probe", d)
	}
	return all[i], nil
}
