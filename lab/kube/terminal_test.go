package kube

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// TestRun gives a command its input, and passes on what it writes and how it ends.
func TestRun(t *testing.T) {
	s := &streams{protocol: "v4.channel.k8s.io", count: 4, serve: func(by map[string]httpstream.Stream) {
		_, _ = io.Copy(by[corev1.StreamTypeStdout], by[corev1.StreamTypeStdin])
		_, _ = io.WriteString(by[corev1.StreamTypeStderr], "it is wrong\n")
		_, _ = io.WriteString(by[corev1.StreamTypeError],
			`{"status": "Failure", "reason": "NonZeroExitCode", "message": "command failed", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}`)
		for _, stream := range by {
			_ = stream.Close()
		}
	}}
	var out, stderr strings.Builder
	err := connect(t, s).Access().Terminals.Run(t.Context(), "demo", "x", "y", access.Streams{In: strings.NewReader("a bundle"), Out: &out, Err: &stderr}, "spire-server", "bundle", "set")
	exit := (*access.EndedError)(nil)
	if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "a bundle" || stderr.String() != "it is wrong\n" {
		t.Errorf("error %v, output %q, errors %q", err, out.String(), stderr.String())
	}
	if want := "/api/v1/namespaces/demo/pods/x/exec?command=spire-server&command=bundle&command=set&container=y&stderr=true&stdin=true&stdout=true"; s.path != want {
		t.Errorf("asked for %s, want %s", s.path, want)
	}
}

func TestCopyLogs(t *testing.T) {
	asked := ""
	server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked = r.URL.RequestURI(); strings.Contains(asked, "gone") {
			http.Error(w, "no such pod", http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, "a line\n")
	})
	var out strings.Builder
	if err := connect(t, server).CopyLogs(t.Context(), "demo", "x", "y", access.LogOptions{Follow: true, Since: 90*time.Second + 1}, &out); err != nil || out.String() != "a line\n" {
		t.Errorf("error %v, got %q", err, out.String())
	}
	if want := "/api/v1/namespaces/demo/pods/x/log?container=y&follow=true&sinceSeconds=91"; asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
	if err := connect(t, server).CopyLogs(t.Context(), "demo", "gone", "y", access.LogOptions{}, &out); err == nil ||
		!strings.HasPrefix(err.Error(), "read log of demo/gone, container y: ") {
		t.Errorf("error %v", err)
	}
	if want := "/api/v1/namespaces/demo/pods/gone/log?container=y"; asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
}
