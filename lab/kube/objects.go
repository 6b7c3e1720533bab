package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// Apply makes each object what it is given as, in this order, and stops at the
// first that fails. An object is anything that encodes to the JSON of a
// Kubernetes object. Fields that are not given stay as they are; fields that
// were given before and no longer are go. Apply takes fields over from others, in
// fedlab's own name unless the object is an access.As.
//
// A kind that the cluster does not know (yet) is an error, as is an admission
// webhook that does not answer: both pass while a cluster comes up.
func (c *Cluster) Apply(ctx context.Context, objects ...any) error {
	for _, object := range objects {
		o, err := decode(object)
		if err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		manager := fieldManager
		if as, is := object.(access.As); is {
			manager = as.Manager
		}
		at, err := c.resource(ctx, o.GetAPIVersion(), o.GetKind(), o.GetNamespace())
		if err == nil {
			_, err = at.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true})
		}
		if err != nil {
			return fmt.Errorf("apply %s: %w", title(o), err)
		}
	}
	return nil
}

// Delete asks for the removal of each object, of which only apiVersion, kind,
// name and namespace count. What does not exist is not an error, a kind that
// the cluster does not know included. Objects with finalizers stand for a while
// after Delete has returned.
func (c *Cluster) Delete(ctx context.Context, objects ...any) error {
	background := metav1.DeletePropagationBackground
	for _, object := range objects {
		o, err := decode(object)
		if err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		at, err := c.resource(ctx, o.GetAPIVersion(), o.GetKind(), o.GetNamespace())
		if err == nil {
			err = at.Delete(ctx, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		}
		if err != nil && !absent(err) {
			return fmt.Errorf("delete %s: %w", title(o), err)
		}
	}
	return nil
}

// Object reads one object. Found is false when it does not exist, and when the
// cluster does not know its kind. The namespace of an object that has none is
// empty.
func (c *Cluster) Object(ctx context.Context, apiVersion, kind, namespace, name string) (object map[string]any, found bool, err error) {
	at, err := c.resource(ctx, apiVersion, kind, namespace)
	if err == nil {
		var o *unstructured.Unstructured
		if o, err = at.Get(ctx, name, metav1.GetOptions{}); err == nil {
			return o.Object, true, nil
		}
	}
	if absent(err) {
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("read %s %s: %w", kind, path(namespace, name), err)
}

// Objects reads the objects of a kind in a namespace, or in all when it is empty,
// that a label selector selects. A kind that the cluster does not know has none.
func (c *Cluster) Objects(ctx context.Context, apiVersion, kind, namespace, selector string) ([]map[string]any, error) {
	list, err := c.list(ctx, apiVersion, kind, namespace, selector)
	if err != nil {
		return nil, err
	}
	objects := make([]map[string]any, len(list))
	for i, item := range list {
		objects[i] = item.Object
	}
	return objects, nil
}

func (c *Cluster) list(ctx context.Context, apiVersion, kind, namespace, selector string) ([]unstructured.Unstructured, error) {
	resource, _, err := c.kinds.find(ctx, apiVersion, kind)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	list, err := c.dynamic.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	return list.Items, nil
}

// Scale sets how many replicas a Deployment or StatefulSet should have.
func (c *Cluster) Scale(ctx context.Context, kind, namespace, name string, replicas int32) error {
	at, err := c.resource(ctx, "apps/v1", kind, namespace)
	if err == nil {
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
		_, err = at.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}, "scale")
	}
	if err != nil {
		return fmt.Errorf("scale %s %s/%s to %d: %w", kind, namespace, name, replicas, err)
	}
	return nil
}

func (c *Cluster) resource(ctx context.Context, apiVersion, kind, namespace string) (dynamic.ResourceInterface, error) {
	resource, namespaced, err := c.kinds.find(ctx, apiVersion, kind)
	switch {
	case err != nil:
		return nil, err
	case namespaced && namespace == "":
		return nil, errors.New("namespace is missing")
	case !namespaced && namespace != "":
		return nil, fmt.Errorf("it is not in a namespace, not even %s", namespace)
	}
	return c.dynamic.Resource(resource).Namespace(namespace), nil
}

// absent says that an object does not exist, or cannot because its kind does
// not.
func absent(err error) bool {
	var unknown *unknownKindError
	return apierrors.IsNotFound(err) || errors.As(err, &unknown)
}

func decode(object any) (*unstructured.Unstructured, error) {
	encoded, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	var o unstructured.Unstructured
	if err := json.Unmarshal(encoded, &o.Object); err != nil {
		return nil, fmt.Errorf("object is not a JSON object: %w", err)
	}
	for _, field := range []struct{ name, value string }{
		{"apiVersion", o.GetAPIVersion()}, {"kind", o.GetKind()}, {"metadata.name", o.GetName()},
	} {
		if field.value == "" {
			// Without its content: it may be a Secret.
			return nil, fmt.Errorf("object (apiVersion %q, kind %q, namespace %q, name %q) has no %s",
				o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName(), field.name)
		}
	}
	return &o, nil
}

// title names an object the way kubectl users do: "ConfigMap fedlab/lab".
func title(o *unstructured.Unstructured) string {
	return o.GetKind() + " " + path(o.GetNamespace(), o.GetName())
}

func path(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
