package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// Access returns what can be done in the cluster; Releases are for another adapter.
func (c *Cluster) Access() access.Cluster {
	return access.Cluster{Objects: objects{c}, Pods: pods{c}, Terminals: terminals{c}}
}

type objects struct{ *Cluster }

// Apply finds out whether anything changed by what is asked for before and
// after. The version of an object does not tell: controllers write its status at
// any time.
func (o objects) Apply(ctx context.Context, all ...any) (changed bool, err error) {
	for _, object := range all {
		decoded, err := decode(object)
		if err != nil {
			return changed, fmt.Errorf("apply: %w", err)
		}
		key := access.ObjectKey{APIVersion: decoded.GetAPIVersion(), Kind: decoded.GetKind(), Namespace: decoded.GetNamespace(), Name: decoded.GetName()}
		before, err := o.asked(ctx, key)
		if err != nil {
			return changed, err
		}
		if err := o.Cluster.Apply(ctx, object); err != nil {
			return changed, err
		}
		after, err := o.asked(ctx, key)
		if err != nil {
			return changed, err
		}
		changed = changed || !reflect.DeepEqual(before, after)
	}
	return changed, nil
}

// asked returns an object without what the API server and controllers keep in
// it, and nil where there is none.
func (o objects) asked(ctx context.Context, key access.ObjectKey) (map[string]any, error) {
	var object map[string]any
	if found, err := o.Object(ctx, key, &object); err != nil || !found {
		return nil, err
	}
	delete(object, "status")
	metadata, _ := object["metadata"].(map[string]any)
	delete(metadata, "resourceVersion")
	delete(metadata, "managedFields")
	return object, nil
}

func (o objects) Object(ctx context.Context, key access.ObjectKey, into any) (bool, error) {
	object, found, err := o.Cluster.Object(ctx, key.APIVersion, key.Kind, key.Namespace, key.Name)
	if err != nil || !found {
		return false, err
	}
	return true, convert(object, into)
}

func (o objects) Delete(ctx context.Context, key access.ObjectKey) error {
	return o.Cluster.Delete(ctx, map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
	})
}

func (o objects) Named(ctx context.Context, kind access.ObjectKey, with map[string]string) ([]string, error) {
	list, err := o.list(ctx, kind.APIVersion, kind.Kind, kind.Namespace, labels.Set(with).String())
	var names []string
	for _, item := range list {
		names = append(names, item.GetName())
	}
	return names, err
}

func (o objects) List(ctx context.Context, kind access.ObjectKey, with map[string]string, into any) error {
	all, err := o.Objects(ctx, kind.APIVersion, kind.Kind, kind.Namespace, labels.Set(with).String())
	if err != nil {
		return err
	}
	return convert(all, into)
}

// convert turns one JSON shape into another.
func convert(from, to any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

type pods struct{ *Cluster }

func (p pods) Named(ctx context.Context, namespace string, with map[string]string) ([]string, error) {
	found, err := p.Pods(ctx, namespace, labels.Set(with).String())
	var names []string
	for _, pod := range found {
		if pod.Ready {
			names = append(names, pod.Name)
		}
	}
	return names, err
}

type terminals struct{ *Cluster }

func (t terminals) Run(ctx context.Context, namespace, pod, container string, s access.Streams, argv ...string) error {
	err := t.run(ctx, namespace, pod, container, s, argv)
	if ended, ok := errors.AsType[*ExitError](err); ok {
		return &access.EndedError{Program: argv[0], Code: ended.Code}
	}
	if err != nil {
		return notRun(err, namespace, pod, container, argv)
	}
	return nil
}

func (t terminals) Logs(ctx context.Context, namespace, pod, container string, o access.LogOptions, out io.Writer) error {
	return t.CopyLogs(ctx, namespace, pod, container, o, out)
}
