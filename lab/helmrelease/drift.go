package helmrelease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/rest"
)

// drift is how an object of a release stands to the manifest.
type drift int

const (
	none drift = iota
	// repairable is put right by an upgrade to the same manifest.
	repairable
	// stuck cannot be patched into what it should be: ports of a Service are told
	// apart by their number, and with the one that somebody has put in the place of
	// another the right one makes two of one name. It is deleted and made again.
	stuck
)

// keeps reports whether data would go with an object of a kind: it is not
// deleted and made again.
func keeps(kind string) bool {
	return slices.Contains([]string{"statefulsets", "persistentvolumeclaims", "customresourcedefinitions", "namespaces"}, kind)
}

// drifted returns the objects of a manifest of which Helm, told to make of the
// release what it is already, would make something else: one is gone, or a field
// that the manifest names has another value. What it does not name is of no
// concern.
func drifted(ctx context.Context, helm *action.Configuration, manifest string) (map[drift][]object, error) {
	list, err := helm.KubeClient.Build(strings.NewReader(manifest), false)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	objects, drifts, errs := make([]object, len(list)), make([]drift, len(list)), make([]error, len(list))
	var group sync.WaitGroup
	for i, info := range list {
		o := object{client: info.Client, kind: info.Mapping.Resource.Resource, name: info.Name, wanted: info.Object, typed: kube.AsVersioned(info)}
		if info.Namespaced() {
			o.namespace = info.Namespace
		}
		objects[i] = o
		group.Go(func() { drifts[i], errs[i] = o.drift(ctx) })
	}
	group.Wait()
	by := map[drift][]object{}
	for i, d := range drifts {
		by[d] = append(by[d], objects[i])
	}
	delete(by, none)
	return by, errors.Join(errs...)
}

type object struct {
	client interface {
		Get() *rest.Request
		Patch(types.PatchType) *rest.Request
		Delete() *rest.Request
	}
	// kind is as paths of the API have it; namespace is empty for an object of the
	// whole cluster.
	kind, namespace, name string
	// wanted is as in the manifest; typed is the same in the type of its kind.
	wanted, typed runtime.Object
}

// drift goes by the patch that Helm would send, since it is one that repairs. The
// API server has the last word on it: a manifest may write 0.5 for what it keeps
// as 500m.
func (o object) drift(ctx context.Context) (drift, error) {
	current, err := o.send(ctx, o.client.Get())
	switch {
	case apierrors.IsNotFound(err):
		return repairable, nil
	case err != nil:
		return none, err
	}
	patch, err := o.patch(current)
	if err != nil || string(patch) == "{}" {
		return none, err
	}
	patched, err := o.send(ctx, o.client.Patch(types.StrategicMergePatchType).Param("dryRun", "All").Body(patch))
	switch {
	case apierrors.IsInvalid(err) && !keeps(o.kind):
		return stuck, nil
	case err != nil:
		return none, err
	}
	before, err := given(current)
	if err != nil {
		return none, err
	}
	after, err := given(patched)
	if err != nil || reflect.DeepEqual(before, after) {
		return none, err
	}
	return repairable, nil
}

func (o object) send(ctx context.Context, r *rest.Request) ([]byte, error) {
	result := r.NamespaceIfScoped(o.namespace, o.namespace != "").Resource(o.kind).Name(o.name).Do(ctx)
	if err := result.Error(); err != nil {
		return nil, fmt.Errorf("compare %s %s with manifest: %w", o.kind, o.name, err)
	}
	return result.Raw()
}

// remove makes room for an object to be made again.
func (o object) remove(ctx context.Context) error {
	if _, err := o.send(ctx, o.client.Delete()); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// patch returns what Helm would send (its pkg/kube, createPatch). Of a kind that
// client-go does not know Helm compares manifests alone, and would send nothing.
func (o object) patch(current []byte) ([]byte, error) {
	if _, unknown := o.typed.(runtime.Unstructured); unknown {
		return []byte("{}"), nil
	}
	wanted, err := json.Marshal(o.wanted)
	if err != nil {
		return nil, fmt.Errorf("encode manifest of %s %s: %w", o.kind, o.name, err)
	}
	schema, err := strategicpatch.NewPatchMetaFromStruct(o.typed)
	if err != nil {
		return nil, fmt.Errorf("read schema of %s: %w", o.kind, err)
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(wanted, wanted, current, schema, true)
	if err != nil {
		return nil, fmt.Errorf("compare %s %s with manifest: %w", o.kind, o.name, err)
	}
	return patch, nil
}

// given returns an object without what the API server and controllers write.
func given(encoded []byte) (map[string]any, error) {
	var o map[string]any
	if err := json.Unmarshal(encoded, &o); err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	delete(o, "status")
	metadata, _ := o["metadata"].(map[string]any)
	for _, field := range []string{"managedFields", "resourceVersion", "generation"} {
		delete(metadata, field)
	}
	return o, nil
}
