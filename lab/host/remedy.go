package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Remedy is one change to the machine. It is a value that can be shown before
// anything happens, and looks before it acts: applied again, it changes
// nothing more.
type Remedy interface {
	// String says what is changed, as an order: "install iptables with apt-get".
	String() string
	// Apply makes the change.
	Apply(ctx context.Context, sys System) error
}

// turn sorts remedies: settings before the packages whose daemon reads them, the
// daemon after them, and the proof that it works last.
func turn(r Remedy) int {
	switch r.(type) {
	case setting:
		return 0
	case ociRuntime:
		return 1
	case packages:
		return 2
	case start, reload:
		return 3
	}
	return 4
}

// Remedies returns what the findings ask for, in the order it must be applied
// in, each once, and all packages in one installation.
func Remedies(findings []Finding) []Remedy {
	var remedies []Remedy
	var install packages
	for _, f := range findings {
		for _, remedy := range f.Remedies {
			names, ok := remedy.(packages)
			if !ok {
				if !slices.Contains(remedies, remedy) {
					remedies = append(remedies, remedy)
				}
				continue
			}
			for _, name := range names {
				if !slices.Contains(install, name) {
					install = append(install, name)
				}
			}
		}
	}
	if len(install) > 0 {
		remedies = append(remedies, install)
	}
	slices.SortStableFunc(remedies, func(a, b Remedy) int { return cmp.Compare(turn(a), turn(b)) })
	return remedies
}

// setting raises a kernel setting until the next boot; the next Setup raises
// it again, so that no file has to be left behind.
type setting struct {
	name  string
	value int
}

func (s setting) String() string {
	return fmt.Sprintf("set %s to %d until the next boot", s.name, s.value)
}

func (s setting) Apply(_ context.Context, sys System) error {
	before, _, err := readSetting(sys.Files, s.name)
	if err != nil {
		return err
	}
	if err := noteSetting(sys.Files, s.name, settingChange{Before: before, After: s.value}); err != nil {
		return err
	}
	return writeSetting(sys.Files, s.name, s.value)
}

// readSetting returns a kernel setting, and whether there is one of that name.
func readSetting(files Files, name string) (value int, there bool, err error) {
	text, there, err := read(files, sysctlFile(name))
	if err != nil || !there {
		return 0, false, err
	}
	if value, err = strconv.Atoi(text); err != nil {
		return 0, true, fmt.Errorf("read %s: %w", name, err)
	}
	return value, true, nil
}

func writeSetting(files Files, name string, value int) error {
	return files.WriteFile(sysctlFile(name), []byte(strconv.Itoa(value)+"\n"), 0o644)
}

// packages are installed from the distribution's archive.
type packages []string

func (p packages) String() string { return "install " + list(p) + " with apt-get" }

// Apply asks for fresh package lists only when the installation does not
// succeed with those at hand, and then also lets dpkg finish what an earlier
// run that was killed has left half done.
func (p packages) Apply(ctx context.Context, sys System) error {
	err := aptGet(ctx, sys, append([]string{"install", "--no-install-recommends", "--no-remove"}, p...)...)
	if err != nil {
		_, finish := sys.Programs.Run(ctx, Command{Program: "dpkg", Args: []string{"--configure", "-a"}, Env: quiet()})
		update := aptGet(ctx, sys, "update")
		again := aptGet(ctx, sys, append([]string{"install", "--no-install-recommends", "--no-remove"}, p...)...)
		if again != nil {
			return errors.Join(err, finish, update, again)
		}
	}
	if !slices.Contains(p, "docker.io") {
		return nil
	}
	// From Debian 13 on the client is a package of its own, and only
	// recommended by docker.io.
	if _, err := sys.Programs.Look("docker"); err != nil {
		return aptGet(ctx, sys, "install", "--no-install-recommends", "--no-remove", "docker-cli")
	}
	return nil
}

// aptGet waits for another package manager to end: machines that have just
// been started upgrade themselves for minutes.
func aptGet(ctx context.Context, sys System, args ...string) error {
	args = append([]string{"-qq", "-y", "-o", "DPkg::Lock::Timeout=300"}, args...)
	_, err := sys.Programs.Run(ctx, Command{Program: "apt-get", Args: args, Env: quiet()})
	return err
}

func quiet() []string { return []string{"DEBIAN_FRONTEND=noninteractive"} }

// list joins names as a sentence does.
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
