// Command ociruntime stands between Docker and runc on a machine whose
// capability bounding set is not complete. Docker asks for every capability of
// the kernel when a container is privileged, and runc then fails with "unable
// to apply caps"; this program takes those that the machine cannot give out of
// the container's configuration and becomes runc.
//
// It knows nothing of fedlab and imports the standard library only: lab/host
// embeds this one file, builds it on the machine and registers it with Docker.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// missing names the capabilities to take out, separated by commas. lab/host
// stamps it with the linker's -X.
var missing string

func main() {
	err := run(os.Args[1:], strings.Split(missing, ","))
	fmt.Fprintln(os.Stderr, "fedlab OCI runtime:", err)
	os.Exit(1)
}

// run edits the configuration that args point at and becomes runc; it returns
// only when that cannot be done.
func run(args, drop []string) error {
	if err := edit(args, drop); err != nil {
		return err
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return fmt.Errorf("find the real runtime: %w", err)
	}
	if err := syscall.Exec(runc, append([]string{runc}, args...), os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", runc, err)
	}
	return nil
}

// edit takes the capabilities in drop out of what args make runc read: the
// bundle of a container that is made, the process file of an exec.
func edit(args, drop []string) error {
	command, rest := subcommand(args)
	switch command {
	case "create", "run", "restore":
		bundle, _ := value(rest, "bundle", "b")
		return rewrite(filepath.Join(bundle, "config.json"), func(config object) error {
			return within(config, "process", func(process object) error { return dropFrom(process, drop) })
		})
	case "exec":
		file, ok := value(rest, "process", "p")
		if !ok {
			return nil
		}
		return rewrite(file, func(process object) error { return dropFrom(process, drop) })
	}
	return nil
}

// subcommand skips runc's global flags and returns the command with what
// follows it.
func subcommand(args []string) (command string, rest []string) {
	takesValue := []string{"criu", "log", "log-format", "root", "rootless"}
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			return args[i], args[i+1:]
		}
		if slices.Contains(takesValue, strings.TrimLeft(args[i], "-")) {
			i++
		}
	}
	return "", nil
}

// value returns what a flag was set to, by its long or its short name, as
// "--flag value" or "--flag=value".
func value(args []string, names ...string) (string, bool) {
	for i, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			continue
		}
		name, set, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case !slices.Contains(names, name):
		case inline:
			return set, true
		case i+1 < len(args):
			return args[i+1], true
		}
	}
	return "", false
}

// An object keeps the members that nobody here looks at byte for byte.
type object = map[string]json.RawMessage

// dropFrom takes the capabilities in drop out of every set of an OCI process.
func dropFrom(process object, drop []string) error {
	return within(process, "capabilities", func(sets object) error {
		for name, raw := range sets {
			var set []string
			if err := json.Unmarshal(raw, &set); err != nil {
				return fmt.Errorf("read the %s set: %w", name, err)
			}
			set = slices.DeleteFunc(set, func(c string) bool { return slices.Contains(drop, c) })
			kept, err := json.Marshal(set)
			if err != nil {
				return err
			}
			sets[name] = kept
		}
		return nil
	})
}

// within applies change to one member of parent; a member that is not there
// has nothing to be taken out of.
func within(parent object, member string, change func(object) error) error {
	raw, ok := parent[member]
	if !ok {
		return nil
	}
	var child object
	if err := json.Unmarshal(raw, &child); err != nil {
		return fmt.Errorf("read %q: %w", member, err)
	}
	if child == nil {
		return nil
	}
	if err := change(child); err != nil {
		return err
	}
	changed, err := json.Marshal(child)
	if err != nil {
		return err
	}
	parent[member] = changed
	return nil
}

// rewrite changes a JSON file as a whole or not at all.
func rewrite(file string, change func(object) error) (err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var content object
	if err := json.Unmarshal(data, &content); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if err := change(content); err != nil {
		return fmt.Errorf("take capabilities out of %s: %w", file, err)
	}
	if data, err = json.Marshal(content); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(next.Name()))
		}
	}()
	_, err = next.Write(data)
	if err = errors.Join(err, next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), file)
}
