package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// PartitionOneWay drops what one cluster sends to another on connections that it
// has begun, those that stand included: it waits for answers and gets none. On
// connections that the other has begun its answers go through.
//
// What pods send to other clusters goes by their node's address, and a cluster's
// Services have addresses that lead to its node, so that the nodes are all that
// counts.
func PartitionOneWay(from, to Cluster) Fault {
	return partition("partition/"+from.Name+"->"+to.Name, from, to, false)
}

// Partition drops all that two clusters send to each other.
func Partition(a, b Cluster) Fault {
	return partition("partition/"+a.Name+"<->"+b.Name, a, b, true)
}

func partition(name string, from, to Cluster, both bool) Fault {
	mark := markPrefix + name
	sides := []wall{{at: to, against: from, mark: mark, begun: !both}}
	if both {
		sides = append(sides, wall{at: from, against: to, mark: mark})
	}
	open := func(ctx context.Context) error {
		var errs []error
		for _, side := range sides {
			errs = append(errs, side.remove(ctx))
		}
		return errors.Join(errs...)
	}
	i := injected{
		felt: check.Check{Name: "cluster " + to.Name + " does not answer cluster " + from.Name, Probe: func(ctx context.Context) error {
			if both {
				return inOrder(ctx, cut(from, to), cut(to, from))
			}
			return inOrder(ctx, cut(from, to), reach(to, from))
		}},
		recover: open,
		healed: check.Check{Name: fmt.Sprintf("clusters %s and %s reach each other", from.Name, to.Name), Probe: func(ctx context.Context) error {
			return inOrder(ctx, reach(from, to), reach(to, from))
		}},
	}
	if both {
		i.felt.Name = fmt.Sprintf("clusters %s and %s do not answer each other", from.Name, to.Name)
	}
	return fault{name, func(ctx context.Context) (injected, error) {
		// What a killed process has left is of addresses that may have changed.
		if err := open(ctx); err != nil {
			return injected{}, err
		}
		// Who cannot reach the other anyway would prove nothing.
		if err := i.healed.Probe(ctx); err != nil {
			return injected{}, err
		}
		for _, side := range sides {
			if err := side.build(ctx); err != nil {
				return i, err
			}
		}
		return i, nil
	}}
}

// WebhookCut drops what the webhook of a cluster's controller manager answers, that of each
// replica, on connections that stand, too: Kubernetes waits for it without success. The controller
// manager itself goes on.
func WebhookCut(c Cluster) Fault {
	name := "webhook-cut/" + c.Name
	mark := markPrefix + name
	port := strconv.Itoa(spire.WebhookPort)
	return fault{name, func(ctx context.Context) (injected, error) {
		var addresses []string
		for ordinal := range max(1, c.Replicas) {
			name := fmt.Sprintf("%s-%d", spire.ServerStatefulSet, ordinal)
			pod, found, err := c.pod(ctx, name)
			if err == nil && !found {
				err = fmt.Errorf("pod %s is not there", name)
			}
			if err != nil {
				return injected{}, err
			}
			addresses = append(addresses, pod.Status.PodIP)
		}
		each := func(is func(ended string, err error) error) func(context.Context) error {
			return func(ctx context.Context) error {
				for _, a := range addresses {
					if err := is(c.get(ctx, "https://"+net.JoinHostPort(a, port))); err != nil {
						return err
					}
				}
				return nil
			}
		}
		i := injected{
			felt: check.Check{Name: "the webhook of cluster " + c.Name + " does not answer", Probe: each(silent)},
			recover: func(ctx context.Context) error {
				return c.unwall(ctx, func(comment string) bool { return comment == mark })
			},
			healed: check.Check{Name: "the webhook of cluster " + c.Name + " answers", Probe: each(func(_ string, err error) error { return err })},
		}
		// What a killed process has left is of an address that may have changed.
		if err := i.recover(ctx); err != nil {
			return i, err
		}
		for _, a := range addresses {
			if _, err := c.Node.Exec(ctx, chain("--insert", "--source", a, "--protocol", "tcp", "--match", "tcp", "--sport", port,
				"--match", "comment", "--comment", mark, "--jump", "DROP")...); err != nil {
				return i, err
			}
		}
		return i, nil
	}}
}

