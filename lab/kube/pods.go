package kube

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// Pod is a pod as it stands.
type Pod struct {
	Name       string
	Ready      bool
	Containers []Container
	// Trouble says why the pod is not ready; empty when it is.
	Trouble string
}

// Container is one container of a pod, init containers included.
type Container struct {
	Name, Image string
	// Started is set once its startup probe has succeeded.
	Started bool
}

// Pods lists the pods of a namespace, or of all when it is empty, that a label
// selector ("app=x,tier in (a, b)") selects; an empty one selects all. They are
// sorted by name.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	list, err := c.typed.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	pods := make([]Pod, len(list.Items))
	for i, item := range list.Items {
		pods[i] = asPod(item)
	}
	slices.SortFunc(pods, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods, nil
}

// Logs returns the last lines that a container has written. Previous asks for
// those of its last run before the present one.
func (c *Cluster) Logs(ctx context.Context, namespace, pod, container string, previous bool, lines int64) ([]byte, error) {
	options := &corev1.PodLogOptions{Container: container, Previous: previous, TailLines: &lines}
	var text []byte
	stream, err := c.typed.CoreV1().Pods(namespace).GetLogs(pod, options).Stream(ctx)
	if err == nil {
		text, err = lastLines(stream, longestLog)
		err = errors.Join(err, stream.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("read log of %s/%s, container %s: %w", namespace, pod, container, err)
	}
	return text, nil
}

// longestLog is how much of a log is read at most, its end: lines have no limit of
// their own.
const longestLog = 8 << 20

// lastLines reads a text and returns its last lines, of at most limit bytes, with no
// more than three times as much in memory.
func lastLines(from io.Reader, limit int) ([]byte, error) {
	var text bytes.Buffer
	cut := false
	for {
		n, err := io.CopyN(&text, from, int64(limit))
		if over := text.Len() - limit; over > 0 {
			text.Next(over)
			cut = true
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || n == 0 {
			return nil, err
		}
	}
	if cut {
		_, _ = text.ReadBytes('\n') // the rest of a line, of which the begin is gone
	}
	return text.Bytes(), nil
}

// CopyLogs copies what a container has written to out. Since counts to the second.
func (c *Cluster) CopyLogs(ctx context.Context, namespace, pod, container string, o access.LogOptions, out io.Writer) (err error) {
	options := &corev1.PodLogOptions{Container: container, Follow: o.Follow}
	if o.Since > 0 {
		seconds := int64(math.Ceil(o.Since.Seconds()))
		options.SinceSeconds = &seconds
	}
	log, err := c.typed.CoreV1().Pods(namespace).GetLogs(pod, options).Stream(ctx)
	if err == nil {
		_, err = io.Copy(out, log)
		err = errors.Join(err, log.Close())
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("read log of %s/%s, container %s: %w", namespace, pod, container, err)
	}
	return nil
}

func asPod(p corev1.Pod) Pod {
	pod := Pod{Name: p.Name, Ready: condition(p, corev1.PodReady).Status == corev1.ConditionTrue && p.DeletionTimestamp == nil}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		pod.Containers = append(pod.Containers, Container{Name: s.Name, Image: s.Image, Started: s.Started != nil && *s.Started})
	}
	if !pod.Ready {
		pod.Trouble = trouble(p)
	}
	return pod
}

// trouble says why a pod is not ready, the nearest cause first.
func trouble(p corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return "is being deleted"
	}
	// While an init container is in the way, the others only wait for it.
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		var causes []string
		for _, s := range statuses {
			if !s.Ready {
				causes = append(causes, notReady(s))
			}
		}
		if len(causes) > 0 {
			return strings.Join(causes, "; ")
		}
	}
	if scheduled := condition(p, corev1.PodScheduled); scheduled.Status == corev1.ConditionFalse {
		return fmt.Sprintf("not scheduled: %s: %s", scheduled.Reason, scheduled.Message)
	}
	if p.Status.Reason != "" {
		return fmt.Sprintf("%s: %s", p.Status.Reason, p.Status.Message)
	}
	return "phase " + string(p.Status.Phase)
}

func notReady(s corev1.ContainerStatus) string {
	cause := fmt.Sprintf("container %s %s", s.Name, state(s.State))
	if s.State.Running != nil {
		cause += ", not ready"
	}
	if s.RestartCount > 0 {
		cause += fmt.Sprintf(" (restarts: %d)", s.RestartCount)
	}
	return cause
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Waiting != nil:
		return join("waiting", s.Waiting.Reason, s.Waiting.Message)
	case s.Terminated != nil:
		return join("terminated", fmt.Sprintf("exit code %d", s.Terminated.ExitCode), s.Terminated.Reason, s.Terminated.Message)
	default:
		return "waiting"
	}
}

func condition(p corev1.Pod, of corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == of {
			return c
		}
	}
	return corev1.PodCondition{}
}

// join puts a colon between what is not empty.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}
