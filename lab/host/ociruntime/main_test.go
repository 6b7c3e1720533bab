package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var drop = []string{"CAP_SYS_RESOURCE", "CAP_BPF"}

const (
	process      = `{"args":["x<y"],"capabilities":{"ambient":null,"bounding":["CAP_BPF","CAP_CHOWN","CAP_SYS_RESOURCE"],"effective":["CAP_CHOWN"],"permitted":["CAP_BPF"]},"oomScoreAdj":12345678901234567890}`
	processAfter = `{"args":["x\u003cy"],"capabilities":{"ambient":null,"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"permitted":[]},"oomScoreAdj":12345678901234567890}`
)

func TestEdit(t *testing.T) {
	tests := map[string]struct {
		args   string // FILE and FOLDER stand for the file and what it is in
		before string
		after  string
	}{
		"create":             {"--root /r --log /l --log-format json --systemd-cgroup create --bundle FOLDER --pid-file /p id", `{"process":` + process + `}`, `{"process":` + processAfter + `}`},
		"run, short flag":    {"run -b FOLDER id", `{"process":` + process + `}`, `{"process":` + processAfter + `}`},
		"restore, with =":    {"--root=/r --debug restore --detach --bundle=FOLDER id", `{"process":` + process + `}`, `{"process":` + processAfter + `}`},
		"exec":               {"--root create exec --process FILE --detach id", process, processAfter},
		"exec, short flag":   {"exec -p FILE id", process, processAfter},
		"exec of a command":  {"exec id true", process, process},
		"start":              {"--root /r start --bundle FOLDER id", process, process},
		"nothing":            {"--version", process, process},
		"flag without value": {"--root", process, process},
		"no process":         {"create --bundle FOLDER id", `{"hooks":{}}`, `{"hooks":{}}`},
		"no capabilities":    {"exec -p FILE id", `{"args":[]}`, `{"args":[]}`},
		"null capabilities":  {"exec -p FILE id", `{"capabilities":null}`, `{"capabilities":null}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			file := filepath.Join(folder, "config.json")
			if err := os.WriteFile(file, []byte(test.before), 0o600); err != nil {
				t.Fatal(err)
			}
			args := strings.Fields(strings.NewReplacer("FILE", file, "FOLDER", folder).Replace(test.args))
			if err := edit(args, drop); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(file)
			if err != nil || string(after) != test.after {
				t.Errorf("got  %s, %v\nwant %s", after, err, test.after)
			}
			if left, err := os.ReadDir(folder); len(left) != 1 || err != nil {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// runc takes the folder it is started in for the bundle.
func TestEditWithoutABundleFlag(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("config.json", []byte(`{"process":`+process+`}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := edit([]string{"create", "id"}, drop); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile("config.json")
	if want := `{"process":` + processAfter + `}`; err != nil || string(after) != want {
		t.Errorf("got  %s, %v\nwant %s", after, err, want)
	}
}

func TestRunRefusesWhatItCannotRead(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "config.json")
	at := "take capabilities out of " + file + ": "
	tests := map[string]string{
		`{`:                                      "read " + file + ": unexpected end of JSON input",
		`{"process": 1}`:                         at + `read "process": json: cannot unmarshal number into Go value of type map[string]json.RawMessage`,
		`{"process": {"capabilities": [1]}}`:     at + `read "capabilities": json: cannot unmarshal array into Go value of type map[string]json.RawMessage`,
		`{"process": {"capabilities": {"a":1}}}`: at + `read the a set: json: cannot unmarshal number into Go value of type []string`,
	}
	for content, want := range tests {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run([]string{"create", "--bundle", folder, "id"}, drop); err == nil || err.Error() != want {
			t.Errorf("%s: error is %v, want %s", content, err, want)
		}
	}
}

func TestRunNeedsTheRealRuntime(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := run([]string{"--version"}, drop)
	if want := `find the real runtime: exec: "runc": executable file not found in $PATH`; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}
