package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sort"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// Access returns what can be done in the cluster; Releases are for another adapter.
func (c *Cluster) Access() access.Cluster {
	return access.Cluster{Objects: objects{c}, Pods: pods{c}, Terminals: terminals{c}}
}

type objects struct{ cluster *Cluster }

// Apply finds out whether anything changed by what is asked for before and
// after. The version of an object does not tell: controllers write its status at
// any time.
func (o objects) Apply(ctx context.Context, all ...any) (changed bool, err error) {
	for _, object := range all {
		key, err := keyOf(object)
		if err != nil {
			return changed, err
		}
		before, err := o.asked(ctx, key)
		if err != nil {
			return changed, err
		}
		if err := o.cluster.Apply(ctx, object); err != nil {
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
	object, found, err := o.cluster.Object(ctx, key.APIVersion, key.Kind, key.Namespace, key.Name)
	if err != nil || !found {
		return false, err
	}
	return true, convert(object, into)
}

func (o objects) Delete(ctx context.Context, key access.ObjectKey) error {
	return o.cluster.Delete(ctx, map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
	})
}

func (o objects) Named(ctx context.Context, kind access.ObjectKey, labels map[string]string) ([]string, error) {
	return o.cluster.Named(ctx, kind.APIVersion, kind.Kind, kind.Namespace, selecting(labels))
}

func (o objects) List(ctx context.Context, kind access.ObjectKey, labels map[string]string, into any) error {
	all, err := o.cluster.Objects(ctx, kind.APIVersion, kind.Kind, kind.Namespace, selecting(labels))
	if err != nil {
		return err
	}
	return convert(all, into)
}

func (o objects) NodeReady(ctx context.Context) error { return o.cluster.Ready(ctx) }

func keyOf(object any) (access.ObjectKey, error) {
	var o struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	}
	err := convert(object, &o)
	return access.ObjectKey{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: o.Metadata.Namespace, Name: o.Metadata.Name}, err
}

// convert turns one JSON shape into another.
func convert(from, to any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

type pods struct{ cluster *Cluster }

func (p pods) Exec(ctx context.Context, namespace, pod, container string, argv ...string) ([]byte, error) {
	return p.cluster.Exec(ctx, namespace, pod, container, argv...)
}

func (p pods) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	return p.cluster.Dial(ctx, namespace, pod, uint16(port))
}

func (p pods) Started(ctx context.Context, set access.ObjectKey, container string) error {
	return p.cluster.StatefulSetStarted(ctx, set.Namespace, set.Name, container)
}

func (p pods) Ready(ctx context.Context, key access.ObjectKey) error {
	switch key.Kind {
	case "Deployment":
		return p.cluster.DeploymentReady(ctx, key.Namespace, key.Name)
	case "StatefulSet":
		return p.cluster.StatefulSetReady(ctx, key.Namespace, key.Name)
	case "DaemonSet":
		return p.cluster.DaemonSetReady(ctx, key.Namespace, key.Name)
	}
	return fmt.Errorf("nothing is known about the readiness of a %s", key.Kind)
}

func (p pods) Named(ctx context.Context, namespace string, labels map[string]string) ([]string, error) {
	found, err := p.cluster.Pods(ctx, namespace, selecting(labels))
	var names []string
	for _, pod := range found {
		if pod.Ready {
			names = append(names, pod.Name)
		}
	}
	return names, err
}

// selecting selects what has all of these labels.
func selecting(labels map[string]string) string {
	terms := make([]string, 0, len(labels))
	for k, v := range labels {
		terms = append(terms, k+"="+v)
	}
	sort.Strings(terms)
	return strings.Join(terms, ",")
}

type terminals struct{ cluster *Cluster }

func (t terminals) Run(ctx context.Context, namespace, pod, container string, s access.Streams, argv ...string) error {
	err := t.cluster.Run(ctx, namespace, pod, container, s, argv...)
	if ended := (*ExitError)(nil); errors.As(err, &ended) {
		return &access.EndedError{Program: argv[0], Code: ended.Code}
	}
	return err
}

func (t terminals) Logs(ctx context.Context, namespace, pod, container string, o access.LogOptions, out io.Writer) error {
	return t.cluster.CopyLogs(ctx, namespace, pod, container, o, out)
}
