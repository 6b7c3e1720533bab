package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// Undo puts back what Setup changed on this machine: daemon.json, the OCI
// runtime and kernel settings. What somebody else has changed since stays, and
// so do packages and a daemon that runs. It announces what it will do, as Setup
// does, and does nothing where Setup has changed nothing.
//
// The error is a *MissingError for anybody but root, and while containers need
// the runtime.
func Undo(ctx context.Context, sys System, observe Observer) error {
	remedies, err := undoing(sys)
	if err != nil || len(remedies) == 0 {
		return err
	}
	if err := undoable(ctx, sys); err != nil {
		return err
	}
	if err := observe.Announced(remedies); err != nil {
		return err
	}
	for _, remedy := range remedies {
		observe.Applying(remedy)
		if err := remedy.Apply(ctx, sys); err != nil {
			return fmt.Errorf("%s: %w", remedy, err)
		}
	}
	return nil
}

func undoing(sys System) ([]Remedy, error) {
	r, err := readRecord(sys.Files)
	if err != nil {
		return nil, err
	}
	var remedies []Remedy
	now, err := readContent(sys.Files, daemonConfig)
	if err != nil {
		return nil, err
	}
	before, err := r.before(now)
	if err != nil {
		return nil, err
	}
	if before != now {
		remedies = append(remedies, putConfig{before})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		change := r.Settings[name]
		if value, _, err := readSetting(sys.Files, name); err != nil {
			return nil, err
		} else if value == change.After {
			remedies = append(remedies, putSetting{name, change.Before})
		}
	}
	paths := r.Runtimes
	settings, err := readSettings([]byte(now.text))
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(settings.path, libDir+"/") && !slices.Contains(paths, settings.path) {
		paths = append(paths, settings.path)
	}
	if _, there, err := read(sys.Files, recordFile); err != nil {
		return nil, err
	} else if there || len(paths) > 0 {
		remedies = append(remedies, removeRuntimes{strings.Join(paths, " ")})
	}
	return remedies, nil
}

// before is daemon.json as it was, as far as nobody else has changed it since.
func (r record) before(now content) (content, error) {
	if r.Config != nil && now.there && r.Config.After == now.text {
		return content{r.Config.Before, r.Config.Existed}, nil
	}
	return now.without()
}

// undoable says what keeps Undo from its work.
func undoable(ctx context.Context, sys System) error {
	if sys.UID != 0 {
		return &MissingError{Findings: []Finding{{Subject: "user", Level: Missing, Seen: "not root", Need: "root, to put back what setup changed", Cure: "run fedlab as root"}}}
	}
	pid, err := running(sys.Files, daemonPID, "dockerd")
	if err != nil || pid == 0 {
		return err
	}
	ids, err := ask(ctx, sys, "ps", "--all", "--quiet", "--no-trunc")
	if err != nil {
		return err
	}
	var users []string
	for id := range strings.FieldsSeq(string(ids)) {
		out, err := ask(ctx, sys, "inspect", "--format", "{{.HostConfig.Runtime}} {{.Name}}", id)
		if err != nil {
			return err
		}
		if runtime, name, _ := strings.Cut(strings.TrimSpace(string(out)), " "); runtime == runtimeName {
			users = append(users, strings.TrimPrefix(name, "/"))
		}
	}
	if len(users) == 0 {
		return nil
	}
	return &MissingError{Findings: []Finding{{Subject: "containers", Level: Missing, Seen: list(users) + " need the OCI runtime",
		Need: "no container that was made with it", Cure: "take labs down with 'fedlab down', and remove the others with: docker rm"}}}
}

// putConfig makes daemon.json what it was, also for the daemon that runs.
type putConfig struct{ before content }

func (p putConfig) String() string {
	if !p.before.there {
		return "remove " + daemonConfig + ", which setup made"
	}
	return "put " + daemonConfig + " back as it was, without the OCI runtime " + runtimeName
}

