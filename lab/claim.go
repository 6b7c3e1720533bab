package lab

import (
	"context"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
)

// claims are the volumes of a StatefulSet that is not there yet.
//
// They come before it, because a pod that meets its volume half bound waits for ten
// seconds: the scheduler goes by an annotation that the controller of volumes writes just
// before the status, the kubelet by the status, and the kubelet tries such a pod again only
// then (Kubernetes pkg/scheduler/framework/plugins/volumebinding, checkBindings;
// pkg/kubelet/volumemanager/populator, "PVC is not bound"; pkg/kubelet, backOffPeriod).
type claims struct {
	in   access.Objects
	keys []access.ObjectKey
}

// claimed asks for the volumes of the pods of a StatefulSet, unless they are there. Where the
// cluster makes a volume only for a pod that has a node, it asks for none.
func claimed(ctx context.Context, in access.Objects, set access.ObjectKey, pods ...string) (claims, error) {
	waiting := claims{in: in}
	for _, pod := range pods {
		key := access.ObjectKey{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: set.Namespace, Name: "data-" + pod}
		there, err := in.Object(ctx, key, new(struct{}))
		if err != nil {
			return waiting, err
		}
		if !there {
			waiting.keys = append(waiting.keys, key)
		}
	}
	if len(waiting.keys) == 0 {
		return waiting, nil
	}
	at, err := bindsAtOnce(ctx, in)
	if err != nil || !at {
		return claims{}, err
	}
	objects := []any{namespace(set.Namespace)}
	for _, key := range waiting.keys {
		objects = append(objects, map[string]any{
			"apiVersion": key.APIVersion, "kind": key.Kind,
			"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
			"spec": map[string]any{
				"accessModes": []string{"ReadWriteOnce"},
				// The folder of a node has no limit; Kubernetes wants a figure.
				"resources": map[string]any{"requests": map[string]any{"storage": "100Mi"}},
			},
		})
	}
	_, err = in.Apply(ctx, objects...)
	return waiting, err
}

// bindsAtOnce reports whether the cluster makes a volume as soon as one is asked for.
func bindsAtOnce(ctx context.Context, in access.Objects) (bool, error) {
	var classes []struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		VolumeBindingMode string `json:"volumeBindingMode"`
	}
	if err := in.List(ctx, access.ObjectKey{APIVersion: "storage.k8s.io/v1", Kind: "StorageClass"}, nil, &classes); err != nil {
		return false, err
	}
	for _, class := range classes {
		if class.Metadata.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			return class.VolumeBindingMode == "Immediate", nil
		}
	}
	return false, nil
}

// bound waits until the volumes can be used.
func (c claims) bound(ctx context.Context) error {
	for _, key := range c.keys {
		err := wait(ctx, rolloutBound, check.Check{Name: "volume " + key.Name + " is bound", Probe: func(ctx context.Context) error {
			var claim struct {
				Status struct {
					Phase string `json:"phase"`
				} `json:"status"`
			}
			there, err := c.in.Object(ctx, key, &claim)
			if err != nil || there && claim.Status.Phase == "Bound" {
				return err
			}
			return fmt.Errorf("%s: there: %t, phase %q", key, there, claim.Status.Phase)
		}})
		if err != nil {
			return err
		}
	}
	return nil
}
