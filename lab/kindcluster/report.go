package kindcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"sigs.k8s.io/kind/pkg/exec"
	"sigs.k8s.io/kind/pkg/log"
)

// outputTail is how many lines of a failed command's output an error keeps.
const outputTail = 20

// described adds to an error of kind the end of what the failed command wrote:
// kind keeps it, but does not print it.
func described(err error) error {
	var run *exec.RunError
	if !errors.As(err, &run) {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(run.Output), []byte("\n"))
	if cut := len(lines) - outputTail; cut > 0 {
		lines = append([][]byte{[]byte("…")}, lines[cut:]...)
	}
	if output := bytes.Join(lines, []byte("\n")); len(output) > 0 {
		return fmt.Errorf("%w: %s", err, withoutToken(string(output)))
	}
	return err
}

var bootstrapToken = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// withoutToken hides kubeadm's bootstrap tokens, which its output shows.
func withoutToken(text string) string {
	return bootstrapToken.ReplaceAllString(text, "(bootstrap token)")
}

// logger lets kind log to slog. What kind means for its users is information;
// all else, such as the output of kubeadm, is for debugging.
type logger struct{ log *slog.Logger }

func (l logger) Warn(message string)           { l.write(slog.LevelWarn, message) }
func (l logger) Warnf(format string, a ...any) { l.Warn(fmt.Sprintf(format, a...)) }
func (l logger) Error(message string)          { l.write(slog.LevelError, message) }
func (l logger) Errorf(format string, a ...any) {
	l.Error(fmt.Sprintf(format, a...))
}

func (l logger) V(level log.Level) log.InfoLogger {
	if level > 0 {
		return infoLogger{l, slog.LevelDebug}
	}
	return infoLogger{l, slog.LevelInfo}
}

func (l logger) write(level slog.Level, message string) {
	l.log.Log(context.Background(), level, withoutToken(strings.TrimSpace(message)))
}

type infoLogger struct {
	logger
	level slog.Level
}

func (l infoLogger) Info(message string)           { l.write(l.level, message) }
func (l infoLogger) Infof(format string, a ...any) { l.Info(fmt.Sprintf(format, a...)) }
func (l infoLogger) Enabled() bool                 { return l.log.Enabled(context.Background(), l.level) }
