package kube

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/access"
)

const (
	readyNode   = `{"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}`
	freshLease  = `{"metadata": {"name": "n"}, "spec": {"renewTime": "2026-08-01T11:59:50.000000Z", "leaseDurationSeconds": 40}}`
	staleLease  = `{"metadata": {"name": "n"}, "spec": {"renewTime": "2026-08-01T11:50:00.000000Z", "leaseDurationSeconds": 40}}`
	node, lease = "/api/v1/nodes/n", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"
)

func TestReady(t *testing.T) {
	tests := map[string]struct {
		objects map[string]string
		err     string
	}{
		"ready":   {map[string]string{node: readyNode, lease: freshLease}, ""},
		"no node": {nil, "no node has registered"},
		"silent":  {map[string]string{node: `{"metadata": {"name": "n"}}`}, "node n: kubelet has not reported yet"},
		"no network": {
			map[string]string{node: `{"metadata": {"name": "n"}, "status": {"conditions": [
				{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "cni plugin not initialized"}]}}`},
			"node n: not ready: KubeletNotReady: cni plugin not initialized",
		},
		"no lease":      {map[string]string{node: readyNode}, "node n: read lease: n not found"},
		"lease is new":  {map[string]string{node: readyNode, lease: `{"metadata": {"name": "n"}}`}, "node n: lease was never renewed"},
		"just restored": {map[string]string{node: readyNode, lease: staleLease}, "node n: lease was renewed 10m0s ago, which should not be longer than 40s"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAPI()
			for path, text := range tt.objects {
				a.objects[path] = object(t, text)
			}
			if err := connect(t, a).NodeReady(t.Context()); message(err) != tt.err {
				t.Errorf("error %q, want %q", message(err), tt.err)
			}
		})
	}
}

func TestNewRefusesWhatIsNoKubeconfig(t *testing.T) {
	if _, err := New([]byte("a: [")); err == nil || !strings.HasPrefix(err.Error(), "read kubeconfig: ") {
		t.Errorf("error %v", err)
	}
}

// operation is one method of the client, arranged so that it makes each of its
// calls.
type operation struct {
	arrange func(*testing.T, *api)
	do      func(context.Context, *Cluster) error
	want    string
}

