package host

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	daemonLog = "/var/log/fedlab-dockerd.log"
	// dockerd gives its containerd 15 s to come up (startupTimeout in moby's
	// libcontainerd/supervisor); three times that is left for networks and
	// containers to be restored.
	startBound = 4 * 15 * time.Second
	// A reload is two JSON files read.
	reloadBound = 10 * time.Second
	askInterval = 250 * time.Millisecond
)

// start starts the daemon of this machine and waits until it answers.
type start struct{ systemd bool }

func (s start) String() string {
	if s.systemd {
		return "start the Docker daemon with systemctl"
	}
	return "start the Docker daemon in the background, its log in " + daemonLog
}

func (s start) Apply(ctx context.Context, sys System) error {
	if s.systemd {
		if _, err := sys.Programs.Run(ctx, Command{Program: "systemctl", Args: []string{"start", "docker"}}); err != nil {
			return err
		}
		return await(ctx, sys, startBound, nil, answers)
	}
	pid, err := running(sys.Files, daemonPID, "dockerd")
	if err != nil {
		return err
	}
	if pid != 0 {
		return withLog(sys.Files, await(ctx, sys, startBound, nil, answers))
	}
	// dockerd refuses to start when the file names any process that lives, and
	// takes whatever process the other file names for its containerd.
	err = errors.Join(removeStale(sys.Files, daemonPID, "dockerd"), removeStale(sys.Files, containerdPID, "containerd"))
	if err != nil {
		return err
	}
	ended, err := sys.Programs.Start(Command{Program: "dockerd"}, daemonLog)
	if err != nil {
		return err
	}
	return withLog(sys.Files, await(ctx, sys, startBound, ended, answers))
}

// reload makes the daemon read its settings again. Docker takes a new default
// runtime without a restart, so containers that run are not touched.
type reload struct{ pid int }

func (r reload) String() string {
	return fmt.Sprintf("make the Docker daemon (process %d) read its settings; no container is touched", r.pid)
}

func (r reload) Apply(ctx context.Context, sys System) error {
	if err := sys.Programs.Signal(r.pid, syscall.SIGHUP); err != nil {
		return err
	}
	return withLog(sys.Files, await(ctx, sys, reloadBound, nil, hasDefault(runtimeName)))
}

// withLog adds to an error what the daemon logged last, where it was started
// here and not by an init system.
func withLog(files Files, err error) error {
	if err == nil {
		return nil
	}
	log, ok, logErr := read(files, daemonLog)
	if ok {
		err = fmt.Errorf("%w; %s ends with: %s", err, daemonLog, tail([]byte(log), 5))
	}
	return errors.Join(err, logErr)
}

func removeStale(files Files, pidFile, program string) error {
	pid, err := running(files, pidFile, program)
	if err != nil || pid != 0 {
		return err
	}
	return discard(files, pidFile)
}

func answers(Docker) error { return nil }

// await asks the daemon until it answers and satisfies holds. The wait ends
// early when no daemon is left to wait for: ended reports on the one that was just
// started, and is nil for one that was there before.
func await(ctx context.Context, sys System, bound time.Duration, ended <-chan error, holds func(Docker) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not within %s", bound))
	defer cancel()
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	var last error
	for tries := 1; ; tries++ {
		var d Docker
		err := d.askDaemon(ctx, sys)
		if err == nil {
			err = holds(d)
		}
		if err == nil {
			return nil
		}
		// A question that the bound cut short has seen nothing.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		var gone error
		select {
		case <-ctx.Done():
			gone = context.Cause(ctx)
		case exit := <-ended:
			// Another one may have been started at the same moment and won.
			ended, gone = nil, stillRuns(sys.Files)
			if gone != nil && exit != nil {
				gone = fmt.Errorf("%w: %w", gone, exit)
			}
		case <-tick.C:
			if ended == nil {
				gone = stillRuns(sys.Files)
			}
		}
		if gone != nil {
			return fmt.Errorf("wait for the Docker daemon: %w; tries: %d, last: %w", gone, tries, last)
		}
	}
}

func stillRuns(files Files) error {
	pid, err := running(files, daemonPID, "dockerd")
	if err == nil && pid == 0 {
		return errors.New("it ended")
	}
	return err
}
