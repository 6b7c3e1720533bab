package kube

import (
	"fmt"
	"reflect"
	"testing"
)

const selector = `"selector": {"matchLabels": {"app": "x"}}`

// pod is the JSON of a pod with this status.
func pod(name, status string) string {
	return fmt.Sprintf(`{"metadata": {"name": %q, "creationTimestamp": "2026-08-01T11:00:00Z"}, "status": {%s}}`, name, status)
}

func TestDeploymentReady(t *testing.T) {
	tests := map[string]struct {
		deployment string
		pods       []string
		err        string
	}{
		"absent": {err: "read deployment demo/x: x not found"},
		"ready":  {deployment: `{"spec": {` + selector + `}, "status": {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}}`},
		"scaled to nothing": {
			deployment: `{"spec": {"replicas": 0, ` + selector + `}}`,
			err:        "deployment demo/x: scaled to no pod",
		},
		"not seen": {
			deployment: `{"metadata": {"generation": 2}, "spec": {` + selector + `}, "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}}`,
			err:        "deployment demo/x: Kubernetes has not acted on the newest version yet",
		},
		"only the old pod is ready": {
			deployment: `{"spec": {` + selector + `}, "status": {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}}`,
			pods: []string{
				pod("x-old", `"conditions": [{"type": "Ready", "status": "True"}]`),
				pod("x-new", `"containerStatuses": [{"name": "y", "state": {"running": {}}, "restartCount": 2}]`),
			},
			err: "deployment demo/x: 1 of 1 ready: pod x-new: container y running, not ready (restarts: 2); 1 of an older version",
		},
		"no image": {
			deployment: `{"spec": {` + selector + `}, "status": {"replicas": 1, "updatedReplicas": 1}}`,
			pods: []string{pod("x-1", `"containerStatuses": [
				{"name": "y", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}},
				{"name": "z", "ready": true, "state": {"running": {}}}]`)},
			err: "deployment demo/x: 0 of 1 ready: pod x-1: container y waiting: ImagePullBackOff: Back-off pulling image",
		},
		"init container": {
			deployment: `{"spec": {` + selector + `}, "status": {"replicas": 1, "updatedReplicas": 1}}`,
			pods: []string{pod("x-1", `"initContainerStatuses": [
				{"name": "done", "ready": true, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
				{"name": "wait", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
				"containerStatuses": [{"name": "y", "state": {"waiting": {"reason": "PodInitializing"}}}]`)},
			err: "deployment demo/x: 0 of 1 ready: pod x-1: container wait terminated: exit code 1: Error",
		},
		"no room": {
			deployment: `{"spec": {` + selector + `}, "status": {"replicas": 1, "updatedReplicas": 1}}`,
			pods:       []string{pod("x-1", `"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]`)},
			err:        "deployment demo/x: 0 of 1 ready: pod x-1: not scheduled: Unschedulable: 0/1 nodes",
		},
		"evicted": {
			deployment: `{"spec": {` + selector + `}, "status": {"replicas": 1, "updatedReplicas": 1}}`,
			pods:       []string{pod("x-1", `"phase": "Failed", "reason": "Evicted", "message": "low on memory"`), pod("x-2", `"phase": "Pending"`)},
			err:        "deployment demo/x: 0 of 1 ready: pod x-1: Evicted: low on memory; pod x-2: phase Pending",
		},
		"no pod may be made": {
			deployment: `{"spec": {` + selector + `}, "status": {"conditions": [
				{"type": "Progressing", "status": "True", "message": "fine"},
				{"type": "ReplicaFailure", "status": "True", "message": "service account missing"}]}}`,
			err: "deployment demo/x: 0 of 1 ready: service account missing",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			if tt.deployment != "" {
				a.objects["/apis/apps/v1/namespaces/demo/deployments/x"] = object(t, tt.deployment)
			}
			for i, p := range tt.pods {
				a.objects[fmt.Sprintf("/api/v1/namespaces/demo/pods/%d", i)] = object(t, p)
			}
			if err := connect(t, a).Ready(t.Context(), demo("Deployment")); message(err) != tt.err {
				t.Errorf("error %q\nwant  %q", message(err), tt.err)
			}
			if got := a.query.Get("labelSelector"); len(tt.pods) > 0 && got != "app=x" {
				t.Errorf("asked for pods with %q", got)
			}
		})
	}
}

func TestOtherWorkloads(t *testing.T) {
	a := newAPI()
	c := connect(t, a)
	set := func(kind, text string) { a.objects["/apis/apps/v1/namespaces/demo/"+kind+"/x"] = object(t, text) }

	set("statefulsets", `{"spec": {`+selector+`}, "status": {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}}`)
	set("daemonsets", `{"spec": {`+selector+`}, "status": {"desiredNumberScheduled": 1, "currentNumberScheduled": 1, "updatedNumberScheduled": 1, "numberReady": 1}}`)
	if err := c.Ready(t.Context(), demo("StatefulSet")); err != nil {
		t.Error(err)
	}
	if err := c.Ready(t.Context(), demo("DaemonSet")); err != nil {
		t.Error(err)
	}

	set("statefulsets", `{"spec": {"replicas": 2, `+selector+`}, "status": {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 2}}`)
	set("daemonsets", `{"spec": {`+selector+`}, "status": {"desiredNumberScheduled": 1, "currentNumberScheduled": 1, "numberReady": 1}}`)
	if err := c.Ready(t.Context(), demo("StatefulSet")); message(err) != "statefulset demo/x: 2 of 2 ready: 1 of an older version" {
		t.Error(err)
	}
	if err := c.Ready(t.Context(), demo("DaemonSet")); message(err) != "daemonset demo/x: 1 of 1 ready: 1 of an older version" {
		t.Error(err)
	}
	set("daemonsets", `{"spec": {`+selector+`}}`)
	if err := c.Ready(t.Context(), demo("DaemonSet")); message(err) != "daemonset demo/x: fits no node" {
		t.Error(err)
	}
}

