package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

const (
	// stderrTail is how many bytes of a command's complaint an ExitError keeps.
	stderrTail = 2 << 10
	// exitTick and exitBound pace the question for an exit code: the engine
	// closes a command's output shortly before it records how it ended.
	exitTick  = 20 * time.Millisecond
	exitBound = 10 * time.Second
)

// Exec runs a command in a running container, gives it stdin unless that is
// nil, and returns what it wrote to stdout. The error is an [*ExitError] when
// the command fails. When ctx ends, Exec returns at once and the command loses
// its input and output, but Docker has no call that kills it.
func (c *Client) Exec(ctx context.Context, id string, argv []string, stdin io.Reader) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	err := c.run(ctx, id, argv, Streams{In: stdin, Out: &stdout, Err: &stderr})
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		exit.Stderr = end(stderr.String(), stderrTail)
	}
	return stdout.Bytes(), c.ended(ctx, err, id, argv)
}

// Streams are what a command reads and writes. In may be nil.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run is Exec with streams: the error of a command that fails has no Stderr.
func (c *Client) Run(ctx context.Context, id string, argv []string, s Streams) error {
	return c.ended(ctx, c.run(ctx, id, argv, s), id, argv)
}

// Logs copies what a container, running or not, has written to its standard output and its
// standard error, from the last since on; zero is from the beginning. To follow goes on
// until the container or ctx ends, and both are no error.
func (c *Client) Logs(ctx context.Context, id string, since time.Duration, follow bool, out io.Writer) (err error) {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: follow}
	if since > 0 {
		o.Since = since.String()
	}
	logs, err := c.api.ContainerLogs(ctx, id, o)
	if err != nil {
		return c.failed(err, "read log of container %.12s", id)
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	if _, err = stdcopy.StdCopy(out, out, logs); err != nil && follow && ctx.Err() != nil {
		return nil
	}
	return c.failed(err, "read log of container %.12s", id)
}

func (c *Client) ended(ctx context.Context, err error, id string, argv []string) error {
	var exit *ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		// Closing the connection is how a cancel gets through; what the
		// connection says about it is no news.
		err = context.Cause(ctx)
	case errors.As(err, &exit):
		return fmt.Errorf("container %.12s: %w", id, err)
	}
	return c.failed(err, "run %s in container %.12s", argv[0], id)
}

func (c *Client) run(ctx context.Context, id string, argv []string, s Streams) error {
	made, err := c.api.ExecCreate(ctx, id, client.ExecCreateOptions{
		Cmd: argv, AttachStdin: s.In != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return err
	}
	attached, err := c.attach(ctx, made.ID)
	if err != nil {
		return err
	}
	defer attached.Close()
	defer context.AfterFunc(ctx, attached.Close)()

	input := feed(&attached.HijackedResponse, s.In)
	if _, err := stdcopy.StdCopy(s.Out, s.Err, attached.Reader); err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	// The source of the input is waited for no longer than the command ran:
	// a command may end without reading it all.
	select {
	case err := <-input:
		if err != nil {
			return fmt.Errorf("read input: %w", err)
		}
	default:
	}
	code, err := c.exitCode(ctx, made.ID)
	if err == nil && code != 0 {
		err = &ExitError{Command: argv, Code: code}
	}
	return err
}

// attach starts a command and takes over its connection. An engine that does not
// answer is waited for until ctx ends: the client itself would wait on.
func (c *Client) attach(ctx context.Context, exec string) (client.ExecAttachResult, error) {
	var (
		attached client.ExecAttachResult
		err      error
	)
	done := make(chan struct{})
	go func() {
		defer close(done)
		attached, err = c.api.ExecAttach(ctx, exec, client.ExecAttachOptions{})
	}()
	select {
	case <-done:
		return attached, err
	case <-ctx.Done():
		go func() {
			if <-done; err == nil {
				attached.Close()
			}
		}()
		return client.ExecAttachResult{}, context.Cause(ctx)
	}
}

// feed sends stdin to a command and then tells it that there is no more. The
// channel gets what reading stdin ended with; that the command would not read
// on is not an error of stdin.
func feed(command *client.HijackedResponse, stdin io.Reader) <-chan error {
	done := make(chan error, 1)
	if stdin == nil {
		done <- nil
		return done
	}
	go func() {
		source := &source{Reader: stdin}
		_, _ = io.Copy(command.Conn, source)
		done <- source.err
		// Fails only on a connection that is lost, which the reader of the
		// output notices.
		_ = command.CloseWrite()
	}()
	return done
}

func (c *Client) exitCode(ctx context.Context, exec string) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, exitBound, fmt.Errorf("still running %s after its output ended", exitBound))
	defer cancel()
	tick := time.NewTicker(exitTick)
	defer tick.Stop()
	for {
		state, err := c.api.ExecInspect(ctx, exec, client.ExecInspectOptions{})
		if err != nil {
			return 0, fmt.Errorf("ask for exit code: %w", err)
		}
		if !state.Running {
			return state.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// source remembers why reading ended, unless it ended well.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func end(text string, limit int) string {
	text = strings.TrimSpace(text)
	if cut := len(text) - limit; cut > 0 {
		return "…" + strings.ToValidUTF8(text[cut:], "")
	}
	return text
}
