package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

// System is what this package touches the machine through. Local returns the
// real one.
type System struct {
	Files    Files
	Programs Programs
	// Space measures the file system that holds path; where path does not
	// exist yet, the nearest folder above it is measured.
	Space func(path string) (Space, error)
	// Reach says why the ports that Docker publishes are not on this machine; nil
	// where they are. It may be left out.
	Reach func(ctx context.Context) error
	// UID is the user this program runs as; 0 may change the machine.
	UID int
}

// Files reads and changes files. Missing ones are reported as fs.ErrNotExist.
type Files interface {
	ReadFile(name string) ([]byte, error)
	// WriteFile replaces a file as a whole, makes the folders above it, keeps
	// the mode of a file that is there and gives a new one mode. Files under
	// /proc are written in place.
	WriteFile(name string, data []byte, mode fs.FileMode) error
	// Rename puts a file in its place; a power cut leaves all of it or nothing.
	Rename(from, to string) error
	Remove(name string) error
}

// discard removes a file, which need not be there.
func discard(files Files, name string) error {
	if err := files.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Programs finds, runs and signals programs.
type Programs interface {
	// Look returns the path of a program, searched in PATH and in the folders
	// for administrators, which a person's PATH often lacks.
	Look(name string) (string, error)
	// Run waits for a program and returns its standard output. The error of
	// one that fails ends with the last lines it wrote.
	Run(ctx context.Context, command Command) ([]byte, error)
	// Start starts a program that outlives this one, in a session of its own,
	// its output appended to log. The channel yields once, when the program
	// has ended.
	Start(command Command, log string) (ended <-chan error, err error)
	Signal(pid int, signal os.Signal) error
}

// Command is a program with its arguments; no shell reads it.
type Command struct {
	Program string
	Args    []string
	// Env is added to the environment of this program.
	Env []string
}

// Space is room on a file system.
type Space struct {
	// Device tells file systems apart.
	Device uint64
	// Free is what is left, in bytes.
	Free uint64
	// NoPrograms and NoDevices say that it is mounted so that no program there
	// can be started, and no device there be used.
	NoPrograms, NoDevices bool
	// Remote is the protocol by which another machine serves it; empty for a file
	// system of this machine.
	Remote string
}
