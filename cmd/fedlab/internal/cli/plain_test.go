package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/watch"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// foreign is what a peer may have put into its answer: a colour, a title, a link,
// C1 as a character and as a byte, a way back to the line's begin, turned text.
const foreign = "x\x1b[31m\x1b]0;t\x07\x1b]8;;u\x1b\\\u009b1m\x9b\r\x7f\u202e\u2066y"

// shown is the part of it that a person sees.
const shown = `x\u001b[31m\u001b]0;t\u0007\u001b]8;;u\u001b\\u009b1m` + "\uFFFD" + `\u000d\u007f\u202e\u2066y`

// TestForeignText has foreign text in each place where a command shows some.
func TestForeignText(t *testing.T) {
	health := lab.Health{Problem: foreign}
	for name, show := range map[string]func(*cmd) error{
		"status": func(c *cmd) error {
			return printStatus(c.Out, lab.Status{Lab: "quotes", Clusters: []lab.ClusterStatus{{Health: health}}}, time.Now())
		},
		"drift": func(c *cmd) error {
			return printDrift(c.Out, lab.Drift{Held: []lab.HeldBundle{{Health: health, State: federation.Foreign}}})
		},
		"watch": func(c *cmd) error {
			return printWatch(c.Out, watch.Look{Identities: []watch.Identity{{Name: "web", Problem: health.Problem}}}, []watch.Finding{{Text: health.Problem}})
		},
		"watch as it changes": func(c *cmd) error { return c.tellWatch(watch.Change{Finding: watch.Finding{Text: health.Problem}}) },
		"drift as it changes": func(c *cmd) error { return c.tellChange(driftChange{HeldBundle: lab.HeldBundle{Health: health}}) },
		"an error": func(c *cmd) error {
			c.printError(t.Context(), errors.New(foreign))
			return nil
		},
		"a step that failed": func(c *cmd) error {
			p := c.progress()
			defer p.end()
			p.Observe(plan.Event{Step: "cluster/x", Title: foreign, State: plan.Failed})
			return nil
		},
		"what a step waits for": func(c *cmd) error {
			p := c.progress()
			defer p.end()
			p.Observe(plan.Event{Step: "cluster/x", State: plan.Started})
			p.Observe(plan.Event{Step: "cluster/x", State: plan.Noted, Note: foreign})
			p.Observe(plan.Event{Step: "cluster/x", State: plan.Remarked, Note: foreign})
			p.heartbeat()
			return nil
		},
		"a scenario's step": func(c *cmd) error {
			c.told(trial.Event{Seen: foreign})
			return nil
		},
		"a wrong argument": func(c *cmd) error {
			root := c.root()
			root.SetArgs([]string{"config", "validate", "--lab", foreign + ".yaml"})
			c.printError(t.Context(), root.ExecuteContext(t.Context()))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out, err bytes.Buffer
			if err := show(newCmd(Streams{Out: &out, Err: &err})); err != nil {
				t.Error(err)
			}
			got := out.String() + err.String()
			if strings.ContainsAny(got, "\x1b\x07\r\x7f\u009b\u202e\u2066") || strings.Contains(got, "\x9b1") {
				t.Errorf("it reaches the terminal: %q", got)
			}
			if !strings.Contains(got, shown) && !strings.Contains(got, `\x1b[31m`) {
				t.Errorf("nothing of it is shown: %q", got)
			}
		})
	}
}

// TestRunFilters: what Run shows has passed the filter.
func TestRunFilters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x\x1b[31m.yaml")
	preset, err := config.Init(config.DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, preset, 0o644); err != nil {
		t.Fatal(err)
	}
	var out, problems bytes.Buffer
	if err := Run(t.Context(), []string{"config", "validate", "--lab", file}, Streams{Out: &out, Err: &problems}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, `x\u001b[31m.yaml`) {
		t.Errorf("it says %q", got)
	}
	if err := Run(t.Context(), []string{"config", "validate", "--lab", file + "\x1b[0m"}, Streams{Out: &out, Err: &problems}); err == nil {
		t.Error("a file that is not there is valid")
	}
	if got := problems.String(); strings.Contains(got, "\x1b") || !strings.Contains(got, "[31m") {
		t.Errorf("it says %q", got)
	}
}
