package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// command is the fedlab command and where it may leave temporary files.
type command struct {
	program, scratch string
	// group is the one that it runs in; zero is that of the suite.
	group uint32
}

// ended is a command that has ended.
type ended struct {
	Command        string
	Code           int
	Stdout, Stderr string
	Took           time.Duration
}

// endWell matches a command that ended with 0; a failure shows what it wrote.
func endWell() types.GomegaMatcher { return HaveField("Code", 0) }

// tmp is the folder that all processes of the command use for temporary files,
// and by which they are told from those of others.
func (c command) tmp() string { return filepath.Join(c.scratch, "tmp") }

// prepare returns the command with arguments, ready to start. When ctx ends it
// gets a chance to clean up.
func (c command) prepare(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if err := os.MkdirAll(c.tmp(), 0o700); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+c.tmp(), "NO_COLOR=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	if c.group != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: c.group}}
	}
	return cmd, nil
}

// run runs the command to its end, whatever that is, and shows it in the report
// of the spec. An error means that it did not run, or that ctx ended.
func (c command) run(ctx context.Context, args ...string) (ended, error) {
	cmd, err := c.prepare(ctx, args...)
	if err != nil {
		return ended{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err = cmd.Run()
	e := ended{
		Command: strings.Join(cmd.Args, " "), Code: cmd.ProcessState.ExitCode(),
		Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(began).Round(10 * time.Millisecond),
	}
	shown := e.Stdout
	if slices.Contains(args, "json") {
		shown = "" // for programs, and long; a failed expectation shows all of it
	}
	GinkgoWriter.Printf("$ %s\n%s%sexit code %d after %s\n", e.Command, shown, e.Stderr, e.Code, e.Took)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	return e, err
}

// event is what 'fedlab up -o json' says about a step.
type event struct {
	// Kind tells it from the result that comes last.
	Kind              string
	Step, Note, Error string
	State             plan.State
}

func (e event) kind() string {
	kind, _, _ := strings.Cut(e.Step, "/")
	return kind
}

// events reads what an up that ran to its end printed, and whether it says that
// it changed something.
func (e ended) events() (all []event, changed bool, err error) {
	decoder := json.NewDecoder(strings.NewReader(e.Stdout))
	for decoder.More() {
		var one struct {
			event
			Changed bool
		}
		if err := decoder.Decode(&one); err != nil {
			return nil, false, fmt.Errorf("read events of %s: %w", e.Command, err)
		}
		if one.Kind == "Event" {
			all = append(all, one.event)
			continue
		}
		changed = one.Changed
	}
	return all, changed, nil
}

// moment is a point in a bring-up.
type moment struct {
	// name completes "killed while …".
	name string
	// kind is that of the step that must be under way: its first one counts.
	kind string
	// reached tells, asked again and again while the step runs, that it has come
	// far enough.
	reached func(ctx context.Context, step string) (bool, error)
}

// killed is a bring-up that was killed.
type killed struct {
	Moment, Step string
	Took         time.Duration
	// Steps are those that had ended before.
	Steps []event
}

// look is how often a moment is looked for.
const look = 20 * time.Millisecond

// killAt runs the command, which prints events, and kills it with SIGKILL in the
// moment. It is an error when the moment never comes.
func (c command) killAt(ctx context.Context, m moment, args ...string) (k killed, err error) {
	k.Moment = m.name
	cmd, err := c.prepare(ctx, args...)
	if err != nil {
		return k, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return k, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return k, err
	}
	defer func() {
		// Both are over already where all went well.
		kill, wait := cmd.Process.Kill(), cmd.Wait()
		GinkgoWriter.Printf("$ %s\n%s: %v, %v; %v\n", strings.Join(cmd.Args, " "), m.name, err, kill, wait)
		if err != nil {
			err = fmt.Errorf("kill up while %s: %w; stderr: %s", m.name, err, stderr.String())
		}
	}()

	events := make(chan event)
	go func() {
		defer close(events)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Kind == "Event" {
				select {
				case events <- e:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	tick := time.NewTicker(look)
	defer tick.Stop()
	var last error
	for {
		select {
		case e, more := <-events:
			switch {
			case !more:
				return k, errors.New("it ended by itself")
			case e.State == plan.Started && k.Step == "" && e.kind() == m.kind:
				k.Step = e.Step
			case e.Step == k.Step && e.State.Ended():
				return k, fmt.Errorf("step %s ended (%s) before; last seen: %w", e.Step, e.State, last)
			}
			if e.State.Ended() {
				k.Steps = append(k.Steps, e)
			}
		case <-tick.C:
			if k.Step == "" {
				continue
			}
			reached, err := m.reached(ctx, k.Step)
			if reached {
				k.Took = time.Since(began).Round(10 * time.Millisecond)
				return k, cmd.Process.Kill()
			}
			last = err
		case <-ctx.Done():
			return k, fmt.Errorf("%w; last seen: %w", context.Cause(ctx), last)
		}
	}
}

// root is the folder of the checkout.
const root = ".."

// build makes the command, from changed sources where overlay names a file for
// the flag of that name of the go command.
func build(ctx context.Context, program, overlay string) error {
	args := []string{"build", "-trimpath", "-o", program}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/fedlab")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build fedlab: %w\n%s", err, out)
	}
	return nil
}

// docker runs Docker's own command and returns the lines it printed: what it
// says does not depend on the code that is tested.
func docker(ctx context.Context, args ...string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "docker", args...).Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("docker %s: %w", args[0], err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' }), nil
}

// lastPort is the one that freePort returned last. They lie below those of which
// the system gives one to who asks for any (32768 and up): kind does so for the
// API of each cluster, and may be given what was free a moment before.
var lastPort = 20000 + os.Getpid()%10000

// freePort returns another address of this machine each time, on which nobody
// listens now.
func freePort(ctx context.Context) (string, error) {
	for {
		lastPort++
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lastPort))
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", address)
		switch {
		case err == nil:
			return address, l.Close()
		case !errors.Is(err, syscall.EADDRINUSE):
			return "", err
		}
	}
}
