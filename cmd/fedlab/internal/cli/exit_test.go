package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/host"
	"github.com/fedlab-dev/fedlab/lab/images"
)

// TestExitCode has each kind of error alone, with words around it, and next to
// another one.
func TestExitCode(t *testing.T) {
	missing := &host.MissingError{Findings: []host.Finding{{Subject: "docker client"}}}
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"none":                {nil, 0},
		"any":                 {errors.New("no room"), 1},
		"held":                {&lab.HeldError{Lab: "quotes"}, 1},
		"not up":              {&lab.NotUpError{Lab: "quotes"}, 1},
		"another lab":         {&lab.MismatchError{Lab: "quotes"}, 1},
		"wrong usage":         {&usageError{command: "fedlab up", err: errors.New("unknown flag")}, 2},
		"a wrong lab file":    {config.Problems{{Source: "lab.yaml"}}, 2},
		"not well":            {errNotWell, 3},
		"missing":             {missing, 4},
		"missing, and shown":  {&shownError{missing}, 4},
		"images":              {&images.MissingError{What: []string{"node image"}}, 4},
		"no Docker":           {&docker.UnreachableError{Host: "unix:///x", Err: errors.New("refused")}, 4},
		"Docker elsewhere":    {&docker.OutOfReachError{Host: "tcp://x:1", Cause: "remote"}, 4},
		"a wait that ended":   {&check.TimeoutError{Check: "the node is ready", LastSeen: errors.New("NotReady")}, 5},
		"a deadline":          {context.DeadlineExceeded, 5},
		"a program inside":    {&access.EndedError{Program: "kubectl", Code: 17}, 17},
		"interrupted":         {ErrInterrupted, 130},
		"interrupted waiting": {fmt.Errorf("wait until x: %w; last seen: %w", ErrInterrupted, errNotWell), 130},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ExitCode(tt.err); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
			if tt.err == nil {
				return
			}
			for how, err := range map[string]error{
				"wrapped": fmt.Errorf("cluster/market: %w", tt.err),
				"joined":  errors.Join(errors.New("close: no room"), tt.err),
			} {
				if got := ExitCode(err); got != tt.want {
					t.Errorf("%s: exit code %d, want %d", how, got, tt.want)
				}
			}
		})
	}
}

func TestPrintError(t *testing.T) {
	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(ErrInterrupted)
	for name, tt := range map[string]struct {
		interrupted bool
		path        string
		err         error
		want        string
	}{
		"any": {false, "fedlab up", errors.New("no room"), "fedlab: no room\n"},
		"held": {
			false, "fedlab up", &lab.HeldError{Lab: "quotes", Holder: "'fedlab up', process 4711, user root"},
			"fedlab: lab quotes is being changed by another command: 'fedlab up', process 4711, user root\nhint: wait until it has ended, or end that process; the next command goes on from there\n",
		},
		"silent": {
			false, "fedlab up", &lab.SilentError{Lab: "quotes", Cluster: "market", Err: &check.TimeoutError{Check: "the API answers", LastSeen: errors.New("refused")}},
			"fedlab: cluster market was complete once and does not answer now, and up removes no such cluster: wait until the API answers: not after 0s and 0 tries; last seen: refused\n" +
				"hint: 'docker restart' of its node may bring it back; 'fedlab down' removes the lab with everything in it, and 'fedlab up' then makes it again\n",
		},
		"not up": {
			false, "fedlab status", &lab.NotUpError{Lab: "quotes", What: "it has no network"},
			"fedlab: lab quotes is not up: it has no network\nhint: 'fedlab up' brings it up\n",
		},
		"another lab": {
			false, "fedlab up", fmt.Errorf("survey/quotes: %w", &lab.MismatchError{Lab: "quotes", Differences: []string{"cluster a is there, and the file does not have it"}}),
			"fedlab: survey/quotes: lab quotes runs and is not what its file asks for: cluster a is there, and the file does not have it\n" +
				"hint: 'fedlab down' removes the lab, and 'fedlab up' then makes it as the file says\n",
		},
		"images": {
			false, "fedlab up", fmt.Errorf("take images that are present: %w", &images.MissingError{What: []string{"chart", "node image"}}),
			"fedlab: take images that are present: missing: chart, node image\nhint: 'fedlab images build' makes it, and 'fedlab images load FILE' takes it from an archive\n",
		},
		"a pulled node that does not boot": {
			false, "fedlab up", fmt.Errorf("cluster/market: %w", &lab.BootError{Pulled: true, Err: errors.New("create cluster quotes-market: exit status 1")}),
			"fedlab: cluster/market: create cluster quotes-market: exit status 1\n" +
				"hint: the node image was pulled; where its nodes do not boot on this machine, 'fedlab up --source build' makes another one here\n",
		},
		"a built node that does not boot in time": {
			false, "fedlab up", &lab.BootError{Err: &check.TimeoutError{Check: "the node is ready", LastSeen: errors.New("NotReady")}},
			"fedlab: wait until the node is ready: not after 0s and 0 tries; last seen: NotReady\n" +
				"hint: the node image was built; where its nodes do not boot on this machine, 'fedlab up --source pull' takes upstream's\n",
		},
		"a wait that ended": {
			false, "fedlab up", &check.TimeoutError{Check: "the node is ready", LastSeen: errors.New("NotReady")},
			"fedlab: wait until the node is ready: not after 0s and 0 tries; last seen: NotReady\nhint: 'fedlab status' shows how far the lab is; 'fedlab up' goes on from there\n",
		},
		"interrupted up": {
			true, "fedlab up", ErrInterrupted,
			"fedlab: interrupted; run the same command again to go on, or 'fedlab down' to remove what there is\n",
		},
		"interrupted, and something is left": {
			true, "fedlab scenario run", errors.Join(fmt.Errorf("wait: %w", ErrInterrupted), errors.New("remove probe from cluster market: connection refused")),
			"fedlab: interrupted\nfedlab: remove probe from cluster market: connection refused\n",
		},
		"interrupted evidence": {true, "fedlab evidence", ErrInterrupted, "fedlab: interrupted\n"},
		"interrupted down":     {true, "fedlab down", ErrInterrupted, "fedlab: interrupted; run the same command again to go on\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			c := &cmd{Streams: Streams{Err: &b}, path: tt.path}
			ctx := t.Context()
			if tt.interrupted {
				ctx = interrupted
			}
			if c.printError(ctx, tt.err); b.String() != tt.want {
				t.Errorf("it says %q, want %q", b.String(), tt.want)
			}
		})
	}
}
