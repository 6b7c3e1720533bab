package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
)

// Cluster is what is read of one Kubernetes cluster.
type Cluster interface {
	// Objects lists the objects of a kind, in all namespaces when it is empty.
	Objects(ctx context.Context, apiVersion, kind, namespace string) ([]map[string]any, error)
	// Logs returns the last lines of a container, of its run before the present
	// one if previous.
	Logs(ctx context.Context, namespace, pod, container string, previous bool, lines int64) ([]byte, error)
}

// logLines is how much of a log is kept: some minutes of a SPIRE server that
// logs all it does.
const logLines = 3000

// kinds are the kinds of objects that are kept. Secrets are not among them, nor
// must they ever be.
func kinds() []struct{ apiVersion, kind string } {
	return []struct{ apiVersion, kind string }{
		{"v1", "Node"},
		{"v1", "Event"},
		{"v1", "Service"},
		{"v1", "ConfigMap"},
		{"v1", "PersistentVolumeClaim"},
		{"discovery.k8s.io/v1", "EndpointSlice"},
		{"apps/v1", "Deployment"},
		{"apps/v1", "StatefulSet"},
		{"apps/v1", "DaemonSet"},
		{"metallb.io/v1beta1", "IPAddressPool"},
		{"metallb.io/v1beta1", "L2Advertisement"},
		{"spire.spiffe.io/v1alpha1", "ClusterFederatedTrustDomain"},
		{"spire.spiffe.io/v1alpha1", "ClusterSPIFFEID"},
		{"spire.spiffe.io/v1alpha1", "ClusterStaticEntry"},
	}
}

// OfCluster returns the pieces of one cluster: its objects, and the logs of each
// container with those of its run before. It asks for the pods at once; where
// they cannot be had, the piece that holds them says why.
func OfCluster(ctx context.Context, name string, c Cluster) []Piece {
	ctx, cancel := context.WithTimeout(ctx, pieceBound)
	defer cancel()
	pods, err := objects(ctx, c, "v1", "Pod")
	pieces := []Piece{{Path: path.Join(name, "Pod.json"), Read: func(context.Context) (any, error) { return pods, err }}}
	for _, k := range kinds() {
		pieces = append(pieces, Piece{
			Path: path.Join(name, k.kind+".json"),
			Read: func(ctx context.Context) (any, error) { return objects(ctx, c, k.apiVersion, k.kind) },
		})
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

// objects lists without what the API server notes about who wrote which field,
// which is most of an object and tells nothing here.
func objects(ctx context.Context, c Cluster, apiVersion, kind string) ([]map[string]any, error) {
	list, err := c.Objects(ctx, apiVersion, kind, "")
	if err != nil {
		return nil, err
	}
	for _, object := range list {
		if metadata, ok := object["metadata"].(map[string]any); ok {
			delete(metadata, "managedFields")
		}
	}
	return list, nil
}

// container is one container of a pod that has run.
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
