package cli

import (
	"errors"

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
		Long: `setup checks what a lab needs of this machine: Docker, kernel settings, memory, disk,
and compilers if images have to be built. To find out whether they have to be built,
it does as up does: if an image is missing, it asks the registry. As root on Debian
or Ubuntu it installs and starts what is missing, and says so before it does. On
other machines it says what to do, and ends with exit code 4. It changes nothing when
nothing is missing. If a change fails, it puts Docker's daemon.json back as it was.

--undo puts back what setup has changed: Docker's daemon.json, the OCI runtime, and
kernel settings. It keeps what somebody else has changed since, packages, and a
Docker daemon that setup has started.`,
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
			s := &setupReport{cmd: c, look: look, findings: []host.Finding{}, changes: []string{}}
			needs := host.Needs{Clusters: len(t.Clusters), Compile: work.Compile, BuildImages: work.Build, Tests: forTests}
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
			return s.end(err, "the machine is ready now", "the machine is ready; nothing had to be changed")
		},
	}
	command.Flags().BoolVar(&look, "check", false, "look only, change nothing")
	command.Flags().BoolVar(&forTests, "for-tests", false, "also what fedlab's own tests need: a browser, PostgreSQL and HAProxy")
	command.Flags().BoolVar(&undo, "undo", false, "put back what setup has changed; with --check, say what that is")
	return c.sourceFlags(command)
}

func (c *cmd) undoSetup(cmd *cobra.Command, look, forTests bool) error {
	if forTests {
		return usage(cmd, errors.New("--undo cannot be combined with --for-tests"))
	}
	s := &setupReport{cmd: c, look: look, undo: true, findings: []host.Finding{}, changes: []string{}}
	err := host.Undo(cmd.Context(), host.Local(), s)
	if errors.Is(err, errLook) {
		return nil
	}
	return s.end(err, "the machine is as it was before setup", "setup has changed nothing that could be put back")
}

// errLook ends a set-up that is only to look.
var errLook = errors.New("nothing is to be changed")

// shownError stands for findings that have been shown.
type shownError struct{ missing *host.MissingError }

func (e *shownError) Error() string {
	return "this machine lacks " + count(len(e.missing.Findings), "thing")
}

func (e *shownError) Unwrap() error { return e.missing }

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

// end shows what came of a set-up: changed is what is said when something was
// changed, and unchanged when nothing was.
func (s *setupReport) end(err error, changed, unchanged string) error {
	c := s.cmd
	missing, lacks := errors.AsType[*host.MissingError](err)
	switch {
	case err != nil && !lacks:
		return err
	case c.output == "json":
		return errors.Join(err, c.json("Setup", map[string]any{"findings": s.findings, "changes": s.changes}))
	case lacks:
		shown := table(c.Out, "WHAT\tSEEN\tNEEDED\tWHAT TO DO", missing.Findings, func(f host.Finding) []string {
			return []string{f.Subject, f.Seen, f.Need, f.Cure}
		})
		return errors.Join(shown, &shownError{missing})
	case len(s.changes) > 0:
		c.printf("%s\n", changed)
	default:
		c.printf("%s\n", unchanged)
	}
	return nil
}
