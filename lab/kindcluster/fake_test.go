package kindcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/exec"
)

// fakeKind stands for kind and the one node of its one cluster.
type fakeKind struct {
	mu sync.Mutex
	// node is nil while there is no cluster.
	node *fakeNode
	// failures gives an error to each call of that name.
	failures map[string]error
	// create runs in place of a node's appearance.
	create func(k *fakeKind, config *v1alpha4.Cluster, kubeconfig string) error
	calls  []string
	// kubeconfigs holds the path that each call got.
	kubeconfigs []string
	// network is what the environment said during the last create.
	network string
}

func (k *fakeKind) provider() *Provider {
	return &Provider{clusters: func() clusters { return k }, proc: "/proc"}
}

func (k *fakeKind) call(name, kubeconfig string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, name)
	if kubeconfig != "" {
		k.kubeconfigs = append(k.kubeconfigs, kubeconfig)
	}
	return k.failures[name]
}

func (k *fakeKind) Create(config *v1alpha4.Cluster, kubeconfig string) error {
	err := k.call("Create", kubeconfig)
	k.mu.Lock()
	k.network = os.Getenv(networkVariable)
	k.mu.Unlock()
	if k.create != nil {
		return k.create(k, config, kubeconfig)
	}
	if err == nil {
		k.node = &fakeNode{}
	}
	return err
}

func (k *fakeKind) Delete(_, kubeconfig string) error {
	err := k.call("Delete", kubeconfig)
	if err == nil {
		k.mu.Lock()
		k.node = nil
		k.mu.Unlock()
	}
	return err
}

func (k *fakeKind) ListNodes(string) ([]nodes.Node, error) {
	err := k.call("ListNodes", "")
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil || k.node == nil {
		return nil, err
	}
	return []nodes.Node{k.node}, nil
}

func (k *fakeKind) KubeConfig(name string, internal bool) (string, error) {
	if internal {
		return "", errors.New("asked for the address inside of the network")
	}
	return kubeconfig(name), k.call("KubeConfig", "")
}

// kubeconfig is the one of a cluster whose API has a port made of its name.
func kubeconfig(name string) string {
	return fmt.Sprintf("clusters: [{name: kind-%[1]s, cluster: {server: 'https://127.0.0.1:%[2]d'}}]\n"+
		"users: [{name: kind-%[1]s, user: {client-key-data: key-of-%[1]s}}]\n"+
		"contexts: [{name: kind-%[1]s, context: {cluster: kind-%[1]s, user: kind-%[1]s}}]\n", name, 6000+len(name))
}

// fakeNode embeds nodes.Node for the methods that are never called.
type fakeNode struct {
	nodes.Node
	// command is what each command that runs in it is.
	command fakeCommand
	// argv is the last of them.
	argv []string
}

func (n *fakeNode) String() string { return "quotes-market-control-plane" }

func (n *fakeNode) Command(program string, args ...string) exec.Cmd {
	n.argv = append([]string{program}, args...)
	return &n.command
}

// fakeCommand embeds exec.Cmd for the methods that are never called.
type fakeCommand struct {
	exec.Cmd
	output string
	err    error
	stdout io.Writer
}

func (c *fakeCommand) SetStdout(w io.Writer) exec.Cmd {
	c.stdout = w
	return c
}

func (c *fakeCommand) Run() error {
	_, err := io.WriteString(c.stdout, c.output)
	return errors.Join(c.err, err)
}

// commandFailed is how kind says that a command failed.
func commandFailed(output string) error {
	return &exec.RunError{Command: []string{"docker", "run"}, Output: []byte(output), Inner: errors.New("exit status 1")}
}

func market() Spec {
	return Spec{
		Name:          "quotes-market",
		Image:         "fedlab/node:1",
		Network:       "quotes",
		PodSubnet:     netip.MustParsePrefix("10.64.0.0/16"),
		ServiceSubnet: netip.MustParsePrefix("10.128.0.0/16"),
		PortMappings:  []PortMapping{{Host: netip.MustParseAddrPort("127.0.0.1:8080"), NodePort: 30080}},
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// ended is a context that has ended because the user gave up.
func ended(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("user gave up"))
	return ctx
}