// markPrefix begins the comment of each of our rules.
const markPrefix = "fedlab:"

// wall is a rule in the node of one cluster that drops what comes from another.
// It is gone when the node starts again.
type wall struct {
	at, against Cluster
	// mark is the comment by which a rule is known again.
	mark string
	// begun drops only what belongs to connections that the other has begun.
	begun bool
}

// chain is where a packet comes by before anybody has decided where it goes, and
// after its connection is known.
func chain(action string, rule ...string) []string {
	return append([]string{"iptables", "--wait", "--table", "mangle", action, "PREROUTING"}, rule...)
}

func (w wall) build(ctx context.Context) error {
	address, err := w.against.Node.Address(ctx)
	if err != nil {
		return err
	}
	rule := []string{"--source", address.String()}
	if w.begun {
		rule = append(rule, "--match", "conntrack", "--ctdir", "ORIGINAL")
	}
	rule = append(rule, "--match", "comment", "--comment", w.mark, "--jump", "DROP")
	_, err = w.at.Node.Exec(ctx, chain("--insert", rule...)...)
	return err
}

func (w wall) remove(ctx context.Context) error {
	return w.at.unwall(ctx, func(mark string) bool { return mark == w.mark })
}

// unwall removes from a cluster's node the rules whose comment is ours.
func (c Cluster) unwall(ctx context.Context, ours func(comment string) bool) error {
	// The list is of arguments for iptables itself.
	list, err := c.Node.Exec(ctx, chain("--list-rules")...)
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(list)) {
		words := strings.Fields(line)
		found := false
		for i, word := range words {
			words[i] = strings.Trim(word, `"`)
			found = found || i > 0 && words[i-1] == "--comment" && ours(words[i])
		}
		if !found {
			continue
		}
		// Before the rule stand "-A PREROUTING".
		_, err := c.Node.Exec(ctx, chain("--delete", words[2:]...)...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

const (
	// apiPort is where the API of a cluster listens on its node.
	apiPort = "6443"
	// timedOut is how curl ends when nobody answers (CURLE_OPERATION_TIMEDOUT).
	timedOut = "28"
)

// reach returns nil when the API of a cluster answers on its node's address to
// the node of another; what it says does not matter.
func reach(from, to Cluster) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := call(ctx, from, to)
		return err
	}
}

// cut returns nil when a connection ends in silence.
func cut(from, to Cluster) func(context.Context) error {
	return func(ctx context.Context) error { return silent(call(ctx, from, to)) }
}

// silent returns nil when curl has ended because nobody answered.
func silent(ended string, err error) error {
	switch {
	case err == nil:
		return errors.New("there is an answer")
	case ended == timedOut:
		return nil
	}
	return err
}

// call asks the API of a cluster from the node of another.
func call(ctx context.Context, from, to Cluster) (ended string, err error) {
	address, err := to.Node.Address(ctx)
	if err != nil {
		return "", err
	}
	if ended, err = from.get(ctx, "https://"+net.JoinHostPort(address.String(), apiPort)+"/livez"); err != nil {
		err = fmt.Errorf("call cluster %s from cluster %s: %w", to.Name, from.Name, err)
	}
	return ended, err
}

// get asks for a URL on the node, and returns how curl has ended.
func (c Cluster) get(ctx context.Context, url string) (ended string, err error) {
	out, err := c.Node.Exec(ctx, "curl", "--silent", "--show-error", "--insecure", "--output", "/dev/null",
		"--connect-timeout", "2", "--max-time", "5", "--write-out", "%{exitcode}", url)
	return string(out), err
}
