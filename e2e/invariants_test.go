package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// containerState is what is read of one container of a pod.
type containerState struct {
	cluster, namespace, pod, name string
	restarts                      int
}

func (c containerState) String() string {
	return strings.Join([]string{c.cluster, c.namespace, c.pod, c.name}, "/")
}

// containerStatus is the part of a pod's status that counts here.
type containerStatus struct {
	Name         string `json:"name"`
	RestartCount int    `json:"restartCount"`
	// ContainerID is empty before the first run.
	ContainerID string `json:"containerID"`
}

// containers lists the containers of all pods that have run.
func (s *subject) containers(ctx context.Context) ([]containerState, error) {
	var all []containerState
	for _, c := range s.graph.Clusters {
		cluster, err := s.cluster(c.Name)
		if err != nil {
			return nil, err
		}
		pods, err := cluster.Objects(ctx, "v1", "Pod", "", "")
		if err != nil {
			return nil, err
		}
		for _, object := range pods {
			var pod struct {
				Metadata metadata `json:"metadata"`
				Status   struct {
					Init []containerStatus `json:"initContainerStatuses"`
					Main []containerStatus `json:"containerStatuses"`
				} `json:"status"`
			}
			if err := convert(object, &pod); err != nil {
				return nil, err
			}
			for _, status := range slices.Concat(pod.Status.Init, pod.Status.Main) {
				if status.ContainerID != "" {
					all = append(all, containerState{c.Name, pod.Metadata.Namespace, pod.Metadata.Name, status.Name, status.RestartCount})
				}
			}
		}
	}
	return all, nil
}

// restarts counts them by container.
func (s *subject) restarts(ctx context.Context) (map[string]int, error) {
	all, err := s.containers(ctx)
	counts := map[string]int{}
	for _, c := range all {
		counts[c.String()] = c.restarts
	}
	return counts, err
}

// explain says that what a spec did is the reason for the restarts in a cluster
// up to now, and waits until there are no more to come.
func (s *subject) explain(ctx context.Context, name string) error {
	cluster, err := s.cluster(name)
	if err != nil {
		return err
	}
	err = check.Until(ctx, check.Bound{Within: rollout, Every: poll}, check.Check{Name: "all pods of " + name + " are ready", Probe: func(ctx context.Context) error {
		pods, err := cluster.Pods(ctx, "", "")
		for _, p := range pods {
			if !p.Ready {
				err = errors.Join(err, fmt.Errorf("%s: %s", p.Name, p.Trouble))
			}
		}
		return err
	}})
	now, counting := s.restarts(ctx)
	maps.DeleteFunc(now, func(container string, _ int) bool { return !strings.HasPrefix(container, name+"/") })
	maps.Copy(s.restarted, now)
	return errors.Join(err, counting)
}

// crash is how Go's runtime and Kubernetes' own libraries report a panic.
var crash = regexp.MustCompile(`(?m)^(panic: |fatal error: |goroutine \d+ \[running\])|Observed a panic`)

// logLines is how much of each log is looked through.
const logLines = 20000

// unharmed returns nil when no container was restarted without a reason, and no
// log shows a panic.
func (s *subject) unharmed(ctx context.Context) error {
	all, err := s.containers(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range all {
		if explained := s.restarted[c.String()]; c.restarts > explained {
			errs = append(errs, fmt.Errorf("container %s was restarted %d times, of which %d are explained", c, c.restarts, explained))
		}
		cluster, err := s.cluster(c.cluster)
		if err != nil {
			return err
		}
		for _, previous := range []bool{false, true}[:min(c.restarts+1, 2)] {
			log, err := cluster.Logs(ctx, c.namespace, c.pod, c.name, previous, logLines)
			if err != nil {
				// A pod that was on its way out has taken its log with it.
				if _, there, lookErr := cluster.Object(ctx, "v1", "Pod", c.namespace, c.pod); there || lookErr != nil {
					errs = append(errs, err, lookErr)
				}
				continue
			}
			if at := crash.FindIndex(log); at != nil {
				errs = append(errs, fmt.Errorf("the log of %s (previous run: %t) shows a panic: %.2000s", c, previous, log[at[0]:]))
			}
		}
	}
	return errors.Join(errs...)
}
