package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/host"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// Exit codes.
const (
	Failed      = 1
	WrongUsage  = 2
	NotWell     = 3
	Missing     = 4
	TimeLimit   = 5
	Interrupted = 130
)

// ErrInterrupted is the cause with which a signal ends a command's context.
var ErrInterrupted = errors.New("interrupted")

// Stopping is said when a signal came: what is under way may take a while to end.
const Stopping = "interrupted: ends what is under way; once more ends it at once"

// errNotWell says that a status or a claim does not hold. What is wrong has
// been shown already.
var errNotWell = errors.New("not all of the lab is well")

// errDrifted says that a held bundle is not what its source serves. Which has been
// shown already.
var errDrifted = errors.New("not every held bundle is in sync")

// errDiagnosed says that doctor has found a cause. Which has been shown already.
var errDiagnosed = errors.New("something of the lab is wrong")

type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, err error) error {
	return &usageError{command: cmd.CommandPath(), err: err}
}

func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(cmd, fmt.Errorf("want one argument, %s, got %d", what, len(args)))
		}
		return nil
	}
}

// noArgs refuses arguments. One where a subcommand is expected is taken for a
// misspelt subcommand.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), didYouMean(args[0], subcommands(cmd)))
	}
	return fmt.Errorf("unexpected argument %q", args[0])
}

// noArgsButLab is noArgs for commands on the lab that --lab names: an argument of
// such a command is most likely the lab.
func noArgsButLab(cmd *cobra.Command, args []string) error {
	if err := noArgs(cmd, args); err != nil {
		return fmt.Errorf("%w: did you mean --lab %s?", err, args[0])
	}
	return nil
}

func atMostOneArg(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("unexpected argument %q", args[1])
	}
	return nil
}

func subcommands(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return names
}

// flagError names the flag that a misspelt one may have meant.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		err = fmt.Errorf("%w%s", err, didYouMean("--"+unknown.GetSpecifiedName(), names))
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := invalid.GetFlag()
		err = fmt.Errorf("invalid value %q of --%s: want %s", invalid.GetValue(), f.Name, wanted(f.Value.Type()))
	}
	return usage(cmd, err)
}

// oneOf names the word that another one may have meant, or else all that there
// are.
func oneOf(word string, known []string) string {
	if near := didYouMean(word, known); near != "" {
		return near
	}
	return ": want one of " + listing(known)
}

func wanted(kind string) string {
	switch kind {
	case "bool":
		return "true or false"
	case "duration":
		return "a duration, such as 30s or 5m"
	case "int":
		return "a whole number"
	case "uint64":
		return "a whole number that is not negative"
	}
	return "a " + kind
}

func didYouMean(word string, candidates []string) string {
	near := config.Nearest(word, candidates)
	if near == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", near)
}

// strict makes wrong usage of what a command's arguments say, also of those that
// cobra brings along, and keeps groups of commands from doing nothing in silence.
func strict(cmd *cobra.Command) {
	args := cmd.Args
	if args == nil || cmd.HasSubCommands() {
		args = noArgs
	}
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return usage(cmd, err)
		}
		return nil
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// helpCommand is cobra's, except for topics that do not exist.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND or TOPIC]",
		Short: "Help about any command or topic",
		Args:  cobra.ArbitraryArgs,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return subcommands(of), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of := cmd.Root()
			for _, name := range args {
				i := slices.IndexFunc(of.Commands(), func(sub *cobra.Command) bool { return sub.Name() == name })
				if i < 0 {
					return usage(cmd.Root(), fmt.Errorf("there is no help on %q%s", name, didYouMean(name, subcommands(of))))
				}
				of = of.Commands()[i]
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// ExitCode returns the exit code for what Run returned.
func ExitCode(err error) int {
	var ended *access.EndedError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrInterrupted):
		return Interrupted
	case errors.As(err, &ended):
		return ended.Code
	case errors.Is(err, errNotWell), errors.Is(err, errDrifted), errors.Is(err, errFound), errors.Is(err, errDiagnosed), errors.Is(err, errClaim), is[*trial.NotWellError](err):
		return NotWell
	case is[*usageError](err), is[config.Problems](err), is[*trial.NeedsError](err):
		return WrongUsage
	case is[*host.MissingError](err), is[*docker.UnreachableError](err), is[*docker.OutOfReachError](err), is[*images.MissingError](err):
		return Missing
	case is[*check.TimeoutError](err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errNotJudged):
		return TimeLimit
	}
	return Failed
}

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// goOn are the commands that go on where they were interrupted.
var goOn = []string{"fedlab up", "fedlab down", "fedlab images build", "fedlab setup"}

