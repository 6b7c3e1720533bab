// Package lock makes one process of this machine the holder of a name, whoever
// runs it, until the process lets go or ends, however it ends.
//
// It refuses to know what the names stand for. No file in a folder of the user
// is part of a lock: two users do not share one, and it may be deleted.
package lock

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"
)

// nameMax is how long a name may be: the address of a socket has room for 107
// bytes, and the prefix takes some of them.
const nameMax = 96

// Holder is the process that holds a name.
type Holder struct {
	// PID and User are what the kernel says of the process. They are 0 and empty
	// where the kernel cannot say: for a process of another PID namespace, or on
	// an operating system that keeps no such record.
	PID  int
	User string
	// Command and Since are what the holder says of itself; they are empty for a
	// holder that does not answer.
	Command string
	Since   time.Time
}

// HeldError says that another process holds a name.
type HeldError struct {
	Name   string
	Holder Holder
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s is locked by %s", e.Name, e.Holder)
}

// String names the holder in words, as far as it is known.
func (h Holder) String() string {
	var words []string
	if h.Command != "" {
		words = append(words, "'"+h.Command+"'")
	}
	if h.PID != 0 {
		words = append(words, "process "+strconv.Itoa(h.PID))
	}
	if h.User != "" {
		words = append(words, "user "+h.User)
	}
	if !h.Since.IsZero() {
		words = append(words, "since "+h.Since.Local().Format(time.TimeOnly))
	}
	if words == nil {
		return "another process"
	}
	return strings.Join(words, ", ")
}

// Take makes this process the holder of a name until release is called or the
// process ends. The command is what others are told. The error is a *HeldError
// when another process, or an earlier call in this one, holds the name.
func Take(name, command string) (release func() error, err error) {
	if name == "" || len(name) > nameMax {
		return nil, fmt.Errorf("take lock %q: its name has %d characters, want 1 to %d", name, len(name), nameMax)
	}
	release, err = take(name, self{Command: command, Since: time.Now()})
	if held := (*HeldError)(nil); err != nil && !errors.As(err, &held) {
		err = fmt.Errorf("take lock %s: %w", name, err)
	}
	return release, err
}

type self struct {
	PID     int       `json:"pid,omitempty"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// heard reads what a holder says of itself; nothing where it says nothing.
func heard(data []byte) self {
	var s self
	if json.Unmarshal(data, &s) != nil {
		return self{}
	}
	return s
}

// userName returns the name of a user of this machine, or the number of one that
// has no name.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return id
}
