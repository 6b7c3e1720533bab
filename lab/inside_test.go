package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// terminal writes down what is asked of it, and of which cluster.
type terminal struct{ cluster string }

func (r terminal) Run(_ context.Context, namespace, pod, container string, s access.Streams, argv ...string) error {
	given, err := io.ReadAll(s.In)
	_, _ = fmt.Fprintf(s.Out, "%s %s/%s %s: %s < %s", r.cluster, namespace, pod, container, strings.Join(argv, " "), given)
	return errors.Join(err, &access.EndedError{Program: argv[0], Code: 7})
}

func (r terminal) Logs(_ context.Context, namespace, pod, container string, o access.LogOptions, out io.Writer) error {
	_, err := fmt.Fprintf(out, "%s %s/%s %s, follow %t, since %s", r.cluster, namespace, pod, container, o.Follow, o.Since)
	return err
}

// named are pods by cluster.
type named struct {
	access.Objects
	pods []string
}

func (n named) Named(_ context.Context, kind access.ObjectKey, labels map[string]string) ([]string, error) {
	if kind != (access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: "spire-system"}) || labels["app.kubernetes.io/name"] != "spire-agent" {
		return nil, fmt.Errorf("asked for %v with %v", kind, labels)
	}
	return n.pods, nil
}

// ways are kubeconfigs that only name the cluster.
type ways struct{ lab.Kubeconfigs }

func (ways) Kubeconfig(_, cluster string) ([]byte, error) { return []byte(cluster), nil }

// TestInside: a person reaches the server and the agent of a trust domain while
// their cluster runs, whatever the other clusters do.
func TestInside(t *testing.T) {
	g := resolved(t, quotes(t))
	agents := []string{"spire-agent-x"}
	d := &lab.Driver{Parts: lab.Parts{
		Nodes:       listed{nodes: map[string][]lab.Node{"quotes": {{Cluster: "market", Running: true}, {Cluster: "broker"}}}},
		Kubeconfigs: ways{},
		Connect: func(kubeconfig []byte) (access.Cluster, error) {
			return access.Cluster{Objects: named{pods: agents}, Terminals: terminal{string(kubeconfig)}}, nil
		},
	}}
	market, broker := g.Clusters[0].Servers[0], g.Clusters[1].Servers[0]

	var out strings.Builder
	err := d.SPIREServer(t.Context(), market, access.Streams{In: strings.NewReader("bundle"), Out: &out}, "bundle", "set")
	ended := (*access.EndedError)(nil)
	if want := "market spire-system/spire-server-0 spire-server: /opt/spire/bin/spire-server bundle set < bundle"; out.String() != want ||
		!errors.As(err, &ended) || ended.Code != 7 {
		t.Errorf("error %v, got %q, want %q", err, out.String(), want)
	}

	o := access.LogOptions{Follow: true, Since: time.Minute}
	for want, read := range map[string]func(io.Writer) error{
		"market spire-system/spire-server-0 serving-cert, follow true, since 1m0s": func(out io.Writer) error {
			return d.ServerLogs(t.Context(), market, "serving-cert", o, out)
		},
		"market spire-system/spire-agent-x spire-agent, follow true, since 1m0s": func(out io.Writer) error {
			return d.AgentLogs(t.Context(), market.Home(), o, out)
		},
	} {
		var out strings.Builder
		if err := read(&out); err != nil || out.String() != want {
			t.Errorf("error %v, got %q, want %q", err, out.String(), want)
		}
	}

	agents = nil
	if err := d.AgentLogs(t.Context(), market.Home(), o, io.Discard); err == nil ||
		err.Error() != "read log of the agent of cluster1.com: cluster market has no pod of it" {
		t.Errorf("without an agent: error %v", err)
	}
	for what, err := range map[string]error{
		"cluster broker is stopped": d.SPIREServer(t.Context(), broker, access.Streams{}),
		"it has no cluster moon":    d.Runs(t.Context(), &topology.Cluster{Lab: "quotes", ClusterSpec: topology.ClusterSpec{Name: "moon"}}),
	} {
		notUp := (*lab.NotUpError)(nil)
		if !errors.As(err, &notUp) || notUp.What != what {
			t.Errorf("error %v, want %s", err, what)
		}
	}
	for _, tt := range []struct {
		server *topology.Server
		want   string
	}{
		{market, "spire-server spire-controller-manager"},
		{resolved(t, enterprise(t)).Domains[2].Server(), "spire-server spire-controller-manager serving-cert"},
		{resolved(t, spread(t)).Domains[0].Server(), "spire-server spire-controller-manager manager-b"},
	} {
		if got := strings.Join(lab.ServerContainers(tt.server), " "); got != tt.want {
			t.Errorf("%s: containers %s, want %s", tt.server.Domain, got, tt.want)
		}
	}
}
