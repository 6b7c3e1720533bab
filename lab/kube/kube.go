// Package kube speaks to one Kubernetes cluster. It is the only importer of
// client-go; objects cross its border as plain values that encode to JSON.
//
// It refuses to know who made the cluster and what runs on it, and it never
// waits: what is not so yet is an error that says what was seen, and waiting is
// the caller's.
package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// fieldManager is the name under which the API server keeps what Apply owns.
const fieldManager = "fedlab"

// Cluster is a connection to one cluster. It is safe for concurrent use.
type Cluster struct {
	config  *rest.Config
	typed   kubernetes.Interface
	dynamic dynamic.Interface
	kinds   *kinds
	// now is the clock that the age of a node's lease is taken from.
	now func() time.Time
}

// New makes a client for the current context of a kubeconfig. It connects to
// nothing yet; see [Cluster.NodeReady].
func New(kubeconfig []byte) (*Cluster, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.UserAgent = "fedlab"
	// The API server has its own limits; holding requests back here as well
	// only makes them late.
	config.QPS = -1
	config.WarningHandlerWithContext = rest.NoWarnings{}

	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("configure client of %s: %w", config.Host, err)
	}
	typed, err := kubernetes.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("configure client of %s: %w", config.Host, err)
	}
	untyped, err := dynamic.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("configure client of %s: %w", config.Host, err)
	}
	return &Cluster{
		config:  config,
		typed:   typed,
		dynamic: untyped,
		kinds:   &kinds{api: discovery.ToDiscoveryInterfaceWithContext(typed.Discovery()), known: map[string]metav1.APIResource{}},
		now:     time.Now,
	}, nil
}

// NodeReady returns nil when the API server says that it is ready and each node is.
// A node that was stopped counts as ready to Kubernetes for a while; here it
// does not once its kubelet is late to renew its lease.
func (c *Cluster) NodeReady(ctx context.Context) error {
	if err := c.typed.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	nodes, err := c.typed.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	if len(nodes.Items) == 0 {
		return errors.New("no node has registered")
	}
	for _, node := range nodes.Items {
		if err := c.nodeReady(ctx, node); err != nil {
			return fmt.Errorf("node %s: %w", node.Name, err)
		}
	}
	return nil
}

func (c *Cluster) nodeReady(ctx context.Context, node corev1.Node) error {
	if err := conditionReady(node); err != nil {
		return err
	}
	lease, err := c.typed.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, node.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read lease: %w", err)
	}
	if lease.Spec.RenewTime == nil || lease.Spec.LeaseDurationSeconds == nil {
		return errors.New("lease was never renewed")
	}
	age := c.now().Sub(lease.Spec.RenewTime.Time)
	if limit := time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second; age > limit {
		return fmt.Errorf("lease was renewed %s ago, which should not be longer than %s", age.Round(time.Second), limit)
	}
	return nil
}

func conditionReady(node corev1.Node) error {
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		if condition.Status == corev1.ConditionTrue {
			return nil
		}
		return fmt.Errorf("not ready: %s: %s", condition.Reason, condition.Message)
	}
	return errors.New("kubelet has not reported yet")
}
