package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/mutant"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

func (c *cmd) scenario() *cobra.Command {
	group := &cobra.Command{
		Use:     "scenario",
		GroupID: "lab",
		Short:   "Break a lab on purpose, and check what still works",
		Long: `A scenario breaks one thing in a lab that is up, and makes one claim about what
happens then. Calls across the federation go on meanwhile, and every call is
recorded; the verdict is computed from the record. Each scenario puts the lab back
as it was.`,
	}
	group.AddCommand(c.scenarioList(), c.scenarioShow(), c.scenarioRun(), c.scenarioReport())
	return group
}

// listed is a scenario as programs see it.
type listed struct {
	Name    string   `json:"name"`
	Claim   string   `json:"claim"`
	Labels  []string `json:"labels"`
	Needs   []string `json:"needs,omitempty"`
	Sources []string `json:"sources,omitempty"`
}

func asListed(s trial.Scenario) listed {
	l := listed{Name: s.Name, Claim: s.Claim, Labels: s.AllLabels(), Sources: s.Sources}
	for _, n := range s.Needs {
		l.Needs = append(l.Needs, n.What)
	}
	return l
}

func (c *cmd) scenarioList() *cobra.Command {
	var label string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the scenarios, each with its claim",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := scenarios.Catalogue()
			if label != "" {
				var err error
				if all, err = scenarios.Labelled(label); err != nil {
					return c.unknown(cmd, err)
				}
			}
			if c.output == "json" {
				shown := make([]listed, len(all))
				for i, s := range all {
					shown[i] = asListed(s)
				}
				return c.json("Scenarios", map[string]any{"scenarios": shown})
			}
			return printScenarios(c.Out, all)
		},
	}
	cmd.Flags().StringVar(&label, "label", "", "only those with this label: a group, such as rotation, or slow, or ci")
	completes(cmd, "label", scenarios.Labels)
	return cmd
}

// printScenarios prints the name and labels of each scenario on a line, and its
// claim below.
func printScenarios(out io.Writer, all []trial.Scenario) error {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "%s (%s)\n%s\n", s.Name, listing(s.AllLabels()), wrapped(s.Claim, "    "))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (c *cmd) scenarioShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show the claim of a scenario, and the sources of that claim",
		Args:              oneArg("the name of a scenario"),
		ValidArgsFunction: scenarioNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := scenarios.Find(args[0])
			if err != nil {
				return c.unknown(cmd, err)
			}
			if c.output == "json" {
				return c.json("Scenario", asListed(s))
			}
			lines := []string{s.Name, "", "  " + s.Claim, "", "labels: " + strings.Join(s.AllLabels(), ", ")}
			for _, n := range s.Needs {
				lines = append(lines, "needs:  "+n.What)
			}
			for _, source := range s.Sources {
				lines = append(lines, "source: "+source)
			}
			_, err = fmt.Fprintln(c.Out, strings.Join(append(lines, "run:    fedlab scenario run "+s.Name+" --pause"), "\n"))
			return err
		},
	}
}

func scenarioNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return scenarios.Names(), cobra.ShellCompDirectiveNoFileComp
}

// unknown makes wrong usage of a name that the catalogue does not have, and says
// which one may have been meant, or else which ones there are.
func (c *cmd) unknown(cmd *cobra.Command, err error) error {
	unknown := (*scenarios.UnknownError)(nil)
	if !errors.As(err, &unknown) {
		return err
	}
	labels := scenarios.Labels()
	switch near := didYouMean(unknown.Name, unknown.Known); {
	case near != "":
		err = fmt.Errorf("%w%s", err, near)
	case unknown.What == "scenario" && slices.Contains(labels, unknown.Name):
		err = fmt.Errorf("%w: it is a label: did you mean --label %s?", err, unknown.Name)
	case unknown.What == "scenario":
		err = fmt.Errorf("%w: want one of\n  %s", err, strings.Join(unknown.Known, "\n  "))
	default:
		err = fmt.Errorf("%w: want one of %s", err, listing(unknown.Known))
	}
	return usage(cmd, err)
}

// scenarioRun is what 'fedlab scenario run' was told.
type scenarioRun struct {
	labels   []string
	on       string
	all      bool
	seed     uint64
	pause    bool
	keep     bool
	records  string
	mutation string
}

