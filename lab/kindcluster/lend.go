package kindcluster

import (
	"fmt"
	"os"
)

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
