package kindcluster

import (
	"errors"
	"slices"
	"testing"
)

func TestKubeconfig(t *testing.T) {
	k := &fakeKind{}
	if config, err := k.provider().Kubeconfig("quotes-market"); err != nil || string(config) != kubeconfig("quotes-market") {
		t.Errorf("kubeconfig %q, error %v", config, err)
	}
}

// TestKubeconfigThatCannotBeRead: that there is none is said only where it is
// certain, since a cluster without one is thrown away.
func TestKubeconfigThatCannotBeRead(t *testing.T) {
	const (
		unreadable = `read kubeconfig of cluster quotes-market: command "docker run" failed with error: exit status 1: No such file or directory`
		none       = "read kubeconfig of cluster quotes-market: its node has none yet"
	)
	for name, tt := range map[string]struct {
		node *fakeNode
		list error
		want string
	}{
		"the node has none":     {node: &fakeNode{}, want: none},
		"the node has one":      {node: &fakeNode{command: fakeCommand{output: "/etc/kubernetes/admin.conf\n"}}, want: unreadable},
		"the node is stopped":   {node: &fakeNode{command: fakeCommand{err: commandFailed("is not running")}}, want: unreadable},
		"there is no node":      {want: unreadable},
		"nobody knows of nodes": {node: &fakeNode{}, list: commandFailed("no docker"), want: unreadable},
	} {
		t.Run(name, func(t *testing.T) {
			k := &fakeKind{node: tt.node, failures: map[string]error{"KubeConfig": commandFailed("No such file or directory"), "ListNodes": tt.list}}
			_, err := k.provider().Kubeconfig("quotes-market")
			if message(err) != tt.want {
				t.Errorf("error %q, want %q", message(err), tt.want)
			}
			if typed := (*NoKubeconfigError)(nil); errors.As(err, &typed) != (tt.want == none) {
				t.Errorf("error %T", err)
			}
			if want := []string{"find", "/etc/kubernetes", "-maxdepth", "1", "-name", "admin.conf"}; tt.want == none && !slices.Equal(tt.node.argv, want) {
				t.Errorf("ran %q, want %q", tt.node.argv, want)
			}
		})
	}
}
