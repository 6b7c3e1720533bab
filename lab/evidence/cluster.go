package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
)

// Cluster is what is read of one Kubernetes cluster.
type Cluster interface {
	// Objects lists the objects of a kind, in all namespaces when it is empty.
	Objects(ctx context.Context, apiVersion, kind, namespace, selector string) ([]map[string]any, error)
	// Logs returns the last lines of a container, of its run before the present
	// one if previous.
	Logs(ctx context.Context, namespace, pod, container string, previous bool, lines int64) ([]byte, error)
}

// logLines is how much of a log is kept: some minutes of a SPIRE server that
// logs all it does.
const logLines = 3000

// OfCluster returns the pieces of one cluster: of each kind the objects that have
// no namespace or one of namespaces, and the logs of each container in these with
// those of its run before. Of an object only some fields are collected, and
// nothing at all of what somebody else keeps in the cluster. OfCluster asks for
// the pods at once; where it has no answer, the piece that holds the pods says
// why.
func OfCluster(ctx context.Context, name string, c Cluster, namespaces []string) []Piece {
	ctx, cancel := context.WithTimeout(ctx, pieceBound)
	defer cancel()
	var pieces []Piece
	var pods []map[string]any
	for _, k := range kinds() {
		read := func(ctx context.Context) (any, error) { return objects(ctx, c, k, namespaces) }
		if k.name == "Pod" {
			var err error
			pods, err = objects(ctx, c, k, namespaces)
			read = func(context.Context) (any, error) { return pods, err }
		}
		pieces = append(pieces, Piece{Path: path.Join(name, k.name+".json"), Read: read})
	}
	ran, unread := containers(pods)
	if unread != nil {
		pieces = append(pieces, Piece{Path: path.Join(name, "logs"), Read: func(context.Context) (any, error) { return nil, unread }})
	}
	for _, container := range ran {
		log := func(suffix string, previous bool) Piece {
			return Piece{
				Path: path.Join(name, "logs", container.namespace, container.pod, container.name+suffix),
				Read: func(ctx context.Context) (any, error) {
					return c.Logs(ctx, container.namespace, container.pod, container.name, previous, logLines)
				},
			}
		}
		pieces = append(pieces, log(".log", false))
		if container.restarts > 0 {
			pieces = append(pieces, log(".previous.log", true))
		}
	}
	return pieces
}

func objects(ctx context.Context, c Cluster, k kind, namespaces []string) ([]map[string]any, error) {
	list, err := c.Objects(ctx, k.apiVersion, k.name, "", "")
	if err != nil {
		return nil, err
	}
	ours := []map[string]any{}
	for _, object := range list {
		at := "metadata"
		if k.name == "Event" {
			at = "involvedObject" // a node's is in the namespace "default"
		}
		of, _ := object[at].(map[string]any)
		if namespace, _ := of["namespace"].(string); namespace != "" && !slices.Contains(namespaces, namespace) {
			continue
		}
		if picked, ok := k.fields.pick(object).(map[string]any); ok {
			ours = append(ours, picked)
		}
	}
	return ours, nil
}

type container struct {
	namespace, pod, name string
	restarts             int
}

func containers(pods []map[string]any) ([]container, error) {
	type status struct {
		Name         string `json:"name"`
		RestartCount int    `json:"restartCount"`
		// ContainerID is empty before the first run, of which there is no log.
		ContainerID string `json:"containerID"`
	}
	var found []container
	for _, object := range pods {
		var pod struct {
			Metadata struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
			} `json:"metadata"`
			Status struct {
				Init []status `json:"initContainerStatuses"`
				Main []status `json:"containerStatuses"`
			} `json:"status"`
		}
		if err := convert(object, &pod); err != nil {
			return found, fmt.Errorf("read pod: %w", err)
		}
		for _, s := range append(pod.Status.Init, pod.Status.Main...) {
			if s.ContainerID != "" {
				found = append(found, container{pod.Metadata.Namespace, pod.Metadata.Name, s.Name, s.RestartCount})
			}
		}
	}
	return found, nil
}

func convert(from, to any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return json.Unmarshal(data, to)
}