func (c *cmd) scenarioRun() *cobra.Command {
	var r scenarioRun
	cmd := &cobra.Command{
		Use:   "run NAME... | --label LABEL | --all",
		Short: "Run scenarios on a running lab",
		Long: `run needs a lab that is up and well. Each scenario runs on each relationship of
the lab that has what the scenario needs, or on the one that --on names. run starts
a probe in each cluster, the program that makes the calls, and removes the probes
afterwards. Several scenarios run one after the other, in an order that --seed
decides. run prints the seed, and the same seed makes the same order. It skips a
scenario if the lab lacks what the scenario needs, and refuses it if the scenario
is named.

Each run leaves a folder with a record of each scenario (JSON), junit.xml, and
report.html, which is one file and needs nothing else. Of a claim that does not hold it
also collects the evidence of the lab, into a folder with an index.html. The exit code is 0 only
when every claim holds, or is late by no more than the machine was; 3 when one does
not hold, and 5 when the machine was too slow to tell.`,
		Example: `  fedlab scenario run rotation/x509-authority --pause
  fedlab scenario run --label drift --on 'cluster2.com->cluster1.com'
  fedlab scenario run --all --seed 7`,
		ValidArgsFunction: scenarioNames,
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := c.chosen(cmd, r, args)
			if err != nil {
				return err
			}
			if r.mutation != "" && !slices.Contains(mutant.Mutations(), mutant.Mutation(r.mutation)) {
				return usage(cmd, fmt.Errorf("there is no mutation %q%s", r.mutation, oneOf(r.mutation, mutations())))
			}
			if err := vacant(r.records); err != nil {
				return usage(cmd, err)
			}
			if !cmd.Flags().Changed("seed") {
				r.seed = uint64(time.Now().UnixNano())
			}
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				g, err := topology.Resolve(t, netip.Prefix{})
				if err != nil {
					return err
				}
				if err := known(g, r.on); err != nil {
					return usage(cmd, err)
				}
				runs, err := c.runnable(g, scenarios.Shuffled(chosen, r.seed), args, r.on)
				if err != nil {
					return err
				}
				return c.runScenarios(cmd.Context(), d, t, r, runs)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&r.labels, "label", nil, "those with this label: a group, such as rotation, or slow, or ci; may be repeated")
	flags.StringVar(&r.on, "on", "", "one relationship, as 'truster->trusted'; each that fits where it is not given")
	flags.BoolVar(&r.all, "all", false, "all scenarios")
	flags.Uint64Var(&r.seed, "seed", 0, "decides the order; a new one each time where it is not given")
	flags.BoolVar(&r.pause, "pause", false, "wait for Enter before each step, and say what comes and where to look")
	flags.BoolVar(&r.keep, "keep", false, "leave the probes in the lab; the next 'fedlab up' removes them")
	flags.StringVar(&r.records, "records", "", "folder for the records and the report, new or empty; below ./records where it is not given")
	flags.StringVar(&r.mutation, "mutate", "", "make one thing wrong on purpose, so that what is claimed must not hold: "+listing(mutations()))
	completes(cmd, "label", scenarios.Labels)
	completes(cmd, "mutate", mutations)
	return cmd
}

func mutations() []string {
	var all []string
	for _, m := range mutant.Mutations() {
		all = append(all, string(m))
	}
	return all
}

// chosen returns the scenarios that arguments and flags name.
func (c *cmd) chosen(cmd *cobra.Command, r scenarioRun, names []string) ([]trial.Scenario, error) {
	switch {
	case r.all && len(names)+len(r.labels) > 0:
		return nil, usage(cmd, errors.New("--all cannot be combined with names or labels"))
	case !r.all && len(names)+len(r.labels) == 0:
		return nil, usage(cmd, errors.New("which scenarios? Name some, or give --label or --all; 'fedlab scenario list' lists them"))
	}
	for _, name := range names {
		if _, err := scenarios.Find(name); err != nil {
			return nil, c.unknown(cmd, err)
		}
	}
	for _, label := range r.labels {
		if _, err := scenarios.Labelled(label); err != nil {
			return nil, c.unknown(cmd, err)
		}
	}
	return slices.DeleteFunc(scenarios.Catalogue(), func(s trial.Scenario) bool {
		labelled := slices.ContainsFunc(s.AllLabels(), func(l string) bool { return slices.Contains(r.labels, l) })
		return !r.all && !labelled && !slices.Contains(names, s.Name)
	}), nil
}

// trialRun is a scenario on a relationship.
type trialRun struct {
	scenario trial.Scenario
	on       trial.On
}

