package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// workload is what the three kinds have in common.
type workload struct {
	title    string
	selector *metav1.LabelSelector
	// seen says that the controller has acted on the newest version.
	seen bool
	// want, ready, updated and old count pods: those there should be, those that
	// are ready, those of the newest version and those of an older one.
	want, ready, updated, old int32
	// idle says what it means that there should be no pod.
	idle string
	// refusals say why pods cannot even be made.
	refusals []string
}

func (c *Cluster) workload(ctx context.Context, key access.ObjectKey) (workload, error) {
	w := workload{title: strings.ToLower(key.Kind) + " " + key.Namespace + "/" + key.Name, idle: "scaled to no pod"}
	var err error
	switch key.Kind {
	case "Deployment":
		var d *appsv1.Deployment
		if d, err = c.typed.AppsV1().Deployments(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{}); err == nil {
			w.selector, w.seen = d.Spec.Selector, d.Status.ObservedGeneration >= d.Generation
			w.count(replicas(d.Spec.Replicas), d.Status.ReadyReplicas, d.Status.UpdatedReplicas, d.Status.Replicas)
			for _, condition := range d.Status.Conditions {
				if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
					w.refusals = append(w.refusals, condition.Message)
				}
			}
		}
	case "StatefulSet":
		var s *appsv1.StatefulSet
		if s, err = c.typed.AppsV1().StatefulSets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{}); err == nil {
			w.selector, w.seen = s.Spec.Selector, s.Status.ObservedGeneration >= s.Generation
			w.count(replicas(s.Spec.Replicas), s.Status.ReadyReplicas, s.Status.UpdatedReplicas, s.Status.Replicas)
		}
	case "DaemonSet":
		var d *appsv1.DaemonSet
		if d, err = c.typed.AppsV1().DaemonSets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{}); err == nil {
			w.selector, w.seen = d.Spec.Selector, d.Status.ObservedGeneration >= d.Generation
			w.count(d.Status.DesiredNumberScheduled, d.Status.NumberReady, d.Status.UpdatedNumberScheduled, d.Status.CurrentNumberScheduled)
			w.idle = "fits no node"
		}
	default:
		return w, fmt.Errorf("nothing is known about the readiness of a %s", key.Kind)
	}
	if err != nil {
		return w, fmt.Errorf("read %s: %w", w.title, err)
	}
	return w, nil
}

func (w *workload) count(want, ready, updated, all int32) {
	w.want, w.ready, w.updated, w.old = want, ready, updated, all-updated
}

// scheduled returns nil when the controller has acted on the newest version, and
// makes pods of it.
func (w workload) scheduled() error {
	switch {
	case !w.seen:
		return fmt.Errorf("%s: Kubernetes has not acted on the newest version yet", w.title)
	case w.want == 0:
		return fmt.Errorf("%s: %s", w.title, w.idle)
	}
	return nil
}

func (c *Cluster) podsOf(ctx context.Context, namespace string, w workload) ([]Pod, error) {
	var pods []Pod
	selector, err := metav1.LabelSelectorAsSelector(w.selector)
	if err == nil {
		pods, err = c.Pods(ctx, namespace, selector.String())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.title, err)
	}
	return pods, nil
}

// Ready returns nil when each pod that a Deployment, StatefulSet or
// DaemonSet should have is of its newest version and ready. Otherwise the error
// says what keeps them. One that should have no pod does nothing, and is not ready.
func (c *Cluster) Ready(ctx context.Context, key access.ObjectKey) error {
	w, err := c.workload(ctx, key)
	if err != nil {
		return err
	}
	if err := w.scheduled(); err != nil || w.ready == w.want && w.old == 0 {
		return err
	}
	pods, err := c.podsOf(ctx, key.Namespace, w)
	if err != nil {
		return err
	}
	causes := w.refusals
	for _, pod := range pods {
		if !pod.Ready {
			causes = append(causes, fmt.Sprintf("pod %s: %s", pod.Name, pod.Trouble))
		}
	}
	if w.old > 0 {
		causes = append(causes, fmt.Sprintf("%d of an older version", w.old))
	}
	return fmt.Errorf("%s: %s", w.title, join(fmt.Sprintf("%d of %d ready", w.ready, w.want), strings.Join(causes, "; ")))
}

// Started returns nil when each pod that a StatefulSet should have is
// of its newest version, and that container of it has passed its startup probe.
func (c *Cluster) Started(ctx context.Context, set access.ObjectKey, container string) error {
	w, err := c.workload(ctx, set)
	if err != nil {
		return err
	}
	if err := w.scheduled(); err != nil {
		return err
	}
	if w.updated < w.want {
		return fmt.Errorf("%s: %d of %d of the newest version", w.title, w.updated, w.want)
	}
	pods, err := c.podsOf(ctx, set.Namespace, w)
	if err != nil {
		return err
	}
	var started int32
	var causes []string
	for _, pod := range pods {
		if slices.ContainsFunc(pod.Containers, func(c Container) bool { return c.Name == container && c.Started }) {
			started++
		} else {
			causes = append(causes, fmt.Sprintf("pod %s: %s", pod.Name, pod.Trouble))
		}
	}
	if started == w.want {
		return nil
	}
	return fmt.Errorf("%s: %s", w.title, join(fmt.Sprintf("%d of %d started", started, w.want), strings.Join(causes, "; ")))
}

// replicas applies the default of spec.replicas.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
