package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// freezers is where Docker's containers have their freezers on machines with
// cgroup v1.
const freezers = "/sys/fs/cgroup/freezer/docker"

// Thaw wakes all that is frozen inside of a container of the engine on this
// machine. On cgroup v1, runc freezes a container while it changes its limits;
// killed meanwhile, together with the node that both are in, it leaves behind a
// process that no signal reaches, and Docker cannot remove the node. Elsewhere
// there is nothing to thaw. It needs root where there is.
func (c *Client) Thaw(id string) error { return thaw(filepath.Join(freezers, id)) }

func thaw(root string) error {
	var errs []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it went, or there was none
			return nil
		}
		if err != nil || d.Name() != "freezer.state" {
			return err
		}
		if state, err := os.ReadFile(path); err == nil && !bytes.HasPrefix(state, []byte("THAWED")) {
			errs = append(errs, os.WriteFile(path, []byte("THAWED"), 0o644))
		}
		return nil
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("thaw what is frozen below %s: %w", root, err)
	}
	return nil
}
