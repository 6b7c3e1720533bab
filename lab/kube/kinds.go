package kube

import (
	"context"
	"fmt"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// kinds knows under which name the API server serves a kind. It asks for one
// group's version at a time, and again for a kind that is not among those it
// knows: definitions of kinds come while a lab is made.
type kinds struct {
	api   discovery.DiscoveryInterfaceWithContext
	mu    sync.Mutex
	known map[string]metav1.APIResource
}

type unknownKindError struct{ apiVersion, kind string }

func (e *unknownKindError) Error() string {
	return fmt.Sprintf("the cluster knows no kind %s in %s", e.kind, e.apiVersion)
}

func (k *kinds) find(ctx context.Context, apiVersion, kind string) (at schema.GroupVersionResource, namespaced bool, err error) {
	version, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return at, false, err
	}
	resource, ok := k.cached(apiVersion, kind)
	if !ok {
		list, err := k.api.ServerResourcesForGroupVersionWithContext(ctx, apiVersion)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return at, false, fmt.Errorf("ask for the kinds in %s: %w", apiVersion, err)
		default:
			k.add(apiVersion, list.APIResources)
		}
		if resource, ok = k.cached(apiVersion, kind); !ok {
			return at, false, &unknownKindError{apiVersion, kind}
		}
	}
	return version.WithResource(resource.Name), resource.Namespaced, nil
}

func (k *kinds) cached(apiVersion, kind string) (metav1.APIResource, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	resource, ok := k.known[apiVersion+" "+kind]
	return resource, ok
}

func (k *kinds) add(apiVersion string, resources []metav1.APIResource) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range resources {
		// What has a slash is part of a resource, such as its scale.
		if !strings.Contains(r.Name, "/") {
			k.known[apiVersion+" "+r.Kind] = r
		}
	}
}
