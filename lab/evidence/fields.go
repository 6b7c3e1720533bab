package evidence

import (
	"regexp"
	"strings"
)

// fields are the fields of an object that are collected, by their names. Below a
// name without fields of its own everything is collected.
type fields map[string]fields

// shaped stands below a field of which only values of a public shape are
// collected.
const shaped = "\x00"

// collect returns the fields at paths, whose names are joined by slashes; in a name a
// star stands for anything. A path that ends with a question mark takes only values
// that are public by their shape: people put anything into arguments, variables and
// annotations.
func collect(paths ...string) fields {
	all := fields{}
	for _, path := range paths {
		path, public := strings.CutSuffix(path, "?")
		at := all
		for _, name := range strings.Split(path, "/") {
			if at[name] == nil {
				at[name] = fields{}
			}
			at = at[name]
		}
		if public {
			at[shaped] = nil
		}
	}
	return all
}

// pick returns what of a decoded object is collected. Lists have no names.
func (f fields) pick(node any) any {
	if _, public := f[shaped]; public {
		return publicOf(node)
	}
	if len(f) == 0 {
		return node
	}
	switch n := node.(type) {
	case []any:
		picked := make([]any, len(n))
		for i, element := range n {
			picked[i] = f.pick(element)
		}
		return picked
	case map[string]any:
		picked := map[string]any{}
		for name, below := range f {
			if value, there := n[name]; there {
				picked[name] = below.pick(value)
			}
			if begin, end, open := strings.Cut(name, "*"); open {
				for other, value := range n {
					if strings.HasPrefix(other, begin) && strings.HasSuffix(other, end) {
						picked[other] = below.pick(value)
					}
				}
			}
		}
		return picked
	}
	return nil
}

const removed = "[removed: value]"

// publicOf returns a value with those strings that are public by their shape. Of
// flags the name stays.
func publicOf(node any) any {
	switch n := node.(type) {
	case string:
		flag := flagName.FindString(n)
		values := strings.Split(n[len(flag):], ",")
		for i, v := range values {
			if !publicShape.MatchString(v) {
				values[i] = removed
			}
		}
		return flag + strings.Join(values, ",")
	case []any:
		public := make([]any, len(n))
		for i, element := range n {
			public[i] = publicOf(element)
		}
		return public
	case map[string]any:
		public := map[string]any{}
		for name, value := range n {
			public[name] = publicOf(value)
		}
		return public
	}
	return node
}

var (
	// publicShape is nothing, a flag without a value, a truth, a number with its
	// unit, a path, an address, or a URL without userinfo and query.
	publicShape = regexp.MustCompile(`^(?:|--?[A-Za-z][A-Za-z0-9-]{0,60}|true|false|[0-9]{1,12}(?:\.[0-9]{1,6})?[A-Za-z%]{0,2}|/[\w./-]{0,200}` +
		`|[a-z0-9][a-z0-9.-]{0,200}:[0-9]{1,5}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:[:/][0-9]{1,5})?` +
		`|(?:https?|spiffe|unix|tcp)://[\w.:-]{0,200}(?:/[\w./-]{0,400})?)$`)
	flagName = regexp.MustCompile(`^--?[A-Za-z][A-Za-z0-9-]{0,60}=`)
)

type kind struct {
	apiVersion, name string
	fields           fields
}

// kinds are the kinds of objects that are collected. Secrets are not among them,
// and must never be.
func kinds() []kind {
	of := func(apiVersion, name string, paths ...string) kind {
		return kind{apiVersion, name, collect(append(strings.Split(
			"apiVersion kind metadata/name metadata/namespace metadata/uid metadata/generation metadata/resourceVersion metadata/labels "+
				"metadata/annotations? metadata/creationTimestamp metadata/deletionTimestamp metadata/deletionGracePeriodSeconds "+
				"metadata/finalizers metadata/ownerReferences status", " "), paths...)...)}
	}
	controller := append(podFields("spec/template/spec/"),
		"spec/replicas", "spec/selector", "spec/strategy", "spec/updateStrategy", "spec/serviceName", "spec/podManagementPolicy", "spec/minReadySeconds",
		"spec/progressDeadlineSeconds", "spec/revisionHistoryLimit", "spec/paused", "spec/persistentVolumeClaimRetentionPolicy",
		"spec/template/metadata/labels", "spec/template/metadata/annotations?")
	return []kind{
		of("v1", "Node", "spec"),
		of("v1", "Event", "type", "reason", "message", "action", "count", "series", "source", "involvedObject", "related",
			"firstTimestamp", "lastTimestamp", "eventTime", "reportingComponent", "reportingInstance"),
		of("v1", "Service", "spec"),
		// The configuration of SPIRE and the bundles that pods start with.
		of("v1", "ConfigMap", "data/server.conf", "data/agent.conf", "data/controller-manager.yaml", "data/controller-manager-*.yaml", "data/roots.pem", "data/bundle.crt", "data/ca.crt"),
		of("v1", "PersistentVolumeClaim", "spec"),
		of("discovery.k8s.io/v1", "EndpointSlice", "addressType", "endpoints", "ports"),
		of("apps/v1", "Deployment", controller...),
		of("apps/v1", "StatefulSet", controller...),
		of("apps/v1", "DaemonSet", controller...),
		of("metallb.io/v1beta1", "IPAddressPool", "spec"),
		of("metallb.io/v1beta1", "L2Advertisement", "spec"),
		of("spire.spiffe.io/v1alpha1", "ClusterFederatedTrustDomain", "spec"),
		of("spire.spiffe.io/v1alpha1", "ClusterSPIFFEID", "spec"),
		of("spire.spiffe.io/v1alpha1", "ClusterStaticEntry", "spec"),
		of("v1", "Pod", podFields("spec/")...),
	}
}

// podFields are what is collected of a pod's spec.
func podFields(spec string) []string {
	paths := []string{}
	for _, field := range strings.Fields(`nodeName nodeSelector serviceAccountName automountServiceAccountToken hostNetwork hostPID hostUsers dnsPolicy
		restartPolicy priority priorityClassName schedulerName securityContext tolerations affinity terminationGracePeriodSeconds activeDeadlineSeconds
		readinessGates enableServiceLinks volumes/name volumes/configMap volumes/csi volumes/downwardAPI volumes/emptyDir volumes/hostPath
		volumes/persistentVolumeClaim volumes/secret volumes/projected`) {
		paths = append(paths, spec+field)
	}
	for _, containers := range []string{"initContainers/", "containers/", "ephemeralContainers/"} {
		for _, field := range strings.Fields(`name image imagePullPolicy command? args? workingDir env/name env/value? env/valueFrom envFrom ports resources
			securityContext volumeMounts restartPolicy terminationMessagePath terminationMessagePolicy`) {
			paths = append(paths, spec+containers+field)
		}
		for _, probe := range []string{"startupProbe/", "readinessProbe/", "livenessProbe/"} {
			for _, field := range strings.Fields(`tcpSocket grpc httpGet/path? httpGet/port httpGet/scheme exec/command? initialDelaySeconds periodSeconds
				timeoutSeconds successThreshold failureThreshold`) {
				paths = append(paths, spec+containers+probe+field)
			}
		}
	}
	return paths
}
