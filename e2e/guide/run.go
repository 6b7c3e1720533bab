package guide

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// Options are how guides are run.
type Options struct {
	// Dir is the root of the checkout in which commands are typed. Some guides
	// edit sources and put them back: they are better run in a Copy.
	Dir string
	// Env is added to the environment of this process, as NAME=value.
	Env []string
	// Rename, where it is set, changes both the commands and what is shown, so that
	// a guide can run on a lab of another name and port than it speaks of.
	Rename *strings.Replacer
	// Log takes what a person would see; it may be nil.
	Log io.Writer
}

// every is the pause before a command that may take time to come true is typed
// again.
const every = time.Second

// Run reads the document at path, relative to o.Dir, and runs it to its end or to
// the first command that does not do what the document shows. The error then
// names the line and holds what came instead; the lab is left as it is.
//
// When ctx ends, the command under way is told to stop and given half a minute
// to clean up.
func Run(ctx context.Context, path string, o Options) (err error) {
	source, err := os.ReadFile(filepath.Join(o.Dir, path))
	if err != nil {
		return fmt.Errorf("run guide: %w", err)
	}
	g, err := Parse(path, source)
	if err != nil {
		return fmt.Errorf("run guide: %w", err)
	}
	return g.Run(ctx, o)
}

// Run is Run for a guide that has been read.
func (g Guide) Run(ctx context.Context, o Options) (err error) {
	if o.Rename == nil {
		o.Rename = strings.NewReplacer()
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	s, err := open(ctx, o)
	if err != nil {
		return fmt.Errorf("run guide %s: %w", g.Name, err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for i, step := range g.Steps {
		// The status of a command is looked at by the guide itself.
		asked := i+1 < len(g.Steps) && g.Steps[i+1].Command == "echo $?"
		if err := s.do(ctx, step, o, asked); err != nil {
			return fmt.Errorf("%s:%d: $ %s: %w", g.Name, step.Line, step.Command, err)
		}
	}
	return nil
}

// shell is the one shell of a guide, so that what one command sets, the next one
// has.
type shell struct {
	in io.WriteCloser
	// out is what the shell and its commands write, in the order in which they do.
	out *bufio.Reader
	// mark starts the line that ends the output of each command.
	mark string
	// ended is closed when the shell has ended.
	ended chan struct{}
}

// stopBound is how long a command may take to clean up after it was told to
// stop.
const stopBound = 30 * time.Second

func open(ctx context.Context, o Options) (*shell, error) {
	process := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	process.Dir = o.Dir
	process.Env = append(os.Environ(), o.Env...)
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	process.Cancel = func() error { return syscall.Kill(-process.Process.Pid, syscall.SIGTERM) }
	process.WaitDelay = stopBound
	in, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, w := io.Pipe()
	process.Stdout, process.Stderr = w, w
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("start shell: %w", err)
	}
	s := &shell{in: in, out: bufio.NewReader(output), mark: rand.Text(), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		// What it ended with comes out of the last read.
		_ = w.CloseWithError(cmp.Or(process.Wait(), io.EOF))
	}()
	return s, nil
}

func (s *shell) close() error {
	err := s.in.Close()
	// Until it has ended, it may still write.
	_, _ = io.Copy(io.Discard, s.out)
	<-s.ended
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// do types a command, again and again where what is shown may take its time.
func (s *shell) do(ctx context.Context, step Step, o Options, asked bool) error {
	command := o.Rename.Replace(step.Command)
	var shows []string
	for _, line := range step.Shows {
		shows = append(shows, o.Rename.Replace(line))
	}
	look := func(context.Context) error {
		output, status, err := s.run(command, o.Log)
		switch {
		case err != nil && ctx.Err() != nil:
			return check.Never(errors.Join(context.Cause(ctx), err))
		case err != nil:
			return check.Never(err)
		case status != 0 && !asked:
			return fmt.Errorf("exit code %d; its output:\n%s", status, output)
		}
		if err := match(shows, output); err != nil {
			return fmt.Errorf("%w; its output:\n%s", err, output)
		}
		return nil
	}
	if step.Within == 0 {
		return look(ctx)
	}
	return check.Until(ctx, check.Bound{Within: step.Within, Every: every}, check.Check{Name: "it says what is shown", Probe: look})
}

// run types a command and returns what came back, and its exit code.
func (s *shell) run(command string, log io.Writer) (output string, status int, err error) {
	_, _ = fmt.Fprintf(log, "%s%s\n", prompt, command)
	// eval, so that a quote that is not closed does not swallow what comes next;
	// the exit code is put back for a command that asks for it.
	_, err = fmt.Fprintf(s.in, "eval %s </dev/null 2>&1\n{ ended=$?; printf '\\n%s %%d\\n' $ended; (exit $ended); }\n", quote(command), s.mark)
	if err != nil {
		return "", 0, fmt.Errorf("type command: %w", err)
	}
	var b strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return "", 0, fmt.Errorf("the shell ended: %w; its output:\n%s%s", err, &b, line)
		}
		if code, ok := strings.CutPrefix(line, s.mark+" "); ok {
			status, err := strconv.Atoi(strings.TrimSpace(code))
			// The mark has a line of its own: its line break is not the command's.
			return strings.TrimSuffix(b.String(), "\n"), status, err
		}
		b.WriteString(line)
		_, _ = io.WriteString(log, line)
	}
}

// quote makes one word of any text for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
