// Package metallb says how MetalLB is installed in a cluster of the lab, and
// which addresses it hands out, as values.
//
// It refuses to know a cluster: it applies nothing.
package metallb

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/netip"
	"strings"
)

// Namespace is where MetalLB and its objects live.
const Namespace = "metallb-system"

// SecretName is what the chart calls the Secret of MemberSecret.
const SecretName = "metallb-memberlist"

// SecretKey is the key of that Secret's data.
const SecretKey = "secretkey"

// Objects returns the pool of addresses from first to last, and the
// advertisement that lets the node answer for them on the container network.
// Each encodes to the JSON of a Kubernetes object. The pools of clusters on one
// network must be disjoint: MetalLB does not notice when they are not.
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

// MemberSecret returns the Secret that speakers agree among themselves with, for
// a cluster that has none. MetalLB's controller would make it, and kubelet would
// look for it again and again, at longer and longer intervals, before it lets
// the speaker start.
func MemberSecret() any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Secret",
		"metadata":   map[string]any{"name": SecretName, "namespace": Namespace},
		"stringData": map[string]any{SecretKey: rand.Text() + rand.Text()},
	}
}

// Values returns the values of MetalLB's own chart for a cluster of one node
// that answers on layer 2, with these images. They are those of chart 0.16.1.
func Values(controller, speaker string) map[string]any {
	return map[string]any{
		"controller": component(controller, map[string]any{
			// The pools are computed, not written by hand, so there is nothing
			// to validate, and bring-up need not wait for a webhook's
			// certificate.
			"webhookMode":    "disabled",
			"readinessProbe": probe(2),
			"livenessProbe":  probe(30),
		}),
		"speaker": component(speaker, map[string]any{
			// Speakers agree by memberlist on which of them answers. One has
			// nobody to agree with and needs it all the same: without, it
			// announces nothing before it has read its own node, and does not
			// come back to the Services that it has passed over until then
			// (speaker/layer2_controller.go, speakersForAds; speaker/main.go,
			// isNodeAvailableChanged).
			"memberlist":     map[string]any{"enabled": true},
			"readinessProbe": probe(2),
			"livenessProbe":  probe(30),
		}),
		// The chart registers the webhooks all the same. With Ignore, the API
		// server goes on when the call to one is refused, as it is at once.
		"crds": map[string]any{"validationFailurePolicy": "Ignore"},
		// The chart's default is BGP, with a routing daemon next to the speaker.
		"frrk8s": map[string]any{"enabled": false},
	}
}

// probe has no delay: kubelet asks when the container has started, and from then
// on at this pace. With one, the first answer comes a whole period later.
func probe(periodSeconds int) map[string]any {
	return map[string]any{"initialDelaySeconds": 0, "periodSeconds": periodSeconds}
}

func component(image string, more map[string]any) map[string]any {
	repository, tag := image, ""
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		repository, tag = image[:i], image[i+1:]
	}
	values := map[string]any{
		"image": map[string]any{"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
	}
	maps.Copy(values, more)
	return values
}
