package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/host"
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

// errNotWell says that a status or a claim does not hold. What is wrong has
// been shown already.
var errNotWell = errors.New("not all of the lab is well")

// usageError is a command that was called wrongly.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, err error) error {
	return &usageError{command: cmd.CommandPath(), err: err}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += ": did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage(cmd, errors.New(text))
	}
	return usage(cmd, fmt.Errorf("unexpected argument %q", args[0]))
}

// oneArg wants one argument and says what it is.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(cmd, fmt.Errorf("want one argument, %s, got %d", what, len(args)))
		}
		return nil
	}
}

// ExitCode returns the exit code for what Run returned.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrInterrupted):
		return Interrupted
	case errors.Is(err, errNotWell):
		return NotWell
	case is[*usageError](err), is[config.Problems](err):
		return WrongUsage
	case is[*host.MissingError](err), is[*docker.UnreachableError](err):
		return Missing
	case is[*check.TimeoutError](err), errors.Is(err, context.DeadlineExceeded):
		return TimeLimit
	}
	return Failed
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

func (c *cmd) printError(ctx context.Context, err error) {
	if errors.Is(context.Cause(ctx), ErrInterrupted) {
		c.printf("fedlab: interrupted; run the same command again to go on, or 'fedlab down' to remove what there is\n")
		return
	}
	c.printf("fedlab: %v\n", err)
	if hint := hint(err); hint != "" {
		c.printf("hint: %s\n", hint)
	}
}

// hint returns what a person may do about an error, where that is known.
func hint(err error) string {
	var wrong *usageError
	switch {
	case errors.As(err, &wrong):
		return fmt.Sprintf("'%s --help' shows how it is used", wrong.command)
	case is[*docker.UnreachableError](err):
		return "'fedlab setup' installs and starts Docker where it can, and says what to do where it cannot"
	case is[*lab.NotUpError](err):
		return "'fedlab up' brings it up"
	case is[*lab.HeldError](err):
		return "wait until it has ended, or end that process; the next command goes on from there"
	case is[*check.TimeoutError](err):
		return "'fedlab status' shows how far the lab is; 'fedlab up' goes on from there"
	}
	return ""
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `  0    done, and all is well
  1    failed
  2    used wrongly: an unknown flag or argument, or a lab file with a problem
  3    a check or a claim does not hold: part of the lab is not well
  4    something is missing on this machine
  5    a time limit was reached
  130  interrupted`,
	}
}
