package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/scenarios/report"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// errClaim says that a claim does not hold. Which has been shown already.
var errClaim = errors.New("not every claim holds")

// errNotJudged says that the machine was too slow for a run to be judged.
var errNotJudged = fmt.Errorf("not every run was judged: the machine was late by more than %s", trial.MaxSlack)

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

func (c *cmd) scenarioReport() *cobra.Command {
	var html, junit string
	cmd := &cobra.Command{
		Use:   "report PATH",
		Short: "Judge stored records again, and write reports",
		Long: `report reads the records of a run, a folder or one file, computes each verdict again
from the record, and shows them. It needs no lab. The exit codes are those of
'fedlab scenario run'.`,
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
			for i, r := range records {
				records[i] = trial.Judge(r)
				if c.output == "text" {
					if err := c.summary(records[i]); err != nil {
						return err
					}
				}
			}
			if c.output == "json" {
				result := tally(records)
				result["records"] = records
				if err := c.json("ScenarioRecords", result); err != nil {
					return err
				}
			}
			if err := writeReports(html, junit, records); err != nil {
				return err
			}
			return judgement(records)
		},
	}
	cmd.Flags().StringVar(&html, "html", "", "write the report as one HTML file")
	cmd.Flags().StringVar(&junit, "junit", "", "write the report as JUnit's XML")
	return cmd
}
