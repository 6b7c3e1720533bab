package kindcluster

import (
	"bytes"
	"log/slog"
	"testing"
)

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	handler := slog.NewTextHandler(&out, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	l := logger{slog.New(handler)}
	l.Warnf("cgroup %s\n", "v1")
	l.Errorf("cannot %s", "lock")
	l.V(0).Infof(" • %s  ...\n", "Preparing nodes")
	l.V(0).Info("token abcdef.0123456789abcdef")
	l.V(3).Info("kubeadm says")
	want := `level=WARN msg="cgroup v1"
level=ERROR msg="cannot lock"
level=INFO msg="• Preparing nodes  ..."
level=INFO msg="token (bootstrap token)"
`
	if out.String() != want {
		t.Errorf("log:\n%swant:\n%s", out.String(), want)
	}
	if !l.V(0).Enabled() || l.V(3).Enabled() {
		t.Errorf("enabled: V(0) %t, V(3) %t", l.V(0).Enabled(), l.V(3).Enabled())
	}
}
