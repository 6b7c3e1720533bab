package local

import (
	"context"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/kindcluster"
)

// labelOwner is the label of a lab's network that names the user who made it.
const labelOwner = "dev.fedlab.owner"

type labs struct{ engine *docker.Client }

// list goes by the networks, and by the containers of labs whose network
// somebody has removed.
func (l labs) list(ctx context.Context) ([]lab.Found, error) {
	networks, err := l.engine.Networks(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := l.engine.Containers(ctx, nil)
	if err != nil {
		return nil, err
	}
	var found []lab.Found
	known := map[string]bool{}
	add := func(name, owner string) {
		if name != "" && !known[name] {
			known[name] = true
			found = append(found, lab.Found{Name: name, Owner: owner})
		}
	}
	for _, n := range networks {
		if name := n.Labels[labelLab]; n.Name == networkName(name) {
			add(name, n.Labels[labelOwner])
		}
	}
	for _, c := range containers {
		if c.Labels[labelSidecar] != "" || c.Labels[labelHost] != "" {
			add(c.Labels[labelLab], "")
		}
		for _, network := range c.Networks {
			name, ours := strings.CutPrefix(network, networkName(""))
			if ours && strings.HasPrefix(c.Labels[kindcluster.ClusterLabel], kindName(name, "")) {
				add(name, "")
			}
		}
	}
	return found, nil
}

func owner() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}
