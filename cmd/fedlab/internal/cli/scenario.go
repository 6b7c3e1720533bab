package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/mutant"
	"github.com/fedlab-dev/fedlab/scenarios/report"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

func (c *cmd) scenario() *cobra.Command {
	group := &cobra.Command{
		Use:     "scenario",
		GroupID: "lab",
		Short:   "Break a lab on purpose, and check what still works",
		Long: `A scenario breaks one thing in a lab that is up, and claims one thing of what
comes of it. Calls across the federation go on meanwhile and are recorded; the
verdict is computed from the record. Each scenario puts the lab back as it was.`,
	}
	group.AddCommand(c.scenarioList(), c.scenarioShow(), c.scenarioRun(), c.scenarioReport())
	return group
}

// listed is a scenario as programs see it.
type listed struct {
	Name    string   `json:"name"`
	Claim   string   `json:"claim"`
	Labels  []string `json:"labels"`
	Needs   string   `json:"needs,omitempty"`
	Sources []string `json:"sources,omitempty"`
}

func asListed(s trial.Scenario) listed {
	l := listed{Name: s.Name, Claim: s.Claim, Labels: s.AllLabels(), Sources: s.Sources}
	if s.Needs != nil {
		l.Needs = s.Needs.What
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
			if s.Needs != nil {
				lines = append(lines, "needs:  "+s.Needs.What)
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
	var names []string
	for _, s := range scenarios.Catalogue() {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
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
		Long: `run needs a lab that is up and well, and gives each cluster a probe, the program
that makes the calls; they are taken away afterwards. Several scenarios run one
after the other, in an order that --seed decides; it is printed, and the same seed
makes the same order. A scenario that needs what the lab has not is left out, and
refused where it is named.

Each run leaves a folder with a record of each scenario (JSON), junit.xml, and
report.html, which is one file and needs nothing else. The exit code is 0 only
when every claim holds, and 3 otherwise.`,
		Example: `  fedlab scenario run rotation/x509-authority --pause
  fedlab scenario run --label drift
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
				chosen, err := c.runnable(g, chosen, args)
				if err != nil {
					return err
				}
				return c.runScenarios(cmd.Context(), d, t, r, scenarios.Shuffled(chosen, r.seed))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&r.labels, "label", nil, "those with this label: a group, such as rotation, or slow, or ci; may be repeated")
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

// chosen returns the scenarios that arguments and flags name, each once.
func (c *cmd) chosen(cmd *cobra.Command, r scenarioRun, names []string) ([]trial.Scenario, error) {
	var chosen []trial.Scenario
	add := func(some ...trial.Scenario) {
		for _, s := range some {
			if !slices.ContainsFunc(chosen, func(o trial.Scenario) bool { return o.Name == s.Name }) {
				chosen = append(chosen, s)
			}
		}
	}
	switch {
	case r.all && len(names)+len(r.labels) > 0:
		return nil, usage(cmd, errors.New("--all goes with neither names nor labels"))
	case r.all:
		add(scenarios.Catalogue()...)
	case len(names)+len(r.labels) == 0:
		return nil, usage(cmd, errors.New("which scenarios? Name some, or give --label or --all; 'fedlab scenario list' lists them"))
	}
	for _, name := range names {
		s, err := scenarios.Find(name)
		if err != nil {
			return nil, c.unknown(cmd, err)
		}
		add(s)
	}
	for _, label := range r.labels {
		some, err := scenarios.Labelled(label)
		if err != nil {
			return nil, c.unknown(cmd, err)
		}
		add(some...)
	}
	return chosen, nil
}

// runnable leaves out the scenarios for which a lab lacks something, and tells of
// them; who names one wants it to run.
func (c *cmd) runnable(g *topology.Graph, chosen []trial.Scenario, names []string) ([]trial.Scenario, error) {
	var able []trial.Scenario
	var lacks error
	for _, s := range chosen {
		err := s.RunsOn(g)
		needs := (*trial.NeedsError)(nil)
		switch {
		case err == nil:
			able = append(able, s)
		case errors.As(err, &needs) && needs.Scenario != "" && !slices.Contains(names, s.Name):
			lacks = err
			c.printf("%s is left out: it needs %s\n", s.Name, needs.What)
		default:
			return nil, err
		}
	}
	if able == nil {
		return nil, lacks
	}
	return able, nil
}

// errClaim says that a claim does not hold. Which has been shown already.
var errClaim = errors.New("not every claim holds")

func (c *cmd) runScenarios(ctx context.Context, d *local.Driver, t topology.Topology, r scenarioRun, chosen []trial.Scenario) (err error) {
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
	if len(chosen) > 1 {
		c.printf("%s, in the order of --seed %d\n", count(len(chosen), "scenario"), r.seed)
	}
	var records []trial.Record
	held := 0
	for _, s := range chosen {
		record, err := mutant.Mutation(r.mutation).Run(ctx, session, s)
		records = append(records, record)
		// At once: what comes next may be killed.
		if err := errors.Join(err, c.keepRecords(dir, records)); err != nil {
			return err
		}
		if record.Holds {
			held++
		}
	}
	if c.output == "json" {
		err = c.json("ScenarioRun", map[string]any{"lab": t.Name, "seed": r.seed, "folder": dir, "ran": len(records), "held": held})
	} else {
		c.printf("%d of %s held; %s\n", held, count(len(records), "scenario"), filepath.Join(dir, "report.html"))
	}
	if err == nil && held < len(records) {
		err = errClaim
	}
	return err
}

// vacant refuses a folder for records that holds something: a run is not to change
// a lab and then find no place for what it saw.
func vacant(dir string) error {
	there, err := os.ReadDir(dir)
	switch {
	case dir == "" || errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into folder for records: %w", err)
	case len(there) > 0:
		return fmt.Errorf("folder for records %s is not empty: name a new one", dir)
	}
	return nil
}

// recordsFolder makes the folder that the records go to.
func recordsFolder(dir, lab string) (string, error) {
	if dir == "" {
		dir = filepath.Join("records", lab+"-"+time.Now().Format("20060102-150405"))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make folder for records: %w", err)
	}
	return dir, nil
}

// keepRecords shows the last record, and writes it and the reports of all.
func (c *cmd) keepRecords(dir string, records []trial.Record) error {
	last := records[len(records)-1]
	if c.output == "text" {
		_ = c.summary(last) // a reader that is gone is no reason to lose the record
	}
	if err := report.Write(dir, last); err != nil {
		return err
	}
	return writeReports(filepath.Join(dir, "report.html"), filepath.Join(dir, "junit.xml"), records)
}

// writeReports writes both reports; an empty name is none.
func writeReports(html, junit string, records []trial.Record) error {
	var errs []error
	for _, to := range []struct {
		name  string
		write func(io.Writer, []trial.Record) error
	}{{html, report.HTML}, {junit, report.JUnit}} {
		if to.name == "" {
			continue
		}
		_, err := writeWhole(to.name, func(w io.Writer) error { return to.write(w, records) })
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// told shows what happens in a scenario: whole lines for people, objects for
// programs.
func (c *cmd) told(e trial.Event) {
	if c.output == "json" {
		// A reader that is gone is no reason to stop.
		_ = c.json("ScenarioEvent", e)
		return
	}
	switch {
	case e.Step != nil && e.Ended && e.Step.Error != "":
		c.printf("FAIL %7s  %s: %s\n", brief(e.Step.Took), e.Step.Name, e.Step.Error)
	case e.Step != nil && e.Ended:
		c.printf("ok   %7s  %s\n", brief(e.Step.Took), e.Step.Name)
	case e.Step != nil && e.Step.Restore:
		c.printf("back          %s\n", e.Step.Name)
	case e.Step != nil:
		c.printf("step          %s: %s\n", e.Scenario, e.Step.Name)
	default:
		c.printf("              %s\n", firstLine(e.Seen))
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// summary shows how a run went. The colours are the report's own, which lets none
// of the record's through.
func (c *cmd) summary(r trial.Record) error {
	out, coloured := c.Out, colour(c.unfiltered.Out)
	if coloured {
		out = c.unfiltered.Out
	}
	err := report.Console(out, r, coloured)
	if err == nil {
		_, err = fmt.Fprintln(out)
	}
	return err
}

// colour reports whether what is written is looked at on a terminal by somebody
// who has nothing against colours.
func colour(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
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

func (c *cmd) scenarioReport() *cobra.Command {
	var html, junit string
	cmd := &cobra.Command{
		Use:   "report PATH",
		Short: "Judge stored records again, and write reports",
		Long: `report reads the records of a run, a folder or one file, computes each verdict anew
from what the record has seen, and shows them. It needs no lab. The exit code is 0
only when every claim holds, and 3 otherwise.`,
		Args: oneArg("a folder with records, or one record"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, path := range []string{html, junit} {
				if err := replaceable(path); path != "" && err != nil {
					return usage(cmd, err)
				}
			}
			records, err := report.Read(args[0])
			if err != nil {
				return err
			}
			held := 0
			for i, r := range records {
				records[i] = trial.Judge(r)
				if records[i].Holds {
					held++
				}
				if c.output == "text" {
					if err := c.summary(records[i]); err != nil {
						return err
					}
				}
			}
			if c.output == "json" {
				if err := c.json("ScenarioRecords", map[string]any{"records": records, "held": held}); err != nil {
					return err
				}
			}
			if err := writeReports(html, junit, records); err != nil {
				return err
			}
			if held < len(records) {
				return errClaim
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&html, "html", "", "write the report as one HTML file")
	cmd.Flags().StringVar(&junit, "junit", "", "write the report as JUnit's XML")
	return cmd
}
