package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
)

// ObjectAdded has an object in a cluster that is no part of its lab.
func ObjectAdded(c Cluster, key access.ObjectKey, object any) Fault {
	return fault{fmt.Sprintf("object-added/%s/%s", key.Name, c.Name), func(ctx context.Context) (injected, error) {
		i := injected{
			felt:    c.has(key, true),
			recover: func(ctx context.Context) error { return c.Objects.Delete(ctx, key) },
			healed:  c.has(key, false),
		}
		_, err := c.Objects.Apply(ctx, object)
		return i, err
	}}
}

// BundleLost deletes the ConfigMap that agents start with. Recover makes it again, with what it
// had. It is healed when there is an agent that runs.
func BundleLost(c Cluster) Fault {
	key := c.own(bundleMap)
	return fault{"bundle-lost/" + c.Name, func(ctx context.Context) (injected, error) {
		var was struct {
			Metadata struct {
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
			Data map[string]string `json:"data"`
		}
		found, err := c.Objects.Object(ctx, key, &was)
		if err == nil && !found {
			err = fmt.Errorf("%s %s is not there", key.Kind, key.Name)
		}
		if err != nil {
			return injected{}, err
		}
		again := part(key, nil)
		again["data"] = was.Data
		again["metadata"] = map[string]any{
			"namespace": key.Namespace, "name": key.Name, "labels": was.Metadata.Labels, "annotations": was.Metadata.Annotations,
		}
		back, runs := c.has(key, true), c.agentRuns(nil)
		return injected{
			felt: c.has(key, false),
			recover: func(ctx context.Context) error {
				_, err := c.Objects.Apply(ctx, again)
				return err
			},
			healed: check.Check{Name: back.Name + ", and " + runs.Name, Probe: func(ctx context.Context) error { return inOrder(ctx, back.Probe, runs.Probe) }},
		}, c.Objects.Delete(ctx, key)
	}}
}

// has checks whether an object is in a cluster.
func (c Cluster) has(key access.ObjectKey, want bool) check.Check {
	name := fmt.Sprintf("%s %s is in cluster %s", key.Kind, key.Name, c.Name)
	if !want {
		name = fmt.Sprintf("%s %s is not in cluster %s", key.Kind, key.Name, c.Name)
	}
	return check.Check{Name: name, Probe: func(ctx context.Context) error {
		found, err := c.Objects.Object(ctx, key, &struct{}{})
		switch {
		case err == nil && found && !want:
			return errors.New("it is there")
		case err == nil && !found && want:
			return errors.New("it is not there")
		}
		return err
	}}
}
