package kindcluster

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"

	"sigs.k8s.io/kind/pkg/exec"
)

// outputTail is how many lines of a failed command's output an error keeps.
const outputTail = 20

// described adds to an error of kind the end of what the failed command wrote:
// kind keeps it, but does not print it.
func described(err error) error {
	run, failed := errors.AsType[*exec.RunError](err)
	if !failed {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(run.Output), []byte("\n"))
	if cut := len(lines) - outputTail; cut > 0 {
		lines = append([][]byte{[]byte("…")}, lines[cut:]...)
	}
	if output := bytes.Join(lines, []byte("\n")); len(output) > 0 {
		return fmt.Errorf("%w: %s", err, bootstrapToken.ReplaceAll(output, []byte("(bootstrap token)")))
	}
	return err
}

// bootstrapToken is one of kubeadm's, which its output shows.
var bootstrapToken = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)
