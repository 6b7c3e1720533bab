package spiretest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// HAProxyVariable is the environment variable that names haproxy. Without it, the one of
// Debian's package is taken.
const HAProxyVariable = "FEDLAB_HAPROXY"

func haproxy(t *testing.T) string {
	t.Helper()
	const installed = "/usr/sbin/haproxy"
	if path := os.Getenv(HAProxyVariable); path != "" {
		return path
	}
	if _, err := os.Stat(installed); err == nil {
		return installed
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("HAProxy is not installed: want Debian's package haproxy, or %s", HAProxyVariable)
	}
	t.Skipf("HAProxy is not installed, and %s does not name it: apt-get install --no-install-recommends haproxy", HAProxyVariable)
	return ""
}

// CheckHAProxy has HAProxy read a configuration, and returns what it says against it. Where
// there is no HAProxy the test ends here.
func CheckHAProxy(t *testing.T, config string) (said string, err error) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), haproxy(t), "-c", "-f", haproxyConfig(t, config)).CombinedOutput()
	return string(output), err
}

// StartHAProxy runs HAProxy with a configuration until the test ends, and waits until it
// answers at an address. Where there is no HAProxy the test ends here.
func StartHAProxy(t *testing.T, config, at string) *Process {
	t.Helper()
	p := execute(t, exec.CommandContext(t.Context(), haproxy(t), "-db", "-f", haproxyConfig(t, config)), nil)
	p.Await(t, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return p
}

func haproxyConfig(t *testing.T, config string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