// known returns an error where a lab has no relationship that --on names.
func known(g *topology.Graph, on string) error {
	if on == "" {
		return nil
	}
	var all []string
	for _, r := range g.Trusts {
		all = append(all, r.Truster.String()+"->"+r.Trusted.String())
	}
	if slices.Contains(all, on) {
		return nil
	}
	return fmt.Errorf("the lab has no relationship %q%s", on, oneOf(on, all))
}

// runnable returns on which relationships scenarios can run, on one alone where that is named.
// It leaves out the scenarios for which a lab lacks something, and names them; whoever names
// one wants it to run.
func (c *cmd) runnable(g *topology.Graph, chosen []trial.Scenario, names []string, on string) ([]trialRun, error) {
	var runs []trialRun
	var lacks error
	for _, s := range chosen {
		fits, err := s.RunsOn(g)
		if on != "" && err == nil {
			fits, err = s.RunsOnOne(g, on)
		}
		needs := (*trial.NeedsError)(nil)
		switch {
		case err == nil:
			for _, o := range fits {
				runs = append(runs, trialRun{s, o})
			}
		case errors.As(err, &needs) && needs.Scenario != "" && !slices.Contains(names, s.Name):
			lacks = err
			c.printf("%s is left out: it needs %s\n", s.Name, needs.What)
		default:
			return nil, err
		}
	}
	if runs == nil {
		return nil, lacks
	}
	return runs, nil
}

func (c *cmd) runScenarios(ctx context.Context, d *local.Driver, t topology.Topology, r scenarioRun, runs []trialRun) (err error) {
	c.events = c.output == "json"
	runner := &trial.Runner{Driver: &d.Driver, Topology: t, Observe: c.told, Keep: r.keep}
	if r.pause {
		in := bufio.NewReader(c.In)
		runner.Pause = func(ctx context.Context, next trial.Step) error { return c.awaitEnter(ctx, in, next) }
	}
	session, err := runner.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close(context.WithoutCancel(ctx))) }()
	dir, err := recordsFolder(r.records, t.Name)
	if err != nil {
		return err
	}
	if len(runs) > 1 {
		c.printf("%s, in the order of --seed %d\n", count(len(runs), "run"), r.seed)
	}
	var records []trial.Record
	for _, run := range runs {
		record, err := mutant.Mutation(r.mutation).Run(ctx, session, run.scenario, run.on)
		records = append(records, record)
		// At once: what comes next may be killed.
		kept := c.keepRecords(dir, records)
		if record.Result == trial.DoesNotHold && r.mutation == "" {
			c.evidenceOf(ctx, d, t, dir, record)
		}
		if err := errors.Join(err, kept); err != nil {
			return err
		}
	}
	if c.output == "json" {
		result := tally(records)
		result["lab"], result["seed"], result["folder"] = t.Name, r.seed, dir
		err = c.json("ScenarioRun", result)
	} else {
		c.printf("%s; %s\n", trial.Counted(records), filepath.Join(dir, "report.html"))
	}
	return errors.Join(err, judgement(records))
}

// tally counts records by their results, for programs. Those that are late have held.
func tally(records []trial.Record) map[string]any {
	held, late, unjudged := 0, 0, 0
	for _, r := range records {
		switch r.Result {
		case trial.Holds:
			held++
		case trial.Late:
			held, late = held+1, late+1
		case trial.NotJudged:
			unjudged++
		}
	}
	return map[string]any{"ran": len(records), "held": held, "late": late, "notJudged": unjudged}
}

// judgement returns nil where each record held.
func judgement(records []trial.Record) error {
	worst := trial.Holds
	for _, r := range records {
		if r.Result == trial.DoesNotHold {
			return errClaim
		}
		worst = worst.Worse(r.Result)
	}
	if worst == trial.NotJudged {
		return errNotJudged
	}
	return nil
}

// errNobody says that --pause has nobody to wait for.
var errNobody = errors.New("--pause waits for Enter, and standard input has ended")

// awaitEnter says what comes next, and waits for somebody to want it.
func (c *cmd) awaitEnter(ctx context.Context, in *bufio.Reader, next trial.Step) error {
	c.printf("\nnext: %s\n", next.Name)
	if next.Look != "" {
		c.printf("look: %s\n", next.Look)
	}
	c.printf("Enter goes on ")
	done := make(chan error, 1)
	go func() {
		_, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = errNobody
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
