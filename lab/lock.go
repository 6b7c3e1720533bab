package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// HeldError says that another command is changing the lab.
type HeldError struct {
	Lab    string
	Holder Holder
}

// Holder is the command that holds a lab.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

func (e *HeldError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("lab %s is being changed by another fedlab", e.Lab)
	}
	return fmt.Sprintf("lab %s is being changed by another fedlab: process %d (%s), since %s",
		e.Lab, e.Holder.PID, e.Holder.Command, e.Holder.Since.Format(time.TimeOnly))
}

// hold makes this process the only one that changes the lab until release is
// called or the process ends, however it ends. The file stays: a lock on a file
// that somebody removes is a lock on nothing.
func (d *Driver) hold(lab, command string) (release func() error, err error) {
	if err := os.MkdirAll(d.Locks, 0o755); err != nil {
		return nil, fmt.Errorf("hold lab %s: %w", lab, err)
	}
	path := filepath.Join(d.Locks, lab+".lock")
	lock := flock.New(path)
	free, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("hold lab %s: %w", lab, err)
	}
	if !free {
		held := &HeldError{Lab: lab}
		// Who it is is a courtesy: a holder that is just starting has not
		// written it yet.
		if data, err := os.ReadFile(path); err == nil && json.Unmarshal(data, &held.Holder) != nil {
			held.Holder = Holder{}
		}
		return nil, held
	}
	data, err := json.Marshal(Holder{PID: os.Getpid(), Command: command, Since: time.Now()})
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold lab %s: %w", lab, err), lock.Unlock())
	}
	return func() error {
		return errors.Join(os.Truncate(path, 0), lock.Unlock())
	}, nil
}
