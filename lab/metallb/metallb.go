// Package metallb says how MetalLB is installed in a cluster of the lab, and
// which addresses it hands out, as values.
//
// It refuses to know a cluster: it applies nothing.
package metallb

import (
	"fmt"
	"net/netip"
	"strings"
)

// Namespace is where MetalLB and its objects live.
const Namespace = "metallb-system"

// Objects returns the pool of addresses from first to last, and the
// advertisement that lets the node answer for them on the container network.
func Objects(first, last netip.Addr) []any {
	metadata := map[string]any{"name": "lab", "namespace": Namespace}
	return []any{
		map[string]any{
			"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": metadata,
			"spec": map[string]any{"addresses": []any{fmt.Sprintf("%s-%s", first, last)}},
		},
		map[string]any{
			"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": metadata,
			"spec": map[string]any{"ipAddressPools": []any{"lab"}},
		},
	}
}

// Values returns the values of MetalLB's own chart for a cluster of one node
// that answers on layer 2, with these images.
func Values(controller, speaker string) map[string]any {
	return map[string]any{
		"controller": component(controller, map[string]any{
			// The pools are computed, not written by hand, so there is nothing to
			// validate, and bring-up need not wait for a webhook's certificate.
			"webhookMode":    "disabled",
			"readinessProbe": quick,
			"livenessProbe":  rare,
		}),
		"speaker": component(speaker, map[string]any{
			// Speakers agree by memberlist on which of them answers: one has
			// nobody to agree with.
			"memberlist":     map[string]any{"enabled": false},
			"readinessProbe": quick,
			"livenessProbe":  rare,
			"startupProbe":   map[string]any{"enabled": false},
		}),
		"crds":   map[string]any{"validationFailurePolicy": "Ignore"},
		"frrk8s": map[string]any{"enabled": false},
	}
}

var (
	quick = map[string]any{"initialDelaySeconds": 1, "periodSeconds": 10}
	rare  = map[string]any{"initialDelaySeconds": 30, "periodSeconds": 30}
)

func component(image string, more map[string]any) map[string]any {
	repository, tag := image, ""
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		repository, tag = image[:i], image[i+1:]
	}
	values := map[string]any{
		"image":    map[string]any{"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
		"logLevel": "info",
	}
	for k, v := range more {
		values[k] = v
	}
	return values
}
