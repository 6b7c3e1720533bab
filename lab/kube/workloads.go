package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workload is what the three kinds have in common.
type workload struct {
	title    string
	selector *metav1.LabelSelector
	// seen says that the controller has acted on the newest version.
	seen bool
	// want, ready and old count pods: those there should be, those that are
	// ready, and those of an older version.
	want, ready, old int32
	// refusals say why pods cannot even be made.
	refusals []string
}

// DeploymentReady returns nil when each pod that a Deployment should have is of
// its newest version and ready. Otherwise the error says what keeps them. One
// that should have no pod does nothing, and is not ready.
func (c *Cluster) DeploymentReady(ctx context.Context, namespace, name string) error {
	d, err := c.typed.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read deployment %s/%s: %w", namespace, name, err)
	}
	w := workload{
		title:    "deployment " + namespace + "/" + name,
		selector: d.Spec.Selector,
		seen:     d.Status.ObservedGeneration >= d.Generation,
		want:     replicas(d.Spec.Replicas),
		ready:    d.Status.ReadyReplicas,
		old:      d.Status.Replicas - d.Status.UpdatedReplicas,
	}
	for _, condition := range d.Status.Conditions {
		if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
			w.refusals = append(w.refusals, condition.Message)
		}
	}
	return c.ready(ctx, namespace, w)
}

// StatefulSetReady is DeploymentReady for a StatefulSet.
func (c *Cluster) StatefulSetReady(ctx context.Context, namespace, name string) error {
	s, err := c.typed.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read statefulset %s/%s: %w", namespace, name, err)
	}
	return c.ready(ctx, namespace, workload{
		title:    "statefulset " + namespace + "/" + name,
		selector: s.Spec.Selector,
		seen:     s.Status.ObservedGeneration >= s.Generation,
		want:     replicas(s.Spec.Replicas),
		ready:    s.Status.ReadyReplicas,
		old:      s.Status.Replicas - s.Status.UpdatedReplicas,
	})
}

// StatefulSetStarted returns nil when each pod that a StatefulSet should have is
// of its newest version, and that container of it has passed its startup probe.
func (c *Cluster) StatefulSetStarted(ctx context.Context, namespace, name, container string) error {
	s, err := c.typed.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read statefulset %s/%s: %w", namespace, name, err)
	}
	title := "statefulset " + namespace + "/" + name
	want := replicas(s.Spec.Replicas)
	switch {
	case s.Status.ObservedGeneration < s.Generation:
		return fmt.Errorf("%s: the newest version is not acted upon yet", title)
	case want == 0:
		return fmt.Errorf("%s: scaled to no pod", title)
	case s.Status.UpdatedReplicas < want:
		return fmt.Errorf("%s: %d of %d of the newest version", title, s.Status.UpdatedReplicas, want)
	}
	selector, err := metav1.LabelSelectorAsSelector(s.Spec.Selector)
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	pods, err := c.Pods(ctx, namespace, selector.String())
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	var started int32
	var causes []string
	for _, pod := range pods {
		i := slices.IndexFunc(pod.Containers, func(c Container) bool { return c.Name == container })
		if i >= 0 && pod.Containers[i].Started {
			started++
		} else {
			causes = append(causes, fmt.Sprintf("pod %s: %s", pod.Name, pod.Trouble))
		}
	}
	if started == want {
		return nil
	}
	return fmt.Errorf("%s: %s", title, join(fmt.Sprintf("%d of %d started", started, want), strings.Join(causes, "; ")))
}

// DaemonSetReady is DeploymentReady for a DaemonSet, whose pods are one for
// each node that it fits; on no node it is not ready.
func (c *Cluster) DaemonSetReady(ctx context.Context, namespace, name string) error {
	d, err := c.typed.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read daemonset %s/%s: %w", namespace, name, err)
	}
	w := workload{
		title:    "daemonset " + namespace + "/" + name,
		selector: d.Spec.Selector,
		seen:     d.Status.ObservedGeneration >= d.Generation,
		want:     d.Status.DesiredNumberScheduled,
		ready:    d.Status.NumberReady,
		old:      d.Status.CurrentNumberScheduled - d.Status.UpdatedNumberScheduled,
	}
	if w.seen && w.want == 0 {
		return fmt.Errorf("%s: fits no node", w.title)
	}
	return c.ready(ctx, namespace, w)
}

func (c *Cluster) ready(ctx context.Context, namespace string, w workload) error {
	switch {
	case !w.seen:
		return fmt.Errorf("%s: the newest version is not acted upon yet", w.title)
	case w.want == 0:
		return fmt.Errorf("%s: scaled to no pod", w.title)
	case w.ready == w.want && w.old == 0:
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(w.selector)
	if err != nil {
		return fmt.Errorf("%s: %w", w.title, err)
	}
	pods, err := c.Pods(ctx, namespace, selector.String())
	if err != nil {
		return fmt.Errorf("%s: %w", w.title, err)
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

// replicas applies the default of spec.replicas.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
