package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// owned are the workloads whose programs are the person's own.
func (u *up) owned() []*topology.Workload {
	return slices.DeleteFunc(slices.Clone(u.Workloads), func(w *topology.Workload) bool { return w.Own == nil })
}

// ownPrograms looks at the charts and manifests of the person's own programs, and
// makes their images, before anything else is made: all that is wrong is told at once.
func (u *up) ownPrograms(ctx context.Context) error {
	var errs []error
	for _, w := range u.owned() {
		if err := u.ownProgram(ctx, w); err != nil {
			errs = append(errs, fmt.Errorf("workload %s: %w", w.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (u *up) ownProgram(ctx context.Context, w *topology.Workload) error {
	var errs []error
	references := map[string]string{}
	for _, image := range w.Own.Images {
		plan.Note(ctx, "image "+image.Name+" of "+w.Name)
		reference, err := u.Parts.Images.Own(ctx, image)
		if err != nil {
			errs = append(errs, err) // it names the image
		}
		references[image.Name] = reference
	}
	u.mu.Lock()
	u.ownImages[w] = references
	u.mu.Unlock()
	objects, err := u.Parts.Rendered(releaseOf(w))
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, fitting(w, objects)...)...)
}

// object is what is looked at of an object of a person's own.
type object map[string]any

func (o object) text(path ...string) string {
	at := map[string]any(o)
	for _, name := range path[:len(path)-1] {
		at, _ = at[name].(map[string]any)
	}
	text, _ := at[path[len(path)-1]].(string)
	return text
}

func (o object) String() string { return o.text("kind") + " " + o.text("metadata", "name") }

// wholeCluster are the kinds of objects that belong to no namespace.
var wholeCluster = []string{
	"APIService", "CSIDriver", "CSINode", "CertificateSigningRequest", "ClusterFederatedTrustDomain", "ClusterRole", "ClusterRoleBinding", "ClusterSPIFFEID",
	"ClusterStaticEntry", "CustomResourceDefinition", "FlowSchema", "IngressClass", "MutatingWebhookConfiguration", "Namespace", "Node", "PersistentVolume",
	"PriorityClass", "PriorityLevelConfiguration", "RuntimeClass", "StorageClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
	"ValidatingWebhookConfiguration", "VolumeAttachment",
}

// fitting says what of a person's own objects does not fit into a lab.
func fitting(w *topology.Workload, objects []map[string]any) []error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var balancers, missing []string
	accounts := map[string]bool{}
	for _, o := range objects {
		o := object(o)
		namespace := o.text("metadata", "namespace")
		annotations, _ := o["metadata"].(map[string]any)["annotations"].(map[string]any)
		switch {
		case slices.Contains(wholeCluster, o.text("kind")):
			say("%s belongs to the whole cluster: leave it out (fedlab makes the namespace itself)", o)
		case namespace != "" && namespace != w.Namespace:
			say("%s is in the namespace %s: want %s, as identity.namespace says", o, namespace, w.Namespace)
		case annotations["helm.sh/hook"] != nil && !strings.Contains(fmt.Sprint(annotations["helm.sh/hook"]), "test"):
			say("%s is a hook of Helm, which a lab does not run: make it an object of the chart", o)
		}
		if o.text("kind") == "Service" && o.text("spec", "type") == "LoadBalancer" {
			balancers = append(balancers, o.String())
		}
		podSpecs(map[string]any(o), func(spec map[string]any) {
			account, _ := spec["serviceAccountName"].(string)
			if account == "" {
				account = "default"
			}
			accounts[account] = true
			for _, name := range imagesOf(spec) {
				if !slices.ContainsFunc(w.Own.Images, func(i topology.OwnImage) bool { return i.Name == name }) && !slices.Contains(missing, name) {
					missing = append(missing, name)
				}
			}
		})
	}
	for _, name := range missing {
		say("nobody provides the image %s: add it to images, with go, archive or docker", name)
	}
	if len(balancers) > 1 {
		say("%s are of type LoadBalancer, and a workload has one address: leave one", strings.Join(balancers, " and "))
	}
	if w.App.Port > 0 && len(balancers) == 0 {
		say("port is %d, and no Service is of type LoadBalancer: peers cannot call it", w.App.Port)
	}
	if !accounts[w.App.ServiceAccount] {
		say("no pod runs as the service account %s, which identity.serviceAccount names; there are %s", w.App.ServiceAccount, strings.Join(slices.Sorted(maps.Keys(accounts)), ", "))
	}
	return errs
}

// podSpecs calls do for the specification of each pod below a value.
func podSpecs(at any, do func(spec map[string]any)) {
	switch at := at.(type) {
	case []any:
		for _, x := range at {
			podSpecs(x, do)
		}
	case map[string]any:
		if _, is := at["containers"].([]any); is {
			do(at)
		}
		for _, name := range slices.Sorted(maps.Keys(at)) {
			podSpecs(at[name], do)
		}
	}
}

func imagesOf(spec map[string]any) (names []string) {
	for _, kind := range []string{"initContainers", "containers"} {
		list, _ := spec[kind].([]any)
		for _, x := range list {
			c, _ := x.(map[string]any)
			if name, _ := c["image"].(string); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// peers is the ConfigMap by which a person's own program learns who it is and whom it
// calls: each entry can be a variable of the environment.
func peers(w *topology.Workload) any {
	data := map[string]string{
		"SPIFFE_ENDPOINT_SOCKET": "unix://" + spire.SocketDir(w.Member) + "/spire-agent.sock",
		"SPIFFE_ID":              w.ID.String(),
	}
	for _, to := range w.Calls {
		name := strings.ToUpper(strings.ReplaceAll(to.Name, "-", "_"))
		data[name+"_ADDRESS"], data[name+"_ID"] = to.Port().String(), to.ID.String()
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": data,
		"metadata": map[string]any{"name": "fedlab-" + w.Name, "namespace": w.Namespace},
	}
}

// deployOwn runs a person's own program.
func (u *up) deployOwn(ctx context.Context, w *topology.Workload) error {
	u.mu.Lock()
	references := u.ownImages[w]
	u.mu.Unlock()
	loaded := false
	for _, name := range slices.Sorted(maps.Keys(references)) {
		did, err := u.Parts.Images.LoadOwn(ctx, w.Cluster().Lab, w.Cluster().Name, references[name])
		if err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		loaded = loaded || did
	}
	release := releaseOf(w)
	release.Edit = &access.Edit{Images: references, Address: w.Address.String(), More: []any{peers(w)}}
	changed, err := u.in(w.Cluster()).Releases.Apply(ctx, release)
	if loaded || changed {
		plan.Did(ctx)
	}
	return err
}

// ready returns nil when all that controls the pods of a workload is ready, or its program
// on a host.
func (d *Driver) ready(ctx context.Context, in access.Cluster, w *topology.Workload) error {
	switch {
	case w.Host() != nil:
		return d.readyOnHost(ctx, w)
	case w.Own == nil:
		return in.Pods.Ready(ctx, deployment(w))
	}
	found := false
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		key := access.ObjectKey{APIVersion: "apps/v1", Kind: kind, Namespace: w.Namespace}
		var all []struct {
			Metadata struct {
				Name        string            `json:"name"`
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
		}
		if err := in.Objects.List(ctx, key, nil, &all); err != nil {
			return err
		}
		for _, o := range all {
			if o.Metadata.Annotations[releaseAnnotation] != w.Name {
				continue
			}
			found, key.Name = true, o.Metadata.Name
			if err := in.Pods.Ready(ctx, key); err != nil {
				return err
			}
		}
	}
	if !found {
		return check.Never(errors.New("it has no Deployment, StatefulSet or DaemonSet"))
	}
	return nil
}

// releaseAnnotation is where Helm says of an object which release made it.
const releaseAnnotation = "meta.helm.sh/release-name"
