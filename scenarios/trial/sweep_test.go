package trial

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// leftover is a lab of two clusters that has nothing in it but what a killed run
// has left: a rule in each node, and the pod of a newcomer, which takes some looks
// to go.
type leftover struct {
	calls []string
	fails string
}

func (l *leftover) do(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	l.calls = append(l.calls, call)
	if call == l.fails {
		return errors.New("injected")
	}
	return nil
}

func (l *leftover) Exec(_ context.Context, lab, cluster string, argv ...string) ([]byte, error) {
	rule := "-s 10.192.0.2/32 -m comment --comment fedlab:partition/a<->b -j DROP"
	return []byte("-A PREROUTING " + rule + "\n"), l.do("%s/%s %s", lab, cluster, strings.Join(argv[4:], " "))
}

func (l *leftover) Stop(context.Context, string, string, time.Duration) error {
	return errors.New("nobody is to stop a node")
}

func (l *leftover) Freeze(context.Context, string, string) error {
	return errors.New("nobody is to freeze a node")
}

func (l *leftover) Address(context.Context, string, string) (netip.Addr, error) {
	return netip.Addr{}, errors.New("nobody is to ask for an address")
}

// leftIn is one cluster's API.
type leftIn struct {
	*leftover
	cluster string
	stays   int
}

func (l *leftIn) Object(_ context.Context, key access.ObjectKey, _ any) (bool, error) {
	if key.Name != newcomer {
		return false, nil
	}
	l.stays--
	return l.stays >= 0, l.do("%s look for %s/%s", l.cluster, key.Namespace, key.Name)
}

func (l *leftIn) Delete(_ context.Context, key access.ObjectKey) error {
	return l.do("%s delete %s %s/%s", l.cluster, key.Kind, key.Namespace, key.Name)
}

func (l *leftIn) Apply(context.Context, ...any) (bool, error) {
	return false, errors.New("nobody is to make anything")
}

func (l *leftIn) Named(context.Context, access.ObjectKey, map[string]string) ([]string, error) {
	return nil, errors.New("nobody is to list anything")
}

func (l *leftIn) NodeReady(context.Context) error { return errors.New("nobody is to look at a node") }

func (l *leftIn) List(context.Context, access.ObjectKey, map[string]string, any) error {
	return errors.New("nobody is to list anything")
}

// sweep sweeps both clusters, in each of which the newcomer stays for so many looks.
func (l *leftover) sweep(ctx context.Context, stays int) error {
	var servers []*topology.Server
	in := map[*topology.Cluster]access.Cluster{}
	for _, name := range []string{"a", "b"} {
		c := &topology.Cluster{Lab: "quotes", ClusterSpec: topology.ClusterSpec{Name: name}}
		d := &topology.Domain{Members: []*topology.Member{{Place: topology.Place{Cluster: c}}}}
		servers = append(servers, &topology.Server{Domain: d, Place: topology.Place{Cluster: c, Namespace: topology.ServerNamespace}})
		in[c] = access.Cluster{Objects: &leftIn{l, name, stays}}
	}
	return sweep(ctx, lab.Parts{Hands: l}, servers, func(c *topology.Cluster) access.Cluster { return in[c] })
}

func TestSweepTakesAllOfAKilledRunAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leftover{}
		if err := l.sweep(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, cluster := range []string{"a", "b"} {
			want = append(want,
				"quotes/"+cluster+" --list-rules PREROUTING",
				"quotes/"+cluster+" --delete PREROUTING -s 10.192.0.2/32 -m comment --comment fedlab:partition/a<->b -j DROP",
				cluster+" delete Pod fedlab-probe/newcomer",
				cluster+" look for fedlab-probe/newcomer",
				cluster+" look for fedlab-probe/newcomer",
			)
		}
		if !slices.Equal(l.calls, want) {
			t.Errorf("calls are\n%s\nwant\n%s", strings.Join(l.calls, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestSweepGoesOn: what fails in one cluster is told, and the other is swept.
func TestSweepGoesOn(t *testing.T) {
	for fails, want := range map[string]string{
		"quotes/a --list-rules PREROUTING":   "sweep cluster a: remove partitions: injected",
		"a delete Pod fedlab-probe/newcomer": "remove newcomer from cluster a: injected",
		"b delete Pod fedlab-probe/newcomer": "remove newcomer from cluster b: injected",
		"quotes/b --list-rules PREROUTING":   "sweep cluster b: remove partitions: injected",
	} {
		l := &leftover{fails: fails}
		if err := l.sweep(t.Context(), 0); err == nil || err.Error() != want {
			t.Errorf("%s fails: error is %v, want %s", fails, err, want)
		}
		for _, last := range []string{"a delete Pod fedlab-probe/newcomer", "b delete Pod fedlab-probe/newcomer"} {
			if !slices.Contains(l.calls, last) {
				t.Errorf("%s fails: calls are %q, without %s", fails, l.calls, last)
			}
		}
	}
}

func TestSweepWaitsForTheNewcomerToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := (&leftover{}).sweep(t.Context(), 1000)
		if err == nil || !strings.Contains(err.Error(), "remove newcomer from cluster a: wait until the newcomer is gone: ") {
			t.Errorf("error is %v", err)
		}
		if took := time.Since(began); took != 2*podGone {
			t.Errorf("it took %s, want %s for each cluster", took, podGone)
		}
	})
}
