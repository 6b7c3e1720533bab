package kindcluster

import (
	"bytes"
	"fmt"
	"os"
)

// NoKubeconfigError says that a cluster's node runs and has no kubeconfig: kubeadm
// has not come so far.
type NoKubeconfigError struct{ Cluster string }

func (e *NoKubeconfigError) Error() string {
	return fmt.Sprintf("read kubeconfig of cluster %s: its node has none yet", e.Cluster)
}

// Kubeconfig returns a kubeconfig for one cluster, with which this machine
// reaches it. It holds a private key. The node must run; the error is a
// *NoKubeconfigError when it does and has none.
func (p *Provider) Kubeconfig(name string) ([]byte, error) {
	config, err := p.clusters().KubeConfig(name, false)
	if err == nil {
		return []byte(config), nil
	}
	if p.lacksKubeconfig(name) {
		return nil, &NoKubeconfigError{Cluster: name}
	}
	return nil, fmt.Errorf("read kubeconfig of cluster %s: %w", name, described(err))
}

// lacksKubeconfig reports whether a node certainly has no kubeconfig. That kind
// cannot read it does not tell: the docker command fails in the same way when it
// does not reach the node.
func (p *Provider) lacksKubeconfig(name string) bool {
	found, err := p.clusters().ListNodes(name)
	if err != nil || len(found) != 1 {
		return false
	}
	var out bytes.Buffer
	look := found[0].Command("find", "/etc/kubernetes", "-maxdepth", "1", "-name", "admin.conf").SetStdout(&out)
	return look.Run() == nil && out.Len() == 0
}

// Lend calls do with the path of a kubeconfig of one cluster, that only this
// person can read and that is gone afterwards. The node must run; see Kubeconfig.
func (p *Provider) Lend(name string, do func(path string) error) error {
	data, err := p.Kubeconfig(name)
	if err != nil {
		return err
	}
	return inPrivate(func(path string) error {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("write kubeconfig of cluster %s: %w", name, err)
		}
		return do(path)
	})
}
