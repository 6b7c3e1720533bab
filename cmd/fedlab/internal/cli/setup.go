package cli

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/host"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/local"
)

func (c *cmd) setup() *cobra.Command {
	var look, forTests, undo bool
	command := &cobra.Command{
		Use:     "setup",
		GroupID: "machine",
		Short:   "Prepare this machine for labs, or say what you have to do",
		Long: `setup looks at what a lab needs of this machine: Docker, kernel settings, memory,
disk, and, where images have to be built, compilers. Whether they have to be
built it finds out as up does: where an image is missing, it asks the registry.
As root on Debian or Ubuntu it installs and starts what is missing, and says so
before it does. Elsewhere it says what to do, and ends with exit code 4. It
changes nothing when nothing is missing. Where a change fails, Docker's
daemon.json is put back as it was.

--undo puts back what setup has changed: Docker's daemon.json, the OCI runtime,
and kernel settings. What somebody else has changed since stays as it is, and so
do packages, and a Docker daemon that setup has started.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if undo {
				return c.undoSetup(cmd, look, forTests)
			}
			t, err := c.topology()
			if err != nil {
				return err
			}
			options, err := c.options()
			if err != nil {
				return err
			}
			work, err := local.Work(cmd.Context(), options)
			if is[*docker.UnreachableError](err) {
				// Docker's configuration names no engine, as will be found below.
				work, err = images.Work{}, nil
			}
			if err != nil {
				return err
			}
			s := &setupReport{cmd: c, look: look, changes: []string{}}
			needs := host.Needs{Clusters: len(t.Clusters), Compile: work.Compile, BuildImages: work.Build, Browser: forTests, Postgres: forTests}
			cache, err := local.Cache()
			if err != nil {
				return err
			}
			machine := host.Local()
			machine.Reach = local.Reach
			err = host.Setup(cmd.Context(), machine, needs, cache, s)
			if errors.Is(err, errLook) {
				err = host.Lacks(s.findings)
			}
			missing := (*host.MissingError)(nil)
			switch {
			case err != nil && !errors.As(err, &missing):
				return err
			case c.output == "json":
				return errors.Join(err, c.json("Setup", map[string]any{"findings": s.findings, "changes": s.changes}))
			case err != nil:
				return errors.Join(printFindings(c.Out, missing.Findings), &shownError{missing})
			case len(s.changes) > 0:
				c.printf("the machine is ready now\n")
			default:
				c.printf("the machine is ready; nothing had to be changed\n")
			}
			return nil
		},
	}
	command.Flags().BoolVar(&look, "check", false, "look only, change nothing")
	command.Flags().BoolVar(&forTests, "for-tests", false, "also what fedlab's own tests need: a browser and PostgreSQL")
	command.Flags().BoolVar(&undo, "undo", false, "put back what setup has changed; with --check, say what that is")
	return c.sourceFlags(command)
}

func (c *cmd) undoSetup(cmd *cobra.Command, look, forTests bool) error {
	if forTests {
		return usage(cmd, errors.New("--undo does not go with --for-tests"))
	}
	s := &setupReport{cmd: c, look: look, undo: true, changes: []string{}}
	err := host.Undo(cmd.Context(), host.Local(), s)
	missing := (*host.MissingError)(nil)
	switch {
	case errors.Is(err, errLook):
		return nil
	case errors.As(err, &missing):
		return errors.Join(printFindings(c.Out, missing.Findings), &shownError{missing})
	case err != nil:
		return err
	case c.output == "json":
		return c.json("Setup", map[string]any{"findings": []host.Finding{}, "changes": s.changes})
	case len(s.changes) > 0:
		c.printf("the machine is as it was before setup\n")
	default:
		c.printf("setup has changed nothing that could be put back\n")
	}
	return nil
}

// errLook ends a set-up that is only to look.
var errLook = errors.New("nothing is to be changed")

// shownError stands for findings that have been shown.
type shownError struct{ missing *host.MissingError }

func (e *shownError) Error() string {
	return "this machine lacks " + count(len(e.missing.Findings), "thing")
}

func (e *shownError) Unwrap() error { return e.missing }

// setupReport shows what Setup finds and does.
type setupReport struct {
	cmd      *cmd
	look     bool
	undo     bool
	findings []host.Finding
	changes  []string
}

func (s *setupReport) Surveyed(findings []host.Finding) { s.findings = findings }

func (s *setupReport) Announced(remedies []host.Remedy) error {
	what, will := "setup", "will"
	if s.undo {
		what = "setup --undo"
	}
	if s.look {
		what, will = "without --check, "+what, "would"
	}
	s.cmd.printf("%s %s change this machine:\n", what, will)
	for _, r := range remedies {
		s.cmd.printf("  - %s\n", r)
	}
	if s.look {
		return errLook
	}
	return nil
}

func (s *setupReport) Applying(r host.Remedy) {
	s.changes = append(s.changes, r.String())
	s.cmd.printf("... %s\n", r)
}

func printFindings(out io.Writer, findings []host.Finding) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WHAT\tSEEN\tNEEDED\tWHAT TO DO")
	for _, f := range findings {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Subject, f.Seen, f.Need, f.Cure)
	}
	return w.Flush()
}
