package trial_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// serverStops is a whole scenario, as another repository may have it.
var serverStops = trial.Scenario{
	Name:    "mine/server-stops",
	Claim:   "While the SPIRE server of a trust domain is stopped, its workloads are called as before, and their authority does not change.",
	Sources: []string{"SPIRE doc/spire_agent.md: an agent hands out what it has cached"},
	Needs: []trial.Need{{
		What: "a called trust domain whose authority outlives the trial; 'ca: {ttl: 1h}' in the lab file makes it do so",
		Met:  func(r *topology.Trust) bool { return r.Trusted.CATTL >= time.Hour },
	}},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var stopped *trial.Breakage
		// The control comes first: this step ends when calls are answered.
		calls := t.CallsThroughout(ctx, caller, called)
		active, err := called.Active(ctx, trial.X509)
		if err != nil {
			return err
		}
		t.StepWith(ctx, "stop the server", "'fedlab status' says so", func(ctx context.Context) (err error) {
			// It is felt when this returns, and the end of the trial recovers from it.
			stopped, err = t.Break(ctx, fault.ServerStopped(called.Fault()))
			return err
		})
		t.Step(ctx, "see that calls are answered, for as long as a change of an entry takes", func(ctx context.Context) error {
			return t.Stays(ctx, trial.Registered(), calls.Meets(active.ID))
		})
		t.Step(ctx, "start the server, and see that its peer fetches", func(ctx context.Context) error {
			if err := stopped.Recover(ctx); err != nil {
				return err
			}
			if err := caller.Refresh(ctx, called); err != nil {
				return err
			}
			// The verdict: it is computed from the record when the trial is over.
			calls.AllAnswered("no call failed while the server was stopped")
			return t.Soon(ctx, calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// run runs the scenario on a lab that is up.
func run(ctx context.Context, driver *lab.Driver, in topology.Topology) (_ trial.Record, err error) {
	runner := &trial.Runner{Driver: driver, Topology: in, Observe: func(e trial.Event) { fmt.Println(e.Seen) }}
	session, err := runner.Open(ctx)
	if err != nil {
		return trial.Record{}, err
	}
	defer func() { err = errors.Join(err, session.Close(context.WithoutCancel(ctx))) }()
	return session.Run(ctx, serverStops, trial.On{})
}

// A scenario is a value: this one asks whether the lab of a file has what it needs.
// To run it takes a lab that is up, and the driver that local.New returns.
func Example() {
	file, err := config.For(demo.Apps()).Open("quotes")
	if err != nil {
		fmt.Println(err)
		return
	}
	graph, err := topology.Resolve(file.Topology, netip.Prefix{})
	if err != nil {
		fmt.Println(err)
		return
	}
	on, err := serverStops.RunsOn(graph)
	fmt.Println(serverStops.Group(), on[0], err)
	_ = run
	// Output: mine cluster2.com->cluster1.com <nil>
}