func operations() map[string]operation {
	holding := func(objects map[string]string) func(*testing.T, *api) {
		return func(t *testing.T, a *api) {
			t.Helper()
			for path, text := range objects {
				a.objects[path] = object(t, text)
			}
		}
	}
	const notReady = `{"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"app": "x"}}}, "status": {"desiredNumberScheduled": 1}}`
	const notUpdated = `{"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"app": "x"}}}, "status": {"updatedReplicas": 1}}`
	lab := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": "fedlab", "name": "lab"}}
	return map[string]operation{
		"NodeReady": {
			arrange: holding(map[string]string{node: readyNode, lease: freshLease}),
			do:      func(ctx context.Context, c *Cluster) error { return c.NodeReady(ctx) },
		},
		"Apply": {
			do:   func(ctx context.Context, c *Cluster) error { return c.Apply(ctx, lab) },
			want: "apply ConfigMap fedlab/lab: ",
		},
		"Delete": {
			arrange: holding(map[string]string{"/api/v1/namespaces/fedlab/configmaps/lab": `{}`}),
			do:      func(ctx context.Context, c *Cluster) error { return c.Delete(ctx, lab) },
			want:    "delete ConfigMap fedlab/lab: ",
		},
		"Object": {
			do: func(ctx context.Context, c *Cluster) error {
				_, _, err := c.Object(ctx, "v1", "ConfigMap", "fedlab", "lab")
				return err
			},
			want: "read ConfigMap fedlab/lab: ",
		},
		"Objects": {
			do: func(ctx context.Context, c *Cluster) error {
				_, err := c.Objects(ctx, "v1", "ConfigMap", "", "")
				return err
			},
			want: "list ConfigMap: ",
		},
		"Named": {
			do: func(ctx context.Context, c *Cluster) error {
				_, err := objects{c}.Named(ctx, access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap"}, map[string]string{"a": "b"})
				return err
			},
			want: "list ConfigMap: ",
		},
		"Scale": {
			do:   func(ctx context.Context, c *Cluster) error { return c.Scale(ctx, "Deployment", "demo", "x", 0) },
			want: "scale Deployment demo/x to 0: ",
		},
		"Pods": {
			do:   func(ctx context.Context, c *Cluster) error { _, err := c.Pods(ctx, "demo", ""); return err },
			want: "list pods: ",
		},
		"Logs": {
			do: func(ctx context.Context, c *Cluster) error {
				_, err := c.Logs(ctx, "demo", "x", "y", false, 9)
				return err
			},
			want: "read log of demo/x, container y: ",
		},
		"DeploymentReady": {
			arrange: holding(map[string]string{"/apis/apps/v1/namespaces/demo/deployments/x": notReady}),
			do: func(ctx context.Context, c *Cluster) error {
				return expected(c.Ready(ctx, demo("Deployment")))
			},
			want: "deployment demo/x: ",
		},
		"StatefulSetReady": {
			arrange: holding(map[string]string{"/apis/apps/v1/namespaces/demo/statefulsets/x": notReady}),
			do: func(ctx context.Context, c *Cluster) error {
				return expected(c.Ready(ctx, demo("StatefulSet")))
			},
			want: "statefulset demo/x: ",
		},
		"Started": {
			arrange: holding(map[string]string{"/apis/apps/v1/namespaces/demo/statefulsets/x": notUpdated}),
			do: func(ctx context.Context, c *Cluster) error {
				return expected(c.Started(ctx, demo("StatefulSet"), "y"))
			},
			want: "statefulset demo/x: ",
		},
		"DaemonSetReady": {
			arrange: holding(map[string]string{"/apis/apps/v1/namespaces/demo/daemonsets/x": notReady}),
			do: func(ctx context.Context, c *Cluster) error {
				return expected(c.Ready(ctx, demo("DaemonSet")))
			},
			want: "daemonset demo/x: ",
		},
	}
}

// expected takes away what a readiness check says when it does its work.
func expected(err error) error {
	if strings.HasSuffix(message(err), ": 0 of 1 ready") || strings.HasSuffix(message(err), ": 0 of 1 started") {
		return nil
	}
	return err
}

// TestEachCallFailing lets each call of each operation fail in turn.
func TestEachCallFailing(t *testing.T) {
	arranged := func(t *testing.T, op operation) *api {
		t.Helper()
		a := newAPI()
		if op.arrange != nil {
			op.arrange(t, a)
		}
		return a
	}
	for name, op := range operations() {
		t.Run(name, func(t *testing.T) {
			a := arranged(t, op)
			if err := op.do(t.Context(), connect(t, a)); err != nil {
				t.Fatalf("nothing fails, and yet: %v", err)
			}
			for i, call := range a.calls {
				b := arranged(t, op)
				b.failAt = i + 1
				err := op.do(t.Context(), connect(t, b))
				if err == nil || !strings.Contains(err.Error(), op.want) || !saysInjected(err, i+1) {
					t.Errorf("call %d, %s, fails: error %v", i+1, call, err)
				}
			}
		})
	}
}

// saysInjected holds when err carries the failure of that call. Where client-go
// reads bytes and no object, it drops what the server said.
func saysInjected(err error, call int) bool {
	return strings.Contains(err.Error(), fmt.Sprintf("injected into call %d", call)) ||
		strings.Contains(err.Error(), `an error on the server ("unknown") has prevented the request from succeeding`)
}

// TestUnreachable checks that no operation takes a server that is gone for an
// object that is not there.
func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(newAPI())
	url := server.URL
	server.Close()
	for name, op := range operations() {
		t.Run(name, func(t *testing.T) {
			if err := op.do(t.Context(), dialAPI(t, url)); err == nil || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// demo is the workload of a kind that the tests look at.
func demo(kind string) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: kind, Namespace: "demo", Name: "x"}
}
