package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// stderrTail is how many bytes of a command's complaint an ExitError keeps.
const stderrTail = 2 << 10

// ExitError says that a command in a container ended with another code than 0.
type ExitError struct {
	Command []string
	Code    int
	// Stderr is the end of what the command wrote there.
	Stderr string
}

func (e *ExitError) Error() string {
	return join(strings.Join(e.Command, " "), fmt.Sprintf("exit code %d", e.Code), e.Stderr)
}

// Exec runs a command in a container without giving it input, and returns what
// it wrote to stdout. The error is an [*ExitError] when the command fails. When
// ctx ends, Exec returns and the command goes on.
func (c *Cluster) Exec(ctx context.Context, namespace, pod, container string, argv ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	err := c.run(ctx, namespace, pod, container, access.Streams{Out: &stdout, Err: &stderr}, argv)
	if err != nil {
		// client-go may still write to the buffers when ctx has ended.
		if exit, failed := errors.AsType[*ExitError](err); failed {
			exit.Stderr = end(stderr.String(), stderrTail)
		}
		return nil, notRun(err, namespace, pod, container, argv)
	}
	return stdout.Bytes(), nil
}

func notRun(err error, namespace, pod, container string, argv []string) error {
	return fmt.Errorf("run %s in %s/%s, container %s: %w", argv[0], namespace, pod, container, err)
}

// run returns when ctx ends, and the command goes on. The error is an [*ExitError],
// without Stderr, when the command fails.
func (c *Cluster) run(ctx context.Context, namespace, pod, container string, s access.Streams, argv []string) error {
	err := c.exec(ctx, namespace, pod, remotecommand.StreamOptions{Stdin: s.In, Stdout: s.Out, Stderr: s.Err}, &corev1.PodExecOptions{
		Container: container, Command: argv, Stdin: s.In != nil, Stdout: true, Stderr: true,
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if exit, failed := errors.AsType[clientexec.ExitError](err); failed {
		return &ExitError{Command: argv, Code: exit.ExitStatus()}
	}
	return err
}

func (c *Cluster) exec(ctx context.Context, namespace, pod string, streams remotecommand.StreamOptions, options *corev1.PodExecOptions) error {
	at := c.subresource(namespace, pod, "exec")
	query, err := scheme.ParameterCodec.EncodeParameters(options, corev1.SchemeGroupVersion)
	if err != nil {
		return err
	}
	at.RawQuery = query.Encode()
	overWebSocket, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, at.String())
	if err != nil {
		return err
	}
	overSPDY, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, at)
	if err != nil {
		return err
	}
	either, err := remotecommand.NewFallbackExecutor(overWebSocket, overSPDY, isWithoutWebSocket)
	if err != nil {
		return err
	}
	// client-go prints to stderr some of what it returns as well.
	return either.StreamWithContext(klog.NewContext(ctx, logr.Discard()), streams)
}

// isWithoutWebSocket says that a server, or a proxy before it, cannot upgrade
// to the newer of the two protocols.
func isWithoutWebSocket(err error) bool {
	return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
}

func (c *Cluster) subresource(namespace, pod, name string) *url.URL {
	return c.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource(name).URL()
}

func end(text string, limit int) string {
	text = strings.TrimSpace(text)
	if cut := len(text) - limit; cut > 0 {
		return "…" + strings.ToValidUTF8(text[cut:], "")
	}
	return text
}