func (c *cmd) printError(ctx context.Context, err error) {
	if errors.Is(context.Cause(ctx), ErrInterrupted) {
		text := "fedlab: interrupted"
		if slices.Contains(goOn, c.path) {
			text += "; run the same command again to go on"
		}
		if c.path == "fedlab up" {
			text += ", or 'fedlab down' to remove what there is"
		}
		c.printf("%s\n", text)
		// A clean-up that failed, say.
		if err = plan.Uncancelled(ctx, err); err == nil {
			return
		}
	}
	advice := hint(err)
	if problems := (config.Problems)(nil); errors.As(err, &problems) {
		// As compilers do, so that editors find the place.
		c.printf("%v\n", problems)
		err = fmt.Errorf("%s has %s", c.lab, count(len(problems), "problem"))
	}
	c.printf("fedlab: %v\n", err)
	if advice != "" {
		c.printf("hint: %s\n", advice)
	}
}

// hint returns what a person may do about an error, where that is known.
func hint(err error) string {
	var wrong *usageError
	var boot *lab.BootError
	switch {
	case is[*namelessError](err):
		return "'fedlab down --lab NAME' needs no file, only the name that the lab has"
	case errors.As(err, &wrong):
		return fmt.Sprintf("'%s --help' shows how it is used", wrong.command)
	case errors.Is(err, errNotWell):
		return "'fedlab doctor' says which of it is the cause, and what to do"
	case errors.Is(err, errDiagnosed):
		return "'fedlab explain ID' says more of a diagnosis; 'fedlab up' repairs what it can"
	case errors.Is(err, errDrifted):
		return "'fedlab status' names what keeps a server from fetching; 'fedlab drift --repair' sets the bundles in its place"
	case is[*trial.NotWellError](err):
		return "'fedlab up' repairs a lab that is not well"
	case is[*docker.UnreachableError](err):
		return "'fedlab setup' installs and starts Docker where it can, and says what to do where it cannot"
	case is[*docker.OutOfReachError](err):
		return "choose a Docker on this machine itself: 'docker context ls' lists them, 'docker context use' chooses; or name its socket in DOCKER_HOST"
	case is[*images.MissingError](err):
		return "'fedlab images build' makes it, and 'fedlab images load FILE' takes it from an archive"
	case is[*lab.NotUpError](err):
		return "'fedlab up' brings it up"
	case is[*lab.MismatchError](err):
		return "'fedlab down' removes the lab, and 'fedlab up' then makes it as the file says"
	case is[*docker.NoSubnetError](err):
		return "with " + topology.RangeVariable + "=172.24.0.0/14, say, the network is taken from another range"
	case is[*lab.SilentError](err):
		return "'docker restart' of its node may bring it back; 'fedlab down' removes the lab with everything in it, and 'fedlab up' then makes it again"
	case is[*lab.HeldError](err):
		return "wait until it has ended, or end that process; the next command goes on from there"
	case errors.As(err, &boot) && boot.Pulled:
		return "the node image was pulled; where its nodes do not boot on this machine, 'fedlab up --source build' makes another one here"
	case errors.As(err, &boot):
		return "the node image was built; where its nodes do not boot on this machine, 'fedlab up --source pull' takes upstream's"
	case is[*check.TimeoutError](err):
		return "'fedlab status' shows how far the lab is; 'fedlab up' goes on from there"
	}
	return ""
}

// count reads "1 problem" or "2 problems".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "Show what the exit codes mean",
		Long: `  0    done, and all is well
  1    failed
  2    used wrongly: an unknown flag or argument, or a lab file that is not there
       or has a problem
  3    a check or a claim does not hold: part of the lab is not well
  4    something is missing on this machine
  5    a time limit was reached, or the machine was too slow for a scenario to be
       judged
  130  interrupted

The commands spire and kubectl end with the exit code of the program that they run.`,
	}
}
