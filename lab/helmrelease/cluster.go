package helmrelease

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/kube"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

// New makes a client for the current context of a kubeconfig. It connects to
// nothing yet and leaves no file behind. What Helm logs is discarded.
func New(kubeconfig []byte) (*Client, error) {
	loader, err := clientcmd.NewClientConfigFromBytes(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.UserAgent = "fedlab"
	config.QPS = -1
	config.WarningHandlerWithContext = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("configure client of %s: %w", config.Host, err)
	}
	return &Client{kubeconfig: loader, config: config, client: client}, nil
}

// ensureNamespace makes a namespace unless it exists. Helm could, but fetches
// the API server's whole schema to do so.
func (c *Client) ensureNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

// configuration is good for one action in a namespace. Its requests end when
// ctx does.
func (c *Client) configuration(ctx context.Context, namespace string) (*action.Configuration, error) {
	config := rest.CopyConfig(c.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return bound(ctx, next) })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("configure client of %s: %w", config.Host, err)
	}
	kinds := always{client.Discovery()}
	getter := &getter{
		config: config,
		loader: c.kubeconfig,
		kinds:  kinds,
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(kinds),
	}
	silent := func(string, ...any) {}
	objects := kube.New(getter)
	objects.Namespace = namespace
	objects.Log = silent
	return &action.Configuration{
		RESTClientGetter: getter,
		KubeClient:       objects,
		Releases:         storage.Init(driver.NewSecrets(client.CoreV1().Secrets(namespace))),
		Log:              silent,
		HookOutputFunc:   func(_, _, _ string) io.Writer { return io.Discard },
	}, nil
}

// bound gives ctx to requests that have a context without end: Helm's calls
// take none.
func bound(ctx context.Context, next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if r.Context().Done() == nil {
			r = r.WithContext(ctx)
		}
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// always asks the API server for its kinds each time, which Helm does twice for
// a release. client-go's caches print to stderr what goes wrong.
type always struct{ discovery.DiscoveryInterface }

func (always) Fresh() bool { return true }
func (always) Invalidate() {}

// getter is what Helm learns of a cluster through. It implements
// genericclioptions.RESTClientGetter without that package's caches on disk.
type getter struct {
	config *rest.Config
	loader clientcmd.ClientConfig
	kinds  discovery.CachedDiscoveryInterface
	mapper meta.RESTMapper
}

func (g *getter) ToRESTConfig() (*rest.Config, error) { return g.config, nil }

func (g *getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) { return g.kinds, nil }

func (g *getter) ToRESTMapper() (meta.RESTMapper, error) { return g.mapper, nil }

func (g *getter) ToRawKubeConfigLoader() clientcmd.ClientConfig { return g.loader }
