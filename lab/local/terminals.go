package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

const kubectl = "kubectl"

// Kubectl runs kubectl for a cluster of a lab: this machine's, with a kubeconfig of
// that cluster alone, or that of the cluster's node, which sees the files of the
// node and has no terminal. The error is an *access.EndedError when kubectl ends with
// another code than 0, and a *lab.NotUpError when the cluster does not run.
func (d *Driver) Kubectl(ctx context.Context, c *topology.Cluster, s access.Streams, args ...string) error {
	if err := d.Runs(ctx, c); err != nil {
		return err
	}
	program, err := exec.LookPath(kubectl)
	if err != nil {
		return d.kubectlOfNode(ctx, c, s, args)
	}
	return d.kind.Lend(kindName(c.Lab, c.Name), func(kubeconfig string) error {
		return runKubectl(ctx, program, kubeconfig, s, args)
	})
}

func runKubectl(ctx context.Context, program, kubeconfig string, s access.Streams, args []string) error {
	command := exec.CommandContext(ctx, program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	command.Stdin, command.Stdout, command.Stderr = s.In, s.Out, s.Err
	// It cleans up after itself, as after Ctrl-C.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	err := command.Run()
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) && ended.Exited() {
		return &access.EndedError{Program: kubectl, Code: ended.ExitCode()}
	}
	return err
}

func (d *Driver) kubectlOfNode(ctx context.Context, c *topology.Cluster, s access.Streams, args []string) error {
	argv := append([]string{kubectl, "--kubeconfig=/etc/kubernetes/admin.conf"}, args...)
	err := d.engine.Run(ctx, NodeName(c.Lab, c.Name), argv, docker.Streams(s))
	if ended := (*docker.ExitError)(nil); errors.As(err, &ended) {
		return &access.EndedError{Program: kubectl, Code: ended.Code}
	}
	return err
}