func (p putConfig) Apply(ctx context.Context, sys System) error {
	pid, err := running(sys.Files, daemonPID, "dockerd")
	if err != nil {
		return err
	}
	if pid != 0 {
		if err := fallBack(ctx, sys, pid, p.before); err != nil {
			return err
		}
	}
	if err := p.before.put(sys.Files, daemonConfig, 0o644); err != nil {
		return err
	}
	r, err := readRecord(sys.Files)
	if err != nil || r.Config == nil {
		return err
	}
	return noteUndone(sys.Files, nil)
}

// fallBack makes a daemon that runs use the default runtime of a file. A daemon
// that reads a file without the entry keeps the one that it has: so it is told
// the name first.
func fallBack(ctx context.Context, sys System, pid int, to content) error {
	now, err := readContent(sys.Files, daemonConfig)
	if err != nil {
		return err
	}
	settings, err := readSettings([]byte(now.text))
	if err != nil {
		return err
	}
	wanted, err := readSettings([]byte(to.text))
	if err != nil {
		return err
	}
	name := cmp.Or(wanted.chosen, "runc")
	if settings.entries["default-runtime"], err = encoded(name); err != nil {
		return err
	}
	interim, err := encoded(settings.entries)
	if err != nil {
		return err
	}
	// Killed here, the next Undo knows what to go on to.
	if err := noteUndone(sys.Files, &configChange{Existed: to.there, Before: to.text, After: string(interim)}); err != nil {
		return err
	}
	if err := sys.Files.WriteFile(daemonConfig, interim, 0o644); err != nil {
		return err
	}
	if err := sys.Programs.Signal(pid, syscall.SIGHUP); err != nil {
		return err
	}
	return withLog(sys.Files, await(ctx, sys, reloadBound, nil, hasDefault(name)))
}

func hasDefault(name string) func(Docker) error {
	return func(d Docker) error {
		if d.DefaultRuntime != name {
			return fmt.Errorf("its default runtime is %s", d.DefaultRuntime)
		}
		return nil
	}
}

// putSetting gives a kernel setting the value that it had.
type putSetting struct {
	name  string
	value int
}

func (p putSetting) String() string { return fmt.Sprintf("set %s back to %d", p.name, p.value) }

func (p putSetting) Apply(_ context.Context, sys System) error {
	return writeSetting(sys.Files, p.name, p.value)
}

// removeRuntimes removes what was built, and the record last: until then Undo
// may be run again.
type removeRuntimes struct{ paths string }

func (r removeRuntimes) String() string {
	return "remove the OCI runtime and the record of what setup changed from " + libDir
}

func (r removeRuntimes) Apply(_ context.Context, sys System) error {
	var names []string
	for path := range strings.FieldsSeq(r.paths) {
		names = append(names, path, path+".go", path+sumSuffix)
	}
	for _, name := range append(names, recordFile) {
		if err := discard(sys.Files, name); err != nil {
			return err
		}
	}
	// Files of somebody else keep the folder.
	_ = sys.Files.Remove(libDir)
	return nil
}

type snapshot struct{ config, record content }

func takeSnapshot(files Files) (s snapshot, err error) {
	if s.config, err = readContent(files, daemonConfig); err != nil {
		return s, err
	}
	s.record, err = readContent(files, recordFile)
	return s, err
}

func (s snapshot) restore(ctx context.Context, sys System) error {
	now, err := readContent(sys.Files, daemonConfig)
	if err != nil || now == s.config {
		return err
	}
	pid, err := running(sys.Files, daemonPID, "dockerd")
	if err != nil {
		return err
	}
	var told error
	if pid != 0 {
		told = fallBack(ctx, sys, pid, s.config)
	}
	err = errors.Join(told, s.config.put(sys.Files, daemonConfig, 0o644), s.restoreRecord(sys.Files))
	if err != nil {
		return fmt.Errorf("put %s back: %w", daemonConfig, err)
	}
	return nil
}

// restoreRecord forgets the change of daemon.json and keeps the others.
func (s snapshot) restoreRecord(files Files) error {
	was, err := parseRecord(s.record)
	if err != nil {
		return err
	}
	return noteUndone(files, was.Config)
}

// noteUndone notes what is left of the change of daemon.json.
func noteUndone(files Files, left *configChange) error {
	return changeRecord(files, func(r *record) error {
		r.Config = left
		return nil
	})
}