func TestStarted(t *testing.T) {
	const (
		updated = `"status": {"replicas": 1, "updatedReplicas": 1}}`
		running = `"state": {"running": {}}`
	)
	for name, tt := range map[string]struct {
		set  string
		pods []string
		err  string
	}{
		"absent": {err: "read statefulset demo/x: x not found"},
		"started, and not ready yet": {
			set: `{"spec": {` + selector + `}, ` + updated,
			pods: []string{pod("x-0", `"containerStatuses": [
				{"name": "y", "started": true, `+running+`}, {"name": "z", "started": false, `+running+`}]`)},
		},
		"scaled to nothing": {set: `{"spec": {"replicas": 0, ` + selector + `}}`, err: "statefulset demo/x: scaled to no pod"},
		"not seen": {
			set:  `{"metadata": {"generation": 2}, "spec": {` + selector + `}, "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}}`,
			pods: []string{pod("x-0", `"containerStatuses": [{"name": "y", "started": true, `+running+`}]`)},
			err:  "statefulset demo/x: Kubernetes has not acted on the newest version yet",
		},
		"of an older version": {
			set:  `{"spec": {` + selector + `}, "status": {"replicas": 1, "updatedReplicas": 0}}`,
			pods: []string{pod("x-0", `"containerStatuses": [{"name": "y", "started": true, `+running+`}]`)},
			err:  "statefulset demo/x: 0 of 1 of the newest version",
		},
		"only the other container has started": {
			set: `{"spec": {` + selector + `}, ` + updated,
			pods: []string{pod("x-0", `"containerStatuses": [
				{"name": "y", "started": false, `+running+`}, {"name": "z", "started": true, "ready": true, `+running+`}]`)},
			err: "statefulset demo/x: 0 of 1 started: pod x-0: container y running, not ready",
		},
		"waits for what comes before it": {
			set: `{"spec": {` + selector + `}, ` + updated,
			pods: []string{pod("x-0", `"initContainerStatuses": [{"name": "before", "started": false, `+running+`}],
				"containerStatuses": [{"name": "y", "state": {"waiting": {"reason": "PodInitializing"}}}]`)},
			err: "statefulset demo/x: 0 of 1 started: pod x-0: container before running, not ready",
		},
		"one of two": {
			set: `{"spec": {"replicas": 2, ` + selector + `}, "status": {"replicas": 2, "updatedReplicas": 2}}`,
			pods: []string{
				pod("x-0", `"containerStatuses": [{"name": "y", "started": true, `+running+`}]`),
				pod("x-1", `"phase": "Pending"`),
			},
			err: "statefulset demo/x: 1 of 2 started: pod x-1: phase Pending",
		},
		"no pod yet": {set: `{"spec": {` + selector + `}, ` + updated, err: "statefulset demo/x: 0 of 1 started"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			if tt.set != "" {
				a.objects["/apis/apps/v1/namespaces/demo/statefulsets/x"] = object(t, tt.set)
			}
			for i, p := range tt.pods {
				a.objects[fmt.Sprintf("/api/v1/namespaces/demo/pods/%d", i)] = object(t, p)
			}
			if err := connect(t, a).Started(t.Context(), demo("StatefulSet"), "y"); message(err) != tt.err {
				t.Errorf("error %q\nwant  %q", message(err), tt.err)
			}
			if got := a.query.Get("labelSelector"); tt.err == "" && got != "app=x" {
				t.Errorf("asked for pods with %q", got)
			}
		})
	}
}

func TestPods(t *testing.T) {
	a := newAPI()
	a.objects["/api/v1/namespaces/demo/pods/b"] = object(t, `{"metadata": {"name": "b", "deletionTimestamp": "2026-08-01T11:00:00Z"},
		"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}`)
	a.objects["/api/v1/namespaces/demo/pods/a"] = object(t, `{"metadata": {"name": "a", "creationTimestamp": "2026-08-01T11:00:00Z", "labels": {"app": "x"}},
		"spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIP": "10.64.0.7", "conditions": [{"type": "Ready", "status": "True"}],
		"containerStatuses": [{"name": "y", "image": "y:1", "ready": true, "restartCount": 1, "state": {"running": {}}}]}}`)
	got, err := connect(t, a).Pods(t.Context(), "demo", "app in (x, y)")
	want := []Pod{
		{Name: "a", Ready: true, Containers: []Container{{Name: "y", Image: "y:1"}}},
		{Name: "b", Trouble: "is being deleted"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, error %v\nwant %+v", got, err, want)
	}
	if a.query.Get("labelSelector") != "app in (x, y)" {
		t.Errorf("selector %q", a.query.Get("labelSelector"))
	}
}

func TestLogs(t *testing.T) {
	a := newAPI()
	text, err := connect(t, a).Logs(t.Context(), "demo", "x", "y", true, 50)
	if err != nil || string(text) != "one\ntwo\n" || a.calls[0] != "GET /api/v1/namespaces/demo/pods/x/log" || a.query.Encode() != "container=y&previous=true&tailLines=50" {
		t.Errorf("text %q, error %v, calls %v, query %s", text, err, a.calls, a.query.Encode())
	}
}
