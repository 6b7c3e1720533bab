package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// libDir is where Setup keeps what it leaves on a machine.
const libDir = "/usr/local/lib/fedlab"

// recordFile says what Setup has changed, so that Undo can put it back. It is
// written before each change.
const recordFile = libDir + "/setup.json"

type record struct {
	// Config is the change of daemon.json.
	Config *configChange `json:"daemonConfig,omitempty"`
	// Settings are the kernel settings that were raised.
	Settings map[string]settingChange `json:"settings,omitempty"`
	// Runtimes are the OCI runtimes that were built.
	Runtimes []string `json:"runtimes,omitempty"`
}

// configChange is daemon.json before the first change and after the last one.
type configChange struct {
	// Existed is false where there was no file.
	Existed bool   `json:"existed"`
	Before  string `json:"before"`
	After   string `json:"after"`
}

type settingChange struct {
	Before int `json:"before"`
	After  int `json:"after"`
}

func readRecord(files Files) (record, error) {
	file, err := readContent(files, recordFile)
	if err != nil {
		return record{}, err
	}
	return parseRecord(file)
}

func parseRecord(file content) (r record, err error) {
	if file.there {
		if err = json.Unmarshal([]byte(file.text), &r); err != nil {
			err = fmt.Errorf("read %s: %w", recordFile, err)
		}
	}
	return r, err
}

// changeRecord changes what recordFile says.
func changeRecord(files Files, change func(*record) error) error {
	r, err := readRecord(files)
	if err != nil {
		return err
	}
	if err := change(&r); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return files.WriteFile(recordFile, append(data, '\n'), 0o644)
}

// noteConfig notes that daemon.json becomes after. Where it is not what Setup
// left, somebody else has changed it: what Undo goes back to is then their file
// without our entries.
func noteConfig(files Files, now content, after string) error {
	return changeRecord(files, func(r *record) (err error) {
		if r.Config == nil || r.Config.After != now.text {
			before := now
			if r.Config != nil {
				if before, err = now.without(); err != nil {
					return err
				}
			}
			r.Config = &configChange{Existed: before.there, Before: before.text}
		}
		r.Config.After = after
		return nil
	})
}

func noteSetting(files Files, name string, change settingChange) error {
	return changeRecord(files, func(r *record) error {
		if last, ok := r.Settings[name]; ok && last.After == change.Before {
			change.Before = last.Before
		}
		if r.Settings == nil {
			r.Settings = map[string]settingChange{}
		}
		r.Settings[name] = change
		return nil
	})
}

func noteRuntime(files Files, path string) error {
	return changeRecord(files, func(r *record) error {
		if !slices.Contains(r.Runtimes, path) {
			r.Runtimes = append(r.Runtimes, path)
		}
		return nil
	})
}

// content is a file as it stands, byte for byte.
type content struct {
	text  string
	there bool
}

func readContent(files Files, name string) (content, error) {
	data, err := files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return content{}, nil
	}
	return content{string(data), err == nil}, err
}

// put makes a file what it was.
func (c content) put(files Files, name string, mode fs.FileMode) error {
	if c.there {
		return files.WriteFile(name, []byte(c.text), mode)
	}
	return discard(files, name)
}

// without returns daemon.json without the entries that Setup makes, and with all
// else as it is.
func (c content) without() (content, error) {
	s, err := readSettings([]byte(c.text))
	if err != nil {
		return content{}, err
	}
	_, registered := s.runtimes[runtimeName]
	if !registered && s.chosen != runtimeName {
		return c, nil
	}
	delete(s.runtimes, runtimeName)
	if s.chosen == runtimeName {
		delete(s.entries, "default-runtime")
	}
	if len(s.runtimes) == 0 {
		delete(s.entries, "runtimes")
	} else if s.entries["runtimes"], err = encoded(s.runtimes); err != nil {
		return content{}, err
	}
	if len(s.entries) == 0 {
		return content{}, nil
	}
	text, err := encoded(s.entries)
	return content{string(text), true}, err
}
